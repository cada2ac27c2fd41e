/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * Transit: what hosts hand each other of an external network that they share (docs/pipeline.md, section 8).
 *
 * Guarantees: what came from another host is handed on at most once more, and only if that host left it to this one where
 * to. Nothing here writes a session.
 */
#pragma once
#include "apply.h"

#define TRANSIT_PORTLESS 0x80000000
#define SNAT_BLOCK_BITS 80

/* The packet came from another host by the transit; a stale session's walk does not ask. */
static __always_inline int by_transit(const struct scratch *s)
{
	return (s->flags & (PACKET_TRANSIT | PACKET_STALE)) == PACKET_TRANSIT;
}

/* Out of a tunnel that is a transit: it enters from its network. */
static __always_inline void transit_enter(struct scratch *s)
{
	__u32 hint = s->ingress & (SLOT_TRANSIT_HINTS - 1), slot, *known;
	struct network_record *network;

	known = bpf_map_lookup_elem(&transits, &hint);
	if (likely(!known || !*known))
		return;
	slot = tunnel_network(s->ingress);
	network = bpf_map_lookup_elem(&networks, &slot);
	if (!network || network->transit != s->ingress)
		return;
	s->ingress = network->uplink;
	s->network = slot;
	s->flags |= PACKET_TRANSIT;
}

/* An end of a flow on a network, and whose it turns out to be. */
struct whose {
	__u32 network;
	__u32 router;
	__u8 address[16];
	__u16 port;
	__u8 protocol;
	__u8 family;
	__u8 mac[6]; /* answers for it outside */
	__u16 reserved;
};

/* The floating IP of another host, or one whose port is that host's. */
static __always_inline const struct floating *floating_whose(__u32 network, const __u8 *address, __u8 protocol, __u16 port)
{
	const struct floating *f = floating_get(network, address);
	struct forwarding *w;

	if (f && f->flags & FLOATING_FORWARDED) {
		w = forwarding_get(network, address, protocol, port);
		f = w ? &w->floating : 0;
	}
	return f && f->flags & FLOATING_ELSEWHERE ? f : 0;
}

/* By the address and the port alone: the other host's slot, SLOT_NONE if no tunnel leads there, or 0: nobody's. */
__noinline int whose_address(struct whose *w)
{
	struct snat_block_key key = { .prefix_bits = SNAT_BLOCK_BITS };
	struct network_record *network;
	struct snat_block *block;
	const struct floating *f;
	__u32 slot;

	if (!w || w->family != FAMILY_V4)
		return 0;
	slot = w->network;
	network = bpf_map_lookup_elem(&networks, &slot);
	if (!network || !(network->flags & NETWORK_SHARED))
		return 0;
	f = floating_whose(slot, w->address, w->protocol, w->port);
	if (f) {
		mac_copy(w->mac, f->leg_mac);
		return f->port;
	}
	key.network = slot;
	key.address = load32(w->address);
	key.port = w->port;
	if (!protocol_has_ports(w->protocol) && w->protocol != PROTOCOL_ICMP) {
		key.network |= TRANSIT_PORTLESS;
		key.port = 0;
	}
	block = bpf_map_lookup_elem(&snat_blocks, &key);
	if (!block)
		return 0;
	mac_copy(w->mac, block->mac);
	return block->host;
}

/* The same, and by the routes of the router. */
__noinline int whose(struct whose *w)
{
	struct network_record *network;
	struct router_record *router;
	struct owner_entry *owner;
	struct route *route;
	__u32 slot;
	int host;

	if (!w)
		return 0;
	host = whose_address(w);
	if (host)
		return host;
	slot = w->network;
	network = bpf_map_lookup_elem(&networks, &slot);
	slot = w->router;
	router = bpf_map_lookup_elem(&routers, &slot);
	if (!network || !(network->flags & NETWORK_SHARED) || !router)
		return 0;
	if (router_owns(slot, w->family, w->address))
		return 0;
	route = route_get(slot, 1, w->family, w->address);
	if (!route || route->kind != ROUTE_INSIDE || route_hidden(router, route, w->network, w->family))
		return 0;
	owner = owner_get(route->network, w->family, route->has_nexthop ? route->nexthop : w->address);
	if (!owner || owner->flags & OWNER_LOCAL || !(owner->flags & OWNER_REMOTE))
		return 0;
	return owner->host ? owner->host : SLOT_NONE;
}

