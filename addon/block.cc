// Geometry of block devices; what O_DIRECT asks for; file systems; locks.
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <cstring>

#include "call.h"

namespace doorbell {
namespace {

Work BlockDeviceInfo(Args& args) {
  int fd = args.Descriptor(0);
  return [fd] {
    uint64_t size = 0;
    int logical = 0;
    unsigned physical = 0;
    if (ioctl(fd, BLKGETSIZE64, &size) != 0) return Failed("ioctl", "BLKGETSIZE64");
    if (ioctl(fd, BLKSSZGET, &logical) != 0) return Failed("ioctl", "BLKSSZGET");
    if (ioctl(fd, BLKPBSZGET, &physical) != 0) return Failed("ioctl", "BLKPBSZGET");
    return Done([=](napi_env env) {
      return ToObject(env, {{"size", ToNumber(env, static_cast<double>(size))},
                            {"logicalBlockSize", ToNumber(env, logical)},
                            {"physicalBlockSize", ToNumber(env, physical)}});
    });
  };
}

// statx as of Linux 6.1, which the headers of older systems do not have: of struct statx and its mask.
constexpr unsigned kStatxDioalign = 0x2000;
constexpr size_t kStatxBytes = 256;
constexpr size_t kStatxMaskAt = 0;
constexpr size_t kDioMemAlignAt = 152;
constexpr size_t kDioOffsetAlignAt = 156;

Work DirectAlignment(Args& args) {
  int fd = args.Descriptor(0);
  return [fd] {
    unsigned char buffer[kStatxBytes] = {};
    if (syscall(SYS_statx, fd, "", AT_EMPTY_PATH, kStatxDioalign, buffer) != 0) return Failed("statx");
    auto word = [&buffer](size_t at) {
      uint32_t value;
      memcpy(&value, buffer + at, sizeof(value));
      return value;
    };
    if ((word(kStatxMaskAt) & kStatxDioalign) == 0) return Done();
    return Done([memory = word(kDioMemAlignAt), offset = word(kDioOffsetAlignAt)](napi_env env) {
      return ToObject(env, {{"memory", ToNumber(env, memory)}, {"offset", ToNumber(env, offset)}});
    });
  };
}

Work FileSystemType(Args& args) {
  int fd = args.Descriptor(0);
  return [fd] {
    struct statfs status;
    if (fstatfs(fd, &status) != 0) return Failed("fstatfs");
    return Done([type = static_cast<uint32_t>(status.f_type)](napi_env env) { return ToNumber(env, type); });
  };
}

// An OFD lock: it goes with the open file, and so with its process. (QEMU locks its images so.)
Work LockFile(Args& args) {
  int fd = args.Descriptor(0);
  bool exclusive = args.Boolean(1, "exclusive");
  return [=] {
    struct flock lock = {};
    lock.l_type = exclusive ? F_WRLCK : F_RDLCK;
    lock.l_whence = SEEK_SET;
    bool taken = fcntl(fd, F_OFD_SETLK, &lock) == 0;
    if (!taken && errno != EAGAIN && errno != EACCES) return Failed("fcntl");
    return Done([taken](napi_env env) { return ToBoolean(env, taken); });
  };
}

}  // namespace

std::vector<Call> BlockCalls() {
  return {
      {"blockDeviceInfo", BlockDeviceInfo},
      {"directAlignment", DirectAlignment},
      {"fileSystemType", FileSystemType},
      {"lockFile", LockFile},
  };
}

}  // namespace doorbell
