// Bytes and descriptors over UNIX stream sockets.
#include <sys/resource.h>
#include <sys/socket.h>

#include <algorithm>
#include <atomic>
#include <cstring>

#include "args.h"
#include "module.h"

namespace doorbell {
namespace {

constexpr size_t kMaxFds = 253;  // the kernel's SCM_MAX_FD

// RLIMIT_NOFILE as it is, and as it is while a message is received. 0: no reserve was made.
std::atomic<rlim_t> usualLimit{0};
rlim_t liftedLimit = 0;

// A process-wide setting, so whatever opens a file in another thread at this moment may go beyond the limit, too.
void SetLimit(rlim_t limit) {
  rlimit limits = {limit, liftedLimit};
  setrlimit(RLIMIT_NOFILE, &limits);
}

// A message of one data buffer and room for descriptors.
struct Message {
  alignas(cmsghdr) char control[CMSG_SPACE(kMaxFds * sizeof(int))] = {};
  iovec data;
  msghdr header = {};

  explicit Message(Span<uint8_t> bytes) : data{bytes.data, bytes.length} {
    header.msg_iov = &data;
    header.msg_iovlen = 1;
  }
};

Napi::Value Send(const Napi::CallbackInfo& info) {
  Args args(info);
  int fd = args.Descriptor(0);
  Napi::Array list = args.Array(2, "fds");
  size_t count = args.failed() ? 0 : list.Length();
  if (count > kMaxFds) args.Range("fds", "are more than 253");
  int fds[kMaxFds];
  for (size_t i = 0; i < count && !args.failed(); i++) {
    fds[i] = static_cast<int>(args.Element(list, static_cast<uint32_t>(i), "fds", 0, INT32_MAX));
  }
  Span<uint8_t> data = args.Bytes(1, "data");  // last: reading an array's elements may run JavaScript
  if (count > 0 && data.length == 0) args.Range("data", "must not be empty: descriptors travel with a byte");
  if (args.failed()) return {};
  Message message(data);
  if (count > 0) {
    message.header.msg_control = message.control;
    message.header.msg_controllen = CMSG_SPACE(count * sizeof(int));
    cmsghdr* control = CMSG_FIRSTHDR(&message.header);
    control->cmsg_level = SOL_SOCKET;
    control->cmsg_type = SCM_RIGHTS;
    control->cmsg_len = CMSG_LEN(count * sizeof(int));
    std::memcpy(CMSG_DATA(control), fds, count * sizeof(int));
  }
  ssize_t sent;
  do sent = sendmsg(fd, &message.header, MSG_NOSIGNAL | MSG_DONTWAIT);
  while (sent < 0 && errno == EINTR);
  if (sent < 0 && errno != EAGAIN) return ThrowErrno(info.Env(), errno, "sendmsg");
  return Napi::Number::New(info.Env(), static_cast<double>(sent));
}

Napi::Value Receive(const Napi::CallbackInfo& info) {
  Args args(info);
  int fd = args.Descriptor(0);
  Span<uint8_t> buffer = args.Bytes(1, "buffer");
  Span<int32_t> fds = args.Ints(2, "fds");
  if (buffer.length == 0) args.Range("buffer", "must not be empty");
  if (fds.length < kMaxFds + 1) args.Range("fds", "needs room for 254 elements");
  if (args.failed()) return {};
  Message message(buffer);
  message.header.msg_control = message.control;
  message.header.msg_controllen = sizeof(message.control);
  fds.data[0] = 0;
  rlim_t limit = usualLimit.load(std::memory_order_relaxed);
  if (limit != 0) SetLimit(liftedLimit);
  ssize_t received;
  do received = recvmsg(fd, &message.header, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
  while (received < 0 && errno == EINTR);
  int error = errno;
  if (limit != 0) SetLimit(limit);
  if (received < 0) {
    if (error == EAGAIN) return Napi::Number::New(info.Env(), -1);
    return ThrowErrno(info.Env(), error, "recvmsg");
  }
  bool tooMany = (message.header.msg_flags & MSG_CTRUNC) != 0;
  size_t count = 0;
  for (cmsghdr* c = CMSG_FIRSTHDR(&message.header); c != nullptr; c = CMSG_NXTHDR(&message.header, c)) {
    if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) continue;
    size_t bytes = c->cmsg_len - CMSG_LEN(0);
    std::memcpy(fds.data + 1 + count, CMSG_DATA(c), bytes);
    count += bytes / sizeof(int);
  }
  fds.data[0] = static_cast<int32_t>(count);
  for (size_t i = 1; i <= count && limit != 0; i++) tooMany = tooMany || static_cast<rlim_t>(fds.data[i]) >= limit;
  if (tooMany) return ThrowErrno(info.Env(), EMFILE, "recvmsg", "descriptors sent by the peer are too many");
  return Napi::Number::New(info.Env(), static_cast<double>(received));
}

Napi::Value ReserveDescriptors(const Napi::CallbackInfo& info) {
  Args args(info);
  rlim_t count = static_cast<rlim_t>(args.Integer(0, "count", 1, INT32_MAX));
  rlimit limits;
  if (args.failed()) return {};
  if (getrlimit(RLIMIT_NOFILE, &limits) != 0) return ThrowErrno(info.Env(), errno, "getrlimit");
  // Limits that small leave nothing to reserve.
  if (usualLimit.load() != 0 || limits.rlim_max <= 2 * count) return info.Env().Undefined();
  liftedLimit = limits.rlim_max;
  rlim_t usual = std::min(limits.rlim_cur, limits.rlim_max - count);
  SetLimit(usual);
  usualLimit.store(usual);
  return info.Env().Undefined();
}

}  // namespace

void InitMessage(Napi::Env env, Napi::Object exports) {
  Export<Send>(env, exports, "socketSend");
  Export<Receive>(env, exports, "socketReceive");
  Export<ReserveDescriptors>(env, exports, "reserveDescriptors");
}

}  // namespace doorbell
