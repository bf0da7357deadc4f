#!/bin/sh
# The first process of the test guest. Once the system is up, it runs the commands that come over the second serial
# port: a line holds a marker and a command; after the command's output come the marker and the exit code on a line
# of their own. The first port is the kernel's console.
export PATH=/usr/sbin:/usr/bin HOME=/tmp
mkdir -p /proc /sys /dev
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
exec >/dev/console 2>&1
mkdir -p /dev/shm
mount -t tmpfs tmpfs /dev/shm

while read -r module; do
  insmod "/modules/$module" || echo "init: insmod $module failed"
done </modules/order

exec </dev/ttyS1 >/dev/ttyS1 2>&1
stty raw -echo
echo 'guest ready'
while read -r marker command; do
  sh -c "$command" </dev/null
  printf '\n%s %d\n' "$marker" $?
done
poweroff -f
