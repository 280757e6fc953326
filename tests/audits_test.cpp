// Every audit passes what is sound and fails what it exists to fail.
#include "harness/audits.h"

#include "harness/corpus_facts.h"
#include "harness/sparsity.h"
#include "tests/trainer_fixture.h"

#include <ATen/Functions.h>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/matchers/catch_matchers_floating_point.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include <cmath>

using namespace dsa;
using namespace dsa::testing;
using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::WithinAbs;
using Verdict = AuditFinding::Verdict;

namespace {

const AuditRow& row(int number) {
  return audits().at(static_cast<size_t>(number - 1));
}

/// A sound experiment on tiny_corpus.
AuditSubject sound(const Corpus& corpus, const std::string& variant) {
  AuditSubject subject;
  subject.variant = variant;
  subject.baseline = "dense";
  subject.attention = tiny_attention();
  subject.model = tiny_model();
  subject.train = tiny_train();
  subject.corpus = &corpus;
  subject.lengths = {32};
  return subject;
}

/// The published one at small widths: its split, its start, its attention, four layers.
AuditSubject published(Corpus& corpus) {
  corpus.split = "random_windows";
  AuditSubject subject = sound(corpus, "dsa_as_published");
  subject.attention.top_k = 0;
  subject.attention.top_k_fraction = 0.5;
  subject.attention.indexer_loss_weight = 0;
  subject.model.n_layers = 4;
  subject.model.embedding_std = 1.0;
  subject.lengths = {64};
  return subject;
}

AuditEvidence good_evidence() {
  AuditEvidence e;
  e.length = 32;
  e.baseline_loss = 1.0;
  e.bigram_loss = 2.0;
  e.recall = 0.9, e.untrained_recall = 0.3;
  e.kl = 0.1, e.untrained_kl = 1.0;
  e.parameters = 1050, e.indexer_parameters = 50, e.baseline_parameters = 1000;
  e.flops_per_token = 1.04, e.baseline_flops_per_token = 1.0;
  e.seeds = e.baseline_seeds = 3;
  e.steps = e.baseline_steps = 100;
  for (const double length : {2048.0, 4096.0, 8192.0, 16384.0}) {
    e.curve.push_back({length, 1e-6 * length, 4e3 * length, 1e5 * length});
  }
  return e;
}

}  // namespace

TEST_CASE("audits of before training pass every sound variant", "[audits]") {
  const Corpus corpus = tiny_corpus();
  const std::string name = GENERATE("dense", "dsa", "window", "random", "oracle");
  AuditSubject subject = sound(corpus, name);
  for (const int number : {1, 3, 6, 7}) {
    const AuditFinding finding = row(number).before(subject);
    INFO(name << ", audit " << number << ": " << finding.sentence);
    const bool applies = number != 6 || name != "dense";
    CHECK(finding.verdict == (applies ? Verdict::kPassed : Verdict::kOpen));
  }
}

TEST_CASE("the published experiment fails audits 1 to 4, each with its evidence", "[audits]") {
  Corpus corpus = tiny_corpus();
  const AuditSubject subject = published(corpus);
  const AuditFinding causality = row(1).before(subject);
  INFO(causality.sentence);
  CHECK(causality.verdict == Verdict::kFailed);
  CHECK(causality.observed == 63);
  CHECK_THAT(causality.sentence, ContainsSubstring("of 63 positions 63 change their logits") &&
                                     ContainsSubstring("losses of 6"));
  const AuditFinding leakage = row(2).before(subject);
  CHECK(leakage.verdict == Verdict::kFailed);
  CHECK(leakage.observed > 0.9);
  const AuditFinding start = row(3).before(subject);
  CHECK(start.verdict == Verdict::kFailed);
  CHECK(start.observed > 1.2 * std::log(40.0));
  const AuditFinding indexer = row(4).before(subject);
  CHECK(indexer.verdict == Verdict::kFailed);
  CHECK_THAT(indexer.sentence, ContainsSubstring("0 of 12 tensors of the indexer get a gradient"));
  CHECK(row(6).before(subject).verdict == Verdict::kFailed);  // with K = L it sees everything
  CHECK(row(7).before(subject).verdict == Verdict::kPassed);  // reproducibly wrong
}

namespace {

/// Recall among `pairs` pairs of `length` tokens; few pairs leave few different examples.
AuditSubject recalling(Corpus& corpus, int64_t pairs, int64_t length) {
  TaskConfig task;
  task.name = "mqar";
  task.vocab_size = 40, task.pairs = pairs, task.test_examples = 50;
  task.random_non_queries = false;
  corpus = load_corpus(task, {});
  AuditSubject subject = sound(corpus, "dsa");
  subject.task = task;
  subject.lengths = {length};
  subject.model.vocab_size = 40;
  return subject;
}

}  // namespace

