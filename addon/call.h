// A call on a file system or a descriptor, in three steps: its arguments are read on the thread of JavaScript, its work is
// done on any thread, and its outcome becomes a value on the thread of JavaScript again. blocking.cc runs them.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "args.h"

namespace doorbell {

// Plain Node-API: called for an environment that may be ending.
using Giver = std::function<napi_value(napi_env)>;

struct Outcome {
  int error = 0;
  // Of a failure. String literals.
  const char* syscall = "";
  const char* hint = "";
  // Of a success; none gives undefined.
  Giver give;
  // A descriptor that was opened, to be closed if nobody is there any more to take it.
  int opened = -1;
};

// Holds copies of all it needs.
using Work = std::function<Outcome()>;

struct Call {
  const char* name;
  // Reads the arguments; what it returns is not used if they do not fit.
  Work (*prepare)(Args& args);
};

// block.cc, files.cc, network.cc
std::vector<Call> BlockCalls();
std::vector<Call> FileCalls();
std::vector<Call> NetworkCalls();

inline Outcome Failed(const char* syscall, const char* hint = "") {
  Outcome outcome;
  outcome.error = errno;
  outcome.syscall = syscall;
  outcome.hint = hint;
  return outcome;
}

inline Outcome Done(Giver give = nullptr) {
  Outcome outcome;
  outcome.give = std::move(give);
  return outcome;
}

inline napi_value ToNumber(napi_env env, double number) {
  napi_value value = nullptr;
  napi_create_double(env, number, &value);
  return value;
}

inline napi_value ToBigInt(napi_env env, uint64_t number) {
  napi_value value = nullptr;
  napi_create_bigint_uint64(env, number, &value);
  return value;
}

inline napi_value ToBoolean(napi_env env, bool is) {
  napi_value value = nullptr;
  napi_get_boolean(env, is, &value);
  return value;
}

inline napi_value ToObject(napi_env env, std::initializer_list<std::pair<const char*, napi_value>> fields) {
  napi_value object = nullptr;
  napi_create_object(env, &object);
  for (const auto& [name, value] : fields) napi_set_named_property(env, object, name, value);
  return object;
}

}  // namespace doorbell
