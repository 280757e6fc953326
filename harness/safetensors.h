// The safetensors format: a JSON header that names each tensor's type, shape and bytes, then the
// bytes. Nothing in a file is ever executed, and a damaged file cannot make us read outside it.
#pragma once
#include <ATen/core/Tensor.h>

#include <filesystem>
#include <map>
#include <string>

namespace dsa {

struct Safetensors {
  std::map<std::string, at::Tensor> tensors;  ///< on the CPU; written contiguously
  std::map<std::string, std::string> metadata;
};

/// Written beside `file`, flushed to the disk, then renamed: at any moment `file` is whole or absent.
/// @throws Error if the folder cannot be written
void write_safetensors(const std::filesystem::path& file, const Safetensors& contents);

/// @throws Error naming the file and the first thing in it that breaks the format
Safetensors read_safetensors(const std::filesystem::path& file);

}  // namespace dsa
