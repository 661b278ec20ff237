// The HTML page of a sweep: template, style, script and chart library are built in, the results are put
// between them as JSON. One file, which needs nothing else. Pure but for write_report.
#pragma once

#include <string>

#include "apps/sweep/point_file.h"

namespace sluice::apps {

std::string report_html(const SweepResults& results);

/// Throws Error{kIo, kNotFound}.
void write_report(const std::string& path, const SweepResults& results);

}  // namespace sluice::apps
