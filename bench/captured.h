// Inputs of a model that was really trained: the committed DSA model reads held-out text, and one
// layer's indexer says which keys are selected. With them go the facts that say what kind of
// selections they are (docs/bench.md).
#pragma once
#include "bench/kernel_case.h"
#include "harness/weights_file.h"

#include <memory>
#include <optional>
#include <string>

namespace dsa::bench {

/// Means over queries that see more than K keys, in evenly spread runs of 16 neighbours.
struct SelectionFacts {
  double union16 = 0;  ///< keys that 16 neighbouring queries select together, over K
  double recall = 0;   ///< selected share of the K keys of largest head-mean dense attention
  double recent = 0;   ///< share of selected keys among the query's last K
};

/// K is the width of the selection. Nothing if no 16 queries see more keys.
std::optional<SelectionFacts> facts_of(const AttentionCapture& layer);

/// "  U16/K 3.81  recall 0.58  recent 0.26", or "".
std::string shown(const std::optional<SelectionFacts>& facts);

/// @throws Error before anything is measured, if captured inputs are asked for and the file of weights
/// that was named cannot be used, or has no such layer.
void check_captured(const KernelConfig& config);

/// Why `kernel` cannot have captured inputs: no weights, no text, another I or J, too long. Or "".
std::string captured_declines(const KernelCase& kernel, const KernelConfig& config);

class CapturedModel {
 public:
  /// What the layer saw on window number `window` of the held-out text, L bytes long, and the K keys
  /// a query that its indexer selects there. Float32, batch 1. Of windows longer than the model was
  /// trained on, its RoPE is stretched to their length.
  AttentionCapture layer(const KernelCase& kernel, const KernelConfig& config, int64_t window);

 private:
  void load(const KernelConfig& config, int64_t length);
  /// That of the model, stretched where the text is longer than any it was trained on.
  double rope_base_at(int64_t length) const;

  std::string file_;
  RunConfig trained_;  ///< its settings
  std::string trained_variant_;
  LoadedWeights weights_;
  std::shared_ptr<const Corpus> corpus_;
};

}  // namespace dsa::bench
