// RoPE: what makes it a position embedding, for both pairings.
#include "attention/rope.h"
#include "tests/model_fixture.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>

#include <cmath>

using namespace dsa;
using dsa::testing::largest;
using dsa::testing::position_ids;
using dsa::testing::relative_error;

namespace {

at::Tensor random_heads(int64_t length, int64_t width, c10::ScalarType dtype = at::kDouble) {
  dsa::testing::seed_torch(5);
  return at::randn({2, length, 3, width}, at::TensorOptions(dtype));
}

}  // namespace

TEST_CASE("RoPE makes inner products depend on the distance alone", "[model][rope]") {
  const auto layout = GENERATE(RopeLayout::kHalfSplit, RopeLayout::kInterleaved);
  Rope rope(layout, 16, 10000.0);
  const at::Tensor q = random_heads(1, 16).expand({2, 40, 3, 16}).contiguous();
  const at::Tensor k = random_heads(1, 16).flip(-1).expand({2, 40, 3, 16}).contiguous();
  const auto products = [&](int64_t first) {
    return at::einsum("bthd,bshd->bhts",
                      {rope(q, position_ids(40, first)), rope(k, position_ids(40, first))});
  };
  const at::Tensor here = products(0);
  CHECK(relative_error(products(1000), here) < 1e-10);
  for (int64_t distance : {0, 1, 7, 30}) {
    const at::Tensor diagonal = here.diagonal(distance, -2, -1);
    CHECK(largest(diagonal - diagonal.narrow(-1, 0, 1)) < 1e-12);
  }
  CHECK(largest(here.diagonal(1, -2, -1) - here.diagonal(2, -2, -1).narrow(-1, 0, 1)) > 1e-3);
}

TEST_CASE("RoPE turns the pair its layout names by position times frequency", "[model][rope]") {
  at::Tensor x = at::zeros({1, 3, 1, 8}, at::kDouble);
  x.index_put_({at::indexing::Slice(), at::indexing::Slice(), 0, 2}, 1.0);
  const double base = 100.0;
  Rope half(RopeLayout::kHalfSplit, 8, base);
  Rope interleaved(RopeLayout::kInterleaved, 8, base);
  // Dimension 2 is the first of pair (2, 6) when halves pair, of pair (2, 3) when neighbours do.
  const double half_angle = 2 * std::pow(base, -4.0 / 8),
               neighbour_angle = 2 * std::pow(base, -2.0 / 8);
  const at::Tensor by_half = half(x, position_ids(3))[0][2][0];
  CHECK(std::abs(by_half[2].item<double>() - std::cos(half_angle)) < 1e-12);
  CHECK(std::abs(by_half[6].item<double>() - std::sin(half_angle)) < 1e-12);
  const at::Tensor by_neighbour = interleaved(x, position_ids(3))[0][2][0];
  CHECK(std::abs(by_neighbour[2].item<double>() - std::cos(neighbour_angle)) < 1e-12);
  CHECK(std::abs(by_neighbour[3].item<double>() - std::sin(neighbour_angle)) < 1e-12);
}

TEST_CASE("RoPE leaves the trailing dimensions and every length alone", "[model][rope]") {
  const auto layout = GENERATE(RopeLayout::kHalfSplit, RopeLayout::kInterleaved);
  Rope rope(layout, 6, 10000.0);
  const at::Tensor x = random_heads(20, 10);
  const at::Tensor y = rope(x, position_ids(20));
  CHECK(at::equal(y.narrow(-1, 6, 4), x.narrow(-1, 6, 4)));
  CHECK(relative_error(y.norm(2, -1), x.norm(2, -1)) < 1e-12);
  CHECK(largest(y - x) > 0.1);
}

TEST_CASE("the gradient of RoPE is the rotation back", "[model][rope]") {
  const auto layout = GENERATE(RopeLayout::kHalfSplit, RopeLayout::kInterleaved);
  Rope rope(layout, 8, 10000.0);
  const at::Tensor x = random_heads(12, 10).set_requires_grad(true);
  const at::Tensor y = rope(x, position_ids(12));
  y.pow(2).sum().backward();
  // |y|^2 = |x|^2, so the gradient must be 2 x whatever the angles.
  CHECK(relative_error(x.grad(), 2 * x.detach()) < 1e-12);
}

TEST_CASE("RoPE follows the positions it is given, not the ones it saw before", "[model][rope]") {
  Rope rope(RopeLayout::kHalfSplit, 8, 10000.0), fresh(RopeLayout::kHalfSplit, 8, 10000.0);
  const at::Tensor x = random_heads(12, 8);
  rope(x, position_ids(12));
  CHECK(at::equal(rope(x, position_ids(12, 5)), fresh(x, position_ids(12, 5))));
  CHECK(rope(x.to(at::kFloat), position_ids(12)).scalar_type() == at::kFloat);
}

TEST_CASE("far positions keep float32 angles exact", "[model][rope]") {
  // In float32 the angle of position 1000003 in the second pair is known to 0.03 radians.
  Rope rope(RopeLayout::kHalfSplit, 16, 10000.0);
  const at::Tensor x = at::zeros({1, 1, 1, 16}, at::kFloat);
  x.select(-1, 1).fill_(1.0);
  const at::Tensor turned = rope(x, position_ids(1, 1'000'003)).flatten();
  const double angle = 1'000'003 * std::pow(10000.0, -2.0 / 16);
  CHECK(std::abs(turned[1].item<double>() - std::cos(angle)) < 1e-7);
  CHECK(std::abs(turned[9].item<double>() - std::sin(angle)) < 1e-7);
}

TEST_CASE("an unknown RoPE layout names the two there are", "[model][rope]") {
  CHECK_THROWS_AS(rope_layout("neox"), Error);
  CHECK(rope_layout("interleaved") == RopeLayout::kInterleaved);
}

TEST_CASE("a stretched base slows the slowest pair by the factor and the fastest not at all",
          "[model][rope]") {
  const int64_t width = 16;
  const double base = 10000, factor = 4, stretched = stretched_rope_base(base, width, factor);
  const auto frequency = [&](double of, int64_t pair) {
    return std::pow(of, -2.0 * static_cast<double>(pair) / static_cast<double>(width));
  };
  CHECK(frequency(stretched, 0) == frequency(base, 0));
  CHECK(std::abs(frequency(base, 7) / frequency(stretched, 7) - factor) < 1e-12);
  CHECK(stretched_rope_base(base, width, 1) == base);
  CHECK_THROWS(stretched_rope_base(base, 2, 4));
}
