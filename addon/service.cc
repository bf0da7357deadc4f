// What a service gets from the manager that started it: sockets that are open already, and one to report to.
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstddef>
#include <cstring>

#include "args.h"
#include "module.h"

namespace doorbell {
namespace {

bool Option(int fd, int name, int* value) {
  socklen_t length = sizeof(*value);
  return getsockopt(fd, SOL_SOCKET, name, value, &length) == 0;
}

// The address of a socket: a path, '@' and a name for an abstract one, or empty.
std::string AddressOf(int fd) {
  sockaddr_un address = {};
  socklen_t length = sizeof(address);
  if (getsockname(fd, reinterpret_cast<sockaddr*>(&address), &length) != 0) return {};
  size_t bytes = length > offsetof(sockaddr_un, sun_path) ? length - offsetof(sockaddr_un, sun_path) : 0;
  if (bytes == 0) return {};
  if (address.sun_path[0] == '\0') return "@" + std::string(address.sun_path + 1, bytes - 1);
  return std::string(address.sun_path, strnlen(address.sun_path, bytes));
}

Napi::Value Adopt(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  Args args(info);
  int fd = args.Descriptor(0);
  if (args.failed()) return {};
  int domain, type, listening;
  if (!Option(fd, SO_DOMAIN, &domain) || !Option(fd, SO_TYPE, &type) || !Option(fd, SO_ACCEPTCONN, &listening)) {
    return ThrowErrno(env, errno, "getsockopt");
  }
  if (domain != AF_UNIX) return ThrowErrno(env, EAFNOSUPPORT, "getsockopt", "not a UNIX socket");
  if (type != SOCK_STREAM) return ThrowErrno(env, EPROTOTYPE, "getsockopt", "not a stream socket");
  if (listening == 0) {
    sockaddr_un peer;
    socklen_t length = sizeof(peer);
    if (getpeername(fd, reinterpret_cast<sockaddr*>(&peer), &length) != 0) {
      return ThrowErrno(env, errno, "getpeername", "it neither listens nor is connected");
    }
  }
  int flags = fcntl(fd, F_GETFL);
  if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) != 0 || fcntl(fd, F_SETFD, FD_CLOEXEC) != 0) {
    return ThrowErrno(env, errno, "fcntl");
  }
  Napi::Object socket = Napi::Object::New(env);
  socket.Set("listening", Napi::Boolean::New(env, listening != 0));
  socket.Set("address", Napi::String::New(env, AddressOf(fd)));
  return socket;
}

Napi::Value SendDatagram(const Napi::CallbackInfo& info) {
  Args args(info);
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  std::string name = args.Text(0, "address", sizeof(address.sun_path) - 1);
  Span<uint8_t> data = args.Bytes(1, "data");
  if (name.empty()) args.Range("address", "must not be empty");
  if (args.failed()) return {};
  std::memcpy(address.sun_path, name.data(), name.size());
  // An abstract address has no terminating zero: its length is part of the name.
  bool abstract = name[0] == '@';
  if (abstract) address.sun_path[0] = '\0';
  socklen_t length = offsetof(sockaddr_un, sun_path) + name.size() + (abstract ? 0 : 1);
  int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return ThrowErrno(info.Env(), errno, "socket");
  ssize_t sent;
  do sent = sendto(fd, data.data, data.length, MSG_NOSIGNAL, reinterpret_cast<sockaddr*>(&address), length);
  while (sent < 0 && errno == EINTR);
  int error = errno;
  close(fd);
  if (sent < 0) return ThrowErrno(info.Env(), error, "sendto");
  return info.Env().Undefined();
}

}  // namespace

void InitService(Napi::Env env, Napi::Object exports) {
  Export<Adopt>(env, exports, "socketAdopt");
  Export<SendDatagram>(env, exports, "datagramSend");
}

}  // namespace doorbell
