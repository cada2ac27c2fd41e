/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * The maps, and the per-CPU scratch that carries a packet from stage to stage.
 *
 * Guarantees: configuration maps are written by the loader only; programs write sessions, fragments, counters, quotas and
 * buckets only. The scratch is safe because tcx programs run with bottom halves off and never nest on one CPU.
 * Sessions are a plain hash, never LRU: a flood fills its own port's quota and evicts nobody.
 */
#pragma once
#include "base.h"

#define SCRATCH_BYTES 1024

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, SCRATCH_BYTES);
} walks SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, STAGE_COUNT);
	__type(key, __u32);
	__type(value, __u32);
} stages SEC(".maps");

#include "policy.h"

/* In outcome.snat: protocols without ports may be translated. */
#define SNAT_PORTLESS 2

/* How one direction's transformation comes out of the walk. */
struct outcome {
	__u32 output;
	__u16 flags;
	__u8 ttl;
	__u8 snat;    /* the source port is still to be taken from the block: 1, and SNAT_PORTLESS */
	__u32 mtu;
	__u8 source_mac[6];
	__u8 destination_mac[6];
	__u8 source[16];
	__u8 destination[16];
	__u16 source_port;
	__u16 destination_port;
	__u16 snat_first;
	__u16 snat_last;
	__u8 next_hop[16];
	__u32 checked; /* the destination's policy was asked: 1, and PORT_LOG_* */
	__u32 tunnel_host;
	__u32 reply_ingress;
	__u32 gateway; /* GATEWAY_*, and the router's slot: only if it is METERED */
	__u32 account_source;      /* limits of the address that the source becomes */
	__u32 account_destination; /* and of the address that the destination was */
};

/* How the reply of what came from a tunnel goes back. */
struct way_back {
	__u32 output;
	__u32 tunnel_host;
	__u32 mtu;
	__u16 flags;
	__u8 ttl;
	__u8 resolved; /* by transit: this host says the destination MAC */
	__u8 source_mac[6];
	__u8 destination_mac[6];
};

struct scratch {
	struct policy_walk policy; /* first: the policies' programs rely on it */
	struct session_key key;    /* this packet's; of an ICMP error: the reversed tuple inside */
	__u32 ingress; /* port slot, or an uplink's or tunnel's with SLOT_UPLINK, SLOT_TUNNEL */
	__u32 now_s;
	__u32 flags; /* PACKET_* */
	__u32 l4_offset;
	__u32 l4_bytes;
	__u32 ip_bytes;
	__u32 identification;
	__u32 network;
	__u16 ethertype;
	__u8 destination_mac[6];
	__u8 source_mac[6];
	__u8 icmp_type;
	__u8 icmp_code;
	__u8 tcp_flags;
	__u8 ttl;
	__u8 l4_header;
	__u8 crossing; /* what stateless ports are asked: CROSSING_* */
	__u16 tci; /* TAGGED: the tag that was taken off, host order */
	__u16 denied; /* why a session's answers do not pass, or 0 */
	/* of an ICMP error */
	__u8 outer_source[16];
	__u32 inner_offset;
	__u32 inner_l4_offset;
	/* the walk: the forward tuple and its opener */
	struct session_key forward;
	__u8 opener_destination_mac[6];
	__u8 opener_source_mac[6];
	__u8 opener_type;
	__u8 opener_code;
	__u16 guest_tci; /* GUEST_TAG: the tag that was taken off, host order */
	struct session_key reply; /* stale: the session's reply key */
	__u32 revision;
	__u32 revision_ingress;
	__u32 revision_output;
	__u32 rule;
	__u32 router;
	__u32 role; /* the sender's, in a private VLAN */
	struct outcome out;
	struct way_back back;
	/* here, not on the stack, whose accesses must be aligned */
	union {
		struct arp arp;
		struct nd_reply nd;
		struct ethernet inner;
	} headers;
	struct session entry; /* this packet's direction, to apply */
	struct session other; /* the other direction */
};

_Static_assert(sizeof(struct scratch) <= SCRATCH_BYTES, "scratch");

