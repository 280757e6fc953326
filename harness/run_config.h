// Everything one command can be asked to do, as plain structs. Flags, --help, the TOML file and the
// record's JSON are made from the field lists (config_cli.h); check() refuses before anything runs.
#pragma once
#include "harness/data.h"
#include "harness/gate_config.h"
#include "harness/task.h"
#include "harness/trainer.h"

namespace dsa {

/// Axes and measuring rules of the kernel benchmarks. Rows are the product of the axes that a
/// family has, times the backends that provide it.
struct KernelConfig {
  std::vector<std::string> families;
  std::vector<std::string> passes = {"fwd", "fwdbwd"};
  std::vector<std::string> backends;
  std::vector<int64_t> lengths;
  std::vector<int64_t> queries = {0};
  std::vector<int64_t> top_k = {256};
  std::vector<int64_t> heads = {8};
  int64_t kv_heads = 0;
  std::vector<int64_t> widths = {64};
  int64_t v_width = 0;
  std::vector<std::string> values = {"own"};
  std::vector<int64_t> index_heads = {4};
  std::vector<int64_t> index_widths = {64};
  std::vector<std::string> dtypes = {"f32"};
  std::vector<std::string> scores = {"uniform"};
  std::string captured_weights;
  int64_t captured_layer = 0;
  int64_t repetitions = 7;
  double min_time = 0.1;
  double row_budget = 20;
  double call_budget = 10;
  double memory_budget = 4;
  int64_t input_sets = 4;
  double input_memory = 256;
  int64_t checked_queries = 32;
  bool ceilings = true;
  std::string iterations;
  bool checked = true;
  uint64_t seed = 1;
};

template <class C, class V>
  requires is_a<C, KernelConfig>
void visit_fields(C& c, V&& v) {
  auto& [families, passes, backends, lengths, queries, top_k, heads, kv_heads, widths, v_width,
         values, index_heads, index_widths, dtypes, scores, captured_weights, captured_layer,
         repetitions, min_time, row_budget, call_budget, memory_budget, input_sets, input_memory,
         checked_queries, ceilings, iterations, checked, seed] = c;
  v("families", families, "operations to measure, as `dsa-bench list` names them; empty = all");
  v("passes", passes, "fwd, fwdbwd");
  v("backends", backends, "rows of the backend table; empty = all");
  v("lengths", lengths, "tokens L; empty = the run's --lengths");
  v("queries", queries,
    "queries T, the last of the L tokens, as in decoding (forward only); 0 = as many as L");
  v("top-k", top_k, "keys K each query reads");
  v("heads", heads, "query heads H");
  v("kv-heads", kv_heads, "key/value heads G; divides every H; 0 = as many as H");
  v("widths", widths, "query/key width D of a head");
  v("v-width", v_width, "value width V of a head; 0 = as D");
  v("values", values,
    "own, in-keys: v has its own memory, or is the first V columns of k (MLA in MQA mode; V <= D)");
  v("index-heads", index_heads, "lightning-indexer heads I");
  v("index-widths", index_widths, "lightning-indexer width J");
  v("dtypes", dtypes, "f32, bf16, f64");
  v("scores", scores,
    "distribution of the index scores: uniform, relu_plateau, concentrated, captured; for "
    "select_top_k also all_equal, two_valued, sorted, reverse, one_radix_bin, denormal, "
    "signed_zero");
  v("captured-weights", captured_weights,
    "weights of the dsa model behind `captured`; empty = presets/captured.safetensors");
  v("captured-layer", captured_layer, "layer of it whose indexer selects, from 0");
  v("repetitions", repetitions, "timed repetitions of a row");
  v("min-time", min_time, "seconds one repetition lasts at least");
  v("row-budget", row_budget, "seconds of timing after which a row starts no further repetition");
  v("call-budget", call_budget,
    "seconds one call may take; a row that its shorter lengths predict to be slower is skipped and "
    "listed");
  v("memory-budget", memory_budget, "GiB a row may need; larger ones are skipped and listed");
  v("input-sets", input_sets, "seeded input sets the repetitions rotate through, at most");
  v("input-memory", input_memory,
    "MiB all input sets of a row may take; fewer sets if they would not fit");
  v("checked-queries", checked_queries,
    "queries compared with float64 at the start, middle and end of a large row");
  v("ceilings", ceilings,
    "measure the machine's peak rates first (a second); rows then show how much of them they use");
  v("iterations", iterations,
    "JSON file {\"id\": calls}: calls a repetition makes, instead of finding out (the gate's)");
  v("checked", checked,
    "compare with float64 and measure memory; off only where --kernels.iterations is given");
  v("seed", seed, "of all kernel inputs");
}

/// docs/audits.md
struct AuditConfig {
  bool with_training = true;
  int64_t steps = 300;
  std::vector<int64_t> lengths = {2048, 4096, 8192, 16384};
};

template <class C, class V>
  requires is_a<C, AuditConfig>
void visit_fields(C& c, V&& v) {
  auto& [with_training, steps, lengths] = c;
  v("with-training", with_training, "judge what a run trains before and after its training");
  v("steps", steps, "steps of the trainings of `dsa-bench audit`");
  v("lengths", lengths,
    "tokens at which audit 5 measures time and memory of attention; at least three");
}

struct RunConfig {
  std::vector<int64_t> lengths = {64, 128, 256};
  std::vector<std::string> variants;
  std::vector<uint64_t> seeds = {1};
  std::vector<std::string> suites = {"kernels", "training"};
  std::string out = "results";
  std::string resume;
  std::string goals = "presets/goals.toml";
  std::string filter;
  std::vector<std::string> select;
  bool dry_run = false;
  bool profile = false;
  int64_t threads = 0;
  std::string isa = "auto";
  double inject_slowdown = 1;
  int64_t turns = -1;
  bool strict = false;
  bool quiet = false;
  KernelConfig kernels;
  DataConfig data;
  TaskConfig task;
  AttentionConfig attention;
  ModelConfig model;
  TrainConfig train;
  AuditConfig audit;
  GateConfig gate;
};

template <class C, class V>
  requires is_a<C, RunConfig>
void visit_fields(C& c, V&& v) {
  auto& [lengths, variants, seeds, suites, out, resume, goals, filter, select, dry_run, profile,
         threads, isa, inject_slowdown, turns, strict, quiet, kernels, data, task, attention, model,
         train, audit, gate] = c;
  v("lengths", lengths,
    "tokens L of training rows, and of kernel rows unless --kernels.lengths is given");
  v("variants", variants,
    "attention variants to train; empty = dense and every variant that is compared with it");
  v("seeds", seeds, "one training run per variant, length and seed");
  v("suites", suites, "kernels, training, or anatomy (docs/anatomy.md)");
  v("out", out, "folder that receives the run's folder <time stamp>");
  v("resume", resume, "folder of an interrupted run: what it finished is skipped");
  v("goals", goals, "file of the goals that `dsa-bench goals` checks");
  v("filter", filter,
    "regular expression on benchmark names (= --benchmark_filter), or on names of goals");
  v("select", select,
    "exact axes, e.g. L=4096,backend=cpu; several values of one axis: L=1024|4096");
  v("dry-run", dry_run, "run every selected benchmark once: one call, one training step");
  v("profile", profile, "one repetition, rows marked profiled: for nsys -c nvtx -p timed@dsa");
  v("threads", threads, "CPU threads of torch and our kernels; 0 = torch's choice");
  v("isa", isa,
    "instruction set of the cpu backend: auto, portable, avx2, avx512, avx512bf16, amx");
  v("inject-slowdown", inject_slowdown,
    "every call and step takes this many times as long: to see whether the gate notices");
  v("turns", turns,
    "socket on which `dsa-bench gate` says when this process may time; it passes it on itself");
  v("strict", strict, "a failed training seed or audit makes the exit code 4, a missed goal 6");
  v("quiet", quiet, "no progress line, no table");
  v("kernels", kernels, "kernel benchmarks");
  v("data", data, "token data");
  v("task", task, "what is trained beside text");
  v("attention", attention, "attention layer");
  v("model", model, "transformer");
  v("train", train, "training loop");
  v("audit", audit, "audits");
  v("gate", gate, "comparison of two binaries");
}

/// @throws Error naming the field, its value and what it may be; nothing has been measured then.
void check(const RunConfig& config);

/// Names that --kernels.scores takes. The first kDistributionsOfAll are for every family with a
/// selection, the others for select_top_k, which is given its scores.
const std::vector<std::string>& distributions();
/// Families of kernel benchmarks: every operation, and `gemm`.
const std::vector<std::string>& kernel_families();
inline constexpr int kDistributionsOfAll = 4;

/// Lengths of the kernel rows: kernels.lengths, or the run's.
const std::vector<int64_t>& kernel_lengths(const RunConfig& config);

/// What --dry-run really runs: one step, a sliver of the data, one repetition.
RunConfig shrunk_for_dry_run(RunConfig config);

}  // namespace dsa
