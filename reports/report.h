// From a loaded run to a document, section by section, in reading order: verdict, audits, training,
// kernels, goals, then what a doubter needs (failures, environment, how to reproduce, threats).
#pragma once
#include "reports/charts.h"
#include "reports/document.h"
#include "reports/load.h"

namespace dsa::report {

Document build(const LoadedRun& loaded);

// The sections; each returns nothing when the record holds nothing for it.
std::vector<Block> verdict_section(const Material& material);   ///< sentences and warnings
std::vector<Block> evidence_section(const Material& material);  ///< the tables behind them
/// Part of the verdict: training compared, and what it costs.
std::vector<Block> comparison_section(const Material& material);
std::vector<Block> training_section(const Material& material);
/// Empty without metrics by layer.
std::vector<Block> selection_section(const Material& material);
/// Everything but text that was trained.
std::vector<Block> task_section(const Material& material);
std::vector<Block> kernel_section(const Material& material);
std::vector<Block> goal_section(const record::Run& run);
/// The published experiment repaired step by step; empty where the run has none of it.
std::vector<Block> anatomy_section(const Material& material);
std::vector<Block> audit_section(const record::Run& run);
std::vector<Block> failure_section(const std::vector<record::Failure>& failures);
std::vector<Block> environment_section(const record::Run& run);
std::vector<Block> reproduce_section(const LoadedRun& loaded);
std::vector<Block> threats_section(const LoadedRun& loaded, const Material& material);

}  // namespace dsa::report
