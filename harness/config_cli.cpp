#include "harness/config_cli.h"

#include "harness/config_text.h"
#include "harness/record/gate.h"
#include "harness/recorder.h"

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <fstream>
#include <sstream>

namespace dsa {
namespace {

using Json = nlohmann::ordered_json;

using config_text::ListOf;
using config_text::shown;

template <class T>
constexpr const char* type_name() {
  if constexpr (ListOf<T>::value) return "LIST";
  if constexpr (std::is_integral_v<T>) return "INT";
  if constexpr (std::is_floating_point_v<T>) return "NUMBER";
  return "TEXT";
}

size_t edit_distance(const std::string& a, const std::string& b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j < row.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t above = row[j];
      row[j] = std::min({above + 1, row[j - 1] + 1, diagonal + (a[i - 1] != b[j - 1])});
      diagonal = above;
    }
  }
  return row.back();
}

/// "; did you mean X" when a field is close enough to be a slip of the finger.
std::string suggestion(const std::string& name) {
  std::string best;
  size_t least = name.size() / 3 + 2;
  RunConfig config;
  for_each_field(config, "", [&](const std::string& field, const auto&, const char*) {
    const size_t distance = edit_distance(name, field);
    if (distance < least) least = distance, best = field;
  });
  return best.empty() ? "" : ", did you mean " + best + "?";
}

/// No byte that text never has: CLI11 drops lines it cannot make sense of, without a word.
bool is_text(const std::string& bytes) {
  return std::none_of(bytes.begin(), bytes.end(), [](char c) {
    const auto byte = static_cast<unsigned char>(c);
    return byte == 0 || byte == 0xC0 || byte == 0xC1 || byte > 0xF4;
  });
}

/// TOML for CLI11, with `[train] steps = 3` and `train.steps = 3` both meaning
/// --train.steps: CLI11 takes sections for subcommands and silently drops the first form.
class FlatToml : public CLI::ConfigTOML {
 public:
  explicit FlatToml(const CLI::App& app) : app_(app) {}

  std::vector<CLI::ConfigItem> from_config(std::istream& input) const override {
    std::stringstream text;
    text << input.rdbuf();
    require(is_text(text.str()), file(), " is no text in UTF-8; give a TOML file");
    std::vector<CLI::ConfigItem> flat;
    for (CLI::ConfigItem item : CLI::ConfigTOML::from_config(text)) {
      if (item.name == "++" || item.name == "--") continue;
      std::string name;
      for (const auto& parent : item.parents) name += parent + ".";
      item.name = name + item.name;
      item.parents.clear();
      require(app_.get_option_no_throw("--" + item.name) != nullptr, file(), " sets \"", item.name,
              "\", which is no field of the configuration", suggestion(item.name),
              suggestion(item.name).empty() ? "; `dsa-bench --help` lists all" : "");
      flat.push_back(std::move(item));
    }
    return flat;
  }

 private:
  std::string file() const { return app_.get_option("--config")->as<std::string>(); }
  const CLI::App& app_;
};

/// CLI11 would turn other words into an exception that names no flag.
std::string reason_not_boolean(const std::string& text) {
  for (const char* word : {"true", "false", "on", "off", "yes", "no", "1", "0"}) {
    if (text == word) return "";
  }
  return "it takes true or false, not \"" + text + "\"";
}

/// What is enough on the command line: --data for --data.path, --base for --gate.base.
std::string short_form(const std::string& name) {
  if (name == "data.path") return ",--data";
  if (name.starts_with("gate.") && name != "gate.seed") return ",--" + name.substr(5);
  return "";
}

