#include "harness/safetensors.h"

#include "attention/fields.h"

#include <ATen/ops/empty.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <set>
#include <unistd.h>
#include <vector>

namespace dsa {
namespace {

using nlohmann::json;
namespace fs = std::filesystem;

static_assert(std::endian::native == std::endian::little);

constexpr uint64_t kHeaderLimit = 100'000'000;  // the reference implementation's

struct Type {
  const char* name;
  at::ScalarType scalar;
};
constexpr Type kTypes[] = {{"F64", at::kDouble},    {"F32", at::kFloat}, {"F16", at::kHalf},
                           {"BF16", at::kBFloat16}, {"I64", at::kLong},  {"I32", at::kInt},
                           {"I16", at::kShort},     {"I8", at::kChar},   {"U8", at::kByte},
                           {"BOOL", at::kBool}};

const char* name_of(at::ScalarType scalar) {
  for (const Type& type : kTypes) {
    if (type.scalar == scalar) return type.name;
  }
  throw Error(std::string("safetensors: a tensor of type ") + at::toString(scalar) +
              " cannot be written; convert it first");
}

/// Owns a file descriptor; every failure names the file.
class File {
 public:
  File(const fs::path& path, int flags) : path_(path.string()) {
    handle_ = ::open(path_.c_str(), flags | O_CLOEXEC, 0644);
    require(handle_ >= 0, "'", path_, "' cannot be opened (", std::strerror(errno),
            "); check the path and its permissions");
  }
  ~File() { ::close(handle_); }
  File(const File&) = delete;
  File& operator=(const File&) = delete;

  void write(const void* data, size_t bytes) {
    const auto* from = static_cast<const char*>(data);
    while (bytes > 0) {
      const ssize_t put = ::write(handle_, from, bytes);
      if (put < 0 && errno == EINTR) continue;
      require(put > 0, "'", path_, "' cannot be written (", std::strerror(errno), "); make room");
      from += put, bytes -= static_cast<size_t>(put);
    }
  }
  void read(uint64_t offset, uint64_t bytes, void* out) const {
    auto* to = static_cast<char*>(out);
    while (bytes > 0) {
      const ssize_t got = ::pread(handle_, to, bytes, static_cast<off_t>(offset));
      if (got < 0 && errno == EINTR) continue;
      require(got > 0, "'", path_, "' ends before byte ", offset + bytes, "; it is truncated");
      to += got, offset += static_cast<uint64_t>(got), bytes -= static_cast<uint64_t>(got);
    }
  }
  void flush() {
    require(::fsync(handle_) == 0, "'", path_, "' cannot be flushed (", std::strerror(errno), ")");
  }

 private:
  std::string path_;
  int handle_;
};

using Entry = std::pair<std::string, at::Tensor>;

/// Widest types first, so that each tensor starts at a multiple of its element size.
std::vector<Entry> in_file_order(const Safetensors& contents) {
  std::vector<Entry> entries;
  for (const auto& [name, tensor] : contents.tensors)
    entries.emplace_back(name, tensor.contiguous());
  std::stable_sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) {
    return a.second.element_size() > b.second.element_size();
  });
  return entries;
}

