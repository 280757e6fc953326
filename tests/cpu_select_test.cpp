// Indexer and selection of the `cpu` backend on hostile inputs, on every ISA and thread count.
#include "attention/backend_cpu.h"
#include "attention/cpu/scratch.h"
#include "harness/denormals.h"
#include "tests/select_inputs.h"

#include <catch2/matchers/catch_matchers_string.hpp>

#include <bit>
#include <fstream>
#include <thread>

namespace {

using namespace select_test;

struct Distribution {
  const char* name;
  std::function<float(std::mt19937_64&, int64_t s, int64_t keys)> score;
};

const std::vector<Distribution>& score_distributions() {
  using Engine = std::mt19937_64;
  const auto normal = [](Engine& e) { return std::normal_distribution<float>()(e); };
  static const std::vector<Distribution> all = {
      {"uniform",
       [](Engine& e, int64_t, int64_t) { return std::uniform_real_distribution<float>()(e); }},
      {"relu plateau",
       [=](Engine& e, int64_t, int64_t) { return std::max(0.0f, normal(e) - 1.5f); }},
      {"concentrated", [=](Engine& e, int64_t, int64_t) { return 1.0f + 1e-6f * normal(e); }},
      {"all equal", [](Engine&, int64_t, int64_t) { return -3.5f; }},
      {"two values", [](Engine& e, int64_t, int64_t) { return (e() & 7) == 0 ? 2.0f : 1.0f; }},
      {"ascending", [](Engine&, int64_t s, int64_t) { return static_cast<float>(s); }},
      {"descending", [](Engine&, int64_t s, int64_t keys) { return static_cast<float>(keys - s); }},
      {"one radix bin",
       [](Engine& e, int64_t, int64_t) {
         return 1.0f + static_cast<float>(e() % 4096) * std::numeric_limits<float>::epsilon();
       }},
      {"denormal",
       [](Engine& e, int64_t, int64_t) {
         return static_cast<float>(static_cast<int>(e() % 999) - 499) *
                std::numeric_limits<float>::denorm_min();
       }},
      {"signed zeros", [](Engine& e, int64_t, int64_t) { return (e() & 1) != 0 ? 0.0f : -0.0f; }},
      {"zeros among others",  // fewer positive ones than K, so the K-th best is a zero
       [](Engine& e, int64_t, int64_t) {
         const uint64_t kind = e() % 40;
         const float tiny = std::numeric_limits<float>::denorm_min();
         if (kind < 4) return kind == 0 ? 1.0f : kind == 1 ? tiny : kind == 2 ? -tiny : -1.0f;
         return (kind & 1) != 0 ? 0.0f : -0.0f;
       }},
      {"any bits",  // every exponent alike: interpolation is of no use
       [](Engine& e, int64_t, int64_t) {
         const auto bits = static_cast<uint32_t>(e());
         const float x = std::bit_cast<float>(bits);
         return std::isfinite(x) ? x : 0.0f;
       }},
      {"infinities",
       [=](Engine& e, int64_t, int64_t) {
         const uint64_t kind = e() % 3;
         return kind == 0 ? kInfinity : kind == 1 ? -kInfinity : normal(e);
       }},
      {"all -inf", [](Engine&, int64_t, int64_t) { return -kInfinity; }},
      {"extremes",
       [](Engine& e, int64_t, int64_t) {
         return ((e() & 1) != 0 ? 1.0f : -1.0f) * std::numeric_limits<float>::max();
       }},
      {"outlier blocks",
       [=](Engine& e, int64_t s, int64_t) { return s % 256 < 16 ? 100 + normal(e) : normal(e); }},
  };
  return all;
}

}  // namespace

TEST_CASE("select_top_k picks the definition's keys on hostile scores", "[select]") {
  const auto& distribution =
      score_distributions()[GENERATE(range(size_t{0}, score_distributions().size()))];
  const Shape shape = GENERATE(
      Shape{1, 1, 1, 1}, Shape{1, 1, 1, 5}, Shape{2, 3, 17, 1}, Shape{1, 67, 67, 16},
      Shape{3, 5, 131, 200}, Shape{1, 9, 509, 509}, Shape{2, 40, 2053, 64}, Shape{1, 6, 8192, 512},
      Shape{1, 2, 8191, 700}, Shape{1, 3, 12289, 2048}, Shape{1, 2, 5000, 4999});
  INFO("scores " << distribution.name << ", " << shape);
  std::mt19937_64 engine(7);
  const at::Tensor scores = filled({shape.batch, shape.queries, shape.keys}, [&](int64_t i) {
    return distribution.score(engine, i % shape.keys, shape.keys);
  });
  const Selection expected = oracle_top_k(scores, shape.top_k);
  on_every_machine(
      [&] { require_same(dsa::cpu_backend().select_top_k(scores, shape.top_k), expected); });
}

