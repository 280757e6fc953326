// Reads a run's folder. Every mistake of a file becomes one sentence with the file's name.
#pragma once
#include "harness/record/record.h"

#include <nlohmann/json_fwd.hpp>

#include <filesystem>
#include <stdexcept>
#include <string>
#include <vector>

namespace dsa::report {

/// A mistake the user can fix: what() is one sentence naming the file and what is wrong with it.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

struct LoadedRun {
  std::filesystem::path folder;
  record::Run run;
  std::vector<record::Failure> failures;  ///< empty when the folder has no failures.json
};

/// @throws Error for a missing or unreadable file, broken JSON (with line and column), a field of
/// the wrong type (with its path) and a record newer than this build.
LoadedRun load(const std::filesystem::path& folder);

/// The configuration of a run or a gate, in its order; empty if there is none that can be read.
nlohmann::ordered_json settings_in(const std::string& config_json);
nlohmann::ordered_json settings_of(const record::Run& run);

/// The run below `results` whose record was written last (a folder may have any name).
/// @throws Error when there is none.
std::filesystem::path newest_run(const std::filesystem::path& results);

/// Written beside `file` and renamed, so a reader never sees half of it. @throws Error.
void write_file(const std::filesystem::path& file, const std::string& text);
std::string read_file(const std::filesystem::path& file);  ///< @throws Error

}  // namespace dsa::report
