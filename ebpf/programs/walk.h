/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * The walk: what becomes of a flow's first packet, and of a session that policy or topology has outdated
 * (docs/pipeline.md, section 5). It works on the forward tuple in the scratch, never on the frame.
 *
 * Guarantees: whatever is allowed here has passed the egress policy of its source port and the ingress policy of its
 * destination port. A walk that fails for a stale session deletes both of its entries.
 */
#pragma once
#include "ingress.h"

/* The walk ends without a session. */
static __always_inline int walk_fail(struct __sk_buff *skb, struct scratch *s, __u32 reason)
{
	if (s->flags & PACKET_STALE)
		session_delete(&s->key);
	return drop(skb, s, reason);
}

/* Whether the walk may end in something else than a session; if not, the packet is dropped as revoked. */
#define FRESH_ONLY(skb, s)                                                        \
	do {                                                                      \
		if ((s)->flags & PACKET_STALE)                                    \
			return walk_fail((skb), (s), REASON_SESSION_REVOKED);     \
	} while (0)

/* Only the first packet of a flow may open a session: 0, or why not. */
static __always_inline int opener_test(struct scratch *s)
{
	__u8 protocol = s->forward.protocol;

	if (s->flags & PACKET_STALE)
		return 0;
	if (protocol == PROTOCOL_TCP && (s->tcp_flags & (TCP_SYN | TCP_ACK | TCP_RST | TCP_FIN)) != TCP_SYN)
		return REASON_TCP_NO_SESSION;
	if (protocol == (s->forward.family == FAMILY_V4 ? PROTOCOL_ICMP : PROTOCOL_ICMPV6) && !(s->flags & PACKET_ICMP_QUERY))
		return REASON_ICMP_NO_SESSION;
	return 0;
}

/* Writes down what a port's rules said of s->out, if its bucket allows. */
__noinline int log_send(__u32 slot, __u32 flags)
{
	struct scratch *s = scratch_get();
	struct bucket *bucket = bpf_map_lookup_elem(&log_buckets, &slot);
	struct log_record *record;

	if (!s || !bucket || !tokens_take(bucket, LIMIT_LOGS_PER_SECOND, LIMIT_LOGS_BURST, 1, s->now_s))
		return 0;
	record = bpf_ringbuf_reserve(&log_events, sizeof(*record), 0);
	if (!record)
		return 0;
	record->port = slot;
	record->flags = flags;
	address_copy(record->source, s->out.source);
	address_copy(record->destination, s->out.destination);
	record->source_port = s->out.source_port;
	record->destination_port = s->out.destination_port;
	record->protocol = s->forward.protocol;
	record->family = s->forward.family;
	record->icmp_type = s->opener_type;
	record->icmp_code = s->opener_code;
	bpf_ringbuf_submit(record, 0);
	return 1;
}

/* A decision of a port's rules; of a stale session only its end is written down, of a copy nothing. */
static __always_inline void decided(struct scratch *s, __u32 slot, __u32 port_flags, __u32 direction, int allowed)
{
	if (likely(!(port_flags & (PORT_LOG_ACCEPT | PORT_LOG_DROP))) || s->flags & PACKET_COPY)
		return;
	if (allowed ? port_flags & PORT_LOG_ACCEPT && !(s->flags & PACKET_STALE) : port_flags & PORT_LOG_DROP)
		log_send(slot, direction | (allowed ? LOG_ALLOWED : 0) | (__u32)s->forward.vlan << LOG_VLAN_SHIFT);
}

/* The same at a port whose rules are asked: a stateless one takes any packet. */
static __always_inline int state_test(struct scratch *s, const struct port_record *port)
{
	if (port->flags & PORT_STATELESS) {
		s->flags |= PACKET_STATELESS;
		return 0;
	}
	return opener_test(s);
}

/* Asks a port's policy; goes on at `stage`. Of ICMP `port` is type and code. */
static __always_inline void policy_ask_of(struct __sk_buff *skb, struct scratch *s, __u32 slot, __u32 stage, __u8 protocol,
					  const __u8 *remote, __u16 port)
{
	s->policy.slot = slot;
	s->policy.continuation = stage;
	s->policy.protocol = protocol;
	s->policy.zero = 0;
	s->policy.port = port;
	for (int i = 0; i < 4; i++)
		s->policy.remote[i] = ntohl(load32(remote + 4 * i));
	policy_classify(skb, &s->policy);
}

