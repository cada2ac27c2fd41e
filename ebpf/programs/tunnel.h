/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * Tunnels: what is put around a frame to another host, and what is taken out (docs/pipeline.md, section 7).
 *
 * Guarantees: GSO packets stay whole, with the checksum that a guest left to the device; nothing comes out but what another
 * host of the cloud sent to this one. Both outer MACs stay zero: the kernel's routes and neighbours fill them in.
 */
#pragma once
#include "session.h"

#define ADJUST_ROOM_MAC 1
/* Of linux/bpf.h since 6.3: newer than the headers that we build with. */
#define ADJUST_ROOM_DECAP_IPV4 (1ULL << 7)
#define ADJUST_ROOM_DECAP_IPV6 (1ULL << 8)
#define OUTER_TTL 64
#define TAG_BYTES 4
#define TUNNEL_PORT_FIRST 49152
#define TUNNEL_PORT_MASK 16383

/* Behind the outer IP header: UDP, VXLAN or GENEVE, and the frame's own Ethernet header. */
struct tunnel_headers {
	struct udp udp;
	struct tunnel_header header;
	struct ethernet ethernet;
} __attribute__((packed));

/* Behind the outer IP header likewise: GRE. */
struct gre_headers {
	struct gre gre;
	struct ethernet ethernet;
} __attribute__((packed));

#define TUNNEL_BYTES sizeof(struct tunnel_headers)
#define OUTER_BYTES_MAX (ETHERNET_BYTES + sizeof(struct ipv6) + TUNNEL_BYTES)
_Static_assert(TUNNEL_BYTES == 30, "tunnel_headers");

/* The outer source port of what leaves as this tuple. */
static __always_inline __u16 tunnel_port(const struct session_key *key, const __u8 *source, const __u8 *destination,
					 __u16 source_port, __u16 destination_port)
{
	__u32 h = hash_mix(0x9e3779b9, key->protocol);
	int words = key->family == FAMILY_V4 ? 1 : 4;

	for (int i = 0; i < 4 && i < words; i++)
		h = hash_mix(h, ntohl(load32(source + 4 * i)));
	for (int i = 0; i < 4 && i < words; i++)
		h = hash_mix(h, ntohl(load32(destination + 4 * i)));
	h = hash_mix(h, (__u32)ntohs(source_port) << 16 | ntohs(destination_port));
	return htons(TUNNEL_PORT_FIRST + (h & TUNNEL_PORT_MASK));
}

static __always_inline void tunnel_fill(struct tunnel_headers *to, const struct ethernet *inner, __u32 bytes, __u32 tunnel,
					__u16 port)
{
	int geneve = tunnel & SLOT_GENEVE;

	to->udp.source = port;
	to->udp.destination = geneve ? htons(GENEVE_PORT) : htons(VXLAN_PORT);
	to->udp.bytes = htons(bytes);
	to->udp.checksum = 0;
	store32((__u8 *)&to->header, geneve ? htonl(TRANSPARENT_ETHERNET) : VXLAN_HAS_VNI);
	store32((__u8 *)&to->header + 4, htonl(tunnel << 8));
	mac_copy(to->ethernet.destination, inner->destination);
	mac_copy(to->ethernet.source, inner->source);
	to->ethernet.type = inner->type;
}

/* The tag and EtherType that a guest's own tag adds to the header of a frame that goes into a tunnel: behind everything else. */
static __always_inline int tunnel_tag(struct __sk_buff *skb, __u32 offset)
{
	struct scratch *s = scratch_get();
	__u16 tag[2];

	if (!s)
		return -1;
	tag[0] = htons(s->guest_tci);
	tag[1] = htons(s->ethertype);
	return bpf_skb_store_bytes(skb, offset, tag, sizeof(tag), 0);
}

