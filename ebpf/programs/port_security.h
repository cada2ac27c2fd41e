/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * Port security: what a guest may claim to be (docs/pipeline.md, section 2).
 *
 * Guarantees: behind it, source MAC and address of a guest with port security are its own or of its allowed pairs.
 * Cost: one comparison for the port's first address, a loop over at most 48 for the others.
 */
#pragma once
#include "decode.h"

static __always_inline int allowed_matches(const struct allowed *a, const __u8 *mac, __u8 family, const union address *address)
{
	__u32 differs = (a->family ^ family) | mac_differs(a->mac, mac);

	for (int i = 0; i < 16; i += 4)
		differs |= (load32(a->address + i) ^ load32(address->bytes + i)) & load32(a->mask + i);
	return !differs;
}

/* Whether the port in slot `ingress` may use `address` with the frame's source MAC. */
__noinline int address_allowed(const union address *address, __u32 family)
{
	struct scratch *s = scratch_get();
	struct port_record *port;
	__u32 slot;

	if (!s || !address)
		return 0;
	slot = s->ingress;
	port = bpf_map_lookup_elem(&ports, &slot);
	if (!port)
		return 0;
	for (__u32 i = 0; i < sizeof(port->allowed) / sizeof(port->allowed[0]); i++) {
		if (i >= port->allowed_count)
			return 0;
		if (allowed_matches(&port->allowed[i], s->source_mac, family, address))
			return 1;
	}
	return 0;
}

/* Whether `address` is one of the port's fixed IPs. */
__noinline int address_own(const union address *address, __u32 family)
{
	struct scratch *s = scratch_get();
	struct port_record *port;
	__u32 slot;

	if (!s || !address)
		return 0;
	slot = s->ingress;
	port = bpf_map_lookup_elem(&ports, &slot);
	if (!port)
		return 0;
	for (__u32 i = 0; i < sizeof(port->allowed) / sizeof(port->allowed[0]); i++) {
		const struct allowed *a = &port->allowed[i];

		if (i >= port->allowed_count)
			return 0;
		if (!(((a->flags & ALLOWED_FIXED) ^ ALLOWED_FIXED) | (a->family ^ family) |
		      address_differs(a->address, address->bytes)))
			return 1;
	}
	return 0;
}

__noinline int mac_allowed(void)
{
	struct scratch *s = scratch_get();
	struct port_record *port;
	__u32 slot;

	if (!s)
		return 0;
	slot = s->ingress;
	port = bpf_map_lookup_elem(&ports, &slot);
	if (!port)
		return 0;
	for (__u32 i = 0; i < sizeof(port->allowed) / sizeof(port->allowed[0]); i++) {
		if (i >= port->allowed_count)
			return 0;
		if (mac_equal(port->allowed[i].mac, s->source_mac))
			return 1;
	}
	return 0;
}

static __always_inline int source_allowed(struct scratch *s, const struct port_record *port)
{
	union address source;

	address_copy(source.bytes, s->key.source);
	if (port->allowed_count && allowed_matches(&port->allowed[0], s->source_mac, s->key.family, &source))
		return 1;
	return address_allowed(&source, s->key.family);
}

static __always_inline int arp_secure(struct __sk_buff *skb, struct scratch *s)
{
	struct arp *arp = &s->headers.arp;
	union address sender = {};

	if (bpf_skb_load_bytes(skb, ETHERNET_BYTES, arp, sizeof(*arp)))
		return REASON_MALFORMED;
	if (!mac_equal(arp->sender_mac, s->source_mac))
		return REASON_SPOOFED_ARP;
	sender.words[0] = load32(arp->sender);
	if (sender.words[0] && !address_allowed(&sender, FAMILY_V4))
		return REASON_SPOOFED_ARP;
	return 0;
}

static __always_inline int ipv4_secure(struct scratch *s, const struct port_record *port)
{
	if (s->key.protocol == PROTOCOL_UDP && !(s->flags & PACKET_LATER)) {
		if (s->key.source_port == htons(67) && s->key.destination_port == htons(68))
			return REASON_ROGUE_DHCP;
		if (s->key.source_port == htons(68) && s->key.destination_port == htons(67) && !load32(s->key.source) &&
		    load32(s->key.destination) == 0xffffffff)
			return 0;
	}
	return source_allowed(s, port) ? 0 : REASON_SPOOFED_IP;
}

static __always_inline int ipv6_secure(struct __sk_buff *skb, struct scratch *s, const struct port_record *port)
{
	int icmp = s->key.protocol == PROTOCOL_ICMPV6 && !(s->flags & PACKET_LATER);
	__u8 type = s->icmp_type;

	if (icmp && (type == 134 || type == 137))
		return REASON_ROGUE_RA;
	if (s->key.protocol == PROTOCOL_UDP && !(s->flags & PACKET_LATER) && s->key.source_port == htons(547) &&
	    s->key.destination_port == htons(546))
		return REASON_ROGUE_DHCP;
	if (!source_allowed(s, port) && !eui64_link_local_equal(s->key.source, s->source_mac) &&
	    !(icmp && address_zero(s->key.source) &&
	      (type == 133 || type == 135 || type == 131 || type == 132 || type == 143)))
		return REASON_SPOOFED_IP;
	if (icmp && type == 136) {
		union address target;

		/* Shorter than its target: nothing to judge, malformed in the next stage. */
		if (s->l4_bytes < 24 || bpf_skb_load_bytes(skb, s->l4_offset + 8, &target, 16))
			return 0;
		if (!address_allowed(&target, FAMILY_V6) && !eui64_link_local_equal(target.bytes, s->source_mac))
			return REASON_SPOOFED_ND;
	}
	return 0;
}

static __always_inline int port_secure(struct __sk_buff *skb, struct scratch *s, const struct port_record *port)
{
	if (!mac_equal(port->mac, s->source_mac) && !mac_allowed())
		return REASON_SPOOFED_MAC;
	if (s->ethertype == ETHERTYPE_ARP)
		return arp_secure(skb, s);
	if (s->key.family == FAMILY_V4)
		return ipv4_secure(s, port);
	return ipv6_secure(skb, s, port);
}
