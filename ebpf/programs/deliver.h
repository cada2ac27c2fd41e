/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * The end of every way: each verdict is taken here, counted, and told in skb->cb for test runs:
 * cb[0] verdict | reason or service << 8, cb[1] output, cb[2] rule index, cb[3] PACKET_* flags.
 */
#pragma once
#include "state.h"

static __always_inline void told(struct __sk_buff *skb, struct scratch *s, __u32 verdict, __u32 what, __u32 output)
{
	skb->cb[0] = verdict | what << 8;
	skb->cb[1] = output;
	skb->cb[2] = s->rule;
	skb->cb[3] = s->flags;
}

static __always_inline int drop(struct __sk_buff *skb, struct scratch *s, __u32 reason)
{
	__u32 index = device_index(s->ingress);
	struct drop_counts *counts = bpf_map_lookup_elem(&drops, &index);

	if (counts && reason < LIMIT_DROP_REASONS_MAX)
		__sync_fetch_and_add(&counts->reasons[reason], 1);
	told(skb, s, VERDICT_DROP, reason, 0);
	return TC_ACT_SHOT;
}

/* Takes tokens from a bucket, the last ones on credit. Says whether there were any. */
static __always_inline int tokens_take(struct bucket *bucket, __u32 per_second, __u32 burst, __u32 tokens, __u32 now_s)
{
	__u64 gained = now_s > bucket->asked_s ? (__u64)(now_s - bucket->asked_s) * per_second : 0;

	bucket->spent = gained >= bucket->spent ? 0 : bucket->spent - gained;
	bucket->asked_s = now_s;
	if (bucket->spent >= burst)
		return 0;
	bucket->spent += tokens;
	return 1;
}

/* Takes one from the input's bucket in front of the agent. */
static __always_inline int bucket_take(__u32 ingress, __u32 now_s)
{
	__u32 index = device_index(ingress);
	struct bucket *bucket = bpf_map_lookup_elem(&buckets, &index);

	return bucket && tokens_take(bucket, LIMIT_SERVICE_PACKETS_PER_SECOND, LIMIT_SERVICE_PACKETS_BURST, 1, now_s);
}

struct event_record {
	struct event_head head;
	__u8 frame[LIMIT_SERVICE_FRAME_BYTES_MAX];
};

/* Hands a copy of the frame as it is now to the agent. Says whether the bucket allowed it. */
__noinline int event_send(struct __sk_buff *skb, __u32 kind, __u32 network)
{
	struct scratch *s = scratch_get();
	struct event_record *record;
	__u32 bytes = skb->len;

	if (!s || !bucket_take(s->ingress, s->now_s))
		return 0;
	record = bpf_ringbuf_reserve(&events, sizeof(*record), 0);
	if (!record)
		return 0;
	record->head.kind = kind;
	record->head.ingress = s->ingress;
	record->head.network = network;
	record->head.family = s->key.family;
	address_copy(record->head.next_hop, s->entry.next_hop);
	record->head.frame_bytes = bytes;
	record->head.mtu = s->entry.mtu;
	record->head.reserved = 0;
	if (bytes > sizeof(record->frame))
		bytes = sizeof(record->frame);
	record->head.copied_bytes = bytes;
	asm volatile("" : "+r"(bytes)); /* keep the bound that the verifier has seen */
	if (bytes < 1 || bytes > sizeof(record->frame) || bpf_skb_load_bytes(skb, 0, record->frame, bytes)) {
		bpf_ringbuf_discard(record, 0);
		return 0;
	}
	bpf_ringbuf_submit(record, 0);
	return 1;
}

static __always_inline int serve(struct __sk_buff *skb, struct scratch *s, __u32 kind)
{
	if (!event_send(skb, kind, s->network))
		return drop(skb, s, REASON_SERVICE_RATE_LIMIT);
	told(skb, s, VERDICT_SERVICE, kind, 0);
	return TC_ACT_SHOT;
}

static __always_inline void traffic_count(__u32 slot, int out, __u32 bytes)
{
	__u32 index = device_index(slot);
	struct traffic *traffic = bpf_map_lookup_elem(&traffics, &index);

	if (!traffic)
		return;
	if (out) {
		traffic->tx_packets++;
		traffic->tx_bytes += bytes;
	} else {
		traffic->rx_packets++;
		traffic->rx_bytes += bytes;
	}
}

/* What only seemed to come from a port is its subport's. */
static __always_inline void traffic_return(__u32 slot, __u32 bytes)
{
	__u32 index = device_index(slot);
	struct traffic *traffic = bpf_map_lookup_elem(&traffics, &index);

	if (traffic) {
		traffic->rx_packets--;
		traffic->rx_bytes -= bytes;
	}
}

/* Puts a tag on: 0, or -1. */
static __always_inline int tag_put(struct __sk_buff *skb, struct scratch *s, __u32 vlan)
{
	if (bpf_skb_vlan_push(skb, htons(ETHERTYPE_VLAN), vlan))
		return -1;
	/* A second one moves the first into the frame, where a test run can see it. */
	return s->flags & PACKET_TEST ? bpf_skb_vlan_push(skb, htons(ETHERTYPE_VLAN), 0) : 0;
}

/* The tag of a subport; of any other port 0. */
static __always_inline __u32 subport_vlan(__u32 slot)
{
	__u32 index = device_index(slot);
	struct device *device = bpf_map_lookup_elem(&devices, &index);

	return device ? device->flags >> DEVICE_VLAN_SHIFT : 0;
}

/* Puts the tag of a subport on, if it is one. 0, or -1. */
__noinline int subport_tag(struct __sk_buff *skb, __u32 slot)
{
	struct scratch *s = scratch_get();
	__u32 vlan = subport_vlan(slot);

	if (!s)
		return -1;
	return vlan ? tag_put(skb, s, vlan) : 0;
}

