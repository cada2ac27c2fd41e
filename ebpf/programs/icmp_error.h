/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * ICMP errors: they belong to the session of the packet that they quote (docs/pipeline.md, section 4b).
 *
 * Guarantees: an error passes only where a session's other direction would, and is translated as that, outside and
 * inside, with all checksums. It touches no counter and no timestamp.
 */
#pragma once
#include "transit.h"

#define ICMP_BYTES 8

/* The quoted packet's tuple, reversed, into s->key. 0, or -1 if it says too little. */
static __always_inline int quoted_ipv4(struct __sk_buff *skb, struct scratch *s, __u32 offset, __u32 bytes)
{
	struct ipv4 ip;
	__u32 header;

	if (bytes < sizeof(ip) || bpf_skb_load_bytes(skb, offset, &ip, sizeof(ip)))
		return -1;
	header = (ip.version_ihl & 15) * 4;
	if (ip.version_ihl >> 4 != 4 || header < 20 || bytes < header + 8 || ntohs(ip.fragment) & 0x1fff)
		return -1;
	s->inner_l4_offset = offset + header;
	s->key.protocol = ip.protocol;
	__builtin_memset(s->key.source, 0, 32);
	store32(s->key.source, ip.destination);
	store32(s->key.destination, ip.source);
	return 0;
}

static __always_inline int quoted_ipv6(struct __sk_buff *skb, struct scratch *s, __u32 offset, __u32 bytes)
{
	__u32 end = offset + bytes;
	struct ipv6 ip;
	__u8 next;

	if (bytes < sizeof(ip) || bpf_skb_load_bytes(skb, offset, &ip, sizeof(ip)) ||
	    (ip.version_class_label & 0xf0) != 0x60)
		return -1;
	next = ip.next;
	offset += sizeof(ip);
	for (__u32 i = 0; i <= LIMIT_IPV6_EXTENSION_HEADERS_MAX; i++) {
		__u8 header[8];

		if (next != 0 && next != 43 && next != 44 && next != 60)
			break;
		if (i == LIMIT_IPV6_EXTENSION_HEADERS_MAX || offset + 8 > end || bpf_skb_load_bytes(skb, offset, header, 8))
			return -1;
		if ((next == 44 && (header[2] || header[3] & 0xf8)) || (next == 43 && header[2] == 0))
			return -1;
		offset += next == 44 ? 8 : (header[1] + 1) * 8;
		next = header[0];
	}
	if (offset + 8 > end)
		return -1;
	s->inner_l4_offset = offset;
	s->key.protocol = next;
	address_copy(s->key.source, ip.destination);
	address_copy(s->key.destination, ip.source);
	return 0;
}

static __always_inline int quoted_l4(struct __sk_buff *skb, struct scratch *s)
{
	int v6 = s->key.family == FAMILY_V6;
	__u8 l4[8];

	s->key.source_port = s->key.destination_port = 0;
	if (bpf_skb_load_bytes(skb, s->inner_l4_offset, l4, 8))
		return -1;
	if (protocol_has_ports(s->key.protocol)) {
		s->key.source_port = l4[2] | l4[3] << 8;
		s->key.destination_port = l4[0] | l4[1] << 8;
	} else if (s->key.protocol == (v6 ? PROTOCOL_ICMPV6 : PROTOCOL_ICMP)) {
		__u8 type = l4[0];
		__u16 identifier = l4[4] | l4[5] << 8;

		if (v6 ? type == 128 : type == 8 || type == 13 || type == 15 || type == 17)
			s->key.destination_port = identifier;
		else if (v6 ? type == 129 : type == 0 || type == 14 || type == 16 || type == 18)
			s->key.source_port = identifier;
		else if (v6 ? type >= 1 && type <= 4 : type == 3 || type == 11 || type == 12)
			return -1;
	}
	return 0;
}

/* Makes s->key the key of the session that the error belongs to. */
__noinline int quoted_decode(struct __sk_buff *skb)
{
	struct scratch *s = scratch_get();
	__u8 receiver[16];
	__u32 bytes;

	if (!s || s->flags & PACKET_LATER || s->l4_bytes < ICMP_BYTES)
		return -1;
	address_copy(s->outer_source, s->key.source);
	address_copy(receiver, s->key.destination);
	s->inner_offset = s->l4_offset + ICMP_BYTES;
	bytes = s->l4_bytes - ICMP_BYTES;
	if (s->key.family == FAMILY_V4 ? quoted_ipv4(skb, s, s->inner_offset, bytes) :
					 quoted_ipv6(skb, s, s->inner_offset, bytes))
		return -1;
	if (!address_equal(receiver, s->key.destination))
		return -1;
	return quoted_l4(skb, s);
}

