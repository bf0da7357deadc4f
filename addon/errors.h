// Errors thrown by the addon, like Node's own: `code`, `errno` (positive here) and `syscall`; those about arguments
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

// Throws a system error; `hint` tells the operator what to do about it. The result is there to be returned.
inline Napi::Value ThrowErrno(Napi::Env env, int error, const char* syscall, const std::string& hint = "") {
  char code[64];
  uv_err_name_r(-error, code, sizeof(code));
  std::string message = std::string(code) + ": " + std::generic_category().message(error) + ", " + syscall;
  if (!hint.empty()) message += " (" + hint + ")";
  Napi::Error exception = Napi::Error::New(env, message);
  exception.Set("code", Napi::String::New(env, code));
  exception.Set("errno", Napi::Number::New(env, error));
  exception.Set("syscall", Napi::String::New(env, syscall));
  exception.ThrowAsJavaScriptException();
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