/* Of the opener. */
static __always_inline int policy_ask(struct __sk_buff *skb, struct scratch *s, __u32 slot, __u32 stage, const __u8 *remote,
				      __u16 port)
{
	__u8 protocol = s->forward.protocol;

	if (protocol == protocol_icmp(s->forward.family))
		port = s->opener_type << 8 | s->opener_code;
	else
		port = protocol_has_ports(protocol) ? ntohs(port) : 0;
	policy_ask_of(skb, s, slot, stage, protocol, remote, port);
	return walk_fail(skb, s, REASON_ENGINE_ERROR);
}

/* Takes up a stale session: its forward tuple and its opener. */
static __always_inline int stale_start(struct scratch *s)
{
	struct session *e = bpf_map_lookup_elem(&sessions, &s->key);
	struct session_key other_key;

	if (!e)
		return -1;
	s->entry = *e;
	session_other_key(&other_key, &s->key, e);
	s->opener_type = e->icmp_type;
	s->opener_code = e->icmp_code;
	mac_copy(s->opener_source_mac, e->opener_mac);
	s->network = e->network;
	if (e->flags & SESSION_FORWARD) {
		s->forward = s->key;
		s->reply = other_key;
		mac_copy(s->opener_destination_mac, e->match_mac);
	} else {
		s->flags |= PACKET_REPLY;
		s->forward = other_key;
		s->reply = s->key;
		e = bpf_map_lookup_elem(&sessions, &s->forward);
		if (!e)
			return -1;
		mac_copy(s->opener_destination_mac, e->match_mac);
	}
	return 0;
}

/* The network of an uplink or tunnel: its slot, or 0. */
static __always_inline __u32 network_behind(__u32 slot)
{
	struct uplink_record *uplink;
	__u32 index = slot & ~SLOT_UPLINK;

	if (slot & SLOT_TUNNEL)
		return tunnel_network(slot);
	uplink = bpf_map_lookup_elem(&uplinks, &index);
	return uplink ? uplink->network : 0;
}

SEC("classifier/weft_walk")
int weft_walk(struct __sk_buff *skb)
{
	struct scratch *s = scratch_get();
	struct port_record *port;
	int reason;

	if (!s)
		return TC_ACT_SHOT;
	__builtin_memset(&s->out, 0, sizeof(s->out));
	s->revision = revision_get(0);
	s->revision_output = 0;
	s->role = ROLE_PROMISCUOUS;
	if (s->ingress & SLOT_TUNNEL && !tunnel_network(s->ingress))
		return drop(skb, s, REASON_TUNNEL_NETWORK_UNKNOWN);
	if (s->flags & PACKET_STALE) {
		if (stale_start(s))
			return walk_fail(skb, s, REASON_SESSION_REVOKED);
	} else {
		s->forward = s->key;
		mac_copy(s->opener_destination_mac, s->destination_mac);
		mac_copy(s->opener_source_mac, s->source_mac);
		s->opener_type = s->icmp_type;
		s->opener_code = s->icmp_code;
	}
	s->revision_ingress = revision_of(s->forward.ingress);
	s->policy.rule_index = POLICY_RULE_NONE;
	if (slot_guest(s->forward.ingress)) {
		port = bpf_map_lookup_elem(&ports, &s->forward.ingress);
		if (!port || (s->flags & PACKET_STALE && s->network != port->network))
			return walk_fail(skb, s, REASON_SESSION_REVOKED);
		if (!(port->flags & PORT_UP))
			return walk_fail(skb, s, REASON_DESTINATION_PORT_DOWN);
		s->network = port->network;
		s->role = port->role;
		if (port->flags & PORT_SECURITY && !vlan_neighbour(&s->forward)) {
			reason = state_test(s, port);
			if (reason)
				return walk_fail(skb, s, reason);
			return policy_ask(skb, s, port->policy[s->forward.family == FAMILY_V6], STAGE_FORWARD,
					  s->forward.destination, s->forward.destination_port);
		}
	} else {
		__u32 network = network_behind(s->forward.ingress);

		if (!network || (s->flags & PACKET_STALE && s->network != network))
			return walk_fail(skb, s, REASON_SESSION_REVOKED);
		s->network = network;
	}
	bpf_tail_call(skb, &stages, STAGE_FORWARD);
	return walk_fail(skb, s, REASON_ENGINE_ERROR);
}

