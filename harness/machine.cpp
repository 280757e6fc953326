#include "harness/machine.h"

#include "attention/cost.h"
#include "harness/build_facts.h"

#include <torch/version.h>

#include <algorithm>
#include <cstdio>
#include <ctime>
#include <fstream>
#include <sched.h>
#include <sstream>
#include <string>
#include <sys/utsname.h>
#include <unistd.h>
#include <vector>

namespace dsa {
namespace {

using Facts = std::map<std::string, std::string>;

std::string first_line(const std::string& file) {
  std::ifstream in(file);
  std::string line;
  std::getline(in, line);
  return line;
}

/// The value of the first "key : value" line; spaces around both are dropped.
std::string value_of(const std::string& file, const std::string& key, char separator) {
  const auto trimmed = [](const std::string& text) {
    const size_t first = text.find_first_not_of(" \t\"");
    const size_t last = text.find_last_not_of(" \t\"");
    return first == std::string::npos ? std::string() : text.substr(first, last - first + 1);
  };
  std::ifstream in(file);
  for (std::string line; std::getline(in, line);) {
    const size_t at = line.find(separator);
    if (at != std::string::npos && trimmed(line.substr(0, at)) == key) {
      return trimmed(line.substr(at + 1));
    }
  }
  return {};
}

/// Those of the vector extensions that decide how fast a kernel can be.
std::string isa_of(const std::string& flags) {
  static const std::vector<std::string> kInteresting = {
      "avx",         "avx2",        "fma",      "avx512f",  "avx512bw", "avx512_vnni",
      "avx512_bf16", "avx512_fp16", "avx_vnni", "amx_tile", "amx_bf16", "amx_int8",
      "asimd",       "asimddp",     "bf16",     "i8mm",     "sve",      "sve2"};
  std::istringstream words(flags);
  std::string found;
  for (std::string word; words >> word;) {
    if (std::find(kInteresting.begin(), kInteresting.end(), word) == kInteresting.end()) continue;
    found += (found.empty() ? "" : " ") + word;
  }
  return found;
}

/// "L1d 32K, L2 1024K, L3 32768K" of the first core.
std::string caches() {
  std::string found;
  for (int index = 0; index < 8; ++index) {
    const std::string folder =
        "/sys/devices/system/cpu/cpu0/cache/index" + std::to_string(index) + "/";
    const std::string level = first_line(folder + "level"), type = first_line(folder + "type");
    const std::string size = first_line(folder + "size");
    if (size.empty() || type == "Instruction") continue;
    found += (found.empty() ? "L" : ", L") + level + (type == "Data" ? "d " : " ") + size;
  }
  return found;
}

std::string usable_cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  return sched_getaffinity(0, sizeof set, &set) == 0 ? std::to_string(CPU_COUNT(&set)) : "";
}

void add_processor(Facts& facts) {
  const char* cpuinfo = "/proc/cpuinfo";
  facts["cpu"] = value_of(cpuinfo, "model name", ':');
  std::string flags = value_of(cpuinfo, "flags", ':');
  if (flags.empty()) flags = value_of(cpuinfo, "Features", ':');  // Arm's word
  facts["isa"] = isa_of(flags);
  facts["cores"] = usable_cores();
  facts["cores_online"] = std::to_string(sysconf(_SC_NPROCESSORS_ONLN));
  facts["threads_per_core_siblings"] =
      first_line("/sys/devices/system/cpu/cpu0/topology/thread_siblings_list");
  facts["caches"] = caches();
  facts["governor"] = first_line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor");
  facts["microcode"] = value_of(cpuinfo, "microcode", ':');
  if ((" " + flags + " ").find(" hypervisor ") != std::string::npos) facts["virtualised"] = "yes";
}

void add_system(Facts& facts) {
  const auto pages = static_cast<int64_t>(sysconf(_SC_PHYS_PAGES));
  facts["memory_bytes"] = std::to_string(pages * sysconf(_SC_PAGESIZE));
  facts["os"] = value_of("/etc/os-release", "PRETTY_NAME", '=');
  facts["transparent_huge_pages"] = first_line("/sys/kernel/mm/transparent_hugepage/enabled");
  utsname kernel;
  if (uname(&kernel) == 0) {
    facts["kernel"] = std::string(kernel.sysname) + " " + kernel.release;
    facts["architecture"] = kernel.machine;
  }
}

/// What could not be found out is left out.
Facts known(Facts facts) {
  std::erase_if(facts, [](const auto& fact) { return fact.second.empty(); });
  return facts;
}

}  // namespace

