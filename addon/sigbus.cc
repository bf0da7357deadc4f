// The table of mappings and the SIGBUS handler.
//
// A page of a mapped file that its owner has truncated away raises SIGBUS in whoever touches it, and kills the process.
// Guest memory belongs to the VM monitor, which must not have that choice: the handler puts zeros there and returns.
//
// The table is read from the handler, hence lock-free: each slot is a sequence lock. A thread that faults keeps its own
// mapping's slot live, because it holds a reference to the buffer; the sequence guards against changes of other slots.
#include "mappings.h"

#include <signal.h>
#include <sys/mman.h>

#include <atomic>
#include <cerrno>
#include <mutex>

namespace doorbell {
namespace {

// As many as the kernel's default limit of mappings (vm.max_map_count, 65530). Untouched slots cost no memory.
constexpr int kSlots = 65536;
// Single pages replaced in one mapping before all of it is: each page may cost two of the process's mappings.
constexpr uint32_t kMaxFaults = 64;

struct Slot {
  std::atomic<uint32_t> sequence;  // mod 4: 0 free, 1 or 3 changing, 2 live
  std::atomic<uint32_t> faults;
  std::atomic<uintptr_t> base, data;
  std::atomic<size_t> mapped, length, page;
  std::atomic<bool> file;
};

Slot slots[kSlots];
std::atomic<int> used{0};  // slots at and after this were never used
std::atomic<uint64_t> faults{0};
struct sigaction previous;

static_assert(std::atomic<uintptr_t>::is_always_lock_free && std::atomic<uint64_t>::is_always_lock_free);

// A consistent copy of a live slot.
bool ReadSlot(const Slot& slot, Mapping* out) {
  uint32_t sequence = slot.sequence.load(std::memory_order_acquire);
  if ((sequence & 3) != 2) return false;
  out->base = slot.base.load(std::memory_order_relaxed);
  out->mapped = slot.mapped.load(std::memory_order_relaxed);
  out->data = slot.data.load(std::memory_order_relaxed);
  out->length = slot.length.load(std::memory_order_relaxed);
  out->page = slot.page.load(std::memory_order_relaxed);
  out->file = slot.file.load(std::memory_order_relaxed);
  std::atomic_thread_fence(std::memory_order_acquire);
  return slot.sequence.load(std::memory_order_relaxed) == sequence;
}

int FindSlot(uintptr_t address, size_t length, Mapping* found) {
  int end = used.load(std::memory_order_acquire);
  for (int i = 0; i < end; i++) {
    if (ReadSlot(slots[i], found) && address >= found->data && length <= found->length &&
        address - found->data <= found->length - length) {
      return i;
    }
  }
  return -1;
}

// True if the fault was in a guarded mapping and has zero pages under it now.
bool Absorb(const siginfo_t* info) {
  if (info->si_code != BUS_ADRERR) return false;
  uintptr_t address = reinterpret_cast<uintptr_t>(info->si_addr);
  Mapping mapping;
  int slot = FindSlot(address, 1, &mapping);
  if (slot < 0 || !mapping.file) return false;
  bool whole = slots[slot].faults.fetch_add(1) >= kMaxFaults;
  faults.fetch_add(1);
  return (whole ? ReplaceWithZeros(mapping.base, mapping.mapped)
                : ReplaceWithZeros(address & ~(mapping.page - 1), mapping.page)) == 0;
}

void OnSigbus(int number, siginfo_t* info, void* context) {
  int saved = errno;
  if (!Absorb(info)) {
    if ((previous.sa_flags & SA_SIGINFO) != 0) {
      previous.sa_sigaction(number, info, context);
    } else if (previous.sa_handler != SIG_DFL && previous.sa_handler != SIG_IGN) {
      previous.sa_handler(number);
    } else {
      signal(number, SIG_DFL);  // the access faults again and ends the process, as without us
      if (info->si_code <= 0) raise(number);  // sent by a process: nothing would fault again
    }
  }
  errno = saved;
}

}  // namespace

int AddMapping(const Mapping& mapping) {
  for (int i = 0; i < kSlots; i++) {
    Slot& slot = slots[i];
    uint32_t sequence = slot.sequence.load(std::memory_order_relaxed);
    if ((sequence & 3) != 0 || !slot.sequence.compare_exchange_strong(sequence, sequence + 1)) continue;
    std::atomic_thread_fence(std::memory_order_release);
    slot.faults.store(0, std::memory_order_relaxed);
    slot.base.store(mapping.base, std::memory_order_relaxed);
    slot.mapped.store(mapping.mapped, std::memory_order_relaxed);
    slot.data.store(mapping.data, std::memory_order_relaxed);
    slot.length.store(mapping.length, std::memory_order_relaxed);
    slot.page.store(mapping.page, std::memory_order_relaxed);
    slot.file.store(mapping.file, std::memory_order_relaxed);
    slot.sequence.store(sequence + 2, std::memory_order_release);
    int end = used.load();
    while (end <= i && !used.compare_exchange_weak(end, i + 1)) continue;
    return i;
  }
  return -1;
}

void RemoveMapping(int slot) { slots[slot].sequence.fetch_add(2, std::memory_order_release); }

bool FindMapping(uintptr_t address, size_t length, Mapping* found) { return FindSlot(address, length, found) >= 0; }

int ReplaceWithZeros(uintptr_t base, size_t length) {
  void* at = mmap(reinterpret_cast<void*>(base), length, PROT_READ | PROT_WRITE,
                  MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  return at == MAP_FAILED ? errno : 0;
}

int GuardAgainstSigbus() {
  static std::once_flag once;
  static int error = 0;
  std::call_once(once, [] {
    struct sigaction action = {};
    action.sa_sigaction = OnSigbus;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigemptyset(&action.sa_mask);
    if (sigaction(SIGBUS, &action, &previous) != 0) error = errno;
  });
  return error;
}

uint64_t SigbusCount() { return faults.load(); }

}  // namespace doorbell