/* Makes room for an outer IP header and what is behind it. */
static __always_inline int tunnel_room(struct __sk_buff *skb, __u32 bytes, __u32 tag_bytes, __u64 family, __u64 kind)
{
	__u64 flags = BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_ENCAP_L2_ETH |
		      BPF_F_ADJ_ROOM_ENCAP_L2((__u64)(ETHERNET_BYTES + tag_bytes)) | family | kind;

	return bpf_skb_adjust_room(skb, bytes + tag_bytes, ADJUST_ROOM_MAC, flags);
}

struct outer_v4 {
	struct ethernet ethernet;
	struct ipv4 ip;
} __attribute__((packed));

struct outer_v6 {
	struct ethernet ethernet;
	struct ipv6 ip;
} __attribute__((packed));

/* `bytes` of IP packet; both MACs zero. The sum of the words that never change has UDP as protocol. */
static __always_inline void outer_v4_fill(struct outer_v4 *outer, __u32 bytes, __u8 protocol, const struct tunnel_host *from,
					  const struct tunnel_host *to)
{
	__builtin_memset(&outer->ethernet, 0, 12);
	outer->ethernet.type = htons(ETHERTYPE_IPV4);
	outer->ip.version_ihl = 0x45;
	outer->ip.tos = 0;
	outer->ip.total = htons(bytes);
	outer->ip.identification = 0;
	outer->ip.fragment = htons(0x4000);
	outer->ip.ttl = OUTER_TTL;
	outer->ip.protocol = protocol;
	outer->ip.checksum = checksum_fold(to->checksum + htons(protocol - PROTOCOL_UDP) + htons(bytes));
	outer->ip.source = load32(from->address);
	outer->ip.destination = load32(to->address);
}

/* `bytes` of IP payload. */
static __always_inline void outer_v6_fill(struct outer_v6 *outer, __u32 bytes, __u8 protocol, __u32 label,
					  const struct tunnel_host *from, const struct tunnel_host *to)
{
	__builtin_memset(&outer->ethernet, 0, 12);
	outer->ethernet.type = htons(ETHERTYPE_IPV6);
	outer->ip.version_class_label = htonl(0x60000000 | label);
	outer->ip.payload = htons(bytes);
	outer->ip.next = protocol;
	outer->ip.hops = OUTER_TTL;
	address_copy(outer->ip.source, from->address);
	address_copy(outer->ip.destination, to->address);
}

static __always_inline int encapsulate_v4(struct __sk_buff *skb, const struct ethernet *inner, __u32 tunnel,
					  const struct tunnel_host *from, const struct tunnel_host *to, __u16 port, __u32 tag_bytes)
{
	struct outer {
		struct ethernet ethernet;
		struct ipv4 ip;
		struct tunnel_headers tunnel;
	} __attribute__((packed)) *outer;
	__u32 bytes;

	if (tunnel_room(skb, sizeof(struct ipv4) + TUNNEL_BYTES, tag_bytes, BPF_F_ADJ_ROOM_ENCAP_L3_IPV4, BPF_F_ADJ_ROOM_ENCAP_L4_UDP))
		return -1;
	outer = (void *)(long)skb->data;
	if ((void *)(outer + 1) > (void *)(long)skb->data_end)
		return -1;
	bytes = skb->len - ETHERNET_BYTES;
	outer_v4_fill((struct outer_v4 *)outer, bytes, PROTOCOL_UDP, from, to);
	tunnel_fill(&outer->tunnel, inner, bytes - sizeof(struct ipv4), tunnel, port);
	return tag_bytes ? tunnel_tag(skb, sizeof(*outer)) : 0;
}

