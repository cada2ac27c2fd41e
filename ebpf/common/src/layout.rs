//! Keys and values of the maps. Addresses and L4 ports are in network order, everything else in host order.
//!
//! Field order: what every packet reads comes first, so that it shares a cache line; then what only a walk reads.

use crate::layout;

pub use crate::layout_local_ip::{LocalIp, LocalIpKey};
pub use crate::layout_qos::{QosPaid, QosRate, QosRecord};

/// Allowed addresses of one port: its fixed IPs and its address pairs.
pub const ALLOWED_MAX: usize = 48;

layout! {
    /// An address on a network: ARP, ND, neighbours.
    struct AddressKey = "address_key" {
        /// The network's or router's slot.
        scope: u32,
        /// `family::*`.
        family: u32,
        /// The address.
        address: [u8; 16],
    }

    /// A source that a port may use.
    struct Allowed = "allowed" {
        /// With which MAC.
        mac: [u8; 6],
        /// `family::*`.
        family: u8,
        /// `allowed::*`.
        flags: u8,
        /// The range's first address.
        address: [u8; 16],
        /// The range's mask.
        mask: [u8; 16],
    }

    /// A guest's port.
    struct PortRecord = "port_record" {
        /// Its MAC.
        mac: [u8; 6],
        /// `port::*`.
        flags: u16,
        /// Its network's slot.
        network: u32,
        /// How many of `allowed` hold.
        allowed_count: u32,
        /// Policy slots by direction (egress, ingress) and family (v4, v6).
        policy: [u32; 4],
        /// In a private VLAN: `role::*`, or the number of its community.
        role: u32,
        /// Its id, for adoption.
        id: [u8; 16],
        /// What it may send from.
        allowed: [Allowed; ALLOWED_MAX],
    }

    /// A network.
    struct NetworkRecord = "network_record" {
        /// `network::*`.
        flags: u32,
        /// The largest IP packet.
        mtu: u32,
        /// Its uplink's slot, or `slot::NONE`.
        uplink: u32,
        /// Its tunnel's slot, with `slot::TUNNEL`.
        tunnel: u32,
        /// SHARED: its transit's slot, with `slot::TUNNEL`.
        transit: u32,
        /// SHARED: the largest IP packet there.
        transit_mtu: u32,
        /// Local ports, and hosts with ports, on it.
        members: u32,
        /// GRE: the key.
        gre_key: u32,
        /// Its address scopes' numbers, of IPv4 and IPv6; 0: none.
        scopes: [u32; 2],
        /// Its id, for adoption.
        id: [u8; 16],
    }

    /// A member of a network by number.
    struct MemberKey = "member_key" {
        /// The network's slot.
        network: u32,
        /// From 0 on.
        index: u32,
    }

    /// A member of a network.
    struct Member = "member" {
        /// A port's slot, or with `slot::TUNNEL` that of a host.
        slot: u32,
    }

    /// A MAC address on a network.
    struct FdbKey = "fdb_key" {
        /// The network's slot.
        network: u32,
        /// The address.
        mac: [u8; 6],
        /// Zero.
        reserved: u16,
    }

    /// What it stands for.
    struct FdbEntry = "fdb_entry" {
        /// `fdb::*`.
        flags: u32,
        /// LOCAL: the port's slot.
        port: u32,
        /// INTERFACE: the router's slot.
        router: u32,
        /// OUTSIDE: the router's slot.
        router_outside: u32,
        /// REMOTE: the slot of its host, or `slot::NONE` if there is no tunnel.
        host: u32,
        /// REMOTE: as in [`PortRecord`].
        role: u32,
    }

    /// What an address stands for.
    struct OwnerEntry = "owner_entry" {
        /// The MAC that ARP and ND answer with.
        mac: [u8; 6],
        /// `owner::*`.
        flags: u16,
        /// LOCAL: the port's slot. Else REMOTE: the slot of its host, or `slot::NONE` if there is no tunnel.
        port: u32,
        /// LOCAL, else REMOTE: the port's MAC.
        port_mac: [u8; 6],
        /// REMOTE: the slot of its host, whatever network a tunnel is for, or zero.
        host: u16,
        /// REMOTE: as in [`PortRecord`].
        role: u32,
    }

    /// A host that tunnels lead to, by its slot; slot 0 is this host.
    struct TunnelHost = "tunnel_host" {
        /// Its address in the underlay.
        address: [u8; 16],
        /// `family::*`, or zero: not there.
        family: u32,
        /// v4: the sum of the outer IP header's words that are always the same.
        checksum: u32,
    }

    /// What a tunnel's number or a host's address stands for.
    struct TunnelSlot = "tunnel_slot" {
        /// The network's or the host's slot.
        slot: u32,
    }

    /// A router.
    struct RouterRecord = "router_record" {
        /// `router::*`.
        flags: u32,
        /// The gateway's network.
        gateway_network: u32,
        /// The gateway's MAC.
        gateway_mac: [u8; 6],
        /// SNAT's first port, host order.
        snat_first: u16,
        /// SNAT's last port, host order.
        snat_last: u16,
        /// Zero.
        reserved: u16,
        /// SNAT's address.
        snat_address: u32,
        /// The slot of the host that answers outside, or `slot::NONE`.
        gateway_host: u32,
        /// Limits of SNAT's address: their slot, or 0.
        account: u32,
        /// Its id, for adoption.
        id: [u8; 16],
    }

    /// Whether an address is the router's own; the key is [`AddressKey`] with the router's slot.
    struct RouterAddress = "router_address" {
        /// `router_address::*`.
        flags: u32,
    }

    /// The key of the routes' trie.
    struct RouteKey = "route_key" {
        /// Bits that count, 64 for table and family included.
        prefix_bits: u32,
        /// The router's slot doubled; plus one for packets from outside.
        table: u32,
        /// `family::*`.
        family: u32,
        /// The destination.
        address: [u8; 16],
    }

    /// A route.
    struct Route = "route" {
        /// `route::*`.
        kind: u16,
        /// The leg's MAC.
        mac: [u8; 6],
        /// The leg's network.
        network: u32,
        /// Whether `nexthop` holds; else the destination is the next hop.
        has_nexthop: u32,
        /// The next hop.
        nexthop: [u8; 16],
    }

    /// The key of a floating IP by its address.
    struct FloatingKey = "floating_key" {
        /// The external network.
        network: u32,
        /// The address.
        address: u32,
    }

    /// A floating IP.
    struct Floating = "floating" {
        /// Its router.
        router: u32,
        /// The port behind it.
        port: u32,
        /// That port's address.
        fixed: u32,
        /// MAC of the router's leg towards the port.
        leg_mac: [u8; 6],
        /// `floating::*`.
        flags: u16,
        /// Limits of its own: their slot, or 0.
        account: u32,
    }

    /// The key of the trie of port forwardings.
    struct ForwardingKey = "forwarding_key" {
        /// Bits that count: all in front of the port, and of the port those that the range shares.
        prefix_bits: u32,
        /// The external network.
        network: u32,
        /// The floating address.
        address: u32,
        /// IP protocol.
        protocol: u8,
        /// Zero.
        reserved: u8,
        /// The port.
        port: u16,
    }

    /// A range of 2^n forwarded ports.
    struct Forwarding = "forwarding" {
        /// What is behind them. ELSEWHERE: as of a floating IP.
        floating: Floating,
        /// Where the first one leads, host order.
        internal_port: u16,
        /// What of a port is added to that.
        port_mask: u16,
    }

    /// The key of the trie of other hosts' blocks of ports.
    struct SnatBlockKey = "snat_block_key" {
        /// Bits that count: those of network and address, and of the port those that the block shares.
        prefix_bits: u32,
        /// The external network; with the highest bit: protocols without ports.
        network: u32,
        /// The gateway's address.
        address: u32,
        /// The port.
        port: u16,
        /// Zero.
        reserved: u16,
    }

    /// Another host's block of ports.
    struct SnatBlock = "snat_block" {
        /// The slot of the host, or `slot::NONE`.
        host: u32,
        /// The gateway's MAC.
        mac: [u8; 6],
        /// Zero.
        reserved: u16,
    }

    /// The key of a floating IP by what is behind it.
    struct FloatingSourceKey = "floating_source_key" {
        /// Its router.
        router: u32,
        /// The port.
        port: u32,
        /// The port's address.
        fixed: u32,
    }

    /// The source that a guest is seen with.
    struct FloatingSource = "floating_source" {
        /// The floating address.
        address: u32,
        /// Its MAC.
        mac: [u8; 6],
        /// Zero.
        reserved: u16,
        /// Limits of its own: their slot, or 0.
        account: u32,
    }

    /// An uplink.
    struct UplinkRecord = "uplink_record" {
        /// The network on it, or 0: networks' slots start at 1.
        network: u32,
        /// The tag of its frames; 0: none.
        vlan: u32,
        /// The network's transit, with `slot::TUNNEL`, or 0.
        transit: u32,
        /// The physical network's number.
        wire: u32,
        /// The network's id, for adoption.
        id: [u8; 16],
    }

    /// The key of an uplink by what its frames look like.
    struct WireKey = "wire_key" {
        /// The physical network's number.
        wire: u32,
        /// The frame's tag; 0: none.
        vlan: u32,
    }

    /// The uplink that such frames are of.
    struct Wire = "wire" {
        /// Its slot.
        uplink: u32,
    }

    /// A device by slot; uplinks first.
    struct Device = "device" {
        /// 0: not there.
        ifindex: u32,
        /// `device::*`.
        flags: u32,
    }

    /// The key of a subport by its trunk's port and its tag.
    struct SubportKey = "subport_key" {
        /// The trunk's port's slot.
        parent: u32,
        /// The tag.
        vlan: u32,
    }

    /// A subport.
    struct Subport = "subport" {
        /// Its slot.
        slot: u32,
    }

    /// A neighbour's MAC; the key is [`AddressKey`].
    struct Neighbour = "neighbour" {
        /// The MAC.
        mac: [u8; 6],
        /// Zero.
        reserved: u16,
    }

    /// One direction of a session.
    struct SessionKey = "session_key" {
        /// Port slot, or uplink slot with `slot::UPLINK`.
        ingress: u32,
        /// Source address.
        source: [u8; 16],
        /// Destination address.
        destination: [u8; 16],
        /// Source port.
        source_port: u16,
        /// Destination port.
        destination_port: u16,
        /// IP protocol.
        protocol: u8,
        /// `family::*`.
        family: u8,
        /// The VLAN of the guests' own, with `guest_vlan::*`, or 0.
        vlan: u16,
    }

    /// What is done to the packets of one direction.
    struct Session = "session" {
        /// The destination MAC that they must have.
        match_mac: [u8; 6],
        /// `session::*`.
        flags: u16,
        /// Topology's revision.
        revision: u32,
        /// The ingress port's revision.
        revision_ingress: u32,
        /// The output port's revision.
        revision_output: u32,
        /// Port slot, or uplink slot with `slot::UPLINK`.
        output: u32,
        /// Seconds of the clock, of the newest packet.
        seen_s: u32,
        /// `state::*`.
        state: u8,
        /// TTL decrement.
        ttl: u8,
        /// The opener's ICMP type.
        icmp_type: u8,
        /// The opener's ICMP code.
        icmp_code: u8,
        /// ROUTED: the largest IP packet.
        mtu: u32,
        /// ROUTED: new source MAC. Else the opener's destination (reply) or source (forward) MAC.
        source_mac: [u8; 6],
        /// ROUTED: new destination MAC.
        destination_mac: [u8; 6],
        /// New source address.
        source: [u8; 16],
        /// New destination address.
        destination: [u8; 16],
        /// New source port.
        source_port: u16,
        /// New destination port.
        destination_port: u16,
        /// The port that the session counts for.
        owner: u32,
        /// NEIGHBOUR: who has the destination MAC.
        next_hop: [u8; 16],
        /// The opener's source MAC.
        opener_mac: [u8; 6],
        /// TUNNEL: the outer source port.
        tunnel_port: u16,
        /// The opener's network.
        network: u32,
        /// TUNNEL: the slot of the other host.
        tunnel_host: u32,
        /// Ingress of the other direction's key.
        other_ingress: u32,
        /// Limits of the address that it leaves by: their slot, or 0.
        account_from: u32,
        /// Limits of the address that it comes in by: their slot, or 0.
        account_to: u32,
        /// DSCP: the mark.
        dscp: u8,
        /// DENIED: the reason's number.
        denied: u8,
        /// METERED: the meter.
        meter: u16,
        /// Packets so far.
        packets: u64,
        /// Their bytes.
        bytes: u64,
    }

    /// The key of the fragment table.
    struct FragmentKey = "fragment_key" {
        /// As in [`SessionKey`].
        ingress: u32,
        /// Identification.
        identification: u32,
        /// Source address.
        source: [u8; 16],
        /// Destination address.
        destination: [u8; 16],
        /// IP protocol.
        protocol: u8,
        /// `family::*`.
        family: u8,
        /// As in [`SessionKey`].
        vlan: u16,
    }

    /// What the first fragment said.
    struct Fragment = "fragment" {
        /// Source port.
        source_port: u16,
        /// Destination port.
        destination_port: u16,
        /// ICMP type.
        icmp_type: u8,
        /// ICMP code.
        icmp_code: u8,
        /// TCP flags.
        tcp_flags: u8,
        /// ICMP_QUERY and ICMP_ERROR of `packet::*`.
        flags: u8,
    }

    /// Packets and bytes of one device.
    struct Traffic = "traffic" {
        /// Packets received from it.
        rx_packets: u64,
        /// Bytes received from it.
        rx_bytes: u64,
        /// Packets sent to it.
        tx_packets: u64,
        /// Bytes sent to it.
        tx_bytes: u64,
    }

    /// A range of a router's metering rules: the number of what is in it, 0 being everything.
    struct MeterRange = "meter_range" {
        /// The number.
        number: u32,
    }

    /// What comes from one range of a router's metering rules and goes to another.
    struct MeterRegionKey = "meter_region_key" {
        /// The router's slot twice, and 1 for what comes in by the gateway.
        table: u32,
        /// `family::*`.
        family: u32,
        /// The source's range.
        source: u32,
        /// The destination's range.
        destination: u32,
    }

    /// Which meter counts it.
    struct MeterRegion = "meter_region" {
        /// Not 0.
        meter: u32,
    }

    /// What a meter has counted.
    struct Meter = "meter" {
        /// Packets.
        packets: u64,
        /// Their bytes behind the Ethernet header.
        bytes: u64,
    }

    /// The set of labels that a meter is of.
    struct MeterSet = "meter_set" {
        /// Made of their ids.
        id: [u8; 16],
    }

    /// Packets dropped, by the reason's number.
    struct DropCounts = "drop_counts" {
        /// One for each number.
        reasons: [u64; 64],
    }

    /// What a device took of the agent's time.
    struct Bucket = "bucket" {
        /// Packets that are not paid back yet.
        spent: u32,
        /// Seconds of the clock when it was last asked.
        asked_s: u32,
    }

    /// A decision of a port's security groups that is to be written down.
    struct LogRecord = "log_record" {
        /// The port's slot.
        port: u32,
        /// `log::*`.
        flags: u32,
        /// Source address, as the port's rules see it.
        source: [u8; 16],
        /// Destination address.
        destination: [u8; 16],
        /// Source port, network order.
        source_port: u16,
        /// Destination port, network order.
        destination_port: u16,
        /// IP protocol.
        protocol: u8,
        /// `family::*`.
        family: u8,
        /// The opener's ICMP type.
        icmp_type: u8,
        /// The opener's ICMP code.
        icmp_code: u8,
    }

    /// The head of a ring buffer record; the frame follows.
    struct EventHead = "event_head" {
        /// `event::*`.
        kind: u32,
        /// Port slot, or uplink slot with `slot::UPLINK`.
        ingress: u32,
        /// The network that the frame leaves by (TTL_EXCEEDED, MTU_EXCEEDED: `slot::NONE` if none).
        network: u32,
        /// `family::*` of `next_hop`.
        family: u32,
        /// NEIGHBOUR_NEEDED: whom to resolve.
        next_hop: [u8; 16],
        /// Bytes of the frame as it was.
        frame_bytes: u32,
        /// Bytes of it that follow.
        copied_bytes: u32,
        /// MTU_EXCEEDED: the MTU.
        mtu: u32,
        /// Zero.
        reserved: u32,
    }
}
