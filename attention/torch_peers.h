// What the peer rows built on LibTorch share. Private to attention/.
#pragma once
#include "attention/backend.h"

#include <optional>
#include <string>

namespace dsa::torch_peers {

/// Matrices of queries by keys above this are declined rather than tried.
inline constexpr double kLargestMatrixBytes = 4.0 * (1ULL << 30);

/// bool [T, S], true where the key comes after the query.
at::Tensor future(int64_t queries, int64_t keys, const at::Tensor& like);

/// "runs on the CPU only; ...", or nothing.
std::optional<std::string> declines_device(const Problem& problem);

/// "its <what> needs 17.2 GiB, more than the limit of 4 GiB", or nothing.
std::optional<std::string> declines_bytes(const char* what, double bytes);

}  // namespace dsa::torch_peers
