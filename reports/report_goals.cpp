// The table of goals: what `dsa-bench goals` found, one line a goal, in the order of its file.
#include "reports/report.h"
#include "reports/vocabulary.h"

#include <cmath>
#include <map>

namespace dsa::report {

namespace words = vocabulary;

std::vector<Block> goal_section(const record::Run& run) {
  Table table;
  table.columns = {{"goal"}, {"result"}, {"measured", true}, {"asked for", true}, {"in words"}};
  std::map<std::string, int> count;
  for (const record::Audit& audit : run.audits) {
    if (label(audit.labels, words::kLevel) != words::kGoal) continue;
    const std::string status = label(audit.labels, words::kStatus);
    ++count[status];
    const auto shown = [&](double value) {
      return std::isfinite(value) ? significant(value, 3) + "\u00a0" + audit.unit : "–";
    };
    table.rows.push_back({label(audit.labels, words::kOperation),
                          audit.passed ? Text(status) : bold(status), shown(audit.observed),
                          shown(audit.required), audit.detail});
  }
  if (table.rows.empty()) return {};
  std::string summary = std::to_string(count["reached"]) + " of " +
                        std::to_string(table.rows.size()) + " goals are reached, " +
                        std::to_string(count["missed"]) + " missed, " +
                        std::to_string(count["unmeasured"]) +
                        " cannot be measured on this machine. Ratios are medians of paired "
                        "repetitions: both sides took turns.";
  return {{Heading{2, "Goals"}}, {Paragraph{summary}}, {table}};
}

}  // namespace dsa::report
