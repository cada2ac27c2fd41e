//! Numbers that programs and loader share: flags, kinds, verdicts, slots of the stages. Each is declared once and
//! printed for C with the prefix of its group. Drop reasons and limits come from `weft-model` instead.

macro_rules! constants {
    ($($(#[$group_doc:meta])* $group:ident: $type:ty { $($(#[$doc:meta])* $name:ident = $value:expr;)* })*) => {
        $($(#[$group_doc])* pub mod $group {
            $($(#[$doc])* pub const $name: $type = $value;)*
        })*

        /// All constants as C definitions: `GROUP_NAME`.
        #[must_use]
        pub fn c_definitions() -> alloc::string::String {
            let mut text = alloc::string::String::new();
            $($({
                let group = stringify!($group).to_ascii_uppercase();
                text += &alloc::format!("#define {}_{} {:#x}\n", group, stringify!($name), $group::$name);
            })*)*
            text
        }
    };
}

constants! {
    /// Slots of the stages' program array.
    stage: u32 {
        /// Frames from a guest.
        GUEST = 0;
        /// Frames from an uplink.
        UPLINK = 1;
        /// ARP.
        ARP = 2;
        /// Neighbour discovery.
        ND = 3;
        /// ICMP errors: the packet inside, its session.
        ICMP_ERROR = 4;
        /// The walk's start: the opener's egress policy.
        WALK = 5;
        /// After the egress policy: bridge, route, NAT. The policy programs continue here.
        FORWARD = 6;
        /// At a local destination: its ingress policy.
        DESTINATION = 7;
        /// After the ingress policy: record and apply. The policy programs continue here.
        RECORD = 8;
        /// Applies a session's transformation to an ICMP error.
        APPLY_ERROR = 9;
        /// Collects expired sessions; run by the loader.
        EXPIRE = 10;
        /// Route: by a router's interface.
        ROUTE = 11;
        /// From outside: to a router's gateway or a floating IP.
        OUTSIDE = 12;
        /// Applies a session's transformation.
        APPLY = 13;
        /// Frames from the underlay.
        UNDERLAY = 14;
        /// Frames that another host left to this one, to bring them outside.
        OUTBOUND = 15;
        /// A copy of a multicast frame, on its way to one member.
        COPY = 16;
        /// A tagged frame of a trunk, or of a VLAN-transparent network.
        TRUNK = 17;
        /// What the rules of stateless ports say of answers and of ICMP errors. The policy programs continue here.
        STATELESS = 18;
        /// A frame of a VLAN of the guests' own, without its tag.
        TAGGED = 19;
        /// Applies a session's transformation to such a frame.
        APPLY_TAGGED = 20;
        /// Slots in all.
        COUNT = 24;
    }
    /// The collector's runs.
    expire: u32 {
        /// Keys of one run.
        KEYS_MAX = 64;
    }
    /// What became of a frame; the low byte of `cb[0]`.
    verdict: u32 {
        /// Dropped for a reason.
        DROP = 1;
        /// To a local guest.
        DELIVER = 2;
        /// Out of a physical network's interface.
        UPLINK = 3;
        /// Back to where it came from.
        REPLY = 4;
        /// Handed to the agent.
        SERVICE = 5;
        /// Left to the host's own stack.
        PASS = 6;
        /// To another host.
        TUNNEL = 7;
        /// To the members of its network alone.
        MULTICAST = 8;
    }
    /// What a record of the ring buffer is about.
    event: u32 {
        /// DHCP from a guest.
        DHCP = 1;
        /// DHCPv6 from a guest.
        DHCPV6 = 2;
        /// A router solicitation.
        RA = 3;
        /// ARP or ND from the uplink: the sender can be learnt.
        NEIGHBOUR = 4;
        /// A finished frame without destination MAC.
        NEIGHBOUR_NEEDED = 5;
        /// The frame's TTL ran out.
        TTL_EXCEEDED = 6;
        /// The frame is larger than the next network's MTU.
        MTU_EXCEEDED = 7;
        /// ARP or ND by which a guest says that an address is its own.
        CLAIM = 8;
    }
    /// Flags of a decision that is written down.
    log: u32 {
        /// A rule allowed it.
        ALLOWED = 1;
        /// It is to the guest.
        INGRESS = 2;
        /// Where the VLAN of the guests' own begins.
        VLAN_SHIFT = 16;
    }
    /// Slots of ports and uplinks.
    slot: u32 {
        /// Set in an ingress or output that is an uplink.
        UPLINK = 0x8000_0000;
        /// Set in an ingress or output that is a tunnel: the rest is the number that the tunnel carries.
        TUNNEL = 0x4000_0000;
        /// Set beside TUNNEL for GENEVE; without it VXLAN.
        GENEVE = 0x0100_0000;
        /// Set beside TUNNEL for GRE, whose keys are too long: the rest is the network's slot.
        GRE = 0x0200_0000;
        /// Set beside TUNNEL for a network that is in no tunnel: the rest is its slot.
        TUNNEL_NONE = 0x2000_0000;
        /// Uplinks of one host and the underlay; per-device tables hold them before the ports.
        UPLINKS_MAX = 4096;
        /// The underlay among them: the last one.
        UNDERLAY = 4095;
        /// Slots of the hosts that tunnels lead to; the first is this host itself.
        TUNNELS_MAX = 4096;
        /// Entries of `transits`: whether a tunnel whose number ends so may be a transit.
        TRANSIT_HINTS = 4096;
        /// No slot.
        NONE = 0xffff_ffff;
    }
    /// `skb->mark` of a copy of a multicast frame between its two runs: the network's slot and the member's index below.
    copy: u32 {
        /// The byte that says so.
        MARK = 0x5700_0000;
        /// Its bits.
        MARK_MASK = 0xff00_0000;
        /// Where the network's slot begins.
        NETWORK_SHIFT = 9;
        /// Its bits, behind the shift.
        NETWORK_MASK = 0x7fff;
        /// The index's bits.
        INDEX_MASK = 0x1ff;
    }
    /// Address families of keys.
    family: u8 {
        /// IPv4: the address is in the first four bytes, the rest is zero.
        V4 = 4;
        /// IPv6.
        V6 = 6;
    }
    /// Flags of a port.
    port: u16 {
        /// Administratively up.
        UP = 1;
        /// Anti-spoofing and security groups hold.
        SECURITY = 2;
        /// The agent answers DHCP.
        DHCP = 4;
        /// The agent answers DHCPv6.
        DHCPV6 = 8;
        /// Has subports.
        TRUNK = 16;
        /// Judged packet by packet.
        STATELESS = 32;
        /// Its network is VLAN-transparent.
        TRANSPARENT = 64;
        /// What its rules allow is written down.
        LOG_ACCEPT = 4096;
        /// What its rules do not allow is written down.
        LOG_DROP = 8192;
    }
    /// Flags of an allowed address.
    allowed: u8 {
        /// One of the port's fixed IPs.
        FIXED = 1;
    }
    /// Roles in a private VLAN; higher numbers are communities.
    role: u32 {
        /// Reaches all.
        PROMISCUOUS = 0;
        /// Reaches promiscuous ports only.
        ISOLATED = 1;
        /// The first community.
        COMMUNITIES = 2;
    }
    /// Flags of a network.
    network: u32 {
        /// Flat or VLAN: what is not known here leaves by the uplink.
        PHYSICAL = 1;
        /// A router that is up announces a prefix.
        RA = 2;
        /// Has a transit.
        SHARED = 4;
        /// This host has not its uplink.
        ELSEWHERE = 8;
        /// Local IPs lead to ports on it.
        LOCAL_IPS = 16;
        /// Guests may tag frames themselves.
        TRANSPARENT = 32;
    }
    /// What a MAC address stands for on a network; several may hold.
    fdb: u32 {
        /// A router's interface.
        INTERFACE = 1;
        /// A router's gateway or a floating IP.
        OUTSIDE = 2;
        /// A local port.
        LOCAL = 4;
        /// A remote port.
        REMOTE = 8;
    }
    /// What an address stands for on a network; several may hold.
    owner: u16 {
        /// ARP and ND for it are answered, also on the uplink.
        ANSWER = 1;
        /// ARP and ND for it are answered to guests only: a remote port.
        ANSWER_GUEST = 2;
        /// The answer has the Router flag.
        ROUTER = 4;
        /// An address of a router's gateway.
        GATEWAY = 8;
        /// Nobody outside may have it: a floating IP, or a gateway's that no other host shares.
        ROGUE = 16;
        /// A fixed IP of a local port.
        LOCAL = 32;
        /// A fixed IP of a remote port.
        REMOTE = 64;
    }
    /// Flags of a router.
    router: u32 {
        /// Administratively up.
        UP = 1;
        /// Has a gateway.
        GATEWAY = 2;
        /// Translates to the gateway's address.
        SNAT = 4;
        /// The gateway has an IPv4 address.
        SNAT_ADDRESS = 8;
        /// SNAT of protocols without ports is this host's.
        SNAT_PORTLESS = 16;
        /// From outside IPv6 goes only to addresses that it is a proxy for.
        NDP_PROXIES = 32;
        /// One of its legs is in an address scope.
        SCOPED = 64;
        /// Metering labels count what passes its gateway.
        METERED = 128;
    }
    /// Flags of an address of a router.
    router_address: u32 {
        /// Of an interface.
        INTERFACE = 1;
        /// Of the gateway.
        GATEWAY = 2;
        /// The router's own.
        OWN = 3;
        /// Behind it: it is an NDP proxy for it.
        PROXIED = 4;
    }
    /// Whose gateway the opener passes, in the walk's outcome: the router's slot beside these.
    gateway: u32 {
        /// It passes one.
        PASSED = 0x8000_0000;
        /// It comes in by it.
        IN = 0x4000_0000;
    }
    /// Kinds of routes.
    route: u16 {
        /// By an interface.
        INSIDE = 1;
        /// By the gateway.
        OUTSIDE = 2;
        /// The next hop is in no connected subnet.
        UNREACHABLE = 3;
    }
    /// Flags of a floating IP.
    floating: u16 {
        /// Its router is up.
        ROUTER_UP = 1;
        /// The router has an interface whose subnet holds the fixed address.
        LEG = 2;
        /// Of another host: `port` is its slot, `leg_mac` the floating IP's own.
        ELSEWHERE = 4;
        /// Only some of its ports lead somewhere; `leg_mac` is the floating IP's own.
        FORWARDED = 8;
        /// FORWARDED: this host answers for it outside, and knows all of them.
        ANSWERED = 16;
    }
    /// Flags of a session's entry.
    session: u16 {
        /// The opener's direction. It keeps its bit: sessions go over from one layout to the next.
        FORWARD = 1;
        /// MACs are rewritten, the TTL counts down, the MTU holds.
        ROUTED = 2;
        /// The source is translated.
        NAT_SOURCE = 4;
        /// The destination is translated.
        NAT_DESTINATION = 8;
        /// The destination MAC comes from the neighbour table.
        NEIGHBOUR = 16;
        /// To another host: encapsulated, and the MTU holds.
        TUNNEL = 32;
        /// A port that it passes has limits.
        QOS = 64;
        /// Marked with `dscp`.
        DSCP = 128;
        /// Leaves its physical network by the transit: encapsulated, and the MTU holds.
        TRANSIT = 256;
        /// A stateless port's rules allow none of it: dropped for `denied`.
        DENIED = 512;
        /// Metering labels count it.
        METERED = 8192;
    }
    /// Where a port's limits stand: of bytes, then of packets.
    qos: u32 {
        /// From the guest.
        EGRESS = 0;
        /// To the guest.
        INGRESS = 2;
    }
    /// How rates are written.
    rate: u32 {
        /// Bits behind the point of a unit's nanoseconds.
        FRACTION_BITS = 20;
    }
    /// States of a session. They keep their numbers: sessions go over from one layout to the next.
    state: u8 {
        /// One direction was seen.
        OPENING = 0;
        /// Both directions were seen.
        ESTABLISHED = 1;
        /// A FIN or RST was seen.
        CLOSING = 2;
    }
    /// Flags of a device.
    device: u32 {
        /// A veth whose peer is in another namespace: `bpf_redirect_peer` is shorter.
        PEER = 1;
        /// Where the tag of a subport's frames begins.
        VLAN_SHIFT = 16;
    }
    /// Flags of a packet, in the scratch and in the fragment table.
    packet: u32 {
        /// A fragment.
        FRAGMENT = 1;
        /// A fragment other than the first.
        LATER = 2;
        /// An ICMP error.
        ICMP_ERROR = 4;
        /// An ICMP query.
        ICMP_QUERY = 8;
        /// The scratch's walk is for a session that is stale.
        STALE = 16;
        /// The packet goes in the session's reply direction.
        REPLY = 32;
        /// A test run: devices need not be there.
        TEST = 64;
        /// It came from another host by a physical network's transit.
        TRANSIT = 512;
        /// A tag was taken off: `pass` puts it on again.
        TAGGED = 128;
        /// One copy of a multicast frame.
        COPY = 256;
        /// Copies went to members.
        COPIED = 1024;
        /// The walk has met a stateless port.
        STATELESS = 2048;
        /// A guest's own tag was taken off: the frame leaves with it.
        GUEST_TAG = 4096;
    }
    /// The VLAN of the guests' own in a session's key.
    guest_vlan: u16 {
        /// Its number's bits.
        ID_MASK = 0x0fff;
        /// Members tell each other of their neighbours: no rule is asked.
        NEIGHBOUR = 0x1000;
    }
}
