// Which rows of the configuration run: --select matches axes exactly, Google Benchmark's regular
// expression matches names, and ids must be fit to be names.
#pragma once
#include "bench/session.h"

namespace dsa::bench {

/// Throws std::logic_error if an id is taken twice or has a character outside [A-Za-z0-9_./:-].
void check_ids(const Rows& rows);

/// Keeps rows whose labels equal every axis of `select`: {"L=1024|4096", "backend=cpu"}.
/// @throws Error for a term without "=", or an axis no row has.
Rows selected(Rows rows, const std::vector<std::string>& select);

/// Every row of the suites asked for, after --select.
Rows rows_of(const RunConfig& config);

/// Gives Google Benchmark the configuration's settings, then the user's --benchmark_* flags.
/// @throws Error for a flag it does not know.
void initialise_google(const CommandLine& line, const RunConfig& config);

/// Registers every row with Google Benchmark; `session` and `rows` must outlive the run.
void register_rows(const Rows& rows, Session& session);

/// The rows that Google Benchmark's own flags select. @throws Error if the filter is no regex
std::vector<Row*> matching(const Rows& rows);

}  // namespace dsa::bench