template <class T>
void add_option(CLI::App& app, const std::string& name, T& field, const std::string& help) {
  const std::string flags = "--" + name + short_form(name);
  CLI::Option* option = nullptr;
  [[maybe_unused]] const auto read = [&field, name](const CLI::results_t& words) {
    config_text::read("--" + name, words, field);
    return true;
  };
  if constexpr (std::is_same_v<T, bool>) {
    option = app.add_flag_function(
        flags, [&field, name](int64_t n) { field = n > 0; }, help);
    option->check([](const std::string& text) { return reason_not_boolean(text); });
    if (field) option->description(help + " [on; " + flags + "=false turns it off]");
  } else if constexpr (ListOf<T>::value) {
    option = app.add_option(flags, CLI::callback_t(read), help);
    option->expected(1, 1 << 20)->delimiter(',')->allow_extra_args(false);
  } else {
    option = app.add_option(flags, CLI::callback_t(read), help);
    option->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
  }
  if constexpr (!std::is_same_v<T, bool>) {
    option->type_name(type_name<T>());
    option->default_str(shown(field).empty() ? "none" : shown(field));
  }
  const size_t dot = name.find('.');
  option->group(dot == std::string::npos ? "Run" : name.substr(0, dot));
}

/// The first flag of `arguments` that sets a field of `gate`, or nothing.
std::string first_gate_flag(const std::vector<std::string>& arguments) {
  std::string found;
  const RunConfig config;
  for_each_field(config, "", [&](const std::string& name, const auto&, const char*) {
    if (!name.starts_with("gate.")) return;
    for (const std::string& argument : arguments) {
      const std::string flag = argument.substr(0, argument.find('='));
      if (found.empty() && (flag == "--" + name || "," + flag == short_form(name))) found = flag;
    }
  });
  return found;
}

/// --resume has to be known before the other flags are read: it changes their defaults.
std::string resume_folder(const std::vector<std::string>& arguments) {
  for (size_t i = 0; i < arguments.size(); ++i) {
    if (arguments[i] == "--resume" && i + 1 < arguments.size()) return arguments[i + 1];
    if (arguments[i].starts_with("--resume=")) return arguments[i].substr(9);
  }
  return "";
}

Error unknown_argument(const std::vector<std::string>& unknown) {
  const std::string name = unknown.front().substr(0, unknown.front().find('='));
  const std::string close = name.starts_with("--") ? suggestion(name.substr(2)) : "";
  return Error("unknown argument " + name +
               (close.empty() ? "; `dsa-bench --help` lists all" : close));
}

Error one_sentence(std::string message) {
  std::replace(message.begin(), message.end(), '\n', ' ');
  return Error(message);
}

}  // namespace

CommandLine parse_command_line(const std::vector<std::string>& argv) {
  CommandLine line;
  std::vector<std::string> arguments;
  for (size_t i = 1; i < argv.size(); ++i) {
    (argv[i].starts_with("--benchmark_") ? line.benchmark_flags : arguments).push_back(argv[i]);
  }
  const std::string resumed = resume_folder(arguments);
  if (!resumed.empty()) line.config = recorded_config(resumed);

  CLI::App app(
      "dsa-bench: when does DeepSeek Sparse Attention beat dense attention, in speed and quality?\n"
      "--benchmark_* flags are Google Benchmark's and keep their meaning.",
      "dsa-bench");
  app.allow_config_extras(CLI::config_extras_mode::error);
  app.require_subcommand(0, 1);
  const auto command = [&](const char* name, const char* what) {
    app.add_subcommand(name, what)
        ->fallthrough()
        ->footer("Its settings are those of dsa-bench --help, which lists them by group.");
  };
  command("run", "measure and train what is selected (the default)");
  command("goals", "measure what the goals of --goals need, and say which are reached");
  command("steps", "training steps of one variant, as standard input asks for them");
  command("audit", "train briefly and judge whether the experiment may be believed");
  command("gate", "compare two builds of dsa-bench: is --head slower than --base?");
  command("list", "print every benchmark, variant and backend");
  app.set_config("--config", "",
                 "TOML file of these settings: [train] steps = 3 or train.steps = 3");
  app.config_formatter(std::make_shared<FlatToml>(app));
  for_each_field(line.config, "", [&](const std::string& name, auto& field, const char* help) {
    add_option(app, name, field, help);
  });
  try {
    std::vector<std::string> reversed(arguments.rbegin(), arguments.rend());  // as CLI11 asks
    app.parse(std::move(reversed));
  } catch (const CLI::CallForHelp&) {
    line.help = app.help();
  } catch (const CLI::CallForAllHelp&) {
    line.help = app.help();
  } catch (const CLI::ExtrasError&) {
    throw unknown_argument(app.remaining());
  } catch (const CLI::ParseError& error) {
    throw one_sentence(error.what());
  }
  for (const char* command : {"list", "goals", "steps", "audit", "gate"}) {
    if (app.got_subcommand(command)) line.subcommand = command;
  }
  line.gate_flag = first_gate_flag(arguments);
  // The same setting under its other name, recorded so that --resume goes on with the same rows.
  constexpr std::string_view kFilter = "--benchmark_filter=";
  for (const auto& flag : line.benchmark_flags) {
    if (flag.starts_with(kFilter)) line.config.filter = flag.substr(kFilter.size());
  }
  return line;
}

