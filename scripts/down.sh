#!/bin/sh
# Ends what scripts/up.sh started and removes what it and scripts/guest.sh made.
set -eu

state=/run/weft-up

if [ -e "$state/pid" ]; then
    pid=$(cat "$state/pid")
    # Only if the number is still that of a weft: it may have been given to somebody else.
    if [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = weft ]; then
        kill "$pid"
        tries=100
        while kill -0 "$pid" 2>/dev/null; do
            tries=$((tries - 1))
            [ "$tries" != 0 ] || kill -9 "$pid"
            sleep 0.1
        done
    fi
elif [ "${1:-}" != quietly ]; then
    echo "Weft was not up"
fi
# Devices first: those of a namespace that is removed go only a little later.
ip link del weft-uplink 2>/dev/null || true
for namespace in $(ip netns list | sed -n 's/^\(weft-outside\|weft-guest-[0-9a-f-]*\).*/\1/p'); do
    ip link del "tap${namespace#weft-guest-}" 2>/dev/null || true
    ip netns del "$namespace"
done
rm -rf "$state" /sys/fs/bpf/weft/weft-up
