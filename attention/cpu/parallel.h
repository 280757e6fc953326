// Blocks of unequal work over torch's thread pool. Never included by ISA files.
#pragma once
#include <ATen/Parallel.h>

#include <atomic>
#include <cstdint>
#include <vector>

namespace dsa::cpu {

/// Calls work(block) once for every block in 0..blocks; each thread takes the next one when it is
/// free. Results must not depend on who runs a block, nor on the order.
template <class Work>
void for_each_block(int64_t blocks, const Work& work) {
  std::atomic<int64_t> next{0};
  const int64_t threads = at::get_num_threads() < blocks ? at::get_num_threads() : blocks;
  at::parallel_for(0, threads, 1, [&](int64_t, int64_t) {
    for (int64_t block = next++; block < blocks; block = next++) work(block);
  });
}

/// The same for ranges [begin, end) of at most `step` of `count` items.
template <class Work>
void for_each_range(int64_t count, int64_t step, const Work& work) {
  for_each_block((count + step - 1) / step, [&](int64_t block) {
    const int64_t begin = block * step;
    work(begin, begin + step < count ? begin + step : count);
  });
}

/// For short items that are alike: calls work(next) on every thread, and next() gives the next item of
/// 0..items or -1. A thread starts with its own share, the same in every call, so that it finds in its
/// cache what it had there before; who has done his share takes from those of others.
template <class Work>
void for_each_share(int64_t items, const Work& work) {
  struct alignas(64) Share {
    std::atomic<int64_t> next;
  };
  const int64_t threads = at::get_num_threads() < items ? at::get_num_threads() : items;
  const auto begin_of = [&](int64_t share) { return share * items / threads; };
  std::vector<Share> shares(static_cast<size_t>(threads));
  for (int64_t s = 0; s < threads; ++s) shares[static_cast<size_t>(s)].next = begin_of(s);
  at::parallel_for(0, threads, 1, [&](int64_t mine, int64_t) {
    int64_t helped = 0;
    work([&]() -> int64_t {
      for (; helped < threads; ++helped) {
        const int64_t share = (mine + helped) % threads;
        const int64_t item = shares[static_cast<size_t>(share)].next++;
        if (item < begin_of(share + 1)) return item;
      }
      return -1;
    });
  });
}

/// work(b) for every batch element: side by side where there is one for each thread (what work does
/// in parallel is then serial), else one after the other. Short sequences need this: a parallel
/// region costs microseconds, a head of 64 tokens not many more.
template <class Work>
void for_each_batch_element(int64_t batch, const Work& work) {
  if (batch >= at::get_num_threads()) return for_each_block(batch, work);
  for (int64_t b = 0; b < batch; ++b) work(b);
}

}  // namespace dsa::cpu
