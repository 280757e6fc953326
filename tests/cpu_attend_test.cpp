// The sparse-attention kernels of the `cpu` backend on every ISA of this machine, against float64
// loops. Error of a row: |found - exact| / |exact|.
#include "attention/backend_cpu.h"
#include "attention/cpu/attend_kernels.h"
#include "attention/cpu/dispatch.h"
#include "attention/cpu/parallel.h"
#include "attention/cpu/scratch.h"
#include "tests/sparse_oracle.h"

#include <ATen/Parallel.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/tensor.h>
#include <catch2/catch_test_macros.hpp>

#include <chrono>
#include <fstream>
#include <mutex>
#include <set>
#include <sys/mman.h>
#include <thread>

using namespace dsa;
using namespace dsa::test;

namespace {

constexpr double kForwardError = 2e-6, kBackwardError = 5e-6;

struct Threads {  // restores the number of threads
  int before = at::get_num_threads();
  explicit Threads(int n) { at::set_num_threads(n); }
  ~Threads() { at::set_num_threads(before); }
};

struct Isa {  // pins an ISA for the current scope
  explicit Isa(const std::string& name) { pin_isa(name); }
  ~Isa() { pin_isa("auto"); }
};

struct Results {
  ops::AttentionResult forward;
  AttentionGrads grads;
  at::Tensor mass;
};

Results run(const AttendInputs& in) {
  Results r;
  r.forward = cpu::sparse_forward(in.q, in.k, in.v, in.selection, in.scale);
  r.grads = cpu::sparse_backward(in.dout, in.q, in.k, in.v, in.selection, r.forward, in.scale);
  r.mass = cpu::attention_mass(in.q, in.k, in.selection, r.forward.lse, in.scale);
  return r;
}

/// A line of /proc/self/status, e.g. "VmHWM:", in bytes.
double resident_bytes(const std::string& line) {
  std::ifstream status("/proc/self/status");
  for (std::string word; status >> word;)
    if (word == line) {
      double kib = 0;
      status >> kib;
      return 1024 * kib;
    }
  throw std::runtime_error("/proc/self/status has no " + line);
}

void reset_peak() {
  std::ofstream("/proc/self/clear_refs") << "5";
}

void check(const char* what, WorstRow worst, double bound) {
  INFO(what << ": worst row " << worst.row << " has error " << worst.error);
  CHECK(worst.error <= bound);
}

void check_against_oracle(const AttendCase& c, const AttendInputs& in, const Results& r) {
  const Oracle exact = oracle_of(c, in);
  check("out", worst_row(r.forward.out, exact.out, c.v_width), kForwardError);
  check("mass", worst_row(r.mass, exact.mass, c.top_k), kForwardError);
  check("dq", worst_row(r.grads.dq, exact.dq, c.width, &exact.dq_terms), kBackwardError);
  check("dk", worst_row(r.grads.dk, exact.dk, c.width, &exact.dk_terms), kBackwardError);
  check("dv", worst_row(r.grads.dv, exact.dv, c.v_width), kBackwardError);
  const float* lse = r.forward.lse.const_data_ptr<float>();
  for (size_t i = 0; i < exact.lse.size(); ++i) {
    INFO("lse of row " << i << ": " << lse[i] << ", exact " << exact.lse[i]);
    if (std::isinf(exact.lse[i]))
      REQUIRE(lse[i] == -INFINITY);
    else
      REQUIRE(std::abs(lse[i] - exact.lse[i]) <= 2e-6 * std::max(1.0, std::abs(exact.lse[i])));
  }
}

bool same_bits(const Results& a, const Results& b) {
  return at::equal(a.forward.out, b.forward.out) && at::equal(a.forward.lse, b.forward.lse) &&
         at::equal(a.mass, b.mass) && at::equal(a.grads.dq, b.grads.dq) &&
         at::equal(a.grads.dk, b.grads.dk) && at::equal(a.grads.dv, b.grads.dv);
}

// B T S H G D V K
const AttendCase kCases[] = {
    {1, 1, 1, 1, 1, 16, 16, 1},            // one token
    {1, 1, 1, 2, 1, 1, 1, 5},              // width 1, K > S
    {1, 40, 40, 2, 2, 64, 64, 64},         // K > S: dense
    {1, 150, 150, 2, 2, 64, 64, 32},       // whole registers
    {2, 70, 70, 4, 2, 32, 48, 17},         // batch, GQA
    {1, 33, 60, 6, 1, 3, 17, 9},           // T < S, MQA, odd widths
    {1, 60, 60, 3, 3, 17, 72, 20},         //
    {2, 37, 45, 4, 4, 72, 3, 11},          //
    {1, 24, 40, 16, 1, 576, 512, 20},      // MLA in MQA form
    {1, 9, 700, 17, 1, 33, 17, 600},       // many heads on one row, more than one chunk of keys
    {2, 20, 30, 32, 2, 24, 100, 7},        // GQA with many heads
    {1, 30, 30, 24, 1, 40, 20, 8, 7, 3},   // the same with empty rows
    {1, 3000, 3000, 1, 1, 128, 64, 40},    // several panels of keys and of queries
    {1, 130, 130, 2, 2, 64, 64, 33, 7, 3}  // every third query selects nothing
};

}  // namespace

