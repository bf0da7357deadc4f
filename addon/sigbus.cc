// The table of mappings and the SIGBUS handler.
//
// A page of a mapped file that its owner has truncated away raises SIGBUS in whoever touches it, and kills the process; so
// does a page that the hardware has lost (BUS_MCEERR_AR, BUS_MCEERR_AO). Guest memory belongs to the VM monitor, which must
// not have that choice. The handler gives the whole mapping away at the first fault: zeros are put in its place, and the
// access goes on. One mmap over a whole mapping never splits it, so faults cannot use up the process's mappings, and there
// is one a mapping. Who owns it is told by an eventfd.
//
// The table is read from the handler, hence lock-free: each slot is a sequence lock. A thread that faults keeps its own
// mapping's slot live, because it holds a reference to the buffer; the sequence guards against changes of other slots.
// Everybody else finds slots by an index, under a lock that the handler does not take.
#include "mappings.h"

#include <signal.h>
#include <sys/mman.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <iterator>
#include <map>
#include <mutex>
#include <vector>

#include "threads.h"

namespace doorbell {
namespace {

// As many as the kernel's default limit of mappings (vm.max_map_count, 65530). Untouched slots cost no memory.
constexpr int kSlots = 65536;

// What became of the memory of a live slot.
enum Loss : uint32_t { kThere, kLost, kTold };

// Mappings of this size and more are moved before zeros replace them; so many at a time, since each costs one mapping more.
constexpr size_t kLarge = size_t{64} << 20;
constexpr int kMaxMoved = 64;
// The kernel moves whole page tables between addresses that are the same modulo this (PUD_SIZE).
constexpr uintptr_t kMoveUnit = uintptr_t{1} << 30;

struct Slot {
  std::atomic<uint32_t> sequence;  // mod 4: 0 free, 1 or 3 changing, 2 live
  std::atomic<uint32_t> loss;
  std::atomic<uint32_t> owner;
  std::atomic<bool> replaced;           // by the handler, which has set the next two
  std::atomic<uintptr_t> moved;
  std::atomic<size_t> movedLength;
  std::atomic<uintptr_t> base, data;
  std::atomic<size_t> mapped, length, page;
  std::atomic<bool> file;
};

Slot slots[kSlots];
std::atomic<int> used{0};  // slots at and after this were never used
std::atomic<uint64_t> faults{0};
std::atomic<int> event{-1};
std::atomic<int> movedCount{0};
struct sigaction previous;

// Which slots are free and where the live ones are, for all but the handler. Never destroyed: buffers are freed on any
// thread, to the very end of the process.
struct Index {
  std::mutex mutex;
  std::vector<int> free;          // of those that were ever used
  std::map<uintptr_t, int> live;  // by `data`
};

Index& TheIndex() {
  static Index* index = new Index;
  return *index;
}

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
  out->owner = slot.owner.load(std::memory_order_relaxed);
  std::atomic_thread_fence(std::memory_order_acquire);
  return slot.sequence.load(std::memory_order_relaxed) == sequence;
}

// For the handler: a few tens of microseconds with a full table, and once a mapping.
int FindSlot(uintptr_t address, Mapping* found) {
  int end = used.load(std::memory_order_acquire);
  for (int i = 0; i < end; i++) {
    if (ReadSlot(slots[i], found) && address >= found->base && address - found->base < found->mapped) return i;
  }
  return -1;
}

// True if the fault was in a guarded mapping and has zero pages under it now.
bool Absorb(const siginfo_t* info) {
  int code = info->si_code;
  if (code != BUS_ADRERR && code != BUS_MCEERR_AR && code != BUS_MCEERR_AO) return false;
  uintptr_t address = reinterpret_cast<uintptr_t>(info->si_addr);
  Mapping mapping;
  int slot = FindSlot(address, &mapping);
  if (slot < 0 || !mapping.file) return false;
  // Another thread may be at it: then the access is made again, and again, until there are zeros.
  if (slots[slot].replaced.exchange(true)) return true;
  Moved moved;
  if (ReplaceWithZeros(mapping.base, mapping.mapped, &moved) != 0) return false;
  slots[slot].movedLength.store(moved.length);
  slots[slot].moved.store(moved.base);
  slots[slot].loss.store(kLost);
  faults.fetch_add(1);
  uint64_t one = 1;
  // It does not block, and a counter that is full has been signalled.
  [[maybe_unused]] ssize_t told = write(event.load(), &one, sizeof(one));
  return true;
}

// The mapping's pages elsewhere, and nothing in their place. No gap: the addresses stay mapped to the file meanwhile.
Moved MoveAway(uintptr_t base, size_t length) {
  if (movedCount.fetch_add(1) < kMaxMoved) {
    void* room = mmap(nullptr, length + kMoveUnit, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (room != MAP_FAILED) {
      auto start = reinterpret_cast<uintptr_t>(room);
      uintptr_t target = start + ((base - start) & (kMoveUnit - 1));
      void* moved = mremap(reinterpret_cast<void*>(base), length, length,
                           MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP, reinterpret_cast<void*>(target));
      if (moved != MAP_FAILED) {
        if (target > start) munmap(room, target - start);
        munmap(reinterpret_cast<void*>(target + length), kMoveUnit - (target - start));
        return {target, length};
      }
      munmap(room, length + kMoveUnit);
    }
  }
  movedCount.fetch_sub(1);
  return {};
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
  Index& index = TheIndex();
  std::lock_guard<std::mutex> lock(index.mutex);
  int at = used.load();
  if (!index.free.empty()) {
    at = index.free.back();
    index.free.pop_back();
  } else if (at == kSlots) {
    return -1;
  }
  Slot& slot = slots[at];
  uint32_t sequence = slot.sequence.fetch_add(1);
  std::atomic_thread_fence(std::memory_order_release);
  slot.loss.store(kThere, std::memory_order_relaxed);
  slot.replaced.store(false, std::memory_order_relaxed);
  slot.moved.store(0, std::memory_order_relaxed);
  slot.owner.store(mapping.owner, std::memory_order_relaxed);
  slot.base.store(mapping.base, std::memory_order_relaxed);
  slot.mapped.store(mapping.mapped, std::memory_order_relaxed);
  slot.data.store(mapping.data, std::memory_order_relaxed);
  slot.length.store(mapping.length, std::memory_order_relaxed);
  slot.page.store(mapping.page, std::memory_order_relaxed);
  slot.file.store(mapping.file, std::memory_order_relaxed);
  slot.sequence.store(sequence + 2, std::memory_order_release);
  if (at == used.load()) used.store(at + 1, std::memory_order_release);
  index.live[mapping.data] = at;
  return at;
}

void RemoveMapping(int slot) {
  UnmapLater({slots[slot].moved.exchange(0), slots[slot].movedLength.load()});
  Index& index = TheIndex();
  std::lock_guard<std::mutex> lock(index.mutex);
  index.live.erase(slots[slot].data.load(std::memory_order_relaxed));
  slots[slot].sequence.fetch_add(2, std::memory_order_release);
  index.free.push_back(slot);
}

int FindMapping(uintptr_t address, size_t length, Mapping* found) {
  Index& index = TheIndex();
  std::lock_guard<std::mutex> lock(index.mutex);
  auto next = index.live.upper_bound(address);
  if (next == index.live.begin()) return -1;
  int slot = std::prev(next)->second;
  bool holds = ReadSlot(slots[slot], found) && length <= found->length && address - found->data <= found->length - length;
  return holds ? slot : -1;
}

bool IsLost(int slot) { return slots[slot].loss.load() != kThere; }

void TakeLost(void (*tell)(uint32_t owner, void* hint), void* hint) {
  Index& index = TheIndex();
  std::lock_guard<std::mutex> lock(index.mutex);
  for (const auto& [data, slot] : index.live) {
    uint32_t lost = kLost;
    if (!slots[slot].loss.compare_exchange_strong(lost, kTold)) continue;
    UnmapLater({slots[slot].moved.exchange(0), slots[slot].movedLength.load()});
    tell(slots[slot].owner.load(), hint);
  }
}

int ReplaceWithZeros(uintptr_t base, size_t length, Moved* moved) {
  if (length >= kLarge) *moved = MoveAway(base, length);
  void* at = mmap(reinterpret_cast<void*>(base), length, PROT_READ | PROT_WRITE,
                  MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  return at == MAP_FAILED ? errno : 0;
}

void UnmapLater(const Moved& moved) {
  if (moved.base == 0) return;
  auto unmap = [](void* data) {
    auto* what = static_cast<Moved*>(data);
    munmap(reinterpret_cast<void*>(what->base), what->length);
    movedCount.fetch_sub(1);
    delete what;
  };
  auto* what = new Moved(moved);
  if (StartThread(unmap, what) != 0) unmap(what);
}

int GuardAgainstSigbus() {
  static std::once_flag once;
  static int error = 0;
  std::call_once(once, [] {
    int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (fd < 0) {
      error = errno;
      return;
    }
    event.store(fd);
    struct sigaction action = {};
    action.sa_sigaction = OnSigbus;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigemptyset(&action.sa_mask);
    if (sigaction(SIGBUS, &action, &previous) != 0) error = errno;
  });
  return error;
}

uint64_t SigbusCount() { return faults.load(); }

int SigbusEvent() {
  int error = GuardAgainstSigbus();
  return error == 0 ? event.load() : -error;
}

}  // namespace doorbell
