// What one run leaves behind. Writers (harness, bench) and readers (reports) share this header, so
// it may include only the standard library: the `reports` target is built without torch on its
// include path and will not compile otherwise. Change a field => bump kVersion and the golden file
// in tests/.
#pragma once
#include <map>
#include <string>
#include <vector>

namespace dsa::record {

inline constexpr int kVersion = 1;

/// Unit and direction travel with every number, so a chart or a comparison needs no table of names.
struct Quantity {
  std::string name;  ///< snake_case, no unit inside: "throughput", "validation_loss", "peak_memory"
  std::string unit;  ///< "tokens/s", "nats/token", "bytes", "s", "1"
  enum class Better { kLower, kHigher, kNeither } better = Better::kNeither;
};

struct Metric {
  Quantity quantity;
  std::map<std::string, std::string> labels;  ///< {"variant":"dsa","backend":"cuda","keys":"8192"}
  std::vector<double> samples;  ///< every repetition, not their mean; non-finite becomes null
};

struct Series {
  Quantity x, y;  ///< e.g. tokens seen -> validation loss
  std::map<std::string, std::string> labels;
  std::vector<double> xs, ys;
};

/// A claim that was checked: "top-k keys hold >= 90 % of dense attention mass".
struct Audit {
  std::string name;
  std::map<std::string, std::string> labels;  ///< {"variant":"dsa"}
  bool passed = false;
  double observed = 0, required = 0;
  std::string unit, detail;
};

/// What a report must know of a variant, so that it knows none by name.
struct VariantInfo {
  std::string name, summary;
  std::string role;     ///< baseline | candidate | control | bound | flawed
  int colour_slot = 0;  ///< fixed colour, shape and dash in every chart
  std::string baseline = {};  ///< the variant it is compared with; empty = the first baseline
};

/// A benchmark that gave no result, and why. Its own file, failures.json; never hidden.
struct Failure {
  std::string id;      ///< benchmark name
  std::string status;  ///< skipped | failed | invalid | interrupted
  std::string reason;  ///< one sentence
  std::map<std::string, std::string> labels;
};

/// What was compared: name and description of a backend row, for the report's legend.
struct BackendInfo {
  std::string name, description, role;  ///< role: ours | peer | oracle
};

/// One run of the suite: all variants, lengths and seeds of one command.
struct Run {
  std::string id;                              ///< "20261125T010203", the folder's name
  std::string started, ended;                  ///< UTC, ISO 8601; ended is empty while running
  std::string command;                         ///< argv, shell-quoted: paste it to run again
  std::string status = "running";              ///< running | done | failed | interrupted
  std::string error;                           ///< the sentence the user saw, if failed
  std::map<std::string, std::string> build;    ///< git, dirty, compiler, flags, torch, flops_model
  std::map<std::string, std::string> machine;  ///< cpu, isa, cores, gpu, driver, clocks
  std::string config_json;                     ///< every field of RunConfig, defaults included
  std::vector<VariantInfo> variants;
  std::vector<BackendInfo> backends;
  std::vector<Metric> metrics;
  std::vector<Series> series;
  std::vector<Series> reference_series;  ///< published numbers to stand beside ours
  std::vector<Audit> audits;
};

std::string to_json(const Run& run);     ///< strict JSON, non-finite numbers become null
Run from_json(const std::string& text);  ///< unknown fields are ignored; a newer kVersion throws
std::string to_json(const std::vector<Failure>& failures);
std::vector<Failure> failures_from_json(const std::string& text);

}  // namespace dsa::record
