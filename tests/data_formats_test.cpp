// Every malformed file gets one sentence with the file, the offset and the value in it.
#include "harness/data_formats.h"

#include "attention/fields.h"
#include "harness/data.h"
#include "tests/temporary_folder.h"

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include <numeric>

using namespace dsa;
using Catch::Matchers::ContainsSubstring;

namespace {

template <class Id>
std::string shard(const TemporaryFolder& folder, const std::string& name, int32_t magic,
                  int32_t version, int32_t claimed, const std::vector<Id>& ids) {
  std::vector<int32_t> header(256, 0);
  header[0] = magic, header[1] = version, header[2] = claimed;
  std::string bytes(reinterpret_cast<const char*>(header.data()), 1024);
  bytes.append(reinterpret_cast<const char*>(ids.data()), ids.size() * sizeof(Id));
  return folder.write(name, bytes);
}

/// The file's own name must be in the sentence, and each of `parts`.
void check_refused(const std::string& path, const std::vector<std::string>& parts,
                   int64_t vocabulary = 0) {
  DataConfig config;
  config.path = path;
  config.vocab_size = vocabulary;
  try {
    load_corpus(config);
    FAIL("not refused: " << path);
  } catch (const Error& error) {
    const std::string sentence = error.what();
    CAPTURE(sentence);
    CHECK_THAT(sentence, ContainsSubstring(path));
    CHECK(sentence.find('\n') == std::string::npos);
    for (const auto& part : parts) CHECK_THAT(sentence, ContainsSubstring(part));
  }
}

std::vector<uint16_t> ramp(size_t count) {
  std::vector<uint16_t> ids(count);
  std::iota(ids.begin(), ids.end(), uint16_t{1000});
  return ids;
}

}  // namespace

TEST_CASE("each format gives back the ids that were written", "[data]") {
  const TemporaryFolder folder;
  const auto ids = ramp(600);
  const std::vector<uint32_t> wide(ids.begin(), ids.end());
  DataConfig config;
  SECTION("nanoGPT") {
    config.path = folder.write("train.bin", ids);
    config.vocab_size = 2000;
  }
  SECTION("llm.c v1") {
    config.path = shard(folder, "a.bin", 20240520, 1, 600, ids);
  }
  SECTION("llm.c v7") {
    config.path = shard(folder, "b.bin", 20240801, 7, 600, wide);
  }
  const Corpus corpus = load_corpus(config);
  REQUIRE(corpus.all.size(0) == 600);
  for (int64_t i = 0; i < 600; ++i) {
    REQUIRE(corpus.all[i].item<int64_t>() == ids[static_cast<size_t>(i)]);
  }
}

TEST_CASE("shards of a glob follow each other in the order of their names", "[data]") {
  const TemporaryFolder folder;
  shard(folder, "s_000001.bin", 20240520, 1, 200, std::vector<uint16_t>(200, 2));
  shard(folder, "s_000000.bin", 20240520, 1, 300, std::vector<uint16_t>(300, 1));
  DataConfig config;
  config.path = folder.path("s_*.bin");
  config.validation_fraction = 0.4;
  const Corpus corpus = load_corpus(config);
  CHECK(corpus.all[0].item<int64_t>() == 1);
  CHECK(corpus.all[299].item<int64_t>() == 1);
  CHECK(corpus.all[300].item<int64_t>() == 2);
  CHECK(corpus.train.size(0) == 300);  // the shards' boundary is where 40 % begin
  CHECK(corpus.validation.size(0) == 200);
}

TEST_CASE("truncated, overlong and empty files are refused in one sentence", "[data]") {
  const TemporaryFolder folder;
  check_refused(folder.write("empty.bin", ""), {"empty", "0 bytes"});
  check_refused(folder.write("odd.bin", std::string(3, '\1')), {"3 bytes", "truncated"}, 100);
  check_refused(shard(folder, "short.bin", 20240520, 1, 100, ramp(90)),
                {"1204 bytes", "100 tokens", "1224 bytes", "20 are missing"});
  check_refused(shard(folder, "long.bin", 20240520, 1, 100, ramp(101)), {"2 too many"});
  check_refused(shard(folder, "stub.bin", 20240520, 1, 0, ramp(0)), {"byte 8", " 0 "});
  std::filesystem::resize_file(folder.path("stub.bin"), 40);
  check_refused(folder.path("stub.bin"), {"40 bytes", "1024"});
}

