#include "reports/line_chart.h"

#include <algorithm>
#include <cmath>
#include <set>

namespace dsa::report {
namespace {

constexpr int kWidth = 560, kHeight = 320;

bool drawable(const Line::Point& point) {
  return point.value.n > 0 && point.value.median > 0 && std::isfinite(point.value.median) &&
         point.length > 0;
}

/// Everything the layers share.
struct Frame {
  std::vector<double> lengths;
  theme::Span x, y;
  Json x_axis, y_axis, colour;
  Json encoding(const char* field) const {
    Json y_encoding = y_axis;
    y_encoding["field"] = field;
    return {{"x", x_axis}, {"y", y_encoding}, {"color", colour}};
  }
};

Frame frame_of(const LineChart& chart) {
  Frame out;
  std::set<double> lengths;
  std::vector<std::string> names, colours;
  double low = INFINITY, high = 0;
  for (const Line& line : chart.lines) {
    names.push_back(line.name);
    colours.push_back(line.look.colour);
    for (const Line::Point& point : line.points) {
      if (!drawable(point)) continue;
      lengths.insert(point.length);
      low = std::min(low, point.value.low > 0 ? point.value.low : point.value.median);
      high = std::max(high, point.value.high);
    }
  }
  out.lengths.assign(lengths.begin(), lengths.end());
  if (lengths.empty()) return out;
  const double pad = high / low < 1.02 ? 1.2 : std::clamp(std::pow(high / low, 0.1), 1.04, 1.2);
  // Guides start below every line, where nothing hides them.
  out.y = {low / (chart.guides.empty() ? pad : 4), high * pad};
  out.x_axis = theme::length_axis(out.lengths, kWidth, &out.x);
  out.y_axis = theme::log_value_axis(chart.y_title, chart.unit, out.y);
  out.colour = theme::categories(names, colours);
  out.colour["legend"] = nullptr;
  return out;
}

Json point_values(const LineChart& chart) {
  Json values = Json::array();
  for (const Line& line : chart.lines) {
    for (const Line::Point& point : line.points) {
      if (!drawable(point)) continue;
      const Summary& v = point.value;
      values.push_back({{"name", line.name},
                        {"L", theme::rounded(point.length, 9)},
                        {"median", theme::rounded(v.median)},
                        {"low", theme::rounded(v.low > 0 ? v.low : v.median)},
                        {"high", theme::rounded(v.high)},
                        {"n", v.n},
                        {"width", line.width}});
    }
  }
  return values;
}

struct EndLabel {
  std::string name;
  double length, value;
  double pixel;
};

/// Labels of lines that end close together are pushed apart until each has its own line of text.
Json end_labels(const LineChart& chart, const Frame& frame) {
  constexpr double kGap = 15;
  const double span = std::log(frame.y.high / frame.y.low);
  std::vector<EndLabel> labels;
  for (const Line& line : chart.lines) {
    const Line::Point* last = nullptr;
    for (const Line::Point& point : line.points) {
      if (drawable(point) && (!last || point.length > last->length)) last = &point;
    }
    if (!last) continue;
    labels.push_back({line.name, last->length, last->value.median,
                      kHeight * std::log(frame.y.high / last->value.median) / span});
  }
  std::sort(labels.begin(), labels.end(), [](const EndLabel& a, const EndLabel& b) {
    return a.length != b.length ? a.length < b.length : a.pixel < b.pixel;
  });
  // Down from the top, then up from the bottom edge if the last ones were pushed out.
  for (size_t i = 1; i < labels.size(); ++i) {
    if (labels[i].length != labels[i - 1].length) continue;
    labels[i].pixel = std::max(labels[i].pixel, labels[i - 1].pixel + kGap);
  }
  for (size_t i = labels.size(); i-- > 0;) {
    const bool lowest = i + 1 == labels.size() || labels[i + 1].length != labels[i].length;
    labels[i].pixel = std::min(labels[i].pixel, lowest ? kHeight - 4 : labels[i + 1].pixel - kGap);
  }
  Json values = Json::array();
  for (const EndLabel& one : labels) {
    const double y = frame.y.high * std::exp(-one.pixel / kHeight * span);
    values.push_back(
        {{"name", one.name}, {"L", theme::rounded(one.length, 9)}, {"y", theme::rounded(y)}});
  }
  return values;
}

/// Guides are labelled like lines, so that nothing overlaps at the right edge.
Json label_layers(const LineChart& chart, const Frame& frame) {
  Json halo_encoding = frame.encoding("y");
  halo_encoding["text"] = {{"field", "name"}};
  Json text_encoding = halo_encoding;
  halo_encoding.erase("color");
  const Json mark = {{"type", "text"}, {"align", "left"}, {"baseline", "middle"},
                     {"dx", 10},       {"fontSize", 12},  {"fontWeight", 600}};
  Json halo = mark;
  halo.update({{"stroke", "#FFFFFF"}, {"strokeWidth", 4}, {"color", "#FFFFFF"}});
  return {{"data", {{"values", end_labels(chart, frame)}}},
          {"layer",
           {{{"mark", halo}, {"encoding", halo_encoding}},
            {{"mark", mark}, {"encoding", text_encoding}}}}};
}

Json crossover_layer(const Crossover& crossing, const Frame& frame) {
  std::string text = "crossover L ≈ " + length(crossing.at);
  if (crossing.low && crossing.high) {
    text += " [" + length(*crossing.low) + ", " + length(*crossing.high) + "]";
  }
  const double place = std::log(crossing.at / frame.x.low) / std::log(frame.x.high / frame.x.low);
  const bool right = place > 0.6;
  return {{"data", {{"values", {{{"L", theme::rounded(crossing.at)}, {"label", text}}}}}},
          {"layer",
           {{{"mark",
              {{"type", "rule"},
               {"strokeDash", {5, 4}},
               {"color", theme::kGuide},
               {"strokeWidth", 1.5}}},
             {"encoding", {{"x", frame.x_axis}}}},
            {{"mark",
              {{"type", "text"},
               {"align", right ? "right" : "left"},
               {"dx", right ? -6 : 6},
               {"baseline", "top"},
               {"color", theme::kGuide}}},
             {"encoding",
              {{"x", frame.x_axis}, {"y", {{"value", 2}}}, {"text", {{"field", "label"}}}}}}}}};
}

/// A thin line of known slope from the lower left, so the eye can compare growth.
Json guide_layer(const LineChart::Guide& guide, const Frame& frame) {
  const double start = frame.y.low * 1.25;
  double end_x = frame.x.high;
  double end_y = start * std::pow(end_x / frame.x.low, guide.slope);
  if (end_y > frame.y.high) {
    end_y = frame.y.high;
    end_x = frame.x.low * std::pow(end_y / start, 1 / guide.slope);
  }
  const Json values = {
      {{"L", theme::rounded(frame.x.low)}, {"y", theme::rounded(start)}, {"label", ""}},
      {{"L", theme::rounded(end_x)}, {"y", theme::rounded(end_y)}, {"label", guide.label}}};
  Json encoding = frame.encoding("y");
  encoding.erase("color");
  Json text_encoding = encoding;
  text_encoding["text"] = {{"field", "label"}};
  return {{"data", {{"values", values}}},
          {"layer",
           {{{"mark",
              {{"type", "line"}, {"strokeDash", {2, 3}}, {"strokeWidth", 1}, {"color", "#9CA3AF"}}},
             {"encoding", encoding}},
            {{"mark", {{"type", "text"}, {"align", "left"}, {"dx", 10}, {"color", theme::kGuide}}},
             {"encoding", text_encoding}}}}};
}

Json by_name(const LineChart& chart, Json (*pick)(const Line&)) {
  Json names = Json::array(), range = Json::array();
  for (const Line& line : chart.lines) {
    names.push_back(line.name);
    range.push_back(pick(line));
  }
  return {{"field", "name"},
          {"type", "nominal"},
          {"legend", nullptr},
          {"scale", {{"domain", names}, {"range", range}}}};
}

Json line_layers(const LineChart& chart, const Frame& frame) {
  Json band = frame.encoding("low");
  band["y2"] = {{"field", "high"}};
  Json line = frame.encoding("median");
  line["strokeDash"] = by_name(chart, [](const Line& l) { return l.look.dash; });
  Json point = frame.encoding("median");
  point["shape"] = by_name(chart, [](const Line& l) { return Json(l.look.shape); });
  point["tooltip"] = {{{"field", "name"}, {"title", "series"}},
                      {{"field", "L"}},
                      {{"field", "median"}, {"title", chart.unit}, {"format", ".4~g"}},
                      {{"field", "low"}, {"format", ".4~g"}},
                      {{"field", "high"}, {"format", ".4~g"}},
                      {{"field", "n"}, {"title", "samples"}}};
  Json layers =
      Json::array({{{"mark", {{"type", "area"}, {"opacity", 0.18}}}, {"encoding", band}}});
  // A layer a width: lines ignore the strokeWidth channel.
  std::set<double> widths;
  for (const Line& one : chart.lines) widths.insert(one.width);
  for (double width : widths) {
    const std::string filter = "datum.width == " + Json(width).dump();
    layers.push_back({{"transform", Json::array({{{"filter", filter}}})},
                      {"mark", {{"type", "line"}, {"strokeWidth", width}}},
                      {"encoding", line}});
  }
  layers.push_back({{"mark", {{"type", "point"}, {"filled", true}, {"size", 55}, {"opacity", 1}}},
                    {"encoding", point}});
  return layers;
}

}  // namespace

Chart draw(const LineChart& chart) {
  const Frame frame = frame_of(chart);
  if (frame.lengths.empty()) return {};
  Json spec = theme::base(chart.title, chart.subtitle, kWidth);
  spec["width"] = kWidth;
  spec["height"] = kHeight;
  Json layers = Json::array();
  for (const LineChart::Guide& guide : chart.guides) layers.push_back(guide_layer(guide, frame));
  if (chart.crossing.kind == Crossover::Kind::kRises) {
    layers.push_back(crossover_layer(chart.crossing, frame));
  }
  layers.push_back(
      {{"data", {{"values", point_values(chart)}}}, {"layer", line_layers(chart, frame)}});
  layers.push_back(label_layers(chart, frame));
  spec["layer"] = layers;
  return {chart.id, chart.title, chart.caption, spec};
}

std::string finding(const Crossover& crossing, const std::string& candidate,
                    const std::string& baseline, const std::vector<double>& lengths) {
  if (lengths.empty()) return candidate + " beside " + baseline;
  const std::string range = lengths.front() == lengths.back()
                                ? "L = " + length(lengths.front())
                                : "L = " + length(lengths.front()) + "–" + length(lengths.back());
  switch (crossing.kind) {
    case Crossover::Kind::kRises:
      return candidate + " overtakes " + baseline + " near L = " + length(crossing.at);
    case Crossover::Kind::kAlwaysAbove:
      return candidate + (crossing.clear ? " is faster than " : " is no slower than ") + baseline +
             " throughout " + range;
    case Crossover::Kind::kAlwaysBelow:
      return candidate + (crossing.clear ? " is slower than " : " is no faster than ") + baseline +
             " throughout " + range;
    case Crossover::Kind::kEven:
      return candidate + " and " + baseline + " are within the noise of each other, " + range;
    case Crossover::Kind::kFallsBack:
      return candidate + " is ahead of " + baseline + " only at shorter lengths";
    case Crossover::Kind::kNoData:
      break;
  }
  return candidate + " beside " + baseline + ", " + range;
}

}  // namespace dsa::report
