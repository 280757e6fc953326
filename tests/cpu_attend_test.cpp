// The sparse-attention kernels of the `cpu` backend on every ISA of this machine, against float64
// loops. Error of a row: |found - exact| / |exact|.
#include "attention/cpu/parallel.h"
#include "attention/cpu/scratch.h"
#include "tests/attend_fixture.h"

#include <ATen/ops/full_like.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/tensor.h>

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

void check_against_oracle(const AttendCase& c, const AttendInputs& in, const Results& r) {
  const Oracle exact = oracle_of(c, in);
  check("out", worst_row(r.forward.out, exact.out, c.v_width), kForwardError);
  check("mass", worst_row(r.mass, exact.mass, c.top_k), kForwardError);
  check("dq", worst_row(r.grads.dq, exact.dq, c.width, &exact.dq_terms), kBackwardError);
  check("dk", worst_row(r.grads.dk, exact.dk, c.width, &exact.dk_terms), kBackwardError);
  check("dv", worst_row(r.grads.dv, exact.dv, c.v_width), kBackwardError);
  check_lse(exact, r.forward.lse);
}

bool same_bits(const Results& a, const Results& b) {
  return at::equal(a.forward.out, b.forward.out) && at::equal(a.forward.lse, b.forward.lse) &&
         at::equal(a.mass, b.mass) && at::equal(a.grads.dq, b.grads.dq) &&
         at::equal(a.grads.dk, b.grads.dk) && at::equal(a.grads.dv, b.grads.dv);
}

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

