// The calls on an io_uring: enter (submit and wait), and the registering of files and buffers.
#include <linux/io_uring.h>
#include <linux/time_types.h>
#include <sched.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <vector>

#include "args.h"
#include "module.h"
#include "uring.h"

namespace doorbell {
namespace {

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
  long result = syscall(__NR_io_uring_register, ring, opcode, argument, static_cast<unsigned>(count));
  if (result >= 0) return env.Undefined();
  return ThrowErrno(env, errno, "io_uring_register", UringHint(errno));
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

Napi::Value UpdateFile(const Napi::CallbackInfo& info) {
  Args args(info);
  int ring = args.Descriptor(0, "ring");
  int32_t index = static_cast<int32_t>(args.Integer(1, "index", 0, INT32_MAX));
  int32_t fd = static_cast<int32_t>(args.Integer(2, "fd", -1, INT32_MAX));
  if (args.failed()) return {};
  io_uring_files_update update = {};
  update.offset = static_cast<uint32_t>(index);
  update.fds = reinterpret_cast<uintptr_t>(&fd);
  return Register(info.Env(), ring, IORING_REGISTER_FILES_UPDATE, &update, 1);
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

/** Where the kernel's own workers for this ring may run: by default where its thread may, which is the processor it polls on. */
Napi::Value RegisterWorkerCpus(const Napi::CallbackInfo& info) {
  Args args(info);
  int ring = args.Descriptor(0, "ring");
  Napi::Array cpus = args.Array(1, "cpus");
  constexpr uint32_t kMaxCpus = 1024;
  cpu_set_t set;
  CPU_ZERO(&set);
  uint32_t count = args.failed() ? 0 : cpus.Length();
  if (count == 0 || count > kMaxCpus) args.Range("cpus", "must name 1 to 1024 processors");
  for (uint32_t i = 0; i < count && !args.failed(); i++) {
    CPU_SET(static_cast<size_t>(args.Element(cpus, i, "cpus", 0, kMaxCpus - 1)), &set);
  }
  if (args.failed()) return {};
  return Register(info.Env(), ring, IORING_REGISTER_IOWQ_AFF, &set, sizeof(set));
}

// How many of the kernel's threads may work on what blocks, bounded and unbounded kind alike.
Napi::Value RegisterMaxWorkers(const Napi::CallbackInfo& info) {
  Args args(info);
  int ring = args.Descriptor(0, "ring");
  uint32_t workers = static_cast<uint32_t>(args.Integer(1, "workers", 1, INT32_MAX));
  if (args.failed()) return {};
  uint32_t most[2] = {workers, workers};
  return Register(info.Env(), ring, IORING_REGISTER_IOWQ_MAX_WORKERS, most, 2);
}

}  // namespace

void InitSubmit(Napi::Env env, Napi::Object exports) {
  ExportHot(env, exports, "uringEnter", Enter);
  Export<RegisterFiles>(env, exports, "uringRegisterFiles");
  Export<UpdateFile>(env, exports, "uringUpdateFile");
  Export<RegisterBuffers>(env, exports, "uringRegisterBuffers");
  Export<RegisterWorkerCpus>(env, exports, "uringRegisterWorkerCpus");
  Export<RegisterMaxWorkers>(env, exports, "uringRegisterMaxWorkers");
}

}  // namespace doorbell
