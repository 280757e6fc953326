// What `dsa-bench gate` found, as a page and as a comment under a pull request: the rows that need
// somebody first, everything else folded away.
#pragma once
#include "harness/record/gate.h"
#include "reports/document.h"

#include <filesystem>

namespace dsa::report {

/// @throws Error in one sentence where FOLDER/verdict.json is missing, broken or newer than this build.
record::GateVerdict load_gate(const std::filesystem::path& folder);

Document build(const record::GateVerdict& gate);

/// Does a row of this verdict need somebody? Unknown verdicts do: nothing is hidden by a misspelling.
bool needs_attention(const std::string& verdict);

/// A line a timed row, sorted by ratio; an empty id where nothing was timed.
Chart gate_forest(const record::GateVerdict& gate);

/// Was this pair of binaries timed on this row?
bool was_timed(const record::Pairing& pairing);

/// "1.062×", one digit more than times(): effects of 2 % are the subject.
std::string factor(double ratio);

/// A commit for people: at most ten letters.
std::string short_commit(const std::string& commit);

}  // namespace dsa::report