// As in training: there the value just below zero compares as zero.
TEST_CASE("selections are the same while denormals are flushed", "[select]") {
  const auto& distribution =
      score_distributions()[GENERATE(range(size_t{0}, score_distributions().size()))];
  const Shape shape = GENERATE(Shape{2, 64, 64, 16}, Shape{1, 3, 2053, 64}, Shape{1, 2, 8192, 512});
  INFO("scores " << distribution.name << ", " << shape);
  std::mt19937_64 engine(7);
  const at::Tensor scores = filled({shape.batch, shape.queries, shape.keys}, [&](int64_t i) {
    return distribution.score(engine, i % shape.keys, shape.keys);
  });
  const Selection expected = oracle_top_k(scores, shape.top_k);
  // Small integers: most scores are a zero, as those of an indexer that has hardly trained.
  const SelectInputs inputs = integer_inputs({1, 64, 64, 2, 8}, 3);
  const auto indexed = [&] {
    return dsa::cpu_backend().indexer_select(inputs.q, inputs.k, inputs.weight, 16);
  };
  on_every_machine([&] {
    const Selection indexer_expected = indexed();
    const dsa::FlushDenormals flushed(true);
    require_same(dsa::cpu_backend().select_top_k(scores, shape.top_k), expected);
    require_same(indexed(), indexer_expected);
  });
}

TEST_CASE("select_top_k does not read the scores after a query", "[select]") {
  const int64_t keys = 150, queries = 100;
  at::Tensor scores = gaussian({1, queries, keys}, 3);
  auto* data = scores.mutable_data_ptr<float>();
  const Selection expected = oracle_top_k(scores, 20);
  for (int64_t t = 0; t < queries; ++t)
    for (int64_t s = t + 1 + keys - queries; s < keys; ++s)
      data[t * keys + s] = s % 2 != 0 ? kNaN : kInfinity;
  on_every_machine([&] { require_same(dsa::cpu_backend().select_top_k(scores, 20), expected); });
}

TEST_CASE("select_top_k names the first NaN", "[select]") {
  // Where it stands: inside the first fill, past it, in a tail; with one more behind it, so that
  // threads that meet the later one first must not report it.
  const auto [keys, nan] =
      GENERATE(std::pair<int64_t, int64_t>{1, 0}, std::pair<int64_t, int64_t>{70, 3},
               std::pair<int64_t, int64_t>{5003, 2}, std::pair<int64_t, int64_t>{5003, 1700},
               std::pair<int64_t, int64_t>{5003, 4990});
  const int64_t queries = keys == 1 ? 1 : 40;
  at::Tensor scores = gaussian({2, queries, keys}, 5);
  auto* data = scores.mutable_data_ptr<float>();
  const int64_t t = queries - 1;
  data[(queries + t) * keys + nan] = kNaN;
  if (nan + 1 < keys) data[(queries + t) * keys + nan + 1] = kNaN;
  const std::string place =
      "(batch 1, query " + std::to_string(t) + ", key " + std::to_string(nan) + ")";
  on_every_machine([&] {
    CHECK_THROWS_WITH(dsa::cpu_backend().select_top_k(scores, 16),
                      Catch::Matchers::ContainsSubstring(place));
  });
}

TEST_CASE("indexer_select names the first pair whose score is NaN", "[select]") {
  SelectInputs inputs = gaussian_inputs({2, 50, 1300, 4, 24}, 11);
  const at::ScalarType type = GENERATE(at::kFloat, at::kBFloat16);
  INFO(type);
  const auto select = [&] {
    const SelectInputs given = inputs.as(type);
    return dsa::cpu_backend().indexer_select(given.q, given.k, given.weight, 8);
  };
  SECTION("from a key") {
    inputs.k.mutable_data_ptr<float>()[(1300 + 1270) * 24 + 5] = kNaN;
    // Query 20 is the first that sees key 1270.
    on_every_machine([&] {
      CHECK_THROWS_WITH(select(),
                        Catch::Matchers::ContainsSubstring("(batch 1, query 20, key 1270)"));
    });
  }
  SECTION("from a weight") {
    inputs.weight.mutable_data_ptr<float>()[30 * 4 + 2] = kNaN;
    on_every_machine([&] {
      CHECK_THROWS_WITH(select(), Catch::Matchers::ContainsSubstring("(batch 0, query 30, key 0)"));
    });
  }
}

