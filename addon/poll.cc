// FdPoll: readiness of a descriptor on the event loop of the thread that made it (uv_poll).
//
// The libuv handle outlives the JavaScript object: libuv frees it in a later turn of the loop. `owner` is the way back
// to the object and is cleared at close, so neither a late callback nor the collector can meet a dead one.
#include <memory>

#include "args.h"
#include "module.h"

namespace doorbell {
namespace {

class FdPoll;

struct Watch {
  uv_poll_t handle;
  FdPoll* owner;
  napi_async_cleanup_hook_handle hook;
};

class FdPoll : public Napi::ObjectWrap<FdPoll> {
 public:
  explicit FdPoll(const Napi::CallbackInfo& info) : Napi::ObjectWrap<FdPoll>(info) {
    Args args(info);
    int fd = args.Descriptor(0);
    if (!args.failed() && !info[1].IsFunction()) {
      ThrowArgument<Napi::TypeError>(info.Env(), "ERR_INVALID_ARG_TYPE", "\"onReady\" must be a function");
      return;
    }
    if (args.failed()) return;
    uv_loop_t* loop = nullptr;
    napi_get_uv_event_loop(info.Env(), &loop);
    auto* watch = new Watch();
    if (int error = uv_poll_init(loop, &watch->handle, fd); error != 0) {
      delete watch;
      ThrowErrno(info.Env(), -error, "uv_poll_init");
      return;
    }
    watch->handle.data = watch;
    watch->owner = this;
    watch_ = watch;
    napi_add_async_cleanup_hook(info.Env(), OnTeardown, watch, &watch->hook);
    onReady_ = Napi::Persistent(info[1].As<Napi::Function>());
    context_ = std::make_unique<Napi::AsyncContext>(info.Env(), "doorbell.FdPoll");
  }

  ~FdPoll() override { Release(); }

  void Start(const Napi::CallbackInfo& info) {
    Args args(info);
    bool readable = args.Boolean(0, "readable");
    bool writable = args.Boolean(1, "writable");
    if (!readable && !writable) args.Range("readable", "or \"writable\" must be true");
    if (args.failed()) return;
    if (watch_ == nullptr) {
      ThrowErrno(info.Env(), EBADF, "uv_poll_start", "the FdPoll is closed");
      return;
    }
    events_ = (readable ? UV_READABLE : 0) | (writable ? UV_WRITABLE : 0);
    if (int error = uv_poll_start(&watch_->handle, events_, OnEvent); error != 0) {
      ThrowErrno(info.Env(), -error, "uv_poll_start");
      return;
    }
    if (!started_) Ref();  // not collected while it may call back
    started_ = true;
  }

  void Stop(const Napi::CallbackInfo&) {
    if (watch_ != nullptr) uv_poll_stop(&watch_->handle);
    Settle();
  }

  void Close(const Napi::CallbackInfo&) {
    Release();
    Settle();
  }

 private:
  // Gives the handle back to libuv. The descriptor is out of the loop when this returns.
  void Release() {
    if (watch_ == nullptr) return;
    watch_->owner = nullptr;
    uv_close(reinterpret_cast<uv_handle_t*>(&watch_->handle), OnClosed);
    watch_ = nullptr;
    onReady_.Reset();
  }

  void Settle() {
    if (started_) Unref();
    started_ = false;
  }

  static void OnClosed(uv_handle_t* handle) {
    auto* watch = static_cast<Watch*>(handle->data);
    napi_remove_async_cleanup_hook(watch->hook);
    delete watch;
  }

  // The environment ends (process exit, worker terminated) and waits until the hook is removed.
  static void OnTeardown(napi_async_cleanup_hook_handle, void* data) {
    auto* watch = static_cast<Watch*>(data);
    if (watch->owner != nullptr) watch->owner->Release();
  }

  static void OnEvent(uv_poll_t* handle, int status, int events) {
    FdPoll* self = static_cast<Watch*>(handle->data)->owner;
    if (self == nullptr) return;
    // libuv stops a handle that has an error; here readiness stays level-triggered until JavaScript has dealt with it.
    if (status < 0) {
      events = UV_READABLE | UV_WRITABLE;
      uv_poll_start(handle, self->events_, OnEvent);
    }
    Napi::Env env = self->Env();
    Napi::HandleScope scope(env);
    Napi::Object object = self->Value();  // keeps `self` alive through its own close()
    napi_value arguments[] = {Napi::Boolean::New(env, (events & UV_READABLE) != 0),
                              Napi::Boolean::New(env, (events & UV_WRITABLE) != 0)};
    // Plain Node-API: the wrapper would abort when the environment is ending and runs no JavaScript any more.
    napi_value function = self->onReady_.Value();
    if (napi_make_callback(env, *self->context_, object, function, 2, arguments, nullptr) == napi_ok) return;
    bool pending = false;
    napi_value exception = nullptr;
    napi_is_exception_pending(env, &pending);
    if (pending && napi_get_and_clear_last_exception(env, &exception) == napi_ok) napi_fatal_exception(env, exception);
  }

  Watch* watch_ = nullptr;
  Napi::FunctionReference onReady_;
  std::unique_ptr<Napi::AsyncContext> context_;
  int events_ = 0;
  bool started_ = false;
};

}  // namespace

void InitPoll(Napi::Env env, Napi::Object exports) {
  exports.Set("FdPoll", FdPoll::DefineClass(env, "FdPoll",
                                            {FdPoll::InstanceMethod<&FdPoll::Start>("start"),
                                             FdPoll::InstanceMethod<&FdPoll::Stop>("stop"),
                                             FdPoll::InstanceMethod<&FdPoll::Close>("close")}));
}

}  // namespace doorbell
