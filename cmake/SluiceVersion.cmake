# Writes generated/core/build_config.h: build switches as constexpr, so that no header needs an #ifdef.
execute_process(COMMAND git describe --always --dirty --abbrev=12
  WORKING_DIRECTORY "${PROJECT_SOURCE_DIR}" OUTPUT_VARIABLE SLUICE_COMMIT
  OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
if(NOT SLUICE_COMMIT)
  set(SLUICE_COMMIT "unknown")
endif()
if(SLUICE_CUDA)
  set(SLUICE_WITH_CUDA true)
else()
  set(SLUICE_WITH_CUDA false)
endif()
configure_file("${PROJECT_SOURCE_DIR}/cmake/build_config.h.in"
  "${PROJECT_BINARY_DIR}/generated/core/build_config.h" @ONLY)
