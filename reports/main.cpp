// dsa-report: reads what dsa-bench wrote, writes pages, comments and charts beside it.
// Exit codes: 0 fine, 1 the user can fix it, 3 a bug of ours.
#include "reports/gate_report.h"
#include "reports/publish.h"
#include "reports/report.h"

#include <CLI/CLI.hpp>

#include <iostream>

namespace fs = std::filesystem;
namespace report = dsa::report;

namespace {

struct Options {
  std::vector<std::string> folders;
  std::string results = "results";
  std::string folder;
  report::PictureOptions pictures;
};

void write(const report::Document& document, const fs::path& folder, const std::string& charts,
           const Options& options) {
  const std::string problem = report::publish(document, folder, charts, options.pictures);
  std::cout << (folder / (document.stem + ".html")).string() << "\n"
            << (folder / (document.stem + ".md")).string() << "\n";
  if (!problem.empty()) std::cerr << "dsa-report: no pictures: " << problem << "\n";
}

void make(const Options& options) {
  std::vector<std::string> folders = options.folders;
  if (folders.empty()) folders = {report::newest_run(options.results).string()};
  for (const std::string& folder : folders) {
    write(report::build(report::load(folder)), folder, "", options);
  }
}

void add_picture_options(CLI::App* command, Options& options) {
  command->add_option("--python", options.pictures.python,
                      "Python with vl-convert (default: the project's .venv, else python3)");
  command->add_flag("--no-pictures", options.pictures.no_pictures,
                    "do not call Python: no SVG, no PNG, no drawn charts");
}

void add_make(CLI::App& app, Options& options) {
  CLI::App* command =
      app.add_subcommand("make", "write report.md, report.html and charts/ into a run's folder");
  command->add_option("folders", options.folders,
                      "folders of runs; default: the newest under --results");
  command->add_option("--results", options.results, "where runs lie")->capture_default_str();
  add_picture_options(command, options);
  command->callback([&options] { make(options); });
}

void add_gate(CLI::App& app, Options& options) {
  CLI::App* command = app.add_subcommand(
      "gate", "write gate.md (for a pull request), gate.html and charts/ into a gate's folder");
  command->add_option("folder", options.folder, "where dsa-bench gate wrote verdict.json")
      ->required();
  add_picture_options(command, options);
  command->callback([&options] {
    write(report::build(report::load_gate(options.folder)), options.folder, "gate_", options);
  });
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"Turns the records of dsa-bench into reports.", "dsa-report"};
  app.require_subcommand(1);
  app.set_help_all_flag("--help-all", "help of all commands");
  Options options;
  add_make(app, options);
  add_gate(app, options);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app.exit(error);
    std::cerr << "dsa-report: " << error.what() << "; see dsa-report --help-all\n";
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
