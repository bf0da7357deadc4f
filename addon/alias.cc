// Pieces of existing mappings mapped once more, side by side.
#include <sys/mman.h>

#include "args.h"
#include "module.h"
#include "shared.h"

namespace doorbell {
namespace {

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

}  // namespace

void InitAlias(Napi::Env env, Napi::Object exports) { Export<MapAlias>(env, exports, "mapAlias"); }

}  // namespace doorbell
