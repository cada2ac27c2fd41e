/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * Decode: frame to tuple, in the scratch.
 *
 * Guarantees: when it returns 0 the headers up to layer 4 are whole, and the ports, ICMP type and TCP flags are those of
 * docs/pipeline.md, section 1. Else it returns a drop reason (the uplink reads any as "pass"). It changes no byte.
 */
#pragma once
#include "deliver.h"

/* Ethernet, IPv4 with options, TCP. */
#define HEADERS_BYTES_MAX (ETHERNET_BYTES + 60 + 20)

static __always_inline int icmp_decode(struct scratch *s, __u8 type, __u8 code, __u16 identifier, int v6)
{
	int query = v6 ? type == 128 : type == 8 || type == 13 || type == 15 || type == 17;
	int answer = v6 ? type == 129 : type == 0 || type == 14 || type == 16 || type == 18;
	int error = v6 ? type >= 1 && type <= 4 : type == 3 || type == 11 || type == 12;

	s->icmp_type = type;
	s->icmp_code = code;
	if (query) {
		s->flags |= PACKET_ICMP_QUERY;
		s->key.source_port = identifier;
	} else if (answer) {
		s->key.destination_port = identifier;
	} else if (error) {
		s->flags |= PACKET_ICMP_ERROR;
	}
	return 0;
}

/* Layer 4 of a packet that is not a later fragment. */
static __always_inline int l4_decode(struct __sk_buff *skb, struct scratch *s, int v6)
{
	__u8 protocol = s->key.protocol;
	__u32 need = 0;
	__u8 bytes[14];

	if (protocol == PROTOCOL_TCP)
		need = 20;
	else if (protocol == PROTOCOL_UDP || protocol == PROTOCOL_UDPLITE || protocol == (v6 ? PROTOCOL_ICMPV6 : PROTOCOL_ICMP))
		need = 8;
	else if (protocol == PROTOCOL_SCTP || protocol == PROTOCOL_DCCP)
		need = 12;
	else
		return 0;
	if (s->l4_bytes < need)
		return REASON_MALFORMED;
	s->l4_header = need;
	if (protocol == PROTOCOL_TCP) {
		if (bpf_skb_load_bytes(skb, s->l4_offset, bytes, 14))
			return REASON_MALFORMED;
		if (bytes[12] >> 4 < 5)
			return REASON_MALFORMED;
		s->l4_header = (bytes[12] >> 4) * 4;
		s->tcp_flags = bytes[13];
	} else if (bpf_skb_load_bytes(skb, s->l4_offset, bytes, 8)) {
		return REASON_MALFORMED;
	}
	if (need == 8 && protocol != PROTOCOL_UDP && protocol != PROTOCOL_UDPLITE)
		return icmp_decode(s, bytes[0], bytes[1], bytes[4] | bytes[5] << 8, v6);
	s->key.source_port = bytes[0] | bytes[1] << 8;
	s->key.destination_port = bytes[2] | bytes[3] << 8;
	return 0;
}

static __always_inline int ipv4_decode(struct __sk_buff *skb, struct scratch *s, const struct ipv4 *ip)
{
	__u32 header = (ip->version_ihl & 15) * 4;
	__u32 total = ntohs(ip->total);
	__u16 fragment = ntohs(ip->fragment);

	if (ip->version_ihl >> 4 != 4 || header < 20 || total < header || total > skb->len - ETHERNET_BYTES)
		return REASON_MALFORMED;
	s->key.family = FAMILY_V4;
	s->key.protocol = ip->protocol;
	store32(s->key.source, ip->source);
	store32(s->key.destination, ip->destination);
	s->ip_bytes = total;
	s->ttl = ip->ttl;
	s->l4_offset = ETHERNET_BYTES + header;
	s->l4_bytes = total - header;
	s->identification = ip->identification;
	if (fragment & 0x3fff)
		s->flags |= PACKET_FRAGMENT;
	if (fragment & 0x1fff) {
		s->flags |= PACKET_LATER;
		return 0;
	}
	return l4_decode(skb, s, 0);
}

