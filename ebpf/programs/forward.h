/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * After the egress policy: bridge, route, NAT, and what comes from outside (docs/pipeline.md, section 5).
 *
 * Guarantees: s->out says where to and how, or the walk has ended. Each way is a program of its own, so that the verifier
 * looks at it alone.
 */
#pragma once
#include "multicast.h"

/* MACs stay; to a local port or out by the uplink. */
static __always_inline int bridge(struct __sk_buff *skb, struct scratch *s, __u32 to)
{
	s->out.output = to;
	return walk_on(skb, s);
}

/* MACs stay; to a port of another host. */
static __always_inline int bridge_remote(struct __sk_buff *skb, struct scratch *s, const struct network_record *network,
					 const struct fdb_entry *entry)
{
	if (roles_apart(s->role, entry->role))
		return walk_fail(skb, s, REASON_PVLAN_ISOLATED);
	if (!network || entry->host == SLOT_NONE)
		return walk_fail(skb, s, REASON_TUNNEL_UNSUPPORTED);
	s->out.flags = SESSION_TUNNEL;
	s->out.tunnel_host = entry->host;
	s->out.mtu = network->mtu;
	return bridge(skb, s, network->tunnel);
}

/* Addresses as they came; routed. */
static __always_inline void route_start(struct scratch *s)
{
	s->out.flags = SESSION_ROUTED;
	s->out.ttl = 1;
}

/* 3. v4, to a floating IP of the gateway's network: as if out and back in. */
static __always_inline int hairpin(struct __sk_buff *skb, struct scratch *s, const struct router_record *router,
				   const struct floating *f)
{
	int reason;

	if (!(f->flags & FLOATING_ROUTER_UP))
		return walk_fail(skb, s, REASON_ROUTER_DOWN);
	reason = outside_source(s, s->router, router);
	if (!reason)
		reason = floating_enter(s, f);
	if (!reason)
		reason = opener_test(s);
	if (reason)
		return walk_fail(skb, s, reason);
	s->out.ttl = f->router == s->router ? 1 : 2;
	return walk_on(skb, s);
}

/* What of a floating IP with port forwardings the packet is for, and its port there; 0 if this host knows none. */
static __always_inline const struct floating *forwarding_take(struct scratch *s, __u32 network)
{
	struct forwarding *w =
		forwarding_get(network, s->forward.destination, s->forward.protocol, s->forward.destination_port);

	if (!w)
		return 0;
	s->out.destination_port = htons(w->internal_port + (ntohs(s->forward.destination_port) & w->port_mask));
	return &w->floating;
}

SEC("classifier/weft_route")
int weft_route(struct __sk_buff *skb)
{
	struct scratch *s = scratch_get();
	struct router_record *router;
	struct owner_entry *owner;
	const struct floating *f;
	struct route *route;
	__u8 family;
	int reason = 0, answered = 0;

	if (!s)
		return TC_ACT_SHOT;
	family = s->forward.family;
	router = bpf_map_lookup_elem(&routers, &s->router);
	if (!router || !(router->flags & ROUTER_UP))
		return walk_fail(skb, s, REASON_ROUTER_DOWN);
	if (address_unroutable(s->forward.source, family) || address_unroutable(s->forward.destination, family))
		return walk_fail(skb, s, REASON_LINK_LOCAL_NOT_ROUTED);
	route_start(s);
	if (router_owns(s->router, family, s->forward.destination)) {
		if (!echo_request(s))
			return walk_fail(skb, s, REASON_ROUTER_LOCAL_UNSUPPORTED);
		return echo_reply(skb);
	}
	if (router->flags & ROUTER_GATEWAY) {
		owner = owner_get(router->gateway_network, family, s->forward.destination);
		if (owner && owner->flags & OWNER_GATEWAY)
			return walk_fail(skb, s, REASON_ROUTER_LOCAL_UNSUPPORTED);
		if (family == FAMILY_V4) {
			f = floating_get(router->gateway_network, s->forward.destination);
			if (f && f->flags & FLOATING_FORWARDED) {
				answered = f->flags & FLOATING_ANSWERED;
				f = forwarding_take(s, router->gateway_network);
			}
			if (f && !(f->flags & FLOATING_ELSEWHERE))
				return hairpin(skb, s, router, f);
			if (!f && answered)
				return echo_request(s) ? echo_reply(skb) : walk_fail(skb, s, REASON_NAT_NO_SESSION);
			s->out.destination_port = s->forward.destination_port;
		}
	}
	route = route_get(s->router, 0, family, s->forward.destination);
	if (!route || route->kind == ROUTE_UNREACHABLE)
		return walk_fail(skb, s, REASON_NO_ROUTE);
	if (route->kind == ROUTE_OUTSIDE) {
		gateway_note(s, s->router, 0);
		reason = outside_source(s, s->router, router);
		if (!reason)
			reason = s->out.flags & SESSION_NAT_SOURCE ?
					 opener_test(s) :
					 scope_test(router, s->network, route->network, family);
	} else {
		reason = scope_test(router, s->network, route->network, family);
		mac_copy(s->out.source_mac, route->mac);
	}
	if (!reason)
		reason = neighbour_find(s, route->network, route->has_nexthop ? route->nexthop : s->forward.destination);
	if (!reason && route->kind == ROUTE_OUTSIDE)
		reason = transit_find(s, router, route->network,
				      route->has_nexthop ? route->nexthop : s->forward.destination);
	if (reason)
		return walk_fail(skb, s, reason);
	return walk_on(skb, s);
}

