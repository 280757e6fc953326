// Lines over sequence length on log-log axes, with bands, labels at the line ends, a crossover
// rule and slope guides: throughput, kernel time and peak memory are all this one picture.
#pragma once
#include "reports/theme.h"

namespace dsa::report {

struct Line {
  std::string name;
  theme::Look look;
  double width = 2.5;
  struct Point {
    double length = 0;
    Summary value;
  };
  std::vector<Point> points;
};

struct LineChart {
  std::string id, title, subtitle;
  Text caption;
  std::string y_title, unit;
  std::vector<Line> lines;
  Crossover crossing;
  struct Guide {
    double slope;  ///< 1: grows like L, 2: like L squared
    std::string label;
  };
  std::vector<Guide> guides;
};

/// Nothing to draw (no line with a positive value) gives a chart with an empty id.
Chart draw(const LineChart& chart);

/// "DSA overtakes dense near L = 1.7k", or what the data say instead.
std::string finding(const Crossover& crossing, const std::string& candidate,
                    const std::string& baseline, const std::vector<double>& lengths);

}  // namespace dsa::report
