/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * QoS: the limits of the two ports that a packet passes and of the addresses that NAT gives it, and the mark of the first
 * port (docs/pipeline.md, section 6).
 *
 * Guarantees: several CPUs that send by one port share its limit; a GSO packet counts as its segments. Sessions of ports
 * and addresses without a policy do not come here.
 */
#pragma once
#include "meter.h"

#define QOS_TRIES 4

/* Takes so many units of one of a port's limits: 0 if it refuses. */
static __always_inline int qos_take(const struct qos_rate *rate, __u64 *paid, __u64 now_ns, __u64 units)
{
	__u64 cost, was;

	if (!rate->per_unit)
		return 1;
	cost = (units * rate->per_unit) >> RATE_FRACTION_BITS;
	for (int i = 0; i < QOS_TRIES; i++) {
		was = *(volatile __u64 *)paid;
		if (was >= now_ns + rate->burst_ns)
			return 0;
		if (__sync_val_compare_and_swap(paid, was, (was > now_ns ? was : now_ns) + cost) == was)
			return 1;
	}
	/* Others were faster each time: they are ahead of now. */
	__sync_fetch_and_add(paid, cost);
	return 1;
}

/* Bytes on the wire, and packets: a GSO packet has the headers of each of its segments. */
static __always_inline void qos_units(struct __sk_buff *skb, struct scratch *s, __u64 *bytes, __u64 *packets)
{
	__u32 headers = s->l4_offset + s->l4_header, segment = skb->gso_size, length = skb->len;

	*bytes = length;
	*packets = 1;
	if (likely(!segment) || length <= headers)
		return;
	*packets = (length - headers + segment - 1) / segment;
	*bytes += (*packets - 1) * headers;
}

static __always_inline int qos_limit(const struct qos_record *record, struct qos_paid *paid, int first, __u64 now_ns,
				     __u64 bytes, __u64 packets)
{
	if (!record || !paid)
		return 1;
	return qos_take(&record->rates[first], &paid->paid_ns[first], now_ns, bytes) &&
	       qos_take(&record->rates[first + 1], &paid->paid_ns[first + 1], now_ns, packets);
}

static __always_inline int qos_port(__u32 slot, int first, __u64 now_ns, __u64 bytes, __u64 packets)
{
	if (!slot_guest(slot))
		return 1;
	return qos_limit(bpf_map_lookup_elem(&qos, &slot), bpf_map_lookup_elem(&qos_paid, &slot), first, now_ns, bytes,
			 packets);
}

static __always_inline int qos_address(__u32 account, int first, __u64 now_ns, __u64 bytes, __u64 packets)
{
	if (!account)
		return 1;
	return qos_limit(bpf_map_lookup_elem(&accounts, &account), bpf_map_lookup_elem(&accounts_paid, &account), first, now_ns,
			 bytes, packets);
}

/* Whether the packet may pass from `from` to `output`, and by these addresses; what is no guest's has no limits. */
__noinline int qos_pass(struct __sk_buff *skb, __u32 from, __u32 output, __u32 account_from, __u32 account_to)
{
	struct scratch *s = scratch_get();
	__u64 now_ns, bytes, packets;

	if (!s)
		return 0;
	now_ns = s->flags & PACKET_TEST ? s->now_s * 1000000000ULL : bpf_ktime_get_ns();
	qos_units(skb, s, &bytes, &packets);
	return qos_port(from, QOS_EGRESS, now_ns, bytes, packets) &&
	       qos_port(output, QOS_INGRESS, now_ns, bytes, packets) &&
	       qos_address(account_from, QOS_EGRESS, now_ns, bytes, packets) &&
	       qos_address(account_to, QOS_INGRESS, now_ns, bytes, packets);
}

/* Writes a mark; the bits of ECN stay. */
static __always_inline int dscp_write(struct __sk_buff *skb, struct scratch *s, __u8 dscp)
{
	void *data, *end;
	struct ipv4 *ip;
	__u8 bytes[2];
	__u32 from, to;

	if (s->key.family == FAMILY_V6) {
		if (bpf_skb_load_bytes(skb, ETHERNET_BYTES, bytes, 2))
			return -1;
		bytes[0] = (bytes[0] & 0xf0) | (dscp >> 2 & 0x0f);
		bytes[1] = (bytes[1] & 0x3f) | dscp << 6;
		return bpf_skb_store_bytes(skb, ETHERNET_BYTES, bytes, 2, BPF_F_RECOMPUTE_CSUM);
	}
	data = (void *)(long)skb->data;
	end = (void *)(long)skb->data_end;
	ip = data + ETHERNET_BYTES;
	if ((void *)(ip + 1) > end)
		return -1;
	from = ip->version_ihl | ip->tos << 8;
	ip->tos = (ip->tos & 3) | dscp << 2;
	to = ip->version_ihl | ip->tos << 8;
	ip->checksum = checksum_replace(ip->checksum, from, to);
	return 0;
}

/* What a session's ports and addresses ask of a packet, and its meter: 0, or why it dies. */
static __always_inline int qos_apply(struct __sk_buff *skb, struct scratch *s, const struct session *e)
{
	__u64 bytes, packets;

	if (likely(!(e->flags & (SESSION_QOS | SESSION_DSCP | SESSION_METERED))))
		return 0;
	if (e->flags & SESSION_QOS && !qos_pass(skb, s->ingress, e->output, e->account_from, e->account_to))
		return REASON_QOS_RATE_LIMIT;
	if (e->flags & SESSION_METERED) {
		qos_units(skb, s, &bytes, &packets);
		meter_count(e->meter, packets, bytes);
	}
	if (e->flags & SESSION_DSCP && dscp_write(skb, s, e->dscp))
		return REASON_ENGINE_ERROR;
	return 0;
}

/* What a session's direction must remember of its ports, and of the addresses that NAT gives it. */
static __always_inline void qos_note(struct session *e, __u32 from, __u32 to, __u32 account_from, __u32 account_to)
{
	struct qos_record *record;

	e->account_from = account_from;
	e->account_to = account_to;
	if (account_from || account_to)
		e->flags |= SESSION_QOS;

	if (slot_guest(from)) {
		record = bpf_map_lookup_elem(&qos, &from);
		if (record) {
			e->flags |= record->flags & (SESSION_QOS | SESSION_DSCP);
			e->dscp = record->dscp;
		}
	}
	if (slot_guest(to)) {
		record = bpf_map_lookup_elem(&qos, &to);
		if (record)
			e->flags |= record->flags & SESSION_QOS;
	}
}
