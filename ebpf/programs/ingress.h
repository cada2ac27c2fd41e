/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * The ways in: from a guest and from an uplink, to the session. A hit ends here; everything else goes on to a stage.
 *
 * A device's entry stub has put the slot (an uplink's: the number of its wire) into cb[0] and zero into cb[1]; a test run puts 1 into cb[1] and the time into cb[2].
 */
#pragma once
#include "arp_nd.h"
#include "icmp_error.h"

static __always_inline struct scratch *start(struct __sk_buff *skb)
{
	struct scratch *s = scratch_get();
	__u32 test = skb->cb[1];

	if (!s)
		return 0;
	s->ingress = skb->cb[0];
	s->rule = POLICY_RULE_NONE;
	if (test == 1) {
		s->flags = PACKET_TEST;
		s->now_s = skb->cb[2];
	} else {
		s->flags = 0;
		s->now_s = bpf_ktime_get_coarse_ns() / 1000000000;
	}
	return s;
}

/* Whether it is a copy of a multicast frame that comes in again. */
static __always_inline int is_copy(const struct __sk_buff *skb)
{
	return unlikely((skb->mark & COPY_MARK_MASK) == COPY_MARK);
}

static __always_inline int copy(struct __sk_buff *skb, struct scratch *s, __u32 ingress)
{
	s->ingress = ingress;
	bpf_tail_call(skb, &stages, STAGE_COPY);
	return drop(skb, s, REASON_ENGINE_ERROR);
}

/* Where an ICMP error goes on: what is bridged with a guest's own tag needs no translation. */
static __always_inline __u32 stage_apply_error(const struct scratch *s)
{
	return s->key.vlan ? STAGE_APPLY_TAGGED : STAGE_APPLY_ERROR;
}

/* As what a MAC address on an uplink's network is let in: with a guest's own tag as a port's alone. */
static __always_inline __u32 fdb_let_in(const struct session_key *key)
{
	return unlikely(key->vlan) ? FDB_LOCAL : FDB_OUTSIDE | FDB_LOCAL;
}

/* An ICMP error on its session's way: to the rules of stateless ports, or on. */
static __always_inline int error_apply(struct __sk_buff *skb, struct scratch *s)
{
	int asked = slot_stateless(s->ingress) || slot_stateless(s->entry.output);

	s->crossing = CROSSING_ERROR;
	s->denied = 0;
	bpf_tail_call(skb, &stages, asked ? STAGE_STATELESS : stage_apply_error(s));
	return drop(skb, s, REASON_ENGINE_ERROR);
}

/* Misses, and what is stale. */
static __always_inline int walk(struct __sk_buff *skb, struct scratch *s)
{
	bpf_tail_call(skb, &stages, STAGE_WALK);
	return drop(skb, s, REASON_ENGINE_ERROR);
}

/* What belongs to nothing known: on the uplink it may be the host's own. */
static __always_inline int stray(struct __sk_buff *skb, struct scratch *s, __u32 reason)
{
	struct fdb_entry *entry;

	if (s->ingress & SLOT_TUNNEL)
		return tunnel_drop(skb, s, reason);
	if (s->ingress & SLOT_UPLINK) {
		entry = fdb_get(s->network, s->destination_mac);
		if (!entry || !(entry->flags & fdb_let_in(&s->key)))
			return s->flags & PACKET_TRANSIT ? drop(skb, s, REASON_DESTINATION_MAC_UNKNOWN) : pass(skb, s);
	}
	return drop(skb, s, reason);
}

/* From the session on: the same for guests and uplinks. */
static __always_inline int follow(struct __sk_buff *skb, struct scratch *s)
{
	struct session *e;

	if (unlikely(s->flags & PACKET_FRAGMENT) && !fragment_follow())
		return stray(skb, s, REASON_FRAGMENT_UNKNOWN);
	if (unlikely(s->flags & PACKET_ICMP_ERROR)) {
		bpf_tail_call(skb, &stages, STAGE_ICMP_ERROR);
		return drop(skb, s, REASON_ENGINE_ERROR);
	}
	e = session_get(&s->key, s->now_s);
	if (unlikely(!e) || unlikely(!mac_equal(e->match_mac, s->destination_mac)) || unlikely(!icmp_belongs(s, e)))
		return walk(skb, s);
	if (unlikely(!session_fresh(&s->key, e))) {
		s->flags |= PACKET_STALE;
		return walk(skb, s);
	}
	session_count(skb, s, e);
	return apply(skb, e);
}

