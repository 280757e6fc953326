// Runs the built dsa-bench on tiny shapes in a folder of its own, for tests of the command line.
#pragma once
#include <nlohmann/json.hpp>

#include <filesystem>
#include <string>
#include <sys/types.h>
#include <vector>

namespace dsa::tests {

struct Outcome {
  int code = -1;
  std::string out, err;
};

std::string text_of(const std::filesystem::path& file);  ///< all of it

class Bench {
 public:
  Bench();
  ~Bench();
  Bench(const Bench&) = delete;
  Bench& operator=(const Bench&) = delete;

  /// dsa-bench with flags for tiny shapes, a small text and --out, then `arguments` (they win).
  Outcome run(const std::vector<std::string>& arguments) const;
  Outcome plain(const std::vector<std::string>& arguments) const;  ///< only `arguments`

  pid_t start(const std::vector<std::string>& arguments) const;  ///< as run(), without waiting
  /// Sends `signal` and waits. Returns the exit code, or -signal if the signal ended the process.
  int end(pid_t child, int signal) const;
  /// Waits until `file` of the run's folder has so many whole lines; false after a minute.
  bool wait_for_lines(const std::string& file, size_t lines) const;

  std::filesystem::path folder() const;                ///< of the only run in `out`
  nlohmann::json json(const std::string& name) const;  ///< a file of it, parsed strictly
  std::string write(const std::string& name, const std::string& text) const;

  std::filesystem::path root, out;
};

}  // namespace dsa::tests
