{
  "targets": [
    {
      "target_name": "doorbell",
      "sources": [
        "addon/module.cc",
        "addon/shared.cc",
        "addon/memory.cc",
        "addon/alias.cc",
        "addon/sigbus.cc",
        "addon/socket.cc",
        "addon/message.cc",
        "addon/service.cc",
        "addon/poll.cc",
        "addon/event.cc",
        "addon/eventfd-signal.cc",
        "addon/release.cc",
        "addon/uring.cc",
        "addon/submit.cc",
        "addon/clock.cc",
        "addon/cpu.cc",
        "addon/block.cc",
        "addon/files.cc",
        "addon/network.cc",
        "addon/threads.cc",
        "addon/blocking.cc",
        "addon/copy.cc"
      ],
      "include_dirs": ["<!@(node -p \"require('node-addon-api').include\")"],
      "defines": ["NAPI_VERSION=9", "NAPI_DISABLE_CPP_EXCEPTIONS", "NODE_ADDON_API_DISABLE_DEPRECATED"],
      "cflags_cc": ["-O2", "-Wall", "-Wextra", "-Wno-unused-parameter", "-fno-exceptions"],
      "ldflags": ["-Wl,-z,nodelete"]
    }
  ]
}
