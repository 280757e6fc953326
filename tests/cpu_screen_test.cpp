// The bfloat16 screen of the `cpu` backend's float32 selection: on every input the selection is bit
// for bit the one of float32 scores, and where it can help it decides.
#include "attention/backend_cpu.h"
#include "attention/cpu/dispatch.h"
#include "harness/denormals.h"
#include "tests/select_inputs.h"

#include <ATen/Functions.h>

namespace {

using namespace select_test;

struct ScreenCase {
  const char* name;
  IndexerShape shape;
  std::function<void(SelectInputs&)> change;
};

void scale(at::Tensor& tensor, float factor) {
  auto* data = tensor.mutable_data_ptr<float>();
  for (int64_t i = 0; i < tensor.numel(); ++i) data[i] *= factor;
}

/// Rows of k that differ by less than bfloat16 can tell.
void make_near_ties(SelectInputs& in) {
  auto* k = in.k.mutable_data_ptr<float>();
  const int64_t width = in.width();
  for (int64_t s = 1; s < in.keys(); ++s) {
    for (int64_t j = 0; j < width; ++j)
      k[s * width + j] = k[j] * (1 + std::ldexp(static_cast<float>((s * 37 + j) % 7), -20));
  }
}

const std::vector<ScreenCase> kScreenCases = {
    {"gaussian", {1, 300, 4000, 4, 64}, [](SelectInputs&) {}},
    {"odd sizes", {2, 97, 3001, 3, 37}, [](SelectInputs&) {}},
    {"one head", {1, 65, 2500, 1, 128}, [](SelectInputs&) {}},
    {"many wide heads", {1, 40, 2200, 9, 130}, [](SelectInputs&) {}},
    {"short", {1, 500, 500, 4, 64}, [](SelectInputs&) {}},
    {"near ties", {1, 40, 2600, 4, 64}, make_near_ties},
    {"a large key", {1, 70, 2600, 4, 64}, [](SelectInputs& in) { in.k[0][17] *= 1000; }},
    {"plateau at 0",
     {1, 70, 2600, 2, 64},
     [](SelectInputs& in) { in.k.abs_(), in.q.abs_().neg_(); }},
    {"negative weights", {1, 70, 2600, 4, 64}, [](SelectInputs& in) { in.weight.abs_().neg_(); }},
    {"weights 0", {1, 40, 2600, 4, 64}, [](SelectInputs& in) { in.weight.zero_(); }},
    {"small",
     {1, 40, 2600, 4, 64},
     [](SelectInputs& in) { scale(in.q, 1e-19F), scale(in.k, 1e-19F); }},
    {"denormal", {1, 40, 2600, 4, 64}, [](SelectInputs& in) { scale(in.k, 1e-39F); }},
    {"large",
     {1, 40, 2600, 4, 64},
     [](SelectInputs& in) { scale(in.q, 1e18F), scale(in.k, 1e18F); }},
    {"beyond bfloat16",
     {1, 40, 2600, 4, 64},
     [](SelectInputs& in) { in.k[0][5][3] = 3.4e38F, scale(in.q, 1e-9F); }},
    {"an infinite key",
     {1, 40, 2600, 1, 64},
     [](SelectInputs& in) { in.k[0][2000][3] = kInfinity; }},
};

/// The instruction sets of this machine that have a screen.
std::vector<std::string> screening_isas() {
  std::vector<std::string> isas;
  for (const dsa::cpu::IsaRow& row : dsa::cpu::isa_rows())
    if (row.supported() && row.screen != nullptr) isas.emplace_back(row.name);
  return isas;
}

}  // namespace

TEST_CASE("selection through the screen is that of float32 scores", "[select]") {
  const std::vector<std::string> isas = screening_isas();
  if (isas.empty()) SKIP("no AVX512-BF16 here");
  const std::string isa = GENERATE_COPY(from_range(isas));
  const size_t which = GENERATE(range(size_t{0}, kScreenCases.size()));
  const ScreenCase& given = kScreenCases[which];
  const int64_t top_k = GENERATE(1, 31, 512, 1500);
  INFO(isa << ", " << given.name << ", " << given.shape << ", K " << top_k);
  SelectInputs inputs = gaussian_inputs(given.shape, 300 + which);
  given.change(inputs);
  const auto on = [&](const std::string& isa, int threads) {
    const Machine machine(isa, threads);
    return dsa::cpu_backend().indexer_select(inputs.q, inputs.k, inputs.weight, top_k);
  };
  const Selection expected = on("avx512", 1);
  for (const int threads : {1, 2}) {
    INFO("threads " << threads);
    require_same(on(isa, threads), expected);
    const dsa::FlushDenormals as_training_does(true);
    require_same(on(isa, threads), expected);
  }
}

TEST_CASE("the screen decides gaussian scores and gives up on plateaus", "[select]") {
  const std::vector<std::string> isas = screening_isas();
  if (isas.empty()) SKIP("no AVX512-BF16 here");
  const Machine machine(GENERATE_COPY(from_range(isas)), 1);
  SelectInputs inputs = gaussian_inputs({1, 2560, 2560, 4, 64}, 401);
  inputs.weight.abs_();
  const auto select = [&] {
    (void)dsa::cpu_backend().indexer_select(inputs.q, inputs.k, inputs.weight, 256);
    return dsa::cpu::last_screen();
  };
  const dsa::cpu::ScreenCount gaussian = select();
  CHECK(gaussian.tried == 2560);
  CHECK(gaussian.undecided == 0);
  inputs.weight.zero_();
  const dsa::cpu::ScreenCount plateau = select();
  CHECK(plateau.undecided > 0);
  CHECK(plateau.tried < 256);
}
