// Scores of selected pairs and all indexer gradients of the `cpu` backend, on every ISA and thread
// count.
#include "attention/backend_cpu.h"
#include "tests/select_inputs.h"

#include <catch2/generators/catch_generators_adapters.hpp>

#include <array>

namespace {

using namespace select_test;

/// Short enough for plain loops that visit every pair, head and column.
bool is_short(const IndexerShape& shape) {
  return shape.queries < 1000;
}

/// Adds what one pair's score gradient gives to dq, dk and dweight, by the definition.
void add_pair(const SelectInputs& in, int64_t row, int64_t s, double dscore,
              std::array<std::vector<double>, 3>& grads) {
  auto& [dq, dk, dweight] = grads;
  const int64_t key = row / in.queries() * in.keys() + s;
  for (int64_t i = 0; i < in.heads(); ++i) {
    const double x = in.product(row, i, s);
    if (x <= 0) continue;
    const auto head = static_cast<size_t>(row * in.heads() + i);
    dweight[head] += dscore * x;
    for (int64_t j = 0; j < in.width(); ++j) {
      const double dx = dscore * in.w(row, i);
      dq[head * static_cast<size_t>(in.width()) + static_cast<size_t>(j)] +=
          dx * in.k_row(row / in.queries(), s)[j];
      dk[static_cast<size_t>(key * in.width() + j)] += dx * in.q_row(row, i)[j];
    }
  }
}

std::array<std::vector<double>, 3> no_gradients(const SelectInputs& in) {
  return {std::vector<double>(static_cast<size_t>(in.q.numel())),
          std::vector<double>(static_cast<size_t>(in.k.numel())),
          std::vector<double>(static_cast<size_t>(in.weight.numel()))};
}

void require_equal(const dsa::IndexerGrads& found,
                   const std::array<std::vector<double>, 3>& expected) {
  const std::array<const at::Tensor*, 3> tensors = {&found.dq, &found.dk, &found.dweight};
  const std::array<const char*, 3> names = {"dq", "dk", "dweight"};
  for (size_t which = 0; which < 3; ++which) {
    const auto* data = tensors[which]->const_data_ptr<float>();
    REQUIRE(tensors[which]->numel() == static_cast<int64_t>(expected[which].size()));
    for (size_t i = 0; i < expected[which].size(); ++i) {
      if (static_cast<double>(data[i]) == expected[which][i]) continue;
      INFO(names[which] << " at " << i << ": found " << data[i] << ", expected "
                        << expected[which][i]);
      REQUIRE(false);
    }
  }
}

void require_same_bits(const dsa::IndexerGrads& a, const dsa::IndexerGrads& b) {
  REQUIRE(at::equal(a.dq, b.dq));
  REQUIRE(at::equal(a.dk, b.dk));
  REQUIRE(at::equal(a.dweight, b.dweight));
}

/// Selections as attention meets them: the best keys.
Selection selection_of(const SelectInputs& in, int64_t top_k) {
  return oracle_selection(in, in.scores(), top_k);
}

}  // namespace

TEST_CASE("indexer_scores_backward equals the definition on integers", "[select]") {
  const IndexerShape shape = GENERATE(filter(is_short, from_range(kIndexerShapes)));
  INFO(shape);
  const SelectInputs inputs = integer_inputs(shape, 61);
  at::Tensor dscores = integers({shape.batch, shape.queries, shape.keys}, 2, 64);
  auto* g = dscores.mutable_data_ptr<float>();
  auto expected = no_gradients(inputs);
  for (int64_t row = 0; row < shape.batch * shape.queries; ++row) {
    for (int64_t s = 0; s < shape.keys; ++s) {
      if (s < inputs.visible(row % shape.queries))
        add_pair(inputs, row, s, static_cast<double>(g[row * shape.keys + s]), expected);
      else
        g[row * shape.keys + s] = kNaN;  // the gradient of a constant -inf is nobody's business
    }
  }
  on_every_machine([&] {
    require_equal(
        dsa::cpu_backend().indexer_scores_backward(dscores, inputs.q, inputs.k, inputs.weight),
        expected);
  });
}

