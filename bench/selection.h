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

/// Registers every row with Google Benchmark; `session` and `rows` must outlive the run.
void register_rows(const Rows& rows, Session& session);

/// The rows that Google Benchmark's own flags select.
std::vector<Row*> matching(const Rows& rows);

}  // namespace dsa::bench
