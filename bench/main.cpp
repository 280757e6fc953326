// dsa-bench: reads the command line, runs the command, turns what went wrong into one sentence and an
// exit code.
#include "attention/torch_start.h"
#include "bench/commands.h"
#include "bench/session.h"
#include "harness/memory.h"

#include <cstdio>

namespace {

std::string quoted(const std::string& word) {
  const bool plain =
      !word.empty() &&
      word.find_first_not_of(
          "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./:=,+-") ==
          std::string::npos;
  if (plain) return word;
  std::string out = "'";
  for (const char c : word) out += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return out + "'";
}

int command(const std::vector<std::string>& argv) {
  const dsa::CommandLine line = dsa::parse_command_line(argv);
  if (line.help) {
    std::printf("%s\n", line.help->c_str());
    return dsa::bench::kFine;
  }
  // A file may hold them all the same: presets/gate.toml serves `run` as well.
  dsa::require(line.gate_flag.empty() || line.subcommand == "gate", line.gate_flag,
               " is for `dsa-bench gate`; `dsa-bench ", line.subcommand,
               "` would ignore it, so leave it out");
  if (line.subcommand == "list") return dsa::bench::list(line);
  if (line.subcommand == "steps") return dsa::bench::steps(line);
  std::string text;
  for (const auto& word : argv) text.append(text.empty() ? "" : " ").append(quoted(word));
  if (line.subcommand == "goals") return dsa::bench::goals(line, text);
  if (line.subcommand == "gate") return dsa::bench::gate(line, text);
  if (line.subcommand == "audit") return dsa::bench::audit(line, text);
  return dsa::bench::run(line, text);
}

}  // namespace

int main(int argc, char** argv) {
  dsa::keep_freed_memory();
  dsa::start_vector_math();
  try {
    return command({argv, argv + argc});
  } catch (const dsa::Error& error) {
    std::fprintf(stderr, "dsa-bench: %s\n", error.what());
    return dsa::bench::kUserCanFix;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "dsa-bench: this is a bug of ours: %s\n",
                 dsa::bench::sentence_of(error).c_str());
    return dsa::bench::kBug;
  }
}
