#include "bench/gate_process.h"

#include "bench/session.h"

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <fstream>
#include <memory>
#include <poll.h>
#include <random>
#include <sched.h>
#include <set>
#include <sstream>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

namespace dsa::bench {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

/// In the child: only what is allowed between fork and exec.
[[noreturn]] void become(char* const* argv, const ProcessOptions& options, const cpu_set_t& cores,
                         int socket) {
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
  ::fcntl(socket, F_SETFD, 0);  // this end stays open across exec
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

/// CPUs of one core give the same text; where the kernel does not say, each is a core of its own.
std::string core_with(int cpu) {
  const std::string number = std::to_string(cpu);
  std::ifstream file("/sys/devices/system/cpu/cpu" + number + "/topology/thread_siblings_list");
  std::string siblings;
  std::getline(file, siblings);
  return siblings.empty() ? number : siblings;
}

std::vector<int> cores_for(int64_t threads, const cpu_set_t& usable) {
  std::vector<int> cores;
  std::set<std::string> taken;
  for (int cpu = CPU_SETSIZE - 1; cpu >= 0; --cpu) {
    if (CPU_ISSET(static_cast<size_t>(cpu), &usable) == 0 || !taken.insert(core_with(cpu)).second) {
      continue;
    }
    cores.push_back(cpu);
  }
  if (threads <= 0 || std::ssize(cores) < threads) return {};
  cores.resize(static_cast<size_t>(threads));
  return cores;
}

/// One process. It begins with its first turn, and does not outlive this object.
class Child {
 public:
  Child(const Command& command, bool turns) : command_(command), turns_(turns) {}
  ~Child() { kill(); }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  /// Lets it run until it awaits another turn, ends, or is stopped. Returns whether it goes on.
  bool take_turn() {
    if (over_ || stop_requested()) return false;
    const auto start = Clock::now();
    if (child_ < 0) {
      begin();
    } else {
      const char sign = 't';
      ::send(socket_, &sign, 1, MSG_NOSIGNAL);  // one that has ended meanwhile is seen below
    }
    while (!awaits_turn() && !over_) {
      ended_.stopped = stop_requested();
      ended_.hung = !ended_.stopped && seconds_ + seconds_since(start) > command_.options.seconds;
      if (ended_.stopped || ended_.hung) kill();
    }
    seconds_ += seconds_since(start);
    ++ended_.turns;
    return !over_;
  }

  Ended ended() {
    if (!over_) ended_.stopped = true;
    kill();
    if (child_ < 0) return ended_;
    if (WIFEXITED(status_)) ended_.code = WEXITSTATUS(status_);
    if (WIFSIGNALED(status_)) ended_.signal = WTERMSIG(status_);
    ended_.words = last_words(command_.options.err);
    return ended_;
  }

 private:
  void begin() {
    std::vector<std::string>& argv = command_.argv;
    require(::access(argv.front().c_str(), X_OK) == 0, argv.front(),
            " cannot be run: ", std::strerror(errno), "; give the path of a dsa-bench");
    int ends[2];
    require(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0,
            "no socket for turns could be made: ", std::strerror(errno));
    socket_ = ends[0];
    if (turns_) argv.push_back("--turns=" + std::to_string(ends[1]));
    std::vector<char*> words;
    for (auto& word : argv) words.push_back(word.data());
    words.push_back(nullptr);
    cpu_set_t cores;
    CPU_ZERO(&cores);
    for (const int core : command_.options.cores) CPU_SET(static_cast<size_t>(core), &cores);
    child_ = ::fork();
    if (child_ == 0) become(words.data(), command_.options, cores, ends[1]);
    ::close(ends[1]);
    require(child_ > 0, "no process could be started: ", std::strerror(errno));
    ::setpgid(child_, child_);  // here too: a stop may come before the child has done it
  }

  /// Waits a moment for its sign, or its end.
  bool awaits_turn() {
    pollfd waits{socket_, POLLIN, 0};
    char sign = 0;
    if (::poll(&waits, 1, 20) > 0 && ::recv(socket_, &sign, 1, 0) == 1) return true;
    // Its end of the socket may have gone to a process of its own, or closed before it ended.
    over_ = ::waitpid(child_, &status_, WNOHANG) != 0;  // also if someone else has waited for it
    if (!over_ && (waits.revents & POLLHUP) != 0) ::usleep(1000);
    return false;
  }

  void kill() {
    if (child_ > 0 && !over_) {
      ::kill(-child_, SIGKILL);
      ::kill(child_, SIGKILL);
      ::waitpid(child_, &status_, 0);
    }
    over_ = true;
    if (socket_ >= 0) ::close(socket_);
    socket_ = -1;
  }

  Command command_;
  bool turns_;
  pid_t child_ = -1;
  int socket_ = -1;
  double seconds_ = 0;  ///< of its turns
  bool over_ = false;
  int status_ = 0;
  Ended ended_;
};

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
  Child child({argv, options}, /*turns=*/false);
  child.take_turn();
  return child.ended();
}

std::vector<Ended> run_in_turns(const std::vector<Command>& commands, uint64_t seed) {
  std::mt19937_64 generator(seed);
  std::vector<std::unique_ptr<Child>> children;
  std::vector<Child*> order;
  for (const Command& command : commands) {
    children.push_back(std::make_unique<Child>(command, /*turns=*/true));
    order.push_back(children.back().get());
  }
  while (!order.empty() && !stop_requested()) {
    std::shuffle(order.begin(), order.end(), generator);
    std::vector<Child*> left;
    for (Child* child : order) {
      if (child->take_turn()) left.push_back(child);
    }
    order = std::move(left);
  }
  std::vector<Ended> ended;
  for (const auto& child : children) ended.push_back(child->ended());
  return ended;
}

std::vector<int> cores_of(const std::string& text, int64_t threads) {
  cpu_set_t usable;
  CPU_ZERO(&usable);
  ::sched_getaffinity(0, sizeof usable, &usable);
  if (text.empty()) return cores_for(threads, usable);
  std::vector<int> cores;
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