/* Replaces two or four bytes inside the ICMP message; its checksum follows. */
static __always_inline int inner_replace(struct __sk_buff *skb, __u32 icmp, __u32 offset, __u64 from, __u64 to, __u32 bytes)
{
	__u32 value = to;

	if (from == to)
		return 0;
	if (bytes == 4)
		return bpf_l4_csum_replace(skb, icmp + 2, from, to, 4) || bpf_skb_store_bytes(skb, offset, &value, 4, 0);
	return bpf_l4_csum_replace(skb, icmp + 2, from, to, 2) || bpf_skb_store_bytes(skb, offset, &value, 2, 0);
}

/* The quoted layer-4 header: its ports or identifier, and its checksum if that was quoted. */
static __always_inline int quoted_l4_translate(struct __sk_buff *skb, struct scratch *s, const struct session *e)
{
	__u8 protocol = s->key.protocol;
	__u32 icmp = s->l4_offset, l4 = s->inner_l4_offset, at = l4_checksum_offset(protocol);
	__u32 quoted = s->l4_offset + s->l4_bytes - l4;
	__u16 checksum, old;

	if (at && quoted >= at + 2) {
		if (bpf_skb_load_bytes(skb, l4 + at, &checksum, 2))
			return -1;
		old = checksum;
		if ((protocol != PROTOCOL_UDP && protocol != PROTOCOL_UDPLITE) || checksum) {
			if (protocol != PROTOCOL_ICMP) {
				checksum = checksum_replace(checksum, load32(s->key.destination), load32(e->destination));
				checksum = checksum_replace(checksum, load32(s->key.source), load32(e->source));
			}
			checksum = checksum_replace(checksum, s->key.destination_port, e->destination_port);
			checksum = checksum_replace(checksum, s->key.source_port, e->source_port);
			if ((protocol == PROTOCOL_UDP || protocol == PROTOCOL_UDPLITE) && !checksum)
				checksum = 0xffff;
		}
		if (inner_replace(skb, icmp, l4 + at, old, checksum, 2))
			return -1;
	}
	if (protocol == PROTOCOL_ICMP)
		return inner_replace(skb, icmp, l4 + 4, s->key.destination_port, e->destination_port, 2) ||
		       inner_replace(skb, icmp, l4 + 4, s->key.source_port, e->source_port, 2);
	if (!protocol_has_ports(protocol))
		return 0;
	return inner_replace(skb, icmp, l4, s->key.destination_port, e->destination_port, 2) ||
	       inner_replace(skb, icmp, l4 + 2, s->key.source_port, e->source_port, 2);
}

static __always_inline int quoted_translate(struct __sk_buff *skb, struct scratch *s, const struct session *e)
{
	__u32 icmp = s->l4_offset, ip = s->inner_offset;
	__u16 checksum, old;

	if (bpf_skb_load_bytes(skb, ip + 10, &old, 2))
		return -1;
	checksum = checksum_replace(old, load32(s->key.destination), load32(e->destination));
	checksum = checksum_replace(checksum, load32(s->key.source), load32(e->source));
	if (inner_replace(skb, icmp, ip + 10, old, checksum, 2) ||
	    inner_replace(skb, icmp, ip + 12, load32(s->key.destination), load32(e->destination), 4) ||
	    inner_replace(skb, icmp, ip + 16, load32(s->key.source), load32(e->source), 4))
		return -1;
	return quoted_l4_translate(skb, s, e);
}

/* As apply(), for an error whose session's entry is s->entry. */
SEC("classifier/weft_apply_error")
int weft_apply_error(struct __sk_buff *skb)
{
	struct scratch *s = scratch_get();
	const struct session *e;
	int reason, unresolved = 0;

	if (!s)
		return TC_ACT_SHOT;
	e = &s->entry;
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
		int same = load32(s->outer_source) == load32(s->key.source);

		if (quoted_translate(skb, s, e) || ipv4_translate(skb, same ? e->source : s->outer_source, e->destination))
			return drop(skb, s, REASON_ENGINE_ERROR);
	}
	return send(skb, s, e, unresolved);
}
