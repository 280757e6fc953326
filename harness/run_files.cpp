#include "harness/run_files.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cmath>

namespace dsa {
namespace {

using Json = nlohmann::ordered_json;

std::string dumped(const Json& json) {
  return json.dump(1, ' ', false, Json::error_handler_t::replace) + "\n";
}

Json context_json(const record::Run& run, const MachineContext& c) {
  Json out = {{"date", c.date}, {"host_name", c.host}, {"executable", c.executable}};
  out["num_cpus"] = c.cpus;
  if (c.mhz > 0) out["mhz_per_cpu"] = std::lround(c.mhz);
  if (c.scaling) out["cpu_scaling_enabled"] = *c.scaling;
  out["caches"] = Json::array();
  for (const auto& cache : c.caches) {
    out["caches"].push_back({{"type", cache.type},
                             {"level", cache.level},
                             {"size", cache.size},
                             {"num_sharing", cache.sharing}});
  }
  out["load_avg"] = c.load;
  out["library_build_type"] = c.build_type;
  out["json_schema_version"] = 1;
  out["dsa_run"] = run.id;
  out["dsa_command"] = run.command;
  for (const auto& [key, value] : run.build) out["dsa_build_" + key] = value;
  for (const auto& [key, value] : run.machine) out["dsa_machine_" + key] = value;
  return out;
}

std::string family_of(const std::string& id) {
  return id.substr(0, id.find('/'));
}

/// Place of every id: of its family among families, and within its family.
std::map<std::string, std::pair<int, int>> places(const std::vector<Sample>& samples) {
  std::map<std::string, std::pair<int, int>> place;
  std::vector<std::string> families;
  std::map<std::string, int> members;
  for (const Sample& sample : samples) {
    if (place.contains(sample.id)) continue;
    const std::string family = family_of(sample.id);
    auto found = std::find(families.begin(), families.end(), family);
    if (found == families.end()) found = families.insert(families.end(), family);
    place[sample.id] = {static_cast<int>(found - families.begin()), members[family]++};
  }
  return place;
}

Json row_json(const Sample& sample, std::pair<int, int> place, int64_t repetitions, int64_t index) {
  // One unit per level, so that no tool has to guess: microseconds for calls, milliseconds for steps.
  const bool training = sample.level == "training";
  const double units = training ? 1e3 : 1e6;
  Json row = {{"name", sample.id},
              {"family_index", place.first},
              {"per_family_instance_index", place.second},
              {"run_name", sample.id},
              {"run_type", "iteration"},
              {"repetitions", repetitions},
              {"repetition_index", index},
              {"threads", 1},
              {"iterations", sample.iterations},
              {"real_time", sample.seconds * units},
              {"cpu_time", sample.cpu_seconds * units},
              {"time_unit", training ? "ms" : "us"}};
  for (const auto& [name, value] : sample.values) {
    if (std::isfinite(value)) row[name] = value;
  }
  if (!sample.label.empty()) row["label"] = sample.label;
  return row;
}

Sample median_of(const std::vector<const Sample*>& samples) {
  std::vector<double> seconds, cpu;
  for (const Sample* sample : samples) {
    seconds.push_back(sample->seconds);
    cpu.push_back(sample->cpu_seconds);
  }
  Sample row = *samples.front();
  row.seconds = median(seconds);
  row.cpu_seconds = median(cpu);
  for (auto& [name, value] : row.values) {
    std::vector<double> all;
    for (const Sample* sample : samples) {
      if (const auto found = sample->values.find(name); found != sample->values.end()) {
        all.push_back(found->second);
      }
    }
    value = median(all);
  }
  return row;
}

}  // namespace

bool reserved_counter(const std::string& name) {
  static const char* const kReserved[] = {"name",
                                          "family_index",
                                          "per_family_instance_index",
                                          "run_name",
                                          "run_type",
                                          "repetitions",
                                          "threads",
                                          "repetition_index",
                                          "iterations",
                                          "real_time",
                                          "cpu_time",
                                          "time_unit",
                                          "label",
                                          "error_occurred",
                                          "error_message",
                                          "skipped",
                                          "skip_message",
                                          "aggregate_name",
                                          "aggregate_unit",
                                          "big_o",
                                          "rms",
                                          "cpu_coefficient",
                                          "real_coefficient",
                                          "allocs_per_iter",
                                          "max_bytes_used",
                                          "total_allocated_bytes",
                                          "net_heap_growth"};
  return std::find(std::begin(kReserved), std::end(kReserved), name) != std::end(kReserved);
}

std::string google_json(const record::Run& run, const MachineContext& context,
                        const std::vector<Sample>& samples, bool medians_only) {
  Json rows = Json::array();
  const auto place = places(samples);
  std::vector<std::string> order;
  std::map<std::string, std::vector<const Sample*>> by_id;
  for (const Sample& sample : samples) {
    // A time of zero is no measurement; tools divide by it.
    if (!(sample.seconds > 0) || !std::isfinite(sample.seconds)) continue;
    if (!by_id.contains(sample.id)) order.push_back(sample.id);
    by_id[sample.id].push_back(&sample);
  }
  for (const std::string& id : order) {
    const auto& group = by_id[id];
    const auto count = static_cast<int64_t>(group.size());
    if (medians_only) {
      rows.push_back(row_json(median_of(group), place.at(id), count, 0));
      continue;
    }
    for (int64_t i = 0; i < count; ++i) {
      rows.push_back(row_json(*group[static_cast<size_t>(i)], place.at(id), count, i));
    }
  }
  return dumped({{"context", context_json(run, context)}, {"benchmarks", rows}});
}

std::string summary_json(const record::Run& run) {
  static const std::map<std::string, const char*> kKeys = {
      {"best_validation_loss", "best_val_loss"},
      {"best_accuracy", "best_accuracy"},
      {"step_time", "seconds_per_step"}};
  Json out = Json::object();
  for (const auto& metric : run.metrics) {
    const auto key = kKeys.find(metric.quantity.name);
    const auto layer = metric.labels.find("layer");
    const auto level = metric.labels.find("level");
    if (level == metric.labels.end() || level->second != "training") continue;
    if (key == kKeys.end() && layer == metric.labels.end()) continue;
    std::vector<double> finite;
    for (const double value : metric.samples) {
      if (std::isfinite(value)) finite.push_back(value);
    }
    const Json found = finite.empty() ? Json(nullptr) : Json(median(finite));
    std::string row = metric.labels.at("variant");
    const auto top_k = metric.labels.find("K");
    if (metric.labels.contains("task") && top_k != metric.labels.end()) {
      row += "/K:" + top_k->second;
    }
    Json& entry = out[metric.labels.at("L")][row];
    if (layer != metric.labels.end()) {
      // A list by layer of each number of the selection: "selection_recall": [0.75, 0.5].
      entry[metric.quantity.name][std::stoul(layer->second)] = found;
      continue;
    }
    entry["seeds"] = metric.samples.size();
    entry[key->second] = found;
  }
  return dumped(out);
}

}  // namespace dsa
