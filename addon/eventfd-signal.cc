// Signalling an eventfd that another process shares, so that it cannot block whatever that process does with it.
//
// O_NONBLOCK belongs to the open file, which is shared: the other process can clear it at any moment, and a write then waits
// while the counter is full. The kernel itself never waits when it signals. So it is asked to: a request of its asynchronous
// I/O that is done as soon as it is submitted (a poll of /dev/null), with the eventfd to be told of that (IOCB_FLAG_RESFD). It
// also refuses whatever is no eventfd. Each thread has a context of its own, and takes the completions out of its ring, which
// is mapped memory, without a call.
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>

#include "eventfd-signal.h"

namespace doorbell {
namespace {

// The head of a completion ring, as the kernel lays it out (its own struct aio_ring; libaio knows it, too).
struct Ring {
  uint32_t id, count;
  std::atomic<uint32_t> head, tail;
  uint32_t magic, compatible, incompatible, headerBytes;
};
constexpr uint32_t kRingMagic = 0xa10a10a1;

class Signaller {
 public:
  Signaller() {
    null_ = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (null_ < 0 || syscall(SYS_io_setup, 1, &context_) != 0) {
      context_ = 0;
      return;
    }
    ring_ = reinterpret_cast<Ring*>(context_);
    usable_ = ring_->magic == kRingMagic && ring_->incompatible == 0 && Works();
  }

  ~Signaller() {
    if (context_ != 0) syscall(SYS_io_destroy, context_);
    if (null_ >= 0) close(null_);
  }

  bool usable() const { return usable_; }

  // 0 or -errno.
  int Signal(int fd) {
    iocb request = {};
    request.aio_lio_opcode = IOCB_CMD_POLL;
    request.aio_fildes = static_cast<uint32_t>(null_);
    request.aio_buf = POLLIN;
    request.aio_flags = IOCB_FLAG_RESFD;
    request.aio_resfd = static_cast<uint32_t>(fd);
    iocb* list[] = {&request};
    long submitted = syscall(SYS_io_submit, context_, 1, list);
    if (submitted != 1) return submitted < 0 ? -errno : -EAGAIN;
    // Done already: only this thread submits, and nothing of it is left under way.
    ring_->head.store(ring_->tail.load(std::memory_order_acquire), std::memory_order_release);
    return 0;
  }

 private:
  // Seen once, on an eventfd of our own, before it is relied upon.
  bool Works() {
    int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    uint64_t count = 0;
    uint32_t before = ring_->tail.load();
    bool works = fd >= 0 && Signal(fd) == 0 && ring_->tail.load() != before && read(fd, &count, sizeof(count)) > 0;
    if (fd >= 0) close(fd);
    return works && count == 1;
  }

  int null_ = -1;
  aio_context_t context_ = 0;
  Ring* ring_ = nullptr;
  bool usable_ = false;
};

Signaller& OfThisThread() {
  thread_local Signaller signaller;
  return signaller;
}

}  // namespace

bool SignalCannotBlock() { return OfThisThread().usable(); }

int Signal(int fd) {
  Signaller& signaller = OfThisThread();
  if (signaller.usable()) return signaller.Signal(fd);
  uint64_t one = 1;
  ssize_t written;
  do written = write(fd, &one, sizeof(one));
  while (written < 0 && errno == EINTR);
  return written < 0 ? -errno : 0;
}

}  // namespace doorbell
