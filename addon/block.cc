// Geometry of block devices.
#include <linux/fs.h>
#include <sys/file.h>
#include <sys/ioctl.h>

#include "args.h"
#include "module.h"

namespace doorbell {
namespace {

Napi::Value BlockDeviceInfo(const Napi::CallbackInfo& info) {
  Args args(info);
  int fd = args.Descriptor(0);
  if (args.failed()) return {};
  uint64_t size = 0;
  int logical = 0;
  unsigned physical = 0;
  if (ioctl(fd, BLKGETSIZE64, &size) != 0) return ThrowErrno(info.Env(), errno, "ioctl", "BLKGETSIZE64");
  if (ioctl(fd, BLKSSZGET, &logical) != 0) return ThrowErrno(info.Env(), errno, "ioctl", "BLKSSZGET");
  if (ioctl(fd, BLKPBSZGET, &physical) != 0) return ThrowErrno(info.Env(), errno, "ioctl", "BLKPBSZGET");
  Napi::Object result = Napi::Object::New(info.Env());
  result.Set("size", Napi::Number::New(info.Env(), static_cast<double>(size)));
  result.Set("logicalBlockSize", Napi::Number::New(info.Env(), logical));
  result.Set("physicalBlockSize", Napi::Number::New(info.Env(), physical));
  return result;
}

// Goes with the descriptor, and so with its process.
Napi::Value LockFile(const Napi::CallbackInfo& info) {
  Args args(info);
  int fd = args.Descriptor(0);
  if (args.failed()) return {};
  if (flock(fd, LOCK_EX | LOCK_NB) == 0) return Napi::Boolean::New(info.Env(), true);
  if (errno == EWOULDBLOCK) return Napi::Boolean::New(info.Env(), false);
  return ThrowErrno(info.Env(), errno, "flock");
}

}  // namespace

void InitBlock(Napi::Env env, Napi::Object exports) {
  Export<BlockDeviceInfo>(env, exports, "blockDeviceInfo");
  Export<LockFile>(env, exports, "lockFile");
}

}  // namespace doorbell
