// Native threads that live for one call, beside libuv's: what may wait for ever waits here, and holds up nobody else.
#pragma once

namespace doorbell {

// Runs `run(argument)` in a thread of its own that nobody joins, not even the end of the process. Its stack is small, and
// it takes no signals. 0, or the errno of pthread_create: then nothing runs.
int StartThread(void (*run)(void* argument), void* argument);

}  // namespace doorbell
