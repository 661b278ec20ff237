# Large library headers are compiled once: a third of a build's time otherwise. Sources still include what they use
# (the tidy preset builds without). A source with options of its own cannot take part: SKIP_PRECOMPILE_HEADERS.
option(SLUICE_PRECOMPILE "Precompile the headers of large libraries, join sources of libraries and of test programs" ON)

# sluice_precompiled_set(<name> USES targets... HEADERS ...): headers for targets with the compile options of the
# folder that calls this.
function(sluice_precompiled_set name)
  if(NOT SLUICE_PRECOMPILE)
    return()
  endif()
  cmake_parse_arguments(arg "" "" "USES;HEADERS" ${ARGN})
  file(GENERATE OUTPUT "${CMAKE_CURRENT_BINARY_DIR}/${name}.cc" CONTENT "")
  add_library(${name} OBJECT "${CMAKE_CURRENT_BINARY_DIR}/${name}.cc")
  target_link_libraries(${name} PRIVATE sluice_build ${arg_USES})
  target_precompile_headers(${name} PRIVATE ${arg_HEADERS})
endfunction()

# sluice_use_precompiled(<target> <set>): the target's C++ sources see the headers of the set, if it exists.
function(sluice_use_precompiled target set)
  if(TARGET ${set})
    target_precompile_headers(${target} REUSE_FROM ${set})
  endif()
endfunction()
