// The rows that backend.cpp puts into its table, each made beside its kernels. Private to attention/.
#pragma once
#include "attention/backend.h"

namespace dsa {

Backend torch_sdpa_backend();
Backend torch_math_backend();
Backend torch_mask_backend();
Backend torch_gather_backend();
Backend torch_gather_heads_backend();
Backend reference_backend();
Backend cpu_int8_backend();

}  // namespace dsa
