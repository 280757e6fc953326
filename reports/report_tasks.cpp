// The section of tasks beside text: accuracy by K and variant, how well the selections hit, charts.
#include "reports/load.h"
#include "reports/report.h"
#include "reports/vocabulary.h"

#include <algorithm>
#include <cmath>
#include <map>

namespace dsa::report {
namespace {

namespace words = vocabulary;

Text cell(const Summary& value) {
  if (value.n > 1 && value.half_width() > 0) {
    return with_half_width(100 * value.median, 100 * value.half_width()) + "\u00a0%";
  }
  return percent(value.median);
}

/// One row a length and K, one column a variant; a row without K for those that read all keys.
Table by_top_k(const TaskView& task, const char* quantity) {
  std::vector<std::string> names;
  std::map<std::pair<double, double>, std::map<std::string, Text>> rows;
  for (const double length : task.training.lengths()) {
    for (const TaskLine& line : task.lines(quantity, length)) {
      if (std::find(names.begin(), names.end(), line.variant.name) == names.end())
        names.push_back(line.variant.name);
      if (line.all_keys) rows[{length, INFINITY}][line.variant.name] = cell(*line.all_keys);
      for (const auto& [top_k, value] : line.by_top_k)
        rows[{length, top_k}][line.variant.name] = cell(value);
    }
  }
  Table table;
  table.columns = {{"L", true}, {"K", true}};
  for (const std::string& name : names) table.columns.push_back({code(name), true});
  for (const auto& [key, cells] : rows) {
    std::vector<Text> row{length(key.first), std::isfinite(key.second) ? count(key.second) : "all"};
    for (const std::string& name : names) {
      const auto found = cells.find(name);
      row.push_back(found == cells.end() ? Text("–") : found->second);
    }
    table.rows.push_back(std::move(row));
  }
  return table;
}

std::string guesses_of(const TaskView& task) {
  std::string out;
  for (const auto& [in_words, accuracy] : task.guesses) {
    out += (out.empty() ? " Guessing " : "; ") + in_words + ": " + percent(accuracy);
  }
  return out.empty() ? out : out + ".";
}

List legend(const TaskView& task) {
  List list;
  std::string last;
  for (const Arm& arm : task.training.arms()) {
    if (arm.variant.name == last) continue;
    last = arm.variant.name;
    list.items.push_back(code(last) + " (" + arm.variant.role + "): " + arm.variant.summary);
  }
  return list;
}

/// What a low number may be, which depends on where the rows began.
Text how_to_read(const record::Run& run) {
  const Json train = settings_of(run).value("train", Json::object());
  const std::string start = train.value("start-from", "");
  const std::string own =
      start.empty()
          ? "Every row is a model of its own, trained at that K from the first step. "
          : "Every row went on from one model, " + start + ", the sparse ones reading K keys. ";
  return own +
         "A row that learns late and a row that cannot learn look alike until one of them does: "
         "see the "
         "learning curves before reading a low number as a limit.";
}

}  // namespace

std::vector<Block> task_section(const Material& material) {
  std::vector<Block> out;
  for (const TaskView& task : material.tasks) {
    out.push_back({Heading{2, "Task: " + task.name}});
    out.push_back({Paragraph{task.summary +
                             ". Accuracy: share of answers whose arg max is right, "
                             "of the last evaluation over all test examples." +
                             guesses_of(task)}});
    out.push_back({by_top_k(task, words::kFinalAccuracy)});
    out.push_back({legend(task)});
    const Table recall = by_top_k(task, words::kRecall);
    if (recall.rows.empty()) continue;
    out.push_back({Paragraph{
        "How much of what its own heads want each selection holds: recall of the K keys that dense "
        "attention of the same heads weighs most, mean over layers, over queries that see more "
        "than K keys."}});
    out.push_back({recall});
  }
  if (out.empty()) return out;
  for (Chart& chart : charts(material, Section::kTasks)) out.push_back({Figure{std::move(chart)}});
  out.push_back({Paragraph{how_to_read(material.run)}});
  return out;
}

}  // namespace dsa::report
