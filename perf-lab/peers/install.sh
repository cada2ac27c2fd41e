#!/bin/sh
# Installs what `cargo xtask bars user` measures against and with: Debian's DPDK and OVS-DPDK, and a C compiler.
set -e
export DEBIAN_FRONTEND=noninteractive
for package in dpdk dpdk-dev libdpdk-dev openvswitch-switch openvswitch-switch-dpdk gcc pkg-config; do
	dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing="$missing $package"
done
[ -z "$missing" ] && exit 0
apt-get update -qq
# shellcheck disable=SC2086
apt-get install -y --no-install-recommends $missing
