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
  CHECK(ended.at(0).turns == 4);
  CHECK(ended.at(1).signal == 11);
  CHECK(ended.at(2).hung);
  CHECK(ended.at(3).code == 1);
  CHECK(ended.at(3).words == "tired");
  CHECK(dsa::tests::text_of(folder.path("log")).ends_with("a2 a3 "));
}

TEST_CASE("a row that trains takes a turn for each step, and its steps are its slices", "[gate]") {
  const dsa::tests::Bench bench;
  constexpr int64_t kSteps = 6;
  dsa::RunConfig config;
  config.suites = {"training"}, config.variants = {"dense"}, config.lengths = {16};
  config.threads = 1;
  config.train.steps = kSteps, config.train.batch = 2, config.train.warmup_steps = 1;
  config.train.evaluate_every = 0, config.train.quality_windows = 0;
  config.attention.d_model = 16, config.attention.n_heads = 2, config.attention.n_kv_heads = 2;
  config.attention.head_width = 8, config.model.n_layers = 1, config.model.expert_width = 8;
  config.data.path = (bench.root / "text.txt").string();
  const ArmRunner runner(config, bench.root / "gate");
  const Binary binary = binary_of("base", DSA_BENCH);
  const auto rows = runner.rows(binary);
  REQUIRE(rows.size() == 1);
  for (const auto& result :
       runner.measure_in_turns({{&binary, rows[0]}, {&binary, rows[0]}}, {}, "round", 1)) {
    INFO(result.ended.shown());
    REQUIRE(result.ended.code == 0);
    CHECK(result.ended.turns == kSteps + 1);  // the first sets up, and ends where a step begins
    CHECK(result.facts.at(rows[0]).slices.size() == kSteps);
  }
}

TEST_CASE("processes are pinned to a core for each of their threads", "[gate]") {
  const TemporaryFolder folder;
  const auto usable = [&](int64_t threads) {
    Command says = worker(folder, "s", 1, "print(len(os.sched_getaffinity(0)))");
    says.options.cores = cores_of("", threads);
    CHECK(run_in_turns({says}, 1).at(0).code == 0);
    return std::stoi(dsa::tests::text_of(says.options.out));
  };
  const int as_torch_likes = usable(0);
  CHECK(usable(1 << 20) == as_torch_likes);
  CHECK(usable(1) == 1);
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
