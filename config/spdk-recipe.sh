#!/bin/sh
# Gives a VM a disk through JSON-RPC, with the calls that SPDK's recipe for vfio-user makes.
# Usage: spdk-recipe.sh DISK FOLDER [RPC_SOCKET]
#   DISK    a file or block device that exists
#   FOLDER  where the VM finds the socket: FOLDER/cntrl
# The target runs already: doorbell serve
set -eu
[ $# -ge 2 ] || { sed -n '3,6s/^# //p' "$0" >&2; exit 2; }

disk=$(realpath "$1")
folder=$(realpath -m "$2")
socket=${3:-/var/tmp/doorbell.sock}
nqn=nqn.2019-07.io.spdk:cnode0

# A JSON string.
quote() { printf '"%s"' "$(printf %s "$1" | sed 's/[\\"]/\\&/g')"; }
rpc() { doorbell rpc "$@" --socket "$socket"; }

mkdir -p -m 0700 "$folder"
rpc nvmf_create_transport '{"trtype": "VFIOUSER"}'
rpc bdev_aio_create "{\"name\": \"disk0\", \"filename\": $(quote "$disk")}"
rpc nvmf_create_subsystem "{\"nqn\": \"$nqn\", \"serial_number\": \"SPDK0\", \"allow_any_host\": true}"
rpc nvmf_subsystem_add_ns "{\"nqn\": \"$nqn\", \"namespace\": {\"bdev_name\": \"disk0\"}}"
rpc nvmf_subsystem_add_listener \
  "{\"nqn\": \"$nqn\", \"listen_address\": {\"trtype\": \"VFIOUSER\", \"traddr\": $(quote "$folder")}}"
rpc bdev_get_bdevs
rpc nvmf_get_subsystems