TEST_CASE("a task is judged by its own examples and by guessing", "[audits]") {
  Corpus corpus;
  AuditSubject subject = recalling(corpus, 4, 32);
  for (const int number : {1, 2, 3, 4, 6, 7}) {
    const AuditFinding finding = row(number).before(subject);
    INFO("audit " << number << ": " << finding.sentence);
    CHECK(finding.verdict == Verdict::kPassed);
  }
  AuditEvidence e = good_evidence();
  e.bigram_loss = NAN;
  e.baseline_accuracy = 0.33;  // one of four values is right by guessing, and chance may add to it
  const AuditFinding above = row(3).after(subject, e);
  CHECK(above.verdict == Verdict::kPassed);
  CHECK_THAT(above.sentence, ContainsSubstring("guessing 25.0 %, and at least 32.5 %"));
  e.baseline_accuracy = 0.32;
  CHECK(row(3).after(subject, e).verdict == Verdict::kFailed);
  e.baseline_accuracy = NAN;
  CHECK(row(3).after(subject, e).verdict == Verdict::kOpen);
  AuditSubject sure = recalling(corpus, 1, 8);  // the only value there is
  e.baseline_accuracy = 1;
  CHECK(row(3).after(sure, e).verdict == Verdict::kOpen);
}

TEST_CASE("test examples that training sees too fail audit 2", "[audits]") {
  Corpus corpus;
  AuditSubject subject = recalling(corpus, 1, 8);  // 400 pairs at 3 places
  subject.train.steps = 4000, subject.train.batch = 4;
  const AuditFinding finding = row(2).before(subject);
  INFO(finding.sentence);
  CHECK(finding.verdict == Verdict::kFailed);
  CHECK(finding.observed > 0.9);
  CHECK_THAT(finding.sentence, ContainsSubstring("of 50 test examples are among the 16000"));
}

TEST_CASE("the indexer of dsa gets gradients, and other variants have none to train", "[audits]") {
  const Corpus corpus = tiny_corpus();
  CHECK(row(4).before(sound(corpus, "dsa")).verdict == Verdict::kPassed);
  AuditSubject off = sound(corpus, "dsa");
  off.attention.indexer_loss_weight = 0;
  CHECK(row(4).before(off).verdict == Verdict::kFailed);
  for (const char* name : {"dense", "window", "dsa_untrained"}) {
    const AuditFinding finding = row(4).before(sound(corpus, name));
    CHECK(finding.verdict == Verdict::kOpen);
    CHECK_THAT(finding.sentence, ContainsSubstring("does not apply"));
  }
}

TEST_CASE("evidence of after training decides audits 3, 4, 5 and 8", "[audits]") {
  const Corpus corpus = tiny_corpus();
  const AuditSubject subject = sound(corpus, "dsa");
  const auto verdict_with = [&](int number, auto&& change) {
    AuditEvidence e = good_evidence();
    change(e);
    return row(number).after(subject, e).verdict;
  };
  const auto nothing = [](AuditEvidence&) {};
  for (const int number : {3, 4, 5, 8}) CHECK(verdict_with(number, nothing) == Verdict::kPassed);

  CHECK(verdict_with(3, [](auto& e) { e.baseline_loss = 2.1; }) == Verdict::kFailed);
  CHECK(verdict_with(3, [](auto& e) { e.baseline_loss = NAN; }) == Verdict::kOpen);
  CHECK(verdict_with(4, [](auto& e) { e.recall = 0.29; }) == Verdict::kFailed);
  CHECK(verdict_with(4, [](auto& e) { e.untrained_recall = 0.01, e.recall = 0.1; }) ==
        Verdict::kFailed);  // below chance, which is about 4 / 20
  CHECK(verdict_with(4, [](auto& e) { e.kl = 1.0; }) == Verdict::kFailed);
  CHECK(verdict_with(4, [](auto& e) { e.recall = NAN; }) == Verdict::kOpen);
  CHECK(verdict_with(8, [](auto& e) { e.seeds = 2; }) == Verdict::kFailed);
  CHECK(verdict_with(8, [](auto& e) { e.steps = 99; }) == Verdict::kFailed);
  CHECK(verdict_with(8, [](auto& e) { e.flops_per_token = 1.11; }) == Verdict::kFailed);
  CHECK(verdict_with(8, [](auto& e) { e.parameters = 1051; }) == Verdict::kFailed);
  CHECK(verdict_with(8, [](auto& e) { e.baseline_seeds = 0; }) == Verdict::kOpen);
}