SEC("classifier/weft_guest")
int weft_guest(struct __sk_buff *skb)
{
	struct scratch *s = start(skb);
	struct port_record *port;
	int reason;

	if (!s)
		return TC_ACT_SHOT;
	if (is_copy(skb))
		return copy(skb, s, s->ingress);
	traffic_count(s->ingress, 0, skb->len);
	port = bpf_map_lookup_elem(&ports, &s->ingress);
	if (!port || !(port->flags & PORT_UP))
		return drop(skb, s, REASON_PORT_DOWN);
	s->network = port->network;
	reason = decode(skb);
	if (reason) {
		if (reason == REASON_VLAN_UNEXPECTED && port->flags & (PORT_TRUNK | PORT_TRANSPARENT))
			bpf_tail_call(skb, &stages, STAGE_TRUNK);
		return drop(skb, s, reason);
	}
	if (port->flags & PORT_SECURITY) {
		reason = port_secure(skb, s, port);
		if (reason)
			return drop(skb, s, reason);
	}
	if (s->ethertype == ETHERTYPE_ARP) {
		bpf_tail_call(skb, &stages, STAGE_ARP);
		return drop(skb, s, REASON_ENGINE_ERROR);
	}
	if (s->key.protocol == PROTOCOL_ICMPV6 && s->key.family == FAMILY_V6 && !(s->flags & PACKET_LATER) &&
	    nd_type(s->icmp_type)) {
		bpf_tail_call(skb, &stages, STAGE_ND);
		return drop(skb, s, REASON_ENGINE_ERROR);
	}
	if (s->key.protocol == PROTOCOL_UDP && !(s->flags & PACKET_FRAGMENT)) {
		if (port->flags & PORT_DHCP && s->key.family == FAMILY_V4 && s->key.source_port == htons(68) &&
		    s->key.destination_port == htons(67))
			return serve(skb, s, EVENT_DHCP);
		if (port->flags & PORT_DHCPV6 && s->key.family == FAMILY_V6 && s->key.source_port == htons(546) &&
		    s->key.destination_port == htons(547))
			return serve(skb, s, EVENT_DHCPV6);
	}
	return follow(skb, s);
}

/* Whether the frame has a tag of 802.1Q. */
static __always_inline int tag_there(const struct __sk_buff *skb)
{
	return skb->vlan_present || skb->protocol == htons(ETHERTYPE_VLAN);
}

/* The tag of a frame, as the kernel keeps it beside or as it stands in the frame: 0 if there is none, -1 if it is none of ours. */
static __always_inline int tag_read(struct __sk_buff *skb)
{
	__u8 bytes[6];

	if (skb->vlan_present)
		return skb->vlan_proto == htons(ETHERTYPE_VLAN) ? (int)(skb->vlan_tci & 0xffff) : -1;
	if (skb->protocol != htons(ETHERTYPE_VLAN))
		return 0;
	/* The EtherType behind it too. */
	if (bpf_skb_load_bytes(skb, ETHERNET_BYTES - 2, bytes, sizeof(bytes)))
		return -1;
	return bytes[2] << 8 | bytes[3];
}

/* Takes the tag of a trunk's frame off: it enters from the subport. 0, or why not. */
static __always_inline int subport_enter(struct __sk_buff *skb, struct scratch *s)
{
	int tci = tag_read(skb), tagged = tag_there(skb);
	struct subport_key key = { .parent = s->ingress, .vlan = tci & VLAN_ID_MASK };
	struct subport *subport;

	if (tci < 0 || !tagged)
		return REASON_VLAN_UNEXPECTED;
	subport = bpf_map_lookup_elem(&subports, &key);
	if (!subport)
		return REASON_VLAN_UNKNOWN;
	/* Fails where a second one behind it is cut. */
	if (bpf_skb_vlan_pop(skb))
		return REASON_VLAN_UNEXPECTED;
	s->ingress = subport->slot;
	return 0;
}

/* Says in which VLAN of the guests' own the packet is, and whether it is of neighbours there: 0, or why it is dropped. ARP becomes a
 * packet from its sender's address to its target's. */
__noinline int tagged_settle(struct __sk_buff *skb)
{
	struct scratch *s = scratch_get();
	struct arp *arp;

	if (!s)
		return REASON_ENGINE_ERROR;
	s->key.vlan = s->guest_tci & GUEST_VLAN_ID_MASK;
	if (s->ethertype == ETHERTYPE_ARP) {
		arp = &s->headers.arp;
		if (bpf_skb_load_bytes(skb, ETHERNET_BYTES, arp, sizeof(*arp)))
			return REASON_MALFORMED;
		s->key.family = FAMILY_V4;
		store32(s->key.source, load32(arp->sender));
		store32(s->key.destination, load32(arp->target));
		s->ip_bytes = sizeof(*arp);
		s->l4_offset = ETHERNET_BYTES + sizeof(*arp);
		s->l4_bytes = 0;
	} else if (s->key.protocol == PROTOCOL_ICMPV6 && s->key.family == FAMILY_V6 && !(s->flags & PACKET_LATER) &&
		   nd_type(s->icmp_type)) {
		if (nd_malformed(s, s->icmp_type))
			return REASON_MALFORMED;
	} else {
		return 0;
	}
	s->key.vlan |= GUEST_VLAN_NEIGHBOUR;
	return 0;
}

