// The log of one training run: what a resume reads back.
#include "bench/metrics_log.h"

#include "tests/temporary_folder.h"

#include <catch2/catch_test_macros.hpp>

#include <cmath>
#include <csignal>
#include <limits>
#include <sys/resource.h>

using dsa::Evaluation;
using dsa::StepResult;
using dsa::bench::MetricsLog;

namespace {

/// Files of this process can grow to `bytes` and no further, as on a full disk.
class FullDisk {
 public:
  explicit FullDisk(rlim_t bytes) : handler_(std::signal(SIGXFSZ, SIG_IGN)) {
    ::getrlimit(RLIMIT_FSIZE, &before_);
    const rlimit small{bytes, before_.rlim_max};
    ::setrlimit(RLIMIT_FSIZE, &small);
  }
  ~FullDisk() {
    ::setrlimit(RLIMIT_FSIZE, &before_);
    std::signal(SIGXFSZ, handler_);
  }
  FullDisk(const FullDisk&) = delete;
  FullDisk& operator=(const FullDisk&) = delete;

 private:
  rlimit before_{};
  void (*handler_)(int);
};

StepResult step(int64_t number) {
  StepResult result;
  result.step = number;
  result.loss = 0.5 * static_cast<double>(number);
  return result;
}

}  // namespace

TEST_CASE("a resume that ends while it cuts the log loses no earlier step", "[training]") {
  const TemporaryFolder folder;
  const auto file = folder.path("dsa-seed1.metrics.jsonl");
  {
    MetricsLog log(file);
    for (int64_t number = 1; number <= 9; ++number) log.add(step(number));
  }
  MetricsLog resumed(file);
  {
    const FullDisk full(std::filesystem::file_size(file) / 2);
    CHECK_THROWS_AS(resumed.add(step(9)), dsa::Error);
  }
  CHECK(MetricsLog(file).last_step() == 9);
  MetricsLog(file).add(step(8));
  CHECK(MetricsLog(file).steps().size() == 8);
}

TEST_CASE("a resume keeps an evaluation made before the first step", "[training]") {
  const TemporaryFolder folder;
  const auto file = folder.path("dsa-seed1.metrics.jsonl");
  MetricsLog(file).add(Evaluation{});
  MetricsLog(file).add(step(1));
  const MetricsLog again(file);
  CHECK(again.evaluations().size() == 1);
  CHECK(again.steps().size() == 1);
}

TEST_CASE("an evaluation without a finite loss can be read back", "[training]") {
  const TemporaryFolder folder;
  const auto file = folder.path("dense-seed1.metrics.jsonl");
  Evaluation evaluation;
  evaluation.step = 0;
  evaluation.loss = std::numeric_limits<double>::infinity();
  evaluation.loss_by_position = {2.5, std::numeric_limits<double>::quiet_NaN()};
  MetricsLog(file).add(evaluation);
  const MetricsLog again(file);
  REQUIRE(again.evaluations().size() == 1);
  CHECK(std::isnan(again.evaluations()[0].loss));
  REQUIRE(again.evaluations()[0].loss_by_position.size() == 2);
  CHECK(again.evaluations()[0].loss_by_position[0] == 2.5);
  CHECK(std::isnan(again.evaluations()[0].loss_by_position[1]));
}
