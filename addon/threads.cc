#include "threads.h"

#include <pthread.h>
#include <signal.h>

#include <cerrno>

namespace doorbell {
namespace {

// Thread-local storage of all libraries comes out of it, too.
constexpr size_t kStackBytes = 256 * 1024;

struct Start {
  void (*run)(void*);
  void* argument;
};

void* Main(void* data) {
  Start start = *static_cast<Start*>(data);
  delete static_cast<Start*>(data);
  pthread_setname_np(pthread_self(), "doorbell-call");
  start.run(start.argument);
  return nullptr;
}

}  // namespace

int StartThread(void (*run)(void* argument), void* argument) {
  pthread_attr_t attributes;
  if (int error = pthread_attr_init(&attributes); error != 0) return error;
  pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  pthread_attr_setstacksize(&attributes, kStackBytes);
  auto* start = new Start{run, argument};
  // The new thread has the mask of this one: none of the process's signals is handled on its small stack.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  pthread_t thread;
  int error = pthread_create(&thread, &attributes, Main, start);
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  pthread_attr_destroy(&attributes);
  if (error != 0) delete start;
  return error;
}

}  // namespace doorbell
