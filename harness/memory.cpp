#include "harness/memory.h"

#include <algorithm>
#include <fstream>
#include <malloc.h>
#include <string>

namespace dsa {
namespace {

constexpr int kMebibyte = 1 << 20;
bool keeping_freed_memory = false;

/// A line of /proc/self/status in bytes, e.g. "VmHWM".
std::optional<double> status_bytes(const std::string& field) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with(field + ":")) return 1024 * std::stod(line.substr(field.size() + 1));
  }
  return std::nullopt;
}

bool reset_high_water_mark() {
  std::ofstream file("/proc/self/clear_refs");
  file << "5" << std::flush;
  return file.good();
}

/// Every block of 64 KiB or more is mapped anew and unmapped when freed.
void map_large_blocks() {
  mallopt(M_MMAP_MAX, 1 << 20);
  mallopt(M_MMAP_THRESHOLD, 64 << 10);
  mallopt(M_TRIM_THRESHOLD, 128 << 10);
}

void restore_allocator() {
  if (keeping_freed_memory) {
    keep_freed_memory();
  } else {
    // glibc cannot be asked what was set; these are its defaults (its own adapting stays off).
    mallopt(M_MMAP_MAX, 65536);
    mallopt(M_MMAP_THRESHOLD, 128 << 10);
    mallopt(M_TRIM_THRESHOLD, 128 << 10);
  }
}

}  // namespace

std::optional<double> resident_bytes() {
  return status_bytes("VmRSS");
}

std::optional<double> peak_resident_bytes() {
  return status_bytes("VmHWM");
}

std::optional<double> peak_bytes(const std::function<void()>& work) {
  map_large_blocks();
  malloc_trim(0);
  // An exception of `work` must not leave the slow allocator behind.
  struct Restore {
    ~Restore() { restore_allocator(); }
  } const restore;
  if (!reset_high_water_mark()) return std::nullopt;
  const auto before = resident_bytes();
  work();
  const auto peak = peak_resident_bytes();
  if (!before || !peak) return std::nullopt;
  return std::max(0.0, *peak - *before);
}

void keep_freed_memory() {
  keeping_freed_memory = true;
  mallopt(M_MMAP_MAX, 0);
  mallopt(M_TRIM_THRESHOLD, 2047 * kMebibyte);  // an int, so this is the most it takes
  mallopt(M_TOP_PAD, 64 * kMebibyte);
}

}  // namespace dsa
