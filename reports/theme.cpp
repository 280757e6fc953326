#include "reports/theme.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>

namespace dsa::report::theme {
namespace {

constexpr const char* kConfig = R"({
  "background": "#FFFFFF",
  "font": "Liberation Sans, Arial, Helvetica, sans-serif",
  "padding": {"left": 8, "right": 16, "top": 8, "bottom": 8},
  "view": {"stroke": null},
  "title": {"anchor": "start", "frame": "group", "fontSize": 16, "fontWeight": 600,
            "color": "#111827", "subtitleColor": "#4B5563", "subtitleFontSize": 12,
            "subtitlePadding": 4, "subtitleLineHeight": 15, "offset": 14},
  "axis": {"labelFontSize": 11, "titleFontSize": 12, "titleFontWeight": "normal",
           "titleColor": "#374151", "labelColor": "#374151", "gridColor": "#E5E7EB",
           "gridWidth": 1, "domainColor": "#9CA3AF", "tickColor": "#9CA3AF", "tickSize": 4,
           "titlePadding": 8},
  "header": {"labelFontSize": 12, "labelFontWeight": 600, "labelColor": "#111827",
             "titleFontSize": 12},
  "legend": {"labelColor": "#374151", "labelFontSize": 11, "labelLimit": 260, "titleFontSize": 11,
             "titleFontWeight": "normal", "titleColor": "#374151", "orient": "top",
             "direction": "horizontal", "offset": 6, "symbolStrokeWidth": 3},
  "line": {"strokeWidth": 2.5, "strokeCap": "round"},
  "text": {"font": "Liberation Sans, Arial, Helvetica, sans-serif", "fontSize": 11}
})";

int channel(const std::string& colour, size_t at) {
  return static_cast<int>(std::strtol(colour.substr(at, 2).c_str(), nullptr, 16));
}

size_t code_points(const std::string& text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xC0) != 0x80;
  }));
}

/// At most `most` of the ticks, keeping the pattern even.
std::vector<double> thinned(const std::vector<double>& ticks, size_t most) {
  const size_t step = (ticks.size() + most - 1) / most;
  std::vector<double> out;
  for (size_t i = 0; i < ticks.size(); i += std::max<size_t>(1, step)) out.push_back(ticks[i]);
  return out;
}

std::vector<double> decade_ticks(Span domain, const std::vector<double>& mantissas) {
  std::vector<double> out;
  const int first = static_cast<int>(std::floor(std::log10(domain.low)));
  const int last = static_cast<int>(std::ceil(std::log10(domain.high)));
  for (int e = first; e <= last; ++e) {
    for (double m : mantissas) {
      const double tick =
          std::strtod((std::to_string(m) + "e" + std::to_string(e)).c_str(), nullptr);
      if (tick >= domain.low && tick <= domain.high) out.push_back(tick);
    }
  }
  return out;
}

/// Evenly spaced round values: a domain below one decade is nearly linear.
std::vector<double> even_ticks(Span domain) {
  const double rough = (domain.high - domain.low) / 5;
  const double decade = std::pow(10.0, std::floor(std::log10(rough)));
  const double step = rough / decade > 5   ? 10 * decade
                      : rough / decade > 2 ? 5 * decade
                                           : 2 * decade;
  std::vector<double> out;
  for (double k = std::ceil(domain.low / step); k * step <= domain.high; ++k) {
    out.push_back(rounded(k * step, 6).get<double>());
  }
  return out;
}

}  // namespace

Look look(int slot) {
  static const std::vector<Look> looks = {
      {"#4C78A8", "square", {1, 0}},         {"#E4572E", "circle", {1, 0}},
      {"#F2A541", "diamond", {5, 3}},        {"#6B7280", "triangle-up", {2, 2}},
      {"#A9B1BB", "cross", {8, 3}},          {"#374151", "triangle-down", {8, 3, 2, 3}},
      {"#8A94A3", "triangle-right", {4, 2}}, {"#C4CAD2", "triangle-left", {1, 3}},
      {"#2F8F9D", "square", {6, 2}},         {"#A0569B", "circle", {6, 2}}};
  return looks[static_cast<size_t>(std::max(0, slot)) % looks.size()];
}

std::string tint(const std::string& colour) {
  std::string out = "#";
  for (size_t at : {1U, 3U, 5U}) {
    char text[8];
    std::snprintf(text, sizeof text, "%02X", (channel(colour, at) + 255) / 2);
    out += text;
  }
  return out;
}

std::string stage_colour(const std::string& stage, int position) {
  if (stage == "attention") return "#4C78A8";
  if (stage == "indexer") return "#E4572E";
  if (stage == "topk") return "#F2A541";
  // No two are closer than 20 of 255, neighbours much further. Records list data, head, moe (often
  // the widest, so a mild one), optimizer, other.
  const std::array greys{"#374151", "#D3D9DF", "#8D98A5", "#5B6672", "#B0B9C3", "#EDF0F2"};
  return greys[static_cast<size_t>(position) % greys.size()];
}

