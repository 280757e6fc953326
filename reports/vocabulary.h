// Names of docs/records.md that a report asks for. The only place in reports/ that spells them;
// names of variants and backends appear nowhere.
#pragma once

namespace dsa::report::vocabulary {

// labels
inline constexpr const char *kLevel = "level", *kId = "id", *kFamily = "family", *kPass = "pass",
                            *kBackend = "backend", *kLength = "L", *kTopK = "K", *kDtype = "dtype",
                            *kScores = "scores", *kVariant = "variant", *kStage = "stage",
                            *kSeed = "seed", *kSource = "source", *kBound = "bound",
                            *kLayer = "layer", *kNumber = "number", *kRung = "rung",
                            *kRungName = "rung_name", *kRepair = "repair", *kArm = "arm",
                            *kTask = "task", *kGuess = "guess", *kDepth = "depth",
                            *kSummary = "summary", *kStatus = "status", *kOperation = "operation";
// values of labels
inline constexpr const char *kKernel = "kernel", *kGoal = "goal", *kAudit = "audit",
                            *kAnatomy = "anatomy", *kSparseArm = "sparse", *kPassed = "passed",
                            *kFailed = "failed", *kTraining = "training", *kForward = "fwd",
                            *kForwardBackward = "fwdbwd", *kIndexerScores = "indexer_scores",
                            *kSelectTopK = "select_top_k", *kIndexerSelect = "indexer_select",
                            *kSparse = "sparse_attention", *kDense = "dense_attention",
                            *kCaptured = "captured";
// quantities
inline constexpr const char *kTime = "time", *kFlopRate = "flop_rate", *kByteRate = "byte_rate",
                            *kPeakMemory = "peak_memory", *kOtherCpus = "other_cpus",
                            *kError = "error", *kWrongMembers = "wrong_members",
                            *kFlopRatio = "flop_ratio", *kCeiling = "ceiling_percent",
                            *kBestLoss = "best_validation_loss", *kBestAccuracy = "best_accuracy",
                            *kStepTime = "step_time", *kThroughput = "throughput",
                            *kStageTime = "stage_time", *kFinalLoss = "final_validation_loss",
                            *kParameters = "parameters", *kActive = "active_parameters",
                            *kIndexer = "indexer_parameters", *kFlops = "flops_per_token",
                            *kResumedSteps = "resumed_steps", *kMissingCpus = "missing_cpus",
                            *kValidationLoss = "validation_loss",
                            *kFinalAccuracy = "final_accuracy", *kAccuracy = "accuracy",
                            *kExactMatch = "exact_match", *kRecall = "selection_recall",
                            *kLossByPosition = "loss_by_position";
// roles
inline constexpr const char *kBaseline = "baseline", *kCandidate = "candidate",
                            *kControl = "control", *kBoundRole = "bound", *kFlawed = "flawed",
                            *kOurs = "ours", *kPeer = "peer", *kOracle = "oracle";

}  // namespace dsa::report::vocabulary
