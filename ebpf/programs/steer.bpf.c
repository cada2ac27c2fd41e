// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
/*
 * Steers, on an interface that the user engine has to itself for its tunnels, what is for this host's end of them to AF_XDP
 * sockets: VXLAN, GENEVE and GRE to the tunnel address, and the ARP and ND by which that address is found and others are.
 * Everything else, and everything on queues without a socket, goes to the kernel. Native or generic XDP.
 */
#include "base.h"

#define QUEUES_MAX 64
#define IPV4_FRAGMENT 0x3fff
#define ND_SOLICITATION 135
#define ND_ADVERTISEMENT 136

static long (*bpf_redirect_map)(void *map, __u64 key, __u64 flags) = (void *)51;

struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__uint(max_entries, QUEUES_MAX);
	__type(key, __u32);
	__type(value, __u32);
} sockets SEC(".maps");

/* This host's tunnel address: IPv4's in the first four bytes. */
const volatile __u8 tunnel_address[16] = {0};
const volatile __u8 tunnel_is_v6 = 0;

static __always_inline int is_own(const __u8 *address, int bytes)
{
	for (int i = 0; i < bytes; i++)
		if (address[i] != tunnel_address[i])
			return 0;
	return 1;
}

static __always_inline int is_tunnel(const void *transport, const void *end, __u8 protocol)
{
	const struct udp *udp = transport;

	if (protocol == PROTOCOL_GRE)
		return 1;
	if (protocol != PROTOCOL_UDP || (const void *)(udp + 1) > end)
		return 0;
	return udp->destination == htons(VXLAN_PORT) || udp->destination == htons(GENEVE_PORT);
}

/* ND of the tunnel address: asked for, to all that may have it; told, to whom asked. The message's target is behind its first words. */
static __always_inline int is_nd(const struct ipv6 *ip, const void *end)
{
	const __u8 *message = (const void *)(ip + 1);

	if ((const void *)(message + 24) > end || ip->hops != 255)
		return 0;
	if (message[0] == ND_SOLICITATION)
		return is_own(message + 8, 16);
	return message[0] == ND_ADVERTISEMENT && (ip->destination[0] == 0xff || is_own(ip->destination, 16));
}

static __always_inline int is_for_sockets(const void *data, const void *end)
{
	const struct ethernet *link = data;
	const void *packet = link + 1;

	if (packet > end)
		return 0;
	if (!tunnel_is_v6 && link->type == htons(ETHERTYPE_ARP)) {
		const struct arp *arp = packet;

		return (const void *)(arp + 1) <= end && is_own(arp->target, 4);
	}
	if (!tunnel_is_v6 && link->type == htons(ETHERTYPE_IPV4)) {
		const struct ipv4 *ip = packet;

		/* Options and fragments are nothing that other hosts' engines send. */
		if ((const void *)(ip + 1) > end || ip->version_ihl != 0x45 || ip->fragment & htons(IPV4_FRAGMENT))
			return 0;
		return is_own((const __u8 *)&ip->destination, 4) && is_tunnel(ip + 1, end, ip->protocol);
	}
	if (tunnel_is_v6 && link->type == htons(ETHERTYPE_IPV6)) {
		const struct ipv6 *ip = packet;

		if ((const void *)(ip + 1) > end)
			return 0;
		if (ip->next == PROTOCOL_ICMPV6)
			return is_nd(ip, end);
		return is_own(ip->destination, 16) && is_tunnel(ip + 1, end, ip->next);
	}
	return 0;
}

SEC("xdp")
int weft_steer(struct xdp_md *context)
{
	const void *data = (const void *)(long)context->data;
	const void *end = (const void *)(long)context->data_end;

	if (!is_for_sockets(data, end))
		return XDP_PASS;
	return bpf_redirect_map(&sockets, context->rx_queue_index, XDP_PASS);
}

char _license[] SEC("license") = "Dual MIT/GPL";
