#include "harness/gate_config.h"

#include "harness/config_text.h"

#include <cmath>

namespace dsa {

double seconds_of(const std::string& field, const std::string& text) {
  double unit = 1;
  std::string number = text;
  if (!text.empty()) {
    const char last = text.back();
    if (last == 's' || last == 'm' || last == 'h') {
      unit = last == 's' ? 1 : last == 'm' ? 60 : 3600;
      number.pop_back();
    }
  }
  double value = 0;
  try {
    value = unit * config_text::parsed<double>(field, number);
  } catch (const Error&) {
    value = -1;
  }
  require(value > 0 && std::isfinite(value), field, " is \"", text,
          "\"; it takes a time such as 90s, 10m or 1h");
  return value;
}

double share_of(const std::string& field, const std::string& text) {
  const bool percent = !text.empty() && text.back() == '%';
  double value = -1;
  try {
    value = config_text::parsed<double>(field, percent ? text.substr(0, text.size() - 1) : text);
  } catch (const Error&) {
    value = -1;
  }
  require(value >= 0 && std::isfinite(value), field, " is \"", text,
          "\"; it takes a number or a share such as 0.03 or 3%");
  return percent ? value / 100 : value;
}

std::vector<Tolerance> tolerances_of(const GateConfig& config) {
  std::vector<Tolerance> all;
  for (const std::string& text : config.tolerances) {
    const size_t equals = text.find('=');
    require(equals != std::string::npos && equals > 0, "--gate.tolerances has \"", text,
            "\"; it takes quantity=amount, as in flops=0% or selection_recall=0.005");
    Tolerance& one = all.emplace_back();
    one.quantity = text.substr(0, equals);
    const std::string amount = text.substr(equals + 1), field = "--gate.tolerances " + one.quantity;
    const size_t both = amount.find("%+");
    const std::string share = both == std::string::npos ? amount : amount.substr(0, both + 1);
    (share.ends_with('%') ? one.share : one.amount) = share_of(field, share);
    if (both == std::string::npos) continue;
    const std::string rest = amount.substr(both + 2);
    require(!rest.ends_with('%'), field, " is \"", amount,
            "\"; it takes one share, and an amount beyond it, as in 10%+2e6");
    one.amount = share_of(field, rest);
  }
  return all;
}

void check(const GateConfig& c) {
  for (const auto& [field, value] : {std::pair{"base", c.base}, std::pair{"head", c.head}}) {
    require(!value.empty(), "gate needs --", field, " PATH, the dsa-bench of the ", field,
            " commit");
  }
  seconds_of("--gate.budget", c.budget);
  seconds_of("--gate.time-limit", c.time_limit);
  for (const auto& [field, text] : {std::pair{"--gate.min-effect", c.min_effect},
                                    std::pair{"--gate.macro-min-effect", c.macro_min_effect}}) {
    const double effect = share_of(field, text);
    require(effect > 0 && effect < 1, field, " is ", text, "; it must be between 0% and 100%");
  }
  require(c.alpha > 0 && c.alpha < 0.5, "--gate.alpha is ", c.alpha,
          "; it must be between 0 and 0.5");
  require(c.rounds >= 2 && c.most_rounds >= c.rounds, "--gate.rounds and --gate.most-rounds are ",
          c.rounds, " and ", c.most_rounds, "; they must be at least 2, and not fewer at most");
  require(c.certificate_slowdown > 1, "--gate.certificate-slowdown is ", c.certificate_slowdown,
          "; it must be more than 1");
  for (const std::string& effect : {c.min_effect, c.macro_min_effect}) {
    require(!c.certificate || c.certificate_slowdown > 1 + share_of("--gate.min-effect", effect),
            "--gate.certificate-slowdown is ", c.certificate_slowdown, ", which an effect of ",
            effect, " would not find; give more");
  }
  require(c.inconclusive == "fail" || c.inconclusive == "pass", "--gate.inconclusive is \"",
          c.inconclusive, "\"; it takes fail or pass");
  for (const std::string& text : c.renamed) {
    const size_t equals = text.find('=');
    require(equals != std::string::npos && equals > 0 && equals + 1 < text.size(),
            "--gate.renamed has \"", text, "\"; it takes OLD=NEW");
  }
  tolerances_of(c);
}

}  // namespace dsa
