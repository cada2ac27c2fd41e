#!/bin/sh
# Installs what the bars are measured against and with, as far as it is Debian's: `user` (DPDK, OVS-DPDK, a C compiler), or
# `api` (MariaDB, and what PyPI's packages of neutron-server are compiled with).
set -e
export DEBIAN_FRONTEND=noninteractive
case "$1" in
user) packages="dpdk dpdk-dev libdpdk-dev openvswitch-switch openvswitch-switch-dpdk gcc pkg-config" ;;
api) packages="mariadb-server gcc libc6-dev python3-dev python3-venv" ;;
*)
	echo "usage: $0 user|api" >&2
	exit 2
	;;
esac
missing=
for package in $packages; do
	dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing="$missing $package"
done
[ -z "$missing" ] && exit 0
apt-get update -qq
# shellcheck disable=SC2086
apt-get install -y --no-install-recommends $missing
