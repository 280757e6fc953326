// Peak memory of a piece of work, from the kernel's own high-water mark of resident memory.
#pragma once
#include <functional>
#include <optional>

namespace dsa {

/// Resident bytes `work` needed above what was resident before it: the heap is trimmed first and
/// every large block goes through mmap while it runs, so that memory kept by the allocator from
/// earlier work does not hide it. An untimed pass: never time `work` in here. Nothing where the
/// operating system does not let us reset the mark.
std::optional<double> peak_bytes(const std::function<void()>& work);

/// Resident now, and at most since the process began (or the mark was reset), in bytes.
std::optional<double> resident_bytes();
std::optional<double> peak_resident_bytes();

/// Called once at start of an executable: large malloc blocks are kept and reused instead of being
/// mapped anew in every call (page faults made torch's gather 2 times slower and noisy).
void keep_freed_memory();

}  // namespace dsa
