// What a gate compares without a clock: names of rows, tolerances, numbers of two runs.
#include "bench/gate_checks.h"

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include <cmath>
#include <limits>

using Catch::Matchers::ContainsSubstring;

TEST_CASE("a row has one name in each binary", "[gate]") {
  using dsa::bench::paired_rows;
  CHECK(paired_rows({"a", "b"}, {"b", "c"}, {"a=c"}).size() == 2);
  CHECK(paired_rows({"a", "b"}, {"b", "a"}, {"a=b", "b=a"}).size() == 2);
  const auto refused = [](const std::vector<std::string>& renamed, const std::string& why) {
    CHECK_THROWS_WITH(paired_rows({"a", "b"}, {"b", "c"}, renamed), ContainsSubstring(why));
  };
  refused({"a=b"}, "base has it too");
  refused({"a=c", "b=c"}, "to two rows of base");
  refused({"a=c", "a=b"}, "names a twice");
  refused({"a=d"}, "head does not have");
}

TEST_CASE("a tolerance is a share, an amount, or both", "[gate]") {
  dsa::GateConfig config;
  config.tolerances = {"flops=1%", "recall=0.005", "peak_memory=10%+2e6"};
  const auto all = dsa::tolerances_of(config);
  REQUIRE(all.size() == 3);
  CHECK((all[0].share == 0.01 && all[0].amount == 0));
  CHECK((all[1].share == 0 && all[1].amount == 0.005));
  CHECK((all[2].share == 0.1 && all[2].amount == 2e6));
  dsa::bench::RowFacts base, head;
  const dsa::record::Quantity bytes{"peak_memory", "bytes", dsa::record::Quantity::Better::kLower};
  base.numbers["peak_memory"] = {bytes, 1e7};
  const auto verdict = [&](double peak) {
    head.numbers["peak_memory"] = {bytes, peak};
    return dsa::bench::checks_of(base, head, {all[2]}).at(0).verdict;
  };
  CHECK(verdict(1.29e7) == "same");
  CHECK(verdict(1.31e7) == "worse");
}

TEST_CASE("numbers without a clock are judged in their direction", "[gate]") {
  using dsa::bench::RowFacts;
  using Better = dsa::record::Quantity::Better;
  const auto facts = [](double flops, double recall, double loss) {
    RowFacts row;
    row.numbers["flops"] = {{"flops", "FLOP", Better::kNeither}, flops};
    row.numbers["recall"] = {{"recall", "1", Better::kHigher}, recall};
    row.numbers["loss"] = {{"loss", "nats/token", Better::kLower}, loss};
    return row;
  };
  const std::vector<dsa::Tolerance> rules = {
      {"flops", 0, 0}, {"recall", 0, 0.005}, {"loss", 0.001, 0}, {"absent", 0, 0}};
  const auto verdicts = [&](const RowFacts& head) {
    std::string all;
    for (const auto& check : dsa::bench::checks_of(facts(100, 0.9, 2), head, rules))
      all += check.verdict + " ";
    return all;
  };
  CHECK(verdicts(facts(100, 0.9, 2)) == "same same same ");
  CHECK(verdicts(facts(101, 0.896, 2.0019)) == "worse same same ");
  CHECK(verdicts(facts(99, 0.89, 2.01)) == "better worse worse ");
  RowFacts lost = facts(100, 0.9, 2);
  lost.numbers.erase("recall");
  CHECK(verdicts(lost) == "same worse same ");
  CHECK(verdicts(facts(100, 0.95, 1.9)) == "same better better ");
  CHECK(verdicts(facts(100, 0.9, std::numeric_limits<double>::quiet_NaN())) == "same same worse ");
}