#define CONFIG_HASH(name, key_type, value_type, entries)      \
	struct {                                              \
		__uint(type, BPF_MAP_TYPE_HASH);              \
		__uint(map_flags, BPF_F_NO_PREALLOC);         \
		__uint(max_entries, entries);                 \
		__type(key, key_type);                        \
		__type(value, value_type);                    \
	} name SEC(".maps")

CONFIG_HASH(ports, __u32, struct port_record, LIMIT_PORTS_PER_HOST_MAX);
CONFIG_HASH(qos, __u32, struct qos_record, LIMIT_PORTS_PER_HOST_MAX); /* by ports' slots */
CONFIG_HASH(accounts, __u32, struct qos_record, LIMIT_QOS_ADDRESSES_MAX); /* of addresses, by slots from 1 on */
CONFIG_HASH(networks, __u32, struct network_record, LIMIT_NETWORKS_PER_HOST_MAX);
CONFIG_HASH(routers, __u32, struct router_record, LIMIT_ROUTERS_PER_HOST_MAX);
CONFIG_HASH(fdb, struct fdb_key, struct fdb_entry, 2 * LIMIT_REMOTE_PORTS_PER_HOST_MAX);
CONFIG_HASH(owners, struct address_key, struct owner_entry, 4 * LIMIT_REMOTE_PORTS_PER_HOST_MAX);
CONFIG_HASH(router_addresses, struct address_key, struct router_address, LIMIT_REMOTE_PORTS_PER_HOST_MAX);
CONFIG_HASH(floatings, struct floating_key, struct floating, LIMIT_REMOTE_PORTS_PER_HOST_MAX);
CONFIG_HASH(floating_srcs, struct floating_source_key, struct floating_source, LIMIT_REMOTE_PORTS_PER_HOST_MAX);
CONFIG_HASH(local_ips, struct local_ip_key, struct local_ip, LIMIT_REMOTE_PORTS_PER_HOST_MAX);
CONFIG_HASH(tunnel_slots, struct address_key, struct tunnel_slot, SLOT_TUNNELS_MAX); /* by hosts' addresses; scope 0 */
CONFIG_HASH(gre_keys, __u32, struct tunnel_slot, LIMIT_NETWORKS_PER_HOST_MAX);
CONFIG_HASH(tunnel_nets, __u32, struct tunnel_slot, LIMIT_NETWORKS_PER_HOST_MAX);
CONFIG_HASH(wires, struct wire_key, struct wire, SLOT_UPLINKS_MAX);
CONFIG_HASH(members, struct member_key, struct member, LIMIT_REMOTE_PORTS_PER_HOST_MAX);
CONFIG_HASH(subports, struct subport_key, struct subport, LIMIT_PORTS_PER_HOST_MAX);
CONFIG_HASH(neighbours, struct address_key, struct neighbour, LIMIT_NEIGHBOURS_MAX);
CONFIG_HASH(sessions, struct session_key, struct session, 2 * LIMIT_SESSIONS_MAX_DEFAULT);

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, LIMIT_REMOTE_PORTS_PER_HOST_MAX);
	__type(key, struct route_key);
	__type(value, struct route);
} routes SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, LIMIT_REMOTE_PORTS_PER_HOST_MAX);
	__type(key, struct forwarding_key);
	__type(value, struct forwarding);
} forwardings SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, LIMIT_REMOTE_PORTS_PER_HOST_MAX);
	__type(key, struct snat_block_key);
	__type(value, struct snat_block);
} snat_blocks SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, LIMIT_METERING_REGIONS_PER_HOST_MAX);
	__type(key, struct route_key);
	__type(value, struct meter_range);
} meter_ranges SEC(".maps");

CONFIG_HASH(meter_regions, struct meter_region_key, struct meter_region, LIMIT_METERING_REGIONS_PER_HOST_MAX);
CONFIG_HASH(meter_sets, __u32, struct meter_set, LIMIT_METERS_MAX); /* what meters are, for the loader alone */

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, LIMIT_METERS_MAX);
	__type(key, __u32);
	__type(value, struct meter);
} meters SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, LIMIT_FRAGMENTS_MAX);
	__type(key, struct fragment_key);
	__type(value, struct fragment);
} fragments SEC(".maps");

