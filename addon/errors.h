// Errors made by the addon, like Node's own: `code`, `errno` (positive here) and `syscall`; those about arguments
// have `code` only.
//
// C++ exceptions are off: "throwing" leaves a JavaScript exception pending, and the function returns at once.
#pragma once

#include <napi.h>
#include <uv.h>

#include <cerrno>
#include <string>
#include <system_error>

namespace doorbell {

// A system error; `hint` tells the operator what to do about it. Plain Node-API, which gives null, and no more, when the
// environment is ending.
inline napi_value MakeErrno(napi_env env, int error, const char* syscall, const std::string& hint = "") {
  char code[64];
  uv_err_name_r(-error, code, sizeof(code));
  std::string message = std::string(code) + ": " + std::generic_category().message(error) + ", " + syscall;
  if (!hint.empty()) message += " (" + hint + ")";
  napi_value text = nullptr, exception = nullptr, field = nullptr;
  napi_create_string_utf8(env, message.c_str(), message.size(), &text);
  napi_create_error(env, nullptr, text, &exception);
  napi_create_string_utf8(env, code, NAPI_AUTO_LENGTH, &field);
  napi_set_named_property(env, exception, "code", field);
  napi_create_int32(env, error, &field);
  napi_set_named_property(env, exception, "errno", field);
  napi_create_string_utf8(env, syscall, NAPI_AUTO_LENGTH, &field);
  napi_set_named_property(env, exception, "syscall", field);
  return exception;
}

// Throws a system error. The result is there to be returned.
inline Napi::Value ThrowErrno(Napi::Env env, int error, const char* syscall, const std::string& hint = "") {
  napi_throw(env, MakeErrno(env, error, syscall, hint));
  return Napi::Value();
}

// Throws a TypeError or RangeError (`Kind`) with one of Node's `ERR_…` codes.
template <typename Kind>
void ThrowArgument(Napi::Env env, const char* code, const std::string& message) {
  Kind exception = Kind::New(env, message);
  exception.Set("code", Napi::String::New(env, code));
  exception.ThrowAsJavaScriptException();
}

}  // namespace doorbell
