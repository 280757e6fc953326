// Work shared out over torch's thread pool.
#pragma once
#include <ATen/Parallel.h>

#include <atomic>
#include <cstdint>

namespace dsa::cpu {

/// Calls run(i) once for every i below `tasks`, on the threads of torch's pool. A thread that is
/// free takes the next task, so tasks may differ in length; results must not depend on who runs
/// which. Serial inside another parallel region.
template <class Run>
void for_each_task(int64_t tasks, const Run& run) {
  std::atomic<int64_t> next{0};
  at::parallel_for(0, at::get_num_threads(), 1, [&](int64_t, int64_t) {
    for (int64_t i = next++; i < tasks; i = next++) run(i);
  });
}

/// The same over ranges [begin, end) of at most `step` of `count` items.
template <class Run>
void for_each_range(int64_t count, int64_t step, const Run& run) {
  for_each_task((count + step - 1) / step, [&](int64_t i) {
    const int64_t begin = i * step;
    run(begin, begin + step < count ? begin + step : count);
  });
}

}  // namespace dsa::cpu
