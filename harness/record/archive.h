// Structs as JSON. Every struct lists its fields once, in a function `fields(archive, struct)`; the two
// archives here write and read through that list.
#pragma once
#include "harness/record/record.h"

#include <nlohmann/json.hpp>

#include <cmath>
#include <limits>
#include <stdexcept>

namespace dsa::record {

using Json = nlohmann::ordered_json;

inline constexpr const char* kBetterNames[] = {"lower", "higher", "neither"};

template <class A> void fields(A& a, Quantity& q) {
  a("name", q.name), a("unit", q.unit), a("better", q.better);
}

inline Json number(double value) { return std::isfinite(value) ? Json(value) : Json(nullptr); }

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

inline std::string strict_text(const Json& json) {
  return json.dump(1, ' ', false, Json::error_handler_t::replace) + "\n";
}

inline std::string versioned(int version, const Json& fields) {
  Json out = {{"version", version}};
  out.update(fields);
  return strict_text(out);
}

inline Json of_version(int newest, const std::string& what, const std::string& text) {
  Json in = Json::parse(text);
  const int version = in.value("version", 0);
  if (version > newest) {
    throw std::runtime_error(what + " version " + std::to_string(version) + " is newer than " +
                             std::to_string(newest) + ", which this build reads; use a newer build");
  }
  return in;
}

}  // namespace dsa::record