TEST_CASE("audit 5 reads slopes, and blames a busy machine for slow times alone", "[audits]") {
  const Corpus corpus = tiny_corpus();
  const AuditSubject subject = sound(corpus, "dsa");
  const auto verdict_of = [&](double time, double memory, double missing) {
    AuditEvidence e = good_evidence();
    e.missing_cpus = missing;
    for (auto& point : e.curve) {
      point.seconds = 1e-9 * std::pow(point.length, time);
      point.bytes = 2e3 * std::pow(point.length, memory);
    }
    return row(5).after(subject, e).verdict;
  };
  CHECK(verdict_of(1.14, 1.0, 0) == Verdict::kPassed);
  CHECK(verdict_of(1.16, 1.0, 0) == Verdict::kFailed);
  CHECK(verdict_of(0.84, 1.0, 0) == Verdict::kFailed);
  CHECK(verdict_of(1.16, 1.0, 0.5) == Verdict::kOpen);
  CHECK(verdict_of(2.0, 2.0, 0.5) == Verdict::kFailed);
  CHECK(verdict_of(1.0, 1.06, 0) == Verdict::kFailed);
  AuditEvidence e = good_evidence();
  for (auto& point : e.curve) point.bytes = 16384.0 * 16384.0 * point.length / 16384;
  CHECK(row(5).after(subject, e).verdict == Verdict::kFailed);  // as large as L * L
  e.curve.resize(2);
  CHECK(row(5).after(subject, e).verdict == Verdict::kOpen);
}

TEST_CASE("memory of a layer is linear for dsa and quadratic as published", "[audits]") {
  AttentionConfig attention = tiny_attention();
  const auto never = [] { return false; };
  const auto growth = [&](const char* name) {
    const auto points = sparsity_curve(name, attention, {2048, 4096, 8192}, 1, 4e9, never).points;
    REQUIRE(points.size() == 3);
    CHECK(points[2].seconds > 0);
    return points[2].bytes / points[0].bytes;
  };
  if (!std::isfinite(sparsity_curve("dsa", attention, {512}, 1, 4e9, never).points[0].bytes)) {
    SKIP("this system does not tell the peak of resident memory");
  }
  CHECK(growth("dsa") < 5);
  CHECK(growth("dsa_as_published") > 12);
  // The budget ends a curve instead of the machine.
  CHECK(sparsity_curve("dsa_as_published", attention, {512, 1024, 65536}, 1, 4e9, never)
            .points.size() == 2);
}

TEST_CASE("halves of an audit join as they must", "[audits]") {
  const AuditFinding good{Verdict::kPassed, 1, 2, "x", "first"},
      bad{Verdict::kFailed, 3, 4, "y", "second"};
  const AuditFinding open{Verdict::kOpen, 0, 0, "", "unknown"};
  CHECK(joined(good, good).verdict == Verdict::kPassed);
  CHECK(joined(good, bad).verdict == Verdict::kFailed);
  CHECK(joined(bad, good).verdict == Verdict::kFailed);
  CHECK(joined(bad, open).verdict == Verdict::kFailed);
  CHECK(joined(bad, open).observed == 3);
  CHECK(joined(good, open).verdict == Verdict::kOpen);
  CHECK(joined(open, good).sentence == "unknown");
  CHECK(joined(good, bad).sentence == "first; second");
}

TEST_CASE("n-grams of validation are found where training has them", "[audits][data]") {
  Corpus corpus;
  corpus.split = "contiguous";
  corpus.tokenizer = "word";
  corpus.source = "numbers";
  corpus.train = at::arange(1000, at::kLong);
  corpus.validation = at::arange(2000, 2101, at::kLong);
  corpus.vocab_size = 4000;
  CHECK(leak_ngram(corpus) == 8);
  CHECK(ngram_overlap(corpus, 50, 8) == 0);
  corpus.validation = at::cat({corpus.validation.narrow(0, 0, 50), corpus.train.narrow(0, 300, 50),
                               at::full({1}, 9, at::kLong)});
  // Two windows of 50 tokens: all 43 sequences of the second were copied, none of the first.
  CHECK_THAT(ngram_overlap(corpus, 50, 8), WithinAbs(0.5, 1e-12));
  CHECK(std::isnan(ngram_overlap(corpus, 7, 8)));
  corpus.all = at::cat({corpus.train, corpus.validation});
  corpus.split = "random_windows";
  corpus.validation_fraction = 0.1;
  CHECK(ngram_overlap(corpus, 50, 8) > 0.9);  // stride 1: nearly all stand in some training window
  CHECK(std::isnan(ngram_overlap(corpus, 7, 32)));  // sequences longer than any window
}

TEST_CASE("the bigram loss is what Witten and Bell's formula gives", "[audits][data]") {
  Corpus corpus;
  corpus.split = "contiguous";
  corpus.source = "numbers";
  corpus.vocab_size = 3;
  corpus.train = at::tensor({0, 1, 0, 1, 0, 2}, at::kLong);
  corpus.validation = at::tensor({0, 1, 2}, at::kLong);
  // After 0: seen 1 twice and 2 once, 2 kinds; unigrams (count + 1) / (6 + 3). After 1: 0 twice.
  const double first = -std::log((2 + 2 * (3.0 / 9)) / (3 + 2));
  const double second = -std::log((0 + 1 * (2.0 / 9)) / (2 + 1));
  CHECK_THAT(bigram_loss(corpus, 2), WithinAbs((first + second) / 2, 1e-12));
}
