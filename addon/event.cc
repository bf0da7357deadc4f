// eventfds: how threads, the kernel and the VM wake each other. How one is signalled is in eventfd-signal.cc.
#include <fcntl.h>
#include <limits.h>
#include <sys/eventfd.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>

#include "args.h"
#include "eventfd-signal.h"
#include "module.h"

namespace doorbell {
namespace {

Napi::Value EventfdCreate(const Napi::CallbackInfo& info) {
  int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  if (fd < 0) return ThrowErrno(info.Env(), errno, "eventfd");
  return Napi::Number::New(info.Env(), fd);
}

// Another process's eventfd, to be signalled here: nothing else. Nothing here asks the file itself, which may not answer. Its flags are left
// alone, since the other process shares them and may read it by waiting, but where a signal could wait otherwise.
Napi::Value EventfdAdopt(const Napi::CallbackInfo& info) {
  Args args(info);
  int fd = args.Descriptor(0, "fd");
  if (args.failed()) return {};
  char path[32], target[64] = {};
  snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
  if (readlink(path, target, sizeof(target) - 1) < 0) return ThrowErrno(info.Env(), errno, "readlink");
  if (strcmp(target, "anon_inode:[eventfd]") != 0) return ThrowErrno(info.Env(), EINVAL, "eventfd");
  if (SignalCannotBlock()) return info.Env().Undefined();
  int flags = fcntl(fd, F_GETFL);
  if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0) return ThrowErrno(info.Env(), errno, "fcntl");
  return info.Env().Undefined();
}

// The only argument, as a descriptor; -1 (a bad descriptor) if it is none.
int Descriptor(napi_env env, napi_callback_info info) {
  napi_value value = nullptr;
  size_t count = 1;
  int32_t fd = -1;
  napi_get_cb_info(env, info, &count, &value, nullptr, nullptr);
  napi_get_value_int32(env, value, &fd);
  return fd;
}

napi_value EventfdSignal(napi_env env, napi_callback_info info) {
  napi_value result = nullptr;
  napi_create_int32(env, Signal(Descriptor(env, info)), &result);
  return result;
}

napi_value EventfdRead(napi_env env, napi_callback_info info) {
  uint64_t value = 0;
  int fd = Descriptor(env, info);
  ssize_t count;
  iovec into = {&value, sizeof(value)};
  // Not a plain read: it waits if the other process has cleared O_NONBLOCK and been faster to read.
  do count = preadv2(fd, &into, 1, -1, RWF_NOWAIT);
  while (count < 0 && errno == EINTR);
  napi_value result = nullptr;
  if (count < 0 && errno != EAGAIN) napi_create_int32(env, -errno, &result);
  else napi_create_double(env, static_cast<double>(value), &result);
  return result;
}

Napi::Value CannotBlock(const Napi::CallbackInfo& info) { return Napi::Boolean::New(info.Env(), SignalCannotBlock()); }

}  // namespace

void InitEvent(Napi::Env env, Napi::Object exports) {
  Export<EventfdCreate>(env, exports, "eventfdCreate");
  Export<EventfdAdopt>(env, exports, "eventfdAdopt");
  Export<CannotBlock>(env, exports, "eventfdSignalCannotBlock");
  ExportHot(env, exports, "eventfdSignal", EventfdSignal);
  ExportHot(env, exports, "eventfdRead", EventfdRead);
}

}  // namespace doorbell