/* Walks the extension headers: sets protocol, l4_offset, l4_bytes and the fragment's fields. */
static __always_inline int ipv6_extensions(struct __sk_buff *skb, struct scratch *s, __u8 next)
{
	__u32 offset = ETHERNET_BYTES + sizeof(struct ipv6);
	__u32 end = ETHERNET_BYTES + s->ip_bytes;

	for (__u32 i = 0; i <= LIMIT_IPV6_EXTENSION_HEADERS_MAX; i++) {
		__u8 header[8];
		__u32 bytes;

		if (next != 0 && next != 43 && next != 44 && next != 60)
			break;
		if (i == LIMIT_IPV6_EXTENSION_HEADERS_MAX)
			return REASON_IPV6_EXTENSION_HEADERS;
		if (offset + 8 > end || bpf_skb_load_bytes(skb, offset, header, 8))
			return REASON_MALFORMED;
		bytes = next == 44 ? 8 : (header[1] + 1) * 8;
		if (offset + bytes > end)
			return REASON_MALFORMED;
		if (next == 43 && header[2] == 0)
			return REASON_IPV6_EXTENSION_HEADERS;
		offset += bytes;
		if (next == 44) {
			s->flags |= PACKET_FRAGMENT;
			s->identification = load32(header + 4);
			if (header[2] || header[3] & 0xf8) {
				s->flags |= PACKET_LATER;
				next = header[0];
				break;
			}
		}
		next = header[0];
	}
	s->key.protocol = next;
	s->l4_offset = offset;
	s->l4_bytes = end - offset;
	return 0;
}

static __always_inline int ipv6_decode(struct __sk_buff *skb, struct scratch *s, const struct ipv6 *ip)
{
	__u32 bytes = sizeof(*ip) + ntohs(ip->payload);
	int reason;

	if ((ip->version_class_label & 0xf0) != 0x60 || bytes > skb->len - ETHERNET_BYTES)
		return REASON_MALFORMED;
	s->key.family = FAMILY_V6;
	address_copy(s->key.source, ip->source);
	address_copy(s->key.destination, ip->destination);
	s->ip_bytes = bytes;
	s->ttl = ip->hops;
	reason = ipv6_extensions(skb, s, ip->next);
	if (reason || s->flags & PACKET_LATER)
		return reason;
	return l4_decode(skb, s, 1);
}

/* Starts the scratch for a frame of `ingress`, and decodes it. */
__noinline int decode(struct __sk_buff *skb)
{
	struct scratch *s = scratch_get();
	__u32 want = skb->len;
	struct ethernet *ethernet;
	void *data, *end;

	if (!s)
		return REASON_ENGINE_ERROR;
	__builtin_memset(&s->key, 0, sizeof(s->key));
	s->key.ingress = s->ingress;
	s->ethertype = 0;
	s->icmp_type = s->icmp_code = s->tcp_flags = s->l4_header = 0;
	s->rule = POLICY_RULE_NONE;
	if (want < ETHERNET_BYTES)
		return REASON_MALFORMED;
	if (want > HEADERS_BYTES_MAX)
		want = HEADERS_BYTES_MAX;
	if (skb->data + want > skb->data_end && bpf_skb_pull_data(skb, want))
		return REASON_MALFORMED;
	data = (void *)(long)skb->data;
	end = (void *)(long)skb->data_end;
	ethernet = data;
	if ((void *)(ethernet + 1) > end)
		return REASON_MALFORMED;
	mac_copy(s->destination_mac, ethernet->destination);
	mac_copy(s->source_mac, ethernet->source);
	s->ethertype = ntohs(ethernet->type);
	if (skb->vlan_present || s->ethertype == ETHERTYPE_VLAN || s->ethertype == ETHERTYPE_QINQ)
		return REASON_VLAN_UNEXPECTED;
	if (s->ethertype == ETHERTYPE_IPV4) {
		if (data + ETHERNET_BYTES + sizeof(struct ipv4) > end)
			return REASON_MALFORMED;
		return ipv4_decode(skb, s, data + ETHERNET_BYTES);
	}
	if (s->ethertype == ETHERTYPE_IPV6) {
		if (data + ETHERNET_BYTES + sizeof(struct ipv6) > end)
			return REASON_MALFORMED;
		return ipv6_decode(skb, s, data + ETHERNET_BYTES);
	}
	if (s->ethertype == ETHERTYPE_ARP) {
		struct arp *arp = data + ETHERNET_BYTES;

		if ((void *)(arp + 1) > end || arp->hardware != htons(1) || arp->protocol != htons(ETHERTYPE_IPV4) ||
		    arp->hardware_bytes != 6 || arp->protocol_bytes != 4)
			return REASON_MALFORMED;
		return 0;
	}
	return REASON_ETHERTYPE_UNSUPPORTED;
}