/* Takes a guest's own tag off a frame of s->network: 0, or why it may have none. On the wire of a flat network it may be another
 * network's. */
__noinline int guest_tag_take(struct __sk_buff *skb)
{
	struct scratch *s = scratch_get();
	int tci = tag_read(skb), tagged = tag_there(skb);
	struct wire_key key = { .vlan = tci & VLAN_ID_MASK };
	struct network_record *network;
	struct uplink_record *uplink;
	__u32 index;

	if (!s)
		return REASON_ENGINE_ERROR;
	network = bpf_map_lookup_elem(&networks, &s->network);
	if (!network || !(network->flags & NETWORK_TRANSPARENT) || tci < 0 || !tagged || !key.vlan || key.vlan == VLAN_ID_MASK)
		return REASON_VLAN_UNEXPECTED;
	index = network->uplink & ~SLOT_UPLINK;
	uplink = network->flags & NETWORK_PHYSICAL ? bpf_map_lookup_elem(&uplinks, &index) : 0;
	if (uplink && !uplink->vlan) {
		key.wire = uplink->wire;
		if (bpf_map_lookup_elem(&wires, &key))
			return REASON_VLAN_UNEXPECTED;
	}
	/* As above. */
	if (bpf_skb_vlan_pop(skb))
		return REASON_VLAN_UNEXPECTED;
	s->guest_tci = tci;
	s->flags |= PACKET_GUEST_TAG;
	return 0;
}

/* A tagged frame of a trunk: in again, as its subport's. Or of a guest in a VLAN of its own. */
SEC("classifier/weft_trunk")
int weft_trunk(struct __sk_buff *skb)
{
	struct scratch *s = scratch_get();
	__u32 bytes = skb->len, parent;
	struct port_record *port;
	int reason;

	if (!s)
		return TC_ACT_SHOT;
	parent = s->ingress;
	port = bpf_map_lookup_elem(&ports, &parent);
	if (!port)
		return drop(skb, s, REASON_PORT_DOWN);
	reason = port->flags & PORT_TRUNK ? subport_enter(skb, s) : REASON_VLAN_UNEXPECTED;
	if (reason == REASON_VLAN_UNKNOWN || (reason && !(port->flags & PORT_TRUNK))) {
		int taken = guest_tag_take(skb);

		if (!taken)
			bpf_tail_call(skb, &stages, STAGE_TAGGED);
	}
	if (reason)
		return drop(skb, s, reason);
	traffic_return(parent, bytes);
	skb->cb[0] = s->ingress;
	bpf_tail_call(skb, &stages, STAGE_GUEST);
	return drop(skb, s, REASON_ENGINE_ERROR);
}

/* A tag that is no network's on a wire: that of a guest on its flat network, or none of ours. */
static __always_inline int flat_tagged(struct __sk_buff *skb, struct scratch *s, __u32 number)
{
	struct wire_key key = { .wire = number };
	struct wire *wire = bpf_map_lookup_elem(&wires, &key);
	struct uplink_record *uplink;
	__u32 index;

	if (!wire)
		return pass(skb, s);
	index = wire->uplink;
	uplink = bpf_map_lookup_elem(&uplinks, &index);
	if (!uplink)
		return pass(skb, s);
	s->network = uplink->network;
	if (guest_tag_take(skb))
		return pass(skb, s);
	s->ingress = index | SLOT_UPLINK;
	traffic_count(s->ingress, 0, skb->len);
	bpf_tail_call(skb, &stages, STAGE_TAGGED);
	return drop(skb, s, REASON_ENGINE_ERROR);
}