static __always_inline int encapsulate_v6(struct __sk_buff *skb, const struct ethernet *inner, __u32 tunnel,
					  const struct tunnel_host *from, const struct tunnel_host *to, __u16 port, __u32 tag_bytes)
{
	struct outer {
		struct ethernet ethernet;
		struct ipv6 ip;
		struct tunnel_headers tunnel;
	} __attribute__((packed)) *outer;
	__u32 bytes;

	if (tunnel_room(skb, sizeof(struct ipv6) + TUNNEL_BYTES, tag_bytes, BPF_F_ADJ_ROOM_ENCAP_L3_IPV6, BPF_F_ADJ_ROOM_ENCAP_L4_UDP))
		return -1;
	outer = (void *)(long)skb->data;
	if ((void *)(outer + 1) > (void *)(long)skb->data_end)
		return -1;
	bytes = skb->len - ETHERNET_BYTES - sizeof(struct ipv6);
	outer_v6_fill((struct outer_v6 *)outer, bytes, PROTOCOL_UDP, 0, from, to);
	tunnel_fill(&outer->tunnel, inner, bytes, tunnel, port);
	return tag_bytes ? tunnel_tag(skb, sizeof(*outer)) : 0;
}

static __always_inline void gre_fill(struct gre_headers *to, const struct ethernet *inner, __u32 key)
{
	to->gre.flags = htons(GRE_HAS_KEY);
	to->gre.protocol = htons(TRANSPARENT_ETHERNET);
	store32((__u8 *)&to->gre.key, htonl(key));
	mac_copy(to->ethernet.destination, inner->destination);
	mac_copy(to->ethernet.source, inner->source);
	to->ethernet.type = inner->type;
}

static __always_inline int gre_v4(struct __sk_buff *skb, const struct ethernet *inner, __u32 key, const struct tunnel_host *from,
				  const struct tunnel_host *to, __u32 tag_bytes)
{
	struct outer {
		struct ethernet ethernet;
		struct ipv4 ip;
		struct gre_headers tunnel;
	} __attribute__((packed)) *outer;

	if (tunnel_room(skb, sizeof(struct ipv4) + sizeof(struct gre_headers), tag_bytes, BPF_F_ADJ_ROOM_ENCAP_L3_IPV4,
			BPF_F_ADJ_ROOM_ENCAP_L4_GRE))
		return -1;
	outer = (void *)(long)skb->data;
	if ((void *)(outer + 1) > (void *)(long)skb->data_end)
		return -1;
	outer_v4_fill((struct outer_v4 *)outer, skb->len - ETHERNET_BYTES, PROTOCOL_GRE, from, to);
	gre_fill(&outer->tunnel, inner, key);
	return tag_bytes ? tunnel_tag(skb, sizeof(*outer)) : 0;
}

/* What would be UDP's source port is the flow label (RFC 6438). */
static __always_inline int gre_v6(struct __sk_buff *skb, const struct ethernet *inner, __u32 key, const struct tunnel_host *from,
				  const struct tunnel_host *to, __u16 port, __u32 tag_bytes)
{
	struct outer {
		struct ethernet ethernet;
		struct ipv6 ip;
		struct gre_headers tunnel;
	} __attribute__((packed)) *outer;

	if (tunnel_room(skb, sizeof(struct ipv6) + sizeof(struct gre_headers), tag_bytes, BPF_F_ADJ_ROOM_ENCAP_L3_IPV6,
			BPF_F_ADJ_ROOM_ENCAP_L4_GRE))
		return -1;
	outer = (void *)(long)skb->data;
	if ((void *)(outer + 1) > (void *)(long)skb->data_end)
		return -1;
	outer_v6_fill((struct outer_v6 *)outer, skb->len - ETHERNET_BYTES - sizeof(struct ipv6), PROTOCOL_GRE, ntohs(port), from,
		      to);
	gre_fill(&outer->tunnel, inner, key);
	return tag_bytes ? tunnel_tag(skb, sizeof(*outer)) : 0;
}

/* Into the GRE tunnel of a network. 0, or -1. */
static __always_inline int gre_encapsulate(struct __sk_buff *skb, const struct ethernet *inner, __u32 output,
					   const struct tunnel_host *from, const struct tunnel_host *to, __u16 port, __u32 tag_bytes)
{
	__u32 slot = output & ~(SLOT_TUNNEL | SLOT_GRE);
	struct network_record *network = bpf_map_lookup_elem(&networks, &slot);

	if (!network)
		return -1;
	if (to->family == FAMILY_V4)
		return gre_v4(skb, inner, network->gre_key, from, to, tag_bytes);
	return gre_v6(skb, inner, network->gre_key, from, to, port, tag_bytes);
}

