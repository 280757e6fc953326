#include "bench/run_record.h"

#include "attention/yardstick.h"
#include "harness/machine.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>

namespace dsa::bench {
namespace {

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

/// The original experiment's table, as it was published (docs/variants.md).
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

}  // namespace

void refuse_unfit_build(const RunConfig& config) {
  // Tests of a sanitizer build need whole runs; their records say under build.unfit what they are worth.
  if (config.dry_run || std::getenv("DSA_RECORD_UNFIT_BUILD") != nullptr) return;
  const std::string unfit = reason_not_to_time();
  require(unfit.empty(), "this build must not record timings: ", unfit,
          "; build Release, or give --dry-run");
}

record::Run new_run(const RunConfig& config, const std::string& command) {
  record::Run run;
  run.started = utc_now();
  run.id = stamp_of(run.started);
  run.command = command;
  run.build = build_facts();
  run.machine = machine_facts();
  run.machine["isa"] = active_isa();
  run.machine["threads"] = std::to_string(at::get_num_threads());
  run.config_json = to_json(config);
  for (const auto& name : selected_variants(config)) {
    const auto& row = variant(name);
    run.variants.push_back({row.name, row.summary, row.role, row.colour_slot, row.baseline});
  }
  for (const auto& row : backends()) run.backends.push_back({row.name, row.description, row.role});
  for (const auto& row : yardsticks()) run.backends.push_back({row.name, row.description, "peer"});
  const Task& task = dsa::task(config.task.name);
  if (task.fill == nullptr) run.reference_series = published_numbers();
  if (task.guesses != nullptr) {
    for (const Guess& guess : task.guesses(config.task)) {
      run.metrics.push_back({{"guess", "1", record::Quantity::Better::kNeither},
                             {{"level", "task"},
                              {"task", task.name},
                              {"summary", task.summary},
                              {"guess", guess.words}},
                             {guess.accuracy}});
    }
  }
  return run;
}

void measure_ceilings(Session& session) {
  const RunConfig& config = session.config;
  if (!config.kernels.ceilings || config.dry_run) return;
  record::Run& run = session.recorder->run();
  session.ceilings = ceilings_of(run.machine);
  if (session.ceilings) return;
  session.ceilings = dsa::measure_ceilings();
  if (!believable(*session.ceilings)) session.ceilings = dsa::measure_ceilings();
  if (!believable(*session.ceilings)) {
    session.progress.print(
        "the machine is too busy to measure what it can do at most: rows are "
        "not compared with it");
    session.ceilings.reset();
    return;
  }
  run.machine.merge(facts_of(*session.ceilings));
  session.progress.print(shown(*session.ceilings));
}

std::string physics_failure(Session& session, const Cost& work, double seconds) {
  if (!session.ceilings || beyond_ceilings(*session.ceilings, work, seconds) <= 1) return "";
  // Beside other load the machine may have seemed slower than it is. The record keeps the peaks that its rows
  // were compared with.
  if (!session.ceilings_again) {
    session.ceilings_again = larger(*session.ceilings, dsa::measure_ceilings());
  }
  const double times = beyond_ceilings(*session.ceilings_again, work, seconds);
  if (times <= 1) return "";
  char text[200];
  std::snprintf(
      text, sizeof text,
      "%.3g GFLOP and %.3g MB in %.3g s are %.1f times what this machine can do at most: its "
      "time or its cost model is wrong",
      work.flops / 1e9, (work.bytes_read + work.bytes_written) / 1e6, seconds, times);
  return text;
}

}  // namespace dsa::bench
