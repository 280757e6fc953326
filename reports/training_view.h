// The training half of a record as a table: arms (a variant, or a variant at one K) by length.
#pragma once
#include "harness/record/record.h"
#include "reports/statistics.h"

#include <string>
#include <vector>

namespace dsa::report {

/// One line of a training chart. Usually a variant; a variant swept over K at one length gives one
/// arm for every K.
struct Arm {
  record::VariantInfo variant;
  std::string top_k;  ///< only these records, if not empty
  std::string name;   ///< "dsa" or "dsa K=64"
  int slot = 0;       ///< colour, shape and dash; unique within the report
  std::string task;   ///< only records of this task; empty: those of text
};

/// Of text, or of one task: they share no table.
class TrainingView {
 public:
  explicit TrainingView(const record::Run& run, const std::string& task = "");

  const std::vector<Arm>& arms() const {
    return arms_;
  }  ///< baseline, candidate, control, bound, flawed
  const std::vector<double>& lengths() const { return lengths_; }
  bool empty() const { return arms_.empty() || lengths_.empty(); }

  const Arm* first(const std::string& role) const;  ///< null when no arm has the role

  const record::Metric* find(const std::string& quantity, const Arm& arm, double length) const;
  /// Samples of `find`, or none.
  std::vector<double> samples(const std::string& quantity, const Arm& arm, double length) const;
  Summary summary(const std::string& quantity, const Arm& arm, double length) const;
  /// Do labels belong to this arm at this length?
  static bool is_of(const std::map<std::string, std::string>& labels, const Arm& arm,
                    double length);
  /// "256", or "" for an arm that reads every key.
  std::string top_k(const Arm& arm, double length) const;

  /// Curves of one y quantity, one a seed.
  std::vector<const record::Series*> curves(const std::string& quantity, const Arm& arm,
                                            double length) const;
  /// Stages of `stage_time` of one run, in the order of the record.
  std::vector<const record::Metric*> stages(const Arm& arm, double length) const;

 private:
  const record::Run& run_;
  std::vector<Arm> arms_;
  std::vector<double> lengths_;
};

/// A label's number; NaN when absent or not a number.
double number(const std::map<std::string, std::string>& labels, const std::string& key);
/// A label's text, or "".
std::string label(const std::map<std::string, std::string>& labels, const std::string& key);

}  // namespace dsa::report
