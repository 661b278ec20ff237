# One interface target carries the language level, the warnings and the sanitizers; there are no global flags.
add_library(sluice_build INTERFACE)
target_compile_features(sluice_build INTERFACE cxx_std_20)
target_include_directories(sluice_build INTERFACE
  "$<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}>" "$<BUILD_INTERFACE:${PROJECT_BINARY_DIR}/generated>")
target_compile_options(sluice_build INTERFACE
  $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra -Wpedantic -Wshadow -Wnon-virtual-dtor -Wconversion -Wno-sign-conversion
    -ffp-contract=off>
  $<$<AND:$<COMPILE_LANGUAGE:CXX>,$<CXX_COMPILER_ID:Clang>>:-Wthread-safety>)
# Line numbers for profilers; warnings of the host compiler that its own generated code would raise stay off.
target_compile_options(sluice_build INTERFACE
  $<$<COMPILE_LANGUAGE:CUDA>:-lineinfo --expt-relaxed-constexpr -Xcompiler=-Wall,-Wextra>)
# The tensor cores' kernels are a fourteenth of their size that way, in three programs and libraries.
if(SLUICE_CUDA AND CMAKE_CUDA_COMPILER_VERSION VERSION_GREATER_EQUAL 12.8)
  target_compile_options(sluice_build INTERFACE $<$<COMPILE_LANGUAGE:CUDA>:--compress-mode=size>)
endif()
target_link_libraries(sluice_build INTERFACE Threads::Threads)
if(SLUICE_SANITIZE)
  target_compile_options(sluice_build INTERFACE
    $<$<COMPILE_LANGUAGE:CXX>:-fsanitize=${SLUICE_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all>)
  target_link_options(sluice_build INTERFACE -fsanitize=${SLUICE_SANITIZE})
endif()

if(SLUICE_LIBFUZZER)
  if(NOT CMAKE_CXX_COMPILER_ID STREQUAL "Clang")
    message(FATAL_ERROR "SLUICE_LIBFUZZER needs Clang; the default driver works with any compiler")
  endif()
  target_compile_options(sluice_build INTERFACE -fsanitize=fuzzer-no-link)
endif()

# sluice_library(<name> [JOINED] [USES targets...] [PRECOMPILED set] HEADERS ... SOURCES ... [CUDA_SOURCES ...])
# JOINED: eight sources are compiled as one unit, so names in unnamed namespaces, using-declarations and macros must not
# clash among them.
function(sluice_library name)
  cmake_parse_arguments(arg "JOINED" "PRECOMPILED" "USES;HEADERS;SOURCES;CUDA_SOURCES" ${ARGN})
  add_library(${name} STATIC)
  target_sources(${name} PRIVATE ${arg_SOURCES}
    PUBLIC FILE_SET HEADERS BASE_DIRS "${PROJECT_SOURCE_DIR}" FILES ${arg_HEADERS})
  if(SLUICE_CUDA)
    target_sources(${name} PRIVATE ${arg_CUDA_SOURCES})
  endif()
  target_link_libraries(${name} PUBLIC sluice_build ${arg_USES})
  if(NOT arg_PRECOMPILED)
    set(arg_PRECOMPILED sluice_precompiled)
  endif()
  sluice_use_precompiled(${name} ${arg_PRECOMPILED})
  if(arg_JOINED)
    set_target_properties(${name} PROPERTIES UNITY_BUILD ${SLUICE_PRECOMPILE} UNITY_BUILD_BATCH_SIZE 8)
  endif()
endfunction()

# The sanitizer presets build and run the tests of these folders of tests/, and those labelled asan or tsan, but
# none labelled long, e2e_long, no_asan or no_tsan: parsers, kernels, I/O and engine for asan; for tsan what shares
# data among threads (no_tsan: many values, computed by threads that other tests have).
set(SLUICE_ASAN_FOLDERS core kernels policy offload e2e fuzz)
set(SLUICE_TSAN_FOLDERS offload e2e)
add_custom_target(asan_tests)
add_custom_target(tsan_tests)

# Labels a ctest for `ctest -L` and for the sanitizer presets: `labels`, its folder, asan, tsan.
function(sluice_label_test name labels)
  cmake_path(RELATIVE_PATH CMAKE_CURRENT_SOURCE_DIR BASE_DIRECTORY "${PROJECT_SOURCE_DIR}/tests" OUTPUT_VARIABLE folder)
  string(REGEX REPLACE "/.*" "" folder "${folder}")
  list(APPEND labels ${folder})
  foreach(sanitizer asan tsan)
    string(TOUPPER ${sanitizer} upper)
    if(folder IN_LIST SLUICE_${upper}_FOLDERS AND NOT "no_${sanitizer}" IN_LIST labels)
      list(APPEND labels ${sanitizer})
    endif()
    if(sanitizer IN_LIST labels AND NOT "long" IN_LIST labels AND NOT "e2e_long" IN_LIST labels)
      add_dependencies(${sanitizer}_tests ${name})
    endif()
  endforeach()
  if("gpu" IN_LIST labels)
    set_tests_properties(${name} PROPERTIES RESOURCE_LOCK gpu)  # they fill its memory, and some are timed
  endif()
  list(REMOVE_DUPLICATES labels)
  set_property(TEST ${name} PROPERTY LABELS ${labels})
endfunction()

# sluice_test(<name> [USES targets...] [RUNS targets...] SOURCES ... LABELS ... [TIMEOUT seconds])
# RUNS names executables that the test starts (support/paths.h finds `sluice`). A test program in which any
# test was skipped is reported as skipped, not as passed (support/test_main.cc). Its objects also go into the
# one installed binary, sluice_tests, so names of tests and helpers must differ: use unnamed namespaces.
function(sluice_test name)
  cmake_parse_arguments(arg "" "TIMEOUT" "USES;RUNS;SOURCES;LABELS" ${ARGN})
  if(NOT arg_TIMEOUT)
    set(arg_TIMEOUT 120)
  endif()
  if(SLUICE_SANITIZE)
    math(EXPR arg_TIMEOUT "5 * ${arg_TIMEOUT}")  # instrumented code is slower
  endif()
  add_library(${name}_objects OBJECT ${arg_SOURCES})
  target_link_libraries(${name}_objects PUBLIC ${arg_USES} sluice_test_support)
  sluice_use_precompiled(${name}_objects sluice_tests_precompiled)
  # The sources of one program as one unit: each library template is instantiated once for all of them.
  set_target_properties(${name}_objects PROPERTIES UNITY_BUILD ${SLUICE_PRECOMPILE} UNITY_BUILD_BATCH_SIZE 0)
  add_executable(${name})
  target_link_libraries(${name} PRIVATE ${name}_objects)
  if(arg_RUNS)
    add_dependencies(${name} ${arg_RUNS})
  endif()
  add_test(NAME ${name} COMMAND ${name})
  set_tests_properties(${name} PROPERTIES TIMEOUT ${arg_TIMEOUT} SKIP_RETURN_CODE 77)
  sluice_label_test(${name} "${arg_LABELS}")
  set_property(GLOBAL APPEND PROPERTY sluice_test_objects ${name}_objects)
endfunction()
