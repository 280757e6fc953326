#include "attention/torch_start.h"

#include <ATen/Functions.h>

namespace dsa {

void start_vector_math() {
  // Few elements, so that torch does not share them among threads.
  at::exp(at::zeros({16}, at::kDouble));
  at::exp(at::zeros({16}, at::kFloat));
}

}  // namespace dsa
