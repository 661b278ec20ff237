# `cmake --install BUILD --prefix DIR --strip` gives a folder that runs wherever it is moved to:
#   bin/                 sluice, sluice_tests
#   lib/                 every shared library they need but the system's, found through $ORIGIN; libsluice_spmm.so
#   include/, lib/cmake/ what other programs build against: find_package(SluiceSpmm) gives Sluice::spmm
#   share/sluice/        configs/, spmm_example/, gpu-check.sh, and tests.tar.gz: the files that sluice_tests reads (it
#                        unpacks them)
#   share/doc/sluice/    this project's licence and those of the bundled libraries
# The system's are those of glibc and GCC, which every Debian and Ubuntu has; bundling the build machine's
# libstdc++ would ask for its glibc. Libraries of a GPU driver or toolkit are never bundled either.
set(SLUICE_NEVER_BUNDLED
  "^(ld-linux.*|linux-vdso.*|lib(c|m|dl|rt|pthread|resolv|util|anl|mvec)\\.so.*)$"
  "^lib(stdc\\+\\+|gcc_s)\\.so.*$"
  "^libsluice_.*"  # installed by name
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

set_target_properties(sluice_spmm PROPERTIES INSTALL_RPATH "$ORIGIN")
target_link_options(sluice_spmm PRIVATE -Wl,--disable-new-dtags)

install(TARGETS ${installed} RUNTIME_DEPENDENCY_SET sluice_libraries RUNTIME DESTINATION bin)
install(TARGETS sluice_spmm EXPORT SluiceSpmm RUNTIME_DEPENDENCY_SET sluice_libraries LIBRARY DESTINATION lib
  FILE_SET HEADERS DESTINATION include)
install(EXPORT SluiceSpmm FILE SluiceSpmmTargets.cmake NAMESPACE Sluice:: DESTINATION lib/cmake/SluiceSpmm)
include(CMakePackageConfigHelpers)
configure_package_config_file(kernels/spmm/SluiceSpmmConfig.cmake.in "${PROJECT_BINARY_DIR}/SluiceSpmmConfig.cmake"
  INSTALL_DESTINATION lib/cmake/SluiceSpmm NO_SET_AND_CHECK_MACRO)
write_basic_package_version_file("${PROJECT_BINARY_DIR}/SluiceSpmmConfigVersion.cmake" COMPATIBILITY SameMajorVersion)
install(FILES "${PROJECT_BINARY_DIR}/SluiceSpmmConfig.cmake" "${PROJECT_BINARY_DIR}/SluiceSpmmConfigVersion.cmake"
  DESTINATION lib/cmake/SluiceSpmm)
install(DIRECTORY kernels/spmm/example/ DESTINATION share/sluice/spmm_example)
install(RUNTIME_DEPENDENCY_SET sluice_libraries PRE_EXCLUDE_REGEXES ${SLUICE_NEVER_BUNDLED}
  LIBRARY DESTINATION lib)
install(DIRECTORY configs DESTINATION share/sluice)
install(PROGRAMS scripts/gpu-check.sh DESTINATION share/sluice)
if(SLUICE_TESTS)
  # Two thirds of the folder's size otherwise.
  install(CODE "
    file(MAKE_DIRECTORY \"\${CMAKE_INSTALL_PREFIX}/share/sluice\")
    execute_process(COMMAND tar cf - tests/golden tests/fuzz/seeds configs COMMAND gzip -9 --no-name
      WORKING_DIRECTORY \"${PROJECT_SOURCE_DIR}\" OUTPUT_FILE \"\${CMAKE_INSTALL_PREFIX}/share/sluice/tests.tar.gz\"
      COMMAND_ERROR_IS_FATAL ANY)")
endif()

install(FILES LICENSE README.md DESTINATION share/doc/sluice)
foreach(package libfmt9 libhwy1 libjs-chart.js libpcre2-8-0 libspdlog1.10 liburing2 libxxhash0 libyaml-cpp0.7)
  install(FILES "/usr/share/doc/${package}/copyright" DESTINATION share/doc/sluice/licences RENAME ${package} OPTIONAL)
endforeach()
