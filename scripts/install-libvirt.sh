#!/bin/sh
# Installs libvirt's daemon and client, which `make test-vm` runs in mounts of their own. As root on Debian 12.
set -eu

packages=
for pair in virsh:libvirt-clients libvirtd:libvirt-daemon; do
    command -v "${pair%%:*}" >/dev/null 2>&1 || [ -x "/usr/sbin/${pair%%:*}" ] || packages="$packages ${pair#*:}"
done
ls /usr/lib/*/libvirt/connection-driver/libvirt_driver_qemu.so >/dev/null 2>&1 || packages="$packages libvirt-daemon-driver-qemu"
[ -n "$packages" ] || exit 0
echo "installing:$packages"
# shellcheck disable=SC2086 # one word a package
apt-get -q -y -o DPkg::Lock::Timeout=300 update >/dev/null &&
    DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=300 install --no-install-recommends $packages >/dev/null || {
    echo "error: apt-get could not install$packages" >&2
    exit 1
}
