// `blocking`: calls that may wait for ever, each on a native thread of its own and answered by a promise. How many run at
// once is the caller's affair (src/native/blocking-calls.ts).
//
// A thread that hangs outlives whatever asked it: it owns its job, and shares the channel by which the outcome goes back.
// The channel is closed when the environment ends; what comes later is dropped.
#include <unistd.h>

#include <memory>
#include <mutex>
#include <utility>

#include "call.h"
#include "module.h"
#include "threads.h"

namespace doorbell {
namespace {

struct Channel;

struct Job {
  Work work;
  Outcome outcome;
  napi_deferred deferred;
  std::shared_ptr<Channel> channel;
};

// One for each environment. Only `mutex`, `closed` and `finished` are touched by other threads, and the uv_async_t under
// the mutex while it is not closed.
struct Channel {
  napi_env env = nullptr;
  napi_async_context context = nullptr;
  napi_async_cleanup_hook_handle hook = nullptr;
  uv_async_t async = {};
  size_t underWay = 0;
  std::mutex mutex;
  bool closed = false;
  std::vector<std::unique_ptr<Job>> finished;
  // Until libuv has let go of `async`.
  std::shared_ptr<Channel> self;
};

// What a function of the environment is about. Lives as long as the environment.
struct Bound {
  Call call;
  std::shared_ptr<Channel> channel;
};

// In the job's own thread.
void Perform(void* data) {
  std::unique_ptr<Job> job(static_cast<Job*>(data));
  job->outcome = job->work();
  std::shared_ptr<Channel> channel = job->channel;
  {
    std::lock_guard<std::mutex> lock(channel->mutex);
    if (!channel->closed) {
      channel->finished.push_back(std::move(job));
      uv_async_send(&channel->async);
      return;
    }
  }
  if (job->outcome.opened >= 0) close(job->outcome.opened);
}

void Settle(napi_env env, Job& job) {
  const Outcome& outcome = job.outcome;
  if (outcome.error != 0) {
    napi_reject_deferred(env, job.deferred, MakeErrno(env, outcome.error, outcome.syscall, outcome.hint));
    return;
  }
  napi_value value = nullptr;
  if (outcome.give) value = outcome.give(env);
  else napi_get_undefined(env, &value);
  napi_resolve_deferred(env, job.deferred, value);
}

// Runs on the loop. Plain Node-API: the wrapper would abort when the environment is ending and runs no JavaScript any more.
void Deliver(uv_async_t* async) {
  auto* channel = static_cast<Channel*>(async->data);
  std::vector<std::unique_ptr<Job>> jobs;
  {
    std::lock_guard<std::mutex> lock(channel->mutex);
    jobs.swap(channel->finished);
  }
  napi_env env = channel->env;
  napi_handle_scope handles = nullptr;
  napi_open_handle_scope(env, &handles);
  napi_value resource = nullptr;
  napi_create_object(env, &resource);
  for (std::unique_ptr<Job>& job : jobs) {
    napi_callback_scope scope = nullptr;
    if (napi_open_callback_scope(env, resource, channel->context, &scope) != napi_ok) break;
    Settle(env, *job);
    // Runs what waited for the promise.
    napi_close_callback_scope(env, scope);
  }
  napi_close_handle_scope(env, handles);
  channel->underWay -= jobs.size();
  if (channel->underWay == 0) uv_unref(reinterpret_cast<uv_handle_t*>(async));
}

napi_value Begin(napi_env env, napi_callback_info info) {
  Napi::CallbackInfo call(env, info);
  auto* bound = static_cast<Bound*>(call.Data());
  Args args(call);
  Work work = bound->call.prepare(args);
  if (args.failed()) return nullptr;
  napi_value promise = nullptr;
  auto job = std::make_unique<Job>();
  job->work = std::move(work);
  job->channel = bound->channel;
  if (napi_create_promise(env, &job->deferred, &promise) != napi_ok) return nullptr;
  if (int error = StartThread(Perform, job.get()); error != 0) {
    napi_reject_deferred(env, job->deferred, MakeErrno(env, error, "pthread_create"));
    return promise;
  }
  job.release();
  if (bound->channel->underWay++ == 0) uv_ref(reinterpret_cast<uv_handle_t*>(&bound->channel->async));
  return promise;
}

// The same call in place, for a descriptor that does not wait.
napi_value RunHere(napi_env env, napi_callback_info info) {
  Napi::CallbackInfo call(env, info);
  Args args(call);
  Work work = static_cast<Bound*>(call.Data())->call.prepare(args);
  if (args.failed()) return nullptr;
  Outcome outcome = work();
  if (outcome.error != 0) return ThrowErrno(env, outcome.error, outcome.syscall, outcome.hint);
  return outcome.give ? outcome.give(env) : nullptr;
}

void ExportCall(Napi::Env env, Napi::Object exports, const Call& call, napi_callback function,
                const std::shared_ptr<Channel>& channel) {
  auto* bound = new Bound{call, channel};
  env.AddCleanupHook([](Bound* mine) { delete mine; }, bound);
  napi_value value = nullptr;
  napi_create_function(env, call.name, NAPI_AUTO_LENGTH, function, bound, &value);
  exports.Set(call.name, value);
}

void OnClosed(uv_handle_t* handle) {
  auto* channel = static_cast<Channel*>(handle->data);
  napi_remove_async_cleanup_hook(channel->hook);
  channel->self.reset();
}

// The environment ends, and waits until the hook is removed; it does not wait for the calls under way.
void OnTeardown(napi_async_cleanup_hook_handle, void* data) {
  auto* channel = static_cast<Channel*>(data);
  std::vector<std::unique_ptr<Job>> untold;
  {
    std::lock_guard<std::mutex> lock(channel->mutex);
    channel->closed = true;
    untold.swap(channel->finished);
  }
  for (std::unique_ptr<Job>& job : untold) {
    job->work = [fd = job->outcome.opened] {
      if (fd >= 0) close(fd);
      return Outcome();
    };
    if (StartThread(Perform, job.get()) == 0) job.release();
  }
  napi_async_destroy(channel->env, channel->context);
  uv_close(reinterpret_cast<uv_handle_t*>(&channel->async), OnClosed);
}

}  // namespace

void InitBlocking(Napi::Env env, Napi::Object exports) {
  auto channel = std::make_shared<Channel>();
  channel->self = channel;
  channel->env = env;
  napi_async_init(env, nullptr, Napi::String::New(env, "doorbell.blocking"), &channel->context);
  uv_loop_t* loop = nullptr;
  napi_get_uv_event_loop(env, &loop);
  if (int error = uv_async_init(loop, &channel->async, Deliver); error != 0) {
    ThrowErrno(env, -error, "uv_async_init");
    return;
  }
  channel->async.data = channel.get();
  uv_unref(reinterpret_cast<uv_handle_t*>(&channel->async));
  napi_add_async_cleanup_hook(env, OnTeardown, channel.get(), &channel->hook);

  Napi::Object blocking = Napi::Object::New(env);
  for (const Call& call : FileCalls()) ExportCall(env, blocking, call, Begin, channel);
  for (const Call& call : NetworkCalls()) ExportCall(env, blocking, call, Begin, channel);
  for (const Call& call : BlockCalls()) {
    ExportCall(env, blocking, call, Begin, channel);
    ExportCall(env, exports, call, RunHere, channel);
  }
  exports.Set("blocking", blocking);
}

}  // namespace doorbell
