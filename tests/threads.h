// Threads of torch for the length of a scope.
#pragma once
#include <ATen/Parallel.h>

namespace dsa::test {

struct Threads {
  int before = at::get_num_threads();
  explicit Threads(int n) { at::set_num_threads(n); }
  ~Threads() { at::set_num_threads(before); }
};

}  // namespace dsa::test