/* The way is found: on to the destination's policy, or to record. */
static __always_inline int walk_on(struct __sk_buff *skb, struct scratch *s)
{
	s->out.reply_ingress = s->out.output;
	if (s->out.flags & SESSION_TUNNEL) {
		struct network_record *network = bpf_map_lookup_elem(&networks, &s->network);

		if (!network)
			return walk_fail(skb, s, REASON_ENGINE_ERROR);
		s->out.reply_ingress = network->flags & NETWORK_PHYSICAL ? network->uplink : network->tunnel;
	}
	bpf_tail_call(skb, &stages, slot_guest(s->out.output) ? STAGE_DESTINATION : STAGE_RECORD);
	return walk_fail(skb, s, REASON_ENGINE_ERROR);
}

/* neighbour(M, A): output and destination MAC. 0, or why not. */
static __always_inline int neighbour_find(struct scratch *s, __u32 network_slot, const __u8 *address)
{
	struct owner_entry *owner = owner_get(network_slot, s->forward.family, address);
	struct network_record *network = bpf_map_lookup_elem(&networks, &network_slot);

	if (!network)
		return REASON_ENGINE_ERROR;
	s->out.mtu = network->mtu;
	if (owner && owner->flags & OWNER_LOCAL) {
		s->out.output = owner->port;
		mac_copy(s->out.destination_mac, owner->port_mac);
		return 0;
	}
	if (owner && owner->flags & OWNER_REMOTE) {
		if (network_slot == s->network && roles_apart(s->role, owner->role))
			return REASON_PVLAN_ISOLATED;
		if (owner->port == SLOT_NONE)
			return REASON_TUNNEL_UNSUPPORTED;
		s->out.output = network->tunnel;
		s->out.tunnel_host = owner->port;
		s->out.flags |= SESSION_TUNNEL;
		mac_copy(s->out.destination_mac, owner->port_mac);
		return 0;
	}
	if (!(network->flags & NETWORK_PHYSICAL))
		return REASON_NEIGHBOUR_UNKNOWN;
	s->out.output = network->uplink;
	s->out.flags |= SESSION_NEIGHBOUR;
	address_copy(s->out.next_hop, address);
	return 0;
}

/* To the port behind a floating IP. 0, or why not. */
static __always_inline int floating_enter(struct scratch *s, const struct floating *f)
{
	struct port_record *port;
	struct network_record *network;
	__u32 slot = f->port;

	if (!(f->flags & FLOATING_LEG))
		return REASON_NO_ROUTE;
	port = bpf_map_lookup_elem(&ports, &slot);
	if (!port)
		return REASON_DESTINATION_PORT_DOWN;
	slot = port->network;
	network = bpf_map_lookup_elem(&networks, &slot);
	if (!network)
		return REASON_ENGINE_ERROR;
	store32(s->out.destination, f->fixed);
	mac_copy(s->out.source_mac, f->leg_mac);
	mac_copy(s->out.destination_mac, port->mac);
	s->out.flags |= SESSION_NAT_DESTINATION;
	s->out.output = f->port;
	s->out.mtu = network->mtu;
	s->out.account_destination = f->account;
	return 0;
}

