#!/bin/sh
# testpmd.sh FOLDER CPU: DPDK's testpmd forwards between the sockets FOLDER/0.sock and FOLDER/1.sock, which it makes, on one
# CPU, without any look-up: the ceiling. It runs until it is killed.
set -e
folder=$1 cpu=$2
exec dpdk-testpmd --lcores "0@0,1@$cpu" --main-lcore 0 --no-pci --file-prefix=weft-lab-testpmd --no-telemetry --log-level=4 -m 512 \
	--vdev="net_vhost0,iface=$folder/0.sock,queues=1" --vdev="net_vhost1,iface=$folder/1.sock,queues=1" -- \
	--forward-mode=io --auto-start --nb-cores=1 --rxd=1024 --txd=1024 --no-lsc-interrupt --stats-period=3600 </dev/null
