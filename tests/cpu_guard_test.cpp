// The kernels of the `cpu` backend read nothing after the end of a tensor: inputs lie right before a page
// that may not be touched. Loads of tiles and of masked registers are invisible to AddressSanitizer.
#include "attention/backend_cpu.h"
#include "attention/cpu/attend_kernels.h"
#include "tests/select_inputs.h"
#include "tests/sparse_oracle.h"

#include <ATen/ops/from_blob.h>

#include <cstring>
#include <sys/mman.h>
#include <unistd.h>

namespace {

using namespace dsa;
using namespace dsa::test;
using namespace select_test;

/// A copy of a tensor whose last byte is the last before a forbidden page.
class Guarded {
 public:
  explicit Guarded(const at::Tensor& from) {
    const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    const size_t used = from.nbytes();
    bytes_ = (used + page - 1) / page * page + page;
    memory_ = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    REQUIRE(memory_ != MAP_FAILED);
    char* end = static_cast<char*>(memory_) + bytes_ - page;
    REQUIRE(mprotect(end, page, PROT_NONE) == 0);
    std::memcpy(end - used, from.contiguous().const_data_ptr(), used);
    tensor_ = at::from_blob(end - used, from.sizes(), from.options());
  }
  ~Guarded() { munmap(memory_, bytes_); }
  Guarded(const Guarded&) = delete;
  Guarded& operator=(const Guarded&) = delete;

  const at::Tensor& operator*() const { return tensor_; }

 private:
  void* memory_ = nullptr;
  size_t bytes_ = 0;
  at::Tensor tensor_;
};

}  // namespace

TEST_CASE("the indexer reads nothing after its inputs", "[select]") {
  for (const IndexerShape& shape : kIndexerShapes)
    for (const auto type : {at::kFloat, at::kBFloat16}) {
      const SelectInputs in = gaussian_inputs(shape, 21).as(type);
      const Guarded q(in.q), k(in.k), weight(in.weight);
      on_every_machine([&] {
        INFO(shape << ", " << type);
        const at::Tensor scores = cpu::indexer_scores(*q, *k, *weight);
        const Guarded guarded(scores);
        const Selection two_steps = cpu::select_top_k(*guarded, 37);
        CHECK(two_steps.count.min().item<int32_t>() >= 1);
        CHECK(cpu::indexer_select(*q, *k, *weight, 37).count.min().item<int32_t>() >= 1);
        CHECK(cpu::selected_scores(*q, *k, *weight, two_steps).numel() > 0);
      });
    }
}

TEST_CASE("sparse attention reads nothing after its inputs", "[attend]") {
  // B T S H G D V K: rows that end inside a register, a tile or a pair, one head or many a kv head
  for (const AttendCase& c :
       {AttendCase{1, 1, 1, 1, 1, 1, 1, 1}, AttendCase{1, 33, 60, 6, 1, 3, 17, 9},
        AttendCase{1, 70, 70, 2, 2, 64, 64, 32}, AttendCase{2, 21, 37, 4, 4, 40, 36, 11},
        AttendCase{1, 5, 40, 16, 1, 72, 40, 33}, AttendCase{1, 3, 300, 40, 1, 576, 512, 290},
        AttendCase{1, 40, 40, 33, 1, 31, 33, 40}}) {
    const AttendInputs in = inputs_of(c);
    const Guarded ids(in.selection.indices), count(in.selection.count);
    const ops::Selection selection{*ids, *count};
    for (const auto type : {at::kFloat, at::kBFloat16}) {
      const Guarded q(in.q.to(type)), k(in.k.to(type)), v(in.v.to(type)), dout(in.dout.to(type));
      on_every_machine([&] {
        INFO(c.text() << ", " << type);
        for (const auto choice : {cpu::NarrowChoice::kUnion, cpu::NarrowChoice::kAlone}) {
          cpu::choose_narrow(choice);
          const auto one_way = cpu::sparse_forward(*q, *k, *v, selection, in.scale);
          CHECK(one_way.out.isfinite().all().item<bool>());
        }
        cpu::choose_narrow(cpu::NarrowChoice::kMeasured);
        const auto forward = cpu::sparse_forward(*q, *k, *v, selection, in.scale);
        CHECK(forward.out.isfinite().all().item<bool>());
        CHECK(cpu::attention_mass(*q, *k, selection, forward.lse, in.scale).numel() > 0);
        const auto grads = cpu::sparse_backward(*dout, *q, *k, *v, selection, forward, in.scale);
        CHECK(grads.dq.isfinite().all().item<bool>());
      });
    }
  }
}
