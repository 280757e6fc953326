#include "bench/metrics_log.h"

#include "harness/selection_metrics.h"

#include <nlohmann/json.hpp>

#include <limits>

namespace dsa::bench {
namespace {

using Json = nlohmann::ordered_json;

/// JSON has no word for what is not finite: it was written as null.
double number_or_nan(const Json& json) {
  return json.is_number() ? json.get<double>() : std::numeric_limits<double>::quiet_NaN();
}

// Every struct lists its numbers once; lines are written and read through that list.
template <class S, class F>
void numbers(S& s, F&& f)
  requires requires { s.grad_norm; }
{
  f("training_loss", s.loss), f("indexer_loss", s.indexer_loss), f("router_loss", s.router_loss);
  f("grad_norm", s.grad_norm), f("learning_rate", s.learning_rate), f("seconds", s.seconds);
}
template <class E, class F>
void numbers(E& e, F&& f)
  requires requires { e.accuracy; }
{
  f("validation_loss", e.loss), f("accuracy", e.accuracy), f("bits_per_byte", e.bits_per_byte);
}

template <class T>
Json json_of(const char* type, const T& item) {
  Json out = {{"type", type}, {"step", item.step}};
  numbers(item, [&](const char* name, double value) { out[name] = value; });
  return out;
}

template <class T>
T item_of(const Json& json) {
  T item;
  item.step = json.at("step").get<int64_t>();
  numbers(item, [&](const char* name, double& value) {
    value = number_or_nan(json.value(name, Json()));
  });
  return item;
}

std::string line_of(const StepResult& step) {
  return json_of("step", step).dump();
}

std::string line_of(const Evaluation& evaluation) {
  Json json = json_of("evaluation", evaluation);
  json["tokens"] = evaluation.tokens;
  json["loss_by_position"] = evaluation.loss_by_position;
  if (!evaluation.exact_by_group.empty()) json["exact_by_group"] = evaluation.exact_by_group;
  for (const SelectionMetric& metric : selection_metrics()) {
    for (const SelectionQuality& layer : evaluation.selection) {
      json[metric.quantity.name].push_back(layer.*metric.value);
    }
  }
  return json.dump();
}

}  // namespace

MetricsLog::MetricsLog(const std::filesystem::path& file) : file_(file) {
  for (const std::string& line : whole_lines(file)) {
    const Json json = Json::parse(line, nullptr, false);
    if (json.is_discarded()) continue;
    if (json.value("type", "") == "step") steps_.push_back(item_of<StepResult>(json));
    if (json.value("type", "") == "evaluation") {
      Evaluation e = item_of<Evaluation>(json);
      e.tokens = json.value("tokens", int64_t{0});
      for (const Json& loss : json.value("loss_by_position", Json::array())) {
        e.loss_by_position.push_back(number_or_nan(loss));
      }
      e.exact_by_group = json.value("exact_by_group", std::vector<double>{});
      for (const SelectionMetric& metric : selection_metrics()) {
        const Json layers = json.value(metric.quantity.name, Json::array());
        e.selection.resize(std::max(e.selection.size(), layers.size()));
        for (size_t i = 0; i < layers.size(); ++i) {
          e.selection[i].*metric.value = number_or_nan(layers[i]);
        }
      }
      evaluations_.push_back(std::move(e));
    }
  }
}

std::vector<double> MetricsLog::step_seconds() const {
  std::vector<double> seconds;
  for (const StepResult& step : steps_) seconds.push_back(step.seconds);
  return seconds;
}

void MetricsLog::open(int64_t first_step, int64_t first_evaluation) {
  if (lines_) return;
  // What came after the checkpoint was lost and is done again.
  std::erase_if(steps_, [&](const StepResult& s) { return s.step >= first_step; });
  std::erase_if(evaluations_, [&](const Evaluation& e) { return e.step >= first_evaluation; });
  std::string kept;
  size_t next = 0;
  const auto evaluations_before = [&](int64_t step) {
    while (next < evaluations_.size() && evaluations_[next].step < step) {
      kept += line_of(evaluations_[next++]) + "\n";
    }
  };
  for (const auto& step : steps_) {
    evaluations_before(step.step);
    kept += line_of(step) + "\n";
  }
  evaluations_before(std::numeric_limits<int64_t>::max());
  write_atomically(file_, kept);  // who kills this process finds the old lines or the kept ones
  lines_ = std::make_unique<JsonLines>(file_);
}

void MetricsLog::add(const StepResult& step) {
  open(step.step, step.step);
  lines_->write(line_of(step));
  steps_.push_back(step);
}

void MetricsLog::add(const Evaluation& evaluation) {
  open(evaluation.step + 1, evaluation.step);
  lines_->write(line_of(evaluation));
  evaluations_.push_back(evaluation);
}

}  // namespace dsa::bench
