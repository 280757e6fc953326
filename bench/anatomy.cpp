// Rows of the anatomy: one a rung and arm, its repetitions are the seeds. Each row has settings and a
// corpus of its own. Where an arm does not change at a rung, the numbers of the rung before are taken
// over: the same seed gives the same bits.
#include "harness/anatomy.h"

#include "bench/google.h"
#include "bench/seed_run.h"
#include "bench/session.h"

#include <cmath>
#include <limits>

namespace dsa::bench {
namespace {

using Better = record::Quantity::Better;
namespace fs = std::filesystem;

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

/// Loaded once for each way of splitting, when the first row needs it.
class Corpora {
 public:
  const Corpus& of(const DataConfig& data) {
    auto& corpus = by_split_[data.split];
    if (!corpus) corpus = std::make_shared<Corpus>(load_corpus(data));
    return *corpus;
  }

 private:
  std::map<std::string, std::shared_ptr<Corpus>> by_split_;
};

struct Number {
  record::Quantity quantity;
  double TrainingResult::*value;
};
const std::vector<Number>& numbers() {
  static const std::vector<Number> rows = {
      {{"best_validation_loss", "nats/token", Better::kLower},
       &TrainingResult::best_validation_loss},
      {{"final_validation_loss", "nats/token", Better::kLower},
       &TrainingResult::final_validation_loss},
      {{"best_accuracy", "1", Better::kHigher}, &TrainingResult::best_accuracy},
      {{"step_time", "s", Better::kLower}, &TrainingResult::median_step_seconds}};
  return rows;
}

std::string id_of(size_t rung, bool sparse, int64_t length) {
  return "anatomy/rung:" + std::to_string(rung) + "_" + rungs()[rung].name +
         "/arm:" + (sparse ? "sparse" : "dense") + "/L:" + std::to_string(length);
}

class AnatomyRow : public Row {
 public:
  AnatomyRow(size_t rung, bool sparse, int64_t length, const RunConfig& config,
             std::shared_ptr<Corpora> corpora)
      : setting_(rung_setting(rung, sparse, config)),
        rung_(rung),
        sparse_(sparse),
        length_(length),
        corpora_(std::move(corpora)) {
    id = id_of(rung, sparse, length);
    labels = {{"level", "anatomy"},
              {"id", id},
              {"rung", std::to_string(rung)},
              {"rung_name", rungs()[rung].name},
              {"repair", rungs()[rung].repair},
              {"arm", sparse ? "sparse" : "dense"},
              {"variant", setting_.variant},
              {"L", std::to_string(length)}};
    if (sparse) {
      labels["K"] = std::to_string(resolved_top_k(setting_.config.attention, length));
    }
    seeds = static_cast<int64_t>(config.seeds.size());
  }

  void run(benchmark::State& state, Session& session) override;
  void finish(Session& session) override { session.progress.end(); }

 private:
  TrainingResult train(uint64_t seed, Session& session) const;
  TrainingResult taken_over(size_t index, Session& session) const;
  void record(size_t index, const TrainingResult& result, Session& session);

