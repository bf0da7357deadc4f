// Mapping, aliasing and revoking memory; memfds.
#include <fcntl.h>
#include <linux/magic.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "errors.h"
#include "module.h"
#include "shared.h"

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U
#endif

namespace doorbell {
namespace {

constexpr size_t kPage = 4096;
constexpr int64_t kMaxAddress = int64_t{1} << 47;  // exclusive: where a process's addresses end

size_t RoundUp(size_t value, size_t unit) { return (value + unit - 1) & ~(unit - 1); }

// Page size of the file system behind a descriptor: hugetlbfs maps, and unmaps, in huge pages only. 0 and errno on failure.
size_t FilePageSize(int fd) {
  struct statfs info;
  if (fstatfs(fd, &info) != 0) return 0;
  return info.f_type == HUGETLBFS_MAGIC ? static_cast<size_t>(info.f_bsize) : kPage;
}

Napi::Value MapFile(const Napi::CallbackInfo& info) {
  Args args(info);
  int fd = args.Descriptor(0);
  size_t offset = static_cast<size_t>(args.Integer(1, "offset", 0, kMaxSafeInteger));
  size_t length = static_cast<size_t>(args.Integer(2, "length", 1, kMaxAddress - 1));
  bool writable = args.Boolean(3, "writable");
  if (offset % kPage != 0) args.Range("offset", "must be a multiple of the page size");
  if (args.failed()) return {};

  struct stat status;
  if (fstat(fd, &status) != 0) return ThrowErrno(info.Env(), errno, "fstat");
  bool device = S_ISBLK(status.st_mode) || S_ISCHR(status.st_mode);
  if (!device && static_cast<uint64_t>(status.st_size) < offset + length) {
    return ThrowErrno(info.Env(), EINVAL, "mmap", "the file ends before the range does");
  }
  size_t page = FilePageSize(fd);
  if (page == 0) return ThrowErrno(info.Env(), errno, "fstatfs");
  if (int error = GuardAgainstSigbus(); error != 0) return ThrowErrno(info.Env(), error, "sigaction");

  size_t lead = offset & (page - 1);  // a huge page's part before the range
  size_t mapped = RoundUp(lead + length, page);
  int protection = writable ? PROT_READ | PROT_WRITE : PROT_READ;
  void* at = mmap(nullptr, mapped, protection, MAP_SHARED, fd, static_cast<off_t>(offset - lead));
  if (at == MAP_FAILED) return ThrowErrno(info.Env(), errno, "mmap");
  madvise(at, mapped, MADV_DONTDUMP);  // best effort: guest memory has no place in our core dumps
  uintptr_t base = reinterpret_cast<uintptr_t>(at);
  return WrapMapping(info.Env(), {base, mapped, base + lead, length, page, true});
}

Napi::Value MapAnonymous(const Napi::CallbackInfo& info) {
  Args args(info);
  size_t length = static_cast<size_t>(args.Integer(0, "length", 1, kMaxAddress - 1));
  if (args.failed()) return {};
  size_t mapped = RoundUp(length, kPage);
  void* at = mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (at == MAP_FAILED) return ThrowErrno(info.Env(), errno, "mmap");
  uintptr_t base = reinterpret_cast<uintptr_t>(at);
  return WrapMapping(info.Env(), {base, mapped, base, length, kPage, false});
}

// Reserves `length` bytes of addresses at a multiple of `page`. MAP_FAILED and errno on failure.
void* Reserve(size_t length, size_t page) {
  size_t room = length + page - kPage;
  void* at = mmap(nullptr, room, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (at == MAP_FAILED) return at;
  auto* start = static_cast<uint8_t*>(at);
  auto* base = reinterpret_cast<uint8_t*>(RoundUp(reinterpret_cast<uintptr_t>(at), page));
  if (base > start) munmap(start, static_cast<size_t>(base - start));
  if (start + room > base + length) munmap(base + length, static_cast<size_t>(start + room - base - length));
  return base;
}

Napi::Value MapAlias(const Napi::CallbackInfo& info) {
  Args args(info);
  Span<double> addresses = args.Doubles(0, "addresses");
  Span<double> lengths = args.Doubles(1, "lengths");
  if (addresses.length == 0 || addresses.length != lengths.length) args.Range("lengths", "must match \"addresses\"");
  Mapping alias = {0, 0, 0, 0, 0, false};
  for (size_t i = 0; i < addresses.length && !args.failed(); i++) {
    Mapping source;
    double address = addresses.data[i];
    double length = lengths.data[i];
    // mremap would go on past the end of the source mapping, so the piece must lie in one.
    if (!(address >= 0 && address < kMaxAddress && length > 0 && length < kMaxAddress) ||
        !FindMapping(static_cast<uintptr_t>(address), static_cast<size_t>(length), &source)) {
      args.Range("addresses", "must lie in live mappings of this addon");
    } else if (std::fmod(address, source.page) != 0 || std::fmod(length, source.page) != 0) {
      args.Range("addresses", "and lengths must be multiples of the page size");
    } else if (alias.page != 0 && alias.page != source.page) {
      args.Range("addresses", "must lie in mappings of one page size");
    }
    alias.page = source.page;
    alias.file = alias.file || source.file;
    alias.mapped += static_cast<size_t>(length);
    if (alias.mapped >= static_cast<size_t>(kMaxAddress)) args.Range("lengths", "are too much together");
  }
  if (args.failed()) return {};

  void* at = Reserve(alias.mapped, alias.page);
  if (at == MAP_FAILED) return ThrowErrno(info.Env(), errno, "mmap");
  uintptr_t next = reinterpret_cast<uintptr_t>(at);
  for (size_t i = 0; i < addresses.length; i++) {
    size_t length = static_cast<size_t>(lengths.data[i]);
    void* source = reinterpret_cast<void*>(static_cast<uintptr_t>(addresses.data[i]));
    if (mremap(source, 0, length, MREMAP_MAYMOVE | MREMAP_FIXED, reinterpret_cast<void*>(next)) == MAP_FAILED) {
      int error = errno;
      munmap(at, alias.mapped);
      return ThrowErrno(info.Env(), error, "mremap");
    }
    next += length;
  }
  alias.base = alias.data = reinterpret_cast<uintptr_t>(at);
  alias.length = alias.mapped;
  return WrapMapping(info.Env(), alias);
}

Napi::Value AddressOf(const Napi::CallbackInfo& info) {
  Args args(info);
  Span<uint8_t> view = args.View(0, "view");
  if (args.failed()) return {};
  return Napi::Number::New(info.Env(), static_cast<double>(reinterpret_cast<uintptr_t>(view.data)));
}

Napi::Value Revoke(const Napi::CallbackInfo& info) {
  Args args(info);
  Span<uint8_t> view = args.View(0, "view");
  Mapping mapping;
  uintptr_t data = reinterpret_cast<uintptr_t>(view.data);
  if (!args.failed() && (view.length == 0 || !FindMapping(data, view.length, &mapping) || mapping.data != data ||
                         mapping.length != view.length)) {
    args.Range("view", "must cover exactly one whole mapping of this addon");
  }
  if (args.failed()) return {};
  int error = ReplaceWithZeros(mapping.base, mapping.mapped);
  return error == 0 ? info.Env().Undefined() : ThrowErrno(info.Env(), error, "mmap");
}

Napi::Value MemfdCreate(const Napi::CallbackInfo& info) {
  Args args(info);
  std::string name = args.Text(0, "name", 249);
  int64_t size = args.Integer(1, "size", 0, kMaxSafeInteger);
  if (args.failed()) return {};
  int fd = memfd_create(name.c_str(), MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL);
  if (fd < 0 && errno == EINVAL) fd = memfd_create(name.c_str(), MFD_CLOEXEC | MFD_ALLOW_SEALING);  // Linux < 6.3
  if (fd < 0) return ThrowErrno(info.Env(), errno, "memfd_create");
  const char* failed = nullptr;
  if (ftruncate(fd, size) != 0) failed = "ftruncate";
  else if (fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) failed = "fcntl";
  if (failed == nullptr) return Napi::Number::New(info.Env(), fd);
  int error = errno;
  close(fd);
  return ThrowErrno(info.Env(), error, failed);
}

Napi::Value FaultCount(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), static_cast<double>(SigbusCount()));
}

}  // namespace

void InitMemory(Napi::Env env, Napi::Object exports) {
  Export<MapFile>(env, exports, "mapFile");
  Export<MapAnonymous>(env, exports, "mapAnonymous");
  Export<MapAlias>(env, exports, "mapAlias");
  Export<AddressOf>(env, exports, "addressOf");
  Export<Revoke>(env, exports, "revoke");
  Export<MemfdCreate>(env, exports, "memfdCreate");
  Export<FaultCount>(env, exports, "faultCount");
}

}  // namespace doorbell
