//! Every limit of the system, in one place. Each is tested at N and N+1 where it is enforced.

/// Addresses of one port.
pub const FIXED_IPS_MAX: usize = 16;
/// Allowed address pairs of one port (Neutron's `max_allowed_address_pair` is 10 by default).
pub const ALLOWED_ADDRESS_PAIRS_MAX: usize = 32;
/// Addresses that one port has by saying so.
pub const CLAIMED_IPS_PER_PORT_MAX: usize = 64;
/// Entries of [`crate::HostReport::claims`].
pub const CLAIMS_PER_REPORT_MAX: usize = 1_024;
/// Milliseconds between two reports of a host on who has an address, at least.
pub const CLAIM_INTERVAL_MS: u64 = 1_000;
/// Bytes of the name of a community of a private VLAN.
pub const PVLAN_COMMUNITY_BYTES_MAX: usize = 232;
/// Security groups of one port.
pub const SECURITY_GROUPS_PER_PORT_MAX: usize = 64;
/// Subports of one trunk: as many as there are VLANs.
pub const SUBPORTS_PER_TRUNK_MAX: usize = 4_094;
/// Extra DHCP options of one port.
pub const DHCP_OPTIONS_MAX: usize = 32;
/// Name servers of one subnet (Neutron's `max_dns_nameservers` is 5 by default).
pub const DNS_NAMESERVERS_MAX: usize = 8;
/// Host routes of one subnet (Neutron's `max_subnet_host_routes` is 20 by default).
pub const HOST_ROUTES_MAX: usize = 32;
/// Interfaces of one router.
pub const ROUTER_INTERFACES_MAX: usize = 256;
/// Hosts that share the ports of one gateway's address: 4 have 8,192 each, 16 have 1,024, and 240 have 64.
pub const SNAT_HOSTS_PER_GATEWAY_MAX: usize = 260;
/// Extra routes of one router (Neutron's `max_routes` is 30 by default).
pub const ROUTER_ROUTES_MAX: usize = 256;
/// Port forwardings of one floating IP.
pub const PORT_FORWARDINGS_MAX: usize = 256;
/// Conntrack helpers of one router.
pub const CONNTRACK_HELPERS_MAX: usize = 64;
/// Addresses that one router answers for outside.
pub const NDP_PROXIES_MAX: usize = 4_096;
/// Rules of one metering label.
pub const METERING_RULES_MAX: usize = 1_024;
/// Metering labels of one router.
pub const METERING_LABELS_PER_ROUTER_MAX: usize = 64;
/// Pairs of a source's and a destination's range in the metering rules of one router, direction and family.
pub const METERING_REGIONS_MAX: usize = 4_096;
/// Ranges, and pairs of them that something is counted for, of all routers of one host.
pub const METERING_REGIONS_PER_HOST_MAX: usize = 65_536;
/// Sets of metering labels that something on one host is counted for.
pub const METERS_MAX: usize = 4_096;
/// Logs of one port.
pub const LOGS_PER_PORT_MAX: usize = 64;
/// Ports that one local IP leads to.
pub const LOCAL_IP_TARGETS_MAX: usize = 4_096;
/// Rules that hold for one port in one direction and family, after address groups are written out.
pub const RULES_PER_POLICY_MAX: usize = 16_384;
/// Different remote groups in the rules of one port.
pub const REMOTE_GROUPS_PER_POLICY_MAX: usize = 256;
/// Ranges of one address group.
pub const ADDRESS_GROUP_ADDRESSES_MAX: usize = 1_024;
/// Addresses of floating IPs and gateways on one host that have a QoS policy.
pub const QOS_ADDRESSES_MAX: usize = 4_096;
/// Guest ports of one host.
pub const PORTS_PER_HOST_MAX: usize = 4_096;
/// Networks known to one host.
pub const NETWORKS_PER_HOST_MAX: usize = 16_384;
/// Routers known to one host.
pub const ROUTERS_PER_HOST_MAX: usize = 4_096;
/// Ports elsewhere known to one host.
pub const REMOTE_PORTS_PER_HOST_MAX: usize = 1_048_576;
/// Security group memberships known to one host.
pub const GROUP_MEMBERS_PER_HOST_MAX: usize = 1_048_576;
/// Threads that poll guests' rings on one host.
pub const SWITCH_WORKERS_MAX: usize = 64;
/// Counters of one port's drop reasons; a reason's number is below.
pub const DROP_REASONS_MAX: usize = 64;

