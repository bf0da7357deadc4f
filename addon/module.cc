// The module's entry. Context-aware: the main thread and every worker thread load it, each with its own `env`; nothing
// mutable is shared between them but the table of mappings (mappings.h).
#include "module.h"

#include "errors.h"

namespace doorbell {
namespace {

// True if this build of Node keeps V8 in a sandbox, whose buffers cannot lie outside of it.
bool Sandboxed(Napi::Object process) {
  Napi::Value value = process.Get("config");
  if (value.IsObject()) value = value.As<Napi::Object>().Get("variables");
  if (value.IsObject()) value = value.As<Napi::Object>().Get("v8_enable_sandbox");
  return value.IsNumber() && value.As<Napi::Number>().Int32Value() != 0;
}

Napi::Object Init(Napi::Env env, Napi::Object exports) {
  Napi::Object process = env.Global().Get("process").As<Napi::Object>();
  Napi::Value versions = process.Get("versions");
  const char* reason = nullptr;
  if (versions.IsObject() && versions.As<Napi::Object>().Has("electron")) {
    reason = "doorbell does not run under Electron: its V8 forbids buffers over mapped memory. Use Node.js.";
  } else if (Sandboxed(process)) {
    reason = "doorbell does not run in a Node.js built with the V8 sandbox: it forbids buffers over mapped memory.";
  }
  if (reason != nullptr) {
    ThrowArgument<Napi::Error>(env, "ERR_FEATURE_UNAVAILABLE_ON_PLATFORM", reason);
    return exports;
  }
  InitShared(env, exports);
  InitMemory(env, exports);
  InitAlias(env, exports);
  InitSocket(env, exports);
  InitMessage(env, exports);
  InitService(env, exports);
  InitPoll(env, exports);
  InitEvent(env, exports);
  InitUring(env, exports);
  InitSubmit(env, exports);
  InitClock(env, exports);
  InitCpu(env, exports);
  InitBlocking(env, exports);
  InitCopy(env, exports);
  return exports;
}

}  // namespace
}  // namespace doorbell

static Napi::Object InitModule(Napi::Env env, Napi::Object exports) { return doorbell::Init(env, exports); }

NODE_API_MODULE(doorbell, InitModule)
