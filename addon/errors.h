// Errors thrown by the addon, like Node's own: `code`, `errno` (positive here) and `syscall`; argument errors have `code` only.
//
// C++ exceptions are off: "throwing" leaves a JavaScript exception pending, and the function returns at once.
#pragma once

#include <napi.h>
#include <uv.h>

#include <cerrno>
#include <string>

namespace doorbell {

// Throws a system error; `hint` tells the operator what to do about it. The result is there to be returned.
inline Napi::Value ThrowErrno(Napi::Env env, int error, const char* syscall, const std::string& hint = "") {
  char code[64];
  char text[128];
  uv_err_name_r(-error, code, sizeof(code));
  uv_strerror_r(-error, text, sizeof(text));
  std::string message = std::string(code) + ": " + text + ", " + syscall;
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
