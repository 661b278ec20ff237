# One interface target carries the language level, the warnings and the sanitizers; there are no global flags.
add_library(sluice_build INTERFACE)
target_compile_features(sluice_build INTERFACE cxx_std_20)
target_include_directories(sluice_build INTERFACE
  "$<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}>" "$<BUILD_INTERFACE:${PROJECT_BINARY_DIR}/generated>")
target_compile_options(sluice_build INTERFACE
  $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra -Wpedantic -Wshadow -Wnon-virtual-dtor -Wconversion -Wno-sign-conversion
    -ffp-contract=off>
  $<$<AND:$<COMPILE_LANGUAGE:CXX>,$<CXX_COMPILER_ID:Clang>>:-Wthread-safety>)
target_link_libraries(sluice_build INTERFACE Threads::Threads)
if(SLUICE_SANITIZE)
  target_compile_options(sluice_build INTERFACE
    $<$<COMPILE_LANGUAGE:CXX>:-fsanitize=${SLUICE_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all>)
  target_link_options(sluice_build INTERFACE -fsanitize=${SLUICE_SANITIZE})
endif()

# sluice_library(<name> [USES targets...] HEADERS ... SOURCES ... [CUDA_SOURCES ...])
function(sluice_library name)
  cmake_parse_arguments(arg "" "" "USES;HEADERS;SOURCES;CUDA_SOURCES" ${ARGN})
  add_library(${name} STATIC)
  target_sources(${name} PRIVATE ${arg_SOURCES}
    PUBLIC FILE_SET HEADERS BASE_DIRS "${PROJECT_SOURCE_DIR}" FILES ${arg_HEADERS})
  if(SLUICE_CUDA)
    target_sources(${name} PRIVATE ${arg_CUDA_SOURCES})
  endif()
  target_link_libraries(${name} PUBLIC sluice_build ${arg_USES})
endfunction()

# sluice_test(<name> [USES targets...] SOURCES ... LABELS ... [TIMEOUT seconds])
# Every test source also goes into the one installed binary, sluice_tests (tests/CMakeLists.txt).
function(sluice_test name)
  cmake_parse_arguments(arg "" "TIMEOUT" "USES;SOURCES;LABELS" ${ARGN})
  if(NOT arg_TIMEOUT)
    set(arg_TIMEOUT 120)
  endif()
  add_executable(${name} ${arg_SOURCES})
  target_link_libraries(${name} PRIVATE ${arg_USES} sluice_test_support GTest::gmock GTest::gtest_main)
  add_test(NAME ${name} COMMAND ${name})
  set_tests_properties(${name} PROPERTIES LABELS "${arg_LABELS}" TIMEOUT ${arg_TIMEOUT}
    SKIP_REGULAR_EXPRESSION "\\[  SKIPPED \\] 1 test.*\n.*\\[  PASSED  \\] 0 tests")
  list(TRANSFORM arg_SOURCES PREPEND "${CMAKE_CURRENT_SOURCE_DIR}/" OUTPUT_VARIABLE absolute_sources)
  set_property(GLOBAL APPEND PROPERTY sluice_test_sources ${absolute_sources})
  set_property(GLOBAL APPEND PROPERTY sluice_test_uses ${arg_USES})
endfunction()