#define TABLE(name, value_type, entries)               \
	struct {                                       \
		__uint(type, BPF_MAP_TYPE_ARRAY);      \
		__uint(max_entries, entries);          \
		__type(key, __u32);                    \
		__type(value, value_type);             \
	} name SEC(".maps")

#define DEVICES_MAX (SLOT_UPLINKS_MAX + LIMIT_PORTS_PER_HOST_MAX)

TABLE(uplinks, struct uplink_record, SLOT_UPLINKS_MAX);
TABLE(transits, __u32, SLOT_TRANSIT_HINTS);
TABLE(tunnel_hosts, struct tunnel_host, SLOT_TUNNELS_MAX);
TABLE(devices, struct device, DEVICES_MAX);
TABLE(revisions, __u32, 1 + LIMIT_PORTS_PER_HOST_MAX); /* 0: topology; 1 + slot: a port's policy */
TABLE(quotas, __u32, LIMIT_PORTS_PER_HOST_MAX);        /* sessions that count for a port */
TABLE(qos_paid, struct qos_paid, LIMIT_PORTS_PER_HOST_MAX);
TABLE(accounts_paid, struct qos_paid, LIMIT_QOS_ADDRESSES_MAX + 1);
TABLE(buckets, struct bucket, DEVICES_MAX);
TABLE(copy_buckets, struct bucket, DEVICES_MAX);
TABLE(log_buckets, struct bucket, LIMIT_PORTS_PER_HOST_MAX);
TABLE(drops, struct drop_counts, DEVICES_MAX);

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, DEVICES_MAX);
	__type(key, __u32);
	__type(value, struct traffic);
} traffics SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 20);
} events SEC(".maps");

/* Decisions of security groups: apart, so that they never take the place of what guests wait for. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 18);
} log_events SEC(".maps");

/* Set by the loader. */
const volatile __u32 sessions_per_port_max = LIMIT_SESSIONS_PER_PORT_MAX_DEFAULT;

static __always_inline struct scratch *scratch_get(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&walks, &zero);
}

/* Whether a slot is a guest's port, and neither an uplink nor a tunnel. */
static __always_inline int slot_guest(__u32 slot)
{
	return !(slot & (SLOT_UPLINK | SLOT_TUNNEL));
}

/* Where a port, an uplink or the underlay stands in the per-device tables. */
static __always_inline __u32 device_index(__u32 slot)
{
	if (slot_guest(slot))
		return slot + SLOT_UPLINKS_MAX;
	return slot & SLOT_UPLINK ? slot & ~SLOT_UPLINK : SLOT_UNDERLAY;
}

/* A packet that no port's state speaks for: an answer of the session that is being recorded, or an ICMP error. The low bits
 * count whom was asked. */
#define CROSSING_REPLY 0
#define CROSSING_ERROR 4
#define CROSSING_STEPS 3

/* Whether ports of one network with these roles are kept apart. */
static __always_inline int roles_apart(__u32 one, __u32 other)
{
	return one && other && (one != other || one == ROLE_ISOLATED);
}

/* Whether no rule is asked: members of a VLAN of the guests' own tell each other of their neighbours. */
static __always_inline int vlan_neighbour(const struct session_key *key)
{
	return unlikely(key->vlan & GUEST_VLAN_NEIGHBOUR);
}

/* Whether a slot is that of a port that is judged packet by packet. */
static __always_inline int slot_stateless(__u32 slot)
{
	struct port_record *port = slot_guest(slot) ? bpf_map_lookup_elem(&ports, &slot) : 0;

	return port && port->flags & PORT_STATELESS;
}

static __always_inline __u32 revision_get(__u32 index)
{
	__u32 *revision = bpf_map_lookup_elem(&revisions, &index);

	return revision ? *revision : 0;
}

/* A port's policy revision; uplinks and tunnels have none but the topology's. */
static __always_inline __u32 revision_of(__u32 slot)
{
	return slot_guest(slot) ? revision_get(slot + 1) : 0;
}

