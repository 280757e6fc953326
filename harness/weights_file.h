// A model to use, not to train on: its weights alone, rounded to bfloat16, with the settings that are
// needed to build it: a sixth of a checkpoint in size.
#pragma once
#include "harness/run_config.h"

#include <filesystem>

namespace dsa {

struct WeightsSource {
  std::string variant;
  RunConfig config;  ///< model.vocab_size resolved
};

/// Written whole or not at all, like a checkpoint.
void write_weights(const std::filesystem::path& file, Transformer& model,
                   const WeightsSource& source);

struct LoadedWeights {
  WeightsSource source;
  std::shared_ptr<Transformer> model;  ///< float32, in eval mode
};

/// What the file says it holds; reads no tensor into a model.
/// @throws Error naming the file and what is wrong with it
WeightsSource weights_source(const std::filesystem::path& file);
/// @param rope_base  the model's, in place of the one it was trained with; 0 = that
LoadedWeights read_weights(const std::filesystem::path& file, double rope_base = 0);

/// Where a file of this project is: in the source tree, else below the working folder.
std::filesystem::path project_file(const std::string& relative);

}  // namespace dsa