/* v4 to a floating IP from outside. */
static __always_inline int floating_from_outside(struct __sk_buff *skb, struct scratch *s, const struct floating *f)
{
	int reason = opener_test(s);

	if (!reason && !(f->flags & FLOATING_ROUTER_UP))
		reason = REASON_ROUTER_DOWN;
	if (!reason)
		reason = floating_enter(s, f);
	if (reason)
		return walk_fail(skb, s, reason);
	gateway_note(s, f->router, GATEWAY_IN);
	return walk_on(skb, s);
}

/* To another host: from the uplink as it is, from a guest by a session. */
static __always_inline int outside_relay(struct __sk_buff *skb, struct scratch *s, __u32 host)
{
	struct network_record *network = bpf_map_lookup_elem(&networks, &s->network);

	if (host == SLOT_NONE || !network)
		return walk_fail(skb, s, REASON_TUNNEL_UNSUPPORTED);
	if (!slot_guest(s->forward.ingress)) {
		FRESH_ONLY(skb, s);
		return relay(skb, host);
	}
	s->out.flags = SESSION_TRANSIT;
	s->out.ttl = 0;
	s->out.tunnel_host = host;
	s->out.mtu = network->transit_mtu;
	return bridge(skb, s, network->uplink);
}

/* 2. to a router's gateway MAC or a floating IP's. */
SEC("classifier/weft_outside")
int weft_outside(struct __sk_buff *skb)
{
	struct scratch *s = scratch_get();
	struct router_address *known;
	struct router_record *router;
	const struct floating *f;
	struct route *route;
	__u8 family;
	__u32 own;
	int reason, forwarded = 0;

	if (!s)
		return TC_ACT_SHOT;
	family = s->forward.family;
	router = bpf_map_lookup_elem(&routers, &s->router);
	if (!router || !(router->flags & ROUTER_UP))
		return walk_fail(skb, s, REASON_ROUTER_DOWN);
	if (address_unroutable(s->forward.source, family) || address_unroutable(s->forward.destination, family))
		return walk_fail(skb, s, REASON_LINK_LOCAL_NOT_ROUTED);
	route_start(s);
	if (family == FAMILY_V4) {
		f = floating_get(s->network, s->forward.destination);
		if (f && f->flags & FLOATING_FORWARDED) {
			forwarded = 1;
			f = forwarding_take(s, s->network);
		}
		if (f && !(f->flags & FLOATING_ELSEWHERE)) {
			return floating_from_outside(skb, s, f);
		}
		s->out.destination_port = s->forward.destination_port;
	}
	known = router_address_get(s->router, family, s->forward.destination);
	own = known ? known->flags : 0;
	if (router->flags & ROUTER_NDP_PROXIES && family == FAMILY_V6 && !own)
		return walk_fail(skb, s, REASON_NDP_PROXY_UNKNOWN);
	own &= ROUTER_ADDRESS_OWN;
	if (!by_transit(s)) {
		struct whose w;
		int host;

		whose_destination(&w, &s->forward, s->network, s->router);
		host = whose(&w);
		if (host)
			return outside_relay(skb, s, host);
	}
	route = route_get(s->router, 1, family, s->forward.destination);
	if (route && route->kind != ROUTE_INSIDE)
		route = 0;
	if (family == FAMILY_V4 && !forwarded && !(own & ROUTER_ADDRESS_GATEWAY) &&
	    (route ? route_hidden(router, route, s->network, family) : router->flags & ROUTER_SNAT))
		return walk_fail(skb, s, REASON_NAT_PRIVATE_DESTINATION);
	if ((own || forwarded) && echo_request(s)) {
		return echo_reply(skb);
	}
	if (forwarded)
		return walk_fail(skb, s, REASON_NAT_NO_SESSION);
	if (family == FAMILY_V4 && own & ROUTER_ADDRESS_GATEWAY)
		return walk_fail(skb, s, REASON_NAT_NO_SESSION);
	if (own)
		return walk_fail(skb, s, REASON_ROUTER_LOCAL_UNSUPPORTED);
	if (!route)
		return walk_fail(skb, s, REASON_NO_ROUTE);
	gateway_note(s, s->router, GATEWAY_IN);
	mac_copy(s->out.source_mac, route->mac);
	reason = scope_test(router, s->network, route->network, family);
	if (!reason)
		reason = neighbour_find(s, route->network, route->has_nexthop ? route->nexthop : s->forward.destination);
	if (!reason && by_transit(s) && s->out.flags & SESSION_TUNNEL)
		reason = REASON_NO_ROUTE;
	if (reason)
		return walk_fail(skb, s, reason);
	return walk_on(skb, s);
}

