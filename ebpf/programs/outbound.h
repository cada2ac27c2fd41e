/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * Outbound: what another host left to this one, to bring it outside of a network that they share (docs/pipeline.md,
 * section 8, "destination MAC zero").
 *
 * Guarantees: it leaves by the uplink, or to another host with a destination MAC, or goes on here with one; no session.
 */
#pragma once
#include "ingress.h"

static __always_inline int destination_write(struct __sk_buff *skb, struct scratch *s, const __u8 *mac)
{
	mac_copy(s->destination_mac, mac);
	return bpf_skb_store_bytes(skb, 0, s->destination_mac, 6, 0);
}

/* Out by the uplink, or to the agent if the next hop's MAC is not known. */
static __always_inline int outbound_send(struct __sk_buff *skb, struct scratch *s, __u32 uplink, const __u8 *next_hop)
{
	struct address_key key = { .scope = s->network, .family = s->key.family };
	struct neighbour *neighbour;

	address_copy(key.address, next_hop);
	neighbour = bpf_map_lookup_elem(&neighbours, &key);
	if (neighbour) {
		if (destination_write(skb, s, neighbour->mac))
			return drop(skb, s, REASON_ENGINE_ERROR);
		return output(skb, s, uplink);
	}
	address_copy(s->entry.next_hop, next_hop);
	event_send(skb, EVENT_NEIGHBOUR_NEEDED, s->network);
	if (s->flags & PACKET_TEST)
		uplink_tag(skb, uplink);
	told(skb, s, VERDICT_UPLINK, 0, uplink);
	return TC_ACT_SHOT;
}

/* Another host's, if the destination is on the network itself: its slot, SLOT_NONE or 0. */
static __always_inline int outbound_whose(struct __sk_buff *skb, struct scratch *s, struct whose *w)
{
	whose_destination(w, &s->key, s->network, 0);
	if (!(s->flags & PACKET_ICMP_ERROR))
		return whose_address(w);
	/* quoted_decode makes s->key the key that the packet inside has. */
	s->forward = s->key;
	if (!quoted_decode(skb))
		whose_destination(w, &s->key, s->network, 0);
	s->key = s->forward;
	return whose_address(w);
}

SEC("classifier/weft_outbound")
int weft_outbound(struct __sk_buff *skb)
{
	struct scratch *s = scratch_get();
	struct network_record *network;
	struct router_record *router;
	struct fdb_entry *entry;
	struct owner_entry *owner;
	struct route *route;
	__u8 next_hop[16];
	struct whose w;
	int host;

	if (!s)
		return TC_ACT_SHOT;
	if (s->flags & PACKET_FRAGMENT && !fragment_follow())
		return drop(skb, s, REASON_DESTINATION_MAC_UNKNOWN);
	network = bpf_map_lookup_elem(&networks, &s->network);
	if (!network || network->flags & NETWORK_ELSEWHERE)
		return drop(skb, s, REASON_DESTINATION_MAC_UNKNOWN);
	entry = fdb_get(s->network, s->source_mac);
	if (!entry || !(entry->flags & FDB_OUTSIDE))
		return drop(skb, s, REASON_ROGUE_SOURCE);
	s->router = entry->router_outside;
	router = bpf_map_lookup_elem(&routers, &s->router);
	if (!router || !(router->flags & ROUTER_UP))
		return drop(skb, s, REASON_ROUTER_DOWN);
	if (address_unroutable(s->key.source, s->key.family) || address_unroutable(s->key.destination, s->key.family))
		return drop(skb, s, REASON_LINK_LOCAL_NOT_ROUTED);
	route = route_get(s->router, 0, s->key.family, s->key.destination);
	if (!route || route->kind != ROUTE_OUTSIDE)
		return drop(skb, s, REASON_NO_ROUTE);
	address_copy(next_hop, route->has_nexthop ? route->nexthop : s->key.destination);
	if (address_equal(next_hop, s->key.destination)) {
		host = outbound_whose(skb, s, &w);
		if (host) {
			if (host != (int)SLOT_NONE && destination_write(skb, s, w.mac))
				return drop(skb, s, REASON_ENGINE_ERROR);
			return relay(skb, host);
		}
	}
	owner = owner_get(s->network, s->key.family, next_hop);
	if (owner && owner->flags & OWNER_ANSWER) {
		if (destination_write(skb, s, owner->mac))
			return drop(skb, s, REASON_ENGINE_ERROR);
		return follow(skb, s);
	}
	return outbound_send(skb, s, network->uplink, next_hop);
}