TEST_CASE("a query in bfloat16 of odd width does not meet the next query", "[select]") {
  // Pairs of elements are multiplied: the last element of query 3 has the first of query 4 beside
  // it, and 0 * inf would be NaN.
  const IndexerShape shape{1, 5, 70, 3, 17};
  SelectInputs inputs = integer_inputs(shape, 25);
  const auto scores = [&] {
    const SelectInputs given = inputs.as(at::kBFloat16);
    return dsa::cpu_backend().indexer_scores(given.q, given.k, given.weight).slice(1, 0, 4);
  };
  on_every_machine([&] {
    inputs.q.mutable_data_ptr<float>()[4 * 3 * 17] = 1;
    const at::Tensor expected = scores();
    inputs.q.mutable_data_ptr<float>()[4 * 3 * 17] = kInfinity;
    REQUIRE(at::equal(scores(), expected));
  });
}

TEST_CASE("indexer_scores equals the definition on integers", "[select]") {
  const IndexerShape shape = GENERATE(from_range(kIndexerShapes));
  const at::ScalarType type = GENERATE(at::kFloat, at::kBFloat16);
  INFO(shape << ", " << type);
  const SelectInputs inputs = integer_inputs(shape, 21), given = inputs.as(type);
  at::Tensor expected = filled({shape.batch, shape.queries, shape.keys}, [&](int64_t i) {
    const int64_t row = i / shape.keys, s = i % shape.keys;
    return s < inputs.visible(row % shape.queries) ? static_cast<float>(inputs.score(row, s))
                                                   : -kInfinity;
  });
  on_every_machine([&] {
    const auto found = dsa::cpu_backend().indexer_scores(given.q, given.k, given.weight);
    REQUIRE(at::equal(found, expected));
  });
}

TEST_CASE("indexer_select equals the definition on integers", "[select]") {
  const IndexerShape shape = GENERATE(from_range(kIndexerShapes));
  const int64_t top_k = GENERATE(1, 31, 2000);
  const at::ScalarType type = GENERATE(at::kFloat, at::kBFloat16);
  INFO(shape << ", K " << top_k << ", " << type);
  const SelectInputs inputs = integer_inputs(shape, 31), given = inputs.as(type);
  const auto scores = inputs.scores();
  const Selection expected = oracle_selection(inputs, scores, top_k);
  on_every_machine([&] {
    require_same(dsa::cpu_backend().indexer_select(given.q, given.k, given.weight, top_k),
                 expected);
  });
}

TEST_CASE("a threshold guessed too high is noticed", "[select]") {
  const int64_t queries = 70, keys = 4096, top_k = 512;
  const auto type = GENERATE(at::kFloat, at::kBFloat16);
  // The first keys, of which the guess is made, score ten times as high as those after them.
  SelectInputs inputs = gaussian_inputs({1, queries, keys, 4, 64}, 77);
  inputs.weight.abs_();
  auto* k = inputs.k.mutable_data_ptr<float>();
  for (int64_t i = 0; i < 1024 * inputs.width(); ++i) k[i] *= 10;
  const SelectInputs given = inputs.as(type);
  on_every_machine([&] {
    const auto& cpu = dsa::cpu_backend();
    const at::Tensor scores = cpu.indexer_scores(given.q, given.k, given.weight);
    require_same(cpu.indexer_select(given.q, given.k, given.weight, top_k),
                 oracle_top_k(scores, top_k));
  });
}

