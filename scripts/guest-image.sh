#!/bin/sh
# guest-image.sh FOLDER: makes FOLDER/kernel and FOLDER/initramfs, a guest that boots to a shell on its serial line in seconds:
# Debian's cloud kernel, unpacked (QEMU starts it by PVH), and a static busybox with virtio's modules. Installs what it needs.
# Does nothing if both are there and newer than this script. As root on Debian 12.
set -eu

folder=${1:?usage: $0 FOLDER}
[ "$folder/kernel" -nt "$0" ] && [ "$folder/initramfs" -nt "$0" ] && exit 0
mkdir -p "$folder"

packages=
for pair in qemu-system-x86_64:qemu-system-x86 busybox:busybox-static cpio:cpio lz4:lz4; do
    command -v "${pair%%:*}" >/dev/null 2>&1 || packages="$packages ${pair#*:}"
done
if [ -n "$packages" ]; then
    apt-get update -qq
    # shellcheck disable=SC2086
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $packages >/dev/null
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
package=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/.*Depends: //p' | head -n 1)
# Not as apt's own user: it may not write here.
(cd "$work" && apt-get -o APT::Sandbox::User=root download -qq "$package" >/dev/null)
dpkg-deb -x "$work"/*.deb "$work/package"

# The kernel lies in its image as an LZ4 stream; what starts like one need not be one.
image=$(find "$work/package/boot" -name 'vmlinuz-*')
for at in $(LC_ALL=C grep -aboP '\x02\x21\x4c\x18' "$image" | cut -d: -f1); do
    tail -c "+$((at + 1))" "$image" | lz4 -dc >"$work/kernel" 2>/dev/null || true
    if [ "$(head -c 4 "$work/kernel" | tail -c 3)" = ELF ]; then
        found=yes
        break
    fi
done
[ -n "${found:-}" ] || {
    echo "error: there is no kernel in $image" >&2
    exit 1
}

root=$work/root
mkdir -p "$root/bin" "$root/modules" "$root/dev" "$root/proc" "$root/sys" "$root/tmp"
cp "$(command -v busybox)" "$root/bin/busybox"
# In the order in which they need each other.
modules="virtio_ring virtio virtio_pci_modern_dev virtio_pci_legacy_dev virtio_pci failover net_failover virtio_net
llc stp garp mrp 8021q"
for module in $modules; do
    cp "$(find "$work/package/lib/modules" -name "$module.ko" | head -n 1)" "$root/modules/"
done
cat >"$root/init" <<INIT
#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
for module in $(echo $modules); do insmod /modules/\$module.ko; done
ip link set lo up
ip link set eth0 up
stty -echo
echo guest-is-up
exec sh
INIT
# What udhcpc calls.
cat >"$root/bin/dhcp-bound" <<'BOUND'
#!/bin/sh
[ "$1" = bound ] || exit 0
ip -4 address flush dev "$interface"
ip address add "$ip/$mask" dev "$interface"
[ -z "$router" ] || ip route add default via "${router%% *}"
BOUND
chmod +x "$root/init" "$root/bin/dhcp-bound"
(cd "$root" && find . | cpio -o -H newc --quiet | gzip -1) >"$work/initramfs"
mv "$work/kernel" "$work/initramfs" "$folder/"