bool is_dark(const std::string& colour) {
  return 0.299 * channel(colour, 1) + 0.587 * channel(colour, 3) + 0.114 * channel(colour, 5) < 140;
}

std::vector<std::string> wrapped(const std::string& text, size_t columns) {
  std::vector<std::string> lines;
  std::string line;
  size_t at = 0;
  while (at < text.size()) {
    const size_t end = std::min(text.find(' ', at), text.size());
    const std::string word = text.substr(at, end - at);
    if (!line.empty() && code_points(line) + 1 + code_points(word) > columns) {
      lines.push_back(line);
      line.clear();
    }
    line += (line.empty() ? "" : " ") + word;
    at = end + 1;
  }
  if (!line.empty()) lines.push_back(line);
  return lines;
}

Json base(const std::string& title, const std::string& subtitle, int width) {
  // 16 px bold takes about 8.6 px a letter, 12 px regular about 5.75.
  const auto columns = [&](double px) { return static_cast<size_t>((width + 60) / px); };
  return {
      {"$schema", "https://vega.github.io/schema/vega-lite/v6.json"},
      {"config", Json::parse(kConfig)},
      {"title",
       {{"text", wrapped(title, columns(8.6))}, {"subtitle", wrapped(subtitle, columns(5.75))}}}};
}

Json rounded(double value, int digits) {
  if (!std::isfinite(value)) return nullptr;
  char text[64];
  std::snprintf(text, sizeof text, "%.*g", digits, value);
  const double short_value = std::strtod(text, nullptr);
  if (short_value == std::round(short_value) && std::fabs(short_value) < 1e15) {
    return static_cast<int64_t>(short_value);
  }
  return short_value;
}

Json log_ticks(Span domain, const std::string& unit) {
  std::vector<double> ticks;
  if (unit == "bytes") {
    for (int e = -4; e < 62; ++e) {
      const double tick = std::ldexp(1.0, e);
      if (tick >= domain.low && tick <= domain.high) ticks.push_back(tick);
    }
    return thinned(ticks, 8);
  }
  ticks = decade_ticks(domain, {1, 2, 5});
  if (ticks.size() < 3) ticks = even_ticks(domain);
  if (ticks.size() > 9) ticks = thinned(decade_ticks(domain, {1}), 8);
  return ticks;
}

std::string label_expression(const std::string& unit) {
  if (unit == "s") {
    return "datum.value>=1 ? format(datum.value,'~r')+' s' : datum.value>=0.00099 ? "
           "format(datum.value*1e3,'.3~r')+' ms' : format(datum.value*1e6,'.3~r')+' µs'";
  }
  if (unit == "bytes") {
    return "datum.value>=1073741824 ? format(datum.value/1073741824,'~r')+' GiB' : "
           "datum.value>=1048576 ? format(datum.value/1048576,'~r')+' MiB' : "
           "datum.value>=1024 ? format(datum.value/1024,'~r')+' KiB' : format(datum.value,'~r')+' "
           "B'";
  }
  return "format(datum.value,'~s')";
}

Json length_axis(const std::vector<double>& lengths, int width, Span* domain) {
  double low = lengths.front(), high = lengths.back();
  if (low == high) low /= 2, high *= 2;
  if (domain) *domain = {low, high};
  const double pixels_per_e = width / std::log(high / low);
  std::vector<double> ticks;
  for (double value : lengths) {
    // 34 px: room for "16384" and a gap.
    if (ticks.empty() || std::log(value / ticks.back()) * pixels_per_e >= 34)
      ticks.push_back(value);
  }
  return {
      {"field", "L"},
      {"type", "quantitative"},
      {"title", "Sequence length L (tokens, log scale)"},
      {"scale",
       {{"type", "log"}, {"base", 2}, {"domain", {low, high}}, {"nice", false}, {"padding", 6}}},
      {"axis",
       {{"values", ticks},
        {"labelExpr",
         "datum.value>=1024 ? format(datum.value/1024,'.3~r')+'k' : format(datum.value,'~r')"},
        {"labelOverlap", false},
        {"grid", false}}}};
}

Json log_value_axis(const std::string& title, const std::string& unit, Span domain) {
  return {{"type", "quantitative"},
          {"title", title},
          {"scale", {{"type", "log"}, {"domain", {domain.low, domain.high}}, {"nice", false}}},
          {"axis", {{"values", log_ticks(domain, unit)}, {"labelExpr", label_expression(unit)}}}};
}

Json panels(const char* field, const std::vector<std::string>& order) {
  return {{"field", field},
          {"type", "nominal"},
          {"title", nullptr},
          {"sort", order},
          {"header", {{"labelAnchor", "start"}}}};
}

Json categories(const std::vector<std::string>& names, const std::vector<std::string>& colours) {
  return {{"field", "name"},
          {"type", "nominal"},
          {"title", nullptr},
          {"scale", {{"domain", names}, {"range", colours}}}};
}

}  // namespace dsa::report::theme
