#include "harness/record/record.h"

#include <nlohmann/json.hpp>

#include <cmath>
#include <limits>
#include <stdexcept>

namespace dsa::record {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kBetterNames[] = {"lower", "higher", "neither"};

// Every struct lists its fields once; the two archives below write and read through that list.
template <class A> void fields(A& a, Quantity& q) {
  a("name", q.name), a("unit", q.unit), a("better", q.better);
}
template <class A> void fields(A& a, Metric& m) {
  a("quantity", m.quantity), a("labels", m.labels), a("samples", m.samples);
}
template <class A> void fields(A& a, Series& s) {
  a("x", s.x), a("y", s.y), a("labels", s.labels), a("xs", s.xs), a("ys", s.ys);
}
template <class A> void fields(A& a, Audit& t) {
  a("name", t.name), a("labels", t.labels), a("passed", t.passed), a("observed", t.observed);
  a("required", t.required), a("unit", t.unit), a("detail", t.detail);
}
template <class A> void fields(A& a, VariantInfo& v) {
  a("name", v.name), a("summary", v.summary), a("role", v.role), a("colour_slot", v.colour_slot);
  a("baseline", v.baseline);
}
template <class A> void fields(A& a, BackendInfo& b) {
  a("name", b.name), a("description", b.description), a("role", b.role);
}
template <class A> void fields(A& a, Failure& f) {
  a("id", f.id), a("status", f.status), a("reason", f.reason), a("labels", f.labels);
}
template <class A> void fields(A& a, Run& r) {
  a("id", r.id), a("command", r.command), a("started", r.started), a("ended", r.ended);
  a("status", r.status), a("error", r.error), a("build", r.build), a("machine", r.machine);
  a("config", r.config_json), a("variants", r.variants), a("backends", r.backends);
  a("metrics", r.metrics), a("series", r.series), a("reference_series", r.reference_series);
  a("audits", r.audits);
}


Json number(double value) { return std::isfinite(value) ? Json(value) : Json(nullptr); }

struct Writer {
  Json out = Json::object();

  template <class T> static Json value(const T& t) {
    if constexpr (std::is_same_v<T, double>) {
      return number(t);
    } else if constexpr (std::is_same_v<T, Quantity::Better>) {
      return kBetterNames[static_cast<int>(t)];
    } else if constexpr ((std::is_constructible_v<Json, T> && !std::is_class_v<T>) ||
                         std::is_same_v<T, std::string> ||
                         std::is_same_v<T, std::map<std::string, std::string>>) {
      return t;
    } else {
      Writer writer;
      fields(writer, const_cast<T&>(t));
      return writer.out;
    }
  }
  template <class T> static Json value(const std::vector<T>& list) {
    Json array = Json::array();
    for (const T& item : list) array.push_back(value(item));
    return array;
  }
  template <class T> void operator()(const char* key, T& field) {
    // The configuration is JSON already: embedded as an object, not as a quoted string.
    const bool embedded = std::string_view(key) == "config";
    if constexpr (std::is_same_v<T, std::string>) {
      if (embedded) {
        out[key] = field.empty() ? Json::object() : Json::parse(field);
        return;
      }
    }
    out[key] = value(field);
  }
};

struct Reader {
  const Json& in;

  static void read(const Json& j, double& v) {
    v = j.is_null() ? std::numeric_limits<double>::quiet_NaN() : j.get<double>();
  }
  static void read(const Json& j, Quantity::Better& v) {
    const auto name = j.get<std::string>();
    for (int i = 0; i < 3; ++i) {
      if (name == kBetterNames[i]) v = static_cast<Quantity::Better>(i);
    }
  }
  template <class T> static void read(const Json& j, std::vector<T>& list) {
    list.clear();
    for (const Json& item : j) read(item, list.emplace_back());
  }
  template <class T> static void read(const Json& j, T& v) {
    if constexpr (std::is_class_v<T> && !std::is_same_v<T, std::string> &&
                  !std::is_same_v<T, std::map<std::string, std::string>>) {
      Reader reader{j};
      fields(reader, v);
    } else {
      v = j.get<T>();
    }
  }
  template <class T> void operator()(const char* key, T& field) {
    const auto found = in.find(key);
    if (found == in.end()) return;
    if constexpr (std::is_same_v<T, std::string>) {
      if (std::string_view(key) == "config") {
        field = found->dump();
        return;
      }
    }
    read(*found, field);
  }
};

}  // namespace

std::string to_json(const Run& run) {
  Json out = {{"version", kVersion}};
  out.update(Writer::value(run));
  return out.dump(1, ' ', false, Json::error_handler_t::replace) + "\n";
}

Run from_json(const std::string& text) {
  const Json in = Json::parse(text);
  const int version = in.value("version", 0);
  if (version > kVersion) {
    throw std::runtime_error("record version " + std::to_string(version) + " is newer than " +
                             std::to_string(kVersion) + ", which this build reads; use a newer build");
  }
  Run run;
  Reader::read(in, run);
  return run;
}

std::string to_json(const std::vector<Failure>& failures) {
  return Writer::value(failures).dump(1, ' ', false, Json::error_handler_t::replace) + "\n";
}

std::vector<Failure> failures_from_json(const std::string& text) {
  std::vector<Failure> failures;
  Reader::read(Json::parse(text), failures);
  return failures;
}

}  // namespace dsa::record
