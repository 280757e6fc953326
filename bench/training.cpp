// Training rows: one a variant and length, its repetitions are the seeds, its time is the median step.
// Steps and evaluations stream into seq_<L>/<variant>-seed<seed>.metrics.jsonl as they happen.
#include "bench/google.h"
#include "bench/seed_run.h"
#include "bench/session.h"
#include "harness/machine.h"
#include "harness/selection_metrics.h"
#include "harness/weights_file.h"

#include <ATen/Parallel.h>

#include <cmath>
#include <ctime>
#include <limits>

namespace dsa::bench {
namespace {

using Better = record::Quantity::Better;
namespace fs = std::filesystem;

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

/// The baseline reads every key: there is no K to vary.
bool reads_all_keys(const std::string& variant) {
  return dsa::variant(variant).role == "baseline";
}

class TrainingRow : public Row {
 public:
  TrainingRow(const std::string& variant, int64_t length, const RunConfig& config);
  /// At another K than the configuration's.
  TrainingRow(const std::string& variant, int64_t length, const RunConfig& config, int64_t top_k);
  void run(benchmark::State& state, Session& session) override;
  void finish(Session& session) override;

 private:
  /// Median step in seconds, or 0 if a stop was asked for.
  double run_seed(size_t index, Session& session);
  TrainingResult train(uint64_t seed, Session& session, MetricsLog& log);
  void record_seed(size_t index, const TrainingResult& result, double cpu_seconds,
                   Session& session);
  void record_conditions(size_t index, const TrainingResult& result, const CrowdWatch& watch,
                         Session& session);
  void record_failed_seed(size_t index, const std::string& reason, Session& session);
  void append(const char* name, const char* unit, Better better, size_t index, double value,
              Session& session, const std::map<std::string, std::string>& more = {});
  void record_selection(size_t index, const MetricsLog& log, Session& session);
  void record_groups(size_t index, const MetricsLog& log, Session& session);
  void put_series(uint64_t seed, const MetricsLog& log, Session& session);
  fs::path file(uint64_t seed, const char* ending, Session& session) const;

