// Memory by mmap: of files, anonymous, revoked; memfds. Aliases are in alias.cc.
#include <fcntl.h>
#include <linux/magic.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <set>

#include "args.h"
#include "module.h"
#include "shared.h"

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U
#endif

namespace doorbell {
namespace {

// Page size of the file behind a descriptor: hugetlbfs maps, and unmaps, in huge pages only. 0 and errno on failure.
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
  auto owner = static_cast<uint32_t>(info.Length() > 4 ? args.Integer(4, "owner", 0, UINT32_MAX) : 0);
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
  return WrapMapping(info.Env(), {base, mapped, base + lead, length, page, true, owner});
}

Napi::Value MapAnonymous(const Napi::CallbackInfo& info) {
  Args args(info);
  size_t length = static_cast<size_t>(args.Integer(0, "length", 1, kMaxAddress - 1));
  bool huge = info.Length() > 1 && args.Boolean(1, "hugePages");
  if (args.failed()) return {};
  size_t mapped = RoundUp(length, kPage);
  int kind = huge ? MAP_PRIVATE | MAP_NORESERVE : MAP_SHARED;
  void* at = mmap(nullptr, mapped, PROT_READ | PROT_WRITE, kind | MAP_ANONYMOUS, -1, 0);
  if (at == MAP_FAILED) return ThrowErrno(info.Env(), errno, "mmap");
  // A kernel without huge pages refuses; the memory serves all the same.
  if (huge) madvise(at, mapped, MADV_HUGEPAGE);
  uintptr_t base = reinterpret_cast<uintptr_t>(at);
  return WrapMapping(info.Env(), {base, mapped, base, length, kPage, false, 0});
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
  if (!args.failed() && (view.length == 0 || FindMapping(data, view.length, &mapping) < 0 || mapping.data != data ||
                         mapping.length != view.length)) {
    args.Range("view", "must cover exactly one whole mapping of this addon");
  }
  if (args.failed()) return {};
  void* held = HoldFile(mapping);
  Moved moved;
  int error = ReplaceWithZeros(mapping.base, mapping.mapped, &moved);
  UnmapLater(moved);
  ReleaseFile(held);
  if (error != 0) return ThrowErrno(info.Env(), error, "mmap");
  NoteRevoked(mapping.mapped);
  return info.Env().Undefined();
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

Napi::Value FaultEvent(const Napi::CallbackInfo& info) {
  int fd = SigbusEvent();
  if (fd < 0) return ThrowErrno(info.Env(), -fd, "eventfd");
  return Napi::Number::New(info.Env(), fd);
}

Napi::Value TakeLostOwners(const Napi::CallbackInfo& info) {
  std::set<uint32_t> owners;
  TakeLost([](uint32_t owner, void* set) { static_cast<std::set<uint32_t>*>(set)->insert(owner); }, &owners);
  owners.erase(0);
  auto result = Napi::Array::New(info.Env(), owners.size());
  uint32_t count = 0;
  for (uint32_t owner : owners) result.Set(count++, owner);
  return result;
}

Napi::Value IsLostMapping(const Napi::CallbackInfo& info) {
  Args args(info);
  Span<uint8_t> view = args.View(0, "view");
  if (args.failed()) return {};
  Mapping mapping;
  int slot = FindMapping(reinterpret_cast<uintptr_t>(view.data), view.length, &mapping);
  return Napi::Boolean::New(info.Env(), slot >= 0 && IsLost(slot));
}

// Only memfds, tmpfs and hugetlbfs have seals, and no other file system is asked.
Napi::Value IsMemoryFile(const Napi::CallbackInfo& info) {
  Args args(info);
  int fd = args.Descriptor(0);
  if (args.failed()) return {};
  return Napi::Boolean::New(info.Env(), fcntl(fd, F_GET_SEALS) >= 0);
}

}  // namespace

void InitMemory(Napi::Env env, Napi::Object exports) {
  Export<MapFile>(env, exports, "mapFile");
  Export<MapAnonymous>(env, exports, "mapAnonymous");
  Export<AddressOf>(env, exports, "addressOf");
  Export<Revoke>(env, exports, "revoke");
  Export<MemfdCreate>(env, exports, "memfdCreate");
  Export<FaultCount>(env, exports, "faultCount");
  Export<FaultEvent>(env, exports, "faultEvent");
  Export<TakeLostOwners>(env, exports, "takeLost");
  Export<IsLostMapping>(env, exports, "isLost");
  Export<IsMemoryFile>(env, exports, "isMemoryFile");
}

}  // namespace doorbell