/* A source that nobody outside may have. */
static __always_inline int source_rogue(struct scratch *s)
{
	struct owner_entry *owner;

	if (vlan_neighbour(&s->forward))
		return 0;
	if (address_rogue(s->forward.source, s->forward.family))
		return 1;
	if (!(s->forward.ingress & SLOT_UPLINK) || s->flags & (PACKET_STALE | PACKET_TRANSIT))
		return 0;
	owner = owner_get(s->network, s->forward.family, s->forward.source);
	return owner && owner->flags & OWNER_ROGUE;
}

static __always_inline int outside(struct __sk_buff *skb, struct scratch *s, const struct fdb_entry *entry)
{
	if (source_rogue(s))
		return walk_fail(skb, s, REASON_ROGUE_SOURCE);
	s->router = entry->router_outside;
	bpf_tail_call(skb, &stages, STAGE_OUTSIDE);
	return walk_fail(skb, s, REASON_ENGINE_ERROR);
}

/* The way back by a router: it must lead to another host. 0, or why not. */
static __always_inline int back_routed(struct scratch *s, __u32 router_slot)
{
	struct router_record *router = bpf_map_lookup_elem(&routers, &router_slot);
	struct network_record *network;
	struct owner_entry *owner;
	struct route *route;
	__u32 slot;

	if (!router || !(router->flags & ROUTER_UP))
		return REASON_ROUTER_DOWN;
	route = route_get(router_slot, 1, s->forward.family, s->forward.source);
	if (!route || route->kind != ROUTE_INSIDE)
		return REASON_NO_ROUTE;
	slot = route->network;
	network = bpf_map_lookup_elem(&networks, &slot);
	if (!network)
		return REASON_ENGINE_ERROR;
	owner = owner_get(slot, s->forward.family, route->has_nexthop ? route->nexthop : s->forward.source);
	if (owner && owner->flags & OWNER_LOCAL)
		return REASON_NO_ROUTE;
	if (!owner || !(owner->flags & OWNER_REMOTE))
		return network->flags & NETWORK_PHYSICAL ? REASON_NO_ROUTE : REASON_NEIGHBOUR_UNKNOWN;
	if (owner->port == SLOT_NONE)
		return REASON_TUNNEL_UNSUPPORTED;
	s->back.output = network->tunnel;
	s->back.tunnel_host = owner->port;
	s->back.mtu = network->mtu;
	s->back.flags = SESSION_ROUTED | SESSION_TUNNEL;
	s->back.ttl = 1;
	mac_copy(s->back.source_mac, route->mac);
	mac_copy(s->back.destination_mac, owner->port_mac);
	return 0;
}

