// From field lists to the command line, the TOML file and JSON: defaults < file < flags.
#pragma once
#include "harness/run_config.h"

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace dsa {

struct CommandLine {
  RunConfig config;
  std::string subcommand = "run";            ///< run | list | goals | steps | audit | gate
  std::vector<std::string> benchmark_flags;  ///< --benchmark_*, untouched: Google Benchmark's
  std::string gate_flag;                     ///< the first that sets a field of `gate`, or empty
  std::optional<std::string> help;           ///< the text of --help, if it was asked for
};

/// Field values only: check(RunConfig) is the caller's. `argv[0]` is not looked at.
/// With --resume the fields of that run's record.json are the defaults.
/// @throws Error in one sentence for unknown flags, unknown keys of the file and unreadable values.
CommandLine parse_command_line(const std::vector<std::string>& argv);

/// Every field, nested as the structs are.
std::string to_json(const RunConfig& config);
/// Fields missing in `json` keep their defaults. @throws Error for a field of another type.
RunConfig run_config_from_json(const std::string& json);

/// The configuration of the run in `folder`. @throws Error if there is none to read.
RunConfig recorded_config(const std::filesystem::path& folder);

/// `train.steps is 3 there and 5 here`: the first field that differs, or nothing. Where a run writes
/// (out, resume) and how it talks (quiet, strict) are not compared.
std::optional<std::string> first_difference(const RunConfig& there, const RunConfig& here);

/// Calls f("train.steps", field, help) for every field, those of nested structs included.
template <class C, class F>
void for_each_field(C& config, const std::string& prefix, F&& f) {
  visit_fields(config, [&](const char* name, auto& field, const char* help) {
    using T = std::remove_cvref_t<decltype(field)>;
    if constexpr (requires { visit_fields(field, [](auto&&...) {}); }) {
      for_each_field(field, prefix + name + ".", f);
    } else {
      static_assert(!std::is_pointer_v<T>, "fields own their values");
      f(prefix + name, field, help);
    }
  });
}

}  // namespace dsa