TEST_CASE("indexer_select has no wrong member on real-valued inputs", "[select]") {
  const IndexerShape shape =
      GENERATE(IndexerShape{1, 200, 3000, 4, 64}, IndexerShape{2, 150, 150, 3, 37},
               IndexerShape{1, 90, 2500, 16, 128});
  const int64_t top_k = GENERATE(16, 512);
  const at::ScalarType type = GENERATE(at::kFloat, at::kBFloat16);
  INFO(shape << ", K " << top_k << ", " << type);
  const SelectInputs given = gaussian_inputs(shape, 41).as(type), inputs = given.as(at::kFloat);
  const auto scores = inputs.scores();
  const Selection expected = oracle_selection(inputs, scores, top_k);
  on_every_machine([&] {
    const Selection found =
        dsa::cpu_backend().indexer_select(given.q, given.k, given.weight, top_k);
    REQUIRE(at::equal(found.count, expected.count));
    for (int64_t row = 0; row < shape.batch * shape.queries; ++row) {
      const auto count = found.count.const_data_ptr<int32_t>()[row];
      const int32_t* ids = found.indices.const_data_ptr<int32_t>() + row * top_k;
      const int32_t* truth = expected.indices.const_data_ptr<int32_t>() + row * top_k;
      const double* score = scores.data() + row * shape.keys;
      REQUIRE(std::adjacent_find(ids, ids + count, std::greater_equal<>()) == ids + count);
      const double threshold = score[*std::min_element(
          truth, truth + count, [&](int32_t a, int32_t b) { return score[a] < score[b]; })];
      for (int slot = 0; slot < count; ++slot) {
        const int32_t member = ids[slot], wanted = truth[slot];
        if (score[member] < threshold - inputs.slack(row, member))
          FAIL("row " << row << ": member " << member << " is not among the best");
        if (!std::binary_search(ids, ids + count, wanted) &&
            score[wanted] > threshold + inputs.slack(row, wanted))
          FAIL("row " << row << ": " << wanted << " is missing");
      }
    }
  });
}

TEST_CASE("indexer_select never holds a score matrix", "[select]") {
  // A matrix of scores would be 1 GiB at this length; ids and counts are 4 MiB.
  const SelectInputs inputs = gaussian_inputs({1, 16384, 16384, 1, 4}, 51);
  const auto peak_kib = [] {
    std::ifstream status("/proc/self/status");
    for (std::string line; std::getline(status, line);)
      if (line.rfind("VmHWM:", 0) == 0) return std::stol(line.substr(6));
    return 0L;
  };
  if (!(std::ofstream("/proc/self/clear_refs") << "5" << std::flush)) SKIP("no peak to reset here");
  const long before = peak_kib();
  const Selection selection =
      dsa::cpu_backend().indexer_select(inputs.q, inputs.k, inputs.weight, 64);
  const long grown_mib = (peak_kib() - before) >> 10;
  INFO("grew by " << grown_mib << " MiB");
  REQUIRE(selection.count.const_data_ptr<int32_t>()[16383] == 64);
  REQUIRE(before > 0);
  REQUIRE(grown_mib < 64);
}

// [slow]: 8.6 thousand million pairs, twice.
TEST_CASE("at 131072 keys indexer_select holds packed keys and 4 MiB a thread", "[select][slow]") {
  const auto [heads, width] =
      GENERATE(std::pair<int64_t, int64_t>{1, 2}, std::pair<int64_t, int64_t>{4, 64});
  const int64_t length = 131072, top_k = 512;
  CAPTURE(heads, width);
  const SelectInputs inputs = integer_inputs({1, length, length, heads, width}, 61);
  const int threads = at::get_num_threads();
  int64_t grown = 0;
  Selection found;
  // In a thread of its own, so that scratch of earlier tests does not hide what this one needs.
  std::thread([&] {
    at::set_num_threads(2);
    const int64_t before = dsa::cpu::scratch_live_bytes();
    found = dsa::cpu_backend().indexer_select(inputs.q, inputs.k, inputs.weight, top_k);
    grown = dsa::cpu::scratch_live_bytes() - before;
  }).join();
  at::set_num_threads(threads);
  INFO("scratch grew by " << grown << " bytes");
  REQUIRE(grown > 0);
  // Keys in float32, and in bfloat16 where they are screened.
  REQUIRE(grown <= (length + 96) * width * 6 + (int64_t{2} << 20) + 2 * (int64_t{4} << 20));
  std::vector<double> scores(static_cast<size_t>(length));
  for (const int64_t t : {int64_t{511}, int64_t{512}, int64_t{70001}, length - 1}) {
    INFO("query " << t);
    for (int64_t s = 0; s <= t; ++s) scores[static_cast<size_t>(s)] = inputs.score(t, s);
    const Selection expected = oracle_selection(
        {1, 1, t + 1, top_k}, [&](int64_t, int32_t s) { return scores[static_cast<size_t>(s)]; });
    REQUIRE(at::equal(found.indices.slice(1, t, t + 1), expected.indices));
  }
}
