#!/bin/sh
# Starts Weft on this machine, with an uplink to a namespace that stands for the outside, and leaves it running.
# Makes: the namespace weft-outside, the device weft-uplink, the directory /run/weft-up. scripts/down.sh removes them.
set -eu
cd "$(dirname "$0")/.."

state=/run/weft-up
weft=${CARGO_TARGET_DIR:-target}/release/weft
password=$(od -An -N12 -tx1 /dev/urandom | tr -d ' \n')

if [ -e "$state/pid" ] && kill -0 "$(cat "$state/pid")" 2>/dev/null; then
    echo "Weft is up already: see $state/openrc; 'make down' ends it" >&2
    exit 1
fi
scripts/down.sh quietly
mkdir -p -m 0700 "$state"

ip netns add weft-outside
ip link add weft-uplink type veth peer name eth0 netns weft-outside
ip link set weft-uplink up
outside="nsenter --net=/run/netns/weft-outside --"
$outside ip link set lo up
$outside ip link set eth0 up
$outside ip address add 203.0.113.1/24 dev eth0
$outside ip address add fd00:203:0:113::1/64 dev eth0 nodad
$outside ip address add 198.18.0.1/32 dev lo

cat >"$state/weft.toml" <<CONFIG
host = "$(uname -n)"
instance = "weft-up"

[api]
listen = "127.0.0.1:9696"

[store]
path = "$state/weft.sqlite"

[identity]
admin_password = "$password"

[agent]
socket = "$state/agent.sock"
remove_on_stop = true
physical_networks = { provider = "weft-uplink" }
CONFIG

cat >"$state/openrc" <<OPENRC
export OS_AUTH_TYPE=password
export OS_AUTH_URL=http://127.0.0.1:9696/identity/v3
export OS_IDENTITY_API_VERSION=3
export OS_USERNAME=admin
export OS_PASSWORD=$password
export OS_PROJECT_NAME=admin
export OS_USER_DOMAIN_NAME=Default
export OS_PROJECT_DOMAIN_NAME=Default
export OS_REGION_NAME=RegionOne
OPENRC

setsid "$weft" all-in-one --config "$state/weft.toml" >"$state/log" 2>&1 </dev/null &
echo $! >"$state/pid"

tries=100
until "$weft" status --json --socket "$state/agent.sock" >/dev/null 2>&1; do
    tries=$((tries - 1))
    if [ "$tries" = 0 ] || ! kill -0 "$(cat "$state/pid")" 2>/dev/null; then
        echo "error: weft does not start; $state/log ends:" >&2
        tail -n 20 "$state/log" >&2
        cp "$state/log" /tmp/weft-up.log
        scripts/down.sh quietly
        exit 1
    fi
    sleep 0.1
done

cat "$state/openrc"
cat <<WORDS

Weft is up. The lines above are in $state/openrc. Next, as root in this folder:

  . $state/openrc
  python3 -m venv ~/openstack && ~/openstack/bin/pip install --quiet python-openstackclient
  PATH=\$PATH:~/openstack/bin
  openstack network create net1
  openstack subnet create --network net1 --subnet-range 192.0.2.0/24 subnet1
  openstack network create --external --provider-network-type flat --provider-physical-network provider provider1
  openstack subnet create --network provider1 --subnet-range 203.0.113.0/24 --no-dhcp subnet-provider1
  openstack router create router1
  openstack router add subnet router1 subnet1
  openstack router set --external-gateway provider1 router1
  openstack port create --network net1 --host $(uname -n) port1
  scripts/guest.sh \$(openstack port show -f value -c id port1)     # a namespace as guest, with its address by DHCP

The physical network 'provider' leads to the namespace weft-outside (203.0.113.1/24, and 198.18.0.1 behind it).
'$weft status --socket $state/agent.sock' shows the host's side, http://127.0.0.1:9696/openapi the API's description.
'make down' ends it and removes all of it.
WORDS
