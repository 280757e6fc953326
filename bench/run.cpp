// `dsa-bench run`: refuse what cannot work before anything is measured, then let Google Benchmark
// drive the selected rows, and leave a run folder whatever happens.
#include "bench/commands.h"
#include "bench/google.h"
#include "bench/reporter.h"
#include "bench/selection.h"
#include "harness/machine.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>

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
  return std::any_of(rows.begin(), rows.end(), [](const Row* row) { return row->seeds > 0; });
}

/// Everything about the data that can be wrong is found out before the first measurement.
std::shared_ptr<const Corpus> load_data(const std::vector<Row*>& rows, const RunConfig& config) {
  auto corpus = std::make_shared<Corpus>(load_corpus(config.data));
  for (const int64_t length : config.lengths) {
    const std::string text = std::to_string(length);
    const bool used = std::any_of(rows.begin(), rows.end(), [&](const Row* row) {
      return row->seeds > 0 && row->labels.at("L") == text;
    });
    if (!used) continue;
    training_batches(*corpus, length, config.train.batch, config.seeds.front());
    validation_tiles(*corpus, length, config.train.batch);
  }
  check_training(rows, config, *corpus);
  return corpus;
}

/// The original experiment's table, as it was published (docs/bench.md).
std::vector<record::Series> published_numbers() {
  using Better = record::Quantity::Better;
  const std::string source = "DeepSeek Sparse vs Classic Attention, table by length";
  const record::Quantity length{"L", "tokens"};
  const record::Quantity loss{"best_validation_loss", "nats/token", Better::kLower};
  const record::Quantity accuracy{"best_accuracy", "1", Better::kHigher};
  const record::Quantity step{"step_time", "s", Better::kLower};
  std::vector<record::Series> all;
  const auto add = [&](const char* variant, const record::Quantity& y, std::vector<double> ys) {
    all.push_back(
        {length, y, {{"source", source}, {"variant", variant}}, {64, 128, 256}, std::move(ys)});
  };
  add("dense", loss, {8.520, 7.281, 7.148});
  add("dense", accuracy, {0.043, 0.065, 0.076});
  add("dense", step, {0.0584, 0.0621, 0.0667});
  add("dsa_as_published", loss, {3.561, 3.002, 1.778});
  add("dsa_as_published", accuracy, {0.532, 0.576, 0.684});
  add("dsa_as_published", step, {0.0654, 0.0677, 0.0678});
  return all;
}

record::Run new_run(const RunConfig& config, const std::string& command) {
  record::Run run;
  run.started = utc_now();
  run.id = stamp_of(run.started);
  run.command = command;
  run.build = build_facts();
  run.build["flops_model"] = kFlopsModel;
  run.machine = machine_facts();
  run.machine["isa"] = active_isa();
  run.machine["threads"] = std::to_string(at::get_num_threads());
  run.config_json = to_json(config);
  for (const auto& name : selected_variants(config)) {
    const auto& row = variant(name);
    run.variants.push_back({row.name, row.summary, row.role, row.colour_slot});
  }
  for (const auto& row : backends()) run.backends.push_back({row.name, row.description, row.role});
  run.reference_series = published_numbers();
  return run;
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

std::string shown(const Ceilings& c) {
  char text[240];
  std::snprintf(
      text, sizeof text,
      "this machine at most: float32 %.0f, bfloat16 %.0f GFLOP/s; L2 %.0f, L3 %.0f, memory "
      "%.0f GB/s; torch GEMM float32 %.0f, bfloat16 %.0f GFLOP/s",
      c.f32_flops / 1e9, std::max(c.f32_flops, c.bf16_flops) / 1e9, c.l2_bytes / 1e9,
      c.l3_bytes / 1e9, c.dram_bytes / 1e9, c.gemm_f32 / 1e9, c.gemm_bf16 / 1e9);
  return text;
}

/// Measured once a run, before its first row; a resumed run keeps what it had.
void measure_ceilings(Session& session, const std::vector<Row*>& rows) {
  const RunConfig& config = session.config;
  if (std::all_of(rows.begin(), rows.end(), [](const Row* row) { return row->seeds > 0; })) return;
  if (!config.kernels.ceilings || config.dry_run) return;
  record::Run& run = session.recorder->run();
  session.ceilings = ceilings_of(run.machine);
  if (session.ceilings) return;
  session.ceilings = dsa::measure_ceilings();
  run.machine.merge(facts_of(*session.ceilings));
  session.progress.print(shown(*session.ceilings));
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
  }
  recorder.finish(status, error);
  if (quiet) return code;
  if (!error.empty()) std::fprintf(stderr, "dsa-bench: %s\n", error.c_str());
  const std::string folder = recorder.folder().string();
  std::printf("%s: files in %s; report: dsa-report make %s\n", status.c_str(), folder.c_str(),
              folder.c_str());
  return code;
}

}  // namespace

int run(const CommandLine& line, const std::string& command) {
  const RunConfig& asked = line.config;
  check(asked);
  const std::string unfit = reason_not_to_time();
  // The tests of a sanitizer build need whole runs; such a record says under build.unfit what it is worth.
  const bool anyway = asked.dry_run || std::getenv("DSA_RECORD_UNFIT_BUILD") != nullptr;
  require(unfit.empty() || anyway, "this build must not record timings: ", unfit,
          "; build Release, or give --dry-run");
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
  measure_ceilings(session, chosen);
  catch_interrupts();
  try {
    Reporter reporter(chosen, session, std::move(format));
    benchmark::RunSpecifiedBenchmarks(&reporter);
  } catch (const std::exception& error) {
    session.recorder->finish("failed", sentence_of(error));
    throw;
  }
  return finish(session, asked.quiet);
}

}  // namespace dsa::bench
