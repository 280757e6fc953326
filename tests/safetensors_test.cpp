// The format is written as its specification says, and a damaged file is refused, never followed.
#include "harness/safetensors.h"

#include "attention/fields.h"
#include "tests/temporary_folder.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include <cstdlib>
#include <fstream>

using namespace dsa;
using Catch::Matchers::ContainsSubstring;

namespace {

Safetensors sample() {
  Safetensors contents;
  contents.tensors["bytes"] = at::arange(3, at::kByte);
  contents.tensors["doubles"] = at::full({2, 1, 2}, 0.1, at::kDouble);
  contents.tensors["empty"] = at::empty({0, 4}, at::kFloat);
  contents.tensors["halves"] = at::full({5}, 1.5, at::kBFloat16);
  contents.tensors["scalar"] = at::full({}, -7, at::kLong);
  contents.tensors["transposed"] = at::arange(6, at::kFloat).view({2, 3}).t();
  contents.metadata = {{"step", "12"}, {"quote", "\"\\ \xc3\xa9"}};
  return contents;
}

std::string file_of(const std::string& header, size_t data_bytes, uint64_t claimed = 0) {
  const uint64_t length = claimed ? claimed : header.size();
  return std::string(reinterpret_cast<const char*>(&length), 8) + header +
         std::string(data_bytes, 'x');
}

std::string read_bytes(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

}  // namespace

TEST_CASE("what is written comes back bit for bit", "[safetensors][trainer]") {
  const TemporaryFolder folder;
  const Safetensors written = sample();
  write_safetensors(folder.path("a.safetensors"), written);
  const Safetensors back = read_safetensors(folder.path("a.safetensors"));
  CHECK(back.metadata == written.metadata);
  REQUIRE(back.tensors.size() == written.tensors.size());
  for (const auto& [name, tensor] : written.tensors) {
    CAPTURE(name);
    REQUIRE(back.tensors.contains(name));
    CHECK(back.tensors.at(name).dtype() == tensor.dtype());
    CHECK(back.tensors.at(name).equal(tensor));
  }
  CHECK(!std::filesystem::exists(folder.path("a.safetensors.partial")));
}

TEST_CASE("data start at a multiple of 8 and wide types come first", "[safetensors][trainer]") {
  const TemporaryFolder folder;
  write_safetensors(folder.path("a"), sample());
  const std::string bytes = read_bytes(folder.path("a"));
  uint64_t length = 0;
  std::memcpy(&length, bytes.data(), 8);
  CHECK(length % 8 == 0);
  CHECK(bytes[8] == '{');
  double first = 0;
  std::memcpy(&first, bytes.data() + 8 + length, 8);
  CHECK(first == 0.1);
}

TEST_CASE("a damaged safetensors file is refused in one sentence", "[safetensors][trainer]") {
  const TemporaryFolder folder;
  const auto refused = [&](const std::string& bytes, const std::string& part) {
    const std::string path = folder.write("bad.safetensors", bytes);
    CHECK_THROWS_WITH(read_safetensors(path), ContainsSubstring(path) && ContainsSubstring(part));
  };
  const std::string good = R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})";
  REQUIRE_NOTHROW(read_safetensors(folder.write("good", file_of(good, 8))));
  refused("", "0 bytes");
  refused(file_of(good, 8, 500), "500 bytes");
  refused(file_of(good, 8, uint64_t{1} << 63), "damaged or truncated");
  refused(file_of(good, 7), "truncated");
  refused(file_of(good, 9), "9 bytes of data");
  refused(file_of("[1]", 0), "begin with '{'");
  refused(file_of("{nonsense", 0), "not JSON");
  refused(file_of(R"({"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}})", 8), "needs 12");
  refused(file_of(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}})", 8), "8 to 0");
  refused(file_of(R"({"a":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}})", 8), "lacks");
  refused(file_of(R"({"a":{"dtype":"Q4","shape":[2],"data_offsets":[0,8]}})", 8), "Q4");
  refused(file_of(R"({"a":{"dtype":"F32","shape":[2]}})", 8), "lacks");
  refused(file_of(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}})", 12), "byte 4");
  refused(file_of(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},)"
                  R"("b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}})",
                  12),
          "before ends at 8");
  refused(file_of(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},)"
                  R"("a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})",
                  8),
          "twice");
  refused(file_of(R"({"a":{"dtype":"F32","shape":[4611686018427387903,16],)"
                  R"("data_offsets":[0,8]}})",
                  8),
          "counted");
  refused(file_of(R"({"__metadata__":{"n":1}})", 0), "metadata");
}

TEST_CASE("a failed write leaves the old file as it was", "[safetensors][trainer]") {
  const TemporaryFolder folder;
  write_safetensors(folder.path("a"), sample());
  const std::string before = read_bytes(folder.path("a"));
  Safetensors wrong;
  wrong.tensors["complex"] = at::full({2}, 1, at::kComplexFloat);
  CHECK_THROWS_AS(write_safetensors(folder.path("a"), wrong), Error);
  CHECK(read_bytes(folder.path("a")) == before);
  CHECK_THROWS_WITH(write_safetensors(folder.path("no/folder/a"), sample()),
                    ContainsSubstring("no/folder/a"));
}
