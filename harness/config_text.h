// Values of configuration fields as text, and back: what flags, files and error sentences share.
#pragma once
#include "attention/fields.h"

#include <nlohmann/json.hpp>

#include <charconv>
#include <string>
#include <vector>

namespace dsa::config_text {

template <class T>
struct ListOf : std::false_type {};
template <class T>
struct ListOf<std::vector<T>> : std::true_type {
  using Item = T;
};

template <class T>
constexpr const char* kind() {
  if constexpr (std::is_same_v<T, bool>) return "true or false";
  if constexpr (std::is_same_v<T, uint64_t>) return "a whole number of at least 0";
  if constexpr (std::is_integral_v<T>) return "a whole number";
  if constexpr (std::is_floating_point_v<T>) return "a number";
  return "text";
}

/// @param field  as the user knows it: "--train.steps", "[top-k] goal"
/// @throws Error if `text` is no value of type T
template <class T>
T parsed(const std::string& field, const std::string& text) {
  if constexpr (std::is_same_v<T, std::string>) {
    return text;
  } else if constexpr (std::is_same_v<T, bool>) {
    require(text == "true" || text == "false", field, " takes true or false, not \"", text, "\"");
    return text == "true";
  } else {
    T value{};
    const char* end = text.data() + text.size();
    const auto [stop, error] = std::from_chars(text.data(), end, value);
    require(error == std::errc() && stop == end, field, " takes ", kind<T>(), ", not \"", text,
            "\"");
    return value;
  }
}

/// Reads the words of a flag or a file's line: a list takes all of them, anything else the last.
template <class T>
void read(const std::string& field, const std::vector<std::string>& words, T& value) {
  if constexpr (ListOf<T>::value) {
    value.clear();
    for (const auto& word : words) {
      if (!word.empty()) value.push_back(parsed<typename ListOf<T>::Item>(field, word));
    }
  } else {
    value = parsed<T>(field, words.back());
  }
}

template <class T>
std::string shown(const T& value) {
  if constexpr (ListOf<T>::value) {
    std::string text;
    for (const auto& item : value) text += (text.empty() ? "" : ",") + shown(item);
    return text;
  } else if constexpr (std::is_same_v<T, std::string>) {
    return value;
  } else {
    return nlohmann::ordered_json(value).dump();
  }
}

}  // namespace dsa::config_text
