#!/bin/sh
# Starts QEMU (10.1 or later) with the disks of Doorbell. docs/guides/qemu.md explains each option.
# Usage: qemu.sh FOLDER [QEMU OPTION...]
#   FOLDER  of the socket: FOLDER/cntrl, as doorbell serve prints it
#   MEMORY, CPUS, QEMU, ACCEL  in the environment: 2G, 4, qemu-system-x86_64, kvm
set -eu
[ $# -ge 1 ] || { sed -n '3,5s/^# //p' "$0" >&2; exit 2; }

socket=$(realpath -m "$1/cntrl" | sed 's/[\\"]/\\&/g')
shift
memory=${MEMORY:-2G}

# Doorbell maps the guest's memory: it must be a file, and shared.
exec "${QEMU:-qemu-system-x86_64}" -accel "${ACCEL:-kvm}" -cpu max -smp "${CPUS:-4}" -m "$memory" \
  -object "memory-backend-memfd,id=mem,size=$memory,share=on" \
  -machine q35,memory-backend=mem \
  -device "{\"driver\":\"vfio-user-pci\",\"socket\":{\"type\":\"unix\",\"path\":\"$socket\"}}" \
  "$@"
