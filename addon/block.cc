// Geometry of block devices; what O_DIRECT asks for; locks.
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstring>

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

// statx as of Linux 6.1, which the headers of older systems do not have: of struct statx and its mask.
constexpr unsigned kStatxDioalign = 0x2000;
constexpr size_t kStatxBytes = 256;
constexpr size_t kStatxMaskAt = 0;
constexpr size_t kDioMemAlignAt = 152;
constexpr size_t kDioOffsetAlignAt = 156;

Napi::Value DirectAlignment(const Napi::CallbackInfo& info) {
  Args args(info);
  int fd = args.Descriptor(0);
  if (args.failed()) return {};
  unsigned char buffer[kStatxBytes] = {};
  if (syscall(SYS_statx, fd, "", AT_EMPTY_PATH, kStatxDioalign, buffer) != 0) return ThrowErrno(info.Env(), errno, "statx");
  auto word = [&buffer](size_t at) {
    uint32_t value;
    memcpy(&value, buffer + at, sizeof(value));
    return value;
  };
  if ((word(kStatxMaskAt) & kStatxDioalign) == 0) return info.Env().Undefined();
  Napi::Object result = Napi::Object::New(info.Env());
  result.Set("memory", Napi::Number::New(info.Env(), word(kDioMemAlignAt)));
  result.Set("offset", Napi::Number::New(info.Env(), word(kDioOffsetAlignAt)));
  return result;
}

// An OFD lock: it goes with the open file, and so with its process. (QEMU locks its images so.)
Napi::Value LockFile(const Napi::CallbackInfo& info) {
  Args args(info);
  int fd = args.Descriptor(0);
  bool exclusive = args.Boolean(1, "exclusive");
  if (args.failed()) return {};
  struct flock lock = {};
  lock.l_type = exclusive ? F_WRLCK : F_RDLCK;
  lock.l_whence = SEEK_SET;
  if (fcntl(fd, F_OFD_SETLK, &lock) == 0) return Napi::Boolean::New(info.Env(), true);
  if (errno == EAGAIN || errno == EACCES) return Napi::Boolean::New(info.Env(), false);
  return ThrowErrno(info.Env(), errno, "fcntl");
}

}  // namespace

void InitBlock(Napi::Env env, Napi::Object exports) {
  Export<BlockDeviceInfo>(env, exports, "blockDeviceInfo");
  Export<DirectAlignment>(env, exports, "directAlignment");
  Export<LockFile>(env, exports, "lockFile");
}

}  // namespace doorbell