TEST_CASE("out, lse, mass and gradients match float64 on every ISA", "[attend]") {
  for (const AttendCase& c : kCases) {
    const AttendInputs in = inputs_of(c);
    for (const std::string& isa : available_isas()) {
      INFO(isa << ", " << c.text());
      const Isa pinned(isa);
      check_against_oracle(c, in, run(in));
    }
  }
}

TEST_CASE("a query with no key has out 0, lse -inf, mass 0 and gradient 0", "[attend]") {
  const AttendCase c{1, 6, 6, 2, 2, 20, 20, 4, 3, 2};
  const AttendInputs in = inputs_of(c);
  for (const std::string& isa : available_isas()) {
    INFO(isa);
    const Isa pinned(isa);
    const Results r = run(in);
    for (int64_t t = 0; t < 6; t += 2) {
      REQUIRE(r.forward.out.select(1, t).abs().max().item<float>() == 0.0f);
      REQUIRE(r.forward.lse.select(1, t).max().item<float>() == -INFINITY);
      REQUIRE(r.mass.select(1, t).abs().max().item<float>() == 0.0f);
      REQUIRE(r.grads.dq.select(1, t).abs().max().item<float>() == 0.0f);
    }
  }
}

TEST_CASE("with K = S, sparse attention equals dense attention", "[attend]") {
  const AttendCase c{2, 65, 65, 3, 3, 24, 24, 65};
  const AttendInputs in = inputs_of(c);
  const Results r = run(in);
  for (int64_t row = 0; row < 2 * 65; ++row)  // the selection is everything visible
    REQUIRE(in.selection.count.const_data_ptr<int32_t>()[row] == row % 65 + 1);
  check_against_oracle(c, in, r);
}

TEST_CASE("permuting the heads permutes the results and changes no bit", "[attend]") {
  const AttendCase c{1, 90, 90, 4, 4, 40, 40, 21};
  const AttendInputs in = inputs_of(c);
  const at::Tensor order = at::tensor({2, 0, 3, 1}, at::kLong);
  AttendInputs moved = in;
  for (at::Tensor* x : {&moved.q, &moved.k, &moved.v, &moved.dout}) *x = x->index_select(2, order);
  const Results a = run(in), b = run(moved);
  REQUIRE(at::equal(a.forward.out.index_select(2, order), b.forward.out));
  REQUIRE(at::equal(a.grads.dq.index_select(2, order), b.grads.dq));
  REQUIRE(at::equal(a.grads.dk.index_select(2, order), b.grads.dk));
  REQUIRE(at::equal(a.grads.dv.index_select(2, order), b.grads.dv));
}

TEST_CASE("forward, backward and mass have the same bits on 1, 2 and 5 threads", "[attend]") {
  for (const AttendCase& c :
       {AttendCase{1, 1500, 1500, 2, 2, 64, 64, 50}, AttendCase{2, 300, 340, 8, 1, 96, 64, 40}}) {
    const AttendInputs in = inputs_of(c);
    for (const std::string& isa : available_isas()) {
      INFO(isa << ", " << c.text());
      const Isa pinned(isa);
      const Results one = [&] { return Threads(1), run(in); }();
      for (int threads : {2, 5}) {
        const Threads set(threads);
        REQUIRE(same_bits(one, run(in)));
        REQUIRE(same_bits(one, run(in)));
      }
    }
  }
}

TEST_CASE("tasks really run on more than one thread, each once", "[attend]") {
  const Threads two(2);
  std::mutex mutex;
  std::set<std::thread::id> threads;
  std::vector<int> done(8);
  cpu::for_each_block(8, [&](int64_t i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    const std::lock_guard lock(mutex);
    threads.insert(std::this_thread::get_id());
    ++done[static_cast<size_t>(i)];
  });
  REQUIRE(threads.size() == 2);
  for (int count : done) REQUIRE(count == 1);
}