/* Into the tunnel `output` to a host, with a guest's own tag or without. */
static __always_inline int tunnel_send(struct __sk_buff *skb, struct scratch *s, __u32 output, __u32 host, __u32 port, __u32 tag_bytes)
{
	__u32 self = 0, index = SLOT_UNDERLAY;
	struct tunnel_host *from, *to;
	struct ethernet inner, *now;
	struct device *device;
	int failed;

	from = bpf_map_lookup_elem(&tunnel_hosts, &self);
	to = bpf_map_lookup_elem(&tunnel_hosts, &host);
	device = bpf_map_lookup_elem(&devices, &index);
	if (!from || !to || !to->family || !device)
		return drop(skb, s, REASON_ENGINE_ERROR);
	if (unlikely(!device->ifindex) && !(s->flags & PACKET_TEST))
		return drop(skb, s, REASON_UPLINK_MISSING);
	now = (void *)(long)skb->data;
	if ((void *)(now + 1) > (void *)(long)skb->data_end)
		return drop(skb, s, REASON_ENGINE_ERROR);
	inner = *now;
	if (tag_bytes)
		inner.type = htons(ETHERTYPE_VLAN);
	if (output & SLOT_GRE)
		failed = gre_encapsulate(skb, &inner, output, from, to, port, tag_bytes);
	else if (to->family == FAMILY_V4)
		failed = encapsulate_v4(skb, &inner, output, from, to, port, tag_bytes);
	else
		failed = encapsulate_v6(skb, &inner, output, from, to, port, tag_bytes);
	if (failed)
		return drop(skb, s, REASON_ENGINE_ERROR);
	traffic_count(output, 1, skb->len);
	told(skb, s, VERDICT_TUNNEL, 0, output);
	return bpf_redirect_neigh(device->ifindex, 0, 0, 0);
}

/* Into the tunnel `output` to a host. */
__noinline int encapsulate(struct __sk_buff *skb, __u32 output, __u32 host, __u32 port)
{
	struct scratch *s = scratch_get();

	if (!s)
		return TC_ACT_SHOT;
	return tunnel_send(skb, s, output, host, port, 0);
}

/* The kernel puts outer headers around IP alone: says so of ARP, of which the EtherType stands behind the tag. A tag goes on, a
 * second one moves it into the frame, where what it says is behind it is changed; when both come off, the kernel believes it. */
static __always_inline int protocol_pretend(struct __sk_buff *skb)
{
	__u16 type = htons(ETHERTYPE_IPV4);

	return bpf_skb_vlan_push(skb, htons(ETHERTYPE_VLAN), 1) || bpf_skb_vlan_push(skb, htons(ETHERTYPE_VLAN), 1) ||
	       bpf_skb_store_bytes(skb, ETHERNET_BYTES + TAG_BYTES - 2, &type, sizeof(type), 0) || bpf_skb_vlan_pop(skb) ||
	       bpf_skb_vlan_pop(skb);
}

/* The same with the guest's own tag. */
__noinline int encapsulate_tagged(struct __sk_buff *skb, __u32 output, __u32 host, __u32 port)
{
	struct scratch *s = scratch_get();

	if (!s)
		return TC_ACT_SHOT;
	if (s->ethertype == ETHERTYPE_ARP && protocol_pretend(skb))
		return drop(skb, s, REASON_ENGINE_ERROR);
	return tunnel_send(skb, s, output, host, port, TAG_BYTES);
}

/* What a frame from the underlay is. */
#define UNDERLAY_PASS (-1)
/* With a guest's own tag, which is off. */
#define UNDERLAY_TAGGED (-2)