Facts machine_facts() {
  Facts facts;
  add_processor(facts);
  add_system(facts);
  return known(facts);
}

std::optional<double> cpu_seconds_of_others() {
  std::ifstream in("/proc/stat");
  std::string cpu;
  // Time in virtual guests is part of user and nice; steal is the hypervisor's other guests.
  double user = 0, nice = 0, system = 0, idle = 0, iowait = 0, irq = 0, softirq = 0, steal = 0;
  in >> cpu >> user >> nice >> system >> idle >> iowait >> irq >> softirq >> steal;
  if (!in || cpu != "cpu") return std::nullopt;
  const double all = user + nice + system + irq + softirq + steal;
  const double ours = static_cast<double>(std::clock()) / CLOCKS_PER_SEC;
  return all / static_cast<double>(sysconf(_SC_CLK_TCK)) - ours;
}

Crowd crowd(double other_seconds, double wall, double threads, double cpus) {
  const double others = std::clamp(other_seconds / wall, 0.0, cpus);
  return {others, std::max(0.0, others + threads - cpus)};
}

CrowdWatch::CrowdWatch()
    : others_(cpu_seconds_of_others()), start_(std::chrono::steady_clock::now()) {}

std::optional<Crowd> CrowdWatch::crowd(double threads) const {
  const std::chrono::duration<double> wall = std::chrono::steady_clock::now() - start_;
  const auto others = cpu_seconds_of_others();
  // Shorter than ten ticks of the system's clock says nothing.
  if (!others_ || !others || wall.count() < 0.1) return std::nullopt;
  // All of the machine, as in /proc/stat, not only those this process may use.
  const auto cpus = static_cast<double>(sysconf(_SC_NPROCESSORS_ONLN));
  return dsa::crowd(*others - *others_, wall.count(), threads, cpus);
}

Facts build_facts() {
  return known({{"git", kGitHash},
                {"dirty", kGitDirty},
                {"compiler", kCompiler},
                {"flags", kCompilerFlags},
                {"type", kBuildType},
                {"torch", TORCH_VERSION},
                {"flops_model", kFlopsModel},
                {"unfit", reason_not_to_time()}});
}

Facts facts_of(const Ceilings& ceilings) {
  Facts facts;
  visit_fields(ceilings, [&](const char* name, double value) {
    char text[32];
    std::snprintf(text, sizeof text, "%.4g", value);
    if (value > 0) facts[name] = text;
  });
  return facts;
}

std::optional<Ceilings> ceilings_of(const Facts& facts) {
  Ceilings ceilings;
  visit_fields(ceilings, [&](const char* name, double& value) {
    if (const auto fact = facts.find(name); fact != facts.end()) value = std::stod(fact->second);
  });
  if (ceilings.f32_flops > 0 && ceilings.dram_bytes > 0) return ceilings;
  return std::nullopt;
}

std::string reason_not_to_time() {
#if !defined(__OPTIMIZE__)
  return "built without optimisation; build with -DCMAKE_BUILD_TYPE=Release";
#elif defined(__SANITIZE_ADDRESS__)
  return "built with a sanitizer, which slows everything; build without -DDSA_SANITIZE";
#else
  return "";
#endif
}

}  // namespace dsa
