# cmake -DFOLDER=DIR -P FILE: what is said, while configuring, of a chart library that will not do. DIR is made anew.
include("${CMAKE_CURRENT_LIST_DIR}/../../cmake/SluiceChartJs.cmake")
if(DEFINED CHECKED)  # one case, in a process of its own
  sluice_chart_js_version(version "${CHECKED}")
  message(STATUS "Chart.js ${version} is taken")
  return()
endif()

file(REMOVE_RECURSE "${FOLDER}")
file(WRITE "${FOLDER}/fits.js" "/*!\n * Chart.js v3.9.1\n * https://www.chartjs.org\n */\n!function(){}")
file(WRITE "${FOLDER}/old.js" "/*!\n * Chart.js v2.9.4\n */\n")
file(WRITE "${FOLDER}/new.js" "/*!\n * Chart.js v4.4.0\n */\n")
file(WRITE "${FOLDER}/other.js" "/*! jQuery v3.6.1 */\n")
file(WRITE "${FOLDER}/empty.js" "")

# expect(FILE succeeds|fails WORDS...): each of the words is in what is printed.
function(expect file end)
  execute_process(COMMAND "${CMAKE_COMMAND}" "-DCHECKED=${file}" -P "${CMAKE_CURRENT_FUNCTION_LIST_FILE}"
    RESULT_VARIABLE status OUTPUT_VARIABLE out ERROR_VARIABLE err)
  string(REGEX REPLACE "[ \n]+" " " said "${out}${err}")  # lines are broken to fit a terminal
  if(status EQUAL 0 AND end STREQUAL "fails" OR NOT status EQUAL 0 AND end STREQUAL "succeeds")
    message(SEND_ERROR "${file}: exit status ${status}, but ${end} was expected: ${said}")
  endif()
  foreach(words ${ARGN})
    string(FIND "${said}" "${words}" at)
    if(at EQUAL -1)
      message(SEND_ERROR "${file}: '${words}' is not in: ${said}")
    endif()
  endforeach()
endfunction()

set(remedy "setup.sh installs Chart.js" "-DSLUICE_CHART_JS=FILE")
expect("${FOLDER}/fits.js" succeeds "Chart.js 3.9.1 is taken")
expect("${FOLDER}/old.js" fails "Chart.js 2.9.4, the report needs 3" ${remedy})
expect("${FOLDER}/new.js" fails "Chart.js 4.4.0, the report needs 3" ${remedy})
expect("${FOLDER}/other.js" fails "no version of Chart.js" ${remedy})
expect("${FOLDER}/empty.js" fails "no version of Chart.js" ${remedy})
expect("${FOLDER}/none.js" fails "none.js: no such file" ${remedy})
expect("${FOLDER}" fails "no such file" ${remedy})
expect("SLUICE_CHART_JS-NOTFOUND" fails "Chart.js was not found" ${remedy})
