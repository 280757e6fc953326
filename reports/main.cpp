// dsa-report: reads what dsa-bench wrote, writes pages, comments and charts beside it.
// Exit codes: 0 fine, 1 the user can fix it, 3 a bug of ours.
#include "reports/gate_report.h"
#include "reports/history.h"
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
  std::string store, commit, date, out;  ///< of history
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

void add_commit(const Options& options) {
  const auto entries =
      report::history_entries(report::load_gate(options.folder), options.commit, options.date);
  const report::Added added = report::add_to_history(options.store, entries);
  std::cout << options.store << ": " << added.lines << " lines added for commit "
            << entries.front().commit << ", " << added.known << " were there already\n";
  if (added.first_of_segment)
    std::cout << "first commit against anchor " << entries.front().anchor << " on "
              << entries.front().cpu << "\n";
}

void show_history(const Options& options) {
  const report::StoredHistory stored = report::read_history(options.store);
  const report::History history = report::history_of(stored);
  const fs::path folder = options.out.empty() ? options.store : options.out;
  write(report::build(stored, history), folder, "history_", options);
  report::write_file(folder / "otava.csv", report::otava_csv(history));
  std::cout << (folder / "otava.csv").string() << "\n";
  if (history.segments.size() > 1)
    std::cout << history.segments.size() << " anchors or machines, which are never joined\n";
  for (const report::HistoryBenchmark& benchmark : history.benchmarks) {
    for (const report::HistorySeries& series : benchmark.series) {
      for (const report::Change& change : series.found.changes)
        std::cout << benchmark.name << ": " << report::change_sentence(series, change) << "\n";
    }
  }
}

void add_history(CLI::App& app, Options& options) {
  CLI::App* command = app.add_subcommand("history", "ratios to a pinned binary over commits");
  command->require_subcommand(1);
  CLI::App* add = command->add_subcommand("add", "append what a gate against the anchor found");
  add->add_option("folder", options.folder, "where dsa-bench gate wrote verdict.json")->required();
  add->add_option("--commit", options.commit, "default: head's commit in verdict.json");
  add->add_option("--date", options.date,
                  "UTC, like 2026-11-27T02:15:00Z; default: the gate's end");
  CLI::App* show = command->add_subcommand(
      "show", "write history.md, history.html, charts/ and otava.csv, print changes of level");
  show->add_option("--out", options.out, "where to write; default: the store");
  add_picture_options(show, options);
  for (CLI::App* one : {add, show})
    one->add_option("--store", options.store, "folder of history.jsonl")->required();
  add->callback([&options] { add_commit(options); });
  show->callback([&options] { show_history(options); });
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"Turns the records of dsa-bench into reports.", "dsa-report"};
  Options options;
  try {
    app.require_subcommand(1);
    app.set_help_all_flag("--help-all", "help of all commands");
    add_make(app, options);
    add_gate(app, options);
    add_history(app, options);
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