  const AttentionVariant& variant_;
  int64_t length_;
  AttentionConfig attention_;
  std::string files_;  ///< what names of files begin with
  size_t next_seed_ = 0;
  Repetitions repetitions_;
};

TrainingRow::TrainingRow(const std::string& variant, int64_t length, const RunConfig& config)
    : variant_(dsa::variant(variant)),
      length_(length),
      attention_(config.attention),
      files_(variant) {
  id = "train/variant:" + variant + "/L:" + std::to_string(length);
  labels = {{"level", "training"}, {"id", id}, {"variant", variant}, {"L", std::to_string(length)}};
  if (!reads_all_keys(variant)) {
    labels["K"] = std::to_string(resolved_top_k(config.attention, length));
  }
  if (task(config.task.name).fill != nullptr) {
    id += "/task:" + config.task.name;
    labels["task"] = config.task.name, labels["id"] = id;
  }
  if (!label_of(config).empty()) labels[label_of(config)] = "true";
  seeds = config.profile ? 1 : static_cast<int64_t>(config.seeds.size());
}

TrainingRow::TrainingRow(const std::string& variant, int64_t length, const RunConfig& config,
                         int64_t top_k)
    : TrainingRow(variant, length, config) {
  attention_.top_k = top_k;
  const std::string text = std::to_string(top_k);
  id += "/K:" + text, files_ += "-K" + text;
  labels["K"] = text, labels["id"] = id;
}

fs::path TrainingRow::file(uint64_t seed, const char* ending, Session& session) const {
  const fs::path folder = session.recorder->folder() / ("seq_" + std::to_string(length_));
  fs::create_directories(folder);
  return folder / (files_ + "-seed" + std::to_string(seed) + ending);
}

void TrainingRow::run(benchmark::State& state, Session& session) {
  const size_t index = next_seed_++;
  const auto* done = session.recorder->metric(id, "best_validation_loss");
  if (stop_requested()) return repetitions_.skip(state, "interrupted");
  if (done != nullptr && done->samples.size() > index) {
    return repetitions_.skip(state, "done before");
  }
  double step_seconds = 0;
  std::string failure;
  for (auto _ : state) {
    try {
      step_seconds = run_seed(index, session);
      if (step_seconds > 0) state.SetIterationTime(step_seconds);
    } catch (const std::exception& error) {
      failure = sentence_of(error);
    }
  }
  if (!failure.empty()) {
    record_failed_seed(index, failure, session);
    repetitions_.fail(state, failure);
  } else if (step_seconds <= 0) {
    repetitions_.skip(state, "interrupted");
  } else {
    repetitions_.timed(state);
  }
  session.recorder->write();
}

double TrainingRow::run_seed(size_t index, Session& session) {
  const uint64_t seed = session.config.seeds.at(index);
  session.progress.begin(id + " seed " + std::to_string(seed));
  const std::clock_t cpu = std::clock();
  MetricsLog log(file(seed, ".metrics.jsonl", session));
  const CrowdWatch watch;
  TrainingResult result = train(seed, session, log);
  if (!result.finished) {
    const std::string step = std::to_string(log.last_step());
    session.recorder->put(record::Failure{
        id, "interrupted",
        "stopped after step " + step + "; --resume continues from its checkpoint", labels});
    return 0;
  }
  session.recorder->forget_failures(id, "interrupted");  // seeds that failed stay
  const double cpu_seconds = static_cast<double>(std::clock() - cpu) / CLOCKS_PER_SEC;
  put_series(seed, log, session);
  record_selection(index, log, session);
  record_groups(index, log, session);
  record_seed(index, result, cpu_seconds, session);
  record_conditions(index, result, watch, session);
  return result.median_step_seconds;
}

TrainingResult TrainingRow::train(uint64_t seed, Session& session, MetricsLog& log) {
  const RunConfig& config = session.config;
  TrainingJob job = job_of(variant_.name, length_, seed, config);
  job.attention = attention_;
  job.checkpoint = file(seed, ".safetensors", session);
  const auto write = [&](Transformer& model) {
    RunConfig settings = config;
    settings.model.vocab_size = model.vocab_size();
    settings.attention = attention_;
    settings.lengths = {length_};  // what this model was trained at
    write_weights(file(seed, ".weights.safetensors", session), model, {variant_.name, settings});
  };
  return train_seed(job, *session.corpus, log, session.progress, next_seed_ - 1, seeds, write);
}

/// The metric's sample of seed number `index`; seeds that gave none before it stay NaN.
void TrainingRow::append(const char* name, const char* unit, Better better, size_t index,
                         double value, Session& session,
                         const std::map<std::string, std::string>& more) {
  record::Metric metric{{name, unit, better}, labels, {}};
  for (const auto& [label, text] : more) metric.labels[label] = text;
  for (const auto& known : session.recorder->run().metrics) {
    if (known.quantity.name == name && known.labels == metric.labels)
      metric.samples = known.samples;
  }
  metric.samples.resize(index, kNaN);
  metric.samples.push_back(value);
  session.recorder->put(metric);
}

void TrainingRow::record_seed(size_t index, const TrainingResult& r, double cpu_seconds,
                              Session& session) {
  const auto add = [&](const char* name, const char* unit, Better better, double value) {
    append(name, unit, better, index, value, session);
  };
  const double bits = r.evaluations.empty() ? 0 : r.evaluations.back().bits_per_byte;
  const Cost all = dsa::variant(variant_.baseline).cost(attention_, 1, length_);
  const Cost ours = variant_.cost(attention_, 1, length_);
  add("best_validation_loss", "nats/token", Better::kLower, r.best_validation_loss);
  add("final_validation_loss", "nats/token", Better::kLower, r.final_validation_loss);
  add("best_accuracy", "1", Better::kHigher, r.best_accuracy);
  add("final_accuracy", "1", Better::kHigher, r.final_accuracy);
  if (bits > 0) add("bits_per_byte", "bits/byte", Better::kLower, bits);
  add("step_time", "s", Better::kLower, r.median_step_seconds);
  add("throughput", "tokens/s", Better::kHigher, r.tokens_per_second);
  if (r.peak_bytes > 0) add("peak_memory", "bytes", Better::kLower, r.peak_bytes);
  add("parameters", "1", Better::kNeither, static_cast<double>(r.parameters));
  add("active_parameters", "1", Better::kNeither, static_cast<double>(r.active_parameters));
  add("indexer_parameters", "1", Better::kNeither, static_cast<double>(r.indexer_parameters));
  add("flops_per_token", "FLOP", Better::kNeither, r.flops_per_token);
  add("flop_ratio", "1", Better::kNeither, all.flops / ours.flops);
  for (size_t layer = 0; layer < r.untrained_selection.size(); ++layer) {
    const SelectionQuality& drawn = r.untrained_selection[layer];
    const std::map<std::string, std::string> place = {{"layer", std::to_string(layer)}};
    append("untrained_selection_recall", "1", Better::kNeither, index, drawn.recall, session,
           place);
    append("untrained_selection_kl", "nats", Better::kNeither, index, drawn.kl, session, place);
  }
  for (const auto& [stage, seconds] : r.stage_seconds) {
    append("stage_time", "s", Better::kLower, index, seconds, session, {{"stage", stage}});
  }
  Sample sample;
  sample.id = id;
  sample.level = "training";
  sample.repetition = static_cast<int64_t>(index);
  sample.seed = session.config.seeds.at(index);
  sample.seconds = r.median_step_seconds;
  sample.cpu_seconds =
      cpu_seconds / static_cast<double>(std::max<int64_t>(session.config.train.steps, 1));
  sample.label = session.label();
  sample.values = {{"best_validation_loss", r.best_validation_loss},
                   {"final_validation_loss", r.final_validation_loss},
                   {"best_accuracy", r.best_accuracy},
                   {"throughput", r.tokens_per_second},
                   {"peak_memory", r.peak_bytes}};
  session.recorder->add(sample);
  char line[128];
  std::snprintf(line, sizeof line, "%11s a step %8.0f tokens/s  loss %.4f  accuracy %4.1f %%  ",
                shown_seconds(r.median_step_seconds).c_str(), r.tokens_per_second,
                r.best_validation_loss, 100 * r.best_accuracy);
  session.progress.print(line + id + " seed " + std::to_string(*sample.seed));
}

/// What makes step times of different runs incomparable: other processes, and a resume.
void TrainingRow::record_conditions(size_t index, const TrainingResult& r, const CrowdWatch& watch,
                                    Session& session) {
  const double before =
      static_cast<double>(r.steps.empty() ? session.config.train.steps : r.steps.front().step - 1);
  append("resumed_steps", "1", Better::kLower, index, before, session);
  const auto crowd = watch.crowd(at::get_num_threads());
  if (crowd) append("missing_cpus", "CPUs", Better::kLower, index, crowd->missing, session);
}

/// By layer: the last evaluation's numbers as metrics, all evaluations' as series.
void TrainingRow::record_selection(size_t index, const MetricsLog& log, Session& session) {
  if (log.evaluations().empty()) return;
  const std::string seed = std::to_string(session.config.seeds.at(index));
  const auto& last = log.evaluations().back().selection;
  for (const SelectionMetric& metric : selection_metrics()) {
    const record::Quantity& y = metric.quantity;
    for (size_t layer = 0; layer < last.size(); ++layer) {
      if (std::isnan(last[layer].*metric.value)) continue;  // this variant has no such number
      const std::string place = std::to_string(layer);
      append(y.name.c_str(), y.unit.c_str(), y.better, index, last[layer].*metric.value, session,
             {{"layer", place}});
      record::Series series{{"step", "1"}, y, labels, {}, {}};
      if (!labels.contains("task")) series.labels.erase("K");
      series.labels["seed"] = seed, series.labels["layer"] = place;
      for (const Evaluation& evaluation : log.evaluations()) {
        if (layer >= evaluation.selection.size()) continue;
        series.xs.push_back(static_cast<double>(evaluation.step));
        series.ys.push_back(evaluation.selection[layer].*metric.value);
      }
      session.recorder->put(series);
    }
  }
}

/// Whole answers of a task's groups, of the last evaluation.
void TrainingRow::record_groups(size_t index, const MetricsLog& log, Session& session) {
  if (log.evaluations().empty()) return;
  const Task& task = dsa::task(session.config.task.name);
  const auto& exact = log.evaluations().back().exact_by_group;
  for (size_t group = 0; group < std::min(exact.size(), task.groups.size()); ++group) {
    append("exact_match", "1", Better::kHigher, index, exact[group], session,
           {{task.group_label, task.groups[group]}});
  }
}

void TrainingRow::record_failed_seed(size_t index, const std::string& reason, Session& session) {
  const uint64_t seed = session.config.seeds.at(index);
  session.seed_failed = true;
  auto where = labels;
  where["seed"] = std::to_string(seed);
  session.recorder->put(record::Failure{id, "failed", reason, where});
  // A failed seed counts: it is a sample without a value, never left out of n.
  for (const char* name : {"best_validation_loss", "final_validation_loss"}) {
    append(name, "nats/token", Better::kLower, index, kNaN, session);
  }
  append("best_accuracy", "1", Better::kHigher, index, kNaN, session);
  append("step_time", "s", Better::kLower, index, kNaN, session);
  append("throughput", "tokens/s", Better::kHigher, index, kNaN, session);
  session.progress.print("  failed  " + id + " seed " + std::to_string(seed) + ": " + reason);
}

void TrainingRow::put_series(uint64_t seed, const MetricsLog& log, Session& session) {
  auto where = labels;
  if (!labels.contains("task")) where.erase("K");  // of a task, K is what its curves differ by
  where["seed"] = std::to_string(seed);
  const record::Quantity step{"step", "1"};
  const auto put = [&](const record::Quantity& x, const record::Quantity& y, auto points) {
    record::Series series{x, y, where, {}, {}};
    for (const auto& [at, value] : points) {
      if (std::isnan(value)) continue;  // this variant has no such number
      series.xs.push_back(at);
      series.ys.push_back(value);
    }
    if (!series.xs.empty()) session.recorder->put(series);
  };
  const auto steps = [&](double StepResult::*field) {
    std::vector<std::pair<double, double>> points;
    for (const auto& s : log.steps()) points.emplace_back(static_cast<double>(s.step), s.*field);
    return points;
  };
  const auto evaluations = [&](double Evaluation::*field) {
    std::vector<std::pair<double, double>> points;
    for (const auto& e : log.evaluations())
      points.emplace_back(static_cast<double>(e.step), e.*field);
    return points;
  };
  put(step, {"training_loss", "nats/token", Better::kLower}, steps(&StepResult::loss));
  put(step, {"indexer_loss", "nats/query", Better::kLower}, steps(&StepResult::indexer_loss));
  put(step, {"grad_norm", "1"}, steps(&StepResult::grad_norm));
  put(step, {"step_time", "s", Better::kLower}, steps(&StepResult::seconds));
  put(step, {"validation_loss", "nats/token", Better::kLower}, evaluations(&Evaluation::loss));
  put(step, {"accuracy", "1", Better::kHigher}, evaluations(&Evaluation::accuracy));
  if (log.evaluations().empty()) return;
  const auto& buckets = log.evaluations().back().loss_by_position;
  std::vector<std::pair<double, double>> points;
  for (size_t i = 0; i < buckets.size(); ++i) {
    const double width = static_cast<double>(length_) / static_cast<double>(buckets.size());
    points.emplace_back((static_cast<double>(i) + 0.5) * width, buckets[i]);
  }
  put({"position", "tokens"}, {"loss_by_position", "nats/token", Better::kLower}, points);
}

void TrainingRow::finish(Session& session) {
  session.progress.end();
}

}  // namespace

std::vector<std::string> selected_variants(const RunConfig& config) {
  if (!config.variants.empty()) return config.variants;
  // One family: a run with two baselines would compare arms whose projections differ as well.
  const std::string& family = variants().front().baseline;
  std::vector<std::string> all;
  for (const auto& row : variants()) {
    if (row.baseline == family) all.push_back(row.name);
  }
  return all;
}

void check_training(const std::vector<Row*>& rows, const RunConfig& config, const Corpus& corpus) {
  for (const auto& name : selected_variants(config)) {
    const bool trained = std::any_of(rows.begin(), rows.end(), [&](const Row* row) {
      return row->trains() && row->labels.at("variant") == name;
    });
    if (trained) check(job_of(name, config.lengths.front(), config.seeds.front(), config), corpus);
  }
}

Rows training_rows(const RunConfig& config) {
  Rows rows;
  for (const int64_t length : config.lengths) {
    for (const auto& variant : selected_variants(config)) {
      const bool swept = !config.task.top_k.empty() && !reads_all_keys(variant);
      if (!swept) rows.push_back(std::make_unique<TrainingRow>(variant, length, config));
      for (const int64_t top_k : swept ? config.task.top_k : std::vector<int64_t>{}) {
        rows.push_back(std::make_unique<TrainingRow>(variant, length, config, top_k));
      }
    }
  }
  return rows;
}

}  // namespace dsa::bench
