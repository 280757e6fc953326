// The folder of one run: samples.jsonl as things happen, and record.json with its companions after
// every benchmark. A kill at any moment leaves every flushed line readable and status "running".
// Formats: docs/records.md and docs/bench.md.
#pragma once
#include "harness/record/record.h"

#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <optional>
#include <set>

namespace dsa {

/// One timed repetition of a kernel row, or one seed of a training row: one line of samples.jsonl.
struct Sample {
  std::string id, level;   ///< level: kernel | training
  int64_t repetition = 0;  ///< kernel: 0, 1, ...; training: the seed's place in --seeds
  int64_t iterations = 1;  ///< calls in the repetition
  double seconds = 0;      ///< of one call, or the median step
  double cpu_seconds = 0;  ///< of all threads
  std::optional<uint64_t> seed;
  std::string label;                     ///< "profiled" or empty
  std::map<std::string, double> values;  ///< counters; names of Google Benchmark's own are refused
};

/// A file of JSON lines that is flushed after each.
class JsonLines {
 public:
  /// Appends; a line that a crash cut off is closed first. @throws Error if it cannot be written.
  explicit JsonLines(const std::filesystem::path& file);
  void write(const std::string& line);

 private:
  struct Close {
    void operator()(std::FILE* file) const { std::fclose(file); }
  };
  std::filesystem::path path_;
  std::unique_ptr<std::FILE, Close> file_;
};

/// Makes `out`/`id`, or with -2, -3, ... behind it, which `id` then has. @throws Error if it cannot.
std::filesystem::path make_folder(const std::filesystem::path& out, std::string& id);

std::string whole_text(const std::filesystem::path& file);  ///< @throws Error naming the file

/// The whole lines of a file of JSON lines; what a crash cut off is left out.
std::vector<std::string> whole_lines(const std::filesystem::path& file);

/// Writes a temporary file, syncs it and renames it. @throws Error naming the file.
void write_atomically(const std::filesystem::path& file, const std::string& text);

/// Google Benchmark's `context` object of results.json.
struct MachineContext {
  struct Cache {
    std::string type;
    int level = 0;
    int64_t size = 0;
    int sharing = 0;
  };
  std::string date, host, executable, build_type;
  int64_t cpus = 0;
  double mhz = 0;
  std::optional<bool> scaling;
  std::vector<Cache> caches;
  std::vector<double> load;
};

class Recorder {
 public:
  /// Makes `out`/<run.id> (id-2 if taken). @throws Error if that cannot be written.
  Recorder(const std::filesystem::path& out, record::Run run, MachineContext context);
  /// Continues the run in `folder`. @throws Error if it is none.
  Recorder(const std::filesystem::path& folder, MachineContext context);

  const std::filesystem::path& folder() const { return folder_; }
  record::Run& run() { return run_; }
  const std::vector<record::Failure>& failures() const { return failures_; }

  /// Has metric `quantity` of benchmark `id` been recorded (before, when resumed)?
  const record::Metric* metric(const std::string& id, const std::string& quantity) const;

  void add(const Sample& sample);          ///< a line at once
  void retract(const std::string& id);     ///< its samples were found wrong (failed gate)
  void put(const record::Metric& metric);  ///< replaces the one of the same quantity and labels
  void put(const record::Series& series);
  void put(const record::Failure& failure);  ///< replaces the one of the same id and labels
  /// Drops those of `id`; with a status, only those of that status.
  void forget_failures(const std::string& id, const std::string& status = "");
  void write();  ///< record.json and all companions, each atomically
  /// Writes everything once more and the line {"type":"end"}. status: done | failed | interrupted.
  void finish(const std::string& status, const std::string& error = "");

 private:
  void load_samples();
  std::filesystem::path folder_;
  record::Run run_;
  MachineContext context_;
  std::vector<record::Failure> failures_;
  std::vector<Sample> samples_;
  std::unique_ptr<JsonLines> lines_;
};

std::string utc_now();                  ///< 2026-11-25T01:02:03Z
std::string stamp_of(std::string utc);  ///< 20261125T010203
double median(std::vector<double> values);

}  // namespace dsa