TEST_CASE("a NaN or infinity in a selected key reaches the output, in another key it does not",
          "[attend]") {
  const AttendCase c{1, 40, 40, 1, 1, 20, 20, 7};
  for (const std::string& isa : available_isas())
    for (const float bad : {NAN, INFINITY}) {
      INFO(isa << ", " << bad);
      const Isa pinned(isa);
      AttendInputs in = inputs_of(c);
      in.k.select(1, 5).fill_(bad);
      in.v.select(1, 0).fill_(bad);
      const Results r = run(in);
      for (int64_t t = 0; t < 40; ++t) {
        const at::Tensor ids = in.selection.indices[0][t];
        const bool hit = ids.eq(5).any().item<bool>() || ids.eq(0).any().item<bool>();
        INFO("query " << t);
        REQUIRE(r.forward.out[0][t].isfinite().all().item<bool>() == !hit);
      }
    }
}

TEST_CASE("scores as large as 1e4 neither overflow nor lose the largest", "[attend]") {
  const AttendCase c{1, 50, 50, 2, 2, 32, 32, 16};
  AttendInputs in = inputs_of(c);
  in.scale = 1e3;
  const Oracle exact = oracle_of(c, in);
  for (const std::string& isa : available_isas()) {
    INFO(isa);
    const Isa pinned(isa);
    const auto r = cpu::sparse_forward(in.q, in.k, in.v, in.selection, in.scale);
    // A score of 1e4 carries an error of 1e4 * 2^-24 * sqrt(32): 3e-3 of its exponential.
    check("out", worst_row(r.out, exact.out, c.v_width), 1e-2);
  }
}

TEST_CASE("memory of a call grows with L, not with L * L", "[attend]") {
  const Threads two(2);
  const auto bytes = [](int64_t length) {
    const AttendInputs in = inputs_of({1, length, length, 2, 2, 64, 64, 32});
    cpu::release_scratch();
    const int64_t before = cpu::scratch_live_bytes();
    const double resident = resident_bytes("VmRSS:");
    reset_peak();
    run(in);
    const double peak = resident_bytes("VmHWM:") - resident;
    return std::pair(static_cast<double>(cpu::scratch_live_bytes() - before), peak);
  };
  const auto [scratch_8k, peak_8k] = bytes(8192);
  const auto [scratch_16k, peak_16k] = bytes(16384);
  INFO("scratch " << scratch_8k << " and " << scratch_16k << " bytes, peak growth " << peak_8k
                  << " and " << peak_16k << " bytes");
  REQUIRE(scratch_16k <= 2.3 * scratch_8k);
  REQUIRE(peak_16k < 0.25 * 4.0 * 16384 * 16384);  // far below a float32 score matrix
  REQUIRE(peak_16k > 0.5 * scratch_16k);           // the measurement sees the scratch
}

TEST_CASE("offsets are 64-bit: keys 12 GiB apart give the bits of keys side by side", "[attend]") {
  // Address space only: pages of rows that no query selects are never touched.
  const int64_t keys = int64_t{50} << 20, width = 64, selected = 32;
  const size_t bytes = static_cast<size_t>(keys * width) * sizeof(float);
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  REQUIRE(memory != MAP_FAILED);
  float* far = static_cast<float*>(memory);
  std::mt19937_64 random(5);
  const at::Tensor near = normal({selected, width}, random), q = normal({1, width}, random);
  std::vector<int32_t> near_ids, far_ids;
  for (int64_t j = 0; j < selected; ++j) {
    near_ids.push_back(static_cast<int32_t>(j));
    far_ids.push_back(static_cast<int32_t>((j + 1) * (keys / selected) - 1));
    std::copy_n(near.const_data_ptr<float>() + j * width, width, far + far_ids.back() * width);
  }
  const int32_t count = selected;
  for (const cpu::IsaRow& row : cpu::isa_rows()) {
    if (!row.supported()) continue;
    INFO(row.name);
    const auto attend = [&](const float* rows, const std::vector<int32_t>& ids) {
      std::vector<float> result(static_cast<size_t>(width + 1));
      cpu::ForwardBlock f{};
      f.query = {.bf16 = false,
                 .q = q.const_data_ptr<float>(),
                 .q_token = width,
                 .queries = 1,
                 .heads = 1,
                 .width = width,
                 .padded = width,
                 .k = rows,
                 .ids = ids.data(),
                 .counts = &count,
                 .top_k = selected,
                 .scale = 0.125f,
                 .keys = keys,
                 .panel_shift = 9,
                 .scratch = nullptr};
      f.v = rows;
      f.v_width = f.v_padded = f.out_token = width;
      f.out = result.data();
      f.lse = result.data() + width;
      f.lse_token = 1;
      std::vector<float> scratch(static_cast<size_t>(row.attend->forward_scratch(f)));
      f.query.scratch = scratch.data();
      row.attend->forward(f);
      return result;
    };
    REQUIRE(attend(far, far_ids) == attend(near.const_data_ptr<float>(), near_ids));
  }
  munmap(memory, bytes);
}

