// Processes of the gate: of several that time in turns, one runs at a time.
#include "bench/gate_process.h"
#include "bench/gate_round.h"
#include "tests/process.h"
#include "tests/temporary_folder.h"

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_floating_point.hpp>

#include <cmath>
#include <sstream>

using namespace dsa::bench;

namespace {

/// Appends `name` and a number to the file "log" in each of its turns, and ends with `last`.
Command worker(const TemporaryFolder& folder, const std::string& name, int turns,
               const std::string& last = "pass") {
  const std::string script = R"(
import os, socket, sys, time
turn = socket.socket(fileno=int(sys.argv[1].split('=')[1]))
for i in range()" + std::to_string(turns) +
                             R"():
  if i > 0: turn.send(b't'); turn.recv(1)
  with open(')" + folder.path("log") +
                             R"(', 'a') as log: log.write(')" + name + R"(%d ' % i)
)" + last + "\n";
  Command command;
  command.argv = {"/usr/bin/env", "python3", "-c", script};
  command.options.seconds = 20;
  command.options.out = folder.path(name + ".out");
  command.options.err = folder.path(name + ".err");
  return command;
}

}  // namespace

TEST_CASE("processes take turns, one each, in random orders", "[gate]") {
  const TemporaryFolder folder;
  const auto ended = run_in_turns({worker(folder, "a", 12), worker(folder, "b", 12)}, 1);
  CHECK(ended.at(0).code == 0);
  CHECK(ended.at(1).code == 0);
  const std::string log = dsa::tests::text_of(folder.path("log"));
  std::istringstream words(log);
  int a_first = 0;
  for (int turn = 0; turn < 12; ++turn) {
    std::string first, second;
    words >> first >> second;
    CHECK(first.substr(1) == std::to_string(turn));
    CHECK(second.substr(1) == std::to_string(turn));
    CHECK(first[0] != second[0]);
    a_first += first[0] == 'a';
  }
  CHECK(a_first > 0);
  CHECK(a_first < 12);
}

TEST_CASE("a process that ends, crashes or hangs in its turn leaves the turns to the others",
          "[gate]") {
  const TemporaryFolder folder;
  Command hangs = worker(folder, "h", 2, "time.sleep(60)");
  hangs.options.seconds = 2;
  const auto ended =
      run_in_turns({worker(folder, "a", 4), worker(folder, "c", 2, "os.kill(os.getpid(), 11)"),
                    hangs, worker(folder, "s", 1, "sys.exit('tired')")},
                   1);
  CHECK(ended.at(0).code == 0);
  CHECK(ended.at(1).signal == 11);
  CHECK(ended.at(2).hung);
  CHECK(ended.at(3).code == 1);
  CHECK(ended.at(3).words == "tired");
  CHECK(dsa::tests::text_of(folder.path("log")).ends_with("a2 a3 "));
}

TEST_CASE("the ratio of two processes is that of slices side by side", "[gate]") {
  using Catch::Matchers::WithinAbs;
  const auto ratio = [](std::vector<double> base, std::vector<double> arm) {
    return std::exp(log_ratio(base, arm));
  };
  // The machine halves its speed for two slices of both, and for one of a single arm.
  CHECK_THAT(ratio({1, 1, 2, 2, 1}, {1.1, 1.1, 2.2, 2.2, 2.2}), WithinAbs(1.1, 1e-12));
  CHECK_THAT(ratio({1, 1, 1}, {1, 1}), WithinAbs(1, 1e-12));  // one stopped early
  CHECK(std::isnan(log_ratio({}, {1})));
}
