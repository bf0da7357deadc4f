// The calling thread: its processors, id, name, timer slack.
#include <sched.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <vector>

#include "args.h"
#include "module.h"

namespace doorbell {
namespace {

constexpr size_t kMaxCpus = 8192;  // the largest NR_CPUS of x86-64

struct CpuSet {
  cpu_set_t sets[kMaxCpus / CPU_SETSIZE];
};

Napi::Value GetAffinity(const Napi::CallbackInfo& info) {
  CpuSet set = {};
  if (sched_getaffinity(0, sizeof(set), set.sets) != 0) return ThrowErrno(info.Env(), errno, "sched_getaffinity");
  Napi::Array cpus = Napi::Array::New(info.Env());
  uint32_t count = 0;
  for (size_t cpu = 0; cpu < kMaxCpus; cpu++) {
    if (!CPU_ISSET_S(cpu, sizeof(set), set.sets)) continue;
    cpus.Set(count++, Napi::Number::New(info.Env(), static_cast<double>(cpu)));
  }
  return cpus;
}

Napi::Value SetAffinity(const Napi::CallbackInfo& info) {
  Args args(info);
  Napi::Array cpus = args.Array(0, "cpus");
  CpuSet set = {};
  uint32_t count = args.failed() ? 0 : cpus.Length();
  if (count == 0 || count > kMaxCpus) args.Range("cpus", "must name 1 to 8192 processors");
  for (uint32_t i = 0; i < count && !args.failed(); i++) {
    CPU_SET_S(static_cast<size_t>(args.Element(cpus, i, "cpus", 0, kMaxCpus - 1)), sizeof(set), set.sets);
  }
  if (args.failed()) return {};
  if (sched_setaffinity(0, sizeof(set), set.sets) != 0) return ThrowErrno(info.Env(), errno, "sched_setaffinity");
  return info.Env().Undefined();
}

Napi::Value GetTid(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), static_cast<double>(syscall(SYS_gettid)));
}

Napi::Value SetThreadName(const Napi::CallbackInfo& info) {
  Args args(info);
  std::string name = args.Text(0, "name", 15);
  if (args.failed()) return {};
  if (prctl(PR_SET_NAME, name.c_str()) != 0) return ThrowErrno(info.Env(), errno, "prctl");
  return info.Env().Undefined();
}

Napi::Value SetTimerSlack(const Napi::CallbackInfo& info) {
  Args args(info);
  auto ns = static_cast<unsigned long>(args.Integer(0, "ns", 1, kMaxSafeInteger));
  if (args.failed()) return {};
  if (prctl(PR_SET_TIMERSLACK, ns) != 0) return ThrowErrno(info.Env(), errno, "prctl");
  return info.Env().Undefined();
}

}  // namespace

void InitCpu(Napi::Env env, Napi::Object exports) {
  Export<GetAffinity>(env, exports, "getAffinity");
  Export<SetAffinity>(env, exports, "setAffinity");
  Export<GetTid>(env, exports, "getTid");
  Export<SetThreadName>(env, exports, "setThreadName");
  Export<SetTimerSlack>(env, exports, "setTimerSlack");
}

}  // namespace doorbell
