#include "reports/publish.h"

#include "reports/load.h"
#include "reports/render.h"

#include <set>

namespace dsa::report {
namespace fs = std::filesystem;
namespace {

/// Charts of an earlier report that this one no longer draws would look like current ones.
void remove_stale(const fs::path& folder, const std::string& prefix,
                  const std::vector<Chart>& charts) {
  std::set<std::string> keep;
  for (const Chart& chart : charts) keep.insert(chart.id);
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    if (!name.starts_with(prefix)) continue;
    const std::string stem = name.substr(0, name.find('.'));
    const std::string ending = name.substr(stem.size());
    const bool picture = ending == ".svg" || ending == ".png";
    if (picture || (ending == ".vl.json" && !keep.contains(stem))) fs::remove(entry.path());
  }
}

}  // namespace

std::string publish(const Document& document, const fs::path& folder, const std::string& prefix,
                    const PictureOptions& options) {
  const std::vector<Chart> charts = figures(document);
  const fs::path chart_folder = folder / "charts";
  std::error_code failed;
  fs::create_directories(chart_folder, failed);
  if (failed) throw Error("cannot write " + chart_folder.string() + ": " + failed.message());
  remove_stale(chart_folder, prefix, charts);
  for (const Chart& chart : charts) {
    write_file(chart_folder / (chart.id + ".vl.json"), chart.spec.dump(1) + "\n");
  }
  Rendered rendered;
  if (options.no_pictures) {
    rendered.problem = "pictures were not asked for (--no-pictures)";
  } else if (!charts.empty()) {
    rendered =
        render(chart_folder, options.python.empty() ? default_python() : fs::path(options.python));
  } else {
    rendered.pictures = true;  // nothing to draw is no problem to tell
  }
  write_file(folder / (document.stem + ".md"), markdown(document, rendered.pictures));
  write_file(folder / (document.stem + ".html"), html(document, rendered.script));
  return rendered.problem;
}

}  // namespace dsa::report
