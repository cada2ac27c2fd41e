/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * Apply: a session's transformation on a packet (docs/pipeline.md, section 6).
 *
 * Guarantees: addresses, ports and checksums follow RFC 1624 equation 3, also where the guest left the checksum to the
 * device (CHECKSUM_PARTIAL); GSO packets stay whole. Only IPv4 is ever translated.
 */
#pragma once
#include "qos.h"

#define PSEUDO_HEADER BPF_F_PSEUDO_HDR

/* The IP packet's length, or that of a GSO packet's longest segment. */
static __always_inline __u32 packet_bytes(struct __sk_buff *skb, struct scratch *s)
{
	__u32 segment = skb->gso_size;

	if (likely(!segment))
		return s->ip_bytes;
	return s->l4_offset - ETHERNET_BYTES + s->l4_header + segment;
}

/* Why a packet may not go this way: rules, TTL, MTU; 0 if it may. */
static __always_inline int passable(struct __sk_buff *skb, struct scratch *s, const struct session *e)
{
	if (!(e->flags & (SESSION_ROUTED | SESSION_TUNNEL | SESSION_TRANSIT | SESSION_DENIED)))
		return 0;
	if (e->flags & SESSION_DENIED)
		return e->denied;
	if (e->flags & SESSION_ROUTED && s->ttl <= e->ttl)
		return REASON_TTL_EXCEEDED;
	if (packet_bytes(skb, s) > e->mtu)
		return REASON_MTU_EXCEEDED;
	return 0;
}

static __always_inline __u32 output_network(__u32 slot)
{
	struct uplink_record *uplink;
	struct port_record *port;
	__u32 index = slot & ~SLOT_UPLINK;

	if (slot & SLOT_UPLINK) {
		uplink = bpf_map_lookup_elem(&uplinks, &index);
		return uplink ? uplink->network : SLOT_NONE;
	}
	if (slot & SLOT_TUNNEL) {
		index = tunnel_network(slot);
		return index ? index : SLOT_NONE;
	}
	port = bpf_map_lookup_elem(&ports, &slot);
	return port ? port->network : SLOT_NONE;
}

/* Drops what is not passable; of TTL and MTU with a copy for the agent, which answers by ICMP. */
__noinline int impassable(struct __sk_buff *skb, __u32 reason, __u32 mtu, __u32 slot)
{
	struct scratch *s = scratch_get();

	if (!s)
		return TC_ACT_SHOT;
	s->entry.mtu = mtu;
	/* The agent cannot answer in a VLAN of the guests' own. */
	if ((reason == REASON_TTL_EXCEEDED || reason == REASON_MTU_EXCEEDED) && !(s->flags & PACKET_GUEST_TAG))
		event_send(skb, reason == REASON_TTL_EXCEEDED ? EVENT_TTL_EXCEEDED : EVENT_MTU_EXCEEDED,
			   output_network(slot));
	return drop(skb, s, reason);
}

/* Where in the layer-4 header its checksum is; 0 if there is none to follow. */
static __always_inline __u32 l4_checksum_offset(__u8 protocol)
{
	switch (protocol) {
	case PROTOCOL_TCP:
		return 16;
	case PROTOCOL_UDP:
	case PROTOCOL_UDPLITE:
	case PROTOCOL_DCCP:
		return 6;
	case PROTOCOL_ICMP:
		return 2;
	default:
		return 0;
	}
}

/* IPv4 header: addresses and checksum. */
static __always_inline int ipv4_translate(struct __sk_buff *skb, const __u8 *source, const __u8 *destination)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct ipv4 *ip = data + ETHERNET_BYTES;
	__u32 from, to;
	__u16 checksum;

	if ((void *)(ip + 1) > end)
		return -1;
	from = load32(source);
	to = load32(destination);
	checksum = checksum_replace(ip->checksum, ip->source, from);
	ip->checksum = checksum_replace(checksum, ip->destination, to);
	ip->source = from;
	ip->destination = to;
	return 0;
}

static __always_inline int port_translate(struct __sk_buff *skb, __u32 offset, __u32 checksum, __u64 flags, __u16 from, __u16 to)
{
	if (from == to)
		return 0;
	if (checksum && bpf_l4_csum_replace(skb, checksum, from, to, flags | 2))
		return -1;
	return bpf_skb_store_bytes(skb, offset, &to, 2, 0);
}

