// The log of one training run: what a resume reads back.
#include "bench/metrics_log.h"

#include "tests/temporary_folder.h"

#include <catch2/catch_test_macros.hpp>

#include <cmath>
#include <limits>

using dsa::Evaluation;
using dsa::bench::MetricsLog;

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
