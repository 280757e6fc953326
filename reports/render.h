// Calls scripts/render_charts.py, the one place where a report needs Python: it turns charts into
// SVG and PNG and hands over the drawing scripts for the page.
#pragma once
#include <filesystem>
#include <string>

namespace dsa::report {

struct Rendered {
  bool pictures = false;
  std::string script;   ///< Vega, Vega-Lite, Vega-Embed for the page; empty without vl-convert
  std::string problem;  ///< one sentence, when pictures are missing
};

/// The interpreter to use when none is named: the project's .venv (as built, or beside the binary),
/// then python3.
std::filesystem::path default_python();

/// Renders every *.vl.json in `charts`. A missing interpreter or vl-convert is a `problem`, not an
/// error: the report appears without pictures.
Rendered render(const std::filesystem::path& charts, const std::filesystem::path& python);

}  // namespace dsa::report