/// Connections to the API that are served at once; the next waits until one ends.
pub const API_CONNECTIONS_MAX: usize = 512;
/// Seconds without a byte after which a connection to the API is ended.
pub const API_IDLE_S: u64 = 75;
/// Bytes of a snapshot file or of one line of the feed.
pub const SNAPSHOT_BYTES_MAX: usize = 1 << 30;
/// Bytes of [`crate::VhostUserHost::socket_folder`]: a socket's path has 108 at most, and its name needs 15.
pub const SOCKET_FOLDER_BYTES_MAX: usize = 92;
/// Entries of [`crate::HostReport::unsupported`].
pub const UNSUPPORTED_MAX: usize = 64;
/// Entries of [`crate::HostReport::physical_networks`].
pub const PHYSICAL_NETWORKS_PER_HOST_MAX: usize = 256;
/// Entries of [`crate::HostReport::unreachable`].
pub const PROBED_HOSTS_MAX: usize = 64;
/// Bytes of a physical network's name: 64 characters.
pub const PHYSICAL_NETWORK_BYTES_MAX: usize = 256;
/// Milliseconds between two reports of a host at most.
pub const FEED_REPORT_MS: u64 = 20_000;
/// Milliseconds without a report after which a host's agents are shown as not alive: three reports missed, and a while
/// for the fourth.
pub const FEED_REPORT_MISSED_MS: u64 = 75_000;
/// Milliseconds between two lines of a feed at most.
pub const FEED_HEARTBEAT_MS: u64 = 5_000;
/// Hosts that one feed server knows.
pub const FEED_HOSTS_MAX: usize = 4_096;
/// Connections to the feed that agents have together: each a stream and one for reports, and twice as many while they connect
/// again.
pub const FEED_CONNECTIONS_MAX: usize = 4 * FEED_HOSTS_MAX;
/// Those of one host, with whatever certificates of it: its agent's, and those of the process that takes its place.
pub const FEED_CONNECTIONS_PER_HOST_MAX: usize = 16;
/// Certificates of one host that count at once: one more, and the one that ends first does not.
pub const FEED_CERTIFICATES_PER_HOST_MAX: u32 = 16;
/// Seconds without a byte after which a connection to the feed is ended; agents end theirs before.
pub const FEED_IDLE_S: u64 = 90;
/// Connections to a feed with TLS that showed no certificate, together: they may only join.
pub const FEED_STRANGERS_MAX: usize = 64;
/// Seconds that such a connection lasts at most.
pub const FEED_STRANGER_S: u64 = 10;
/// Changes of one host's duty that the feed's server remembers, so that an agent can resume with a delta.
pub const FEED_HISTORY_MAX: usize = 256;
/// Entries (of tables, new or gone) that these changes have together at most.
pub const FEED_HISTORY_ENTRIES_MAX: usize = 65_536;
/// Streams open for one host; one more ends the oldest.
pub const FEED_STREAMS_PER_HOST_MAX: u64 = 4;
/// Bytes of one [`crate::HostReport`].
pub const FEED_REPORT_BYTES_MAX: usize = 4 << 20;
/// Bytes of a refusal's text and of other words that an agent sends along.
pub const FEED_MESSAGE_BYTES_MAX: usize = 4_096;

/// IPv6 extension headers that are looked through before the upper-layer header.
pub const IPV6_EXTENSION_HEADERS_MAX: usize = 4;
/// Ports tried by SNAT for one new session before it gives up.
pub const NAT_PORT_TRIES_MAX: u32 = 32;
/// Sessions of the host (each takes two entries, one a direction), unless configured.
pub const SESSIONS_MAX_DEFAULT: u32 = 131_072;
/// Sessions that the user engine keeps in a file at most, for whoever comes after it: what stands there is read whole at a start.
pub const SESSIONS_KEPT_MAX: u32 = 1 << 24;
/// Memberships that the kernel engine has room for, unless configured: one for each address and distinct list of remote
/// groups that has the address's group. The kernel takes 16 bytes a place whether it is filled or not, so the limit of
/// the model is no good default.
pub const GROUP_MEMBERS_MAX_DEFAULT: u32 = 65_536;
/// Sessions that one port may hold, unless configured.
pub const SESSIONS_PER_PORT_MAX_DEFAULT: u32 = 32_768;
/// Neighbours on physical networks whose MAC is remembered, over the whole host.
pub const NEIGHBOURS_MAX: u32 = 65_536;
/// Fragmented packets whose first fragment is remembered, over the whole host.
pub const FRAGMENTS_MAX: u32 = 8_192;
/// Decisions a second of one port that are written down in the long run.
pub const LOGS_PER_SECOND: u32 = 100;
/// The same in a burst.
pub const LOGS_BURST: u32 = 25;
/// Packets a second that one port may hand to the host's services (DHCP, RA, ICMP errors) in the long run.
pub const SERVICE_PACKETS_PER_SECOND: u32 = 64;
/// The same in a burst.
pub const SERVICE_PACKETS_BURST: u32 = 128;
/// Bytes of a frame handed to the host's services; what is longer is cut.
pub const SERVICE_FRAME_BYTES_MAX: usize = 2_048;
/// Local ports and hosts that one multicast or broadcast frame is copied to.
pub const MULTICAST_COPIES_MAX: u32 = 512;
/// Copies a second of the multicast and broadcast frames of one port or uplink, in the long run.
pub const MULTICAST_COPIES_PER_SECOND: u32 = 8_192;
/// The same in a burst.
pub const MULTICAST_COPIES_BURST: u32 = 8_192;

/// Idle seconds after which a session ends, by what was seen of it. TCP: RFC 5382 REQ-5; UDP: RFC 4787 REQ-5;
/// ICMP: RFC 5508 REQ-1 and REQ-2.
pub mod session_timeout_s {
    /// TCP, handshake not finished: nothing has come back with an ACK.
    pub const TCP_OPENING: u32 = 60;
    /// TCP, both directions seen.
    pub const TCP_ESTABLISHED: u32 = 7_440;
    /// TCP after a FIN or RST in either direction.
    pub const TCP_CLOSING: u32 = 30;
    /// UDP and other protocols, one direction seen.
    pub const UDP_OPENING: u32 = 30;
    /// UDP and other protocols, both directions seen.
    pub const UDP_ESTABLISHED: u32 = 300;
    /// ICMP queries.
    pub const ICMP: u32 = 60;
}
