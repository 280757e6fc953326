// May this run be believed? A table at the top, variants by audits, then the evidence of each result.
#include "reports/report.h"
#include "reports/vocabulary.h"

#include <algorithm>
#include <map>

namespace dsa::report {
namespace {

namespace words = vocabulary;

/// Audits of variants in reading order; goals are a section of their own.
struct Results {
  std::vector<std::string> variants;
  std::map<std::string, std::string> names;  ///< by number: "1" -> "causality"
  std::map<std::pair<std::string, std::string>, const record::Audit*>
      by_place;  ///< variant, number
};

Results results_of(const record::Run& run) {
  Results results;
  for (const record::Audit& audit : run.audits) {
    if (label(audit.labels, words::kLevel) != words::kAudit) continue;
    const std::string variant = label(audit.labels, words::kVariant);
    const std::string number = label(audit.labels, words::kNumber);
    if (std::find(results.variants.begin(), results.variants.end(), variant) ==
        results.variants.end()) {
      results.variants.push_back(variant);
    }
    results.names[number] = audit.name;
    results.by_place[{variant, number}] = &audit;
  }
  return results;
}

std::string status_of(const record::Audit& audit) {
  return label(audit.labels, words::kStatus);
}

Text cell(const record::Audit* audit) {
  if (audit == nullptr) return "–";
  if (status_of(*audit) == words::kFailed) return bold(std::string("FAILED"));
  return status_of(*audit) == words::kPassed ? Text("passed") : Text("open");
}

Table matrix(const Results& results) {
  Table table;
  table.columns.push_back({"variant"});
  for (const auto& [number, name] : results.names) {
    table.columns.push_back({number + " " + spoken(name)});
  }
  for (const auto& variant : results.variants) {
    std::vector<Text> row{code(variant)};
    for (const auto& [number, name] : results.names) {
      const auto found = results.by_place.find({variant, number});
      row.push_back(cell(found == results.by_place.end() ? nullptr : found->second));
    }
    table.rows.push_back(row);
  }
  return table;
}

/// One sentence a variant that failed; the rest together.
Text summary(const Results& results) {
  std::string failed, sound;
  for (const auto& variant : results.variants) {
    std::string numbers;
    int passed = 0, open = 0;
    for (const auto& [number, name] : results.names) {
      const auto found = results.by_place.find({variant, number});
      if (found == results.by_place.end()) continue;
      const std::string status = status_of(*found->second);
      passed += status == words::kPassed;
      open += status != words::kPassed && status != words::kFailed;
      if (status == words::kFailed) numbers += (numbers.empty() ? "" : ", ") + number;
    }
    if (!numbers.empty()) {
      failed += (failed.empty() ? "" : " ") + variant + " FAILED " + numbers +
                ": do not believe its numbers.";
    } else {
      sound += (sound.empty() ? "" : "; ") + variant + " passed " + std::to_string(passed) +
               (open > 0 ? ", " + std::to_string(open) + " open" : "");
    }
  }
  if (!sound.empty()) sound = (failed.empty() ? "" : " ") + sound + ".";
  return failed + sound;
}

Table evidence(const Results& results, bool of_failures) {
  Table table;
  table.columns = {{"audit"}, {"of"}, {"result"}, {"evidence"}};
  for (const auto& variant : results.variants) {
    for (const auto& [number, name] : results.names) {
      const auto found = results.by_place.find({variant, number});
      if (found == results.by_place.end()) continue;
      const record::Audit& audit = *found->second;
      if ((status_of(audit) == words::kFailed) != of_failures) continue;
      table.rows.push_back(
          {number + " " + spoken(name), code(variant), cell(&audit), audit.detail});
    }
  }
  return table;
}

}  // namespace

std::vector<Block> audit_section(const record::Run& run) {
  const Results results = results_of(run);
  if (results.variants.empty()) return {};
  std::vector<Block> out{{Heading{2, "May these numbers be believed?"}}};
  out.push_back({matrix(results)});
  out.push_back({Paragraph{summary(results)}});
  const Table failures = evidence(results, true), rest = evidence(results, false);
  if (!failures.rows.empty()) out.push_back({failures});
  if (!rest.rows.empty()) {
    out.push_back({Details{"Evidence of what passed or stays open", {{rest}}}});
  }
  return out;
}

}  // namespace dsa::report
