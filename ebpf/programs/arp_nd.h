/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * Local services: ARP and ND are answered here for every address that the host knows; DHCP, DHCPv6 and router
 * solicitations go to the agent (docs/pipeline.md, section 3).
 *
 * Guarantees: an answer goes only back to where the question came from. Assumes port security before it.
 */
#pragma once
#include "port_security.h"

/* No owner: out by the uplink as it is, or dead. */
static __always_inline int unanswered(struct __sk_buff *skb, struct scratch *s, __u32 reason)
{
	struct network_record *network = bpf_map_lookup_elem(&networks, &s->network);

	if (network && network->flags & NETWORK_PHYSICAL)
		return output(skb, s, network->uplink);
	return drop(skb, s, reason);
}

/* A guest says that an address of its pairs is its own from now on: for the agent, and out of a physical network. */
static __always_inline int claim(struct __sk_buff *skb, struct scratch *s)
{
	struct network_record *network = bpf_map_lookup_elem(&networks, &s->network);

	if (!network || !(network->flags & NETWORK_PHYSICAL))
		return serve(skb, s, EVENT_CLAIM);
	event_send(skb, EVENT_CLAIM, s->network);
	return output(skb, s, network->uplink);
}

/* Whether a guest asks for what it has claimed itself. */
static __always_inline int claim_own(struct scratch *s, struct owner_entry *owner, struct port_record *port)
{
	return port && owner->flags & OWNER_LOCAL && owner->port == s->ingress && mac_equal(owner->mac, port->mac);
}

static __always_inline int arp_reply(struct __sk_buff *skb, struct scratch *s, struct arp *arp, const __u8 *mac)
{
	struct ethernet ethernet = { .type = htons(ETHERTYPE_ARP) };
	__u32 target = load32(arp->target);

	mac_copy(ethernet.destination, s->source_mac);
	mac_copy(ethernet.source, mac);
	arp->operation = htons(2);
	mac_copy(arp->target_mac, arp->sender_mac);
	__builtin_memcpy(arp->target, arp->sender, 4);
	mac_copy(arp->sender_mac, mac);
	store32(arp->sender, target);
	if (bpf_skb_store_bytes(skb, 0, &ethernet, sizeof(ethernet), 0) ||
	    bpf_skb_store_bytes(skb, ETHERNET_BYTES, arp, sizeof(*arp), 0))
		return drop(skb, s, REASON_ENGINE_ERROR);
	return reply(skb, s);
}

static __always_inline int arp_from_guest(struct __sk_buff *skb, struct scratch *s, struct arp *arp)
{
	union address target = { .words = { load32(arp->target) } };
	struct port_record *port = bpf_map_lookup_elem(&ports, &s->ingress);
	int gratuitous = load32(arp->sender) == load32(arp->target);
	int own = address_own(&target, FAMILY_V4);
	struct network_record *network = bpf_map_lookup_elem(&networks, &s->network);
	struct owner_entry *owner;
	struct local_ip *local;

	if (gratuitous && target.words[0] && !own && port && port->flags & PORT_SECURITY)
		return claim(skb, s);
	if (arp->operation != htons(1) || gratuitous || own)
		return drop(skb, s, REASON_ARP_IGNORED);
	local = local_ip_get(network, s->network, target.words[0], s->ingress);
	if (local)
		return arp_reply(skb, s, arp, local->mac);
	owner = owner_get(s->network, FAMILY_V4, target.bytes);
	if (!owner || !(owner->flags & (OWNER_ANSWER | OWNER_ANSWER_GUEST)))
		return unanswered(skb, s, REASON_ARP_UNANSWERED);
	if (claim_own(s, owner, port))
		return drop(skb, s, REASON_ARP_IGNORED);
	return arp_reply(skb, s, arp, owner->mac);
}

int copies_send(struct __sk_buff *skb);

/* What passes and was sent to everybody: the network's guests hear it too, and the agent if it tells of a neighbour. */
static __always_inline int overheard(struct __sk_buff *skb, struct scratch *s, int tells)
{
	if (!(s->destination_mac[0] & 1))
		return pass(skb, s);
	if (tells)
		event_send(skb, EVENT_NEIGHBOUR, s->network);
	copies_send(skb);
	return pass(skb, s);
}

