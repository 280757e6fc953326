// How every chart looks: Vega-Lite configuration, colours by slot, axes over sequence length,
// ticks. Charts decide what to draw; this file decides what it looks like.
#pragma once
#include "reports/text.h"

#include <nlohmann/json.hpp>

#include <string>
#include <vector>

namespace dsa::report {

using Json = nlohmann::ordered_json;

/// A Vega-Lite v6 specification with its data inline: complete on its own, no network needed.
struct Chart {
  std::string id;     ///< file stem
  std::string title;  ///< the finding
  Text caption;       ///< how to read it: what a point is, n, interval
  Json spec;
};

namespace theme {

/// Colour and dash of a slot: blue baseline, red candidate, orange third, the rest greys that
/// differ by shape and dash, so that print and colour-blind readers can tell them apart.
struct Look {
  std::string colour, shape;
  Json dash;
};
Look look(int slot);
std::string tint(const std::string& colour);  ///< the same hue, half way to white
std::string stage_colour(const std::string& stage,
                         int position);   ///< attention, indexer, top-k in colour
bool is_dark(const std::string& colour);  ///< white text is readable on it

inline constexpr const char *kGuide = "#6B7280", *kInk = "#1F2937";

/// $schema, config and title; `subtitle` is wrapped to the width of the plot.
Json base(const std::string& title, const std::string& subtitle, int width = 560);
std::vector<std::string> wrapped(const std::string& text, size_t columns);

/// Rounded to `digits` significant digits; null if not finite.
Json rounded(double value, int digits = 5);

struct Span {
  double low = 1, high = 2;
};
Json log_ticks(Span domain, const std::string& unit);
/// x encoding over lengths, log scale, a tick for each that has room.
Json length_axis(const std::vector<double>& lengths, int width, Span* domain = nullptr);
Json log_value_axis(const std::string& title, const std::string& unit, Span domain);
std::string label_expression(const std::string& unit);
/// One facet a value of `field`, in this order, titles above the panels.
Json panels(const char* field, const std::vector<std::string>& order);
Json categories(const std::vector<std::string>& names, const std::vector<std::string>& colours);

}  // namespace theme
}  // namespace dsa::report
