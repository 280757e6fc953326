// The sections for a doubter: failures, machine and build, how to run it again, and what
// could make the numbers wrong.
#include "reports/load.h"
#include "reports/report.h"
#include "reports/vocabulary.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cmath>
#include <set>

namespace dsa::report {
namespace {

namespace words = vocabulary;

List facts(const std::map<std::string, std::string>& values) {
  List list;
  for (const auto& [key, value] : values) list.items.push_back(Text(key + ": ") + code(value));
  return list;
}

std::set<std::string> seeds_of(const record::Run& run) {
  std::set<std::string> out;
  for (const record::Series& series : run.series) {
    const std::string seed = label(series.labels, words::kSeed);
    if (!seed.empty()) out.insert(seed);
  }
  return out;
}

/// The smallest and largest number of finite samples among metrics of one quantity.
std::pair<int, int> sample_counts(const record::Run& run, const std::string& quantity) {
  int least = 0, most = 0;
  for (const record::Metric& metric : run.metrics) {
    if (metric.quantity.name != quantity) continue;
    const int n = summarise(metric.samples).n;
    least = most == 0 ? n : std::min(least, n);
    most = std::max(most, n);
  }
  return {least, most};
}

/// Where the keys and queries of kernel rows come from.
std::string inputs_of(const record::Run& run) {
  const auto captured = [](const record::Metric& metric) {
    return label(metric.labels, words::kScores) == words::kCaptured;
  };
  if (std::none_of(run.metrics.begin(), run.metrics.end(), captured))
    return "Inputs are synthetic.";
  return "Inputs of rows with scores = captured come from one small trained model; all others are "
         "synthetic.";
}

/// Where the run was written, as its command named it.
std::string folder_of(const record::Run& run) {
  const auto out = settings_of(run).value("out", Json());
  const std::filesystem::path runs = out.is_string() ? out.get<std::string>() : "results";
  return (runs / run.id).string();
}

bool is_dirty(const record::Run& run) {
  const std::string dirty = label(run.build, "dirty");
  return dirty == "true" || dirty == "yes" || dirty == "1";
}

}  // namespace

std::vector<Block> failure_section(const std::vector<record::Failure>& failures) {
  std::vector<Block> out{{Heading{2, "Failures"}}};
  if (failures.empty()) {
    out.push_back({Paragraph{"Nothing was skipped, failed or invalid."}});
    return out;
  }
  // Hundreds of rows often share one reason ("declines float64"): a row a reason, names folded in.
  struct Group {
    std::string status, reason;
    std::vector<std::string> ids;
  };
  std::vector<Group> groups;
  for (const record::Failure& failure : failures) {
    const auto at = std::find_if(groups.begin(), groups.end(), [&](const Group& g) {
      return g.status == failure.status && g.reason == failure.reason;
    });
    if (at == groups.end()) {
      groups.push_back({failure.status, failure.reason, {failure.id}});
    } else {
      at->ids.push_back(failure.id);
    }
  }
  Table table;
  table.columns = {{"status"}, {"rows", true}, {"reason"}, {"benchmark"}};
  for (const Group& group : groups) {
    Text names = code(group.ids.front());
    if (group.ids.size() > 1) names += " and " + std::to_string(group.ids.size() - 1) + " more";
    table.rows.push_back({group.status, std::to_string(group.ids.size()), group.reason, names});
  }
  out.push_back({table});
  out.push_back({Paragraph{Text("Every one by name: ") + code("failures.json") + "."}});
  return out;
}

std::vector<Block> environment_section(const record::Run& run) {
  std::vector<Block> out{{Heading{2, "Environment"}}};
  if (!run.machine.empty()) {
    out.push_back({Heading{3, "Machine"}});
    out.push_back({facts(run.machine)});
  }
  if (!run.build.empty()) {
    out.push_back({Heading{3, "Build"}});
    out.push_back({facts(run.build)});
  }
  if (run.machine.empty() && run.build.empty()) {
    out.push_back(
        {Paragraph{"The record names neither machine nor build, so nobody can repeat it."}});
  }
  const Json config = settings_of(run);
  if (!config.empty()) {
    out.push_back({Details{"Configuration, every field", {{CodeBlock{config.dump(2)}}}}});
  }
  return out;
}

std::vector<Block> reproduce_section(const LoadedRun& loaded) {
  const record::Run& run = loaded.run;
  std::vector<Block> out{{Heading{2, "How to reproduce"}}};
  out.push_back({CodeBlock{(run.command.empty() ? "(the record names no command)" : run.command) +
                           "\ndsa-report make " + folder_of(run)}});
  List list;
  list.items.push_back("Started " + (run.started.empty() ? std::string("unknown") : run.started) +
                       ", ended " + (run.ended.empty() ? std::string("not") : run.ended) + ".");
  std::string seeds;
  for (const std::string& seed : seeds_of(run)) seeds += (seeds.empty() ? "" : ", ") + seed;
  if (!seeds.empty()) list.items.push_back("Seeds: " + seeds + ".");
  list.items.push_back(Text("Every sample, one line each: ") + code("samples.jsonl") +
                       "; all numbers of this report: " + code("record.json") +
                       "; Google Benchmark's form: " + code("results.json") +
                       "; charts with their data: " + code("charts/*.vl.json") + ".");
  list.items.push_back(
      "A number leads back to its benchmark by its id, which is the same in all these files.");
  out.push_back({list});
  return out;
}

std::vector<Block> threats_section(const LoadedRun& loaded, const Material& material) {
  const record::Run& run = loaded.run;
  List list;
  const auto [least_seeds, seeds] = sample_counts(run, words::kBestLoss);
  if (seeds > 0 && seeds < 6) {
    list.items.push_back(
        "At most " + std::to_string(seeds) + (seeds == 1 ? " seed" : " seeds") +
        " a variant and length: their t intervals trust that seeds differ about normally, which so "
        "few cannot show; below 6 the interval of a time is only the range of what was seen.");
  }
  if (seeds > 0 && least_seeds < seeds) {
    list.items.push_back("Seeds are missing: some variants have " + std::to_string(least_seeds) +
                         ", others " + std::to_string(seeds) +
                         "; their gaps are not all of the same seeds.");
  }
  const auto [least_repetitions, repetitions] = sample_counts(run, words::kTime);
  if (repetitions > 0) {
    list.items.push_back(
        "Kernels: " + std::to_string(least_repetitions) + " to " + std::to_string(repetitions) +
        " repetitions in one process on one machine; another machine, or a busy one, may order "
        "the rows differently. " +
        inputs_of(run));
  }
  if (!material.training.empty()) {
    const bool has_control = material.training.first(words::kControl) != nullptr;
    list.items.push_back(
        "Training: short runs of small models on one text; a gap here need not be the gap of a "
        "large model, and step times carry everything around attention as well.");
    if (!has_control) {
      list.items.push_back(
          "No control ran at equal K (most recent keys, random keys): without one a good result "
          "cannot be told from \"any K keys suffice\".");
    }
  }
  if (!run.reference_series.empty()) {
    list.items.push_back(
        "Published numbers come from other machines, data splits and code; they stand beside "
        "ours to be compared in shape, not in seconds.");
  }
  const std::string unfit = label(run.build, "unfit");
  if (!unfit.empty()) list.items.push_back("This build is not one to be timed: " + unfit + ".");
  if (is_dirty(run))
    list.items.push_back("The build was made from a working tree with uncommitted changes.");
  if (!loaded.failures.empty()) {
    list.items.push_back(
        std::to_string(loaded.failures.size()) +
        " benchmarks gave no result; what is missing may not be missing at random.");
  }
  if (list.items.empty()) return {};
  return {{Heading{2, "Threats to validity"}}, {list}};
}

}  // namespace dsa::report
