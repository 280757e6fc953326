// What machine and what build made a number. Unknown things are left out, never guessed.
#pragma once
#include <map>
#include <string>

namespace dsa {

std::map<std::string, std::string> machine_facts();  ///< cpu, isa, cores, caches, memory, governor, os
std::map<std::string, std::string> build_facts();    ///< git, dirty, compiler, flags, type, torch
/// Why this build must not record timings ("built without optimisation"), or empty.
std::string reason_not_to_time();

}  // namespace dsa