/* This packet's destination. */
static __always_inline void whose_destination(struct whose *w, const struct session_key *key, __u32 network, __u32 router)
{
	__builtin_memset(w, 0, sizeof(*w));
	w->network = network;
	w->router = router;
	w->port = key->destination_port;
	w->protocol = key->protocol;
	w->family = key->family;
	address_copy(w->address, key->destination);
}

/* The frame as it is to another host; s->key is its own tuple. */
__noinline int relay(struct __sk_buff *skb, __u32 host)
{
	struct scratch *s = scratch_get();
	struct network_record *network;
	__u16 port;

	if (!s)
		return TC_ACT_SHOT;
	network = bpf_map_lookup_elem(&networks, &s->network);
	if (!network)
		return drop(skb, s, REASON_ENGINE_ERROR);
	if (host == SLOT_NONE)
		return drop(skb, s, REASON_TUNNEL_UNSUPPORTED);
	if (packet_bytes(skb, s) > network->transit_mtu)
		return impassable(skb, REASON_MTU_EXCEEDED, network->transit_mtu, network->uplink);
	port = tunnel_port(&s->key, s->key.source, s->key.destination, s->key.source_port, s->key.destination_port);
	return encapsulate(skb, network->transit, host, port);
}

/* What the walk found outside leads by the transit, if this host has not the uplink, or the address is another's. 0, or why not. */
static __always_inline int transit_find(struct scratch *s, const struct router_record *router, __u32 slot, const __u8 *address)
{
	struct network_record *network = bpf_map_lookup_elem(&networks, &slot);
	const struct floating *f = 0;
	__u32 host;

	if (!network || !(network->flags & NETWORK_SHARED) || !(s->out.flags & SESSION_NEIGHBOUR))
		return 0;
	if (s->forward.family == FAMILY_V4)
		f = floating_whose(slot, address, s->forward.protocol, s->forward.destination_port);
	if (f) {
		host = f->port;
		mac_copy(s->out.destination_mac, f->leg_mac);
	} else if (!(network->flags & NETWORK_ELSEWHERE)) {
		return 0;
	} else {
		host = router->gateway_host;
		__builtin_memset(s->out.destination_mac, 0, 6);
	}
	if (host == SLOT_NONE)
		return REASON_TUNNEL_UNSUPPORTED;
	s->out.flags = (s->out.flags & ~SESSION_NEIGHBOUR) | SESSION_TRANSIT;
	s->out.tunnel_host = host;
	__builtin_memset(s->out.next_hop, 0, 16);
	if (network->transit_mtu < s->out.mtu)
		s->out.mtu = network->transit_mtu;
	return 0;
}

/* How a session that entered from a physical network sends its replies there: into s->back. 0, or why not. */
static __always_inline int back_by_transit(struct scratch *s)
{
	struct network_record *network = bpf_map_lookup_elem(&networks, &s->network);
	struct router_record *router;
	struct fdb_entry *entry;
	struct whose w = {};
	__u32 slot;
	int host = 0;

	s->back.flags = 0;
	if (!network || !(network->flags & NETWORK_SHARED))
		return 0;
	s->back.resolved = 1;
	entry = fdb_get(s->network, s->opener_source_mac);
	if (entry && entry->flags & FDB_OUTSIDE) {
		w.network = s->network;
		w.router = entry->router_outside;
		w.port = s->forward.source_port;
		w.protocol = s->forward.protocol;
		w.family = s->forward.family;
		address_copy(w.address, s->forward.source);
		host = whose(&w);
	}
	if (!host) {
		if (!(network->flags & NETWORK_ELSEWHERE))
			return 0;
		s->back.resolved = 0;
		entry = fdb_get(s->network, s->opener_destination_mac);
		if (!entry || !(entry->flags & FDB_OUTSIDE))
			return REASON_TUNNEL_UNSUPPORTED;
		slot = entry->router_outside;
		router = bpf_map_lookup_elem(&routers, &slot);
		if (!router)
			return REASON_ENGINE_ERROR;
		host = router->gateway_host;
	}
	if (host == (int)SLOT_NONE)
		return REASON_TUNNEL_UNSUPPORTED;
	s->back.flags = SESSION_TRANSIT;
	s->back.tunnel_host = host;
	s->back.mtu = network->transit_mtu;
	return 0;
}
