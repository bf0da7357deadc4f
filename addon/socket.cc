// UNIX stream sockets that carry descriptors. All are non-blocking and close-on-exec.
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>

#include "errors.h"
#include "module.h"

namespace doorbell {
namespace {

constexpr size_t kMaxFds = 253;  // the kernel's SCM_MAX_FD

sockaddr_un Address(const std::string& path) {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.data(), path.size());
  return address;
}

std::string Path(Args& args, size_t index) {
  std::string path = args.Text(index, "path", sizeof(sockaddr_un::sun_path) - 1);
  if (path.empty()) args.Range("path", "must not be empty");  // the kernel would choose an abstract name
  return path;
}

// Closes `fd` and throws the error of the call that just failed on it.
Napi::Value Abandon(Napi::Env env, int fd, const char* syscall) {
  int error = errno;
  close(fd);
  return ThrowErrno(env, error, syscall);
}

Napi::Value Listen(const Napi::CallbackInfo& info) {
  Args args(info);
  std::string path = Path(args, 0);
  int backlog = static_cast<int>(args.Integer(1, "backlog", 1, INT32_MAX));
  if (args.failed()) return {};
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return ThrowErrno(info.Env(), errno, "socket");
  // bind gives the file the socket's own mode (less the umask), so it is never open to others, not even for a moment.
  if (fchmod(fd, S_IRUSR | S_IWUSR) != 0) return Abandon(info.Env(), fd, "fchmod");
  sockaddr_un address = Address(path);
  if (bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0) return Abandon(info.Env(), fd, "bind");
  if (listen(fd, backlog) != 0) {
    int error = errno;
    unlink(path.c_str());
    errno = error;
    return Abandon(info.Env(), fd, "listen");
  }
  return Napi::Number::New(info.Env(), fd);
}

Napi::Value Accept(const Napi::CallbackInfo& info) {
  Args args(info);
  int listener = args.Descriptor(0);
  if (args.failed()) return {};
  int fd;
  do fd = accept4(listener, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
  while (fd < 0 && (errno == EINTR || errno == ECONNABORTED));
  if (fd < 0 && errno != EAGAIN) return ThrowErrno(info.Env(), errno, "accept4");
  return Napi::Number::New(info.Env(), fd);
}

Napi::Value Connect(const Napi::CallbackInfo& info) {
  Args args(info);
  std::string path = Path(args, 0);
  if (args.failed()) return {};
  // A connect that may not wait fails when the backlog is full for a moment; this one waits, at most 2 seconds.
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return ThrowErrno(info.Env(), errno, "socket");
  timeval patience = {2, 0};
  if (setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience)) != 0) return Abandon(info.Env(), fd, "setsockopt");
  sockaddr_un address = Address(path);
  int result;
  do result = connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address));
  while (result != 0 && errno == EINTR);
  if (result != 0) return Abandon(info.Env(), fd, "connect");
  if (fcntl(fd, F_SETFL, O_NONBLOCK) != 0) return Abandon(info.Env(), fd, "fcntl");
  return Napi::Number::New(info.Env(), fd);
}

Napi::Value Pair(const Napi::CallbackInfo& info) {
  int fds[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) != 0) {
    return ThrowErrno(info.Env(), errno, "socketpair");
  }
  Napi::Array pair = Napi::Array::New(info.Env(), 2);
  pair.Set(0u, Napi::Number::New(info.Env(), fds[0]));
  pair.Set(1u, Napi::Number::New(info.Env(), fds[1]));
  return pair;
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
  ssize_t received;
  do received = recvmsg(fd, &message.header, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
  while (received < 0 && errno == EINTR);
  if (received < 0) {
    if (errno == EAGAIN) return Napi::Number::New(info.Env(), -1);
    return ThrowErrno(info.Env(), errno, "recvmsg");
  }
  size_t count = 0;
  for (cmsghdr* c = CMSG_FIRSTHDR(&message.header); c != nullptr; c = CMSG_NXTHDR(&message.header, c)) {
    if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) continue;
    size_t bytes = c->cmsg_len - CMSG_LEN(0);
    std::memcpy(fds.data + 1 + count, CMSG_DATA(c), bytes);
    count += bytes / sizeof(int);
  }
  if ((message.header.msg_flags & MSG_CTRUNC) != 0) {
    for (size_t i = 1; i <= count; i++) close(fds.data[i]);
    return ThrowErrno(info.Env(), EMFILE, "recvmsg", "descriptors sent by the peer could not be received");
  }
  fds.data[0] = static_cast<int32_t>(count);
  return Napi::Number::New(info.Env(), static_cast<double>(received));
}

}  // namespace

void InitSocket(Napi::Env env, Napi::Object exports) {
  Export<Listen>(env, exports, "socketListen");
  Export<Accept>(env, exports, "socketAccept");
  Export<Connect>(env, exports, "socketConnect");
  Export<Pair>(env, exports, "socketPair");
  Export<Send>(env, exports, "socketSend");
  Export<Receive>(env, exports, "socketReceive");
}

}  // namespace doorbell
