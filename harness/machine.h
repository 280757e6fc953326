// What machine and what build made a number. Unknown things are left out, never guessed.
#pragma once
#include "attention/ceilings.h"

#include <chrono>
#include <map>
#include <optional>
#include <string>

namespace dsa {

std::map<std::string, std::string>
machine_facts();  ///< cpu, isa, cores, caches, memory, governor, os
std::map<std::string, std::string> build_facts();  ///< git, dirty, compiler, flags, type, torch
/// Measured peak rates as facts ("ceiling_f32_flops": "2.41e+11"), and back; nothing if there are none.
std::map<std::string, std::string> facts_of(const Ceilings& ceilings);
std::optional<Ceilings> ceilings_of(const std::map<std::string, std::string>& facts);

/// CPU seconds since boot that went to others than this process, over all CPUs; nothing where the
/// system does not tell. In steps of 0.01 s a CPU.
std::optional<double> cpu_seconds_of_others();

/// The CPUs' worth of work that others did in `wall` seconds, of `cpu_seconds_of_others`.
struct Crowd {
  double others = 0;   ///< CPUs they kept busy
  double missing = 0;  ///< CPUs that our threads had to share with them
};
/// @param threads  ours, @param cpus  of the machine
Crowd crowd(double other_seconds, double wall, double threads, double cpus);

/// Watches the machine from its making on.
class CrowdWatch {
 public:
  CrowdWatch();
  /// Of the time since then; nothing where the system does not tell, or too little time has passed.
  std::optional<Crowd> crowd(double threads) const;

 private:
  std::optional<double> others_;
  std::chrono::steady_clock::time_point start_;
};

/// Why this build must not record timings ("built without optimisation"), or empty.
std::string reason_not_to_time();

}  // namespace dsa
