/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * What every stage stands on: the kernel's types, the few helpers that are used, and small pure functions.
 * No maps, no state.
 */
#pragma once
#include <linux/bpf.h>
#include <linux/types.h>
#include "weft_generated.h"

#define SEC(name) __attribute__((section(name), used))
#define __uint(name, val) int(*name)[val]
#define __type(name, val) typeof(val) *name
#define __array(name, val) typeof(val) *name[]
#undef __always_inline
#define __always_inline inline __attribute__((always_inline))
#define __noinline __attribute__((noinline))
#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

static void *(*bpf_map_lookup_elem)(void *map, const void *key) = (void *)1;
static long (*bpf_map_update_elem)(void *map, const void *key, const void *value, __u64 flags) = (void *)2;
static long (*bpf_map_delete_elem)(void *map, const void *key) = (void *)3;
static __u64 (*bpf_ktime_get_ns)(void) = (void *)5;
static long (*bpf_skb_store_bytes)(struct __sk_buff *skb, __u32 offset, const void *from, __u32 bytes, __u64 flags) = (void *)9;
static long (*bpf_l3_csum_replace)(struct __sk_buff *skb, __u32 offset, __u64 from, __u64 to, __u64 flags) = (void *)10;
static long (*bpf_l4_csum_replace)(struct __sk_buff *skb, __u32 offset, __u64 from, __u64 to, __u64 flags) = (void *)11;
static long (*bpf_tail_call)(void *ctx, void *map, __u32 index) = (void *)12;
static long (*bpf_clone_redirect)(struct __sk_buff *skb, __u32 ifindex, __u64 flags) = (void *)13;
static long (*bpf_skb_vlan_push)(struct __sk_buff *skb, __u16 protocol, __u16 tci) = (void *)18;
static long (*bpf_skb_vlan_pop)(struct __sk_buff *skb) = (void *)19;
static long (*bpf_redirect)(__u32 ifindex, __u64 flags) = (void *)23;
static long (*bpf_skb_load_bytes)(const void *skb, __u32 offset, void *to, __u32 bytes) = (void *)26;
static long (*bpf_skb_change_type)(struct __sk_buff *skb, __u32 type) = (void *)32;
static long (*bpf_skb_change_tail)(struct __sk_buff *skb, __u32 bytes, __u64 flags) = (void *)38;
static long (*bpf_skb_pull_data)(struct __sk_buff *skb, __u32 bytes) = (void *)39;
static void *(*bpf_ringbuf_reserve)(void *ring, __u64 bytes, __u64 flags) = (void *)131;
static void (*bpf_ringbuf_submit)(void *data, __u64 flags) = (void *)132;
static void (*bpf_ringbuf_discard)(void *data, __u64 flags) = (void *)133;
static long (*bpf_skb_adjust_room)(struct __sk_buff *skb, __s32 bytes, __u32 mode, __u64 flags) = (void *)50;
static long (*bpf_redirect_neigh)(__u32 ifindex, void *next_hop, int bytes, __u64 flags) = (void *)152;
static long (*bpf_redirect_peer)(__u32 ifindex, __u64 flags) = (void *)155;
static __u64 (*bpf_ktime_get_coarse_ns)(void) = (void *)160;
static long (*bpf_for_each_map_elem)(void *map, void *callback, void *context, __u64 flags) = (void *)164;
static long (*bpf_loop)(__u32 nr, void *callback, void *context, __u64 flags) = (void *)181;

/* Little-endian hosts only: the build refuses others. */
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "weft's programs are written for little-endian hosts");
#define ntohs(x) __builtin_bswap16(x)
#define htons(x) __builtin_bswap16(x)
#define ntohl(x) __builtin_bswap32(x)
#define htonl(x) __builtin_bswap32(x)

#define offset_of(type, member) __builtin_offsetof(type, member)

/* From linux/pkt_cls.h and linux/if_packet.h. */
#define TC_ACT_SHOT 2
#define TCX_NEXT_PROGRAM (-1)
#define PACKET_TO_HOST 0

