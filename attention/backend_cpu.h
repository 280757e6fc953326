// Private: the kernels of the `cpu` backend as tensor functions, and its row for backend.cpp.
// Inputs are checked, contiguous and on the CPU (attention/backend.h says what is promised).
#pragma once
#include "attention/backend.h"

namespace dsa {

const Backend& cpu_backend();

}  // namespace dsa
