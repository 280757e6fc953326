#include "bench/selection.h"

#include "bench/google.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <set>
#include <sstream>
#include <stdexcept>

namespace dsa::bench {
namespace {

bool allowed(char c) {
  return std::isalnum(static_cast<unsigned char>(c)) != 0 ||
         std::string("_./:-").find(c) != std::string::npos;
}

std::vector<std::string> split(const std::string& text, char separator) {
  std::vector<std::string> parts;
  std::istringstream stream(text);
  for (std::string part; std::getline(stream, part, separator);) parts.push_back(part);
  return parts;
}

/// Takes the names that --benchmark_list_tests prints and no results.
class NamesOnly : public benchmark::BenchmarkReporter {
 public:
  NamesOnly() {
    SetOutputStream(&names);
    SetErrorStream(&complaints);
  }
  bool ReportContext(const Context&) override { return true; }
  void ReportRuns(const std::vector<Run>&) override {}
  std::ostringstream names, complaints;
};

/// Google Benchmark ends the process without a word when it cannot open its file.
void check_writable(const std::vector<std::string>& benchmark_flags) {
  constexpr std::string_view kOut = "--benchmark_out=";
  for (const auto& flag : benchmark_flags) {
    if (!flag.starts_with(kOut)) continue;
    const std::string file = flag.substr(kOut.size());
    require(std::ofstream(file, std::ios::app).good(), "--benchmark_out ", file,
            " cannot be written: ", std::strerror(errno), "; give a file in a folder that exists");
  }
}

}  // namespace

void check_ids(const Rows& rows) {
  std::set<std::string> seen;
  for (const auto& row : rows) {
    if (!std::all_of(row->id.begin(), row->id.end(), allowed)) {
      throw std::logic_error("benchmark name \"" + row->id +
                             "\" has a character outside [A-Za-z0-9_./:-]");
    }
    if (!seen.insert(row->id).second) {
      throw std::logic_error("two benchmarks are called \"" + row->id + "\"");
    }
  }
}

Rows selected(Rows rows, const std::vector<std::string>& select) {
  for (const std::string& term : select) {
    const size_t equals = term.find('=');
    require(equals != std::string::npos && equals > 0 && equals + 1 < term.size(),
            "--select has \"", term,
            "\"; it takes axis=value, as in L=4096 or backend=cpu|reference");
    const std::string axis = term.substr(0, equals);
    const auto values = split(term.substr(equals + 1), '|');
    std::set<std::string> axes;
    for (const auto& row : rows) {
      for (const auto& [name, value] : row->labels) axes.insert(name);
    }
    std::string known;
    for (const auto& name : axes) known += (known.empty() ? "" : ", ") + name;
    require(rows.empty() || axes.contains(axis), "--select has no axis \"", axis, "\"; there are ",
            known);
    std::erase_if(rows, [&](const std::unique_ptr<Row>& row) {
      const auto found = row->labels.find(axis);
      return found == row->labels.end() ||
             std::find(values.begin(), values.end(), found->second) == values.end();
    });
  }
  return rows;
}

Rows rows_of(const RunConfig& config) {
  const auto asks_for = [&](const char* suite) {
    return std::find(config.suites.begin(), config.suites.end(), suite) != config.suites.end();
  };
  Rows rows;
  if (asks_for("kernels")) rows = kernel_rows(config);
  if (asks_for("training")) {
    for (auto& row : training_rows(config)) rows.push_back(std::move(row));
  }
  if (asks_for("anatomy")) {
    for (auto& row : anatomy_rows(config)) rows.push_back(std::move(row));
  }
  check_ids(rows);
  return selected(std::move(rows), config.select);
}

void initialise_google(const CommandLine& line, const RunConfig& config) {
  // Ours first: a flag of the user's comes later and wins.
  std::vector<std::string> words;
  const bool once = config.dry_run || config.profile;
  words.push_back("--benchmark_repetitions=" +
                  std::to_string(once ? 1 : config.kernels.repetitions));
  words.push_back(min_time_flag(config.dry_run ? 1e-6 : config.kernels.min_time));
  if (!config.filter.empty()) words.push_back("--benchmark_filter=" + config.filter);
  words.insert(words.end(), line.benchmark_flags.begin(), line.benchmark_flags.end());
  check_writable(line.benchmark_flags);
  const auto unknown = set_google_flags(std::move(words));
  require(unknown.empty(), "Google Benchmark does not take ", unknown.empty() ? "" : unknown[0],
          "; its flags are --benchmark_filter, _repetitions, _min_time, _list_tests, _out, "
          "_out_format, _format and others");
}

namespace {

/// --kernels.iterations: calls a repetition makes, by id.
std::map<std::string, int64_t> iterations_of(const std::string& file) {
  if (file.empty()) return {};
  std::ifstream in(file);
  require(in.good(), "--kernels.iterations ", file, " cannot be read");
  try {
    return nlohmann::json::parse(in).get<std::map<std::string, int64_t>>();
  } catch (const nlohmann::json::exception& error) {
    throw Error("--kernels.iterations " + file + " is no {\"id\": calls}: " + error.what());
  }
}

}  // namespace

void register_rows(const Rows& rows, Session& session) {
  const auto iterations = iterations_of(session.config.kernels.iterations);
  for (const auto& owned : rows) {
    Row* row = owned.get();
    auto* registered = benchmark::RegisterBenchmark(
        row->id.c_str(), [row, &session](benchmark::State& state) { row->run(state, session); });
    if (row->seeds > 0) {
      registered->Iterations(1)->Repetitions(static_cast<int>(row->seeds))->UseManualTime();
      registered->Unit(benchmark::kMillisecond);
    } else {
      registered->UseRealTime()->Unit(benchmark::kMicrosecond);
      const auto frozen = iterations.find(row->id);
      if (frozen != iterations.end() && frozen->second > 0) registered->Iterations(frozen->second);
    }
  }
}

std::vector<Row*> matching(const Rows& rows) {
  // Google Benchmark itself decides, so that a filter means here what it means to it.
  set_google_flags({"--benchmark_list_tests=true"});
  NamesOnly reporter;
  benchmark::RunSpecifiedBenchmarks(&reporter);
  set_google_flags({"--benchmark_list_tests=false"});
  const std::string complaint = reporter.complaints.str();
  constexpr std::string_view kBadRegex = "Could not compile benchmark re: ";
  const size_t prefix = complaint.find(kBadRegex);
  if (prefix != std::string::npos) {
    const size_t why = prefix + kBadRegex.size();
    throw Error("--filter is not a regular expression (" +
                complaint.substr(why, complaint.find('\n', why) - why) +
                "); put \\ before a character that stands for itself");
  }
  std::map<std::string, Row*> by_id;
  for (const auto& row : rows) by_id[row->id] = row.get();
  std::set<Row*> listed;
  for (std::string name : split(reporter.names.str(), '\n')) {
    // A listed name is the id and what Google Benchmark appends: "/real_time", "/iterations:1/...".
    while (!by_id.contains(name) && name.find('/') != std::string::npos)
      name.resize(name.rfind('/'));
    if (const auto row = by_id.find(name); row != by_id.end()) listed.insert(row->second);
  }
  std::vector<Row*> found;
  for (const auto& row : rows) {
    if (listed.contains(row.get())) found.push_back(row.get());
  }
  return found;
}

}  // namespace dsa::bench
