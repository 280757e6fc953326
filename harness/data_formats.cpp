#include "harness/data_formats.h"

#include "attention/fields.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <glob.h>
#include <unistd.h>

namespace dsa {
namespace {

namespace fs = std::filesystem;

// Every format here is little-endian and read by memcpy.
static_assert(std::endian::native == std::endian::little);

constexpr uint32_t kMagicV1 = 20240520, kMagicV7 = 20240801;
constexpr uint32_t kMagicEvaluation = 20240522, kMagicTokenizer = 20240328;
constexpr int64_t kHeaderBytes = 1024;

/// An open file; reads with 64-bit offsets (2 GiB shards broke readers that used int).
class ReadFile {
 public:
  explicit ReadFile(const std::string& path)
      : path_(path), handle_(::open(path.c_str(), O_RDONLY | O_CLOEXEC)) {
    require(handle_ >= 0, "data.path: '", path, "' cannot be opened (", std::strerror(errno),
            "); check the path and its permissions");
    const off_t end = ::lseek(handle_, 0, SEEK_END);
    if (end < 0) ::close(handle_);
    require(end >= 0, "data.path: '", path, "' is not a plain file; give a file, folder or glob");
    size_ = end;
  }
  ~ReadFile() { ::close(handle_); }
  ReadFile(const ReadFile&) = delete;
  ReadFile& operator=(const ReadFile&) = delete;

  int64_t size() const { return size_; }

  void read(int64_t offset, int64_t bytes, void* out) const {
    auto* to = static_cast<char*>(out);
    while (bytes > 0) {
      const ssize_t got = ::pread(handle_, to, static_cast<size_t>(bytes), offset);
      if (got < 0 && errno == EINTR) continue;
      require(got > 0, "data.path: '", path_, "' could not be read at byte ", offset, " of ", size_,
              " (", got == 0 ? "it shrank" : std::strerror(errno), "); fetch it again");
      to += got, offset += got, bytes -= got;
    }
  }

 private:
  std::string path_;
  int handle_;
  int64_t size_ = 0;
};

std::vector<std::string> files_in(const fs::path& folder) {
  std::vector<std::string> files;
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (entry.is_regular_file() && entry.path().filename().string()[0] != '.') {
      files.push_back(entry.path().string());
    }
  }
  return files;
}

std::vector<std::string> matches_of(const std::string& pattern) {
  std::vector<std::string> files;
  glob_t found = {};
  if (::glob(pattern.c_str(), 0, nullptr, &found) == 0) {
    for (size_t i = 0; i < found.gl_pathc; ++i) {
      if (fs::is_regular_file(found.gl_pathv[i])) files.emplace_back(found.gl_pathv[i]);
    }
  }
  ::globfree(&found);
  return files;
}

bool begins_with(const std::string& path, const char* magic) {
  if (!fs::is_regular_file(path)) return false;
  const ReadFile file(path);
  std::string start(std::strlen(magic), '\0');
  if (file.size() < static_cast<int64_t>(start.size())) return false;
  file.read(0, static_cast<int64_t>(start.size()), start.data());
  return start == magic;
}

/// Thousands of ids whose every byte is a printable letter are not ids but prose.
bool looks_like_prose(const ReadFile& file) {
  std::string start(static_cast<size_t>(std::min<int64_t>(file.size(), 4096)), '\0');
  file.read(0, static_cast<int64_t>(start.size()), start.data());
  return start.size() >= 64 && std::all_of(start.begin(), start.end(), [](char c) {
           return (c >= ' ' && c <= '~') || c == '\n' || c == '\r' || c == '\t';
         });
}

void refuse_known_formats(const std::string& path, uint32_t magic) {
  const char* refused =
      magic == kMagicEvaluation  ? "an llm.c evaluation file"
      : magic == kMagicTokenizer ? "an llm.c tokenizer file"
      : magic == __builtin_bswap32(kMagicV1) || magic == __builtin_bswap32(kMagicV7)
          ? "a big-endian llm.c shard"
          : nullptr;
  require(refused == nullptr, "data.path: '", path, "' is ", refused ? refused : "", " (its first ",
          "32 bits are ", magic, "); give an llm.c shard with magic ", kMagicV1, " or ", kMagicV7);
  require(!begins_with(path, "\x93NUMPY"), "data.path: '", path,
          "' is a numpy array; write its ids with .astype('<u2').tofile('ids.bin')");
  const std::string index = fs::path(path).replace_extension(".idx").string();
  require(!path.ends_with(".bin") || !begins_with(index, "MMIDIDX"), "data.path: '", path,
          "' is a Megatron data set ('", index, "' is its index); export it as an llm.c shard");
}

/// Bytes of the UTF-8 character at `at`, 0 if there is none (overlong forms, surrogates included).
size_t utf8_length(const std::string& text, size_t at) {
  const auto byte = [&](size_t i) {
    return at + i < text.size() ? static_cast<unsigned char>(text[at + i]) : 0u;
  };
  const unsigned lead = byte(0);
  if (lead < 0x80) return 1;
  const size_t length = lead >= 0xc2 && lead <= 0xdf   ? 2
                        : (lead & 0xf0u) == 0xe0       ? 3
                        : lead >= 0xf0 && lead <= 0xf4 ? 4
                                                       : 0;
  for (size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xc0u) != 0x80) return 0;
  }
  const unsigned second = byte(1);
  const bool wrong = (lead == 0xe0 && second < 0xa0) || (lead == 0xed && second > 0x9f) ||
                     (lead == 0xf0 && second < 0x90) || (lead == 0xf4 && second > 0x8f);
  return wrong ? 0 : length;
}

}  // namespace