  RungSetting setting_;
  size_t rung_;
  bool sparse_;
  int64_t length_;
  std::shared_ptr<Corpora> corpora_;
  size_t next_seed_ = 0;
  Repetitions repetitions_;
};

void AnatomyRow::run(benchmark::State& state, Session& session) {
  const size_t index = next_seed_++;
  const auto* done = session.recorder->metric(id, numbers().front().quantity.name);
  if (stop_requested()) return repetitions_.skip(state, "interrupted");
  if (done != nullptr && done->samples.size() > index)
    return repetitions_.skip(state, "done before");
  const uint64_t seed = session.config.seeds.at(index);
  session.progress.begin(id + " seed " + std::to_string(seed));
  std::string failure;
  bool finished = false;
  for (auto _ : state) {
    try {
      TrainingResult result = taken_over(index, session);
      if (!result.finished) result = train(seed, session);
      finished = result.finished;
      if (!finished) continue;  // leaving the loop early is not Google Benchmark's way
      record(index, result, session);
      state.SetIterationTime(result.median_step_seconds);
    } catch (const std::exception& error) {
      failure = sentence_of(error);
    }
  }
  if (!failure.empty()) {
    session.seed_failed = true;
    session.recorder->put(record::Failure{id, "failed", failure, labels});
    TrainingResult none;
    none.best_validation_loss = none.final_validation_loss = none.best_accuracy = kNaN;
    none.median_step_seconds = kNaN;
    record(index, none, session);
    repetitions_.fail(state, failure);
  } else if (!finished) {
    repetitions_.skip(state, "interrupted");
  } else {
    repetitions_.timed(state);
  }
  session.recorder->write();
}

TrainingResult AnatomyRow::taken_over(size_t index, Session& session) const {
  TrainingResult result;
  if (setting_.same_as == rung_) return result;
  const std::string earlier = id_of(setting_.same_as, sparse_, length_);
  for (const Number& number : numbers()) {
    const auto* metric = session.recorder->metric(earlier, number.quantity.name);
    if (metric == nullptr || metric->samples.size() <= index) return result;
    result.*number.value = metric->samples[index];
    if (!std::isfinite(metric->samples[index])) return result;
  }
  result.finished = true;
  return result;
}

TrainingResult AnatomyRow::train(uint64_t seed, Session& session) const {
  const RunConfig& config = setting_.config;
  const fs::path folder = session.recorder->folder() / "anatomy";
  fs::create_directories(folder);
  const std::string stem = std::to_string(rung_) + "_" + rungs()[rung_].name + "-" +
                           (sparse_ ? "sparse" : "dense") + "-L" + std::to_string(length_) +
                           "-seed" + std::to_string(seed);
  TrainingJob job = job_of(setting_.variant, length_, seed, config);
  job.checkpoint = folder / (stem + ".safetensors");
  MetricsLog log(folder / (stem + ".metrics.jsonl"));
  const TrainingResult result =
      train_seed(job, corpora_->of(config.data), log, session.progress, next_seed_ - 1, seeds);
  if (!result.finished) return result;
  fs::remove(job.checkpoint);  // 200 MB at the published size, and nothing continues from it
  return result;
}

void AnatomyRow::record(size_t index, const TrainingResult& result, Session& session) {
  for (const Number& number : numbers()) {
    record::Metric metric{number.quantity, labels, {}};
    const auto* known = session.recorder->metric(id, number.quantity.name);
    if (known != nullptr) metric.samples = known->samples;
    metric.samples.resize(index, kNaN);
    metric.samples.push_back(result.*number.value);
    session.recorder->put(metric);
  }
  Sample sample;
  sample.id = id;
  sample.level = "anatomy";
  sample.repetition = static_cast<int64_t>(index);
  sample.seed = session.config.seeds.at(index);
  sample.seconds = result.median_step_seconds;
  for (const Number& number : numbers()) sample.values[number.quantity.name] = result.*number.value;
  if (std::isfinite(sample.seconds)) session.recorder->add(sample);
  char line[128];
  std::snprintf(line, sizeof line, "%11s a step  loss %.4f  accuracy %4.1f %%  ",
                shown_seconds(result.median_step_seconds).c_str(), result.best_validation_loss,
                100 * result.best_accuracy);
  session.progress.print(line + id + " seed " + std::to_string(*sample.seed) +
                         (setting_.same_as == rung_ ? "" : " (as one rung before)"));
}

}  // namespace

Rows anatomy_rows(const RunConfig& config) {
  Rows rows;
  const auto corpora = std::make_shared<Corpora>();
  for (const int64_t length : config.lengths) {
    for (size_t rung = 0; rung < rungs().size(); ++rung) {
      for (const bool sparse : {false, true}) {
        rows.push_back(std::make_unique<AnatomyRow>(rung, sparse, length, config, corpora));
      }
    }
  }
  return rows;
}

}  // namespace dsa::bench
