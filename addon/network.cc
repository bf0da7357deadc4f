// Connecting to a server: its name is looked up, and its addresses are tried one after the other, within a time. Both may last, so they are
// calls of `blocking`. The sockets are non-blocking and close-on-exec.
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "call.h"

namespace doorbell {
namespace {

// Of a host's name (RFC 1035), and of a port in digits.
constexpr size_t kMaxHost = 255;
constexpr size_t kMaxPort = 5;
constexpr int64_t kMaxTimeoutMs = 3600 * 1000;

// A peer whose machine is gone is noticed within some 15 seconds, whether data waits for its answer or not.
constexpr int kIdleSeconds = 6;
constexpr int kProbeSeconds = 3;
constexpr int kProbes = 3;
constexpr int kUnansweredMs = 15000;

int64_t Now() {
  timespec time = {};
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec * 1000 + time.tv_nsec / 1000000;
}

// Waits until the connection is there or has failed: 0 or an errno.
int AwaitConnected(int fd, int64_t deadline) {
  for (;;) {
    int64_t left = deadline - Now();
    if (left <= 0) return ETIMEDOUT;
    pollfd one = {fd, POLLOUT, 0};
    int ready = poll(&one, 1, static_cast<int>(left));
    if (ready < 0 && errno != EINTR) return errno;
    if (ready <= 0) continue;
    int error = 0;
    socklen_t size = sizeof(error);
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) != 0) return errno;
    return error;
  }
}

// A connected socket, or -errno.
int Connect(int family, const sockaddr* address, socklen_t size, int64_t deadline) {
  int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return -errno;
  int error = 0;
  // A UNIX listener whose backlog is full refuses who does not wait (EAGAIN): it is asked again.
  do {
    error = connect(fd, address, size) == 0 ? 0 : errno;
    if (error == EAGAIN && Now() < deadline) {
      timespec pause = {0, 10000000};
      nanosleep(&pause, nullptr);
    }
  } while (error == EINTR || (error == EAGAIN && Now() < deadline));
  if (error == EINPROGRESS) error = AwaitConnected(fd, deadline);
  if (error == 0) return fd;
  close(fd);
  return error == EAGAIN ? -ETIMEDOUT : -error;
}

void SetOption(int fd, int level, int option, int value) { setsockopt(fd, level, option, &value, sizeof(value)); }

Outcome Connected(int fd) {
  if (fd < 0) {
    errno = -fd;
    return Failed("connect");
  }
  Outcome outcome = Done([fd](napi_env env) { return ToNumber(env, fd); });
  outcome.opened = fd;
  return outcome;
}

Work ConnectTcp(Args& args) {
  std::string host = args.Text(0, "host", kMaxHost);
  std::string port = args.Text(1, "port", kMaxPort);
  int64_t timeout = args.Integer(2, "timeoutMs", 1, kMaxTimeoutMs);
  return [=] {
    int64_t deadline = Now() + timeout;
    addrinfo hints = {};
    hints.ai_family = AF_UNSPEC;
    hints.ai_socktype = SOCK_STREAM;
    hints.ai_flags = AI_ADDRCONFIG | AI_NUMERICSERV;
    addrinfo* found = nullptr;
    int unknown = getaddrinfo(host.c_str(), port.c_str(), &hints, &found);
    if (unknown != 0) {
      if (unknown != EAI_SYSTEM) errno = unknown == EAI_AGAIN ? EAGAIN : ENOENT;
      return Failed("getaddrinfo", gai_strerror(unknown));
    }
    int fd = -ENOENT;
    for (addrinfo* each = found; each != nullptr && fd < 0; each = each->ai_next) {
      // One address that does not answer leaves time for the next.
      int64_t now = Now();
      int64_t until = each->ai_next == nullptr ? deadline : now + (deadline - now) / 2;
      fd = Connect(each->ai_family, each->ai_addr, each->ai_addrlen, until);
    }
    freeaddrinfo(found);
    if (fd >= 0) {
      SetOption(fd, IPPROTO_TCP, TCP_NODELAY, 1);
      SetOption(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
      SetOption(fd, IPPROTO_TCP, TCP_KEEPIDLE, kIdleSeconds);
      SetOption(fd, IPPROTO_TCP, TCP_KEEPINTVL, kProbeSeconds);
      SetOption(fd, IPPROTO_TCP, TCP_KEEPCNT, kProbes);
      SetOption(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, kUnansweredMs);
    }
    return Connected(fd);
  };
}

Work ConnectUnix(Args& args) {
  std::string path = args.Text(0, "path", sizeof(sockaddr_un::sun_path) - 1);
  int64_t timeout = args.Integer(1, "timeoutMs", 1, kMaxTimeoutMs);
  if (path.empty()) args.Range("path", "must not be empty");
  return [=] {
    sockaddr_un address = {};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, path.data(), path.size());
    return Connected(
        Connect(AF_UNIX, reinterpret_cast<const sockaddr*>(&address), sizeof(address), Now() + timeout));
  };
}

}  // namespace

std::vector<Call> NetworkCalls() { return {{"connectTcp", ConnectTcp}, {"connectUnix", ConnectUnix}}; }

}  // namespace doorbell
