// Pieces of existing mappings mapped once more, side by side.
#include <sys/mman.h>

#include "args.h"
#include "module.h"
#include "shared.h"

namespace doorbell {
namespace {

bool WholePages(double value) { return value >= 0 && value < kMaxAddress && std::fmod(value, kPage) == 0; }

Napi::Value MapAlias(const Napi::CallbackInfo& info) {
  Args args(info);
  Span<double> addresses = args.Doubles(0, "addresses");
  Span<double> lengths = args.Doubles(1, "lengths");
  if (addresses.length == 0 || addresses.length != lengths.length) args.Range("lengths", "must match \"addresses\"");
  size_t total = 0;
  bool file = false;
  uint32_t owner = 0;
  for (size_t i = 0; i < addresses.length && !args.failed(); i++) {
    Mapping source;
    if (!WholePages(addresses.data[i]) || !WholePages(lengths.data[i]) || lengths.data[i] == 0) {
      args.Range("addresses", "and lengths must be multiples of the page size");
    } else if (auto length = static_cast<size_t>(lengths.data[i]);
               // mremap would go on past the end of the source mapping, so the piece must lie in one.
               FindMapping(static_cast<uintptr_t>(addresses.data[i]), length, &source) < 0) {
      args.Range("addresses", "must lie in live mappings of this addon");
    } else if (source.page != kPage) {
      return ThrowErrno(info.Env(), ENOTSUP, "mremap", "the kernel does not map huge pages once more");
    } else {
      total += length;
      file = file || source.file;
      owner = source.owner;
      if (total >= static_cast<size_t>(kMaxAddress)) args.Range("lengths", "are too much together");
    }
  }
  if (args.failed()) return {};

  void* at = mmap(nullptr, total, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (at == MAP_FAILED) return ThrowErrno(info.Env(), errno, "mmap");
  uintptr_t base = reinterpret_cast<uintptr_t>(at);
  uintptr_t next = base;
  for (size_t i = 0; i < addresses.length; i++) {
    void* source = reinterpret_cast<void*>(static_cast<uintptr_t>(addresses.data[i]));
    auto length = static_cast<size_t>(lengths.data[i]);
    void* target = reinterpret_cast<void*>(next);
    if (mremap(source, 0, length, MREMAP_MAYMOVE | MREMAP_FIXED, target) == MAP_FAILED) {
      int error = errno;
      munmap(at, total);
      return ThrowErrno(info.Env(), error, "mremap");
    }
    next += length;
  }
  return WrapMapping(info.Env(), {base, total, base, total, kPage, file, owner});
}

}  // namespace

void InitAlias(Napi::Env env, Napi::Object exports) { Export<MapAlias>(env, exports, "mapAlias"); }

}  // namespace doorbell