namespace {

template <class C>
Json json_of(const C& config) {
  Json out = Json::object();
  visit_fields(config, [&](const char* name, const auto& field, const char*) {
    if constexpr (requires { visit_fields(field, [](auto&&...) {}); }) {
      out[name] = json_of(field);
    } else {
      out[name] = field;
    }
  });
  return out;
}

template <class C>
void read_json(const Json& in, C& config, const std::string& prefix) {
  visit_fields(config, [&](const char* name, auto& field, const char*) {
    const auto found = in.find(name);
    if (found == in.end()) return;
    if constexpr (requires { visit_fields(field, [](auto&&...) {}); }) {
      read_json(*found, field, prefix + name + ".");
    } else {
      try {
        found->get_to(field);
      } catch (const Json::exception&) {
        throw Error("the record's configuration has " + prefix + name + " = " + found->dump() +
                    ", which this build cannot read");
      }
    }
  });
}

}  // namespace

std::string to_json(const RunConfig& config) {
  return json_of(config).dump();
}

RunConfig run_config_from_json(const std::string& json) {
  RunConfig config;
  read_json(Json::parse(json), config, "");
  return config;
}

RunConfig recorded_config(const std::filesystem::path& folder) {
  const bool gate = std::filesystem::exists(folder / "verdict.json");
  const auto file = folder / (gate ? "verdict.json" : "record.json");
  require(std::filesystem::exists(file), "--resume ", folder.string(),
          " holds no record.json; give the folder of a run");
  try {
    const std::string text = whole_text(file);
    const std::string config =
        gate ? record::gate_from_json(text).config_json : record::from_json(text).config_json;
    require(!config.empty(), "it has no configuration; give the folder of a run");
    return run_config_from_json(config);
  } catch (const std::exception& error) {
    throw Error("--resume cannot read " + file.string() + ": " + error.what());
  }
}

std::optional<std::string> first_difference(const RunConfig& there, const RunConfig& here) {
  const std::vector<std::string> free = {"out", "resume", "quiet", "strict"};
  std::vector<std::pair<std::string, std::string>> recorded;
  for_each_field(there, "", [&](const std::string& name, const auto& field, const char*) {
    recorded.emplace_back(name, shown(field));
  });
  size_t at = 0;
  std::optional<std::string> difference;
  for_each_field(here, "", [&](const std::string& name, const auto& field, const char*) {
    const std::string& before = recorded[at++].second;
    const bool compared = std::find(free.begin(), free.end(), name) == free.end();
    if (difference || !compared || before == shown(field)) return;
    difference = name + " is " + (before.empty() ? "empty" : before) + " there and " +
                 (shown(field).empty() ? "empty" : shown(field)) + " here";
  });
  return difference;
}

}  // namespace dsa
