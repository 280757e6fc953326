#include "reports/training_view.h"

#include "reports/vocabulary.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <set>

namespace dsa::report {
namespace {

using Labels = std::map<std::string, std::string>;
namespace words = vocabulary;

bool is_training(const Labels& labels) {
  return label(labels, words::kLevel) == words::kTraining && labels.contains(words::kVariant) &&
         std::isfinite(number(labels, words::kLength));
}

int role_order(const std::string& role) {
  const std::array order{words::kBaseline, words::kCandidate, words::kControl, words::kBoundRole,
                         words::kFlawed};
  const auto at = std::find(order.begin(), order.end(), role);
  return static_cast<int>(at - order.begin());
}

/// K values of one variant if some length has several of them, else one empty string.
std::vector<std::string> swept(const std::map<double, std::set<std::string>>& by_length) {
  std::set<double> all;
  bool several = false;
  for (const auto& [length, values] : by_length) {
    several = several || values.size() > 1;
    for (const std::string& value : values) all.insert(std::strtod(value.c_str(), nullptr));
  }
  if (!several) return {""};
  std::vector<std::string> out;
  for (double value : all) out.push_back(std::to_string(static_cast<long long>(value)));
  return out;
}

}  // namespace

double number(const Labels& labels, const std::string& key) {
  const std::string text = label(labels, key);
  char* end = nullptr;
  const double value = std::strtod(text.c_str(), &end);
  const bool whole = !text.empty() && *end == '\0';
  return whole ? value : std::numeric_limits<double>::quiet_NaN();
}

std::string label(const Labels& labels, const std::string& key) {
  const auto found = labels.find(key);
  return found == labels.end() ? "" : found->second;
}

TrainingView::TrainingView(const record::Run& run, const std::string& task) : run_(run) {
  std::vector<record::VariantInfo> variants = run.variants;
  std::map<std::string, std::map<double, std::set<std::string>>> seen;
  std::set<double> lengths;
  const auto note = [&](const Labels& labels) {
    if (!is_training(labels) || label(labels, words::kTask) != task) return;
    const std::string name = label(labels, words::kVariant);
    const double length = number(labels, words::kLength);
    lengths.insert(length);
    auto& values = seen[name][length];
    if (labels.contains(words::kTopK)) values.insert(label(labels, words::kTopK));
    const bool known = std::any_of(variants.begin(), variants.end(),
                                   [&](const auto& v) { return v.name == name; });
    if (!known) variants.push_back({name, "not described in the record", words::kControl, 3});
  };
  for (const record::Metric& metric : run.metrics) note(metric.labels);
  for (const record::Series& series : run.series) note(series.labels);
  lengths_.assign(lengths.begin(), lengths.end());

  std::stable_sort(variants.begin(), variants.end(), [](const auto& a, const auto& b) {
    return role_order(a.role) < role_order(b.role);
  });
  std::set<int> taken;
  for (const record::VariantInfo& variant : variants) {
    if (!seen.contains(variant.name)) continue;
    for (const std::string& top_k : swept(seen[variant.name])) {
      int slot = variant.colour_slot;
      while (!taken.insert(slot).second) ++slot;
      arms_.push_back({variant, top_k, top_k.empty() ? variant.name : variant.name + " K=" + top_k,
                       slot, task});
    }
  }
}

const Arm* TrainingView::first(const std::string& role) const {
  for (const Arm& arm : arms_) {
    if (arm.variant.role == role) return &arm;
  }
  return nullptr;
}

bool TrainingView::is_of(const Labels& labels, const Arm& arm, double length) {
  return is_training(labels) && label(labels, words::kVariant) == arm.variant.name &&
         number(labels, words::kLength) == length && label(labels, words::kTask) == arm.task &&
         (arm.top_k.empty() || label(labels, words::kTopK) == arm.top_k);
}

const record::Metric* TrainingView::find(const std::string& quantity, const Arm& arm,
                                         double length) const {
  for (const record::Metric& metric : run_.metrics) {
    if (metric.quantity.name == quantity && is_of(metric.labels, arm, length)) return &metric;
  }
  return nullptr;
}

std::vector<double> TrainingView::samples(const std::string& quantity, const Arm& arm,
                                          double length) const {
  const record::Metric* metric = find(quantity, arm, length);
  return metric ? metric->samples : std::vector<double>{};
}

Summary TrainingView::summary(const std::string& quantity, const Arm& arm, double length) const {
  return summarise(samples(quantity, arm, length));
}

std::string TrainingView::top_k(const Arm& arm, double length) const {
  for (const record::Metric& metric : run_.metrics) {
    if (is_of(metric.labels, arm, length)) return label(metric.labels, words::kTopK);
  }
  return "";
}

std::vector<const record::Series*> TrainingView::curves(const std::string& quantity, const Arm& arm,
                                                        double length) const {
  std::vector<const record::Series*> out;
  for (const record::Series& series : run_.series) {
    if (series.y.name == quantity && is_of(series.labels, arm, length)) out.push_back(&series);
  }
  return out;
}

std::vector<const record::Metric*> TrainingView::stages(const Arm& arm, double length) const {
  std::vector<const record::Metric*> out;
  for (const record::Metric& metric : run_.metrics) {
    if (metric.quantity.name == words::kStageTime && is_of(metric.labels, arm, length)) {
      out.push_back(&metric);
    }
  }
  return out;
}

}  // namespace dsa::report
