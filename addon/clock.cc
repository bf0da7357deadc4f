// Clocks, in nanoseconds. A bound clock writes into a Float64Array: a double that is returned to JavaScript is garbage.
#include <time.h>

#include "errors.h"
#include "module.h"

namespace doorbell {
namespace {

double Nanoseconds(clockid_t clock) {
  timespec now = {};
  clock_gettime(clock, &now);
  return static_cast<double>(now.tv_sec) * 1e9 + static_cast<double>(now.tv_nsec);
}

napi_value Clock(napi_env env, napi_callback_info) {
  napi_value result = nullptr;
  napi_create_double(env, Nanoseconds(CLOCK_MONOTONIC), &result);
  return result;
}

struct Times {
  double* values;
  size_t count;
};

template <clockid_t clock>
napi_value ReadBound(napi_env env, napi_callback_info info) {
  napi_value value = nullptr;
  size_t argc = 1;
  void* data = nullptr;
  uint32_t index = 0;
  napi_get_cb_info(env, info, &argc, &value, nullptr, &data);
  auto* times = static_cast<Times*>(data);
  // Without an index it is 0: `value` is undefined then, and stays unread.
  if (argc > 0 && napi_get_value_uint32(env, value, &index) != napi_ok) index = UINT32_MAX;
  if (index >= times->count) {
    ThrowArgument<Napi::RangeError>(env, "ERR_OUT_OF_RANGE", "\"index\" must be one of the array's");
  } else {
    times->values[index] = Nanoseconds(clock);
  }
  return nullptr;
}

// A function that has looked into its array once and for all; its `times` property keeps the array alive.
template <clockid_t clock>
Napi::Value Bind(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  napi_typedarray_type type;
  size_t count = 0;
  void* data = nullptr;
  napi_value buffer = nullptr;
  bool movable = true;
  if (napi_get_typedarray_info(env, info[0], &type, &count, &data, &buffer, nullptr) == napi_ok &&
      type == napi_float64_array) {
    napi_is_arraybuffer(env, buffer, &movable);  // postMessage could take its memory away
  }
  if (movable) {
    ThrowArgument<Napi::TypeError>(env, "ERR_INVALID_ARG_TYPE", "\"times\" must be a Float64Array over shared memory");
    return {};
  }
  auto* times = new Times{static_cast<double*>(data), count};
  napi_value function = nullptr;
  napi_create_function(env, "clock", NAPI_AUTO_LENGTH, ReadBound<clock>, times, &function);
  Napi::Object object(env, function);
  object.DefineProperty(Napi::PropertyDescriptor::Value("times", info[0], napi_default));  // for good
  object.AddFinalizer([](Napi::BasicEnv, Times* data) { delete data; }, times);
  return object;
}

}  // namespace

void InitClock(Napi::Env env, Napi::Object exports) {
  ExportHot(env, exports, "clock", Clock);
  Export<Bind<CLOCK_MONOTONIC>>(env, exports, "bindClock");
  Export<Bind<CLOCK_THREAD_CPUTIME_ID>>(env, exports, "bindThreadClock");
}

}  // namespace doorbell
