# `cmake --install BUILD --prefix DIR --strip` gives a folder that runs wherever it is moved to:
#   bin/                 sluice, sluice_tests
#   lib/                 every shared library they need but the system's, found through $ORIGIN
#   share/sluice/        configs/, and tests.tar.gz: the files that sluice_tests reads (it unpacks them itself)
#   share/doc/sluice/    this project's licence and those of the bundled libraries
# The system's are those of glibc and GCC, which every Debian and Ubuntu has; bundling the build machine's
# libstdc++ would ask for its glibc. Libraries of a GPU driver or toolkit are never bundled either.
set(SLUICE_NEVER_BUNDLED
  "^(ld-linux.*|linux-vdso.*|lib(c|m|dl|rt|pthread|resolv|util|anl|mvec)\\.so.*)$"
  "^lib(stdc\\+\\+|gcc_s)\\.so.*$"
  "^lib(cuda|cudart|cublas|cublasLt|cusparse|nvidia|nvrtc|nccl).*")

set(installed sluice)
if(SLUICE_TESTS)
  list(APPEND installed sluice_tests)
endif()
foreach(program ${installed})
  set_target_properties(${program} PROPERTIES INSTALL_RPATH "$ORIGIN/../lib")
  # DT_RPATH and not DT_RUNPATH: only the former also serves the libraries that our libraries need.
  target_link_options(${program} PRIVATE -Wl,--disable-new-dtags)
endforeach()

install(TARGETS ${installed} RUNTIME_DEPENDENCY_SET sluice_libraries RUNTIME DESTINATION bin)
install(RUNTIME_DEPENDENCY_SET sluice_libraries PRE_EXCLUDE_REGEXES ${SLUICE_NEVER_BUNDLED}
  LIBRARY DESTINATION lib)
install(DIRECTORY configs DESTINATION share/sluice)
if(SLUICE_TESTS)
  # Two thirds of the folder's size otherwise.
  install(CODE "
    file(MAKE_DIRECTORY \"\${CMAKE_INSTALL_PREFIX}/share/sluice\")
    execute_process(COMMAND \"${CMAKE_COMMAND}\" -E tar czf \"\${CMAKE_INSTALL_PREFIX}/share/sluice/tests.tar.gz\"
      tests/golden tests/fuzz/seeds configs WORKING_DIRECTORY \"${PROJECT_SOURCE_DIR}\" COMMAND_ERROR_IS_FATAL ANY)")
endif()

install(FILES LICENSE README.md DESTINATION share/doc/sluice)
foreach(package libfmt9 libhwy1 libpcre2-8-0 libspdlog1.10 liburing2 libxxhash0 libyaml-cpp0.7)
  install(FILES "/usr/share/doc/${package}/copyright" DESTINATION share/doc/sluice/licences RENAME ${package} OPTIONAL)
endforeach()
