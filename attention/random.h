// Random numbers that have the same bits on every platform and standard library (the distributions
// of <random> do not): SplitMix64, keyed by what the number is for, so that draws need no order.
#pragma once
#include <cstdint>

namespace dsa {

/// The finaliser of SplitMix64: a bijection that spreads every input bit over the output.
inline uint64_t mixed(uint64_t x) {
  x += 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

class Random {
 public:
  /// A stream of its own for each (seed, a, b), e.g. (seed, step, row of the batch).
  explicit Random(uint64_t seed, uint64_t a = 0, uint64_t b = 0)
      : state_(mixed(mixed(mixed(seed) ^ a) ^ b)) {}

  uint64_t next() {
    const uint64_t value = mixed(state_);
    state_ += 0x9e3779b97f4a7c15u;
    return value;
  }

  /// Uniform in [0, limit), limit > 0. Rejects the ragged end, so no value is favoured.
  uint64_t below(uint64_t limit) {
    const uint64_t ragged = (0 - limit) % limit;  // 2^64 mod limit
    uint64_t value = next();
    while (value < ragged) value = next();
    return value % limit;
  }

 private:
  uint64_t state_;
};

}  // namespace dsa