/* The network in a tunnel: its slot, or 0. */
static __always_inline __u32 tunnel_network(__u32 slot)
{
	struct tunnel_slot *network = bpf_map_lookup_elem(&tunnel_nets, &slot);

	return network ? network->slot : 0;
}

static __always_inline struct owner_entry *owner_get(__u32 network, __u8 family, const __u8 *address)
{
	struct address_key key = { .scope = network, .family = family };

	address_copy(key.address, address);
	return bpf_map_lookup_elem(&owners, &key);
}

static __always_inline struct fdb_entry *fdb_get(__u32 network, const __u8 *mac)
{
	struct fdb_key key = { .network = network };

	mac_copy(key.mac, mac);
	return bpf_map_lookup_elem(&fdb, &key);
}

static __always_inline struct route *route_get(__u32 router, int outside, __u8 family, const __u8 *address)
{
	struct route_key key = { .prefix_bits = 64 + 128, .table = router << 1 | outside, .family = family };

	address_copy(key.address, address);
	return bpf_map_lookup_elem(&routes, &key);
}

static __always_inline struct router_address *router_address_get(__u32 router, __u8 family, const __u8 *address)
{
	struct address_key key = { .scope = router, .family = family };

	address_copy(key.address, address);
	return bpf_map_lookup_elem(&router_addresses, &key);
}

/* Whether an address is a router's own. */
static __always_inline int router_owns(__u32 router, __u8 family, const __u8 *address)
{
	struct router_address *known = router_address_get(router, family, address);

	return known && known->flags & ROUTER_ADDRESS_OWN;
}

/* A network's address scope, or 0. */
static __always_inline __u32 scope_get(__u32 network, __u8 family)
{
	struct network_record *record = bpf_map_lookup_elem(&networks, &network);

	return record ? record->scopes[family == FAMILY_V6] : 0;
}

/* Whether a router's two networks are of one address scope. */
static __always_inline int scope_shared(const struct router_record *router, __u32 a, __u32 b, __u8 family)
{
	__u32 scope;

	if (likely(!(router->flags & ROUTER_SCOPED)))
		return 0;
	scope = scope_get(a, family);
	return scope && scope == scope_get(b, family);
}

/* What a router forwards as it is stays in its address scope: 0, or why not. */
static __always_inline int scope_test(const struct router_record *router, __u32 a, __u32 b, __u8 family)
{
	if (likely(!(router->flags & ROUTER_SCOPED)) || scope_get(a, family) == scope_get(b, family))
		return 0;
	return REASON_ADDRESS_SCOPE_MISMATCH;
}

/* Whether SNAT hides where a route inside leads from what comes from a network. */
static __always_inline int route_hidden(const struct router_record *router, const struct route *route, __u32 network, __u8 family)
{
	return family == FAMILY_V4 && router->flags & ROUTER_SNAT && !scope_shared(router, network, route->network, family);
}

static __always_inline struct floating *floating_get(__u32 network, const __u8 *address)
{
	struct floating_key key = { .network = network, .address = load32(address) };

	return bpf_map_lookup_elem(&floatings, &key);
}

/* Where an address leads that a guest port of the network uses, if it is a local IP. */
static __always_inline struct local_ip *local_ip_get(const struct network_record *network, __u32 slot, __u32 address, __u32 from)
{
	struct local_ip_key key = { .network = slot, .address = address, .port = SLOT_NONE };
	struct local_ip *local;

	if (likely(!network || !(network->flags & NETWORK_LOCAL_IPS)))
		return 0;
	local = bpf_map_lookup_elem(&local_ips, &key);
	if (!local)
		return 0;
	key.port = from;
	return bpf_map_lookup_elem(&local_ips, &key) ? 0 : local;
}

#define FORWARDING_BITS 96

/* What a port of a floating IP with port forwardings leads to. */
static __always_inline struct forwarding *forwarding_get(__u32 network, const __u8 *address, __u8 protocol, __u16 port)
{
	struct forwarding_key key = {
		.prefix_bits = FORWARDING_BITS,
		.network = network,
		.address = load32(address),
		.protocol = protocol,
		.port = port,
	};

	return bpf_map_lookup_elem(&forwardings, &key);
}
