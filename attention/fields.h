// A config struct lists its fields once, in `visit_fields`. The command line, --help, the TOML
// file, the JSON record and the tests' equality are all made from that list.
//
//   template <class C, class V> requires is_a<C, DataConfig>
//   void visit_fields(C& c, V&& v) {
//     auto& [path, seed] = c;                 // forgetting a field here does not compile
//     v("path", path, "tokens, uint16 little-endian");
//     v("seed", seed, "of the batch order");
//   }
//
// Field types: bool, int64_t, uint64_t, double, std::string, std::vector of those, or another
// config struct (its fields become `name.field`). Standard library only.
#pragma once
#include <concepts>
#include <sstream>
#include <stdexcept>
#include <string>
#include <type_traits>

namespace dsa {

template <class C, class T>
concept is_a = std::same_as<std::remove_const_t<C>, T>;

/// A mistake the user can fix. what() is one sentence: what was asked, what was found, what to do.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// Throws Error with the parts streamed into one sentence, unless `holds`.
template <class... Parts>
void require(bool holds, const Parts&... parts) {
  if (holds) return;
  std::ostringstream sentence;
  (sentence << ... << parts);
  throw Error(sentence.str());
}

}  // namespace dsa
