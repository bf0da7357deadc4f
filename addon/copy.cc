// Memory copies by host address, many to a call.
#include <sys/mman.h>

#include <cstring>

#include "errors.h"
#include "module.h"

namespace doorbell {
namespace {

// A list of [destination, source, length] triples.
struct List {
  const double* triples;
  size_t count;
};

// How much of the next copy is loaded while one is made, since random blocks of a large disk are in no cache: eight lines, then the
// processor sees for itself where it goes on. In bytes.
constexpr size_t kLine = 64;
constexpr size_t kPrefetch = 8 * kLine;

constexpr uintptr_t kPage = 4096;

bool Count(const List& list, napi_env env, napi_value value, uint32_t* count) {
  if (napi_get_value_uint32(env, value, count) == napi_ok && *count <= list.count) return true;
  ThrowArgument<Napi::RangeError>(env, "ERR_OUT_OF_RANGE", "\"count\" must be a number that \"list\" holds");
  return false;
}

bool Copy(const List& list, napi_env env, napi_value value) {
  uint32_t count = 0;
  if (!Count(list, env, value, &count)) return false;
  const double* triple = list.triples;
  for (uint32_t i = 0; i < count; i++, triple += 3) {
    if (i + 1 < count) {
      // A prefetch faults nowhere. (In a function of its own GCC takes it for dead code.)
      auto to = static_cast<uintptr_t>(triple[3]);
      auto from = static_cast<uintptr_t>(triple[4]);
      for (size_t at = 0; at < kPrefetch; at += kLine) {
        __builtin_prefetch(reinterpret_cast<const void*>(from + at));
        __builtin_prefetch(reinterpret_cast<const void*>(to + at), 1);
      }
    }
    // memmove, because a guest may name the same pages as source and destination.
    std::memmove(reinterpret_cast<void*>(static_cast<uintptr_t>(triple[0])),
                 reinterpret_cast<const void*>(static_cast<uintptr_t>(triple[1])), static_cast<size_t>(triple[2]));
  }
  return true;
}

// Looks into a Float64Array; throws if it is none. `buffer` receives what it views.
bool Read(napi_env env, napi_value value, List* list, napi_value* buffer) {
  napi_typedarray_type type;
  size_t length = 0;
  void* data = nullptr;
  if (napi_get_typedarray_info(env, value, &type, &length, &data, buffer, nullptr) != napi_ok ||
      type != napi_float64_array) {
    ThrowArgument<Napi::TypeError>(env, "ERR_INVALID_ARG_TYPE", "\"list\" must be a Float64Array");
    return false;
  }
  *list = {static_cast<const double*>(data), length / 3};
  return true;
}

napi_value CopyBatch(napi_env env, napi_callback_info info) {
  napi_value values[2] = {};
  size_t argc = 2;
  List list;
  napi_get_cb_info(env, info, &argc, values, nullptr, nullptr);
  if (Read(env, values[0], &list, nullptr)) Copy(list, env, values[1]);
  return nullptr;
}

// What a bound function finds in its first argument and its own list.
struct Bound {
  List list;
  napi_value argument;
};

Bound Arguments(napi_env env, napi_callback_info info) {
  napi_value value = nullptr;
  size_t argc = 1;
  void* data = nullptr;
  napi_get_cb_info(env, info, &argc, &value, nullptr, &data);
  return {*static_cast<List*>(data), value};
}

napi_value CopyBound(napi_env env, napi_callback_info info) {
  Bound bound = Arguments(env, info);
  Copy(bound.list, env, bound.argument);
  return nullptr;
}

napi_value CompareBound(napi_env env, napi_callback_info info) {
  Bound bound = Arguments(env, info);
  uint32_t count = 0;
  if (!Count(bound.list, env, bound.argument, &count)) return nullptr;
  bool equal = true;
  const double* triple = bound.list.triples;
  for (uint32_t i = 0; i < count && equal; i++, triple += 3) {
    equal = std::memcmp(reinterpret_cast<const void*>(static_cast<uintptr_t>(triple[0])),
                        reinterpret_cast<const void*>(static_cast<uintptr_t>(triple[1])),
                        static_cast<size_t>(triple[2])) == 0;
  }
  napi_value result = nullptr;
  napi_get_boolean(env, equal, &result);
  return result;
}

// Pages of private anonymous memory are given back: they read as zeroes until they are written again.
napi_value ZeroBound(napi_env env, napi_callback_info info) {
  const double* range = Arguments(env, info).list.triples;
  auto from = static_cast<uintptr_t>(range[0]);
  uintptr_t to = from + static_cast<uintptr_t>(range[1]);
  uintptr_t page = (from + kPage - 1) & ~(kPage - 1);
  uintptr_t end = to & ~(kPage - 1);
  if (page >= end || madvise(reinterpret_cast<void*>(page), end - page, MADV_DONTNEED) != 0) page = end = to;
  std::memset(reinterpret_cast<void*>(from), 0, page - from);
  std::memset(reinterpret_cast<void*>(end), 0, to - end);
  return nullptr;
}

// A function that has looked into its list once and for all; its `list` property keeps the list alive.
Napi::Value Bind(const Napi::CallbackInfo& info, const char* name, napi_callback call) {
  Napi::Env env = info.Env();
  List list;
  napi_value buffer = nullptr;
  if (!Read(env, info[0], &list, &buffer)) return {};
  bool movable = true;
  napi_is_arraybuffer(env, buffer, &movable);
  if (movable) {  // postMessage could take its memory away
    ThrowArgument<Napi::TypeError>(env, "ERR_INVALID_ARG_TYPE", "\"list\" must view a SharedArrayBuffer");
    return {};
  }
  auto* bound = new List(list);
  napi_value function = nullptr;
  napi_create_function(env, name, NAPI_AUTO_LENGTH, call, bound, &function);
  Napi::Object object(env, function);
  object.DefineProperty(Napi::PropertyDescriptor::Value("list", info[0], napi_default));  // for good
  object.AddFinalizer([](Napi::BasicEnv, List* data) { delete data; }, bound);
  return object;
}

Napi::Value BindCopyBatch(const Napi::CallbackInfo& info) { return Bind(info, "copyBound", CopyBound); }

Napi::Value BindCompareBatch(const Napi::CallbackInfo& info) { return Bind(info, "compareBound", CompareBound); }

Napi::Value BindZeroMemory(const Napi::CallbackInfo& info) {
  List list;
  if (Read(info.Env(), info[0], &list, nullptr) && list.count == 0) {
    ThrowArgument<Napi::RangeError>(info.Env(), "ERR_OUT_OF_RANGE", "\"range\" is too short");
    return {};
  }
  return Bind(info, "zeroBound", ZeroBound);
}

}  // namespace

void InitCopy(Napi::Env env, Napi::Object exports) {
  ExportHot(env, exports, "copyBatch", CopyBatch);
  Export<BindCopyBatch>(env, exports, "bindCopyBatch");
  Export<BindCompareBatch>(env, exports, "bindCompareBatch");
  Export<BindZeroMemory>(env, exports, "bindZeroMemory");
}

}  // namespace doorbell
