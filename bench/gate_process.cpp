#include "bench/gate_process.h"

#include "bench/session.h"

#include <chrono>
#include <csignal>
#include <cstring>
#include <fcntl.h>
#include <fstream>
#include <sched.h>
#include <sstream>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>

namespace dsa::bench {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

/// In the child: only what is allowed between fork and exec.
[[noreturn]] void become(char* const* argv, const ProcessOptions& options, const cpu_set_t& cores) {
  // A group of its own: Ctrl-C is for the gate, which then stops its child in order.
  ::setpgid(0, 0);
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);  // a gate that is killed leaves nobody behind
  const auto redirect = [](const char* file, int to) {
    const int fd = ::open(file, O_WRONLY | O_CREAT | O_TRUNC, 0666);
    if (fd >= 0) ::dup2(fd, to);
  };
  redirect(options.out.c_str(), STDOUT_FILENO);
  redirect(options.err.c_str(), STDERR_FILENO);
  if (!options.cores.empty()) ::sched_setaffinity(0, sizeof cores, &cores);
  ::execv(argv[0], argv);
  ::_exit(127);
}

std::string last_words(const fs::path& file) {
  std::ifstream in(file);
  std::vector<std::string> lines;
  for (std::string line; std::getline(in, line);) {
    if (!line.empty()) lines.push_back(line);
  }
  std::string words;
  for (size_t i = lines.size() > 3 ? lines.size() - 3 : 0; i < lines.size(); ++i) {
    words += (words.empty() ? "" : " | ") + lines[i];
  }
  return words.size() > 400 ? "..." + words.substr(words.size() - 400) : words;
}

}  // namespace

std::string Ended::shown() const {
  std::string text;
  if (hung) {
    text = "gave no sign of an end and was stopped";
  } else if (signal != 0) {
    text = "ended by signal " + std::to_string(signal) + " (" + ::strsignal(signal) + ")";
  } else {
    text = "ended with exit code " + std::to_string(code);
  }
  return words.empty() ? text : text + ": " + words;
}

Ended run_process(const std::vector<std::string>& argv, const ProcessOptions& options) {
  require(::access(argv.front().c_str(), X_OK) == 0, argv.front(),
          " cannot be run: ", std::strerror(errno), "; give the path of a dsa-bench");
  std::vector<char*> words;
  for (const auto& word : argv) words.push_back(const_cast<char*>(word.c_str()));
  words.push_back(nullptr);
  cpu_set_t cores;
  CPU_ZERO(&cores);
  for (const int core : options.cores) CPU_SET(static_cast<size_t>(core), &cores);
  const pid_t child = ::fork();
  require(child >= 0, "no process could be started: ", std::strerror(errno));
  if (child == 0) become(words.data(), options, cores);
  ::setpgid(child, child);  // here too: a stop may come before the child has done it
  Ended ended;
  const auto until = Clock::now() + std::chrono::duration<double>(options.seconds);
  int status = 0;
  while (::waitpid(child, &status, WNOHANG) == 0) {
    ended.stopped = stop_requested();
    ended.hung = !ended.stopped && Clock::now() > until;
    if (ended.stopped || ended.hung) {
      ::kill(-child, SIGKILL);
      ::kill(child, SIGKILL);
      ::waitpid(child, &status, 0);
      break;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  if (WIFEXITED(status)) ended.code = WEXITSTATUS(status);
  if (WIFSIGNALED(status)) ended.signal = WTERMSIG(status);
  ended.words = last_words(options.err);
  return ended;
}

std::vector<int> cores_of(const std::string& text) {
  std::vector<int> cores;
  if (text.empty()) return cores;
  cpu_set_t usable;
  ::sched_getaffinity(0, sizeof usable, &usable);
  std::istringstream parts(text);
  for (std::string part; std::getline(parts, part, ',');) {
    int first = -1, last = -1;
    char end = 0;
    const int read = std::sscanf(part.c_str(), "%d-%d%c", &first, &last, &end);
    if (read == 1 && part.find('-') == std::string::npos) last = first;
    require(read >= 1 && read <= 2 && first >= 0 && last >= first && last < CPU_SETSIZE,
            "--gate.cores is \"", text, "\"; it takes CPUs such as 0,1 or 2-5");
    for (int core = first; core <= last; ++core) {
      require(CPU_ISSET(static_cast<size_t>(core), &usable) != 0, "--gate.cores has CPU ", core,
              ", which this process may not use");
      cores.push_back(core);
    }
  }
  return cores;
}

}  // namespace dsa::bench
