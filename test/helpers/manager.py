"""A service manager's side of sd_notify(3): binds a datagram socket and prints each message, its lines joined by tabs."""

import socket
import sys

address = sys.argv[1]
receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
receiver.bind("\0" + address[1:] if address.startswith("@") else address)
print("bound", flush=True)
while True:
    print(receiver.recv(65536).decode().replace("\n", "\t"), flush=True)
