#include "reports/text.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstdio>
#include <cstdlib>

namespace dsa::report {
namespace {

constexpr const char* kNothing = "–";
constexpr const char* kSpace = "\u00a0";  // no line break between a number and its unit
constexpr const char* kPlusMinus = "\u00a0±\u00a0";

std::string spaced(const std::string& unit) {
  return std::string(kSpace).append(unit);
}

struct Scaled {
  double factor;
  std::string suffix;
};

/// One prefix for a value and its half-width, chosen by the value.
Scaled scale_for(double value, const std::string& unit) {
  const double size = std::fabs(value);
  if (unit == "s") {
    if (size >= 1 || size == 0) return {1, spaced("s")};
    if (size >= 1e-3) return {1e3, spaced("ms")};
    if (size >= 1e-6) return {1e6, spaced("µs")};
    return {1e9, spaced("ns")};
  }
  if (unit == "bytes") {
    const char* names[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    int step = 0;
    double factor = 1;
    while (step < 4 && size * factor >= 1024) factor /= 1024, ++step;
    return {factor, spaced(names[step])};
  }
  if (unit == "1") return {1, ""};
  if (unit.find("nats") == 0 || unit.find("bits") == 0) return {1, spaced(unit)};
  // "13.5 GFLOP/s", "2.1 GB/s"; other counts stay as they are up to a million: "13510 tokens/s".
  const bool prefixed = unit.find("FLOP") == 0 || unit.find("bytes/") == 0 || size >= 1e6;
  if (!prefixed) return {1, spaced(unit)};
  const char* names[] = {"", "k", "M", "G", "T", "P"};
  int step = 0;
  double factor = 1;
  while (step < 5 && size * factor >= 1000) factor /= 1000, ++step;
  std::string suffix = spaced(names[step]);
  if (unit.find("bytes/") != 0) return {factor, suffix.append(unit)};
  return {factor, suffix.append("B").append(unit, 5, std::string::npos)};
}

std::string fixed(double value, int decimals) {
  char text[400];  // the longest finite double has 309 digits before the point
  std::snprintf(text, sizeof text, "%.*f", decimals, value);
  return text;
}

std::string with_sign(double value) {
  return (value < 0 ? "−" : "+") + fixed(std::fabs(value), std::fabs(value) >= 10 ? 2 : 3);
}

std::string escape_markdown(const std::string& text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    const auto word = [&](size_t at) {
      return at < text.size() && std::isalnum(static_cast<unsigned char>(text[at]));
    };
    const bool inside_word = c == '_' && i > 0 && word(i - 1) && word(i + 1);
    if (c == '<') {
      out += "&lt;";
    } else if (c == '>') {
      out += "&gt;";
    } else if (c == '&') {
      out += "&amp;";
    } else if (c == '\n' || c == '\r') {
      out += ' ';
    } else {
      // "[0.9, 1.1]" is plain text; only what follows the bracket makes it a link.
      const bool link = c == ']' && i + 1 < text.size() &&
                        std::string("([:").find(text[i + 1]) != std::string::npos;
      if (std::string("\\`*|~$").find(c) != std::string::npos || link ||
          (c == '_' && !inside_word)) {
        out += '\\';
      }
      out += c;
    }
  }
  return out;
}

/// A code span cannot hold escapes, except that GFM tables read `\|` as a bar everywhere.
std::string code_markdown(std::string text) {
  std::replace(text.begin(), text.end(), '\n', ' ');
  std::string out;
  for (char c : text) out += c == '|' ? "\\|" : std::string(1, c);
  const bool has_tick = out.find('`') != std::string::npos;
  return has_tick ? "`` " + out + " ``" : "`" + out + "`";
}

}  // namespace

std::string significant(double value, int digits) {
  if (!std::isfinite(value)) return kNothing;
  if (value == 0) return "0";
  const double size = std::fabs(value);
  if (size >= 1e7 || size < 1e-4) {
    char text[64];
    std::snprintf(text, sizeof text, "%.*e", std::max(0, digits - 2), value);
    return text;
  }
  // Rounding first: 9.996 has one digit before the point, but is printed as 10.00.
  const double unit = std::pow(10.0, std::floor(std::log10(size)) - digits + 1);
  const double rounded = std::round(value / unit) * unit;
  const int before = static_cast<int>(std::floor(std::log10(std::fabs(rounded)))) + 1;
  return fixed(rounded, std::clamp(digits - before, 0, 7));
}

std::string shortest(double value) {
  char text[64];
  std::snprintf(text, sizeof text, "%.4g", value);
  return std::isfinite(value) ? text : kNothing;
}

std::string count(double value) {
  return std::isfinite(value) ? fixed(value, 0) : kNothing;
}

std::string with_unit(double value, const std::string& unit) {
  if (!std::isfinite(value)) return kNothing;
  const Scaled scaled = scale_for(value, unit);
  const bool whole = scaled.factor == 1 && value == std::round(value) && std::fabs(value) < 1e7;
  return (whole ? fixed(value, 0) : significant(value * scaled.factor)) + scaled.suffix;
}

std::string with_half_width(double value, double half_width) {
  // Both end at the same decimal: the first digit of the half-width that means something (two when
  // it starts with a 1), but never more than four digits of the value.
  const double size = std::max(std::fabs(value), 1e-300);
  double last = std::floor(std::log10(half_width));
  if (half_width / std::pow(10.0, last) < 1.95) last -= 1;
  last = std::max(last, std::floor(std::log10(size)) - 3);
  if (last > 5 || last < -7) return significant(value) + kPlusMinus + significant(half_width, 2);
  const int decimals = std::max(0, static_cast<int>(-last));
  const double smallest = std::pow(10.0, -decimals);
  const bool vanishes = half_width < smallest / 2;
  return fixed(value, decimals) + kPlusMinus + (vanishes ? "<" : "") +
         fixed(vanishes ? smallest : half_width, decimals);
}

std::string with_unit(const Summary& summary, const std::string& unit) {
  if (summary.empty()) return kNothing;
  const Scaled scaled = scale_for(summary.median, unit);
  if (summary.n == 1 || summary.half_width() == 0) return with_unit(summary.median, unit);
  return with_half_width(summary.median * scaled.factor, summary.half_width() * scaled.factor) +
         scaled.suffix;
}

std::string times(double ratio) {
  return std::isfinite(ratio) ? significant(ratio, 3) + "×" : kNothing;
}

std::string times(const Summary& ratio) {
  if (ratio.empty()) return kNothing;
  if (ratio.n < 2) return times(ratio.median);
  return times(ratio.median) + " [" + significant(ratio.low, 3) + ", " +
         significant(ratio.high, 3) + "]";
}

std::string signed_gap(const Summary& gap) {
  if (gap.empty()) return kNothing;
  if (gap.n < 2) return with_sign(gap.median);
  return with_sign(gap.median) + " [" + with_sign(gap.low) + ", " + with_sign(gap.high) + "]";
}

std::string signed_gap(const Mean& gap, double slack) {
  if (gap.empty()) return kNothing;
  if (gap.n < 2) return with_sign(gap.mean);
  const double half = gap.half_width() + slack;
  return with_sign(gap.mean) + kPlusMinus +
         (half < 0.0005 ? "<0.001" : fixed(half, half >= 10 ? 2 : 3));
}

std::string length(double tokens) {
  if (!std::isfinite(tokens)) return kNothing;
  if (tokens < 1024) return fixed(tokens, 0);
  const double kilo = tokens / 1024;
  if (kilo >= 1024) return shortest(kilo / 1024) + "M";
  const bool whole = kilo >= 10 || std::fabs(kilo - std::round(kilo)) < 0.05;
  return fixed(kilo, whole ? 0 : 1) + "k";
}

std::string spoken(std::string name) {
  std::replace(name.begin(), name.end(), '_', ' ');
  return name;
}

std::string percent(double fraction) {
  return std::isfinite(fraction) ? significant(fraction * 100, 3) + spaced("%") : kNothing;
}

Text& Text::add(Span::Style style, const std::string& text) {
  // Neighbours of one style are joined: "**a****b**" is not bold in markdown.
  const bool joins = !spans_.empty() && spans_.back().style == style && style != Span::Style::kCode;
  if (joins) {
    spans_.back().text += text;
  } else if (!text.empty()) {
    spans_.push_back({style, text});
  }
  return *this;
}

Text& Text::operator+=(const Text& other) {
  for (const Span& span : other.spans_) add(span.style, span.text);
  return *this;
}

Text code(const std::string& text) {
  return Text().add(Span::Style::kCode, text);
}
Text bold(const std::string& text) {
  return Text().add(Span::Style::kBold, text);
}
Text bold(const Text& text) {
  Text out;
  for (const Span& span : text.spans()) {
    out.add(span.style == Span::Style::kPlain ? Span::Style::kBold : span.style, span.text);
  }
  return out;
}

std::string markdown(const Text& text) {
  std::string out;
  for (const Span& span : text.spans()) {
    if (span.style == Span::Style::kCode) {
      out += code_markdown(span.text);
    } else if (span.style == Span::Style::kPlain) {
      out += escape_markdown(span.text);
    } else {
      // "** text**" is not bold: the stars must touch a letter, so blanks stay outside.
      const size_t first = span.text.find_first_not_of(' ');
      const size_t last = span.text.find_last_not_of(' ');
      if (first == std::string::npos) {
        out += span.text;
        continue;
      }
      out += std::string(first, ' ') + "**" +
             escape_markdown(span.text.substr(first, last - first + 1)) + "**" +
             std::string(span.text.size() - last - 1, ' ');
    }
  }
  return out;
}

std::string html_escaped(const std::string& text) {
  std::string out;
  for (char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

std::string html(const Text& text) {
  std::string out;
  for (const Span& span : text.spans()) {
    const std::string body = html_escaped(span.text);
    if (span.style == Span::Style::kCode) {
      // Long names may break where their parts meet.
      out += "<code>";
      for (char c : body) {
        out += c;
        if (c == '_' || c == '/') out += "<wbr>";
      }
      out += "</code>";
    } else if (span.style == Span::Style::kBold) {
      out += "<strong>" + body + "</strong>";
    } else {
      out += body;
    }
  }
  return out;
}

std::string plain(const Text& text) {
  std::string out;
  for (const Span& span : text.spans()) out += span.text;
  return out;
}

}  // namespace dsa::report