/* Puts the tag of an uplink's network on, if it has one. 0, or -1. */
__noinline int uplink_tag(struct __sk_buff *skb, __u32 slot)
{
	__u32 index = slot & ~SLOT_UPLINK;
	struct uplink_record *uplink = bpf_map_lookup_elem(&uplinks, &index);
	struct scratch *s = scratch_get();

	if (!s || !uplink)
		return -1;
	if (!uplink->vlan)
		return 0;
	return tag_put(skb, s, uplink->vlan);
}

/* Out to a guest or an uplink. */
static __always_inline int output(struct __sk_buff *skb, struct scratch *s, __u32 slot)
{
	__u32 index = device_index(slot);
	struct device *device = bpf_map_lookup_elem(&devices, &index);

	if (unlikely(!device || !device->ifindex) && !(s->flags & PACKET_TEST))
		return drop(skb, s, slot_guest(slot) ? REASON_DESTINATION_PORT_DOWN : REASON_UPLINK_MISSING);
	traffic_count(slot, 1, skb->len);
	if (!device)
		return drop(skb, s, REASON_ENGINE_ERROR);
	if (slot & SLOT_UPLINK && uplink_tag(skb, slot))
		return drop(skb, s, REASON_ENGINE_ERROR);
	if (unlikely(device->flags >> DEVICE_VLAN_SHIFT) && subport_tag(skb, slot))
		return drop(skb, s, REASON_ENGINE_ERROR);
	told(skb, s, slot & SLOT_UPLINK ? VERDICT_UPLINK : VERDICT_DELIVER, 0, slot);
	if (device->flags & DEVICE_PEER) {
		/* The host's end of the veth took it for another's: eth_type_trans is not run again at the peer. What is for
		 * everybody it took for that. */
		if (!(s->flags & PACKET_COPY))
			bpf_skb_change_type(skb, PACKET_TO_HOST);
		return bpf_redirect_peer(device->ifindex, 0);
	}
	return bpf_redirect(device->ifindex, 0);
}

/* Puts a guest's own tag on again: 0, or -1. `last`: no other one follows. */
static __always_inline int guest_tag_put(struct __sk_buff *skb, struct scratch *s, int last)
{
	if (last)
		return tag_put(skb, s, s->guest_tci);
	return bpf_skb_vlan_push(skb, htons(ETHERTYPE_VLAN), s->guest_tci) ? -1 : 0;
}

/* The same with the guest's own tag. Not to a peer itself: what the kernel takes a frame out of a tunnel for is found out anew on the
 * way to it. */
__noinline int output_tagged(struct __sk_buff *skb, __u32 slot)
{
	struct scratch *s = scratch_get();
	__u32 index = device_index(slot), uplink_index = slot & ~SLOT_UPLINK, outer = 0;
	struct device *device = bpf_map_lookup_elem(&devices, &index);
	struct uplink_record *uplink;

	if (!s || !device)
		return TC_ACT_SHOT;
	if (!device->ifindex && !(s->flags & PACKET_TEST))
		return drop(skb, s, slot_guest(slot) ? REASON_DESTINATION_PORT_DOWN : REASON_UPLINK_MISSING);
	traffic_count(slot, 1, skb->len);
	if (slot & SLOT_UPLINK) {
		uplink = bpf_map_lookup_elem(&uplinks, &uplink_index);
		if (!uplink)
			return drop(skb, s, REASON_ENGINE_ERROR);
		outer = uplink->vlan;
	} else {
		outer = device->flags >> DEVICE_VLAN_SHIFT;
	}
	if (guest_tag_put(skb, s, !outer) || (outer && tag_put(skb, s, outer)))
		return drop(skb, s, REASON_ENGINE_ERROR);
	told(skb, s, slot & SLOT_UPLINK ? VERDICT_UPLINK : VERDICT_DELIVER, 0, slot);
	return bpf_redirect(device->ifindex, 0);
}

/* With the tag that it came with, if it was one. */
static __always_inline int output_any(struct __sk_buff *skb, struct scratch *s, __u32 slot)
{
	return s->flags & PACKET_GUEST_TAG ? output_tagged(skb, slot) : output(skb, s, slot);
}

static __always_inline int reply(struct __sk_buff *skb, struct scratch *s)
{
	traffic_count(s->ingress, 1, skb->len);
	if (s->ingress & SLOT_UPLINK ? uplink_tag(skb, s->ingress) : subport_tag(skb, s->ingress))
		return drop(skb, s, REASON_ENGINE_ERROR);
	told(skb, s, VERDICT_REPLY, 0, s->ingress);
	return bpf_redirect(skb->ifindex, 0);
}

/* Puts on again what was taken off: 0, or -1. */
__noinline int tags_restore(struct __sk_buff *skb)
{
	struct scratch *s = scratch_get();

	if (!s)
		return -1;
	if (s->flags & PACKET_GUEST_TAG && guest_tag_put(skb, s, !(s->flags & PACKET_TAGGED)))
		return -1;
	if (s->flags & PACKET_TAGGED && bpf_skb_vlan_push(skb, htons(ETHERTYPE_VLAN), s->tci))
		return -1;
	return 0;
}

static __always_inline int pass(struct __sk_buff *skb, struct scratch *s)
{
	if (s->flags & (PACKET_TAGGED | PACKET_GUEST_TAG) && tags_restore(skb))
		return drop(skb, s, REASON_ENGINE_ERROR);
	told(skb, s, VERDICT_PASS, 0, 0);
	return TCX_NEXT_PROGRAM;
}
