// A made-up gate with a row of every verdict.
#pragma once
#include "harness/record/gate.h"

#include <cmath>
#include <string>

namespace dsa::record {

inline Pairing paired(int rounds, double ratio, double low, double high,
                      const std::string& verdict) {
  return {rounds, ratio, low, high, verdict};
}

inline GateRow timed_row(const std::string& id, const std::string& verdict, double ratio,
                         double width, const std::string& reason = "") {
  GateRow row;
  row.id = id;
  row.level = id.starts_with("train") ? "training" : "kernel";
  row.verdict = verdict;
  row.reason = reason;
  row.base_seconds = 0.0123;
  row.pairing = paired(15, ratio, ratio - width, ratio + width, verdict);
  row.copy = paired(15, 1.001, 0.996, 1.004, "same");
  row.slowed = paired(15, 1.1, 1.09, 1.11, "regression");
  return row;
}

inline GateRow untimed_row(const std::string& id, const std::string& verdict,
                           const std::string& reason) {
  GateRow row;
  row.id = id;
  row.level = "kernel";
  row.verdict = verdict;
  row.reason = reason;
  row.base_seconds = row.pairing.ratio = row.pairing.low = row.pairing.high = std::nan("");
  return row;
}

inline GateVerdict empty_gate() {
  GateVerdict gate;
  gate.id = "20261127T021500";
  gate.command = "dsa-bench gate --base old/dsa-bench --head build/dsa-bench --out results";
  gate.started = "2026-11-27T02:15:00Z", gate.ended = "2026-11-27T02:25:12Z";
  gate.status = "done";
  gate.armed = true;
  gate.alpha = 0.01, gate.micro_effect = 0.03, gate.macro_effect = 0.02, gate.slowdown = 1.1;
  gate.seconds = 612, gate.budget = 900;
  gate.arms = {
      {"base", "old/dsa-bench", "63ca9404646d0cf8a8104d56fb78122c3c8b40cf", "9d3f6c2b1a0e4857"},
      {"head", "build/dsa-bench", "f00dfeedbeef0cf8a8104d56fb78122c3c8b40cf", "1b2c3d4e5f607182"}};
  gate.machine = {{"cpu", "Intel(R) Xeon(R) Platinum"}};
  return gate;
}

inline std::string kernel_id(const std::string& family, int length, const std::string& more = "") {
  return family + "/pass:fwd/backend:cpu/L:" + std::to_string(length) +
         "/K:256/H:8/G:8/D:64/V:64/dtype:f32/scores:uniform" + more;
}

inline GateVerdict full_gate() {
  GateVerdict gate = empty_gate();
  gate.sentence = "1 regression among 12 rows: sparse_attention L=8192 takes 1.062x.";
  gate.exit_code = 6;
  gate.rows = {
      timed_row(kernel_id("sparse_attention", 4096), "same", 1.004, 0.006),
      timed_row(kernel_id("sparse_attention", 8192), "regression", 1.0621, 0.018, "Slower."),
      timed_row(kernel_id("indexer_select", 8192), "improvement", 0.912, 0.011),
      timed_row(kernel_id("dense_attention", 8192), "inconclusive", 1.031, 0.044, "Too noisy."),
      timed_row(kernel_id("select_top_k", 8192), "unarmed", 0.993, 0.08, "Its copy differs."),
      timed_row("train/variant:dsa/L:256", "worse", 1.001, 0.009, "Its loss is worse."),
      untimed_row(kernel_id("dense_attention", 4096), "same-build", "Equal .text."),
      untimed_row("gone/L:64", "missing", "Only base has it."),
      untimed_row("fresh/L:64", "new", "Only head has it."),
      untimed_row("moved/L:64", "renamed", "Was old/L:64."),
      untimed_row("boom/L:64", "crashed", "head ended by signal 11."),
      untimed_row("slow/L:64", "hung", "head took over 60 s."),
      untimed_row("wrong/L:64", "failed", "The float64 reference disagrees | badly.")};
  gate.rows[1].confirmation = paired(15, 1.0597, 1.041, 1.078, "regression");
  gate.rows[4].copy = paired(15, 1.05, 0.97, 1.09, "inconclusive");
  const Quantity loss{"final_validation_loss", "nats/token", Quantity::Better::kLower};
  const Quantity peak{"peak_memory", "bytes", Quantity::Better::kLower};
  gate.rows[5].checks = {{loss, 3.5612001, 3.5612345, 1e-6, "worse"},
                         {peak, 64 << 20, 48 << 20, 4096, "better"}};
  gate.rows[0].checks = {{peak, 64 << 20, 64 << 20, 4096, "same"}};
  return gate;
}

}  // namespace dsa::record