TEST_CASE("selected_scores equals the definition on integers", "[select]") {
  const IndexerShape shape = GENERATE(filter(is_short, from_range(kIndexerShapes)));
  const int64_t top_k = GENERATE(1, 23, 80);
  INFO(shape << ", K " << top_k);
  const SelectInputs inputs = integer_inputs(shape, 71);
  const Selection selection = selection_of(inputs, top_k);
  const auto* ids = selection.indices.const_data_ptr<int32_t>();
  const at::Tensor expected = filled(selection.indices.sizes(), [&](int64_t i) {
    return ids[i] < 0 ? -kInfinity : static_cast<float>(inputs.score(i / top_k, ids[i]));
  });
  on_every_machine([&] {
    REQUIRE(
        at::equal(dsa::cpu_backend().selected_scores(inputs.q, inputs.k, inputs.weight, selection),
                  expected));
  });
}

TEST_CASE("selected_scores_backward equals the definition on integers", "[select]") {
  const IndexerShape shape = GENERATE(filter(is_short, from_range(kIndexerShapes)));
  const int64_t top_k = GENERATE(1, 23, 80);
  INFO(shape << ", K " << top_k);
  const SelectInputs inputs = integer_inputs(shape, 81);
  const Selection selection = selection_of(inputs, top_k);
  const auto* ids = selection.indices.const_data_ptr<int32_t>();
  const at::Tensor random = integers(selection.indices.sizes(), 2, 84);
  const at::Tensor dscores = filled(selection.indices.sizes(), [&](int64_t i) {
    return ids[i] < 0 ? kNaN : random.const_data_ptr<float>()[i];
  });
  auto expected = no_gradients(inputs);
  for (int64_t i = 0; i < dscores.numel(); ++i) {
    if (ids[i] < 0) continue;
    add_pair(inputs, i / top_k, ids[i], static_cast<double>(dscores.const_data_ptr<float>()[i]),
             expected);
  }
  on_every_machine([&] {
    require_equal(dsa::cpu_backend().selected_scores_backward(dscores, inputs.q, inputs.k,
                                                              inputs.weight, selection),
                  expected);
  });
}

TEST_CASE("scores and gradients of bfloat16 inputs are those of their values, rounded",
          "[select]") {
  const auto type = at::kBFloat16;
  const SelectInputs given = gaussian_inputs({2, 70, 99, 3, 21}, 101).as(type);
  const SelectInputs inputs = given.as(at::kFloat);
  const Selection selection = selection_of(inputs, 30);
  const at::Tensor dense = gaussian({2, 70, 99}, 104), sparse = gaussian({2, 70, 30}, 105);
  const auto& cpu = dsa::cpu_backend();
  const auto round = [&](const dsa::IndexerGrads& g) {
    return dsa::IndexerGrads{g.dq.to(type), g.dk.to(type), g.dweight.to(type)};
  };
  on_every_machine([&] {
    REQUIRE(at::equal(cpu.selected_scores(given.q, given.k, given.weight, selection),
                      cpu.selected_scores(inputs.q, inputs.k, inputs.weight, selection)));
    const auto found = cpu.indexer_scores_backward(dense, given.q, given.k, given.weight);
    REQUIRE(found.dq.scalar_type() == type);
    require_same_bits(found,
                      round(cpu.indexer_scores_backward(dense, inputs.q, inputs.k, inputs.weight)));
    require_same_bits(
        cpu.selected_scores_backward(sparse, given.q, given.k, given.weight, selection),
        round(cpu.selected_scores_backward(sparse, inputs.q, inputs.k, inputs.weight, selection)));
  });
}

TEST_CASE("indexer gradients have the same bits with one thread and with two", "[select]") {
  const SelectInputs inputs = gaussian_inputs({2, 300, 333, 4, 48}, 91);
  const at::Tensor dense = gaussian({2, 300, 333}, 94);
  const at::Tensor sparse = gaussian({2, 300, 40}, 95);
  const Selection selection = selection_of(inputs, 40);
  for (const std::string& isa : dsa::available_isas()) {
    INFO("isa " << isa);
    const auto gradients = [&](int threads) {
      const Machine machine(isa, threads);
      return std::pair(
          dsa::cpu_backend().indexer_scores_backward(dense, inputs.q, inputs.k, inputs.weight),
          dsa::cpu_backend().selected_scores_backward(sparse, inputs.q, inputs.k, inputs.weight,
                                                      selection));
    };
    const auto one = gradients(1), two = gradients(2);
    require_same_bits(one.first, two.first);
    require_same_bits(one.second, two.second);
  }
}