/* Which network of the wire a frame is of; the tag is taken off. A second one behind it is a guest's own, or does not decode. */
SEC("classifier/weft_uplink")
int weft_uplink(struct __sk_buff *skb)
{
	struct wire_key key = { .wire = skb->cb[0] };
	int tci = tag_read(skb), tagged = tag_there(skb);
	struct scratch *s = start(skb);
	struct uplink_record *uplink;
	struct wire *wire;
	__u32 index;

	if (!s)
		return TC_ACT_SHOT;
	if (is_copy(skb))
		return copy(skb, s, SLOT_UPLINK);
	key.vlan = tci & VLAN_ID_MASK;
	wire = tci < 0 ? 0 : bpf_map_lookup_elem(&wires, &key);
	if (!wire)
		return tagged && tci >= 0 ? flat_tagged(skb, s, key.wire) : pass(skb, s);
	index = wire->uplink;
	uplink = bpf_map_lookup_elem(&uplinks, &index);
	if (!uplink || !uplink->network)
		return pass(skb, s);
	s->ingress = index | SLOT_UPLINK;
	if (tagged) {
		if (bpf_skb_vlan_pop(skb))
			return pass(skb, s);
		s->flags |= PACKET_TAGGED;
		s->tci = tci;
	}
	traffic_count(s->ingress, 0, skb->len);
	s->network = uplink->network;
	if (decode(skb)) {
		if (uplink->vlan && !guest_tag_take(skb))
			bpf_tail_call(skb, &stages, STAGE_TAGGED);
		return pass(skb, s);
	}
	if (s->ethertype == ETHERTYPE_ARP) {
		bpf_tail_call(skb, &stages, STAGE_ARP);
		return drop(skb, s, REASON_ENGINE_ERROR);
	}
	if (s->key.protocol == PROTOCOL_ICMPV6 && s->key.family == FAMILY_V6 && !(s->flags & PACKET_LATER) &&
	    nd_type(s->icmp_type)) {
		bpf_tail_call(skb, &stages, STAGE_ND);
		return drop(skb, s, REASON_ENGINE_ERROR);
	}
	return follow(skb, s);
}

SEC("classifier/weft_underlay")
int weft_underlay(struct __sk_buff *skb)
{
	struct scratch *s = start(skb);
	__u32 bytes = skb->len;
	int reason;

	if (!s)
		return TC_ACT_SHOT;
	if (is_copy(skb))
		return copy(skb, s, SLOT_TUNNEL);
	reason = decapsulate(skb);
	if (reason < 0) {
		if (reason == UNDERLAY_PASS)
			return pass(skb, s);
		traffic_count(s->ingress, 0, bytes);
		bpf_tail_call(skb, &stages, STAGE_TAGGED);
		return drop(skb, s, REASON_ENGINE_ERROR);
	}
	traffic_count(s->ingress, 0, bytes);
	if (reason == REASON_TUNNEL_SENDER_UNKNOWN || reason == REASON_TUNNEL_MALFORMED ||
	    reason == REASON_TUNNEL_OPTION_UNKNOWN)
		return drop(skb, s, reason);
	if (!reason) {
		transit_enter(s);
		reason = decode(skb);
	}
	if (!reason && s->key.protocol == PROTOCOL_ICMPV6 && s->key.family == FAMILY_V6 && !(s->flags & PACKET_LATER) &&
	    nd_type(s->icmp_type))
		reason = REASON_ND_IGNORED;
	if (s->flags & PACKET_TRANSIT) {
		if (reason)
			return drop(skb, s, reason);
		if (!(load32(s->destination_mac) | load16(s->destination_mac + 4))) {
			bpf_tail_call(skb, &stages, STAGE_OUTBOUND);
			return drop(skb, s, REASON_ENGINE_ERROR);
		}
	}
	if (reason)
		return tunnel_drop(skb, s, reason);
	return follow(skb, s);
}

/* No session: of an uplink's perhaps another host's. s->key is that of the packet inside, s->forward the error's own. */
static __always_inline int error_relay(struct __sk_buff *skb, struct scratch *s)
{
	struct router_record *router;
	struct fdb_entry *entry;
	struct whose w;
	__u32 slot;
	int host;

	if (!(s->ingress & SLOT_UPLINK) || s->flags & (PACKET_TRANSIT | PACKET_GUEST_TAG))
		return stray(skb, s, REASON_ICMP_NO_SESSION);
	entry = fdb_get(s->network, s->destination_mac);
	if (!entry || !(entry->flags & FDB_OUTSIDE))
		return stray(skb, s, REASON_ICMP_NO_SESSION);
	slot = entry->router_outside;
	router = bpf_map_lookup_elem(&routers, &slot);
	if (!router || !(router->flags & ROUTER_UP))
		return stray(skb, s, REASON_ICMP_NO_SESSION);
	whose_destination(&w, &s->key, s->network, slot);
	host = whose(&w);
	if (!host)
		return stray(skb, s, REASON_ICMP_NO_SESSION);
	s->key = s->forward;
	return relay(skb, host);
}

SEC("classifier/weft_icmp_error")
int weft_icmp_error(struct __sk_buff *skb)
{
	struct scratch *s = scratch_get();
	struct session *e;

	if (!s)
		return TC_ACT_SHOT;
	s->forward = s->key;
	if (quoted_decode(skb))
		return stray(skb, s, REASON_ICMP_NO_SESSION);
	e = session_get(&s->key, s->now_s);
	if (!e)
		return error_relay(skb, s);
	if (!session_fresh(&s->key, e)) {
		s->flags |= PACKET_STALE;
		return walk(skb, s);
	}
	s->entry = *e;
	return error_apply(skb, s);
}