/* The way back of what came from a tunnel: to the host of its source MAC, or beyond that router. 0, or why not. */
static __always_inline int back_find(struct scratch *s)
{
	struct network_record *network = bpf_map_lookup_elem(&networks, &s->network);
	struct fdb_entry *entry = fdb_get(s->network, s->opener_source_mac);

	if (!network)
		return REASON_ENGINE_ERROR;
	if (entry && entry->flags & FDB_INTERFACE && !s->forward.vlan)
		return back_routed(s, entry->router);
	if (!entry || !(entry->flags & FDB_REMOTE))
		return REASON_ROGUE_SOURCE;
	if (entry->host == SLOT_NONE)
		return REASON_TUNNEL_UNSUPPORTED;
	s->role = entry->role;
	__builtin_memset(&s->back, 0, sizeof(s->back));
	s->back.output = s->forward.ingress;
	s->back.tunnel_host = entry->host;
	s->back.mtu = network->mtu;
	s->back.flags = SESSION_TUNNEL;
	return 0;
}

static __always_inline int forward_from_tunnel(struct __sk_buff *skb, struct scratch *s, const struct fdb_entry *entry)
{
	int reason;

	if (s->opener_destination_mac[0] & 1) {
		entry = fdb_get(s->network, s->opener_source_mac);
		if (!entry || !(entry->flags & FDB_REMOTE))
			return walk_fail(skb, s, REASON_ROGUE_SOURCE);
		return multicast(skb, s, bpf_map_lookup_elem(&networks, &s->network));
	}
	if (!vlan_neighbour(&s->forward) && address_rogue(s->forward.source, s->forward.family))
		return walk_fail(skb, s, REASON_ROGUE_SOURCE);
	if (!entry || !(entry->flags & FDB_LOCAL))
		return walk_fail(skb, s, REASON_DESTINATION_MAC_UNKNOWN);
	reason = back_find(s);
	if (reason)
		return walk_fail(skb, s, reason);
	return bridge(skb, s, entry->port);
}

static __always_inline int forward_from_uplink(struct __sk_buff *skb, struct scratch *s, const struct fdb_entry *entry)
{
	if (!entry || !(entry->flags & fdb_let_in(&s->forward))) {
		if (by_transit(s))
			return walk_fail(skb, s, REASON_DESTINATION_MAC_UNKNOWN);
		if (s->opener_destination_mac[0] & 1 && !source_rogue(s))
			return multicast(skb, s, bpf_map_lookup_elem(&networks, &s->network));
		FRESH_ONLY(skb, s);
		return pass(skb, s);
	}
	if (entry->flags & fdb_let_in(&s->forward) & FDB_OUTSIDE)
		return outside(skb, s, entry);
	if (source_rogue(s))
		return walk_fail(skb, s, REASON_ROGUE_SOURCE);
	return bridge(skb, s, entry->port);
}

/* To the port that a local IP leads to, whatever the destination MAC was. */
static __always_inline int local_ip_enter(struct __sk_buff *skb, struct scratch *s, const struct network_record *network,
					  const struct local_ip *local)
{
	s->out.flags = SESSION_ROUTED;
	if (local->fixed != load32(s->forward.destination)) {
		int reason = opener_test(s);

		if (reason)
			return walk_fail(skb, s, reason);
		s->out.flags |= SESSION_NAT_DESTINATION;
		store32(s->out.destination, local->fixed);
	}
	mac_copy(s->out.source_mac, s->opener_source_mac);
	mac_copy(s->out.destination_mac, local->mac);
	s->out.mtu = network->mtu;
	s->out.output = local->port;
	return walk_on(skb, s);
}

/* What is no router's. */
static __always_inline int bridge_on(struct __sk_buff *skb, struct scratch *s, const struct network_record *network,
				     const struct fdb_entry *entry)
{
	if (entry && entry->flags & FDB_LOCAL && entry->port != s->forward.ingress)
		return bridge(skb, s, entry->port);
	if (entry && entry->flags & FDB_REMOTE)
		return bridge_remote(skb, s, network, entry);
	if (network && network->flags & NETWORK_PHYSICAL)
		return bridge(skb, s, network->uplink);
	return walk_fail(skb, s, REASON_DESTINATION_MAC_UNKNOWN);
}

