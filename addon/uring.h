// What both files of the io_uring family need.
#pragma once

#include <cerrno>

namespace doorbell {

// What the operator can do about a kernel that gives no ring.
inline const char* UringHint(int error) {
  switch (error) {
    case EPERM:
      return "io_uring is disabled: run `sysctl -w kernel.io_uring_disabled=0`, and in a container allow the "
             "io_uring_* system calls in its seccomp profile";
    case ENOSYS:
      return "this kernel has no io_uring, or the container's seccomp profile hides it";
    case ENOMEM:
      return "raise the limit of locked memory: `ulimit -l`, or LimitMEMLOCK= of a systemd unit";
    default:
      return "";
  }
}

}  // namespace doorbell