static __always_inline int l4_translate(struct __sk_buff *skb, struct scratch *s, const struct session *e)
{
	__u8 protocol = s->key.protocol;
	__u32 l4 = s->l4_offset, at = l4_checksum_offset(protocol), checksum = at ? l4 + at : 0;
	__u64 flags = protocol == PROTOCOL_UDP || protocol == PROTOCOL_UDPLITE ? BPF_F_MARK_MANGLED_0 : 0;

	if (protocol == PROTOCOL_ICMP) {
		/* The identifier is one of the two. Replies and queries alike. */
		if (port_translate(skb, l4 + 4, checksum, 0, s->key.source_port, e->source_port))
			return -1;
		return port_translate(skb, l4 + 4, checksum, 0, s->key.destination_port, e->destination_port);
	}
	if (checksum) {
		if (load32(s->key.source) != load32(e->source) &&
		    bpf_l4_csum_replace(skb, checksum, load32(s->key.source), load32(e->source), flags | PSEUDO_HEADER | 4))
			return -1;
		if (load32(s->key.destination) != load32(e->destination) &&
		    bpf_l4_csum_replace(skb, checksum, load32(s->key.destination), load32(e->destination),
					flags | PSEUDO_HEADER | 4))
			return -1;
	}
	if (!protocol_has_ports(protocol))
		return 0;
	if (port_translate(skb, l4, checksum, flags, s->key.source_port, e->source_port))
		return -1;
	return port_translate(skb, l4 + 2, checksum, flags, s->key.destination_port, e->destination_port);
}

/* MACs and TTL of a routed packet. The destination MAC may come from the neighbour table: says whether it is known. */
static __always_inline int route_apply(struct __sk_buff *skb, struct scratch *s, const struct session *e)
{
	struct neighbour *neighbour = 0;
	struct ethernet *ethernet;
	void *data, *end;

	if (e->flags & SESSION_NEIGHBOUR) {
		struct address_key key = { .scope = output_network(e->output), .family = s->key.family };

		address_copy(key.address, e->next_hop);
		neighbour = bpf_map_lookup_elem(&neighbours, &key);
	}
	if (s->key.family == FAMILY_V6) {
		__u8 hops = s->ttl - e->ttl;

		if (bpf_skb_store_bytes(skb, ETHERNET_BYTES + 7, &hops, 1, BPF_F_RECOMPUTE_CSUM))
			return -1;
	}
	data = (void *)(long)skb->data;
	end = (void *)(long)skb->data_end;
	ethernet = data;
	if (data + ETHERNET_BYTES + sizeof(struct ipv4) > end)
		return -1;
	mac_copy(ethernet->source, e->source_mac);
	if (e->flags & SESSION_NEIGHBOUR) {
		if (neighbour)
			mac_copy(ethernet->destination, neighbour->mac);
		else
			__builtin_memset(ethernet->destination, 0, 6);
	} else {
		mac_copy(ethernet->destination, e->destination_mac);
	}
	if (s->key.family == FAMILY_V4) {
		struct ipv4 *ip = data + ETHERNET_BYTES;
		__u32 from = ip->ttl | ip->protocol << 8, to;

		ip->ttl = s->ttl - e->ttl;
		to = ip->ttl | ip->protocol << 8;
		ip->checksum = checksum_replace(ip->checksum, from, to);
	}
	return e->flags & SESSION_NEIGHBOUR && !neighbour ? 1 : 0;
}

/* The transit of an uplink's network. */
static __always_inline __u32 transit_of(__u32 slot)
{
	__u32 index = slot & ~SLOT_UPLINK;
	struct uplink_record *uplink = bpf_map_lookup_elem(&uplinks, &index);

	return uplink ? uplink->transit : 0;
}

/* Out, to another host, or to the agent if the next hop's MAC is not known. */
static __always_inline int send(struct __sk_buff *skb, struct scratch *s, const struct session *e, int unresolved)
{
	if (e->flags & SESSION_TUNNEL)
		return encapsulate(skb, e->output, e->tunnel_host, e->tunnel_port);
	if (unlikely(e->flags & SESSION_TRANSIT))
		return encapsulate(skb, transit_of(e->output), e->tunnel_host, e->tunnel_port);
	if (likely(!unresolved))
		return output(skb, s, e->output);
	address_copy(s->entry.next_hop, e->next_hop);
	event_send(skb, EVENT_NEIGHBOUR_NEEDED, output_network(e->output));
	if (s->flags & PACKET_TEST)
		uplink_tag(skb, e->output);
	told(skb, s, VERDICT_UPLINK, 0, e->output);
	return TC_ACT_SHOT;
}

/* The whole of section 6 but for recording. */
__noinline int apply(struct __sk_buff *skb, const struct session *e)
{
	struct scratch *s = scratch_get();
	int reason, unresolved = 0;

	if (!s || !e)
		return TC_ACT_SHOT;
	reason = passable(skb, s, e);
	if (reason)
		return impassable(skb, reason, e->mtu, e->output);
	reason = qos_apply(skb, s, e);
	if (reason)
		return drop(skb, s, reason);
	if (e->flags & SESSION_ROUTED) {
		unresolved = route_apply(skb, s, e);
		if (unresolved < 0)
			return drop(skb, s, REASON_ENGINE_ERROR);
	}
	if (e->flags & (SESSION_NAT_SOURCE | SESSION_NAT_DESTINATION)) {
		if (ipv4_translate(skb, e->source, e->destination))
			return drop(skb, s, REASON_ENGINE_ERROR);
		if (!(s->flags & PACKET_LATER) && l4_translate(skb, s, e))
			return drop(skb, s, REASON_ENGINE_ERROR);
	}
	return send(skb, s, e, unresolved);
}