/* An ARP reply or NA from outside: learnt if it is for a router, delivered if it is for a guest. */
static __always_inline int answer_from_uplink(struct __sk_buff *skb, struct scratch *s, int tells)
{
	struct fdb_entry *entry = fdb_get(s->network, s->destination_mac);
	struct port_record *port;

	if (!entry)
		return overheard(skb, s, tells);
	if (entry->flags & (FDB_INTERFACE | FDB_OUTSIDE))
		return serve(skb, s, EVENT_NEIGHBOUR);
	if (!(entry->flags & FDB_LOCAL))
		return pass(skb, s);
	port = bpf_map_lookup_elem(&ports, &entry->port);
	if (!port || !(port->flags & PORT_UP))
		return drop(skb, s, REASON_DESTINATION_PORT_DOWN);
	return output(skb, s, entry->port);
}

static __always_inline int arp_from_uplink(struct __sk_buff *skb, struct scratch *s, struct arp *arp)
{
	union address target = { .words = { load32(arp->target) } };
	int tells = load32(arp->sender) == load32(arp->target);
	struct owner_entry *owner;

	if (arp->operation == htons(2))
		return answer_from_uplink(skb, s, tells);
	owner = owner_get(s->network, FAMILY_V4, target.bytes);
	if (arp->operation != htons(1) || tells || !owner || !(owner->flags & OWNER_ANSWER))
		return overheard(skb, s, tells);
	event_send(skb, EVENT_NEIGHBOUR, s->network);
	return arp_reply(skb, s, arp, owner->mac);
}

SEC("classifier/weft_arp")
int weft_arp(struct __sk_buff *skb)
{
	struct scratch *s = scratch_get();

	if (!s)
		return TC_ACT_SHOT;
	if (bpf_skb_load_bytes(skb, ETHERNET_BYTES, &s->headers.arp, sizeof(s->headers.arp)))
		return drop(skb, s, REASON_MALFORMED);
	if (s->ingress & SLOT_UPLINK)
		return arp_from_uplink(skb, s, &s->headers.arp);
	return arp_from_guest(skb, s, &s->headers.arp);
}

