#include "tests/process.h"

#include "harness/recorder.h"

#include <chrono>
#include <fcntl.h>
#include <fstream>
#include <sstream>
#include <stdexcept>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>

namespace dsa::tests {
namespace {

namespace fs = std::filesystem;

pid_t spawn(std::vector<std::string> words, const fs::path& root) {
  words.insert(words.begin(), DSA_BENCH);
  const std::string out = (root / "stdout").string(), err = (root / "stderr").string();
  const pid_t child = ::fork();
  if (child != 0) return child;
  const auto redirect = [](const std::string& file, int to) {
    const int fd = ::open(file.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0666);
    ::dup2(fd, to);
  };
  redirect(out, STDOUT_FILENO);
  redirect(err, STDERR_FILENO);
  std::vector<char*> argv;
  for (auto& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  ::execv(DSA_BENCH, argv.data());
  ::_exit(127);
}

int wait(pid_t child) {
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

}  // namespace

std::string text_of(const fs::path& file) {
  std::stringstream text;
  text << std::ifstream(file).rdbuf();
  return text.str();
}

Bench::Bench() {
  static int count = 0;
  root = fs::temp_directory_path() /
         ("dsa_cli_test_" + std::to_string(::getpid()) + "_" + std::to_string(count++));
  out = root / "out";
  fs::remove_all(root);
  fs::create_directories(root);
  std::string text;
  for (int i = 0; i < 400; ++i) {
    text += "Line " + std::to_string(i * 7919 % 1000) + " of a play that nobody wrote.\n";
  }
  write("text.txt", text);
  ::setenv("DSA_RECORD_UNFIT_BUILD", "1", 1);
}

Bench::~Bench() {
  fs::remove_all(root);
}

std::string Bench::write(const std::string& name, const std::string& text) const {
  std::ofstream(root / name) << text;
  return (root / name).string();
}

namespace {

std::vector<std::string> tiny(const Bench& bench, const std::vector<std::string>& arguments) {
  const std::string toml = bench.write("tiny.toml", R"(
lengths = [16]
threads = 1
out = ")" + bench.out.string() + R"("
[kernels]
top-k = [4]
heads = [2]
widths = [8]
index-heads = [2]
index-widths = [8]
repetitions = 2
min-time = 0.001
ceilings = false
[attention]
d-model = 16
n-heads = 2
n-kv-heads = 2
head-width = 8
index-heads = 2
index-width = 8
index-rope-width = 4
[model]
n-layers = 1
n-experts = 2
n-active = 1
expert-width = 16
[train]
steps = 3
batch = 2
warmup-steps = 1
[audit]
with-training = false
lengths = [512, 1024, 2048]
steps = 3
[data]
path = ")" + (bench.root / "text.txt").string() + "\"\n");
  std::vector<std::string> words = arguments;
  bool own = false;
  for (const auto& word : arguments) own = own || word == "--config";
  if (!own) words.insert(words.end(), {"--config", toml});
  if (own) words.insert(words.end(), {"--out", bench.out.string()});
  return words;
}

}  // namespace

Outcome Bench::run(const std::vector<std::string>& arguments) const {
  return plain(tiny(*this, arguments));
}

Outcome Bench::plain(const std::vector<std::string>& arguments) const {
  const int code = wait(spawn(arguments, root));
  return {code, text_of(root / "stdout"), text_of(root / "stderr")};
}

pid_t Bench::start(const std::vector<std::string>& arguments) const {
  return spawn(tiny(*this, arguments), root);
}

int Bench::end(pid_t child, int signal) const {
  ::kill(child, signal);
  return wait(child);
}

bool Bench::wait_for_lines(const std::string& file, size_t lines) const {
  for (int tries = 0; tries < 1200; ++tries) {
    std::error_code none;
    for (const auto& entry : fs::directory_iterator(out, none)) {
      if (whole_lines(entry.path() / file).size() >= lines) return true;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
  return false;
}

fs::path Bench::folder() const {
  for (const auto& entry : fs::directory_iterator(out)) return entry.path();
  throw std::runtime_error("no run in " + out.string());
}

nlohmann::json Bench::json(const std::string& name) const {
  return nlohmann::json::parse(text_of(folder() / name));
}

}  // namespace dsa::tests
