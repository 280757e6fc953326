#include "reports/render.h"

#include "reports/load.h"

#include <cerrno>
#include <cstring>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>

namespace dsa::report {
namespace fs = std::filesystem;
namespace {

constexpr int kNoVlConvert = 10;  // the script's exit code for "vl-convert is not installed"
constexpr int kNotStarted = 127;  // posix_spawn's child could not exec

fs::path folder_of_this_program() {
  std::error_code failed;
  const fs::path self = fs::read_symlink("/proc/self/exe", failed);
  return failed ? fs::path() : self.parent_path();
}

/// Where this was built from, or, when the checkout was moved, a folder above the program.
fs::path found(const fs::path& relative) {
  fs::path root = DSA_SOURCE_DIR;
  for (fs::path above = folder_of_this_program();; root = above, above = above.parent_path()) {
    if (fs::exists(root / relative)) return root / relative;
    if (above.empty() || root == above) return {};
  }
}

/// Exit code of a program called without a shell; kNotStarted if there is no such program.
int run_program(const std::vector<std::string>& words) {
  std::vector<char*> argv;
  for (const std::string& word : words) argv.push_back(const_cast<char*>(word.c_str()));
  argv.push_back(nullptr);
  pid_t child = 0;
  if (posix_spawnp(&child, argv[0], nullptr, nullptr, argv.data(), environ) != 0)
    return kNotStarted;
  int status = 0;
  while (waitpid(child, &status, 0) < 0) {
    if (errno != EINTR) return kNotStarted;
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : kNotStarted;
}

}  // namespace

fs::path default_python() {
  const fs::path own = found(".venv/bin/python");
  return own.empty() ? "python3" : own;
}

Rendered render(const fs::path& charts, const fs::path& python) {
  Rendered out;
  const fs::path renderer = found("scripts/render_charts.py");
  if (renderer.empty()) {
    out.problem = "scripts/render_charts.py is missing from " DSA_SOURCE_DIR;
    return out;
  }
  const fs::path bundle = charts / ".bundle.js.part";
  const int code = run_program({python, renderer, charts, "--bundle", bundle});
  if (code == kNotStarted) {
    out.problem = "cannot run " + python.string() + "; name a Python with vl-convert by --python";
  } else if (code == kNoVlConvert) {
    out.problem = python.string() + " has no vl-convert; `" + python.string() +
                  " -m pip install vl-convert-python` adds it";
  } else if (code != 0) {
    out.problem = "render_charts.py failed with exit code " + std::to_string(code) + " (see above)";
  } else {
    out.pictures = true;
    out.script = read_file(bundle);
  }
  std::error_code ignored;  // it may never have been written
  fs::remove(bundle, ignored);
  return out;
}

}  // namespace dsa::report