#define ETHERNET_BYTES 14
#define ETHERTYPE_IPV4 0x0800
#define ETHERTYPE_ARP 0x0806
#define ETHERTYPE_IPV6 0x86dd
#define ETHERTYPE_VLAN 0x8100
#define ETHERTYPE_QINQ 0x88a8
#define VLAN_ID_MASK 0x0fff
#define PROTOCOL_ICMP 1
#define PROTOCOL_TCP 6
#define PROTOCOL_UDP 17
#define PROTOCOL_DCCP 33
#define PROTOCOL_GRE 47
#define PROTOCOL_ICMPV6 58
#define PROTOCOL_SCTP 132
#define PROTOCOL_UDPLITE 136
#define TCP_FIN 1
#define TCP_SYN 2
#define TCP_RST 4
#define TCP_ACK 16

union address {
	__u8 bytes[16];
	__u32 words[4];
	__u64 halves[2];
};
_Static_assert(sizeof(union address) == 16, "address");

struct ethernet {
	__u8 destination[6];
	__u8 source[6];
	__u16 type;
};

struct ipv4 {
	__u8 version_ihl;
	__u8 tos;
	__u16 total;
	__u16 identification;
	__u16 fragment;
	__u8 ttl;
	__u8 protocol;
	__u16 checksum;
	__u32 source;
	__u32 destination;
};

struct ipv6 {
	__u32 version_class_label;
	__u16 payload;
	__u8 next;
	__u8 hops;
	__u8 source[16];
	__u8 destination[16];
};

struct arp {
	__u16 hardware;
	__u16 protocol;
	__u8 hardware_bytes;
	__u8 protocol_bytes;
	__u16 operation;
	__u8 sender_mac[6];
	__u8 sender[4];
	__u8 target_mac[6];
	__u8 target[4];
};
_Static_assert(sizeof(struct arp) == 28, "arp");

struct udp {
	__u16 source;
	__u16 destination;
	__u16 bytes;
	__u16 checksum;
};

/* RFC 7348. */
#define VXLAN_PORT 4789
#define VXLAN_HAS_VNI 0x08

/* RFC 8926. */
#define GENEVE_PORT 6081
#define GENEVE_CONTROL 0x80
#define GENEVE_CRITICAL 0x80
#define GENEVE_OPTIONS_MAX 63

/* RFC 2784, RFC 2890. */
#define GRE_HAS_KEY 0x2000
#define GRE_VERSION 0x0007
/* Of GENEVE too: an Ethernet frame. */
#define TRANSPARENT_ETHERNET 0x6558

struct gre {
	__u16 flags;
	__u16 protocol;
	__u32 key;
};

/* VXLAN's or GENEVE's without options. */
struct tunnel_header {
	__u8 first; /* VXLAN: flags; GENEVE: version, words of options */
	__u8 flags;
	__u16 protocol;
	__u32 vni; /* and 8 reserved bits */
};

#define ND_REPLY_BYTES 86

struct nd_reply {
	struct ethernet ethernet;
	struct ipv6 ip;
	__u8 type;
	__u8 code;
	__u16 checksum;
	__u32 flags;
	__u8 target[16];
	__u8 option;
	__u8 option_length;
	__u8 option_mac[6];
} __attribute__((packed));
_Static_assert(sizeof(struct nd_reply) == ND_REPLY_BYTES, "nd_reply");

/* Whole words, not the single bytes that clang makes of a memcpy: x86-64 and arm64 load them unaligned. */
typedef __u16 __attribute__((may_alias)) u16_alias;
typedef __u32 __attribute__((may_alias)) u32_alias;

static __always_inline __u32 load32(const __u8 *from)
{
	return *(const u32_alias *)from;
}

static __always_inline __u16 load16(const __u8 *from)
{
	return *(const u16_alias *)from;
}

static __always_inline void store32(__u8 *to, __u32 value)
{
	*(u32_alias *)to = value;
}

static __always_inline void store16(__u8 *to, __u16 value)
{
	*(u16_alias *)to = value;
}

