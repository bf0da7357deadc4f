// The end of a mapped file, out of the way.
//
// Whoever lets go of a file last frees it: for 64 GiB of a guest's memory that takes seconds, and it happens in the thread
// that replaces the mapping. So one page is mapped once more before, and given up by a thread of its own, where the rest
// follows. One such thread at a time; it ends when it has nothing to do.
#include <sys/mman.h>

#include <mutex>
#include <vector>

#include "mappings.h"
#include "threads.h"

namespace doorbell {
namespace {

struct Hold {
  void* at;
  size_t length;
};

std::mutex mutex;
std::vector<Hold>* holds = new std::vector<Hold>();  // never destroyed: the thread may outlive main
bool running = false;

void GiveUpAll(void*) {
  std::unique_lock<std::mutex> lock(mutex);
  while (!holds->empty()) {
    Hold hold = holds->back();
    holds->pop_back();
    lock.unlock();
    munmap(hold.at, hold.length);
    lock.lock();
  }
  running = false;
}

}  // namespace

void* HoldFile(const Mapping& mapping) {
  // An old size of 0 maps a shared mapping once more. The kernel does not do so with huge pages; files of those end quickly.
  if (!mapping.file || mapping.page != kPage) return nullptr;
  void* at = mremap(reinterpret_cast<void*>(mapping.base), 0, kPage, MREMAP_MAYMOVE);
  return at == MAP_FAILED ? nullptr : at;
}

void ReleaseFile(void* held) {
  if (held == nullptr) return;
  std::lock_guard<std::mutex> lock(mutex);
  holds->push_back({held, kPage});
  if (!running) running = StartThread(GiveUpAll, nullptr) == 0;
}

}  // namespace doorbell
