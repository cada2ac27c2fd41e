/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * Multicast and broadcast (docs/pipeline.md, section 8). A frame is cloned once for each member of its network, back into the
 * device that it came from, with a mark that names the member: each copy is then a packet of its own, judged by the policy
 * program of its destination, or put into the tunnel to its host.
 *
 * Guarantees: a member is one of the frame's own network, and never its sender; the mark does not leave with the copy.
 */
#pragma once
#include "walk.h"

_Static_assert(LIMIT_MULTICAST_COPIES_MAX <= COPY_INDEX_MASK + 1, "members' numbers fit into the mark");
_Static_assert(LIMIT_NETWORKS_PER_HOST_MAX <= COPY_NETWORK_MASK, "networks' slots fit into the mark");
_Static_assert(!((COPY_NETWORK_MASK << COPY_NETWORK_SHIFT) & COPY_MARK_MASK), "so does the byte that says what it is");

struct copies {
	struct __sk_buff *skb;
	__u32 network;
	__u32 sender;
};

static long copy_step(__u64 index, struct copies *copies)
{
	struct member_key key = { .network = copies->network, .index = index };
	struct member *member = bpf_map_lookup_elem(&members, &key);

	/* Only guests' frames go to other hosts. */
	if (!member || member->slot == copies->sender || (member->slot & SLOT_TUNNEL && !slot_guest(copies->sender)))
		return 0;
	copies->skb->mark = COPY_MARK | copies->network << COPY_NETWORK_SHIFT | index;
	bpf_clone_redirect(copies->skb, copies->skb->ifindex, BPF_F_INGRESS);
	return 0;
}

/* Sends a copy to each member of the packet's network: 0, or why not. */
__noinline int copies_send(struct __sk_buff *skb)
{
	struct scratch *s = scratch_get();
	struct network_record *network;
	__u32 index, mark = skb->mark;
	struct bucket *bucket;

	if (!s)
		return REASON_ENGINE_ERROR;
	network = bpf_map_lookup_elem(&networks, &s->network);
	if (!network)
		return REASON_ENGINE_ERROR;
	if (network->members > LIMIT_MULTICAST_COPIES_MAX)
		return REASON_MULTICAST_UNSUPPORTED;
	index = device_index(s->ingress);
	bucket = bpf_map_lookup_elem(&copy_buckets, &index);
	if (!(s->ingress & SLOT_TUNNEL) &&
	    (!bucket || !tokens_take(bucket, LIMIT_MULTICAST_COPIES_PER_SECOND, LIMIT_MULTICAST_COPIES_BURST, network->members,
				     s->now_s)))
		return REASON_MULTICAST_RATE_LIMIT;
	s->flags |= PACKET_COPIED;
	if (s->flags & PACKET_TEST) {
		/* Whoever runs the test runs the copies too, of a tunnel's on what is left here. */
		skb->cb[4] = s->network;
		if (s->flags & PACKET_GUEST_TAG && s->ingress & SLOT_TUNNEL && guest_tag_put(skb, s, 1))
			return REASON_ENGINE_ERROR;
	} else {
		struct copies copies = { .skb = skb, .network = s->network, .sender = s->ingress };
		/* Of a subport: as it came, so that it is known again. */
		__u32 vlan = slot_guest(s->ingress) ? subport_vlan(s->ingress) : 0;

		if (s->flags & PACKET_GUEST_TAG && guest_tag_put(skb, s, 0))
			return REASON_ENGINE_ERROR;
		if (vlan && bpf_skb_vlan_push(skb, htons(ETHERTYPE_VLAN), vlan))
			return REASON_ENGINE_ERROR;
		bpf_loop(network->members, copy_step, &copies, 0);
		skb->mark = mark;
		if (vlan && bpf_skb_vlan_pop(skb))
			return REASON_ENGINE_ERROR;
		if (s->flags & PACKET_GUEST_TAG && bpf_skb_vlan_pop(skb))
			return REASON_ENGINE_ERROR;
	}
	return 0;
}

/* What has a multicast destination: copies, and on a physical network itself. */
static __always_inline int multicast(struct __sk_buff *skb, struct scratch *s, const struct network_record *network)
{
	int guest = slot_guest(s->ingress), physical = network && network->flags & NETWORK_PHYSICAL, reason;

	FRESH_ONLY(skb, s);
	if (guest && !qos_pass(skb, s->ingress, SLOT_NONE, 0, 0))
		return drop(skb, s, REASON_QOS_RATE_LIMIT);
	reason = copies_send(skb);
	asm volatile("" : "+r"(reason)); /* clang knows its range and leaves a check out that the verifier wants */
	if (guest && physical)
		return output_any(skb, s, network->uplink);
	if (physical)
		return pass(skb, s);
	if (reason)
		return drop(skb, s, reason);
	told(skb, s, VERDICT_MULTICAST, 0, 0);
	return TC_ACT_SHOT;
}

/* Not for this member: its sender, or what is the agent's. */
static __always_inline int copy_end(struct __sk_buff *skb, struct scratch *s)
{
	told(skb, s, VERDICT_MULTICAST, 0, 0);
	return TC_ACT_SHOT;
}

