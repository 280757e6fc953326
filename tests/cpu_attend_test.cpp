// The sparse-attention kernels of the `cpu` backend on every ISA of this machine, against float64
// loops. Error of a row: |found - exact| / |exact|.
#include "attention/cpu/parallel.h"
#include "tests/attend_fixture.h"

#include <ATen/ops/allclose.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <chrono>
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

TEST_CASE("items in shares are done once each, those of a slow thread by another", "[attend]") {
  for (const int count : {1, 2, 5}) {
    const Threads set(count);
    for (const int64_t items : {0, 1, 4, 33}) {
      CAPTURE(count, items);
      std::vector<std::atomic<int>> done(static_cast<size_t>(items));
      cpu::for_each_share(items, [&](const auto& next) {
        for (int64_t i = next(); i >= 0; i = next()) ++done[static_cast<size_t>(i)];
      });
      for (const auto& times : done) REQUIRE(times == 1);
    }
  }
  const Threads two(2);
  std::mutex mutex;
  std::set<int64_t> first_items;
  cpu::for_each_share(8, [&](const auto& next) {
    const std::unique_lock lock(mutex);
    first_items.insert(next());
  });
  REQUIRE(first_items == std::set<int64_t>{0, 4});
  std::atomic<int> left_to_sleeper{0};
  cpu::for_each_share(8, [&](const auto& next) {
    bool has_slept = false;
    for (int64_t i = next(); i >= 0; i = next()) {
      left_to_sleeper += has_slept;
      if (i != 0) continue;
      std::this_thread::sleep_for(std::chrono::milliseconds(200));
      has_slept = true;
    }
  });
  REQUIRE(left_to_sleeper == 0);
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
  const Threads two(2);
  for (const AttendCase& c :
       {AttendCase{1, 70, 12000, 6, 3, 64, 64, 48},     // one head at a time
        AttendCase{1, 70, 8000, 3, 3, 64, 64, 48},      // two, then one
        AttendCase{1, 1200, 8300, 2, 2, 64, 64, 1700},  // orders take more than the rows that wait
        AttendCase{2, 70, 12000, 2, 2, 64, 64, 48}}) {  // batch elements side by side
    INFO(c.text());
    const AttendInputs in = inputs_of(c);
    for (const std::string& isa : available_isas()) {
      INFO(isa);
      const Isa pinned(isa);
      for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
        const auto q = in.q.to(dtype), k = in.k.to(dtype), v = in.v.to(dtype);
        const auto all = cpu::sparse_forward(q, k, v, in.selection, in.scale);
        const int64_t group = c.heads / c.kv_heads;
        at::Tensor mass = at::zeros({c.batch, c.queries, c.top_k});
        for (int64_t g = 0; g < c.kv_heads; ++g) {
          const auto part = [&](const at::Tensor& t, int64_t heads) {
            return t.narrow(2, g * heads, heads).contiguous();
          };
          const auto alone =
              cpu::sparse_forward(part(q, group), part(k, 1), part(v, 1), in.selection, in.scale);
          REQUIRE(at::equal(alone.out, part(all.out, group)));
          REQUIRE(at::equal(alone.lse, part(all.lse, group)));
          if (dtype == at::kFloat)
            mass +=
                cpu::attention_mass(part(q, group), part(k, 1), in.selection, alone.lse, in.scale);
        }
        if (dtype == at::kFloat)
          REQUIRE(at::allclose(cpu::attention_mass(q, k, in.selection, all.lse, in.scale),
                               mass / static_cast<double>(c.kv_heads), 1e-5, 1e-8));
      }
    }
  }
}

TEST_CASE("a row says whether heads shared their rows", "[attend]") {
  Problem p;
  p.queries = p.keys = 60, p.kv_heads = 1, p.qk_width = p.v_width = 32, p.top_k = 20;
  for (const std::string& isa : available_isas()) {
    if (isa == "amx") continue;  // there blocks of few heads say how they went
    INFO(isa);
    const Isa pinned(isa);
    for (const auto& [heads, way] :
         {std::pair{16, "heads together"}, std::pair{4, "heads one by one"}, std::pair{1, ""}}) {
      p.heads = heads;
      const AttendInputs in = inputs_of({1, 60, 60, heads, 1, 32, 32, 20});
      cpu::sparse_forward(in.q, in.k, in.v, in.selection, in.scale);
      CHECK(cpu::narrow_note(p) == way);
    }
    p.keys = 61;
    CHECK(cpu::narrow_note(p).empty());
    p.keys = 60;
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