/* The source that a guest has outside: its floating IP, the gateway's address, or its own. 0, or why not. */
static __always_inline int outside_source(struct scratch *s, __u32 router_slot, const struct router_record *router)
{
	struct floating_source_key key = {
		.router = router_slot,
		.port = s->forward.ingress,
		.fixed = load32(s->forward.source),
	};
	struct floating_source *f;

	mac_copy(s->out.source_mac, router->gateway_mac);
	if (s->forward.family != FAMILY_V4)
		return 0;
	f = bpf_map_lookup_elem(&floating_srcs, &key);
	if (f) {
		store32(s->out.source, f->address);
		mac_copy(s->out.source_mac, f->mac);
		s->out.flags |= SESSION_NAT_SOURCE;
		s->out.account_source = f->account;
		return 0;
	}
	if (!(router->flags & ROUTER_SNAT) || scope_shared(router, s->network, router->gateway_network, FAMILY_V4))
		return 0;
	if (!(router->flags & ROUTER_SNAT_ADDRESS))
		return REASON_NO_ROUTE;
	store32(s->out.source, router->snat_address);
	s->out.flags |= SESSION_NAT_SOURCE;
	s->out.snat = router->flags & ROUTER_SNAT_PORTLESS ? 1 | SNAT_PORTLESS : 1;
	s->out.snat_first = router->snat_first;
	s->out.snat_last = router->snat_last;
	s->out.account_source = router->account;
	return 0;
}

/* An echo request to a router's own address, answered in place. */
static __always_inline int echo_request(struct scratch *s)
{
	if (s->flags & (PACKET_LATER | PACKET_STALE | PACKET_TRANSIT))
		return 0;
	if (s->forward.family == FAMILY_V4)
		return s->forward.protocol == PROTOCOL_ICMP && s->opener_type == 8;
	return s->forward.protocol == PROTOCOL_ICMPV6 && s->opener_type == 128;
}

__noinline int echo_reply(struct __sk_buff *skb)
{
	struct scratch *s = scratch_get();
	__u8 macs[12], addresses[32];
	__u16 from, to;

	if (!s)
		return TC_ACT_SHOT;
	mac_copy(macs, s->source_mac);
	mac_copy(macs + 6, s->destination_mac);
	if (bpf_skb_store_bytes(skb, 0, macs, 12, 0))
		return drop(skb, s, REASON_ENGINE_ERROR);
	if (s->key.family == FAMILY_V4) {
		__u16 ttl_protocol, ttl_after;

		store32(addresses, load32(s->key.destination));
		store32(addresses + 4, load32(s->key.source));
		if (bpf_skb_load_bytes(skb, ETHERNET_BYTES + 8, &ttl_protocol, 2))
			return drop(skb, s, REASON_ENGINE_ERROR);
		ttl_after = (ttl_protocol & 0xff00) | 64;
		from = 8 | s->icmp_code << 8;
		to = s->icmp_code << 8;
		/* What does not change does not enter: the checksum may be wrong, and must stay as wrong as it is. */
		if (ttl_protocol != ttl_after &&
		    bpf_l3_csum_replace(skb, ETHERNET_BYTES + 10, ttl_protocol, ttl_after, 2))
			return drop(skb, s, REASON_ENGINE_ERROR);
		if (load32(addresses) != load32(addresses + 4) &&
		    (bpf_l3_csum_replace(skb, ETHERNET_BYTES + 10, load32(addresses + 4), load32(addresses), 4) ||
		     bpf_l3_csum_replace(skb, ETHERNET_BYTES + 10, load32(addresses), load32(addresses + 4), 4)))
			return drop(skb, s, REASON_ENGINE_ERROR);
		if (bpf_skb_store_bytes(skb, ETHERNET_BYTES + 8, &ttl_after, 2, 0) ||
		    bpf_skb_store_bytes(skb, ETHERNET_BYTES + 12, addresses, 8, 0))
			return drop(skb, s, REASON_ENGINE_ERROR);
	} else {
		__u8 hops = 64;

		address_copy(addresses, s->key.destination);
		address_copy(addresses + 16, s->key.source);
		from = 128 | s->icmp_code << 8;
		to = 129 | s->icmp_code << 8;
		if (bpf_skb_store_bytes(skb, ETHERNET_BYTES + 7, &hops, 1, BPF_F_RECOMPUTE_CSUM) ||
		    bpf_skb_store_bytes(skb, ETHERNET_BYTES + 8, addresses, 32, 0))
			return drop(skb, s, REASON_ENGINE_ERROR);
	}
	if (bpf_l4_csum_replace(skb, s->l4_offset + 2, from, to, 2) || bpf_skb_store_bytes(skb, s->l4_offset, &to, 2, 0))
		return drop(skb, s, REASON_ENGINE_ERROR);
	return reply(skb, s);
}