/* DHCP, of a port that the agent answers. */
static __always_inline int copy_owned(const struct scratch *s, const struct port_record *port)
{
	__u16 to = ntohs(s->key.destination_port);

	if (s->key.protocol != PROTOCOL_UDP)
		return 0;
	if (s->key.family == FAMILY_V4)
		return port->flags & PORT_DHCP && (to == 67 || to == 68);
	return port->flags & PORT_DHCPV6 && (to == 546 || to == 547);
}

static __always_inline int copy_tunnel(struct __sk_buff *skb, struct scratch *s, const struct network_record *network, __u32 host)
{
	__u16 port = tunnel_port(&s->key, s->key.source, s->key.destination, s->key.source_port, s->key.destination_port);

	if (packet_bytes(skb, s) > network->mtu)
		return drop(skb, s, REASON_MTU_EXCEEDED);
	if (s->flags & PACKET_GUEST_TAG)
		return encapsulate_tagged(skb, network->tunnel, host, port);
	return encapsulate(skb, network->tunnel, host, port);
}

/* One copy, on its own: back in from the device that the frame came from. */
SEC("classifier/weft_copy")
int weft_copy(struct __sk_buff *skb)
{
	struct scratch *s = scratch_get();
	__u32 mark = skb->mark;
	struct member_key key = { .network = mark >> COPY_NETWORK_SHIFT & COPY_NETWORK_MASK, .index = mark & COPY_INDEX_MASK };
	struct network_record *network;
	struct port_record *port;
	struct member *member;
	int reason;

	if (!s)
		return TC_ACT_SHOT;
	skb->mark = 0;
	network = bpf_map_lookup_elem(&networks, &key.network);
	member = bpf_map_lookup_elem(&members, &key);
	if (!network || !member)
		return drop(skb, s, REASON_DESTINATION_PORT_DOWN);
	if (slot_guest(s->ingress)) {
		if (tag_there(skb)) {
			reason = subport_enter(skb, s);
			if (reason && (reason != REASON_VLAN_UNKNOWN || !(network->flags & NETWORK_TRANSPARENT)))
				return drop(skb, s, reason);
		}
		port = bpf_map_lookup_elem(&ports, &s->ingress);
		if (!port || port->network != key.network)
			return drop(skb, s, REASON_PORT_DOWN);
		s->role = port->role;
	} else {
		s->role = ROLE_PROMISCUOUS;
		s->ingress = s->ingress & SLOT_UPLINK ? network->uplink : network->tunnel;
	}
	s->network = key.network;
	s->flags |= PACKET_COPY;
	if (member->slot == s->ingress || (member->slot & SLOT_TUNNEL && !slot_guest(s->ingress)))
		return copy_end(skb, s);
	if (unlikely(tag_there(skb))) {
		reason = guest_tag_take(skb);
		asm volatile("" : "+r"(reason)); /* as above */
		if (reason)
			return drop(skb, s, reason);
	}
	reason = decode(skb);
	if (!reason && s->flags & PACKET_GUEST_TAG)
		reason = tagged_settle(skb);
	asm volatile("" : "+r"(reason));
	if (!reason && s->flags & PACKET_FRAGMENT && !fragment_follow())
		reason = REASON_FRAGMENT_UNKNOWN;
	if (reason)
		return drop(skb, s, reason);
	if (member->slot & SLOT_TUNNEL)
		return copy_tunnel(skb, s, network, member->slot & ~SLOT_TUNNEL);
	port = bpf_map_lookup_elem(&ports, &member->slot);
	/* What the uplink overheard (section 3): no rules, no limits. */
	if (!s->key.vlan &&
	    (s->ethertype == ETHERTYPE_ARP || (s->key.protocol == PROTOCOL_ICMPV6 && s->key.family == FAMILY_V6 &&
					       !(s->flags & PACKET_LATER) && nd_type(s->icmp_type)))) {
		if (!port || !(port->flags & PORT_UP))
			return drop(skb, s, REASON_DESTINATION_PORT_DOWN);
		return output(skb, s, member->slot);
	}
	if (port && !s->key.vlan && copy_owned(s, port))
		return copy_end(skb, s);
	if (s->ingress & SLOT_TUNNEL) {
		struct fdb_entry *sender = fdb_get(s->network, s->source_mac);

		if (sender && sender->flags & FDB_REMOTE && !(sender->flags & FDB_INTERFACE))
			s->role = sender->role;
	}
	s->forward = s->key;
	s->opener_type = s->icmp_type;
	s->opener_code = s->icmp_code;
	s->policy.rule_index = POLICY_RULE_NONE;
	s->out.output = member->slot;
	address_copy(s->out.source, s->key.source);
	s->out.destination_port = s->key.destination_port;
	bpf_tail_call(skb, &stages, STAGE_DESTINATION);
	return drop(skb, s, REASON_ENGINE_ERROR);
}

/* A copy that its destination's policy allows. */
static __always_inline int copy_deliver(struct __sk_buff *skb, struct scratch *s)
{
	if (!qos_pass(skb, SLOT_NONE, s->out.output, 0, 0))
		return drop(skb, s, REASON_QOS_RATE_LIMIT);
	return output_any(skb, s, s->out.output);
}
