#include "reports/load.h"

#include "reports/gate_report.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <fstream>
#include <sstream>

namespace dsa::report {
namespace fs = std::filesystem;
namespace {

/// "line 3, column 14" of a byte offset.
std::string position(const std::string& text, size_t byte) {
  const size_t end = std::min(byte > 0 ? byte - 1 : 0, text.size());
  const auto stop = text.begin() + static_cast<std::ptrdiff_t>(end);
  const auto line = std::count(text.begin(), stop, '\n') + 1;
  const size_t start = end == 0 ? std::string::npos : text.rfind('\n', end - 1);
  const size_t column = start == std::string::npos ? end + 1 : end - start;
  return "line " + std::to_string(line) + ", column " + std::to_string(column);
}

/// nlohmann's own words without its "[json.exception...] " prefix.
std::string without_prefix(const std::string& what) {
  const size_t close = what.find("] ");
  return what.rfind("[json.exception", 0) == 0 && close != std::string::npos
             ? what.substr(close + 2)
             : what;
}

template <class Parse>
auto parsed(const fs::path& file, const std::string& what, Parse parse) {
  const std::string text = read_file(file);
  try {
    return parse(text);
  } catch (const nlohmann::json::parse_error& error) {
    const bool cut_short = error.byte > text.size();
    throw Error(file.string() + " is not valid JSON: " +
                (cut_short ? "it ends too early, at " : "first mistake at ") +
                position(text, error.byte));
  } catch (const nlohmann::json::exception& error) {
    throw Error(file.string() + " is not " + what + ": " + without_prefix(error.what()));
  } catch (const std::runtime_error& error) {
    throw Error(file.string() + ": " + error.what());
  }
}

void check_is_record(const fs::path& file, const record::Run& run) {
  if (run.id.empty()) {
    throw Error(file.string() + " is not a record: it has no \"id\"; dsa-bench writes record.json");
  }
  for (const record::Series& series : run.series) {
    if (series.xs.size() != series.ys.size()) {
      throw Error(file.string() + ": series " + series.y.name + " has " +
                  std::to_string(series.xs.size()) + " xs and " + std::to_string(series.ys.size()) +
                  " ys; they must be as many");
    }
  }
}

}  // namespace

std::string read_file(const fs::path& file) {
  std::ifstream in(file, std::ios::binary);
  std::ostringstream text;
  // Streaming from an empty file counts as a failure.
  const bool empty = in && in.peek() == std::ifstream::traits_type::eof();
  if (!in || (!empty && !(text << in.rdbuf()))) throw Error("cannot read " + file.string());
  return text.str();
}

void write_file(const fs::path& file, const std::string& text) {
  const fs::path part = file.string() + ".part";
  {
    std::ofstream out(part, std::ios::binary | std::ios::trunc);
    out << text;
    if (!out.flush()) throw Error("cannot write " + part.string() + "; is the folder writable?");
  }
  std::error_code failed;
  fs::rename(part, file, failed);
  if (failed) throw Error("cannot write " + file.string() + ": " + failed.message());
}

LoadedRun load(const fs::path& folder) {
  if (!fs::is_directory(folder)) {
    throw Error(folder.string() +
                " is not a folder; give the folder of a run, e.g. results/<stamp>");
  }
  const fs::path file = folder / "record.json";
  if (!fs::exists(file)) {
    throw Error(file.string() + " does not exist; is " + folder.string() + " the folder of a run?");
  }
  LoadedRun out;
  out.folder = folder;
  out.run = parsed(file, "a record", record::from_json);
  check_is_record(file, out.run);
  const fs::path failures = folder / "failures.json";
  if (fs::exists(failures)) out.failures = parsed(failures, "a record", record::failures_from_json);
  return out;
}

record::GateVerdict load_gate(const fs::path& folder) {
  const fs::path file = folder / "verdict.json";
  if (!fs::exists(file)) {
    throw Error(file.string() + " does not exist; is " + folder.string() +
                " the folder of a gate? dsa-bench gate writes it");
  }
  auto gate = parsed(file, "a gate's verdict", record::gate_from_json);
  if (gate.id.empty()) throw Error(file.string() + " is not a gate's verdict: it has no \"id\"");
  return gate;
}

nlohmann::ordered_json settings_in(const std::string& config_json) {
  auto config = nlohmann::ordered_json::parse(config_json, nullptr, false);
  return config.is_object() ? config : nlohmann::ordered_json::object();
}

nlohmann::ordered_json settings_of(const record::Run& run) {
  return settings_in(run.config_json);
}

fs::path newest_run(const fs::path& results) {
  fs::path newest;
  fs::file_time_type newest_time;
  if (fs::is_directory(results)) {
    for (const auto& entry : fs::directory_iterator(results)) {
      if (!fs::exists(entry.path() / "record.json")) continue;
      const auto time = fs::last_write_time(entry.path() / "record.json");
      if (!newest.empty() && time <= newest_time) continue;
      newest = entry.path();
      newest_time = time;
    }
  }
  if (newest.empty()) {
    throw Error("no run found under " + results.string() +
                "/; run dsa-bench first or name the folder of a run");
  }
  return newest;
}

}  // namespace dsa::report
