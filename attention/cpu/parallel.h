// Blocks of unequal work over torch's thread pool. Never included by ISA files.
#pragma once
#include <ATen/Parallel.h>

#include <atomic>
#include <cstdint>

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

}  // namespace dsa::cpu
