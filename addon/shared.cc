// The one place that touches V8: Node-API has no SharedArrayBuffer over given memory before Node 22.23 and 24.16, and
// no way to ask for a garbage collection.
#include "shared.h"

#include <sys/mman.h>
#include <v8.h>

#include <atomic>
#include <cstring>
#include <memory>
#include <utility>

#include "errors.h"
#include "module.h"

#if defined(V8_ENABLE_SANDBOX)
#error "doorbell cannot be built for a V8 with a sandbox: it forbids buffers over mapped memory"
#endif

// Declared weak: null where this Node lacks it. (Its own header declares it only for experimental modules.)
extern "C" napi_status NAPI_CDECL node_api_create_external_sharedarraybuffer(
    napi_env env, void* data, size_t length, void (*finalize)(void* data, void* hint), void* hint,
    napi_value* result) __attribute__((weak));

namespace doorbell {
namespace {

// What may be revoked, in the whole process, before each thread looks for what it can free of it.
constexpr uint64_t kManyMappings = 4096;
constexpr uint64_t kManyBytes = uint64_t{1} << 40;

std::atomic<uint64_t> revokedMappings{0};  // since the start
std::atomic<uint64_t> revokedBytes{0};

struct Owner {
  int slot;
  uintptr_t base;
  size_t mapped;
};

// Runs on any thread, perhaps after the module's `env` is gone.
void Release(Owner* owner) {
  RemoveMapping(owner->slot);  // first: once unmapped, the addresses may be someone else's
  munmap(reinterpret_cast<void*>(owner->base), owner->mapped);
  delete owner;
}

napi_value CreateShared(napi_env env, void* data, size_t length, Owner* owner) {
  napi_value result = nullptr;
  if (node_api_create_external_sharedarraybuffer != nullptr) {
    auto finalize = [](void*, void* hint) { Release(static_cast<Owner*>(hint)); };
    node_api_create_external_sharedarraybuffer(env, data, length, finalize, owner, &result);
    return result;
  }
  auto deleter = [](void*, size_t, void* hint) { Release(static_cast<Owner*>(hint)); };
  std::unique_ptr<v8::BackingStore> store = v8::SharedArrayBuffer::NewBackingStore(data, length, deleter, owner);
  v8::Local<v8::Value> value = v8::SharedArrayBuffer::New(v8::Isolate::GetCurrent(), std::move(store));
  static_assert(sizeof(value) == sizeof(result), "a napi_value is a v8::Local");
  std::memcpy(static_cast<void*>(&result), static_cast<void*>(&value), sizeof(result));
  return result;
}

// V8 does not count these buffers as memory, so nothing drives it to collect the dropped ones: a thread that allocates
// little never would, and 128 TiB of addresses are 2,000 virtual machines of 64 GiB. See README.md.
Napi::Value Reclaim(const Napi::CallbackInfo& info) {
  thread_local uint64_t seenMappings = 0;
  thread_local uint64_t seenBytes = 0;
  uint64_t mappings = revokedMappings.load();
  uint64_t bytes = revokedBytes.load();
  bool due = mappings - seenMappings >= kManyMappings || bytes - seenBytes >= kManyBytes;
  if (due) {
    seenMappings = mappings;
    seenBytes = bytes;
    v8::Isolate::GetCurrent()->LowMemoryNotification();
  }
  return Napi::Boolean::New(info.Env(), due);
}

}  // namespace

void NoteRevoked(size_t length) {
  revokedMappings.fetch_add(1);
  revokedBytes.fetch_add(length);
}

void InitShared(Napi::Env env, Napi::Object exports) { Export<Reclaim>(env, exports, "reclaim"); }

Napi::Value WrapMapping(Napi::Env env, const Mapping& mapping) {
  int slot = AddMapping(mapping);
  if (slot < 0) {
    munmap(reinterpret_cast<void*>(mapping.base), mapping.mapped);
    return ThrowErrno(env, ENOMEM, "mmap", "too many mappings");
  }
  auto* owner = new Owner{slot, mapping.base, mapping.mapped};
  napi_value value = CreateShared(env, reinterpret_cast<void*>(mapping.data), mapping.length, owner);
  if (value != nullptr) return Napi::Value(env, value);
  Release(owner);
  return ThrowErrno(env, ENOMEM, "SharedArrayBuffer");
}

}  // namespace doorbell