TEST_CASE("a header is taken at its word only where it can be true", "[data]") {
  const TemporaryFolder folder;
  check_refused(shard(folder, "minus.bin", 20240520, 1, -5, ramp(8)), {"byte 8", "-5", "2^31"});
  check_refused(shard(folder, "v2.bin", 20240520, 2, 8, ramp(8)), {"version 2", "byte 4"});
  check_refused(shard(folder, "v1.bin", 20240801, 1, 8, ramp(8)), {"version 1", "goes with 7"});
  check_refused(shard(folder, "eval.bin", 20240522, 1, 8, ramp(8)), {"evaluation file"});
  check_refused(shard(folder, "tok.bin", 20240328, 1, 8, ramp(8)), {"tokenizer file"});
  check_refused(
      shard(folder, "big.bin", static_cast<int32_t>(__builtin_bswap32(20240520)), 1, 8, ramp(8)),
      {"big-endian"});
}

TEST_CASE("an id beyond the vocabulary is named with its token and byte", "[data]") {
  const TemporaryFolder folder;
  auto ids = ramp(400);
  ids[123] = 50257;
  check_refused(shard(folder, "ids.bin", 20240520, 1, 400, ids),
                {"id 50257", "token 123", "byte 1270", "50257 ids"});
  check_refused(folder.write("raw.bin", ids), {"id 50257", "token 123", "byte 246", "2000"}, 2000);
  check_refused(folder.write("raw.bin", ids), {"--data.vocab-size", "no header"});
}

TEST_CASE("a wrong guess of the format is caught", "[data]") {
  const TemporaryFolder folder;
  // An llm.c shard whose name hides its magic is still recognised; without magic its header is not.
  std::string headerless(1024, '\0');
  headerless[0] = '\x88', headerless[1] = '\xd8';  // 55432, as uint16 >= 50257
  check_refused(folder.write("h.bin", headerless), {"id 55432", "token 0"}, 50257);
  check_refused(folder.write("prose.bin", std::string(400, 'a')), {"plain text", ".txt"}, 50257);
  check_refused(folder.write("ids.txt", std::string("ab\x01\x00\x02", 5)),
                {"UTF-8", "byte 3", "is 0"});
  check_refused(folder.write("latin.txt", "caf\xe9 au lait"), {"UTF-8", "byte 3", "233"});
  check_refused(folder.write("cut.txt", "caf\xc3"), {"byte 3", "195"});
  check_refused(folder.write("a.npy", "\x93NUMPY\x01"), {"numpy"});
  folder.write("m.idx", "MMIDIDX");
  check_refused(folder.write("m.bin", ramp(20)), {"Megatron", "m.idx"}, 50257);
}

TEST_CASE("valid UTF-8 of every length is accepted, and overlong forms are not", "[data]") {
  const TemporaryFolder folder;
  const std::string good = "a\xc2\xa2\xe2\x82\xac\xf0\x9f\x98\x80\xed\x9f\xbf\xf4\x8f\xbf\xbf";
  CHECK(read_text(folder.write("good.txt", good + "\r\n")) == good + "\n");
  for (const char* bad : {"\xc0\xaf", "\xe0\x80\xaf", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xff",
                          "\xf0\x80\x80\xaf", "\x80"}) {
    CHECK_THROWS_AS(read_text(folder.write("bad.txt", bad)), Error);
  }
}

TEST_CASE("missing files, empty folders and mixed kinds are refused", "[data]") {
  const TemporaryFolder folder;
  check_refused(folder.path("nothing-*.bin"), {"matches no file"});
  std::filesystem::create_directory(folder.path("hollow"));
  check_refused(folder.path("hollow"), {"folder without files"});
  std::filesystem::create_directory(folder.path("mixed"));
  folder.write("mixed/a.txt", std::string(200, 'x'));
  folder.write("mixed/b.bin", ramp(50));
  DataConfig config;
  config.path = folder.path("mixed");
  config.vocab_size = 50257;
  CHECK_THROWS_WITH(load_corpus(config), ContainsSubstring("a.txt' is text") &&
                                             ContainsSubstring("b.bin' is raw uint16"));
}

TEST_CASE("ids beyond 2^31 bytes are read from where they are", "[data]") {
  const TemporaryFolder folder;
  const std::string path = folder.write("huge.bin", "");
  const int64_t tokens = (int64_t{1} << 30) + 500;
  std::filesystem::resize_file(path, static_cast<uintmax_t>(2 * tokens));  // sparse
  {
    std::fstream file(path, std::ios::binary | std::ios::in | std::ios::out);
    file.seekp(2 * tokens - 4);
    file.write("\x07\x00\x09\x00", 4);
  }
  const TokenFile huge = open_tokens(path, FileKind::kRawUint16);
  REQUIRE(huge.tokens == tokens);
  std::vector<int64_t> ids(3);
  read_tokens(huge, tokens - 3, 3, 100, ids.data());
  CHECK(ids == std::vector<int64_t>{0, 7, 9});
  CHECK_THROWS_WITH(read_tokens(huge, tokens - 3, 3, 8, ids.data()),
                    ContainsSubstring("token 1073742323") && ContainsSubstring("byte 2147484646"));
}
