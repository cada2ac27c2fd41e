#!/bin/sh
# ovs.sh FOLDER CPU normal|stateful|vxlan: Open vSwitch's userspace datapath on DPDK, with one polling thread on one CPU, connects to
# the sockets FOLDER/0.sock and FOLDER/1.sock. Everything of it lies in FOLDER/ovs; it runs until it gets SIGTERM. Run it in a
# namespace of its own: it makes devices.
set -e
folder=$1/ovs cpu=$2 policy=$3
mkdir -p "$folder"
export OVS_RUNDIR="$folder" OVS_LOGDIR="$folder" OVS_DBDIR="$folder" OVS_SYSCONFDIR="$folder"
database="unix:$folder/database.sock"
bridge="unix:$folder/lab.mgmt"

ovsdb-tool create "$folder/database" /usr/share/openvswitch/vswitch.ovsschema
ovsdb-server "$folder/database" --remote="p$database" --unixctl="$folder/database.ctl" --log-file="$folder/database.log" &
server=$!
# Not for ever: a switch that ended answers nobody.
vsctl() { ovs-vsctl --timeout=30 --db="$database" "$@"; }
switch=
trap 'kill $switch $server 2>/dev/null; wait' EXIT
trap 'exit 0' TERM INT
# Taps stay when the switch is killed, with their addresses, and it cannot make them again.
for device in ovs-netdev lab underlay; do ip link delete "$device" 2>/dev/null || true; done
tries=0
until [ -S "$folder/database.sock" ] || [ $tries -ge 100 ]; do tries=$((tries + 1)); sleep 0.05; done
vsctl --no-wait init
vsctl --no-wait set Open_vSwitch . other_config:dpdk-init=true other_config:dpdk-lcore-mask=0x1 \
	other_config:pmd-cpu-mask="$(printf 0x%x $((1 << cpu)))" other_config:dpdk-socket-mem=1024 \
	other_config:n-handler-threads=1 other_config:n-revalidator-threads=1 \
	other_config:dpdk-extra="--no-pci --file-prefix=weft-lab-ovs --no-telemetry"
/usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk "$database" --unixctl="$folder/switch.ctl" --log-file="$folder/switch.log" &
switch=$!

vsctl add-br lab -- set bridge lab datapath_type=netdev protocols=OpenFlow13
for port in 0 1; do
	vsctl add-port lab "vhost$port" -- set Interface "vhost$port" type=dpdkvhostuserclient \
		options:vhost-server-path="$1/$port.sock" ofport_request=$((port + 1))
done
flow() { ovs-ofctl -O OpenFlow13 add-flow "$bridge" "$1"; }
ovs-ofctl -O OpenFlow13 del-flows "$bridge"
case $policy in
normal)
	flow 'priority=0,actions=NORMAL'
	;;
stateful)
	# Connections are forgotten as soon as Weft forgets them.
	vsctl -- --id=@datapath create Datapath datapath_version=0 -- set Open_vSwitch . datapaths:netdev=@datapath
	vsctl add-zone-tp netdev zone=1 udp_first=30 udp_single=30 udp_multiple=300
	# What Neutron's firewall driver makes of a group that allows UDP: known connections at once, new ones by a rule.
	flow 'table=0,priority=2,ip,actions=ct(table=1,zone=1)'
	flow 'table=0,priority=1,arp,actions=NORMAL'
	flow 'table=1,priority=3,ct_state=+trk+est,ip,actions=goto_table:2'
	flow 'table=1,priority=2,ct_state=+trk+new,udp,actions=ct(commit,zone=1),goto_table:2'
	flow 'table=1,priority=1,actions=drop'
	flow 'table=2,dl_dst=02:00:00:00:00:01,actions=output:1'
	flow 'table=2,dl_dst=02:00:00:00:00:02,actions=output:2'
	;;
vxlan)
	# The second socket is the underlay's: this host is 172.16.0.1, the other one 172.16.0.2.
	vsctl del-port lab vhost1
	vsctl add-br underlay -- set bridge underlay datapath_type=netdev other_config:hwaddr=02:00:00:00:00:aa
	vsctl add-port underlay vhost1 -- set Interface vhost1 type=dpdkvhostuserclient options:vhost-server-path="$1/1.sock"
	ip address add 172.16.0.1/24 dev underlay
	ip link set underlay up
	vsctl add-port lab tunnel -- set Interface tunnel type=vxlan options:remote_ip=172.16.0.2 options:local_ip=172.16.0.1 \
		options:key=100 options:dst_port=4789 ofport_request=10
	flow 'in_port=1,actions=output:10'
	flow 'in_port=10,actions=output:1'
	;;
*)
	echo "ovs.sh: $policy: expected normal, stateful or vxlan" >&2
	exit 2
	;;
esac
touch "$1/ready"
wait $switch