TEST_CASE("heads whose rows wait for their turn get the bits they get alone", "[attend]") {
  const AttendCase c{1, 70, 12000, 6,
                     3, 64, 64,    48};  // 6 MB of packed rows a kv head: one at a time
  const AttendInputs in = inputs_of(c);
  for (const std::string& isa : available_isas()) {
    INFO(isa);
    const Isa pinned(isa);
    const Results all = run(in);
    const Oracle exact = oracle_of(c, in);
    check("out", worst_row(all.forward.out, exact.out, c.v_width), kForwardError);
    check("mass", worst_row(all.mass, exact.mass, c.top_k), kForwardError);
    for (int64_t g = 0; g < c.kv_heads; ++g) {
      const auto q = in.q.narrow(2, 2 * g, 2).contiguous();
      const auto k = in.k.narrow(2, g, 1).contiguous(), v = in.v.narrow(2, g, 1).contiguous();
      const auto alone = cpu::sparse_forward(q, k, v, in.selection, in.scale);
      REQUIRE(at::equal(alone.out, all.forward.out.narrow(2, 2 * g, 2)));
      REQUIRE(at::equal(alone.lse, all.forward.lse.narrow(2, 2 * g, 2)));
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

namespace {

/// Bytes of scratch that `work` makes two threads hold, and how far resident memory rises meanwhile.
template <class Work>
std::pair<double, double> memory_of(const Work& work) {
  cpu::release_scratch();
  const int64_t before = cpu::scratch_live_bytes();
  const double resident = resident_bytes("VmRSS:");
  reset_peak();
  work();
  const double peak = resident_bytes("VmHWM:") - resident;
  return {static_cast<double>(cpu::scratch_live_bytes() - before), peak};
}

constexpr double kThreads = 2, kPerThread = 4 << 20;

}  // namespace

TEST_CASE("a forward call holds 4 MiB a thread and packed rows of k and v", "[attend]") {
  const Threads two(2);
  const int64_t length = 16384, heads = 2, width = 64;
  const AttendInputs in = inputs_of({1, length, length, heads, heads, width, width, 32});
  const auto [scratch, peak] =
      memory_of([&] { cpu::sparse_forward(in.q, in.k, in.v, in.selection, in.scale); });
  INFO("scratch " << scratch << " bytes");
  const double packed = 4 * 2.0 * static_cast<double>(length * heads * width);
  REQUIRE(scratch > 4 * static_cast<double>(length * heads * width));
  REQUIRE(scratch <= kThreads * kPerThread + packed);
}

TEST_CASE("decoding copies the selected rows alone, and its bits are those of copying all",
          "[attend]") {
  const Threads two(2);
  const AttendInputs in =
      inputs_of({1, 3, 16384, 4, 2, 40, 24, 64});  // copies are the calling thread's
  for (const std::string& isa : available_isas()) {
    INFO(isa);
    const Isa pinned(isa);
    ops::AttentionResult few, all;
    const auto forward = [&] {
      return cpu::sparse_forward(in.q, in.k, in.v, in.selection, in.scale);
    };
    const double scratch = memory_of([&] { few = forward(); }).first;
    cpu::choose_narrow(cpu::NarrowChoice::kAlone);
    const double scratch_all = memory_of([&] { all = forward(); }).first;
    cpu::choose_narrow(cpu::NarrowChoice::kMeasured);
    REQUIRE(at::equal(few.out, all.out));
    REQUIRE(at::equal(few.lse, all.lse));
    REQUIRE(scratch <= 1 << 20);
    REQUIRE(scratch_all >= 16384 * (40 + 24) * 4);  // the measurement sees the copies of a head
  }
}

namespace {

/// Of one forward and one backward call: 4 MiB a thread and packed rows; backward ids turned round too.
void check_peaks(at::ScalarType dtype, int64_t heads, int64_t kv_heads, int64_t width,
                 int64_t v_width) {
  const Threads two(2);
  const int64_t length = 16384, top_k = 32;
  AttendInputs in = inputs_of({1, length, length, heads, kv_heads, width, v_width, top_k});
  for (at::Tensor* t : {&in.q, &in.k, &in.v, &in.dout}) *t = t->to(dtype);
  const auto bytes = [](at::TensorList tensors) {
    double sum = 0;
    for (const at::Tensor& t : tensors) sum += static_cast<double>(t.nbytes());
    return sum;
  };
  constexpr double kUnseen = 2 << 20;  // pages of malloc and of the threads' stacks
  const double tokens = static_cast<double>(length), threads = kThreads * kPerThread + kUnseen;
  const double row = 4 * static_cast<double>(width + v_width);
  ops::AttentionResult forward;
  const double forward_peak = memory_of([&] {
                                forward =
                                    cpu::sparse_forward(in.q, in.k, in.v, in.selection, in.scale);
                              }).second -
                              bytes({forward.out, forward.lse});
  CAPTURE(forward_peak);
  CHECK(forward_peak <= threads + tokens * row * static_cast<double>(kv_heads));
  AttentionGrads grads;
  const double backward_peak =
      memory_of([&] {
        grads = cpu::sparse_backward(in.dout, in.q, in.k, in.v, in.selection, forward, in.scale);
      }).second -
      bytes({grads.dq, grads.dk, grads.dv});
  CAPTURE(backward_peak);
  // One head's q, dq, dout, k, dk, v, dv; 16 bytes a selected pair and 256 a token.
  const double one_head = tokens * 4 * static_cast<double>(4 * width + 3 * v_width);
  CHECK(backward_peak <= threads + one_head + tokens * (16.0 * static_cast<double>(top_k) + 256));
  CHECK(backward_peak > tokens * row);  // the measurement sees the rows
}

}  // namespace

// A test each: what one call gave back to malloc the next would not show.
TEST_CASE("peak memory beyond results, float32", "[attend]") {
  check_peaks(at::kFloat, 4, 4, 64, 64);
}
TEST_CASE("peak memory beyond results, bfloat16", "[attend]") {
  check_peaks(at::kBFloat16, 4, 4, 64, 64);
}
TEST_CASE("peak memory beyond results, many heads on one kv head, float32", "[attend]") {
  check_peaks(at::kFloat, 16, 1, 96, 64);
}
TEST_CASE("peak memory beyond results, many heads on one kv head, bfloat16", "[attend]") {
  check_peaks(at::kBFloat16, 16, 1, 96, 64);
}

TEST_CASE("memory of forward and backward grows with L and L * K, not with L * L", "[attend]") {
  const Threads two(2);
  const int64_t width = 64, top_k = 32;
  const auto bytes = [&](int64_t length) {
    const AttendInputs in = inputs_of({1, length, length, 2, 2, width, width, top_k});
    return memory_of([&] { run(in); });
  };
  const auto [scratch_8k, peak_8k] = bytes(8192);
  const auto [scratch_16k, peak_16k] = bytes(16384);
  INFO("scratch " << scratch_8k << " and " << scratch_16k << " bytes, peak growth " << peak_8k
                  << " and " << peak_16k << " bytes");
  REQUIRE(scratch_16k <= 2.3 * scratch_8k);
  // One head's rows and gradients (more than forward's packed rows in the same place); ids turned round and the
  // orders of both passes.
  const double tokens = 16384, rows = 4 * 7 * tokens * width;
  REQUIRE(scratch_16k <= kThreads * kPerThread + rows + tokens * (16 * top_k + 256));
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
                 .order = nullptr,
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
