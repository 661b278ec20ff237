# Chart.js, which the report of `sluice sweep` has built in.

set(SLUICE_CHART_JS_MAJOR 3)  # report.js speaks to this one

# Sets `variable` to the version of the library in `file`, by the comment that it opens with. An error for a file that
# is missing, is something else, or has another major version.
function(sluice_chart_js_version variable file)
  set(remedy "bash scripts/setup.sh installs Chart.js (Debian's libjs-chart.js), or name another copy of chart.min.js "
    "${SLUICE_CHART_JS_MAJOR}: -DSLUICE_CHART_JS=FILE")
  if(NOT file)
    message(FATAL_ERROR "Chart.js was not found; " ${remedy})
  endif()
  if(NOT EXISTS "${file}" OR IS_DIRECTORY "${file}")
    message(FATAL_ERROR "${file}: no such file; " ${remedy})
  endif()
  file(READ "${file}" head LIMIT 1000)
  if(NOT head MATCHES "Chart\\.js v([0-9]+)(\\.[0-9]+)*")
    message(FATAL_ERROR "${file}: no version of Chart.js in its first 1000 bytes; " ${remedy})
  endif()
  set(major "${CMAKE_MATCH_1}")
  string(REGEX REPLACE "^Chart\\.js v" "" version "${CMAKE_MATCH_0}")
  if(NOT major EQUAL SLUICE_CHART_JS_MAJOR)
    message(FATAL_ERROR "${file}: Chart.js ${version}, the report needs ${SLUICE_CHART_JS_MAJOR}; " ${remedy})
  endif()
  set(${variable} "${version}" PARENT_SCOPE)
endfunction()
