#include "harness/run_config.h"

#include "attention/yardstick.h"
#include "harness/config_text.h"

#include <algorithm>
#include <functional>

namespace dsa {
namespace {

std::string joined(const std::vector<std::string>& words) {
  std::string text;
  for (const auto& word : words) text += (text.empty() ? "" : ", ") + word;
  return text;
}

void check_words(const char* field, const std::vector<std::string>& values,
                 const std::vector<std::string>& known) {
  for (const auto& value : values) {
    require(std::find(known.begin(), known.end(), value) != known.end(), "--", field,
            " knows no \"", value, "\"; it takes ", joined(known));
  }
}

template <class T>
void check_positive(const char* field, const std::vector<T>& values, T least) {
  require(!values.empty(), "--", field, " is empty; give at least one value");
  for (const T value : values) {
    require(value >= least, "--", field, " is ", value, "; it must be at least ", least);
  }
}

template <class T>
void check_unique(const char* field, std::vector<T> values) {
  std::sort(values.begin(), values.end());
  const auto twin = std::adjacent_find(values.begin(), values.end());
  if (twin != values.end()) require(false, "--", field, " lists ", *twin, " twice; name it once");
}

/// A value given twice would make two rows of one name.
template <class Config>
void check_lists_unique(const Config& config, const std::string& prefix) {
  visit_fields(config, [&](const char* name, const auto& field, const char*) {
    if constexpr (config_text::ListOf<std::decay_t<decltype(field)>>::value) {
      check_unique((prefix + name).c_str(), field);
    }
  });
}

void check(const KernelConfig& c) {
  check_lists_unique(c, "kernels.");
  check_words("kernels.families", c.families, kernel_families());
  check_words("kernels.passes", c.passes, {"fwd", "fwdbwd"});
  check_words("kernels.dtypes", c.dtypes, {"f32", "bf16", "f64"});
  check_words("kernels.scores", c.scores, distributions());
  check_words("kernels.values", c.values, {"own", "in-keys"});
  require(!c.values.empty(), "--kernels.values is empty; give own, in-keys or both");
  for (const auto& name : c.backends) {
    if (yardstick(name) == nullptr) backend(name);
  }
  for (const int64_t length : c.lengths) {
    require(length >= 1, "--kernels.lengths is ", length, "; it must be at least 1");
  }
  check_positive<int64_t>("kernels.queries", c.queries, 0);
  check_positive<int64_t>("kernels.top-k", c.top_k, 1);
  check_positive<int64_t>("kernels.heads", c.heads, 1);
  check_positive<int64_t>("kernels.widths", c.widths, 1);
  check_positive<int64_t>("kernels.index-heads", c.index_heads, 1);
  check_positive<int64_t>("kernels.index-widths", c.index_widths, 1);
  require(c.kv_heads >= 0 && c.v_width >= 0, "--kernels.kv-heads and --kernels.v-width are ",
          c.kv_heads, " and ", c.v_width, "; neither may be negative");
  for (const int64_t width : c.widths) {
    const bool in_keys = std::find(c.values.begin(), c.values.end(), "in-keys") != c.values.end();
    require(!in_keys || c.v_width <= width, "--kernels.v-width is ", c.v_width,
            "; with --kernels.values in-keys it must be at most --kernels.widths ", width);
  }
  for (const int64_t heads : c.heads) {
    require(c.kv_heads == 0 || heads % c.kv_heads == 0, "--kernels.kv-heads is ", c.kv_heads,
            "; it must divide --kernels.heads ", heads);
  }
  check_positive<int64_t>("kernels.repetitions", {c.repetitions}, 1);
  check_positive<int64_t>("kernels.input-sets", {c.input_sets}, 1);
  check_positive<int64_t>("kernels.checked-queries", {c.checked_queries}, 1);
  for (const auto& [field, value] :
       {std::pair{"min-time", c.min_time}, std::pair{"row-budget", c.row_budget},
        std::pair{"call-budget", c.call_budget}, std::pair{"memory-budget", c.memory_budget},
        std::pair{"input-memory", c.input_memory}}) {
    require(value > 0, "--kernels.", field, " is ", value, "; it must be more than 0");
  }
  require(c.checked || !c.iterations.empty(),
          "--kernels.checked is off, so nothing would say that the results are right; leave it on");
}

bool asks_for(const RunConfig& c, const char* suite) {
  return std::find(c.suites.begin(), c.suites.end(), suite) != c.suites.end();
}

}  // namespace

const std::vector<std::string>& distributions() {
  static const std::vector<std::string> names = {
      "uniform", "relu_plateau", "concentrated",  "captured", "all_equal",  "two_valued",
      "sorted",  "reverse",      "one_radix_bin", "denormal", "signed_zero"};
  return names;
}

const std::vector<std::string>& kernel_families() {
  static const std::vector<std::string> names = [] {
    std::vector<std::string> all;
    for (int op = 0; op <= static_cast<int>(Op::kDense); ++op) all.emplace_back(name(Op(op)));
    all.emplace_back(kGemmFamily);
    return all;
  }();
  return names;
}

const std::vector<int64_t>& kernel_lengths(const RunConfig& config) {
  return config.kernels.lengths.empty() ? config.lengths : config.kernels.lengths;
}

void check(const RunConfig& c) {
  check_words("suites", c.suites, {"kernels", "training", "anatomy"});
  require(!c.suites.empty(), "--suites is empty; give kernels, training or anatomy");
  check_positive<int64_t>("lengths", c.lengths, 2);
  check_positive<uint64_t>("seeds", c.seeds, 0);
  check_lists_unique(c, "");
  check_lists_unique(c.gate, "gate.");
  require(c.threads >= 0 && c.threads <= 4096, "--threads is ", c.threads,
          "; it must be between 0 (torch's choice) and 4096");
  require(c.inject_slowdown >= 1, "--inject-slowdown is ", c.inject_slowdown,
          "; it must be at least 1");
  for (const auto& name : c.variants) variant(name);
  if (asks_for(c, "kernels")) check(c.kernels);
  if (!asks_for(c, "training") && !asks_for(c, "anatomy")) return;
  check_lists_unique(c.task, "task.");
  check(c.task, c.lengths);
  check(c.attention);
  check(c.model);
  check(c.train);
  require(c.audit.steps >= 1, "--audit.steps is ", c.audit.steps, "; it must be at least 1");
  check_positive<int64_t>("audit.lengths", c.audit.lengths, 512);
  check_lists_unique(c.audit, "audit.");
  if (c.attention.backend != "auto") backend(c.attention.backend);
}

RunConfig shrunk_for_dry_run(RunConfig config) {
  config.train.steps = 1;
  config.train.dense_steps = config.train.indexer_steps = 0;
  config.train.recipe = "as-given";
  config.train.stage1_learning_rate = 0;  // of a stage that is left out
  config.train.stage1_loss_factor = 1;
  config.train.warmup_steps = std::min<int64_t>(config.train.warmup_steps, 1);
  config.train.evaluate_every = 0;
  config.train.checkpoint_every = 0;
  constexpr int64_t kTokens = 20'000;
  if (config.data.max_tokens == 0 || config.data.max_tokens > kTokens) {
    config.data.max_tokens = kTokens;
  }
  config.task.test_examples = std::min<int64_t>(config.task.test_examples, 8);
  config.task.needle_trials = 1;
  config.kernels.repetitions = 1;
  return config;
}

}  // namespace dsa
