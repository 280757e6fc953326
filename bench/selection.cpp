#include "bench/selection.h"

#include <algorithm>
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

void set_google_flag(const std::string& flag) {
  std::string program = "dsa-bench", argument = flag;
  char* argv[] = {program.data(), argument.data(), nullptr};
  int argc = 2;
  benchmark::Initialize(&argc, argv);
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

void register_rows(const Rows& rows, Session& session) {
  for (const auto& owned : rows) {
    Row* row = owned.get();
    auto* registered = benchmark::RegisterBenchmark(
        row->id.c_str(), [row, &session](benchmark::State& state) { row->run(state, session); });
    if (row->seeds > 0) {
      registered->Iterations(1)->Repetitions(static_cast<int>(row->seeds))->UseManualTime();
      registered->Unit(benchmark::kMillisecond);
    } else {
      registered->UseRealTime()->Unit(benchmark::kMicrosecond);
    }
  }
}

std::vector<Row*> matching(const Rows& rows) {
  // Google Benchmark itself decides, so that a filter means here what it means to it.
  set_google_flag("--benchmark_list_tests=true");
  NamesOnly reporter;
  benchmark::RunSpecifiedBenchmarks(&reporter);
  set_google_flag("--benchmark_list_tests=false");
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