/* GENEVE's options, `words` of them at `offset`: 0, or a drop reason. */
static __always_inline int geneve_options(struct __sk_buff *skb, __u32 offset, __u32 words)
{
	__u32 end = offset + words * 4;
	int reason = 0;
	__u8 option[4];

	for (__u32 i = 0; i < GENEVE_OPTIONS_MAX && offset < end; i++) {
		if (bpf_skb_load_bytes(skb, offset, option, sizeof(option)))
			return REASON_TUNNEL_MALFORMED;
		if (option[2] & GENEVE_CRITICAL)
			reason = REASON_TUNNEL_OPTION_UNKNOWN;
		offset += 4 + (option[3] & 0x1f) * 4;
	}
	return offset == end ? reason : REASON_TUNNEL_MALFORMED;
}

/* With a guest's own tag behind that header: takes it away too. */
__noinline int tunnel_pop_tagged(struct __sk_buff *skb, __u32 bytes)
{
	struct scratch *s = scratch_get();
	struct network_record *network;
	__u64 flags = BPF_F_ADJ_ROOM_FIXED_GSO;
	__u32 slot, vlan;
	__u16 tag[2];

	if (!s)
		return REASON_ENGINE_ERROR;
	slot = tunnel_network(s->ingress);
	network = bpf_map_lookup_elem(&networks, &slot);
	/* The network of a transit is physical: transits carry no tags. */
	if (!network || (network->flags & (NETWORK_TRANSPARENT | NETWORK_PHYSICAL)) != NETWORK_TRANSPARENT ||
	    bpf_skb_load_bytes(skb, bytes + ETHERNET_BYTES, tag, sizeof(tag)))
		return REASON_VLAN_UNEXPECTED;
	vlan = ntohs(tag[0]) & VLAN_ID_MASK;
	if (!vlan || vlan == VLAN_ID_MASK)
		return REASON_VLAN_UNEXPECTED;
	s->headers.inner.type = tag[1];
	/* The length that the kernel checks is that of IPv4 for ARP too. */
	if (tag[1] == htons(ETHERTYPE_IPV4) || tag[1] == htons(ETHERTYPE_ARP))
		flags |= ADJUST_ROOM_DECAP_IPV4;
	else if (tag[1] == htons(ETHERTYPE_IPV6))
		flags |= ADJUST_ROOM_DECAP_IPV6;
	else if (tag[1] == htons(ETHERTYPE_VLAN) || tag[1] == htons(ETHERTYPE_QINQ))
		return REASON_VLAN_UNEXPECTED;
	else
		return REASON_ETHERTYPE_UNSUPPORTED;
	if (bpf_skb_adjust_room(skb, -(__s32)(bytes + TAG_BYTES), ADJUST_ROOM_MAC, flags) ||
	    bpf_skb_store_bytes(skb, 0, &s->headers.inner, sizeof(s->headers.inner), 0))
		return REASON_MALFORMED;
	s->guest_tci = ntohs(tag[0]);
	s->flags |= PACKET_GUEST_TAG;
	return UNDERLAY_TAGGED;
}

/* Takes the outer headers away, `bytes` in front of the frame's own Ethernet header, which is s->headers.inner. */
static __always_inline int tunnel_pop(struct __sk_buff *skb, struct scratch *s, __u32 bytes)
{
	struct ethernet *inner = &s->headers.inner;
	__u64 flags = BPF_F_ADJ_ROOM_FIXED_GSO;

	if (inner->type == htons(ETHERTYPE_ARP))
		return REASON_ARP_IGNORED;
	if (inner->type == htons(ETHERTYPE_VLAN))
		return tunnel_pop_tagged(skb, bytes);
	if (inner->type == htons(ETHERTYPE_QINQ))
		return REASON_VLAN_UNEXPECTED;
	if (inner->type == htons(ETHERTYPE_IPV4))
		flags |= ADJUST_ROOM_DECAP_IPV4;
	else if (inner->type == htons(ETHERTYPE_IPV6))
		flags |= ADJUST_ROOM_DECAP_IPV6;
	else
		return REASON_ETHERTYPE_UNSUPPORTED;
	/* Fails where the frame inside is shorter than its IP header. */
	if (bpf_skb_adjust_room(skb, -(__s32)bytes, ADJUST_ROOM_MAC, flags) ||
	    bpf_skb_store_bytes(skb, 0, inner, sizeof(*inner), 0))
		return REASON_MALFORMED;
	return 0;
}

