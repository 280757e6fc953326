#include "harness/goals.h"

#include "attention/yardstick.h"
#include "harness/config_text.h"
#include "harness/run_config.h"

#include <CLI/CLI.hpp>

#include <algorithm>
#include <fstream>

namespace dsa {
namespace {

using Words = std::vector<std::string>;

bool one_of(const std::string& word, const Words& known) {
  return std::find(known.begin(), known.end(), word) != known.end();
}

void set(Goal& goal, const std::string& key, const Words& words, const std::string& where) {
  bool known = false;
  std::string keys;
  visit_fields(goal, [&](const char* name, auto& field, const char*) {
    keys += (keys.empty() ? "" : ", ") + std::string(name);
    if (key != name) return;
    known = true;
    require(!words.empty(), where, " ", key, " has no value; give one");
    config_text::read(where + " " + key, words, field);
  });
  require(known, where, " sets \"", key, "\", which is no field of a goal; there are ", keys);
}

void require_sense(Goal& goal, const std::string& where) {
  require(!goal.operation.empty(), where, " has no operation; say in words what is compared");
  require(!goal.families.empty(), where, " has no families; name at least one kernel family");
  if (goal.against_family.empty()) goal.against_family = goal.families.front();
  for (const Words& names : {goal.families, Words{goal.against_family}}) {
    for (const auto& family : names)
      require(one_of(family, kernel_families()), where, " knows no family \"", family,
              "\"; `dsa-bench list` names them");
  }
  for (const auto& name : {goal.backend, goal.against}) {
    if (yardstick(name) == nullptr) backend(name);
  }
  require(one_of(goal.measure, {"speed", "rate", "crossover"}), where, " measure is \"",
          goal.measure, "\"; it takes speed, rate or crossover");
  require(one_of(goal.pass, {"fwd", "fwdbwd"}), where, " pass is \"", goal.pass,
          "\"; it takes fwd or fwdbwd");
  require(one_of(goal.dtype, {"f32", "bf16", "f64"}), where, " dtype is \"", goal.dtype,
          "\"; it takes f32, bf16 or f64");
  require(one_of(goal.values, {"own", "in-keys"}), where, " values is \"", goal.values,
          "\"; it takes own or in-keys");
  require(goal.values == "own" || goal.v_width <= goal.width, where, " v-width is ", goal.v_width,
          "; with values in-keys it must be at most width ", goal.width);
  require(!goal.lengths.empty() && !goal.scores.empty() && !goal.goal.empty(), where,
          " needs lengths, scores and goal; none may be empty");
  const bool crossover = goal.measure == "crossover";
  for (const auto& [what, values] : {std::pair{"goal", goal.goal}, {"prototype", goal.prototype}}) {
    const bool fits = values.size() <= 1 || (!crossover && values.size() == goal.lengths.size());
    require(fits, where, " has ", values.size(), " values of ", what, " for ", goal.lengths.size(),
            " lengths; give one for all, or one a length");
    for (const double value : values)
      require(value > 0, where, " ", what, " is ", value, "; it must be more than 0");
  }
  require(!crossover || (goal.lengths.size() >= 2 &&
                         std::is_sorted(goal.lengths.begin(), goal.lengths.end())),
          where, " looks for a crossover; give two or more lengths, ascending");
  for (const int64_t size : {goal.top_k, goal.heads, goal.width, goal.index_heads, goal.index_width,
                             *std::min_element(goal.lengths.begin(), goal.lengths.end())})
    require(size >= 1, where, " has a size of ", size, "; all must be at least 1");
}

}  // namespace

std::vector<Goal> goals_from(const std::filesystem::path& file) {
  std::ifstream in(file);
  require(in.good(), "cannot read the goals in ", file.string(),
          "; give the file with --goals (the project's is presets/goals.toml)");
  std::vector<Goal> goals;
  std::vector<CLI::ConfigItem> items;
  try {
    items = CLI::ConfigTOML().from_config(in);
  } catch (const CLI::ParseError& error) {
    throw Error(file.string() + " cannot be read: " + error.what());
  }
  for (const CLI::ConfigItem& item : items) {
    if (item.name == "++" || item.name == "--") continue;
    require(item.parents.size() == 1, file.string(), " sets \"", item.name,
            "\" outside a section; a goal is a section [name]");
    const std::string& name = item.parents.front();
    const auto found = std::find_if(goals.begin(), goals.end(),
                                    [&](const Goal& goal) { return goal.name == name; });
    Goal& goal = found == goals.end() ? goals.emplace_back() : *found;
    goal.name = name;
    set(goal, item.name, item.inputs, file.string() + " [" + name + "]");
  }
  require(!goals.empty(), file.string(), " holds no goal; a goal is a section [name]");
  for (Goal& goal : goals) require_sense(goal, file.string() + " [" + goal.name + "]");
  return goals;
}

}  // namespace dsa
