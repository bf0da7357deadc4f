// Files and folders, for where Node's own calls would wait in the wrong place: on the main thread, or in libuv's few threads.
#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "call.h"

namespace doorbell {
namespace {

// Bytes of one read or write.
constexpr int64_t kMaxTransfer = int64_t{1} << 26;
// Memory that O_DIRECT takes everywhere.
constexpr size_t kAlignment = 4096;

std::string Path(Args& args, size_t index, const char* name = "path") {
  std::string path = args.Text(index, name, PATH_MAX - 1);
  if (path.empty()) args.Range(name, "must not be empty");
  return path;
}

mode_t Mode(Args& args, size_t index) { return static_cast<mode_t>(args.Integer(index, "mode", 0, 07777)); }

const char* KindOf(mode_t mode) {
  if (S_ISREG(mode)) return "file";
  if (S_ISBLK(mode)) return "block-device";
  if (S_ISDIR(mode)) return "folder";
  if (S_ISSOCK(mode)) return "socket";
  return "other";
}

Outcome Status(int result, const struct stat& status, const char* syscall) {
  if (result != 0) return Failed(syscall);
  return Done([status](napi_env env) {
    napi_value kind = nullptr;
    napi_create_string_utf8(env, KindOf(status.st_mode), NAPI_AUTO_LENGTH, &kind);
    return ToObject(env, {{"kind", kind},
                          {"mode", ToNumber(env, status.st_mode & 07777)},
                          {"size", ToNumber(env, static_cast<double>(status.st_size))},
                          {"dev", ToBigInt(env, status.st_dev)},
                          {"ino", ToBigInt(env, status.st_ino)},
                          {"rdev", ToBigInt(env, status.st_rdev)},
                          {"uid", ToNumber(env, status.st_uid)},
                          {"blockSize", ToNumber(env, static_cast<double>(status.st_blksize))}});
  });
}

// The outcome of a call that gives 0 or sets errno.
Outcome Plain(int result, const char* syscall) { return result == 0 ? Done() : Failed(syscall); }

Work Open(Args& args) {
  std::string path = Path(args, 0);
  int flags = static_cast<int>(args.Integer(1, "flags", 0, INT32_MAX));
  mode_t mode = Mode(args, 2);
  return [=] {
    int fd = open(path.c_str(), flags | O_CLOEXEC, mode);
    if (fd < 0) return Failed("open");
    Outcome outcome = Done([fd](napi_env env) { return ToNumber(env, fd); });
    outcome.opened = fd;
    return outcome;
  };
}

// The descriptor is gone whatever is answered: an error is what the file system has to say about earlier writes.
Work Close(Args& args) {
  int fd = args.Descriptor(0);
  return [=] { return Plain(close(fd), "close"); };
}

// Errors are nobody's here: the files are not ours.
Work CloseAll(Args& args) {
  Napi::Array list = args.Array(0, "fds");
  std::vector<int> fds(args.failed() ? 0 : list.Length());
  for (uint32_t i = 0; i < fds.size(); i++) fds[i] = static_cast<int>(args.Element(list, i, "fds", 0, INT32_MAX));
  return [=] {
    for (int fd : fds) close(fd);
    return Done();
  };
}

// Pages that are clean and that nobody maps or locks just now.
Work DropCache(Args& args) {
  int fd = args.Descriptor(0);
  return [=] {
    int error = posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    if (error == 0) return Done();
    errno = error;
    return Failed("posix_fadvise");
  };
}

Work Stat(Args& args) {
  std::string path = Path(args, 0);
  return [=] {
    struct stat status = {};
    int result = stat(path.c_str(), &status);
    return Status(result, status, "stat");
  };
}

Work Lstat(Args& args) {
  std::string path = Path(args, 0);
  return [=] {
    struct stat status = {};
    int result = lstat(path.c_str(), &status);
    return Status(result, status, "lstat");
  };
}

Work Fstat(Args& args) {
  int fd = args.Descriptor(0);
  return [=] {
    struct stat status = {};
    int result = fstat(fd, &status);
    return Status(result, status, "fstat");
  };
}

// Of struct statx.
constexpr unsigned kStatxBtime = 0x800;
constexpr size_t kStatxBytes = 256;
constexpr size_t kBtimeAt = 80;

Work Birth(Args& args) {
  int fd = args.Descriptor(0);
  return [fd] {
    unsigned char buffer[kStatxBytes] = {};
    if (syscall(SYS_statx, fd, "", AT_EMPTY_PATH, kStatxBtime, buffer) != 0) return Failed("statx");
    int64_t seconds;
    uint32_t nanoseconds;
    memcpy(&seconds, buffer + kBtimeAt, sizeof(seconds));
    memcpy(&nanoseconds, buffer + kBtimeAt + sizeof(seconds), sizeof(nanoseconds));
    uint64_t born = seconds < 0 ? 0 : static_cast<uint64_t>(seconds) * 1000000000 + nanoseconds;
    return Done([born](napi_env env) { return ToBigInt(env, born); });
  };
}

Work Fsync(Args& args) {
  int fd = args.Descriptor(0);
  return [=] { return Plain(fsync(fd), "fsync"); };
}

Work Fdatasync(Args& args) {
  int fd = args.Descriptor(0);
  return [=] { return Plain(fdatasync(fd), "fdatasync"); };
}

Work Ftruncate(Args& args) {
  int fd = args.Descriptor(0);
  off_t length = args.Integer(1, "length", 0, kMaxSafeInteger);
  return [=] { return Plain(ftruncate(fd, length), "ftruncate"); };
}

Work Pread(Args& args) {
  int fd = args.Descriptor(0);
  size_t length = static_cast<size_t>(args.Integer(1, "length", 1, kMaxTransfer));
  off_t offset = args.Integer(2, "offset", 0, kMaxSafeInteger);
  return [=] {
    std::shared_ptr<void> memory(aligned_alloc(kAlignment, (length + kAlignment - 1) / kAlignment * kAlignment), free);
    ssize_t count = memory == nullptr ? -1 : pread(fd, memory.get(), length, offset);
    if (count < 0) return Failed("pread");
    return Done([memory, count](napi_env env) {
      napi_value bytes = nullptr;
      napi_create_buffer_copy(env, static_cast<size_t>(count), memory.get(), nullptr, &bytes);
      return bytes;
    });
  };
}

Work Pwrite(Args& args) {
  int fd = args.Descriptor(0);
  Span<uint8_t> data = args.Bytes(1, "data");
  off_t offset = args.Integer(2, "offset", 0, kMaxSafeInteger);
  if (data.length > static_cast<size_t>(kMaxTransfer)) args.Range("data", "is longer than 64 MiB");
  if (args.failed()) return {};
  return [fd, offset, bytes = std::vector<uint8_t>(data.data, data.data + data.length)] {
    ssize_t count = pwrite(fd, bytes.data(), bytes.size(), offset);
    if (count < 0) return Failed("pwrite");
    return Done([count](napi_env env) { return ToNumber(env, static_cast<double>(count)); });
  };
}

Work Mkdir(Args& args) {
  std::string path = Path(args, 0);
  mode_t mode = Mode(args, 1);
  return [=] { return Plain(mkdir(path.c_str(), mode), "mkdir"); };
}

Work Access(Args& args) {
  std::string path = Path(args, 0);
  int mode = static_cast<int>(args.Integer(1, "mode", 0, 7));
  return [=] { return Plain(access(path.c_str(), mode), "access"); };
}

Work Unlink(Args& args) {
  std::string path = Path(args, 0);
  return [=] { return Plain(unlink(path.c_str()), "unlink"); };
}

Work Rename(Args& args) {
  std::string from = Path(args, 0, "from"), to = Path(args, 1, "to");
  return [=] { return Plain(rename(from.c_str(), to.c_str()), "rename"); };
}

}  // namespace

std::vector<Call> FileCalls() {
  return {
      {"open", Open},           {"close", Close},   {"stat", Stat},     {"lstat", Lstat}, {"fstat", Fstat},
      {"fsync", Fsync},         {"pread", Pread},   {"pwrite", Pwrite}, {"mkdir", Mkdir}, {"unlink", Unlink},
      {"fdatasync", Fdatasync}, {"dropCache", DropCache}, {"rename", Rename}, {"ftruncate", Ftruncate},
      {"access", Access},       {"birth", Birth}, {"closeAll", CloseAll},
  };
}

}  // namespace doorbell