/* Behind the outer IP header, at `offset`, are `payload` bytes as it says. */
static __always_inline int tunnel_open(struct __sk_buff *skb, struct scratch *s, __u32 offset, __u32 payload,
				       const struct address_key *source)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct tunnel_headers *headers = data + offset;
	__u32 bytes, options = 0, kind = 0;
	int reason = 0;

	if ((void *)headers + sizeof(headers->udp) > end)
		return UNDERLAY_PASS;
	if (headers->udp.destination == htons(GENEVE_PORT))
		kind = SLOT_GENEVE;
	else if (headers->udp.destination != htons(VXLAN_PORT))
		return UNDERLAY_PASS;
	if (!bpf_map_lookup_elem(&tunnel_slots, source))
		return REASON_TUNNEL_SENDER_UNKNOWN;
	if ((void *)(headers + 1) > end)
		return REASON_TUNNEL_MALFORMED;
	bytes = ntohs(headers->udp.bytes);
	s->ingress = SLOT_TUNNEL | kind | ntohl(headers->header.vni) >> 8;
	s->headers.inner = headers->ethernet;
	if (!kind && !(headers->header.first & VXLAN_HAS_VNI))
		return REASON_TUNNEL_MALFORMED;
	if (kind) {
		if (headers->header.first >> 6 || headers->header.flags & GENEVE_CONTROL ||
		    headers->header.protocol != htons(TRANSPARENT_ETHERNET))
			return REASON_TUNNEL_MALFORMED;
		options = (headers->header.first & 0x3f) * 4;
		if (options) {
			__u32 behind = offset + sizeof(struct udp) + sizeof(struct tunnel_header);

			reason = geneve_options(skb, behind, options / 4);
			if (reason == REASON_TUNNEL_MALFORMED ||
			    bpf_skb_load_bytes(skb, behind + options, &s->headers.inner, sizeof(s->headers.inner)))
				return REASON_TUNNEL_MALFORMED;
		}
	}
	if (!skb->gso_size && (bytes < TUNNEL_BYTES + options || bytes > payload || payload > skb->len - offset))
		return REASON_TUNNEL_MALFORMED;
	if (reason)
		return reason;
	return tunnel_pop(skb, s, offset - ETHERNET_BYTES + TUNNEL_BYTES + options);
}

/* GRE behind the outer IP header, likewise. */
static __always_inline int gre_open(struct __sk_buff *skb, struct scratch *s, __u32 offset, __u32 payload,
				    const struct address_key *source)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct gre_headers *headers = data + offset;
	struct tunnel_slot *network;
	__u32 key;

	if ((void *)headers + 4 > end || (headers->gre.flags & htons(GRE_HAS_KEY | GRE_VERSION)) != htons(GRE_HAS_KEY) ||
	    headers->gre.protocol != htons(TRANSPARENT_ETHERNET))
		return UNDERLAY_PASS;
	if (!bpf_map_lookup_elem(&tunnel_slots, source))
		return REASON_TUNNEL_SENDER_UNKNOWN;
	if ((void *)(headers + 1) > end || headers->gre.flags != htons(GRE_HAS_KEY))
		return REASON_TUNNEL_MALFORMED;
	key = ntohl(headers->gre.key);
	s->headers.inner = headers->ethernet;
	if (!skb->gso_size && (payload < sizeof(*headers) || payload > skb->len - offset))
		return REASON_TUNNEL_MALFORMED;
	network = bpf_map_lookup_elem(&gre_keys, &key);
	s->ingress = SLOT_TUNNEL | SLOT_GRE | (network ? network->slot : 0);
	return tunnel_pop(skb, s, offset - ETHERNET_BYTES + sizeof(*headers));
}

