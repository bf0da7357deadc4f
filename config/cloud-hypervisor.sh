#!/bin/sh
# Starts Cloud Hypervisor with the disks of Doorbell. It was not run by us: docs/guides/cloud-hypervisor.md.
# Usage: cloud-hypervisor.sh FOLDER KERNEL [CLOUD HYPERVISOR OPTION...]
#   FOLDER  of the socket: FOLDER/cntrl, as doorbell serve prints it
#   KERNEL  that has the NVMe driver; the root file system is the first partition of the first disk
#   MEMORY, CPUS, CLOUD_HYPERVISOR  in the environment: 2G, 4, cloud-hypervisor
set -eu
[ $# -ge 2 ] || { sed -n '3,6s/^# //p' "$0" >&2; exit 2; }

socket=$(realpath -m "$1/cntrl")
kernel=$2
shift 2

# It opens a file for each interrupt vector.
ulimit -n "$(ulimit -H -n)"
# Doorbell maps the guest's memory: it must be shared.
exec "${CLOUD_HYPERVISOR:-cloud-hypervisor}" --cpus "boot=${CPUS:-4}" --memory "size=${MEMORY:-2G},shared=on" \
  --kernel "$kernel" --cmdline 'root=/dev/nvme0n1p1 console=hvc0' \
  --user-device "socket=$socket" \
  "$@"