TEST_CASE("float64 attention is declined in words, bfloat16 is not", "[attend]") {
  Problem problem;
  problem.dtype = at::kDouble;
  const auto reason = cpu_backend().declines(Op::kSparse, problem);
  REQUIRE(reason.has_value());
  REQUIRE(reason->find("float32") != std::string::npos);
  REQUIRE_FALSE(cpu_backend().declines(Op::kSparse, Problem{}).has_value());
  problem.dtype = at::kBFloat16;
  REQUIRE_FALSE(cpu_backend().declines(Op::kSparse, problem).has_value());
}

// B T S H G D V K: many heads on one row, for the kernels that share it. Tiles of 16 heads, 32
// columns and 32 keys end everywhere; 256 and 512 keys are chunks of theirs.
const AttendCase kSharedCases[] = {
    {1, 5, 40, 8, 1, 64, 64, 33},         // half a tile of heads
    {1, 4, 600, 16, 1, 576, 512, 544},    // MLA in MQA form, more than one chunk
    {1, 3, 300, 128, 1, 576, 512, 290},   //
    {1, 40, 40, 33, 1, 31, 33, 40},       // dense, an odd number of head tiles
    {2, 3, 1100, 96, 2, 40, 130, 1030},   // GQA, batch, five chunks, three head tiles
    {1, 21, 30, 47, 1, 1, 40, 7, 3, 2},   // width 1, every other query selects nothing
    {1, 2, 513, 20, 1, 65, 64, 513},      // one key in a chunk
};

void check_bfloat16(const AttendCase& c, AttendInputs in) {
  for (at::Tensor* x : {&in.q, &in.k, &in.v}) *x = x->to(at::kBFloat16).to(at::kFloat);
  const Oracle exact = oracle_of(c, in);
  for (at::Tensor* x : {&in.q, &in.k, &in.v}) *x = x->to(at::kBFloat16);
  for (const std::string& isa : available_isas()) {
    const Isa pin(isa);
    INFO(c.text() << ", scale " << in.scale << " on " << isa);
    const auto result = cpu::sparse_forward(in.q, in.k, in.v, in.selection, in.scale);
    REQUIRE(result.out.scalar_type() == at::kBFloat16);
    REQUIRE(result.lse.scalar_type() == at::kFloat);
    check("out", worst_row(result.out.to(at::kFloat), exact.out, c.v_width),
          c.heads / c.kv_heads >= 8 ? 1.2e-2 : 6e-3);
    for (size_t i = 0; i < exact.lse.size(); ++i) {
      const float lse = result.lse.const_data_ptr<float>()[i];
      INFO("lse of row " << i << ": " << lse << ", exact " << exact.lse[i]);
      REQUIRE((lse == exact.lse[i] || std::abs(lse - exact.lse[i]) <= 1e-4));
    }
  }
}

TEST_CASE("bfloat16 attention matches float64 on every ISA", "[attend]") {
  for (const AttendCase& c : kCases) check_bfloat16(c, inputs_of(c));
  for (const AttendCase& c : kSharedCases) check_bfloat16(c, inputs_of(c));
}

TEST_CASE("a negative scale turns the scores round", "[attend]") {
  const AttendCase c{1, 6, 90, 40, 1, 48, 40, 70};
  AttendInputs in = inputs_of(c);
  in.scale = -in.scale;
  check_bfloat16(c, in);
}

TEST_CASE("tiles multiply bfloat16 where many heads share a row", "[attend]") {
  const AttendCase c{1, 3, 600, 16, 1, 96, 64, 300};
  const AttendInputs in = inputs_of(c);
  const auto out = [&](const std::string& isa) {
    const Isa pin(isa);
    const auto bf16 = [](const at::Tensor& x) { return x.to(at::kBFloat16); };
    return cpu::sparse_forward(bf16(in.q), bf16(in.k), bf16(in.v), in.selection, in.scale).out;
  };
  const std::vector<std::string> isas = available_isas();
  if (std::find(isas.begin(), isas.end(), "amx") == isas.end()) SKIP("this CPU has no AMX");
  // Sums in another order: were they the same kernel, they would have the same bits.
  REQUIRE_FALSE(at::equal(out("amx"), out("avx512bf16")));
}

