// A new io_uring, without liburing, and the mapping of its rings: TypeScript writes the submission entries and reads
// the completions there. submit.cc has the calls on a ring.
#include <linux/io_uring.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <string>

#include "args.h"
#include "module.h"
#include "shared.h"
#include "uring.h"

// Newer than some distributions' headers.
#ifndef IORING_SETUP_NO_MMAP
#define IORING_SETUP_NO_MMAP (1U << 14)
#endif
#ifndef IORING_SETUP_NO_SQARRAY
#define IORING_SETUP_NO_SQARRAY (1U << 16)
#endif

namespace doorbell {
namespace {

// Maps one area of the ring. Empty, with an exception pending, on failure.
Napi::Value MapRing(Napi::Env env, int ring, off_t offset, size_t length) {
  size_t mapped = RoundUp(length, kPage);
  void* at = mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring, offset);
  if (at == MAP_FAILED) return ThrowErrno(env, errno, "mmap", UringHint(errno));
  uintptr_t base = reinterpret_cast<uintptr_t>(at);
  return WrapMapping(env, {base, mapped, base, length, kPage, false, 0});
}

// A kernel that does not know a flag says EINVAL, as it does to a ring that is too large.
std::string SetupHint(int error, uint32_t entries, uint32_t flags) {
  if (error != EINVAL) return UringHint(error);
  utsname kernel = {};
  uname(&kernel);
  char hint[256];
  snprintf(hint, sizeof(hint), "Linux %.64s takes no ring of %u entries with flags 0x%x: Doorbell needs Linux 6.1 or newer",
           kernel.release, entries, flags);
  return hint;
}

Napi::Value Setup(const Napi::CallbackInfo& info) {
  Args args(info);
  auto entries = static_cast<uint32_t>(args.Integer(0, "entries", 1, UINT32_MAX));
  io_uring_params p = {};
  p.cq_entries = static_cast<uint32_t>(args.Integer(1, "cqEntries", 0, UINT32_MAX));
  p.flags = static_cast<uint32_t>(args.Integer(2, "flags", 0, UINT32_MAX));
  if (p.cq_entries > 0) p.flags |= IORING_SETUP_CQSIZE;
  if ((p.flags & IORING_SETUP_NO_MMAP) != 0) args.Range("flags", "must not ask for a ring in the caller's memory");
  if (args.failed()) return {};

  int fd = static_cast<int>(syscall(__NR_io_uring_setup, entries, &p));
  if (fd < 0) return ThrowErrno(info.Env(), errno, "io_uring_setup", SetupHint(errno, entries, p.flags));
  constexpr uint32_t kNeeded = IORING_FEAT_SINGLE_MMAP | IORING_FEAT_EXT_ARG;
  if ((p.features & kNeeded) != kNeeded) {
    close(fd);
    return ThrowErrno(info.Env(), ENOSYS, "io_uring_setup", "Linux 5.11 or newer is needed");
  }
  bool hasArray = (p.flags & IORING_SETUP_NO_SQARRAY) == 0;
  size_t sqEnd = hasArray ? p.sq_off.array + p.sq_entries * sizeof(uint32_t) : 0;
  size_t cqe = (p.flags & IORING_SETUP_CQE32) != 0 ? 32 : 16;
  size_t sqe = (p.flags & IORING_SETUP_SQE128) != 0 ? 128 : 64;
  Napi::Value rings = MapRing(info.Env(), fd, IORING_OFF_SQ_RING, std::max(sqEnd, p.cq_off.cqes + p.cq_entries * cqe));
  Napi::Value sqes;
  if (!rings.IsEmpty()) sqes = MapRing(info.Env(), fd, IORING_OFF_SQES, p.sq_entries * sqe);
  if (sqes.IsEmpty()) {
    close(fd);
    return {};
  }

  Napi::Object region = Napi::Object::New(info.Env());
  auto set = [&](const char* name, uint32_t value) { region.Set(name, Napi::Number::New(info.Env(), value)); };
  region.Set("rings", rings);
  region.Set("sqes", sqes);
  set("fd", static_cast<uint32_t>(fd));
  set("features", p.features);
  set("sqEntries", p.sq_entries);
  set("cqEntries", p.cq_entries);
  set("sqHead", p.sq_off.head);
  set("sqTail", p.sq_off.tail);
  set("sqMask", p.sq_off.ring_mask);
  set("sqFlags", p.sq_off.flags);
  set("sqDropped", p.sq_off.dropped);
  set("sqArray", hasArray ? p.sq_off.array : 0);
  set("cqHead", p.cq_off.head);
  set("cqTail", p.cq_off.tail);
  set("cqMask", p.cq_off.ring_mask);
  set("cqOverflow", p.cq_off.overflow);
  set("cqes", p.cq_off.cqes);
  return region;
}

}  // namespace

void InitUring(Napi::Env env, Napi::Object exports) { Export<Setup>(env, exports, "uringSetup"); }

}  // namespace doorbell