static __always_inline __u16 nd_checksum(const struct nd_reply *r)
{
	const __u16 *words = (const void *)&r->ip.source;
	__u32 sum = htons(32) + htons(PROTOCOL_ICMPV6);

	/* Source, destination and the 32 bytes behind them: 64 bytes in a row. */
	for (int i = 0; i < 32; i++)
		sum += words[i];
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

static __always_inline int nd_reply(struct __sk_buff *skb, struct scratch *s, const __u8 *target, const __u8 *mac, int router)
{
	static const __u8 all_nodes_mac[6] = { 0x33, 0x33, 0, 0, 0, 1 };
	int solicited = !address_zero(s->key.source);
	struct nd_reply *r = &s->headers.nd;

	__builtin_memset(r, 0, sizeof(*r));
	mac_copy(r->ethernet.destination, solicited ? s->source_mac : all_nodes_mac);
	mac_copy(r->ethernet.source, mac);
	r->ethernet.type = htons(ETHERTYPE_IPV6);
	r->ip.version_class_label = htonl(0x60000000);
	r->ip.payload = htons(32);
	r->ip.next = PROTOCOL_ICMPV6;
	r->ip.hops = 255;
	address_copy(r->ip.source, target);
	if (solicited) {
		address_copy(r->ip.destination, s->key.source);
	} else {
		r->ip.destination[0] = 0xff;
		r->ip.destination[1] = 2;
		r->ip.destination[15] = 1;
	}
	r->type = 136;
	r->flags = htonl((router ? 0x80000000 : 0) | (solicited ? 0x40000000 : 0) | 0x20000000);
	address_copy(r->target, target);
	r->option = 2;
	r->option_length = 1;
	mac_copy(r->option_mac, mac);
	r->checksum = nd_checksum(r);
	if (bpf_skb_change_tail(skb, ND_REPLY_BYTES, 0) || bpf_skb_store_bytes(skb, 0, r, sizeof(*r), 0))
		return drop(skb, s, REASON_ENGINE_ERROR);
	return reply(skb, s);
}

/* What is wrong with a message of type 133 to 137: 0 if nothing. */
static __always_inline int nd_malformed(struct scratch *s, __u8 type)
{
	if (type < 133 || type > 137)
		return 0;
	return s->ttl != 255 || s->icmp_code || ((type == 135 || type == 136) && s->l4_bytes < 24);
}

static __always_inline int nd_from_guest(struct __sk_buff *skb, struct scratch *s, __u8 type)
{
	struct network_record *network = bpf_map_lookup_elem(&networks, &s->network);
	struct owner_entry *owner;
	struct port_record *port;
	union address target;
	__u8 flags;
	int own;

	if (nd_malformed(s, type))
		return drop(skb, s, REASON_MALFORMED);
	if (type == 133) {
		if (network && network->flags & NETWORK_RA)
			return serve(skb, s, EVENT_RA);
		return unanswered(skb, s, REASON_SERVICE_OFF);
	}
	if (type != 135 && type != 136)
		return drop(skb, s, REASON_ND_IGNORED);
	if (bpf_skb_load_bytes(skb, s->l4_offset + 8, &target, 16))
		return drop(skb, s, REASON_MALFORMED);
	port = bpf_map_lookup_elem(&ports, &s->ingress);
	own = address_own(&target, FAMILY_V6) || (port && eui64_link_local_equal(target.bytes, port->mac));
	if (type == 136) {
		if (bpf_skb_load_bytes(skb, s->l4_offset + 4, &flags, 1) || flags & 0x40 || own || target.bytes[0] == 0xff ||
		    !port || !(port->flags & PORT_SECURITY))
			return drop(skb, s, REASON_ND_IGNORED);
		return claim(skb, s);
	}
	if (target.bytes[0] == 0xff)
		return drop(skb, s, REASON_MALFORMED);
	if (own)
		return drop(skb, s, REASON_ND_IGNORED);
	owner = owner_get(s->network, FAMILY_V6, target.bytes);
	if (!owner || !(owner->flags & (OWNER_ANSWER | OWNER_ANSWER_GUEST)))
		return unanswered(skb, s, REASON_ND_UNANSWERED);
	if (claim_own(s, owner, port))
		return drop(skb, s, REASON_ND_IGNORED);
	return nd_reply(skb, s, target.bytes, owner->mac, owner->flags & OWNER_ROUTER);
}

static __always_inline int nd_from_uplink(struct __sk_buff *skb, struct scratch *s, __u8 type)
{
	struct owner_entry *owner;
	union address target;

	if (nd_malformed(s, type) || type < 133 || type > 137)
		return pass(skb, s);
	if (type == 136)
		return answer_from_uplink(skb, s, 1);
	if (type != 135)
		return overheard(skb, s, 0);
	if (bpf_skb_load_bytes(skb, s->l4_offset + 8, &target, 16) || target.bytes[0] == 0xff)
		return pass(skb, s);
	owner = owner_get(s->network, FAMILY_V6, target.bytes);
	if (!owner || !(owner->flags & OWNER_ANSWER))
		return overheard(skb, s, 0);
	event_send(skb, EVENT_NEIGHBOUR, s->network);
	return nd_reply(skb, s, target.bytes, owner->mac, owner->flags & OWNER_ROUTER);
}

SEC("classifier/weft_nd")
int weft_nd(struct __sk_buff *skb)
{
	struct scratch *s = scratch_get();

	if (!s)
		return TC_ACT_SHOT;
	if (s->ingress & SLOT_UPLINK)
		return nd_from_uplink(skb, s, s->icmp_type);
	return nd_from_guest(skb, s, s->icmp_type);
}

/* Whether ICMPv6 of this type is ND's or MLD's. */
static __always_inline int nd_type(__u8 type)
{
	return (type >= 130 && type <= 137) || type == 143;
}
