// Mapped memory as a SharedArrayBuffer.
#pragma once

#include <napi.h>

#include "mappings.h"

namespace doorbell {

// Hands a mapping over to JavaScript: a SharedArrayBuffer over [data, data + length). The pages are unmapped when the
// last reference to it, in any thread, has been collected. On failure they are unmapped at once and an exception is
// pending.
Napi::Value WrapMapping(Napi::Env env, const Mapping& mapping);

// Counts a mapping whose pages were given up, for `reclaim`.
void NoteRevoked(size_t length);

}  // namespace doorbell
