#include "bench/gate_log.h"

#include "attention/fields.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cmath>
#include <limits>

namespace dsa::bench {
namespace {

using Json = nlohmann::ordered_json;

/// How a round is timed: rounds of another way do not belong beside it.
constexpr const char* kMethod = "slices in random order";

gate::Arm arm_of(const std::string& name) {
  const auto found = std::find(gate::kArmNames.begin(), gate::kArmNames.end(), name);
  require(found != gate::kArmNames.end(), "gate.jsonl names an arm ", name, ", which no gate has");
  return static_cast<gate::Arm>(found - gate::kArmNames.begin());
}

}  // namespace

GateLog::GateLog(const std::filesystem::path& folder, std::vector<std::string> ids)
    : file_(folder / "gate.jsonl"), ids_(std::move(ids)) {
  lines_ = std::make_unique<JsonLines>(file_);
}

std::vector<PlayedRound> GateLog::earlier() const {
  std::vector<PlayedRound> rounds;
  const auto row_of = [&](const std::string& id) {
    const auto found = std::find(ids_.begin(), ids_.end(), id);
    require(found != ids_.end(), file_.string(), " has a row ", id,
            ", which this gate does not; start a new gate");
    return static_cast<size_t>(found - ids_.begin());
  };
  for (const std::string& line : whole_lines(file_)) {
    const Json in = Json::parse(line, nullptr, false);
    if (!in.is_object() || in.value("type", "") != "round") continue;
    require(in.value("method", "") == kMethod, file_.string(), " was timed in another way (",
            in.value("method", ""), ") than this gate times (", kMethod, "); start a new gate");
    PlayedRound& round = rounds.emplace_back();
    round.seconds = in.value("seconds", 0.0);
    for (size_t arm = 0; arm < round.times.size(); ++arm) {
      round.times[arm].assign(ids_.size(), std::numeric_limits<double>::quiet_NaN());
      const auto of_arm = in["times"].find(gate::kArmNames[arm]);
      if (of_arm == in["times"].end()) continue;
      for (const auto& [id, seconds] : of_arm->items()) round.times[arm][row_of(id)] = seconds;
    }
    for (const Json& one : in["excluded"]) {
      round.excluded.push_back(
          {row_of(one["id"]), arm_of(one["arm"]), one["verdict"], one["reason"]});
    }
  }
  return rounds;
}

void GateLog::add(const PlayedRound& round) {
  Json times = Json::object(), excluded = Json::array();
  for (size_t arm = 0; arm < round.times.size(); ++arm) {
    for (size_t row = 0; row < ids_.size(); ++row) {
      const double seconds = round.times[arm][row];
      if (std::isfinite(seconds)) times[gate::kArmNames[arm]][ids_[row]] = seconds;
    }
  }
  for (const Exclusion& one : round.excluded) {
    excluded.push_back({{"id", ids_[one.row]},
                        {"arm", gate::kArmNames[static_cast<size_t>(one.arm)]},
                        {"verdict", one.verdict},
                        {"reason", one.reason}});
  }
  lines_->write(Json({{"type", "round"},
                      {"method", kMethod},
                      {"seconds", round.seconds},
                      {"times", times},
                      {"excluded", excluded}})
                    .dump());
}

}  // namespace dsa::bench
