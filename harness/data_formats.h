// What token files and texts look like on disk. Everything is checked here, with the file, the
// offset and the value in the message; nothing after this doubts an id. Formats: docs/data.md.
#pragma once
#include "harness/sha256.h"

#include <cstdint>
#include <string>
#include <vector>

namespace dsa {

enum class FileKind {
  kText,       ///< UTF-8
  kRawUint16,  ///< nanoGPT: ids without a header
  kLlmcV1,     ///< llm.c, magic 20240520, uint16
  kLlmcV7,     ///< llm.c for Llama 3, magic 20240801, uint32
};
const char* name(FileKind kind);

/// The files `path` stands for, in byte order of their names: itself, the visible files directly in
/// a folder, or what a glob matches. @throws Error if there are none.
std::vector<std::string> files_of(const std::string& path);

/// By the first bytes, then by the name (`.bin` without a magic number is raw uint16).
/// @throws Error for an empty file and for formats we know but do not read.
FileKind kind_of(const std::string& file);

/// The whole text without carriage returns. @throws Error at the first byte that is not text.
std::string read_text(const std::string& file);

struct TokenFile {
  std::string path;
  FileKind kind = FileKind::kRawUint16;
  int64_t first_byte = 0;  ///< of the first id
  int64_t id_bytes = 2;
  int64_t tokens = 0;
};

/// @throws Error unless header and size agree to the byte.
TokenFile open_tokens(const std::string& file, FileKind kind);

/// Ids [first, first + count) into `out`; their bytes go into `hash` if it is not null.
/// @throws Error naming the first id that is not below `vocabulary`
void read_tokens(const TokenFile& file, int64_t first, int64_t count, int64_t vocabulary,
                 int64_t* out, Sha256* hash = nullptr);

}  // namespace dsa
