// `dsa-bench run`: refuse what cannot work before anything is measured, then let Google Benchmark
// drive the selected rows, and leave a run folder whatever happens.
#include "bench/audits.h"
#include "bench/commands.h"
#include "bench/google.h"
#include "bench/reporter.h"
#include "bench/run_record.h"
#include "bench/selection.h"
#include "harness/machine.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cstdio>
#include <set>

namespace dsa::bench {
namespace {

namespace fs = std::filesystem;

std::string value_of(const CommandLine& line, const std::string& flag) {
  std::string value;
  for (const auto& word : line.benchmark_flags) {
    if (word == flag) value = "true";
    if (word.starts_with(flag + "=")) value = word.substr(flag.size() + 1);
  }
  return value;
}

bool is_true(const std::string& value) {
  return value == "true" || value == "1" || value == "yes";
}

std::unique_ptr<benchmark::BenchmarkReporter> format_asked_for(const CommandLine& line) {
  const std::string format = value_of(line, "--benchmark_format");
  if (format == "json") return std::make_unique<benchmark::JSONReporter>();
  if (format == "console") return std::make_unique<benchmark::ConsoleReporter>();
  require(format.empty(), "--benchmark_format is ", format, "; it may be json or console");
  return nullptr;
}

bool trains(const std::vector<Row*>& rows) {
  return std::any_of(rows.begin(), rows.end(), [](const Row* row) { return row->trains(); });
}

/// Everything about the data that can be wrong is found out before the first measurement.
std::shared_ptr<const Corpus> load_data(const std::vector<Row*>& rows, const RunConfig& config) {
  auto corpus = std::make_shared<Corpus>(load_corpus(config.task, config.data));
  for (const int64_t length : config.lengths) {
    const std::string text = std::to_string(length);
    const bool used = std::any_of(rows.begin(), rows.end(), [&](const Row* row) {
      return row->trains() && row->labels.at("L") == text;
    });
    if (!used) continue;
    training_batches(config.task, *corpus, length, config.train.batch, config.seeds.front());
    test_tiles(config.task, *corpus, length, config.train.batch);
  }
  check_training(rows, config, *corpus);
  return corpus;
}

std::unique_ptr<Recorder> open_recorder(const RunConfig& asked, const std::string& command) {
  if (asked.resume.empty()) {
    return std::make_unique<Recorder>(asked.out, new_run(asked, command), machine_context());
  }
  if (const auto difference = first_difference(recorded_config(asked.resume), asked)) {
    throw Error("--resume " + asked.resume + " was another run: " + *difference +
                "; give the same settings, or none");
  }
  return std::make_unique<Recorder>(fs::path(asked.resume), machine_context());
}

int finish(Session& session, bool quiet) {
  Recorder& recorder = *session.recorder;
  int code = kFine;
  std::string status = "done", error;
  if (stop_requested()) {
    status = "interrupted", error = "interrupted by the user", code = kInterrupted;
  } else if (session.gate_failed || (session.seed_failed && session.config.strict)) {
    status = "failed", code = kGateFailed;
    error = "some benchmarks failed, see failures.json";
  } else if (session.failed_audits > 0 && session.config.strict) {
    code = kGateFailed;  // the run itself is whole
  }
  recorder.finish(status, error);
  if (quiet) return code;
  if (!error.empty()) std::fprintf(stderr, "dsa-bench: %s\n", error.c_str());
  const std::string folder = recorder.folder().string();
  std::printf("%s: files in %s; report: dsa-report make %s\n", status.c_str(), folder.c_str(),
              folder.c_str());
  return code;
}

/// What `chosen` trains, in the order of the table. Audits compare it with the baseline.
std::vector<std::string> trained_variants(const std::vector<Row*>& chosen) {
  std::vector<std::string> names;
  for (const auto& row : variants()) {
    const bool trained = std::any_of(chosen.begin(), chosen.end(), [&](const Row* benchmark) {
      return benchmark->trains() && benchmark->labels.at("variant") == row.name;
    });
    if (trained) names.push_back(row.name);
  }
  return names;
}

/// The measuring part of a run: audits around what Google Benchmark drives.
void measure(const std::vector<Row*>& chosen, Session& session,
             std::unique_ptr<benchmark::BenchmarkReporter> format) {
  std::optional<AuditBook> audits;
  if (trains(chosen) && session.config.audit.with_training && !session.config.dry_run) {
    audits.emplace(session, trained_variants(chosen));
    audits->measure_curves();
    audits->before();
  }
  Reporter reporter(chosen, session, std::move(format));
  benchmark::RunSpecifiedBenchmarks(&reporter);
  if (audits && !stop_requested()) session.failed_audits = audits->after();
}

}  // namespace

int run(const CommandLine& line, const std::string& command) {
  const RunConfig& asked = line.config;
  check(asked);
  refuse_unfit_build(asked);
  Session session;
  session.config = asked.dry_run ? shrunk_for_dry_run(asked) : asked;
  if (asked.threads > 0) at::set_num_threads(static_cast<int>(asked.threads));
  pin_isa(asked.isa);
  const Rows rows = rows_of(session.config);
  auto format = format_asked_for(line);
  initialise_google(line, session.config);
  register_rows(rows, session);
  if (is_true(value_of(line, "--benchmark_list_tests"))) {
    benchmark::RunSpecifiedBenchmarks();
    return kFine;
  }
  const std::vector<Row*> chosen = matching(rows);
  if (chosen.empty()) {
    std::fprintf(
        stderr,
        "dsa-bench: nothing is selected: no benchmark matches; `dsa-bench list` shows all\n");
    return kNothingSelected;
  }
  if (trains(chosen)) session.corpus = load_data(chosen, session.config);
  session.recorder = open_recorder(asked, command);
  session.progress = Progress(asked.quiet || format != nullptr);
  session.progress.start(static_cast<int64_t>(chosen.size()));
  if (!std::all_of(chosen.begin(), chosen.end(), [](const Row* row) { return row->seeds > 0; })) {
    measure_ceilings(session);
  }
  catch_interrupts();
  try {
    measure(chosen, session, std::move(format));
  } catch (const std::exception& error) {
    session.recorder->finish("failed", sentence_of(error));
    throw;
  }
  return finish(session, asked.quiet);
}

int audit(const CommandLine& line, const std::string& command) {
  CommandLine brief = line;
  RunConfig& config = brief.config;
  config.suites = {"training"};
  config.audit.with_training = true;
  config.lengths.resize(1);
  config.seeds.resize(1);
  auto& swept = config.task.top_k;
  if (!swept.empty()) swept = {*std::min_element(swept.begin(), swept.end())};
  const int64_t most = config.audit.steps;
  require(config.train.dense_steps + config.train.indexer_steps < most, "--audit.steps is ", most,
          ", but the stages before the sparse one alone take ",
          config.train.dense_steps + config.train.indexer_steps, "; give more");
  config.train.steps = most;
  config.train.evaluate_every = 0;
  config.train.quality_windows = std::max<int64_t>(config.train.quality_windows, 4);
  std::set<std::string> wanted;
  for (const auto& name : selected_variants(config)) {
    const AttentionVariant& row = variant(name);
    if (config.variants.empty() && row.role != "candidate") continue;
    wanted.insert({row.name, row.baseline});
  }
  config.variants.clear();
  for (const auto& row : variants()) {
    if (wanted.contains(row.name)) config.variants.push_back(row.name);
  }
  return run(brief, command);
}

}  // namespace dsa::bench
