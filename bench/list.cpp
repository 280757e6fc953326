// `dsa-bench list`: every benchmark, variant and backend of this configuration, one line each.
#include "bench/commands.h"
#include "bench/selection.h"

#include <algorithm>
#include <cstdio>

namespace dsa::bench {
namespace {

void print_row(const Row& row) {
  if (row.declined.empty())
    std::printf("  %s\n", row.id.c_str());
  else
    std::printf("  %s  [declined: %s]\n", row.id.c_str(), row.declined.c_str());
}

std::string operations_of(const Backend& backend) {
  std::string names;
  for (int op = 0; op <= static_cast<int>(Op::kDense); ++op) {
    if (provides(backend, Op(op))) names.append(" ").append(name(Op(op)));
  }
  return names;
}

}  // namespace

int list(const CommandLine& line) {
  check(line.config);
  pin_isa(line.config.isa);
  Session session;
  const Rows rows = rows_of(line.config);
  initialise_google(line, line.config);
  register_rows(rows, session);
  const std::vector<Row*> shown = matching(rows);
  std::printf("benchmarks (%zu; kernels first, then training):\n", shown.size());
  for (const Row* row : shown) print_row(*row);
  std::printf("\nvariants:\n");
  for (const auto& row : variants()) {
    std::printf("  %-18s %-9s %s\n", row.name.c_str(), row.role.c_str(), row.summary.c_str());
  }
  std::printf("\nbackends (fastest first):\n");
  for (const auto& row : backends()) {
    std::printf("  %-19s %-9s %s; provides%s\n", row.name.c_str(), row.role.c_str(),
                row.description.c_str(), operations_of(row).c_str());
  }
  std::printf("\nyardsticks (plain torch calls to stand beside):\n");
  for (const auto& row : yardsticks()) {
    std::printf("  %-19s %-9s %s; provides %s\n", row.name.c_str(), "peer", row.description.c_str(),
                row.family.c_str());
  }
  std::printf("\ntasks (task.name):\n");
  for (const Task& row : tasks()) {
    std::printf("  %-18s %s\n", row.name.c_str(), row.summary.c_str());
  }
  std::string isas;
  for (const auto& isa : available_isas()) isas.append(" ").append(isa);
  std::printf("\nISAs of the cpu backend here:%s (now: %s)\n", isas.c_str(), active_isa().c_str());
  return kFine;
}

}  // namespace dsa::bench