static __always_inline int forward_from_guest(struct __sk_buff *skb, struct scratch *s, const struct fdb_entry *entry)
{
	struct network_record *network = bpf_map_lookup_elem(&networks, &s->network);

	if (s->opener_destination_mac[0] & 1)
		return multicast(skb, s, network);
	if (unlikely(s->forward.vlan))
		return bridge_on(skb, s, network, entry);
	if (s->forward.family == FAMILY_V4) {
		struct local_ip *local =
			local_ip_get(network, s->network, load32(s->forward.destination), s->forward.ingress);

		if (unlikely(local) && network)
			return local_ip_enter(skb, s, network, local);
	}
	if (entry && entry->flags & FDB_INTERFACE) {
		s->router = entry->router;
		bpf_tail_call(skb, &stages, STAGE_ROUTE);
		return walk_fail(skb, s, REASON_ENGINE_ERROR);
	}
	if (entry && entry->flags & FDB_OUTSIDE)
		return outside(skb, s, entry);
	return bridge_on(skb, s, network, entry);
}

SEC("classifier/weft_forward")
int weft_forward(struct __sk_buff *skb)
{
	struct scratch *s = scratch_get();
	struct port_record *port;
	struct fdb_entry *entry;

	if (!s)
		return TC_ACT_SHOT;
	s->rule = s->policy.rule_index;
	address_copy(s->out.source, s->forward.source);
	address_copy(s->out.destination, s->forward.destination);
	s->out.source_port = s->forward.source_port;
	s->out.destination_port = s->forward.destination_port;
	entry = fdb_get(s->network, s->opener_destination_mac);
	if (s->forward.ingress & SLOT_TUNNEL)
		return forward_from_tunnel(skb, s, entry);
	if (s->forward.ingress & SLOT_UPLINK)
		return forward_from_uplink(skb, s, entry);
	port = bpf_map_lookup_elem(&ports, &s->forward.ingress);
	if (!port)
		return walk_fail(skb, s, REASON_PORT_DOWN);
	if (port->flags & PORT_SECURITY && !vlan_neighbour(&s->forward)) {
		decided(s, s->forward.ingress, port->flags, 0, s->policy.rule_index != POLICY_RULE_NONE);
		if (s->policy.rule_index == POLICY_RULE_NONE)
			return walk_fail(skb, s, REASON_SECURITY_GROUP_EGRESS_DENIED);
	}
	return forward_from_guest(skb, s, entry);
}

SEC("classifier/weft_destination")
int weft_destination(struct __sk_buff *skb)
{
	struct scratch *s = scratch_get();
	struct port_record *port;
	int reason;

	if (!s)
		return TC_ACT_SHOT;
	if (s->forward.ingress & SLOT_UPLINK && !(s->flags & PACKET_COPY) && !s->forward.vlan) {
		reason = back_by_transit(s);
		if (reason)
			return walk_fail(skb, s, reason);
	}
	port = bpf_map_lookup_elem(&ports, &s->out.output);
	if (!port || !(port->flags & PORT_UP))
		return walk_fail(skb, s, REASON_DESTINATION_PORT_DOWN);
	if (port->network == s->network && roles_apart(s->role, port->role))
		return walk_fail(skb, s, REASON_PVLAN_ISOLATED);
	s->revision_output = revision_of(s->out.output);
	s->out.checked = 0;
	if (port->flags & PORT_SECURITY && !vlan_neighbour(&s->forward)) {
		reason = state_test(s, port);
		if (reason)
			return walk_fail(skb, s, reason);
		s->out.checked = 1 | (port->flags & (PORT_LOG_ACCEPT | PORT_LOG_DROP));
		return policy_ask(skb, s, port->policy[2 + (s->forward.family == FAMILY_V6)], STAGE_RECORD, s->out.source,
				  s->out.destination_port);
	}
	bpf_tail_call(skb, &stages, STAGE_RECORD);
	return walk_fail(skb, s, REASON_ENGINE_ERROR);
}
