// The process-wide table of mappings that JavaScript holds, and the SIGBUS guard that reads it.
#pragma once

#include <cstddef>
#include <cstdint>

namespace doorbell {

constexpr size_t kPage = 4096;  // the x86-64 base page

constexpr int64_t kMaxAddress = int64_t{1} << 47;  // exclusive: where a process's addresses end

// The next multiple of `unit`, a power of two.
constexpr size_t RoundUp(size_t value, size_t unit) { return (value + unit - 1) & ~(unit - 1); }

struct Mapping {
  uintptr_t base;   // what was mmapped: [base, base + mapped), whole pages of `page` bytes
  size_t mapped;
  uintptr_t data;   // what JavaScript sees: [data, data + length), inside it
  size_t length;
  size_t page;      // page size of the file system: 4 KiB, or that of hugetlbfs
  bool file;        // backed by a file that may be truncated: guarded
  uint32_t owner;   // whom to tell when it is lost, as the caller numbers them; 0: nobody
};

// Adds a mapping. Its slot, or -1 if the table is full.
int AddMapping(const Mapping& mapping);
// Takes a mapping out, before its pages are unmapped.
void RemoveMapping(int slot);
// Finds the live mapping whose JavaScript part holds [address, address + length). Its slot, or -1.
int FindMapping(uintptr_t address, size_t length, Mapping* found);

// What was moved out of the way of zeros, until it is unmapped.
struct Moved {
  uintptr_t base = 0;
  size_t length = 0;
};
// Puts private zero pages over [base, base + length) in place. 0 or errno. Async-signal-safe. The pages of a large mapping are
// not taken down here, but moved: `moved` is then the caller's to give to `UnmapLater`.
int ReplaceWithZeros(uintptr_t base, size_t length, Moved* moved);
// Unmaps in a thread of its own, if there is something.
void UnmapLater(const Moved& moved);

// Keeps the file of a mapping open until `ReleaseFile`, which ends it in another thread. Null, and nothing, if that cannot be.
void* HoldFile(const Mapping& mapping);
void ReleaseFile(void* held);

// Installs the SIGBUS handler, once in the life of the process. 0 or errno.
int GuardAgainstSigbus();
// Mappings that were lost: the handler has put zeros over them.
uint64_t SigbusCount();
// An eventfd that is signalled when one is lost, never to be closed. Or -errno.
int SigbusEvent();
// Whether the live mapping in a slot is lost.
bool IsLost(int slot);
// Hands every owner that has lost mappings since the last call to `tell`, once a mapping.
void TakeLost(void (*tell)(uint32_t owner, void* hint), void* hint);

}  // namespace doorbell
