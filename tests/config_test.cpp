// Every field of every config struct is a flag, a TOML key and a JSON value, and they agree.
#include "harness/config_cli.h"
#include "harness/config_text.h"
#include "tests/temporary_folder.h"

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <nlohmann/json.hpp>

using namespace dsa;
using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::MessageMatches;

namespace {

/// A value of the field's type that is not its default, as a user would type it.
template <class T>
std::string other_value(const T& value) {
  if constexpr (std::is_same_v<T, bool>) return value ? "false" : "true";
  if constexpr (std::is_same_v<T, int64_t> || std::is_same_v<T, uint64_t>) {
    return std::to_string(value + 3);
  }
  if constexpr (std::is_same_v<T, double>) return std::to_string(value + 0.375);
  if constexpr (std::is_same_v<T, std::string>) return value + "x/y-z";
  if constexpr (std::is_same_v<T, std::vector<std::string>>) return "one,two";
  return "5,7,11";
}

template <class T>
std::string toml_value(const T& value) {
  const std::string text = other_value(value);
  if constexpr (std::is_same_v<T, std::string>) return '"' + text + '"';
  if constexpr (std::is_same_v<T, std::vector<std::string>>) return R"(["one", "two"])";
  if constexpr (std::is_same_v<T, std::vector<int64_t>> ||
                std::is_same_v<T, std::vector<uint64_t>>) {
    return "[5, 7, 11]";
  }
  return text;
}

struct Field {
  std::string name, flag_value, toml, json_pointer;
};

std::vector<Field> fields() {
  std::vector<Field> all;
  const RunConfig defaults;
  for_each_field(defaults, "", [&](const std::string& name, const auto& value, const char* help) {
    INFO(name);
    REQUIRE(std::string(help).size() > 5);
    std::string pointer = "/" + name;
    if (const size_t dot = pointer.find('.'); dot != std::string::npos) pointer[dot] = '/';
    all.push_back({name, other_value(value), toml_value(value), pointer});
  });
  return all;
}

std::string flag(const Field& field) {
  return "--" + field.name + "=" + field.flag_value;
}

RunConfig parse(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), "dsa-bench");
  return parse_command_line(arguments).config;
}

std::string write(const std::string& text) {
  // Of this process: ctest runs the cases of this file beside each other.
  static const TemporaryFolder folder;
  return folder.write("config.toml", text);
}

nlohmann::json json_value(const RunConfig& config, const Field& field) {
  return nlohmann::json::parse(to_json(config))
      .at(nlohmann::json::json_pointer(field.json_pointer));
}

/// The one field that was set differs from the default; all others are as they were.
void require_only(const RunConfig& config, const Field& field) {
  auto defaults = nlohmann::json::parse(to_json(RunConfig{}));
  auto changed = nlohmann::json::parse(to_json(config));
  const nlohmann::json::json_pointer pointer(field.json_pointer);
  REQUIRE(changed.at(pointer) != defaults.at(pointer));
  changed.at(pointer) = defaults.at(pointer);
  REQUIRE(changed == defaults);
}

}  // namespace

TEST_CASE("every field can be set by its flag", "[config]") {
  REQUIRE(fields().size() > 60);
  for (const Field& field : fields()) {
    if (field.name == "resume") continue;  // reads that run's record: tested with the executable
    INFO("--" << field.name << "=" << field.flag_value);
    require_only(parse({flag(field)}), field);
  }
}

TEST_CASE("every field can be set in the file, in a section and with a dot", "[config]") {
  for (const Field& field : fields()) {
    const size_t dot = field.name.find('.');
    std::vector<std::string> texts = {field.name + " = " + field.toml + "\n"};
    if (dot != std::string::npos) {
      const std::string section = field.name.substr(0, dot), key = field.name.substr(dot + 1);
      texts.push_back('[' + section + "]\n" + key + " = " + field.toml + "\n");
    }
    const auto by_flag = field.name == "resume" ? nlohmann::json(field.flag_value)
                                                : json_value(parse({flag(field)}), field);
    for (const auto& text : texts) {
      INFO(text);
      const RunConfig config = parse({"--config", write(text)});
      require_only(config, field);
      REQUIRE(json_value(config, field) == by_flag);
    }
  }
}