static __always_inline int underlay_v4(struct __sk_buff *skb, struct scratch *s, const struct tunnel_host *self)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct ipv4 *ip = data + ETHERNET_BYTES;
	struct address_key source = { .family = FAMILY_V4 };
	__u32 total;

	if ((void *)(ip + 1) > end || ip->version_ihl != 0x45 || (ip->protocol != PROTOCOL_UDP && ip->protocol != PROTOCOL_GRE) ||
	    ip->fragment & htons(0x3fff) || self->family != FAMILY_V4 || ip->destination != load32(self->address))
		return UNDERLAY_PASS;
	total = ntohs(ip->total);
	total = total > sizeof(*ip) ? total - sizeof(*ip) : 0;
	store32(source.address, ip->source);
	if (ip->protocol == PROTOCOL_GRE)
		return gre_open(skb, s, ETHERNET_BYTES + sizeof(*ip), total, &source);
	return tunnel_open(skb, s, ETHERNET_BYTES + sizeof(*ip), total, &source);
}

static __always_inline int underlay_v6(struct __sk_buff *skb, struct scratch *s, const struct tunnel_host *self)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct ipv6 *ip = data + ETHERNET_BYTES;
	struct address_key source = { .family = FAMILY_V6 };

	if ((void *)(ip + 1) > end || (ip->version_class_label & 0xf0) != 0x60 ||
	    (ip->next != PROTOCOL_UDP && ip->next != PROTOCOL_GRE) || self->family != FAMILY_V6 || !address_equal(ip->destination, self->address))
		return UNDERLAY_PASS;
	address_copy(source.address, ip->source);
	if (ip->next == PROTOCOL_GRE)
		return gre_open(skb, s, ETHERNET_BYTES + sizeof(*ip), ntohs(ip->payload), &source);
	return tunnel_open(skb, s, ETHERNET_BYTES + sizeof(*ip), ntohs(ip->payload), &source);
}

/* Takes the frame out of its tunnel: 0, a drop reason, or UNDERLAY_PASS. Then s->ingress is the tunnel's slot. */
__noinline int decapsulate(struct __sk_buff *skb)
{
	struct scratch *s = scratch_get();
	__u32 want = skb->len, zero = 0;
	struct tunnel_host *self;
	struct ethernet *ethernet;

	if (!s)
		return REASON_ENGINE_ERROR;
	s->ingress = SLOT_TUNNEL;
	self = bpf_map_lookup_elem(&tunnel_hosts, &zero);
	if (!self || skb->vlan_present || want < ETHERNET_BYTES)
		return UNDERLAY_PASS;
	if (want > OUTER_BYTES_MAX)
		want = OUTER_BYTES_MAX;
	ethernet = (void *)(long)skb->data;
	if ((void *)ethernet + want > (void *)(long)skb->data_end && bpf_skb_pull_data(skb, want))
		return UNDERLAY_PASS;
	ethernet = (void *)(long)skb->data;
	if ((void *)(ethernet + 1) > (void *)(long)skb->data_end)
		return UNDERLAY_PASS;
	if (ethernet->type == htons(ETHERTYPE_IPV4))
		return underlay_v4(skb, s, self);
	if (ethernet->type == htons(ETHERTYPE_IPV6))
		return underlay_v6(skb, s, self);
	return UNDERLAY_PASS;
}

/* What came out of a tunnel and dies: of a network that is not ours, for that. */
static __always_inline int tunnel_drop(struct __sk_buff *skb, struct scratch *s, __u32 reason)
{
	return drop(skb, s, tunnel_network(s->ingress) ? reason : REASON_TUNNEL_NETWORK_UNKNOWN);
}
