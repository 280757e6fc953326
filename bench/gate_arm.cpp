#include "bench/gate_arm.h"

#include "harness/config_cli.h"
#include "harness/config_text.h"
#include "harness/recorder.h"
#include "harness/sha256.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <elf.h>
#include <fstream>
#include <sstream>

namespace dsa::bench {
namespace {

namespace fs = std::filesystem;

/// The section .text of a 64-bit ELF file; nothing of any other (a script around a binary, say).
std::optional<std::string_view> machine_code(const std::string& file) {
  Elf64_Ehdr head;
  if (file.size() < sizeof head || std::memcmp(file.data(), ELFMAG, SELFMAG) != 0) return {};
  std::memcpy(&head, file.data(), sizeof head);
  if (head.e_ident[EI_CLASS] != ELFCLASS64) return {};
  const auto section = [&](size_t index) {
    Elf64_Shdr out{};
    const size_t at = head.e_shoff + index * sizeof out;
    if (at + sizeof out <= file.size()) std::memcpy(&out, file.data() + at, sizeof out);
    return out;
  };
  const Elf64_Shdr names = section(head.e_shstrndx);
  for (size_t i = 0; i < head.e_shnum; ++i) {
    const Elf64_Shdr one = section(i);
    const size_t name = names.sh_offset + one.sh_name;
    if (name + 6 > file.size() || std::strcmp(file.data() + name, ".text") != 0) continue;
    if (one.sh_offset + one.sh_size > file.size()) break;
    return std::string_view(file).substr(one.sh_offset, one.sh_size);
  }
  return {};
}

/// Google Benchmark lists a row with what it appends: "/real_time", "/iterations:1/...".
std::string without_suffixes(std::string name) {
  for (;;) {
    const size_t slash = name.rfind('/');
    if (slash == std::string::npos) return name;
    const std::string last = name.substr(slash + 1);
    const bool appended = last == "real_time" || last == "manual_time" || last == "process_time" ||
                          last.starts_with("iterations:") || last.starts_with("repeats:") ||
                          last.starts_with("min_time:") || last.starts_with("min_warmup_time:");
    if (!appended) return name;
    name.resize(slash);
  }
}

/// The run's folder below `place`: the only one.
fs::path run_folder(const fs::path& place) {
  std::error_code none;
  for (const auto& entry : fs::directory_iterator(place, none)) {
    if (entry.is_directory()) return entry.path();
  }
  return {};
}

/// Numbers of a part of the row (a stage, a depth of needles) are none of the row's.
bool of_a_part(const record::Metric& metric) {
  return metric.labels.contains("stage") || metric.labels.contains("depth");
}

/// What layers have one each of, such as the recall of their selections, a row has the mean of.
void read_layers(const record::Run& run, RunFacts& facts) {
  std::map<std::pair<std::string, std::string>, std::vector<double>> of_layers;
  for (const record::Metric& metric : run.metrics) {
    const auto id = metric.labels.find("id");
    if (id == metric.labels.end() || metric.samples.empty() || !metric.labels.contains("layer"))
      continue;
    auto& layers = of_layers[{id->second, metric.quantity.name}];
    layers.push_back(median(metric.samples));
    double sum = 0;
    for (const double layer : layers) sum += layer;
    facts[id->second].numbers[metric.quantity.name] = {metric.quantity,
                                                       sum / static_cast<double>(layers.size())};
  }
}

void read_metrics(const record::Run& run, RunFacts& facts) {
  for (const record::Metric& metric : run.metrics) {
    const auto id = metric.labels.find("id");
    if (id == metric.labels.end() || metric.samples.empty() || of_a_part(metric)) continue;
    if (metric.labels.contains("layer")) continue;  // read_layers
    RowFacts& row = facts[id->second];
    row.level = metric.labels.at("level");
    const double middle = median(metric.samples);
    row.numbers.emplace(metric.quantity.name, std::pair{metric.quantity, middle});
    const bool call = metric.quantity.name == "time", step = metric.quantity.name == "step_time";
    if (!call && !step) continue;
    if (call) row.slices = metric.samples;
    // The fastest of a kernel's repetitions: what other processes take is only ever added.
    const double seconds = call ? std::ranges::min(metric.samples) : middle;
    if (std::isfinite(seconds)) row.seconds = seconds;
  }
  for (const record::Series& series : run.series) {
    const auto id = series.labels.find("id");
    if (series.y.name != "step_time" || id == series.labels.end()) continue;
    std::vector<double>& slices = facts[id->second].slices;
    slices.insert(slices.end(), series.ys.begin(), series.ys.end());
  }
}

}  // namespace

Binary binary_of(const std::string& name, const std::string& path) {
  require(fs::exists(path), "--", name, " ", path, " does not exist; give the path of a dsa-bench");
  const std::string file = whole_text(path);
  const std::optional<std::string_view> code = machine_code(file);
  const std::string_view hashed = code.value_or(file);
  Sha256 hash;
  hash.add(hashed.data(), hashed.size());
  return {{name, fs::absolute(path).string(), "", hash.hex()}, 1, code.has_value()};
}

std::vector<std::string> settings_of(const RunConfig& config) {
  std::vector<std::pair<std::string, std::string>> usual;
  const RunConfig defaults;
  for_each_field(defaults, "", [&](const std::string& name, const auto& field, const char*) {
    usual.emplace_back(name, config_text::shown(field));
  });
  std::vector<std::string> flags;
  size_t at = 0;
  for_each_field(config, "", [&](const std::string& name, const auto& field, const char*) {
    const std::string value = config_text::shown(field), &before = usual[at++].second;
    for (const char* own : {"out", "resume", "filter", "select", "quiet", "strict", "goals",
                            "inject-slowdown", "turns", "dry-run", "profile"}) {
      if (name == own) return;
    }
    if (name.starts_with("gate.") || value == before) return;
    flags.push_back("--" + name + "=" + value);
  });
  return flags;
}

ArmRunner::ArmRunner(const RunConfig& config, fs::path folder)
    : settings_(settings_of(config)),
      folder_(std::move(folder)),
      cores_(cores_of(config.gate.cores, config.threads)),
      seconds_(dsa::seconds_of("--gate.time-limit", config.gate.time_limit)) {
  for (const char* flag : {"--quiet", "--kernels.ceilings=false", "--audit.with-training=false"}) {
    settings_.emplace_back(flag);
  }
  if (!config.filter.empty()) selection_.push_back("--filter=" + config.filter);
  for (const auto& term : config.select) selection_.push_back("--select=" + term);
}

ProcessOptions ArmRunner::options(const fs::path& where) const {
  fs::create_directories(where);
  return {cores_, seconds_, where / "stdout", where / "stderr"};
}

std::string ArmRunner::cores() const {
  std::string text;
  for (const int core : cores_) text += (text.empty() ? "" : ",") + std::to_string(core);
  return text.empty() ? "all" : text;
}

std::vector<std::string> ArmRunner::rows(const Binary& binary) const {
  const fs::path where = folder_ / ("list-" + binary.arm.name);
  std::vector<std::string> argv = {binary.arm.path};
  argv.insert(argv.end(), settings_.begin(), settings_.end());
  argv.insert(argv.end(), selection_.begin(), selection_.end());
  // Any commit that knows --turns can be compared: one that does not says so here, at once.
  argv.insert(argv.end(), {"--turns=-1", "--benchmark_list_tests=true"});
  const Ended ended = run_process(argv, options(where));
  if (ended.stopped) return {};
  require(ended.code == 0 || ended.code == 5, binary.arm.name, " (", binary.arm.path,
          ") cannot list its benchmarks: it ", ended.shown());
  std::vector<std::string> names;
  std::ifstream in(where / "stdout");
  for (std::string line; std::getline(in, line);) {
    const std::string name = without_suffixes(line);
    if (name.find('/') != std::string::npos) names.push_back(name);
  }
  fs::remove_all(where);
  return names;
}

Command ArmRunner::command(const Binary& binary, const std::vector<std::string>& rows,
                           const std::vector<std::string>& more, const fs::path& where) const {
  fs::remove_all(where);
  std::string ids;
  for (const auto& row : rows) ids += (ids.empty() ? "" : "|") + row;
  std::vector<std::string> argv = {binary.arm.path};
  argv.insert(argv.end(), settings_.begin(), settings_.end());
  argv.insert(argv.end(), more.begin(), more.end());
  argv.insert(argv.end(), {"--select=id=" + ids, "--out=" + where.string()});
  if (binary.slowdown > 1) {
    argv.push_back("--inject-slowdown=" + std::to_string(binary.slowdown));
  }
  return {argv, options(where)};
}

ArmRunner::Result ArmRunner::result_of(const Ended& ended, const std::string& place) const {
  Result result = left_in(place);
  result.ended = ended;
  return result;
}

ArmRunner::Result ArmRunner::measure(const Binary& binary, const std::vector<std::string>& rows,
                                     const std::vector<std::string>& more, const std::string& place,
                                     double limits) const {
  Command one = command(binary, rows, more, folder_ / place);
  one.options.seconds *= limits;
  Result result = result_of(run_process(one.argv, one.options), place);
  // 1 without a record says that the settings were refused, before anything ran.
  require(result.ended.code != 1 || !result.settings.empty(), binary.arm.name, " (",
          binary.arm.path, ") refuses the settings: ", result.ended.words);
  return result;
}

std::vector<ArmRunner::Result> ArmRunner::measure_in_turns(const std::vector<Entry>& entries,
                                                           const std::vector<std::string>& more,
                                                           const std::string& place,
                                                           uint64_t seed) const {
  std::vector<Command> commands;
  const auto place_of = [&](size_t i) { return place + "/" + std::to_string(i); };
  for (size_t i = 0; i < entries.size(); ++i) {
    commands.push_back(command(*entries[i].binary, {entries[i].row}, more, folder_ / place_of(i)));
  }
  const std::vector<Ended> ended = run_in_turns(commands, seed);
  std::vector<Result> results;
  for (size_t i = 0; i < entries.size(); ++i) {
    results.push_back(result_of(ended[i], place_of(i)));
  }
  return results;
}

ArmRunner::Result ArmRunner::left_in(const std::string& place) const {
  Result result;
  const fs::path folder = run_folder(folder_ / place);
  if (folder.empty() || !fs::exists(folder / "record.json")) return result;
  const record::Run run = record::from_json(whole_text(folder / "record.json"));
  read_metrics(run, result.facts);
  read_layers(run, result.facts);
  result.settings = run.config_json;
  const auto git = run.build.find("git"), dirty = run.build.find("dirty");
  if (git != run.build.end()) {
    result.git = git->second;
    if (dirty != run.build.end() && dirty->second == "true") result.git += "-dirty";
  }
  if (fs::exists(folder / "failures.json")) {
    for (const auto& failure : record::failures_from_json(whole_text(folder / "failures.json"))) {
      RowFacts& row = result.facts[failure.id];
      row.status = failure.status, row.reason = failure.reason;
    }
  }
  for (const std::string& line : whole_lines(folder / "samples.jsonl")) {
    const auto sample = nlohmann::json::parse(line, nullptr, false);
    if (!sample.is_object() || sample.value("type", "") != "sample") continue;
    result.facts[sample.value("id", "")].iterations = sample.value("iterations", int64_t{0});
  }
  return result;
}

}  // namespace dsa::bench
