// The audits that need no training: 1, 2, 6, 7 and the first halves of 3 and 4.
#include "harness/audit_setting.h"
#include "harness/corpus_facts.h"
#include "harness/denormals.h"
#include "model/causality.h"

#include <ATen/Functions.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <cmath>
#include <unordered_set>

namespace dsa {
namespace {

constexpr double kLogitsTolerance = 1e-4;  // of the largest logit, float32
constexpr double kMostNgrams = 0.02;
constexpr double kStartTolerance = 0.05;
constexpr double kParityTolerance = 1e-4;  // float32, norm of the difference over the norm
constexpr int64_t kMostExamples = 20000;   // of a training, looked for among the tests
constexpr int kRuns = 20;
constexpr int64_t kStepsOfRun = 2;

double start_loss(const ShortSetting& setting, const std::string& variant) {
  const auto trainer = setting.trainer(variant);
  const auto tiles = test_tiles(setting.subject.task, *setting.subject.corpus, setting.length, 8);
  const std::vector<Batch> few(tiles.begin(),
                               tiles.begin() + std::min(std::ptrdiff_t{4}, std::ssize(tiles)));
  return evaluate(trainer->model(), few, 0).loss;
}

/// Hidden states of the text and gradients of its loss, of the weights both variants have.
struct Computed {
  at::Tensor hidden;
  std::map<std::string, at::Tensor> gradients;
};
Computed computed(Transformer& model, const Batch& text) {
  const EvalMode eval(model);
  Computed result;
  {
    const at::NoGradGuard no_grad;
    result.hidden = model.hidden_of(model.embed(text.tokens));
  }
  model.forward(text.tokens, text.targets).loss.backward();
  for (const auto& item : model.named_parameters()) {
    if (item.value().grad().defined()) result.gradients[item.key()] = item.value().grad();
  }
  return result;
}

double distance(const at::Tensor& a, const at::Tensor& b) {
  const double norm = b.norm().item<double>();
  return (a - b).norm().item<double>() / std::max(norm, 1e-30);
}

/// Everything a run of one seed leaves: losses and weights.
std::vector<at::Tensor> short_run(const ShortSetting& setting) {
  const auto trainer = setting.trainer(setting.subject.variant);
  std::vector<at::Tensor> all;
  for (int64_t i = 0; i < kStepsOfRun; ++i)
    all.push_back(at::scalar_tensor(trainer->step().loss, at::kDouble));
  for (const auto& weight : trainer->model().parameters()) all.push_back(weight.detach());
  return all;
}

}  // namespace

AuditFinding causality_before(const AuditSubject& subject) {
  ShortSetting setting(subject);
  const at::Tensor tokens = setting.text(1).tokens;
  const auto narrow = setting.trainer(subject.variant);
  const int64_t rounded =
      positions_that_see_the_future(narrow->model(), tokens, false, kLogitsTolerance);
  setting.attention.backend = "auto";  // not every backend has float64
  const auto trainer = setting.trainer(subject.variant);
  Transformer& wide = trainer->model();
  wide.to(at::kDouble);
  wide.compute_all_experts(true);
  const int64_t exact = positions_that_see_the_future(wide, tokens, false, 0);
  const int64_t next = positions_that_see_the_future(wide, tokens, true, 0);
  const int64_t reached = positions_with_gradients_to_the_future(wide, tokens);
  const int64_t worst = std::max({exact, rounded, reached});
  return {
      verdict(worst == 0), double(worst), 0, "positions",
      sentence(
          "of %lld positions %lld change their logits when later tokens change (float64, to the "
          "last bit; float32: %lld), %lld when only the next one does, and the losses of %lld "
          "have gradients to later inputs",
          static_cast<long long>(setting.length - 1), static_cast<long long>(exact),
          static_cast<long long>(rounded), static_cast<long long>(next),
          static_cast<long long>(reached))};
}

namespace {

/// Rows of token ids, to be found again.
using RowSet = std::unordered_set<std::string>;
std::vector<std::string> rows_of(const Batch& batch) {
  std::vector<std::string> rows;
  const at::Tensor tokens = batch.tokens.contiguous();
  const auto bytes = static_cast<size_t>(tokens.size(1)) * sizeof(int64_t);
  for (int64_t row = 0; row < tokens.size(0); ++row)
    rows.emplace_back(reinterpret_cast<const char*>(tokens[row].const_data_ptr<int64_t>()), bytes);
  return rows;
}

/// Test examples that are among the first kMostExamples of a training, of the first seed.
AuditFinding example_leakage(const AuditSubject& subject) {
  int64_t tests = 0, examples = 0, seen = 0;
  for (const int64_t length : subject.lengths) {
    RowSet known;
    for (const Batch& tile : test_tiles(subject.task, *subject.corpus, length, subject.train.batch))
      for (std::string& row : rows_of(tile)) known.insert(std::move(row));
    tests += std::ssize(known);
    const auto batches =
        training_batches(subject.task, *subject.corpus, length, subject.train.batch, subject.seed);
    const int64_t steps =
        std::min(subject.train.steps, std::max<int64_t>(1, kMostExamples / subject.train.batch));
    for (int64_t step = 0; step < steps; ++step) {
      for (const std::string& row : rows_of(batches->at(step)))
        ++examples, seen += static_cast<int64_t>(known.erase(row));
    }
  }
  const double share = static_cast<double>(seen) / static_cast<double>(tests);
  return {verdict(seen == 0), share, 0, "share",
          sentence("%lld of %lld test examples are among the %lld training examples looked at",
                   static_cast<long long>(seen), static_cast<long long>(tests),
                   static_cast<long long>(examples))};
}

AuditFinding text_leakage(const AuditSubject& subject) {
  double windows = 0;
  const int64_t n = leak_ngram(*subject.corpus);
  for (const int64_t length : subject.lengths) {
    windows = std::max(windows, validation_overlap(*subject.corpus, length));
  }
  const int64_t longest = *std::max_element(subject.lengths.begin(), subject.lengths.end());
  const double ngrams = ngram_overlap(*subject.corpus, longest, n);
  const bool holds = windows == 0 && !(ngrams > kMostNgrams);  // NaN: windows hold none
  return {verdict(holds), windows > 0 ? windows : ngrams, windows > 0 ? 0 : kMostNgrams, "share",
          sentence(
              "%.2f %% of the scored validation tokens lie inside training windows, and %.2f %% of "
              "validation's %lld-token sequences occur in training text (at most %.0f %%)",
              100 * windows, 100 * ngrams, static_cast<long long>(n), 100 * kMostNgrams)};
}

}  // namespace

AuditFinding leakage_before(const AuditSubject& subject) {
  const Task& task = dsa::task(subject.task.name);
  if (task.fill == nullptr) return text_leakage(subject);
  const AuditFinding examples = example_leakage(subject);
  return task.reads_text ? joined(examples, text_leakage(subject)) : examples;
}

AuditFinding baseline_before(const AuditSubject& subject) {
  const ShortSetting setting(subject);
  const double expected = std::log(static_cast<double>(subject.model.vocab_size));
  const double base = start_loss(setting, subject.baseline);
  const double own = start_loss(setting, subject.variant);
  const double worst = std::abs(own - expected) > std::abs(base - expected) ? own : base;
  const std::string too = subject.variant == subject.baseline
                              ? ""
                              : sentence(" and of %s %.2f", subject.variant.c_str(), own);
  return {
      verdict(std::abs(worst - expected) <= kStartTolerance * expected), worst, expected,
      "nats/token",
      sentence("before training the loss of %s is %.2f%s nats/token; ln V is %.2f (at most 5 %% "
               "away)",
               subject.baseline.c_str(), base, too.c_str(), expected)};
}

AuditFinding indexer_before(const AuditSubject& subject) {
  const AttentionVariant& row = variant(subject.variant);
  const ShortSetting setting(subject);
  const auto trainer = setting.trainer(subject.variant);
  Transformer& model = trainer->model();
  const auto all = model.indexer_parameters();
  if (all.empty() || (row.role != "candidate" && row.role != "flawed")) {
    return open("does not apply: " + subject.variant +
                (all.empty() ? " has no indexer" : " leaves its indexer untrained on purpose"));
  }
  const Batch text = setting.text(2);
  model.train();
  const FlushDenormals flush(false);
  model.training_loss(model.forward(text.tokens, text.targets)).backward();
  int64_t reached = 0;
  for (const auto& parameter : all) {
    const at::Tensor& gradient = parameter.grad();
    reached += gradient.defined() && gradient.abs().max().item<double>() > 0;
  }
  const auto count = static_cast<int64_t>(all.size());
  return {verdict(reached == count), double(reached), double(count), "tensors",
          sentence("%lld of %lld tensors of the indexer get a gradient",
                   static_cast<long long>(reached), static_cast<long long>(count))};
}

AuditFinding parity_before(const AuditSubject& subject) {
  if (!selects(variant(subject.variant))) {
    return open("does not apply: " + subject.variant + " is the baseline");
  }
  ShortSetting setting(subject);
  setting.make_quiet();
  setting.attention.top_k = setting.length;
  const Batch text = setting.text(2);
  const auto ours = setting.trainer(subject.variant), theirs = setting.trainer(subject.baseline);
  const Computed own = computed(ours->model(), text), dense = computed(theirs->model(), text);
  const double forward = distance(own.hidden, dense.hidden);
  double backward = 0;
  std::string worst = "none";
  for (const auto& [name, gradient] : dense.gradients) {
    const auto found = own.gradients.find(name);
    const double away = found == own.gradients.end() ? 1 : distance(found->second, gradient);
    if (!(away <= backward)) backward = away, worst = name;
  }
  const double observed = std::fmax(forward, backward);
  return {verdict(forward <= kParityTolerance && backward <= kParityTolerance), observed,
          kParityTolerance, "relative",
          sentence(
              "with K = L hidden states differ from %s by %.1e of their norm, gradients by at most "
              "%.1e (%s)",
              subject.baseline.c_str(), forward, backward, worst.c_str())};
}

AuditFinding determinism_before(const AuditSubject& subject) {
  const ShortSetting setting(subject);
  const std::vector<at::Tensor> first = short_run(setting);
  int64_t different = 0;
  for (int run = 1; run < kRuns; ++run) {
    const std::vector<at::Tensor> again = short_run(setting);
    const bool same = std::equal(first.begin(), first.end(), again.begin(), again.end(),
                                 [](const auto& a, const auto& b) { return at::equal(a, b); });
    different += !same;
  }
  return {
      verdict(different == 0), double(different), 0, "runs",
      sentence("%lld of %d runs of %lld steps differ from the first in a bit of loss or weights",
               static_cast<long long>(different), kRuns - 1, static_cast<long long>(kStepsOfRun))};
}

}  // namespace dsa
