// Grow-only scratch, one buffer a thread and slot.
#include "attention/cpu/scratch.h"

#include <array>
#include <atomic>
#include <cstdlib>
#include <new>
#include <sys/mman.h>

namespace dsa::cpu {
namespace {

constexpr int64_t kHugePage = int64_t{2} << 20;

std::atomic<int64_t> live_bytes{0};

struct Buffer {
  void* memory = nullptr;
  int64_t bytes = 0;

  void release() {
    std::free(memory);
    live_bytes -= bytes;
    memory = nullptr;
    bytes = 0;
  }

  void grow(int64_t wanted) {
    release();
    const int64_t unit = wanted >= kHugePage ? kHugePage : 64;
    const int64_t rounded = (wanted + unit - 1) / unit * unit;
    memory = std::aligned_alloc(static_cast<size_t>(unit), static_cast<size_t>(rounded));
    if (memory == nullptr) throw std::bad_alloc();
    bytes = rounded;
    live_bytes += bytes;
    // Advice: a kernel without huge pages runs on small ones.
    if (unit == kHugePage) madvise(memory, static_cast<size_t>(rounded), MADV_HUGEPAGE);
  }

  ~Buffer() { release(); }
};

std::array<Buffer, static_cast<size_t>(Slot::kCount)>& buffers() {
  thread_local std::array<Buffer, static_cast<size_t>(Slot::kCount)> mine;
  return mine;
}

}  // namespace

void* scratch_bytes(Slot slot, int64_t bytes) {
  Buffer& buffer = buffers()[static_cast<size_t>(slot)];
  if (bytes > buffer.bytes) buffer.grow(bytes);
  return buffer.memory;
}

void advise_huge_pages(void* memory, int64_t bytes) {
  const auto begin = (reinterpret_cast<uintptr_t>(memory) + kHugePage - 1) / kHugePage * kHugePage;
  const auto end =
      (reinterpret_cast<uintptr_t>(memory) + static_cast<uintptr_t>(bytes)) / kHugePage * kHugePage;
  if (begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
}

int64_t scratch_live_bytes() {
  return live_bytes;
}

void release_scratch() {
  for (Buffer& buffer : buffers()) buffer.release();
}

}  // namespace dsa::cpu