std::string header_of(const std::vector<Entry>& entries,
                      const std::map<std::string, std::string>& metadata) {
  json header = json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  uint64_t begin = 0;
  for (const auto& [name, tensor] : entries) {
    const uint64_t end = begin + tensor.nbytes();
    header[name] = {{"dtype", name_of(tensor.scalar_type())},
                    {"shape", tensor.sizes().vec()},
                    {"data_offsets", {begin, end}}};
    begin = end;
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');
  return text;
}

/// JSON with no key twice in one object: a second one would silently replace the first.
json parse_header(const std::string& text, const std::string& file) {
  std::vector<std::set<std::string>> open;
  const auto watch = [&](int, json::parse_event_t event, json& value) {
    if (event == json::parse_event_t::object_start) open.emplace_back();
    if (event == json::parse_event_t::object_end) open.pop_back();
    if (event == json::parse_event_t::key) {
      require(open.back().insert(value.get<std::string>()).second, "'", file,
              "' has the header key '", value.get<std::string>(), "' twice; it is damaged");
    }
    return true;
  };
  try {
    return json::parse(text, watch);
  } catch (const json::exception& error) {
    throw Error("'" + file + "' has a header that is not JSON (" + error.what() +
                "); it is no safetensors file or damaged");
  }
}

struct Place {
  std::string name;
  at::ScalarType scalar;
  std::vector<int64_t> shape;
  uint64_t begin = 0, end = 0;
};

at::ScalarType scalar_of(const std::string& dtype, const std::string& where) {
  for (const Type& type : kTypes) {
    if (dtype == type.name) return type.scalar;
  }
  throw Error(where + " has dtype '" + dtype + "', which is not known here; convert the file");
}

uint64_t bytes_of(const Place& place, const std::string& where) {
  uint64_t bytes = c10::elementSize(place.scalar);
  for (const int64_t size : place.shape) {
    require(!__builtin_mul_overflow(bytes, static_cast<uint64_t>(size), &bytes), where,
            " has more bytes than can be counted; it is damaged");
  }
  return bytes;
}

Place place_of(const std::string& name, const json& entry, const std::string& file) {
  const std::string where = "'" + file + "': tensor '" + name + "'";
  const auto counts = [](const json& list) {
    return list.is_array() && std::all_of(list.begin(), list.end(), [](const json& value) {
             return value.is_number_unsigned() && value.get<uint64_t>() < (uint64_t{1} << 62);
           });
  };
  require(entry.is_object() && entry.contains("dtype") && entry["dtype"].is_string() &&
              entry.contains("shape") && counts(entry["shape"]) && entry.contains("data_offsets") &&
              counts(entry["data_offsets"]) && entry["data_offsets"].size() == 2,
          where, " lacks a dtype, a shape or two data_offsets; it is damaged");
  Place place{name, scalar_of(entry["dtype"], where), entry["shape"], entry["data_offsets"][0],
              entry["data_offsets"][1]};
  const uint64_t expected = bytes_of(place, where);
  require(place.begin <= place.end && place.end - place.begin == expected, where, " spans bytes ",
          place.begin, " to ", place.end, ", but its shape needs ", expected, "; it is damaged");
  return place;
}

/// Sorted by place; they must fill `bytes` without holes or overlaps.
std::vector<Place> places_of(const json& header, uint64_t bytes, const std::string& file) {
  std::vector<Place> places;
  for (const auto& [name, entry] : header.items()) {
    if (name != "__metadata__") places.push_back(place_of(name, entry, file));
  }
  std::sort(places.begin(), places.end(), [](const Place& a, const Place& b) {
    return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
  });
  uint64_t next = 0;
  for (const Place& place : places) {
    require(place.begin == next, "'", file, "': tensor '", place.name, "' starts at byte ",
            place.begin, " of the data, but the one before ends at ", next, "; it is damaged");
    next = place.end;
  }
  require(next == bytes, "'", file, "' has ", bytes, " bytes of data, but its tensors need ", next,
          bytes < next ? "; it is truncated" : "; it is damaged");
  return places;
}

}  // namespace

void write_safetensors(const fs::path& file, const Safetensors& contents) {
  const std::vector<Entry> entries = in_file_order(contents);
  const std::string header = header_of(entries, contents.metadata);
  const fs::path partial = file.string() + ".partial";
  {
    File out(partial, O_WRONLY | O_CREAT | O_TRUNC);
    const uint64_t length = header.size();
    out.write(&length, sizeof length);
    out.write(header.data(), header.size());
    for (const auto& [name, tensor] : entries) out.write(tensor.data_ptr(), tensor.nbytes());
    out.flush();
  }
  fs::rename(partial, file);
  // The rename itself is durable only once the folder is.
  File(file.has_parent_path() ? file.parent_path() : fs::path("."), O_RDONLY | O_DIRECTORY).flush();
}

Safetensors read_safetensors(const fs::path& path) {
  const std::string file = path.string();
  const File in(path, O_RDONLY);
  const uint64_t size = fs::file_size(path);
  require(size >= 8, "'", file, "' has ", size, " bytes, fewer than a safetensors header");
  uint64_t length = 0;
  in.read(0, sizeof length, &length);
  require(length >= 2 && length <= kHeaderLimit && length <= size - 8, "'", file,
          "' says its header has ", length, " bytes, but the file has ", size - 8,
          " after byte 8 and a header at most ", kHeaderLimit, "; it is damaged or truncated");
  std::string text(length, '\0');
  in.read(8, length, text.data());
  require(text[0] == '{', "'", file, "' has a header that does not begin with '{'; it is damaged");
  const json header = parse_header(text, file);
  Safetensors contents;
  if (header.contains("__metadata__")) {
    const json& metadata = header["__metadata__"];
    require(
        metadata.is_object() && std::all_of(metadata.begin(), metadata.end(),
                                            [](const json& value) { return value.is_string(); }),
        "'", file, "' has metadata that are not texts; it is damaged");
    contents.metadata = metadata;
  }
  for (const Place& place : places_of(header, size - 8 - length, file)) {
    at::Tensor tensor = at::empty(place.shape, place.scalar);
    in.read(8 + length + place.begin, place.end - place.begin, tensor.data_ptr());
    contents.tensors[place.name] = tensor;
  }
  return contents;
}

}  // namespace dsa
