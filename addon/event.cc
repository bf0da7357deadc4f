// eventfds: how threads, the kernel and the VM wake each other.
#include <fcntl.h>
#include <limits.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>

#include "args.h"
#include "module.h"

namespace doorbell {
namespace {

Napi::Value EventfdCreate(const Napi::CallbackInfo& info) {
  int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  if (fd < 0) return ThrowErrno(info.Env(), errno, "eventfd");
  return Napi::Number::New(info.Env(), fd);
}

// Another process's eventfd, to be signalled here: nothing else, and never to block on.
Napi::Value EventfdAdopt(const Napi::CallbackInfo& info) {
  Args args(info);
  int fd = args.Descriptor(0, "fd");
  if (args.failed()) return {};
  char path[32], target[64] = {};
  snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
  if (readlink(path, target, sizeof(target) - 1) < 0) return ThrowErrno(info.Env(), errno, "readlink");
  if (strcmp(target, "anon_inode:[eventfd]") != 0) return ThrowErrno(info.Env(), EINVAL, "eventfd");
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
  uint64_t one = 1;
  int fd = Descriptor(env, info);
  ssize_t written;
  do written = write(fd, &one, sizeof(one));
  while (written < 0 && errno == EINTR);
  napi_value result = nullptr;
  napi_create_int32(env, written < 0 ? -errno : 0, &result);
  return result;
}

napi_value EventfdRead(napi_env env, napi_callback_info info) {
  uint64_t value = 0;
  int fd = Descriptor(env, info);
  ssize_t count;
  do count = read(fd, &value, sizeof(value));
  while (count < 0 && errno == EINTR);
  napi_value result = nullptr;
  if (count < 0 && errno != EAGAIN) napi_create_int32(env, -errno, &result);
  else napi_create_double(env, static_cast<double>(value), &result);
  return result;
}

}  // namespace

void InitEvent(Napi::Env env, Napi::Object exports) {
  Export<EventfdCreate>(env, exports, "eventfdCreate");
  Export<EventfdAdopt>(env, exports, "eventfdAdopt");
  ExportHot(env, exports, "eventfdSignal", EventfdSignal);
  ExportHot(env, exports, "eventfdRead", EventfdRead);
}

}  // namespace doorbell