TEST_CASE("a configuration survives the trip through JSON", "[config]") {
  RunConfig config = parse({"--lengths", "5,7", "--train.learning-rate", "3e-3", "--seeds",
                            "18446744073709551615", "--data", "a b.txt", "--dry-run"});
  REQUIRE(config.lengths == std::vector<int64_t>{5, 7});
  REQUIRE(config.data.path == "a b.txt");
  REQUIRE(config.dry_run);
  REQUIRE(config.seeds.at(0) == 18446744073709551615ull);
  REQUIRE(to_json(run_config_from_json(to_json(config))) == to_json(config));
  REQUIRE(!first_difference(config, config));
  RunConfig other = config;
  other.train.steps = 7;
  REQUIRE_THAT(first_difference(config, other).value(), ContainsSubstring("train.steps is 200"));
}

TEST_CASE("flags win over the file, the file over defaults", "[config]") {
  const std::string file = write("lengths = [16]\n[train]\nsteps = 3\nbatch = 2\n");
  const RunConfig config = parse({"--config", file, "--train.steps", "9", "run"});
  REQUIRE(config.lengths == std::vector<int64_t>{16});
  REQUIRE(config.train.steps == 9);
  REQUIRE(config.train.batch == 2);
}

TEST_CASE("unknown names and unreadable values are one sentence", "[config]") {
  const auto refuses = [](const std::vector<std::string>& arguments, const std::string& why) {
    INFO(why);
    REQUIRE_THROWS_MATCHES(parse(arguments), Error, MessageMatches(ContainsSubstring(why)));
  };
  refuses({"--train.stepz", "3"}, "unknown argument --train.stepz, did you mean train.steps?");
  refuses({"--colour=blue"}, "unknown argument --colour; `dsa-bench --help` lists all");
  refuses({"--train.steps", "many"}, "--train.steps takes a whole number, not \"many\"");
  refuses({"--train.steps", "3.5"}, "--train.steps takes a whole number, not \"3.5\"");
  refuses({"--lengths", "64,x"}, "--lengths takes a whole number, not \"x\"");
  refuses({"--config", "/no/such.toml"}, "/no/such.toml");
  refuses({"--config", write("[train]\nstepz = 3\n")}, "sets \"train.stepz\", which is no field");
  refuses({"--config", write("[trainer]\nsteps = 3\n")}, "sets \"trainer.steps\"");
  refuses({"--config", write("train.steps = \"x\"\n")}, "--train.steps takes a whole number");
  refuses({"--config", write("\xff\xfe")}, "is no text in UTF-8");
  refuses({"--config", write("\xff\xfetrain.steps = 3\n")}, "is no text in UTF-8");
  refuses({"--config", write(std::string("a\0b", 3))}, "is no text in UTF-8");
  refuses({"--resume", "/no/such/run"}, "holds no record.json");
}

TEST_CASE("a value given twice in any list is refused", "[config]") {
  size_t lists = 0;
  const RunConfig defaults;
  for_each_field(defaults, "", [&](const std::string& name, const auto& value, const char*) {
    if constexpr (config_text::ListOf<std::decay_t<decltype(value)>>::value) {
      const std::string all = value.empty() ? other_value(value) : config_text::shown(value);
      const std::string one = all.substr(0, all.find(','));
      INFO("--" << name << "=" << one << "," << one);
      REQUIRE_THROWS_MATCHES(check(parse({"--" + name, one + "," + one})), Error,
                             MessageMatches(ContainsSubstring("lists " + one + " twice")));
      ++lists;
    }
  });
  REQUIRE(lists > 10);
}

TEST_CASE("Google Benchmark's flags are set aside, subcommands and help are found", "[config]") {
  const CommandLine line = parse_command_line(
      {"dsa-bench", "list", "--benchmark_repetitions=3", "--lengths", "8", "--benchmark_filter=x"});
  REQUIRE(line.benchmark_flags ==
          std::vector<std::string>{"--benchmark_repetitions=3", "--benchmark_filter=x"});
  REQUIRE(line.subcommand == "list");
  REQUIRE(line.config.lengths == std::vector<int64_t>{8});
  const auto help = parse_command_line({"dsa-bench", "--help"}).help;
  REQUIRE(help);
  REQUIRE_THAT(*help, ContainsSubstring("--attention.top-k"));
  REQUIRE_THAT(*help, ContainsSubstring("optimiser steps of a run"));
}
