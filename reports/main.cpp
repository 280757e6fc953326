// dsa-report make [results/<stamp> ...]: reads records, writes report.md, report.html and charts/
// into each run's folder. Exit codes: 0 fine, 1 the user can fix it, 3 a bug of ours.
#include "reports/render.h"
#include "reports/report.h"

#include <CLI/CLI.hpp>

#include <cstdio>
#include <iostream>
#include <set>

namespace fs = std::filesystem;
namespace report = dsa::report;

namespace {

struct MakeOptions {
  std::vector<std::string> folders;
  std::string results = "results";
  std::string python;
  bool no_pictures = false;
};

/// Charts of an earlier report that this one no longer draws would look like current ones.
void remove_stale(const fs::path& folder, const std::vector<report::Chart>& charts) {
  std::set<std::string> keep;
  for (const report::Chart& chart : charts) keep.insert(chart.id);
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    const std::string stem = name.substr(0, name.find('.'));
    const std::string ending = name.substr(stem.size());
    const bool picture = ending == ".svg" || ending == ".png";
    if (picture || (ending == ".vl.json" && !keep.contains(stem))) fs::remove(entry.path());
  }
}

void make(const fs::path& folder, const MakeOptions& options) {
  const report::LoadedRun loaded = report::load(folder);
  const report::Document document = report::build(loaded);
  const std::vector<report::Chart> charts = report::figures(document);
  const fs::path chart_folder = folder / "charts";
  std::error_code failed;
  fs::create_directories(chart_folder, failed);
  if (failed)
    throw report::Error("cannot write " + chart_folder.string() + ": " + failed.message());
  remove_stale(chart_folder, charts);
  for (const report::Chart& chart : charts) {
    report::write_file(chart_folder / (chart.id + ".vl.json"), chart.spec.dump(1) + "\n");
  }
  report::Rendered rendered;
  if (options.no_pictures) {
    rendered.problem = "pictures were not asked for (--no-pictures)";
  } else if (!charts.empty()) {
    rendered = report::render(
        chart_folder, options.python.empty() ? report::default_python() : fs::path(options.python));
  } else {
    rendered.pictures = true;  // nothing to draw is no problem to tell
  }
  report::write_file(folder / "report.md", report::markdown(document, rendered.pictures));
  report::write_file(folder / "report.html", report::html(document, rendered.script));
  std::cout << (folder / "report.html").string() << "\n" << (folder / "report.md").string() << "\n";
  if (!rendered.problem.empty())
    std::cerr << "dsa-report: no pictures: " << rendered.problem << "\n";
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"Turns the records of dsa-bench into reports.", "dsa-report"};
  app.require_subcommand(1);
  MakeOptions options;
  CLI::App* command =
      app.add_subcommand("make", "write report.md, report.html and charts/ into a run's folder");
  command->add_option("folders", options.folders,
                      "folders of runs; default: the newest under --results");
  command->add_option("--results", options.results, "where runs lie")->capture_default_str();
  command->add_option("--python", options.python,
                      "Python with vl-convert (default: the project's .venv, else python3)");
  command->add_flag("--no-pictures", options.no_pictures,
                    "do not call Python: no SVG, no PNG, no drawn charts");
  try {
    app.parse(argc, argv);
    if (options.folders.empty()) options.folders = {report::newest_run(options.results).string()};
    for (const std::string& folder : options.folders) make(folder, options);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app.exit(error);
    std::cerr << "dsa-report: " << error.what() << "; see dsa-report make --help\n";
    return 1;
  } catch (const report::Error& error) {
    std::cerr << "dsa-report: " << error.what() << "\n";
    return 1;
  } catch (const std::exception& error) {
    std::cerr << "dsa-report: a bug of ours, please report it: " << error.what() << "\n";
    return 3;
  }
  return 0;
}
