// io_uring without liburing: setup, enter, register. Submission and completion entries are written and read by
// TypeScript through the mapped rings.
#include <linux/io_uring.h>
#include <linux/time_types.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <vector>

#include "errors.h"
#include "module.h"
#include "shared.h"

// Newer than some distributions' headers.
#ifndef IORING_SETUP_NO_MMAP
#define IORING_SETUP_NO_MMAP (1U << 14)
#endif
#ifndef IORING_SETUP_NO_SQARRAY
#define IORING_SETUP_NO_SQARRAY (1U << 16)
#endif

namespace doorbell {
namespace {

constexpr size_t kPage = 4096;

// What the operator can do about a kernel that gives no ring.
const char* Hint(int error) {
  switch (error) {
    case EPERM:
      return "io_uring is disabled: run `sysctl -w kernel.io_uring_disabled=0`, and in a container allow the io_uring_* "
             "system calls in its seccomp profile";
    case ENOSYS:
      return "this kernel has no io_uring, or the container's seccomp profile hides it";
    case ENOMEM:
      return "raise the limit of locked memory (RLIMIT_MEMLOCK), or ask for fewer entries";
    default:
      return "";
  }
}

// Maps one area of the ring. Empty, with an exception pending, on failure.
Napi::Value MapRing(Napi::Env env, int ring, off_t offset, size_t length) {
  size_t mapped = (length + kPage - 1) & ~(kPage - 1);
  void* at = mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring, offset);
  if (at == MAP_FAILED) return ThrowErrno(env, errno, "mmap", Hint(errno));
  uintptr_t base = reinterpret_cast<uintptr_t>(at);
  return WrapMapping(env, {base, mapped, base, length, kPage, false});
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
  if (fd < 0) return ThrowErrno(info.Env(), errno, "io_uring_setup", Hint(errno));
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

napi_value Enter(napi_env env, napi_callback_info info) {
  napi_value values[5] = {};
  size_t count = 5;
  int32_t ring = -1;
  uint32_t submit = 0, complete = 0, flags = 0;
  int64_t timeout = -1;  // µs
  napi_get_cb_info(env, info, &count, values, nullptr, nullptr);
  napi_get_value_int32(env, values[0], &ring);
  napi_get_value_uint32(env, values[1], &submit);
  napi_get_value_uint32(env, values[2], &complete);
  napi_get_value_uint32(env, values[3], &flags);
  long result;
  if (napi_get_value_int64(env, values[4], &timeout) == napi_ok && timeout >= 0 && complete > 0) {
    __kernel_timespec time = {timeout / 1000000, timeout % 1000000 * 1000};
    io_uring_getevents_arg arg = {};
    arg.ts = reinterpret_cast<uintptr_t>(&time);
    flags |= IORING_ENTER_EXT_ARG | IORING_ENTER_GETEVENTS;
    result = syscall(__NR_io_uring_enter, ring, submit, complete, flags, &arg, sizeof(arg));
  } else {
    if (complete > 0) flags |= IORING_ENTER_GETEVENTS;
    result = syscall(__NR_io_uring_enter, ring, submit, complete, flags, nullptr, 0);
  }
  napi_value value = nullptr;
  napi_create_int32(env, result < 0 ? -errno : static_cast<int32_t>(result), &value);
  return value;
}

Napi::Value Register(Napi::Env env, int ring, unsigned opcode, const void* argument, size_t count) {
  if (syscall(__NR_io_uring_register, ring, opcode, argument, static_cast<unsigned>(count)) >= 0) return env.Undefined();
  return ThrowErrno(env, errno, "io_uring_register", Hint(errno));
}

Napi::Value RegisterFiles(const Napi::CallbackInfo& info) {
  Args args(info);
  int ring = args.Descriptor(0, "ring");
  Span<int32_t> fds = args.Ints(1, "fds");
  if (fds.length == 0) args.Range("fds", "must not be empty");
  if (args.failed()) return {};
  // Fails with ENXIO if there was no table.
  syscall(__NR_io_uring_register, ring, IORING_UNREGISTER_FILES, nullptr, 0);
  return Register(info.Env(), ring, IORING_REGISTER_FILES, fds.data, fds.length);
}

Napi::Value RegisterBuffers(const Napi::CallbackInfo& info) {
  Args args(info);
  int ring = args.Descriptor(0, "ring");
  Span<double> pairs = args.Doubles(1, "pairs");
  if (pairs.length == 0 || pairs.length % 2 != 0) args.Range("pairs", "must hold [address, length] pairs");
  std::vector<iovec> buffers(pairs.length / 2);
  for (size_t i = 0; i < buffers.size() && !args.failed(); i++) {
    double address = pairs.data[2 * i], length = pairs.data[2 * i + 1];
    if (!(address >= 0 && address <= kMaxSafeInteger && length >= 0 && length <= kMaxSafeInteger)) {
      args.Range("pairs", "must hold addresses and lengths");
    } else {
      buffers[i] = {reinterpret_cast<void*>(static_cast<uintptr_t>(address)), static_cast<size_t>(length)};
    }
  }
  if (args.failed()) return {};
  syscall(__NR_io_uring_register, ring, IORING_UNREGISTER_BUFFERS, nullptr, 0);
  return Register(info.Env(), ring, IORING_REGISTER_BUFFERS, buffers.data(), buffers.size());
}

}  // namespace

void InitUring(Napi::Env env, Napi::Object exports) {
  Export<Setup>(env, exports, "uringSetup");
  ExportHot(env, exports, "uringEnter", Enter);
  Export<RegisterFiles>(env, exports, "uringRegisterFiles");
  Export<RegisterBuffers>(env, exports, "uringRegisterBuffers");
}

}  // namespace doorbell
