// The tables behind the verdict on training: who was compared with whom and what came out, and what
// each variant costs in parameters and FLOPs.
#include "reports/report.h"
#include "reports/verdict.h"
#include "reports/vocabulary.h"

#include <algorithm>
#include <cmath>

namespace dsa::report {
namespace {

namespace words = vocabulary;

Text finding_cell(const Comparison& one, const Criterion& c) {
  if (one.first->variant.role == words::kFlawed) return "flawed";
  const std::string word = name(c.finding);
  if (c.finding == Finding::kInconclusive && c.alone != c.finding) {
    return word + " (alone: " + name(c.alone) + ")";
  }
  const bool decided = c.finding <= Finding::kWorse;
  return decided ? bold(word) : Text(word);
}

Table comparison_table(const std::vector<Comparison>& all, const TrainingView& training) {
  Table table;
  table.columns = {{"variant"}, {"against"}};
  for (const char* head : {"L", "K", "Δ loss, equal steps"}) table.columns.push_back({head, true});
  table.columns.push_back({"verdict"});
  table.columns.push_back({"Δ loss, equal time", true});
  table.columns.push_back({"verdict"});
  for (const char* head : {"speed", "seeds"}) table.columns.push_back({head, true});
  const Comparison* before = nullptr;
  for (const Comparison& one : all) {
    const bool same = before && before->first == one.first && before->second == one.second;
    const std::string top_k = training.top_k(*one.first, one.length);
    const int n = one.equal_steps.difference.n;
    const std::string of = n == one.seeds ? "" : " of " + std::to_string(one.seeds);
    const Criterion &steps = one.equal_steps, &time = one.equal_time;
    table.rows.push_back({same ? Text() : code(one.first->name),
                          same ? Text() : code(one.second->name), length(one.length),
                          top_k.empty() ? "all" : top_k, signed_gap(steps.difference),
                          finding_cell(one, steps), signed_gap(time.difference, time.slack),
                          finding_cell(one, time), times(one.speed), std::to_string(n) + of});
    before = &one;
  }
  return table;
}

/// Every doubt once, with the lengths it is about.
List doubts(const std::vector<Comparison>& all) {
  struct Doubt {
    std::string pair, text, lengths;
  };
  std::vector<Doubt> found;
  for (const Comparison& one : all) {
    if (one.first->variant.role == words::kFlawed) continue;
    const std::string pair = one.first->name + " against " + one.second->name;
    for (const auto& [criterion, when] :
         {std::pair(&one.equal_steps, "equal steps"), std::pair(&one.equal_time, "equal time")}) {
      const bool said = criterion == &one.equal_time && criterion->doubt == one.equal_steps.doubt;
      if (criterion->doubt.empty() || said) continue;
      const std::string text = std::string("at ") + when + ": " + criterion->doubt;
      const auto at = std::find_if(found.begin(), found.end(), [&](const Doubt& d) {
        return d.pair == pair && d.text == text;
      });
      if (at == found.end()) {
        found.push_back({pair, text, length(one.length)});
      } else {
        at->lengths += ", " + length(one.length);
      }
    }
  }
  List list;
  for (const Doubt& d : found) {
    list.items.push_back(d.pair + ", L = " + d.lengths + ", " + d.text + ".");
  }
  return list;
}

List how_to_read(const Margin& margin) {
  const std::string seeds = std::to_string(kSeedsNeeded);
  return {{
      "Δ loss: final validation loss minus the other's, nats/token; mean over seeds of the "
      "differences of equal seeds, ± half the 95 % interval (Student t). Below 0 the variant is "
      "better.",
      Text("Verdict: equivalent if two one-sided tests at 95 % put the difference within ±" +
           shortest(margin.value) + " (so does its 90 % interval; ") +
          (margin.fixed ? code("train.equivalence-margin") + ", fixed before the run"
                        : Text("the suite's default: this record was made before runs fixed one")) +
          "), else better or worse if a t test at 95 % finds a difference, else inconclusive. Both "
          "with Holm's correction over the lengths of a pair; \"alone\" is what the length says "
          "without it. It takes " +
          seeds + " seeds, and never favours a variant with a failed one.",
      "Equal time: both losses at the moment the faster of the two ended, seed by seed, over the "
      "time of training steps alone. The slower one's is read from the line between its two "
      "evaluations around that moment (the interval is widened by how far a parabola departs from "
      "the line), before its learning-rate schedule has ended.",
      "Speed: the other's median step time over the variant's; above 1× the variant is faster. "
      "Median over seeds [smallest, largest; from 6 seeds on the 95 % interval].",
  }};
}

/// "34.2 M", "205312"
std::string parameters_cell(const TrainingView& training, const char* quantity, const Arm& arm) {
  for (const double at : training.lengths()) {
    const Summary value = training.summary(quantity, arm, at);
    if (value.empty()) continue;
    return value.median < 1e6 ? count(value.median) : significant(value.median / 1e6) + "\u00a0M";
  }
  return "–";
}

Table cost_table(const TrainingView& training) {
  Table table;
  table.columns = {{"variant"}, {"parameters", true}, {"active", true}, {"indexer", true}};
  for (const double at : training.lengths())
    table.columns.push_back({"FLOP/token, L = " + length(at), true});
  for (const Arm& arm : training.arms()) {
    std::vector<Text> row{code(arm.name)};
    bool any = false;
    for (const char* quantity : {words::kParameters, words::kActive, words::kIndexer}) {
      row.push_back(parameters_cell(training, quantity, arm));
      any = any || !training.summary(quantity, arm, training.lengths().back()).empty();
    }
    for (const double at : training.lengths()) {
      const Summary flops = training.summary(words::kFlops, arm, at);
      row.push_back(flops.empty() ? "–" : with_unit(flops.median, "FLOP"));
      any = any || !flops.empty();
    }
    if (any) table.rows.push_back(std::move(row));
  }
  return table;
}

}  // namespace

std::vector<Block> comparison_section(const Material& material) {
  const std::vector<Comparison> all = comparisons(material.run, material.training);
  std::vector<Block> out;
  if (!all.empty()) {
    out.push_back({Heading{2, "The evidence: training"}});
    out.push_back({comparison_table(all, material.training)});
    if (List list = doubts(all); !list.items.empty()) out.push_back({list});
    out.push_back({how_to_read(margin_of(material.run))});
  }
  const Table costs = cost_table(material.training);
  if (!costs.rows.empty()) {
    out.push_back({Heading{3, "What each variant costs"}});
    out.push_back({costs});
    out.push_back({Paragraph{
        "Active: what one token passes through, with the experts it is routed to. Indexer: part of "
        "the total that only selects. FLOP/token: forward and backward of a training step by the "
        "cost model (docs/attention.md), attention included."}});
  }
  return out;
}

}  // namespace dsa::report
