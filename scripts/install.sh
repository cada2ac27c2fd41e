#!/bin/sh
# Installs what is missing to build and show Weft (`build`), or also to test it (`test`). As root on Debian 12.
# Does nothing, and says nothing, if all is there.
set -eu

for_tests=
case "${1:-}" in
build) ;;
test) for_tests=yes ;;
*)
    echo "usage: $0 build|test" >&2
    exit 2
    ;;
esac

fail() {
    echo "error: $*" >&2
    exit 1
}

[ "$(uname -s)" = Linux ] || fail "Weft's engine is the Linux kernel: this is $(uname -s)"
# Programs are attached by tcx, which is there since 6.6.
kernel=$(uname -r)
case "$kernel" in
[0-5].* | 6.[0-5].* | 6.[0-5])
    fail "Linux 6.6 or newer is needed, this is $kernel: install linux-image-amd64 from bookworm-backports and reboot"
    ;;
esac
[ "$(id -u)" = 0 ] || fail "network namespaces and eBPF need root: run this as root (sudo make ...)"

# program:package, for each program that is called
needed="cc:gcc make:make clang-19:clang-19 ip:iproute2 nsenter:util-linux busybox:busybox ping:iputils-ping tcpdump:tcpdump"
[ -z "$for_tests" ] || needed="$needed git:git python3:python3 dhclient:isc-dhcp-client iperf3:iperf3 iptables:iptables ethtool:ethtool ovs-vswitchd:openvswitch-switch dpdk-testpmd:dpdk"

packages=
want() {
    packages="$packages $1"
}
for pair in $needed; do
    command -v "${pair%%:*}" >/dev/null 2>&1 || [ -x "/usr/sbin/${pair%%:*}" ] || want "${pair#*:}"
done
[ -f /usr/include/linux/bpf.h ] || want linux-libc-dev
[ -f /usr/include/stdio.h ] || want libc6-dev
# For the OpenStack client beside what 'make up' starts, and for the suites.
python3 -c 'import ensurepip, venv' 2>/dev/null || want python3-venv
if [ -n "$for_tests" ]; then
    [ -f /usr/include/libvirt/libvirt.h ] || want libvirt-dev
    command -v pkg-config >/dev/null 2>&1 || want pkg-config
    # The tests start a cluster of their own, on a socket in a temporary folder.
    ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || want postgresql
fi

# cargo of at least this version: from rustup if somebody has set it up, else from Debian's security archive.
rust_min=95
cargo_minor() {
    cargo --version 2>/dev/null | sed -n 's/^cargo 1\.\([0-9]*\)\..*/\1/p'
}
minor=$(cargo_minor)
if [ "${minor:-0}" -lt "$rust_min" ]; then
    if command -v rustup >/dev/null 2>&1; then
        fail "cargo 1.$rust_min or newer is needed, this is $(cargo --version 2>&1): run 'rustup update stable'"
    fi
    want cargo-web
    want rustc-web
fi
if [ -n "$for_tests" ] && ! { cargo fmt --version && cargo clippy --version; } >/dev/null 2>&1; then
    if command -v rustup >/dev/null 2>&1; then
        fail "rustfmt and clippy are missing: run 'rustup component add rustfmt clippy'"
    fi
    want rustfmt-web
    want rust-web-clippy
fi

if [ -n "$packages" ]; then
    echo "installing:$packages"
    export DEBIAN_FRONTEND=noninteractive
    log=$(mktemp)
    # shellcheck disable=SC2086 # one word a package
    if ! { apt-get -q -y -o DPkg::Lock::Timeout=300 update &&
        apt-get -q -y -o DPkg::Lock::Timeout=300 install --no-install-recommends $packages; } >"$log" 2>&1; then
        tail -n 20 "$log" >&2
        rm -f "$log"
        fail "apt-get could not install$packages"
    fi
    rm -f "$log"
fi

minor=$(cargo_minor)
if [ "${minor:-0}" -lt "$rust_min" ]; then
    line="deb http://security.debian.org/debian-security bookworm-security main"
    grep -rqs '^[^#]*debian-security' /etc/apt/sources.list /etc/apt/sources.list.d ||
        fail "cargo 1.$rust_min or newer is needed, and it is in Debian's security archive, which apt does not know here: add the line '$line' to /etc/apt/sources.list"
    fail "cargo 1.$rust_min or newer is needed and apt gave 1.${minor:-0}: see https://rustup.rs"
fi

if [ -n "$for_tests" ] && ! cargo nextest --version >/dev/null 2>&1; then
    echo "installing: cargo-nextest (compiles for some minutes)"
    cargo install --quiet --locked cargo-nextest --version 0.9.143 ||
        fail "cargo-nextest could not be installed: see https://nexte.st"
fi

# Programs are pinned there.
if ! grep -q ' /sys/fs/bpf bpf ' /proc/mounts; then
    mount -t bpf bpf /sys/fs/bpf || fail "cannot mount bpffs on /sys/fs/bpf: is the kernel built with BPF?"
fi
