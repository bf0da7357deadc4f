// UNIX stream sockets: made, bound, connected. All are non-blocking and close-on-exec. message.cc sends and receives.
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>

#include "args.h"
#include "module.h"

namespace doorbell {
namespace {

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
  if (setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience)) != 0) {
    return Abandon(info.Env(), fd, "setsockopt");
  }
  sockaddr_un address = Address(path);
  int result;
  do result = connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address));
  while (result != 0 && errno == EINTR);
  if (result != 0) return Abandon(info.Env(), fd, "connect");
  if (fcntl(fd, F_SETFL, O_NONBLOCK) != 0) return Abandon(info.Env(), fd, "fcntl");
  return Napi::Number::New(info.Env(), fd);
}

Napi::Value Shutdown(const Napi::CallbackInfo& info) {
  Args args(info);
  int fd = args.Descriptor(0);
  if (args.failed()) return {};
  // ENOTCONN: the peer was faster.
  if (shutdown(fd, SHUT_RDWR) != 0 && errno != ENOTCONN) return ThrowErrno(info.Env(), errno, "shutdown");
  return info.Env().Undefined();
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

}  // namespace

void InitSocket(Napi::Env env, Napi::Object exports) {
  Export<Listen>(env, exports, "socketListen");
  Export<Accept>(env, exports, "socketAccept");
  Export<Connect>(env, exports, "socketConnect");
  Export<Shutdown>(env, exports, "socketShutdown");
  Export<Pair>(env, exports, "socketPair");
}

}  // namespace doorbell