const char* name(FileKind kind) {
  switch (kind) {
    case FileKind::kText:
      return "text";
    case FileKind::kRawUint16:
      return "raw uint16";
    case FileKind::kLlmcV1:
      return "llm.c v1 (uint16)";
    case FileKind::kLlmcV7:
      return "llm.c v7 (uint32)";
  }
  return "unknown";
}

std::vector<std::string> files_of(const std::string& path) {
  const bool folder = fs::is_directory(path);
  std::vector<std::string> files;
  if (folder) {
    files = files_in(path);
  } else if (fs::exists(path)) {
    files = {path};
  } else {
    files = matches_of(path);
  }
  require(!files.empty(), "data.path: '", path,
          folder ? "' is a folder without files; put texts or shards into it"
                 : "' does not exist and matches no file; check the spelling");
  std::sort(files.begin(), files.end());
  return files;
}

FileKind kind_of(const std::string& path) {
  const ReadFile file(path);
  require(file.size() > 0, "data.path: '", path, "' is empty (0 bytes); fetch it again");
  uint32_t magic = 0;
  if (file.size() >= 4) file.read(0, 4, &magic);
  if (magic == kMagicV1) return FileKind::kLlmcV1;
  if (magic == kMagicV7) return FileKind::kLlmcV7;
  refuse_known_formats(path, magic);
  if (!path.ends_with(".bin")) return FileKind::kText;
  require(
      !looks_like_prose(file), "data.path: '", path,
      "' is named .bin, which means 16-bit ids, but it begins with plain text; rename it to .txt");
  return FileKind::kRawUint16;
}

std::string read_text(const std::string& path) {
  const ReadFile file(path);
  std::string text(static_cast<size_t>(file.size()), '\0');
  file.read(0, file.size(), text.data());
  for (size_t at = 0; at < text.size();) {
    const size_t length = text[at] == '\0' ? 0 : utf8_length(text, at);
    require(length > 0, "data.path: '", path, "' is not UTF-8 text: byte ", at, " is ",
            static_cast<int>(static_cast<unsigned char>(text[at])),
            "; convert it, or name it .bin if it holds 16-bit ids");
    at += length;
  }
  text.erase(std::remove(text.begin(), text.end(), '\r'), text.end());
  require(!text.empty(), "data.path: '", path,
          "' holds no text but carriage returns; fetch it again");
  return text;
}

TokenFile open_tokens(const std::string& path, FileKind kind) {
  const ReadFile file(path);
  TokenFile tokens{path, kind, 0, kind == FileKind::kLlmcV7 ? 4 : 2, 0};
  if (kind == FileKind::kRawUint16) {
    require(file.size() % 2 == 0, "data.path: '", path, "' has ", file.size(),
            " bytes, which is no whole number of 16-bit ids; it is truncated, fetch it again");
    tokens.tokens = file.size() / 2;
    return tokens;
  }
  require(file.size() >= kHeaderBytes, "data.path: '", path, "' has ", file.size(),
          " bytes, less than an llm.c header (", kHeaderBytes, "); fetch it again");
  std::array<int32_t, 3> header;
  file.read(0, sizeof header, header.data());
  const int32_t version = kind == FileKind::kLlmcV1 ? 1 : 7;
  require(header[1] == version, "data.path: '", path, "' has llm.c version ", header[1],
          " at byte 4, but magic ", header[0], " goes with ", version, "; write it anew");
  require(header[2] > 0, "data.path: '", path, "' says at byte 8 that it holds ", header[2],
          " tokens (a signed 32-bit number); write shards of fewer than 2^31 tokens");
  tokens.first_byte = kHeaderBytes;
  tokens.tokens = header[2];
  const int64_t expected = kHeaderBytes + tokens.tokens * tokens.id_bytes;
  const int64_t missing = expected - file.size();
  require(missing == 0, "data.path: '", path, "' has ", file.size(), " bytes, but its header says ",
          tokens.tokens, " tokens = ", expected, " bytes: ", missing > 0 ? missing : -missing,
          missing > 0 ? " are missing; fetch it again" : " too many; write it anew");
  return tokens;
}

void read_tokens(const TokenFile& tokens, int64_t first, int64_t count, int64_t vocabulary,
                 int64_t* out, Sha256* hash) {
  const ReadFile file(tokens.path);
  std::vector<uint8_t> buffer;
  constexpr int64_t kChunk = 1 << 18;
  for (int64_t done = 0; done < count; done += kChunk) {
    const int64_t now = std::min(kChunk, count - done);
    const int64_t offset = tokens.first_byte + (first + done) * tokens.id_bytes;
    buffer.resize(static_cast<size_t>(now * tokens.id_bytes));
    file.read(offset, now * tokens.id_bytes, buffer.data());
    if (hash) hash->add(buffer.data(), buffer.size());
    for (int64_t i = 0; i < now; ++i) {
      uint32_t id = 0;
      std::memcpy(&id, buffer.data() + i * tokens.id_bytes, static_cast<size_t>(tokens.id_bytes));
      require(id < vocabulary, "data.path: '", tokens.path, "' holds id ", id, " at token ",
              first + done + i, " (byte ", offset + i * tokens.id_bytes,
              "), but the vocabulary has ", vocabulary, " ids; read as ", name(tokens.kind),
              ", give the right --data.vocab-size or file");
      out[done + i] = id;
    }
  }
}

}  // namespace dsa
