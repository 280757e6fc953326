// A record survives the trip through JSON, and what it writes is strict JSON.
#include "harness/record/record.h"

#include <catch2/catch_test_macros.hpp>
#include <nlohmann/json.hpp>

#include <cmath>
#include <limits>

namespace record = dsa::record;

static record::Run sample_run() {
  record::Run run;
  run.id = "20261125T010203";
  run.command = "dsa-bench --lengths 64";
  run.config_json = R"({"train":{"steps":3}})";
  run.variants = {{"dense", "every visible key", "baseline", 0}};
  const record::Quantity loss{"validation_loss", "nats/token", record::Quantity::Better::kLower};
  run.metrics = {{loss, {{"variant", "dense"}, {"L", "64"}},
                  {1.5, std::numeric_limits<double>::quiet_NaN()}}};
  run.series = {{{"step", "1"}, loss, {{"variant", "dense"}}, {1, 2}, {4.0, 3.5}}};
  run.audits = {{"causality", {{"variant", "dense"}}, true, 0, 0, "positions", ""}};
  return run;
}

TEST_CASE("a record read back equals the record written") {
  const std::string text = record::to_json(sample_run());
  const record::Run back = record::from_json(text);
  REQUIRE(record::to_json(back) == text);
  REQUIRE(back.metrics.at(0).quantity.better == record::Quantity::Better::kLower);
  REQUIRE(back.metrics.at(0).samples.at(0) == 1.5);
  REQUIRE(std::isnan(back.metrics.at(0).samples.at(1)));
  REQUIRE(back.variants.at(0).role == "baseline");
}

TEST_CASE("a record holds its configuration as an object and no NaN") {
  const auto json = nlohmann::json::parse(record::to_json(sample_run()));
  REQUIRE(json["config"]["train"]["steps"] == 3);
  REQUIRE(json["metrics"][0]["samples"][1].is_null());
}

TEST_CASE("a record of a newer version is refused, unknown fields are ignored") {
  auto json = nlohmann::json::parse(record::to_json(sample_run()));
  json["colour_of_the_sky"] = "blue";
  REQUIRE(record::from_json(json.dump()).id == "20261125T010203");
  json["version"] = record::kVersion + 1;
  REQUIRE_THROWS(record::from_json(json.dump()));
}

TEST_CASE("failures survive the trip through JSON") {
  const std::vector<record::Failure> failures = {{"train/variant:dsa/L:64", "failed", "loss is not finite", {}}};
  REQUIRE(record::failures_from_json(record::to_json(failures)).at(0).reason == "loss is not finite");
}
