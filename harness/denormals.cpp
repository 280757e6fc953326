#include "harness/denormals.h"

#include <ATen/Context.h>
#include <ATen/Parallel.h>

#include <atomic>

namespace dsa {
namespace {

std::atomic<int> open_scopes = 0;

void flush_everywhere(bool on) {
  const int threads = at::get_num_threads();
#pragma omp parallel num_threads(threads)
  at::globalContext().setFlushDenormal(on);
}

}  // namespace

FlushDenormals::FlushDenormals(bool on) : on_(on) {
  if (on_ && open_scopes++ == 0) flush_everywhere(true);
}

FlushDenormals::~FlushDenormals() {
  if (on_ && --open_scopes == 0) flush_everywhere(false);
}

}  // namespace dsa
