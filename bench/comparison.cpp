#include "bench/comparison.h"

#include "harness/machine.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <ctime>

namespace dsa::bench {
namespace {

using Clock = std::chrono::steady_clock;

/// The kernel benchmark configuration whose rows are exactly one family of the goal.
KernelCase case_of(const Goal& goal, const std::string& family, const std::string& backend,
                   int64_t length, const std::string& scores) {
  KernelConfig c;
  c.families = {family};
  c.backends = {backend};
  c.queries = {goal.queries < length ? goal.queries : 0};
  c.top_k = {goal.top_k};
  c.heads = {goal.heads};
  c.kv_heads = goal.kv_heads;
  c.widths = {goal.width};
  c.v_width = goal.v_width;
  c.values = {goal.values};
  c.index_heads = {goal.index_heads};
  c.index_widths = {goal.index_width};
  c.dtypes = {goal.dtype};
  c.scores = {scores};
  // Selecting has no backward pass of its own: it runs once, forward.
  const bool selects = family == name(Op::kSelectTopK) || family == name(Op::kIndexerSelect);
  c.passes = {selects || family == kGemmFamily ? "fwd" : goal.pass};
  const auto cases = kernel_cases(c, {length});
  require(cases.size() == 1, "[", goal.name, "] compares ", family, " of ", backend, " with ",
          scores, " scores, which is no kernel benchmark; `dsa-bench list` shows what there is");
  return cases.front();
}

double seconds_of(const std::vector<Part>& side, size_t repetition) {
  double seconds = 0;
  for (const Part& part : side) seconds += part.repetitions[repetition].seconds;
  return seconds;
}

double flops_of(const std::vector<Part>& side) {
  double flops = 0;
  for (const Part& part : side) flops += part.kernel.work().flops;
  return flops;
}

Repetition timed(Part& part, int64_t iterations) {
  const std::clock_t cpu = std::clock();
  const auto start = Clock::now();
  for (int64_t i = 0; i < iterations; ++i)
    call(part.kernel, part.inputs->sets[part.turn++ % part.inputs->sets.size()]);
  const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
  const double cpu_seconds = double(std::clock() - cpu) / CLOCKS_PER_SEC;
  part.note = note_of(part.kernel);
  return {iterations, seconds / double(iterations), cpu_seconds / double(iterations)};
}

/// Warms the part up and returns how many of its calls last --kernels.min-time.
int64_t calibrated(Part& part, const KernelConfig& config) {
  timed(part, 1);
  double seconds = timed(part, 1).seconds;
  if (seconds < config.min_time) seconds = std::min(seconds, timed(part, 2).seconds);
  return std::clamp<int64_t>(static_cast<int64_t>(std::ceil(config.min_time / seconds)), 1,
                             1'000'000);
}

std::string wrong(Part& part, const InputSet& set, const Session& session) {
  const Verdict verdict = check(part.kernel, set, session.config.kernels.checked_queries);
  worsen(part.verdict, verdict);
  return verdict.failure.empty() ? "" : id_of(part.kernel) + ": " + verdict.failure;
}

/// Inputs and first check of every part.
std::string prepare(std::vector<Part*>& parts, Session& session) {
  for (Part* part : parts) {
    part->inputs = session.inputs.get(part->kernel, session.config.kernels);
    const std::string failure = wrong(*part, part->inputs->sets.front(), session);
    if (!failure.empty()) return failure;
  }
  return "";
}

/// Sides take turns, and take turns in going first.
void take_turns(Comparison& c, const Goal& goal, std::vector<Part*>& parts, Session& session) {
  const KernelConfig& config = session.config.kernels;
  std::vector<int64_t> iterations(parts.size(), 1);
  if (!session.config.dry_run) {
    for (size_t i = 0; i < parts.size(); ++i) iterations[i] = calibrated(*parts[i], config);
  }
  const auto start = Clock::now();
  const int64_t wanted = session.config.dry_run ? 1 : config.repetitions;
  for (int64_t n = 0; n < wanted && !stop_requested(); ++n) {
    const double spent = std::chrono::duration<double>(Clock::now() - start).count();
    if (n >= 3 && spent > config.row_budget) break;
    for (size_t i = 0; i < parts.size(); ++i) {
      const size_t place = n % 2 == 0 ? i : parts.size() - 1 - i;
      parts[place]->repetitions.push_back(timed(*parts[place], iterations[place]));
    }
    session.progress.tick(double(n + 1) / double(wanted), "");
  }
  // Equal results at unequal work: only the times count, unless rates are asked for.
  const double work = goal.measure == "rate" ? flops_of(c.ours) / flops_of(c.theirs) : 1;
  for (size_t n = 0; n < c.ours.front().repetitions.size(); ++n) {
    const double speed = seconds_of(c.theirs, n) / seconds_of(c.ours, n);
    c.ratios.push_back(speed * work);
  }
}

}  // namespace

Checked Part::checked() const {
  return {kernel, bytes_of_set(kernel) * double(inputs->sets.size()), verdict, inputs->facts, note};
}

std::vector<Comparison> comparisons(const Goal& goal) {
  std::vector<Comparison> all;
  const auto& known = distributions();
  for (const int64_t length : goal.lengths) {
    for (const std::string& scores : goal.scores) {
      Comparison& c = all.emplace_back();
      c.length = length, c.scores = scores;
      if (std::find(known.begin(), known.end(), scores) == known.end()) continue;
      for (const auto& family : goal.families)
        c.ours.push_back({case_of(goal, family, goal.backend, length, scores), {}, 0, {}, {}, {}});
      c.theirs.push_back(
          {case_of(goal, goal.against_family, goal.against, length, scores), {}, 0, {}, {}, {}});
    }
  }
  return all;
}

std::string not_measurable(const Goal& goal, const std::vector<Comparison>& all,
                           const KernelConfig& config) {
  const auto facts = machine_facts();
  const auto isa = facts.find("isa");
  const std::string here = isa == facts.end() ? "" : isa->second;
  for (const std::string& need : goal.needs) {
    if ((" " + here + " ").find(" " + need + " ") == std::string::npos)
      return "needs " + need + "; this CPU has " + (here.empty() ? "no known extension" : here);
  }
  for (const Comparison& c : all) {
    if (c.ours.empty()) return "this build has no distribution \"" + c.scores + "\" of scores";
    for (const auto* side : {&c.ours, &c.theirs}) {
      for (const Part& part : *side) {
        const std::string reason = reason_to_decline(part.kernel);
        if (!reason.empty()) return "backend " + part.kernel.backend + " declines: " + reason;
        if (part.kernel.scores == "captured") {
          const std::string none = captured_declines(part.kernel, config);
          if (!none.empty()) return id_of(part.kernel) + ": " + none;
        }
        const std::string size = too_large(part.kernel, config);
        if (!size.empty()) return id_of(part.kernel) + ": " + size;
      }
    }
  }
  return "";
}

std::string measure(Comparison& c, const Goal& goal, Session& session) {
  std::vector<Part*> parts;
  for (auto* side : {&c.ours, &c.theirs})
    for (Part& part : *side) parts.push_back(&part);
  std::string failure = prepare(parts, session);
  if (!failure.empty()) return failure;
  take_turns(c, goal, parts, session);
  for (Part& part : c.ours) {
    if (failure.empty() && !session.config.dry_run)
      failure = wrong(part, part.inputs->sets.back(), session);
  }
  return failure;
}

}  // namespace dsa::bench
