// Reads and checks the arguments of a call from JavaScript.
#pragma once

#include <cmath>
#include <cstdint>

#include "errors.h"

namespace doorbell {

// The largest integer up to which every integer is exact as a double.
constexpr int64_t kMaxSafeInteger = (int64_t{1} << 53) - 1;

// Elements of a typed array, valid until the next call into JavaScript.
template <typename T>
struct Span {
  T* data = nullptr;
  size_t length = 0;
};

// Reads the arguments of one call. The first that does not fit throws; the rest then read as zeros, so a function reads
// all it needs and asks `failed()` once, before it acts.
class Args {
 public:
  explicit Args(const Napi::CallbackInfo& info) : info_(info) {}

  bool failed() const { return failed_; }

  int64_t Integer(size_t index, const char* name, int64_t low, int64_t high) {
    if (failed_ || !Expect(info_[index].IsNumber(), name, "a number")) return 0;
    return InRange(info_[index].As<Napi::Number>().DoubleValue(), name, low, high);
  }

  int Descriptor(size_t index, const char* name = "fd") {
    return static_cast<int>(Integer(index, name, 0, INT32_MAX));
  }

  bool Boolean(size_t index, const char* name) {
    if (failed_ || !Expect(info_[index].IsBoolean(), name, "a boolean")) return false;
    return info_[index].As<Napi::Boolean>().Value();
  }

  // At most `limit` bytes of UTF-8, without a NUL.
  std::string Text(size_t index, const char* name, size_t limit) {
    if (failed_ || !Expect(info_[index].IsString(), name, "a string")) return {};
    std::string text = info_[index].As<Napi::String>().Utf8Value();
    if (text.find('\0') != std::string::npos) Range(name, "must not contain a NUL");
    else if (text.size() > limit) Range(name, "is longer than " + std::to_string(limit) + " bytes");
    return text;
  }

  Napi::Array Array(size_t index, const char* name) {
    if (failed_ || !Expect(info_[index].IsArray(), name, "an array")) return {};
    return info_[index].As<Napi::Array>();
  }

  // Element `index` of an array: an integer.
  int64_t Element(Napi::Array array, uint32_t index, const char* name, int64_t low, int64_t high) {
    if (failed_) return 0;
    Napi::Value value = array.Get(index);
    if (!Expect(!value.IsEmpty() && value.IsNumber(), name, "an array of numbers")) return 0;
    return InRange(value.As<Napi::Number>().DoubleValue(), name, low, high);
  }

  Span<uint8_t> Bytes(size_t index, const char* name) {
    return Typed<uint8_t>(index, name, napi_uint8_array, "a Uint8Array");
  }
  Span<int32_t> Ints(size_t index, const char* name) {
    return Typed<int32_t>(index, name, napi_int32_array, "an Int32Array");
  }
  Span<double> Doubles(size_t index, const char* name) {
    return Typed<double>(index, name, napi_float64_array, "a Float64Array");
  }

  // The bytes of any typed array or DataView. Node 20's Node-API looks into views of a SharedArrayBuffer, not into the
  // buffer itself, and by this call into all kinds of them.
  Span<uint8_t> View(size_t index, const char* name) {
    Span<uint8_t> view;
    if (failed_) return view;
    bool fits = info_[index].IsTypedArray() || info_[index].IsDataView();
    if (!Expect(fits, name, "a typed array or a DataView")) return view;
    void* data = nullptr;
    napi_get_buffer_info(info_.Env(), info_[index], &data, &view.length);
    view.data = static_cast<uint8_t*>(data);
    return view;
  }

  // Fails the call with a RangeError: `name` + `complaint`.
  void Range(const char* name, const std::string& complaint) {
    if (!failed_) ThrowArgument<Napi::RangeError>(info_.Env(), "ERR_OUT_OF_RANGE", Quoted(name) + complaint);
    failed_ = true;
  }

 private:
  static std::string Quoted(const char* name) { return std::string("\"") + name + "\" "; }

  bool Expect(bool fits, const char* name, const char* what) {
    if (fits) return true;
    if (!info_.Env().IsExceptionPending()) {
      ThrowArgument<Napi::TypeError>(info_.Env(), "ERR_INVALID_ARG_TYPE", Quoted(name) + "must be " + what);
    }
    failed_ = true;
    return false;
  }

  int64_t InRange(double value, const char* name, int64_t low, int64_t high) {
    if (value >= static_cast<double>(low) && value <= static_cast<double>(high) && std::trunc(value) == value) {
      return static_cast<int64_t>(value);
    }
    Range(name, "must be an integer from " + std::to_string(low) + " to " + std::to_string(high));
    return 0;
  }

  template <typename T>
  Span<T> Typed(size_t index, const char* name, napi_typedarray_type wanted, const char* what) {
    Span<T> span;
    if (failed_) return span;
    napi_typedarray_type type;
    void* data = nullptr;
    size_t length = 0;
    napi_status status = napi_get_typedarray_info(info_.Env(), info_[index], &type, &length, &data, nullptr, nullptr);
    if (!Expect(status == napi_ok && type == wanted, name, what)) return span;
    span.data = static_cast<T*>(data);
    span.length = length;
    return span;
  }

  const Napi::CallbackInfo& info_;
  bool failed_ = false;
};

}  // namespace doorbell