static __always_inline void mac_copy(__u8 *to, const __u8 *from)
{
	store16(to, load16(from));
	store16(to + 2, load16(from + 2));
	store16(to + 4, load16(from + 4));
}

/* Zero if they are equal: without a branch, for the verifier's sake. */
static __always_inline __u32 mac_differs(const __u8 *a, const __u8 *b)
{
	return (load16(a) ^ load16(b)) | (load16(a + 2) ^ load16(b + 2)) | (load16(a + 4) ^ load16(b + 4));
}

static __always_inline int mac_equal(const __u8 *a, const __u8 *b)
{
	return !mac_differs(a, b);
}

static __always_inline void address_copy(__u8 *to, const __u8 *from)
{
	for (int i = 0; i < 16; i += 4)
		store32(to + i, load32(from + i));
}

static __always_inline __u32 address_differs(const __u8 *a, const __u8 *b)
{
	__u32 differs = 0;

	for (int i = 0; i < 16; i += 4)
		differs |= load32(a + i) ^ load32(b + i);
	return differs;
}

static __always_inline int address_equal(const __u8 *a, const __u8 *b)
{
	return !address_differs(a, b);
}

static __always_inline int address_zero(const __u8 *a)
{
	return !(load32(a) | load32(a + 4) | load32(a + 8) | load32(a + 12));
}

/* RFC 4291 2.5.1, appendix A. */
static __always_inline int eui64_link_local_equal(const __u8 *address, const __u8 *mac)
{
	return address[0] == 0xfe && address[1] == 0x80 && !address[2] && !address[3] && !load32(address + 4) &&
	       address[8] == (mac[0] ^ 2) && address[9] == mac[1] && address[10] == mac[2] && address[11] == 0xff &&
	       address[12] == 0xfe && address[13] == mac[3] && address[14] == mac[4] && address[15] == mac[5];
}

/* fe80::/10, 169.254.0.0/16, multicast, loopback, unspecified, 255.255.255.255: never routed. */
static __always_inline int address_unroutable(const __u8 *a, __u8 family)
{
	if (family == FAMILY_V4)
		return (a[0] == 169 && a[1] == 254) || (a[0] >= 224 && a[0] <= 239) || a[0] == 127 || !load32(a) ||
		       load32(a) == 0xffffffff;
	return (a[0] == 0xfe && (a[1] & 0xc0) == 0x80) || a[0] == 0xff ||
	       (!load32(a) && !load32(a + 4) && !load32(a + 8) && (load32(a + 12) == htonl(1) || !load32(a + 12)));
}

/* Loopback, multicast, unspecified. */
static __always_inline int address_rogue(const __u8 *a, __u8 family)
{
	if (family == FAMILY_V4)
		return (a[0] >= 224 && a[0] <= 239) || a[0] == 127 || !load32(a);
	return a[0] == 0xff ||
	       (!load32(a) && !load32(a + 4) && !load32(a + 8) && (load32(a + 12) == htonl(1) || !load32(a + 12)));
}

static __always_inline int protocol_has_ports(__u8 protocol)
{
	return protocol == PROTOCOL_TCP || protocol == PROTOCOL_UDP || protocol == PROTOCOL_SCTP ||
	       protocol == PROTOCOL_DCCP || protocol == PROTOCOL_UDPLITE;
}

/* Of a sum of words. */
static __always_inline __u16 checksum_fold(__u32 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

static __always_inline __u32 hash_mix(__u32 h, __u32 word)
{
	h = (h ^ word) * 0x85ebca6b;
	return h ^ (h >> 13);
}

/* RFC 1624 equation 3, for one aligned word of 16 or 32 bits; what does not change does not enter. */
static __always_inline __u16 checksum_replace(__u16 checksum, __u32 from, __u32 to)
{
	__u32 sum = (__u16)~checksum;

	if (from == to)
		return checksum;
	sum += (__u16)~from + (__u32)(__u16)(~from >> 16);
	sum += (__u16)to + (__u32)(__u16)(to >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}
