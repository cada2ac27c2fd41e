#!/bin/sh
# Plugs a namespace into a port of the Weft that `make up` started, and gets its address by DHCP.
set -eu

case "${1:-}" in
????????-????-????-????-????????????) port=$1 ;;
*)
    echo "usage: $0 PORT-UUID" >&2
    exit 2
    ;;
esac
short=$(printf %.11s "$port")
guest=weft-guest-$short

[ -e /run/weft-up/openrc ] || {
    echo "error: Weft is not up: run 'make up'" >&2
    exit 1
}
openstack=${OPENSTACK:-openstack}
command -v "$openstack" >/dev/null || {
    echo "error: there is no '$openstack': put the client's folder into PATH, or its path into OPENSTACK" >&2
    exit 1
}
mac=$("$openstack" port show -f value -c mac_address "$port")
ip netns add "$guest"
ip link add "tap$short" type veth peer name eth0 address "$mac" netns "$guest"
ip link set "tap$short" up
inside="nsenter --net=/run/netns/$guest --"
$inside ip link set lo up
$inside ip link set eth0 up
script=$(mktemp)
trap 'rm -f "$script"' EXIT
cat >"$script" <<'SCRIPT'
#!/bin/sh
[ "$1" = bound ] || exit 0
ip address replace "$ip/$mask" dev "$interface"
[ -z "$mtu" ] || ip link set "$interface" mtu "$mtu"
[ -z "$router" ] || ip route replace default via "${router%% *}" dev "$interface"
SCRIPT
chmod +x "$script"
$inside busybox udhcpc -i eth0 -f -q -n -t 10 -T 1 -O mtu -s "$script"
$inside ip -brief address show dev eth0
echo "run things inside: nsenter --net=/run/netns/$guest -- ping -c 3 198.18.0.1"
