// The table of goals as data: presets/goals.toml holds one section a goal. What a goal compares is
// said in the words of kernel benchmarks (docs/bench.md); bench/goals.cpp measures it.
#pragma once
#include "attention/fields.h"

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace dsa {

/// `backend` runs `families` one after the other; their time stands against that of one row of a
/// peer, or their FLOP rate against its rate. One comparison a length and distribution.
struct Goal {
  std::string name;       ///< of the section, not a field
  std::string operation;  ///< what a human calls it
  std::vector<std::string> families;
  std::string backend = "cpu";
  std::string against;  ///< backend or yardstick
  std::string against_family;
  std::string measure = "speed";
  std::string pass = "fwd";
  std::string dtype = "f32";
  std::vector<std::string> scores = {"uniform"};
  std::vector<int64_t> lengths;
  int64_t queries = 0;
  int64_t top_k = 512;
  int64_t heads = 8;
  int64_t kv_heads = 0;
  int64_t width = 64;
  int64_t v_width = 0;
  std::string values = "own";
  int64_t index_heads = 4;
  int64_t index_width = 64;
  std::vector<std::string> needs;
  std::vector<double> prototype;
  std::vector<double> goal;
};

template <class C, class V>
  requires is_a<C, Goal>
void visit_fields(C& c, V&& v) {
  auto& [name, operation, families, backend, against, against_family, measure, pass, dtype, scores,
         lengths, queries, top_k, heads, kv_heads, width, v_width, values, index_heads, index_width,
         needs, prototype, goal] = c;
  v("operation", operation, "what is compared, in words");
  v("families", families, "kernel families that run one after the other; their times are added");
  v("backend", backend, "whose kernels these are");
  v("against", against, "backend or yardstick on the other side");
  v("against-family", against_family, "its kernel family; empty = the first of families");
  v("measure", measure,
    "speed (its time over ours), rate (our FLOP rate over its), crossover (length from which on "
    "we are faster)");
  v("pass", pass, "fwd, fwdbwd; indexer and selection have fwd only");
  v("dtype", dtype, "f32, bf16, f64");
  v("scores", scores, "distributions; every one must reach the goal");
  v("lengths", lengths, "tokens L; every one must reach its goal (crossover: the grid)");
  v("queries", queries, "queries T, the last of the tokens; 0 = all");
  v("top-k", top_k, "keys K a query reads");
  v("heads", heads, "query heads H");
  v("kv-heads", kv_heads, "key/value heads G; 0 = as many as H");
  v("width", width, "query/key width D");
  v("v-width", v_width, "value width V; 0 = as D");
  v("values", values, "own, or in-keys: v is the first V columns of k");
  v("index-heads", index_heads, "indexer heads I");
  v("index-width", index_width, "indexer width J");
  v("needs", needs, "instruction sets, as /proc/cpuinfo calls them; else it cannot be measured");
  v("prototype", prototype, "what a prototype reached, as goal; empty = there was none");
  v("goal", goal, "least ratio, one for all lengths or one a length; crossover: largest length");
}

/// Reads a file of goals, in its order.
/// @throws Error in one sentence for an unknown key, an unreadable or a senseless value.
std::vector<Goal> goals_from(const std::filesystem::path& file);

/// Of one value for all lengths or one a length, that of the length at `place`.
inline double value_at(const std::vector<double>& values, size_t place) {
  return values.size() == 1 ? values.front() : values[place];
}
inline double goal_at(const Goal& goal, size_t place) {
  return value_at(goal.goal, place);
}

}  // namespace dsa