TEST_CASE("bfloat16 heads that share a row have the same bits on 1, 2 and 5 threads", "[attend]") {
  for (const AttendCase& c :
       {AttendCase{1, 300, 340, 40, 1, 96, 64, 40}, AttendCase{2, 50, 700, 16, 1, 64, 64, 600}}) {
    AttendInputs in = inputs_of(c);
    for (at::Tensor* x : {&in.q, &in.k, &in.v}) *x = x->to(at::kBFloat16);
    for (const std::string& isa : available_isas()) {
      INFO(isa << ", " << c.text());
      const Isa pinned(isa);
      const auto forward = [&](int threads) {
        const Threads set(threads);
        return cpu::sparse_forward(in.q, in.k, in.v, in.selection, in.scale);
      };
      const ops::AttentionResult one = forward(1);
      for (int threads : {2, 2, 5}) {
        const ops::AttentionResult found = forward(threads);
        REQUIRE((at::equal(one.out, found.out) && at::equal(one.lse, found.lse)));
      }
    }
  }
}

TEST_CASE("a NaN in a selected row reaches the heads that share it, a skipped one does not",
          "[attend]") {
  for (const AttendCase& c : {AttendCase{1, 1, 40, 16, 1, 20, 20, 9},
                              AttendCase{1, 1, 400, 40, 1, 70, 36, 300}})
    for (const auto dtype : {at::kFloat, at::kBFloat16}) {
      AttendInputs in = inputs_of(c);
      const int32_t* ids = in.selection.indices.data_ptr<int32_t>();
      const int32_t chosen = ids[c.top_k - 1];
      at::Tensor skipped_k = in.k.clone(), skipped_v = in.v.clone();
      for (int32_t s = 0; s < c.keys; ++s)
        if (std::find(ids, ids + c.top_k, s) == ids + c.top_k)
          for (at::Tensor* x : {&skipped_k, &skipped_v}) x->select(1, s).fill_(NAN);
      const auto with = [&](const at::Tensor& x, float value) {
        at::Tensor bad = x.clone();
        bad.select(1, chosen).fill_(value);
        return bad;
      };
      for (const std::string& isa : available_isas()) {
        const Isa pin(isa);
        INFO(isa << ", " << c.text());
        const auto attend = [&](const at::Tensor& k, const at::Tensor& v) {
          return cpu::sparse_forward(in.q.to(dtype), k.to(dtype), v.to(dtype), in.selection,
                                     in.scale)
              .out;
        };
        CHECK_FALSE(attend(skipped_k, skipped_v).isnan().any().item<bool>());
        CHECK(attend(in.k, with(in.v, NAN)).isnan().all().item<bool>());
        CHECK(attend(with(in.k, NAN), in.v).isnan().all().item<bool>());
        CHECK_FALSE(attend(in.k, with(in.v, INFINITY)).isfinite().any().item<bool>());
        CHECK_FALSE(attend(with(in.k, INFINITY), in.v).isfinite().any().item<bool>());
      }
    }
}

TEST_CASE("rows of bfloat16 are rounded to nearest even, NaN and infinity kept", "[attend]") {
  const float infinity = std::numeric_limits<float>::infinity();
  const at::Tensor values =
      at::tensor({1.0f, 1.00390625f, 1.01171875f, -1.00390625f, 3.4e38f, 1e-40f, -0.0f, 0.0f,
                  infinity, -infinity, std::numeric_limits<float>::quiet_NaN(), 1.0000001f,
                  -2.7182818f, 65504.0f, 1e30f, -1e-30f, 0.333333f});
  const at::Tensor expected = values.to(at::kBFloat16);
  for (const cpu::IsaRow& row : cpu::isa_rows()) {
    if (!row.supported()) continue;
    INFO(row.name);
    at::Tensor rounded = at::zeros({17}, at::kBFloat16);
    at::Tensor padded = at::zeros({32});
    padded.narrow(0, 0, 17).copy_(values);
    row.attend->bfloat16.unpack(padded.const_data_ptr<float>(), 32, 1, 17,
                                rounded.mutable_data_ptr(), 17);
    CHECK(at::equal(rounded.isnan(), expected.isnan()));
    CHECK(at::equal(rounded.nan_to_num(0.0, 1e38, -1e38), expected.nan_to_num(0.0, 1e38, -1e38)));
    at::Tensor back = at::ones({32});
    row.attend->bfloat16.pack(expected.const_data_ptr(), 17, 1, 17, 32,
                              back.mutable_data_ptr<float>());
    CHECK(
        at::equal(back.narrow(0, 0, 17).nan_to_num(7.0), expected.to(at::kFloat).nan_to_num(7.0)));
    CHECK(back.narrow(0, 17, 15).eq(0).all().item<bool>());
  }
}
