// Numbers and words for people: rounding, units, and styled text that markdown and HTML each
// escape in their own way.
#pragma once
#include "reports/inference.h"
#include "reports/statistics.h"

#include <string>
#include <vector>

namespace dsa::report {

/// "3.561", "1.23 ms", "64 MiB", "5.4k tokens/s": at most four significant digits. "–" if not finite.
std::string with_unit(double value, const std::string& unit);
/// "12.3 ± 0.4 ms"; the interval is left out for one sample.
std::string with_unit(const Summary& summary, const std::string& unit);
/// "12.3 ± 0.4"
std::string with_half_width(double value, double half_width);
/// "1.42× [1.31, 1.50]"
std::string times(const Summary& ratio);
std::string times(double ratio);
/// "+0.031 [+0.020, +0.040]"
std::string signed_gap(const Summary& gap);
/// "+0.031 ± 0.008", the 95 % interval widened by `slack`; "+0.031" for one sample
std::string signed_gap(const Mean& gap, double slack = 0);
/// "512", "1k", "1.7k": lengths in powers of two, k = 1024
std::string length(double tokens);
std::string significant(double value, int digits = 4);
std::string shortest(double value);  ///< without trailing zeros: "0.02"
std::string count(double value);     ///< a whole number: "256"
std::string percent(double fraction);
std::string spoken(std::string name);  ///< "data leakage" from "data_leakage"

struct Span {
  enum class Style { kPlain, kBold, kCode } style = Style::kPlain;
  std::string text;
};

/// Styled text of one paragraph or one cell.
class Text {
 public:
  Text() = default;
  Text(const char* plain) : Text(std::string(plain)) {}  // NOLINT(google-explicit-constructor)
  Text(const std::string& plain) {
    add(Span::Style::kPlain, plain);
  }  // NOLINT(google-explicit-constructor)

  Text& add(Span::Style style, const std::string& text);
  Text& operator+=(const Text& other);
  friend Text operator+(Text a, const Text& b) { return a += b; }
  const std::vector<Span>& spans() const { return spans_; }
  bool empty() const { return spans_.empty(); }

 private:
  std::vector<Span> spans_;
};
Text code(const std::string& text);
Text bold(const std::string& text);
Text bold(const Text& text);  ///< plain spans become bold, code stays code

std::string markdown(const Text& text);
std::string html(const Text& text);
std::string html_escaped(const std::string& text);
std::string plain(const Text& text);

}  // namespace dsa::report
