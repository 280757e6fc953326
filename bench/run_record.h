// What every command that measures writes into its record before the first row.
#pragma once
#include "bench/session.h"

namespace dsa::bench {

/// @throws Error if this build's times would be no measurement and it is not a dry run.
void refuse_unfit_build(const RunConfig& config);

/// Build, machine, configuration, tables of variants and backends. @param command  argv, quoted
record::Run new_run(const RunConfig& config, const std::string& command);

/// Peak rates of the machine, unless the configuration says no; a resumed run keeps what it had.
void measure_ceilings(Session& session);

/// Why a call cannot have done `work` in `seconds`, or empty: the machine's peaks are measured again before
/// that is said. Empty too where they were not measured (measuring.md, section 1).
std::string physics_failure(Session& session, const Cost& work, double seconds);

}  // namespace dsa::bench
