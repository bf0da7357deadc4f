// Memory copies by host address, many to a call.
#include <cstring>

#include "errors.h"
#include "module.h"

namespace doorbell {
namespace {

napi_value CopyBatch(napi_env env, napi_callback_info info) {
  napi_value values[2] = {};
  size_t argc = 2;
  napi_typedarray_type type;
  size_t length = 0;
  void* data = nullptr;
  uint32_t count = 0;
  napi_get_cb_info(env, info, &argc, values, nullptr, nullptr);
  if (napi_get_typedarray_info(env, values[0], &type, &length, &data, nullptr, nullptr) != napi_ok ||
      type != napi_float64_array || napi_get_value_uint32(env, values[1], &count) != napi_ok) {
    ThrowArgument<Napi::TypeError>(env, "ERR_INVALID_ARG_TYPE", "copyBatch takes a Float64Array and a number");
    return nullptr;
  }
  if (count > length / 3) {
    ThrowArgument<Napi::RangeError>(env, "ERR_OUT_OF_RANGE", "\"count\" is more than \"list\" holds");
    return nullptr;
  }
  const auto* triple = static_cast<const double*>(data);
  for (uint32_t i = 0; i < count; i++, triple += 3) {
    // memmove: a guest may name the same pages as source and destination.
    std::memmove(reinterpret_cast<void*>(static_cast<uintptr_t>(triple[0])),
                 reinterpret_cast<const void*>(static_cast<uintptr_t>(triple[1])), static_cast<size_t>(triple[2]));
  }
  return nullptr;
}

}  // namespace

void InitCopy(Napi::Env env, Napi::Object exports) { ExportHot(env, exports, "copyBatch", CopyBatch); }

}  // namespace doorbell
