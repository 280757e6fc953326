#include "reports/kernel_view.h"

#include "reports/text.h"
#include "reports/training_view.h"
#include "reports/vocabulary.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>
#include <tuple>

namespace dsa::report {
namespace {

using Labels = std::map<std::string, std::string>;
namespace words = vocabulary;

/// Labels that say what was computed, not who computed it.
Labels axes_of(const Labels& labels) {
  Labels out = labels;
  for (const char* key :
       {words::kId, words::kLevel, words::kFamily, words::kPass, words::kBackend}) {
    out.erase(key);
  }
  return out;
}

/// Equal on every axis that both have: a dense row has no K, a selection no value width.
bool compatible(const Labels& a, const Labels& b) {
  return std::all_of(a.begin(), a.end(), [&](const auto& entry) {
    const auto found = b.find(entry.first);
    return found == b.end() || found->second == entry.second;
  });
}

Labels merged(Labels a, const Labels& b) {
  a.insert(b.begin(), b.end());
  return a;
}

/// A way to pick keys: one fused row, or scores and top-k apart.
struct Selection {
  Labels axes;
  std::string backend, pass;
  Summary time, memory;
};

Summary larger(const Summary& a, const Summary& b) {
  if (a.empty() || b.empty()) return {};
  return a.median >= b.median ? a : b;
}

std::vector<Selection> selections(const std::vector<KernelRow>& rows) {
  std::vector<Selection> out;
  std::set<std::string> fused;
  for (const KernelRow& row : rows) {
    if (row.family != words::kIndexerSelect) continue;
    fused.insert(row.backend);
    out.push_back({axes_of(row.labels), row.backend, row.pass, row.summary(words::kTime),
                   row.summary(words::kPeakMemory)});
  }
  for (const KernelRow& scores : rows) {
    if (scores.family != words::kIndexerScores || fused.contains(scores.backend)) continue;
    for (const KernelRow& top : rows) {
      const Labels a = axes_of(scores.labels), b = axes_of(top.labels);
      if (top.family != words::kSelectTopK || top.backend != scores.backend) continue;
      if (top.pass != scores.pass || !compatible(a, b)) continue;
      out.push_back({merged(a, b), scores.backend, scores.pass,
                     sum(scores.summary(words::kTime), top.summary(words::kTime)),
                     larger(scores.summary(words::kPeakMemory), top.summary(words::kPeakMemory))});
    }
  }
  return out;
}

struct Pairing {
  Labels axes;  ///< of the sparse row and its selection together
  std::string pass;
  Contender contender;
};

/// Selecting has no backward pass of its own: a forward selection serves both passes.
bool serves(const Selection& selection, const KernelRow& sparse, bool same_pass_exists) {
  return selection.backend == sparse.backend &&
         compatible(selection.axes, axes_of(sparse.labels)) &&
         (selection.pass == sparse.pass || !same_pass_exists);
}

std::vector<Pairing> pairings(const std::vector<KernelRow>& rows) {
  const std::vector<Selection> ways = selections(rows);
  std::vector<Pairing> out;
  for (const KernelRow& row : rows) {
    if (row.family != words::kSparse || row.summary(words::kTime).empty()) continue;
    const bool same_pass = std::any_of(ways.begin(), ways.end(), [&](const Selection& way) {
      return way.pass == row.pass && serves(way, row, true);
    });
    for (const Selection& way : ways) {
      if (!serves(way, row, same_pass) || way.time.empty()) continue;
      Contender whole{row.backend, row.role, sum(way.time, row.summary(words::kTime)),
                      larger(way.memory, row.summary(words::kPeakMemory)),
                      row.summary(words::kFlopRatio).median};
      out.push_back({merged(axes_of(row.labels), way.axes), row.pass, whole});
    }
  }
  return out;
}

/// "256", or "L/4" if K follows the length, or "" for a scenario of its own.
std::string top_k_rule(const std::map<double, std::set<double>>& by_length, double length,
                       double k) {
  std::set<double> constants, shares;
  for (const auto& [l, values] : by_length) {
    if (values.size() != 1) return count(k);
    constants.insert(*values.begin());
    shares.insert(l / *values.begin());
  }
  if (constants.size() == 1) return count(k);
  if (shares.size() == 1) return "L/" + significant(length / k, 3);
  return "K of each length";
}

const Contender* fastest(const std::vector<Contender>& list, const std::string& only_role) {
  const Contender* best = nullptr;
  for (const Contender& one : list) {
    if (one.time.empty() || one.role == words::kOracle) continue;
    if (!only_role.empty() && one.role != only_role) continue;
    if (!best || one.time.median < best->time.median) best = &one;
  }
  return best;
}

std::string axes_key(Labels axes) {
  axes.erase(words::kLength);
  axes.erase(words::kTopK);
  std::string out;
  for (const auto& [key, value] : axes) out += (out.empty() ? "" : " ") + key + "=" + value;
  return out;
}

void add_dense(ScenarioPoint& point, const std::vector<KernelRow>& rows, const Pairing& pair) {
  for (const KernelRow& row : rows) {
    if (row.family != words::kDense || row.pass != pair.pass) continue;
    if (!compatible(axes_of(row.labels), pair.axes) || row.summary(words::kTime).empty()) continue;
    const bool known = std::any_of(point.dense.begin(), point.dense.end(),
                                   [&](const Contender& c) { return c.backend == row.backend; });
    if (known) continue;
    point.dense.push_back({row.backend, row.role, row.summary(words::kTime),
                           row.summary(words::kPeakMemory),
                           std::numeric_limits<double>::quiet_NaN()});
  }
}

std::vector<Scenario> build_scenarios(const std::vector<KernelRow>& rows) {
  const std::vector<Pairing> pairs = pairings(rows);
  using Key = std::tuple<std::string, std::string>;
  std::map<Key, std::map<double, std::set<double>>> top_ks;
  for (const Pairing& pair : pairs) {
    const double length = number(pair.axes, words::kLength), k = number(pair.axes, words::kTopK);
    if (length > 0 && k > 0) top_ks[{pair.pass, axes_key(pair.axes)}][length].insert(k);
  }
  std::map<std::tuple<std::string, std::string, std::string>, std::map<double, ScenarioPoint>> grid;
  for (const Pairing& pair : pairs) {
    const double length = number(pair.axes, words::kLength), k = number(pair.axes, words::kTopK);
    if (!(length > 0 && k > 0)) continue;
    const std::string axes = axes_key(pair.axes);
    const std::string rule = top_k_rule(top_ks[{pair.pass, axes}], length, k);
    ScenarioPoint& point = grid[{pair.pass, axes, rule}][length];
    point.length = length;
    point.top_k = k;
    point.sparse.push_back(pair.contender);
    add_dense(point, rows, pair);
  }
  std::vector<Scenario> out;
  for (const auto& [key, points] : grid) {
    const auto& [pass, axes, rule] = key;
    Scenario scenario{pass, axes, "K = " + rule, {}};
    for (const auto& [length, point] : points) scenario.points.push_back(point);
    out.push_back(std::move(scenario));
  }
  std::stable_sort(out.begin(), out.end(), [](const Scenario& a, const Scenario& b) {
    if (a.points.size() != b.points.size()) return a.points.size() > b.points.size();
    return a.points.back().length > b.points.back().length;
  });
  return out;
}

}  // namespace

Summary KernelRow::summary(const std::string& quantity) const {
  const auto found = metrics.find(quantity);
  return summarise(found == metrics.end() ? std::vector<double>{} : found->second->samples);
}

const Contender* ScenarioPoint::best_dense() const {
  return fastest(dense, "");
}
const Contender* ScenarioPoint::best_sparse() const {
  const Contender* ours = fastest(sparse, words::kOurs);
  return ours ? ours : fastest(sparse, "");
}
Summary ScenarioPoint::speed_up() const {
  const Contender *a = best_dense(), *b = best_sparse();
  return a && b ? ratio(a->time, b->time) : Summary{};
}

Crossover Scenario::crossing() const {
  std::vector<RatioAt> ratios;
  for (const ScenarioPoint& point : points) ratios.push_back({point.length, point.speed_up()});
  return crossover(ratios);
}

KernelView::KernelView(const record::Run& run) {
  std::map<std::string, size_t> by_id;
  for (const record::Metric& metric : run.metrics) {
    if (label(metric.labels, words::kLevel) != words::kKernel) continue;
    const std::string id = label(metric.labels, words::kId);
    const auto [at, is_new] = by_id.try_emplace(id, rows_.size());
    if (is_new) {
      KernelRow row{metric.labels,
                    id,
                    label(metric.labels, words::kFamily),
                    label(metric.labels, words::kPass),
                    label(metric.labels, words::kBackend),
                    "",
                    {}};
      for (const record::BackendInfo& info : run.backends) {
        if (info.name == row.backend) row.role = info.role;
      }
      rows_.push_back(std::move(row));
    }
    rows_[at->second].metrics[metric.quantity.name] = &metric;
  }
  scenarios_ = build_scenarios(rows_);
}

std::string axes_text(const KernelRow& row) {
  std::string out;
  const auto add = [&](const std::string& part) { out += (out.empty() ? "" : " ") + part; };
  const Labels axes = axes_of(row.labels);
  // Lengths first, then the shape in the order of docs/records.md, then whatever else there is.
  const std::vector<std::string> shape{"L", "T", "N", "K", "B", "H", "G", "D", "V", "I", "J"};
  for (const std::string& key : shape) {
    if (axes.contains(key)) add(key + "=" + axes.at(key));
  }
  for (const auto& [key, value] : axes) {
    if (std::find(shape.begin(), shape.end(), key) == shape.end()) add(value);
  }
  return out;
}

const KernelRow* fastest_peer(const std::vector<KernelRow>& rows, const KernelRow& row) {
  const KernelRow* best = nullptr;
  const Labels axes = axes_of(row.labels);
  for (const KernelRow& other : rows) {
    if (other.role != words::kPeer || other.family != row.family || other.pass != row.pass)
      continue;
    if (axes_of(other.labels) != axes || other.summary(words::kTime).empty()) continue;
    if (!best || other.summary(words::kTime).median < best->summary(words::kTime).median) {
      best = &other;
    }
  }
  return best;
}

}  // namespace dsa::report
