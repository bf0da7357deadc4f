// Signals to eventfds: see eventfd-signal.cc.
#pragma once

namespace doorbell {

// Adds 1, and wakes who waits. 0 or -errno.
int Signal(int fd);
// Whether that can never wait in this thread. If not, the kernel (or a filter of system calls) lacks asynchronous I/O, and
// it is an ordinary write.
bool SignalCannotBlock();

}  // namespace doorbell
