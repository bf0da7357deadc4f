"""Descriptors that Node cannot make, or not keep: a server on the UNIX socket of its argument hands them out and keeps a copy of each.

Commands, a line each; every answer is one byte, with a descriptor if one was made:
  eventfd       a non-blocking eventfd
  semaphore     the same with EFD_SEMAPHORE
  block         the last one's O_NONBLOCK is taken away, for all who have it
  fill N        adds N to the last one's counter
  drain         reads the last one's counter to 0, or once if it is a semaphore
  linger        a connected TCP socket with unread data, whose close waits for the other side for an hour
  rest          closes all copies
"""

import array
import fcntl
import os
import socket
import struct
import sys
import threading

listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen(1)
print("listening", flush=True)
peer, _ = listener.accept()
kept = []
keep_alive = []


def linger():
    server = socket.create_server(("127.0.0.1", 0))
    client = socket.create_connection(server.getsockname())
    other, _ = server.accept()
    client.setblocking(False)
    try:
        while True:
            client.send(bytes(65536))
    except BlockingIOError:
        pass
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 3600))
    client.setblocking(True)
    keep_alive.extend([server, other])
    return client.detach()


for line in peer.makefile("r"):
    command, *arguments = line.split()
    fd = None
    if command == "eventfd":
        fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    elif command == "semaphore":
        fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK | os.EFD_SEMAPHORE)
    elif command == "block":
        flags = fcntl.fcntl(kept[-1], fcntl.F_GETFL)
        fcntl.fcntl(kept[-1], fcntl.F_SETFL, flags & ~os.O_NONBLOCK)
    elif command == "fill":
        os.write(kept[-1], struct.pack("=Q", int(arguments[0])))
    elif command == "drain":
        os.read(kept[-1], 8)
    elif command == "linger":
        fd = linger()
    elif command == "rest":
        for other in keep_alive:
            other.close()
        keep_alive.clear()
        while kept:
            os.close(kept.pop())
    if fd is None:
        peer.send(b".")
    else:
        kept.append(fd)
        peer.sendmsg([b"."], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))])
        if command == "linger":
            # It was sent: the last close is to be the receiver's, and waits aside if it is not.
            threading.Thread(target=os.close, args=(kept.pop(),), daemon=True).start()
