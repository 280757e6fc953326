// Memory a kernel call needs besides its results: thread-local, kept from call to call, only ever
// growing. A fresh mapping per call costs page faults, and up to 12 ms when two threads map at
// once. Never included by ISA files: they get pointers.
#pragma once
#include <cstdint>

namespace dsa::cpu {

/// Who asks. Two slots of one thread never share memory.
enum class Slot {
  kAttendCall,   ///< by the calling thread, shared by its workers: repacked tensors
  kAttendTask,   ///< by each worker, for one block of queries
  kAttendRows,   ///< by each worker, for the rows one query selects
  kAttendLists,  ///< transposed selection of the backward pass
  kAttendOrder,  ///< in which order its blocks read rows
  kSelectCall,
  kSelectTask,
  kSelectBuffer,
  kSelectChunk,  ///< by each worker: packed keys of one chunk
  kScreenCall,
  kQuantizeCall,  ///< by the calling thread: int8 copies and their scales
  kCount,
};

/// At least `bytes` bytes of this thread's `slot`, 64-byte aligned, contents undefined. Valid until
/// this thread asks for the same slot again. From 2 MiB on, huge pages are asked for.
void* scratch_bytes(Slot slot, int64_t bytes);

template <class T>
T* scratch(Slot slot, int64_t count) {
  return static_cast<T*>(scratch_bytes(slot, count * static_cast<int64_t>(sizeof(T))));
}

/// Asks for huge pages under fresh memory of a result, where it spans some: the first touch of a
/// 4 KiB page costs 3 us here, a sixth of a call that shares rows between heads.
void advise_huge_pages(void* memory, int64_t bytes);

/// Bytes held by the scratch of all threads now.
int64_t scratch_live_bytes();

/// Gives this thread's scratch back to the system, for measurements of memory.
void release_scratch();

}  // namespace dsa::cpu
