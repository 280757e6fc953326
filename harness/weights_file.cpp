#include "harness/weights_file.h"

#include "harness/build_facts.h"
#include "harness/config_cli.h"
#include "harness/safetensors.h"

#include <ATen/core/grad_mode.h>

namespace dsa {
namespace {

constexpr const char* kFormat = "dsa-weights-1";

std::string entry(const Safetensors& contents, const std::string& key, const std::string& file) {
  const auto found = contents.metadata.find(key);
  require(found != contents.metadata.end(), "'", file, "' has no ", key,
          "; it is no file of weights of this program");
  return found->second;
}

WeightsSource source_of(const Safetensors& contents, const std::string& file) {
  const std::string format = entry(contents, "format", file);
  require(format == kFormat, "'", file, "' has the format '", format, "', not '", kFormat,
          "'; give the .weights.safetensors of a training run");
  return {entry(contents, "variant", file), run_config_from_json(entry(contents, "config", file))};
}

}  // namespace

void write_weights(const std::filesystem::path& file, Transformer& model,
                   const WeightsSource& source) {
  Safetensors contents;
  for (const auto& item : model.named_parameters()) {
    contents.tensors[item.key()] = item.value().detach().to(at::kBFloat16);
  }
  contents.metadata = {
      {"format", kFormat}, {"variant", source.variant}, {"config", to_json(source.config)}};
  write_safetensors(file, contents);
}

WeightsSource weights_source(const std::filesystem::path& file) {
  return source_of(read_safetensors(file), file.string());
}

LoadedWeights read_weights(const std::filesystem::path& path, double rope_base) {
  const std::string file = path.string();
  const Safetensors contents = read_safetensors(path);
  LoadedWeights loaded{source_of(contents, file), nullptr};
  RunConfig& config = loaded.source.config;
  if (rope_base > 0) config.attention.rope_base = rope_base;
  loaded.model =
      std::make_shared<Transformer>(loaded.source.variant, config.attention, config.model);
  const at::NoGradGuard no_grad;
  size_t fitting = 0;
  for (auto& item : loaded.model->named_parameters()) {
    const auto found = contents.tensors.find(item.key());
    require(found != contents.tensors.end() && found->second.sizes() == item.value().sizes(), "'",
            file, "' has no tensor '", item.key(), "' of shape ", item.value().sizes(),
            ", which its own settings ask for; it is damaged or from another version");
    item.value().copy_(found->second);
    ++fitting;
  }
  require(fitting == contents.tensors.size(), "'", file, "' has ", contents.tensors.size(),
          " tensors, but its own settings ask for ", fitting,
          "; it is damaged or from another version");
  loaded.model->eval();
  return loaded;
}

std::filesystem::path project_file(const std::string& relative) {
  const auto in_source = std::filesystem::path(kSourceFolder) / relative;
  return std::filesystem::exists(in_source) ? in_source : std::filesystem::path(relative);
}

}  // namespace dsa
