/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * Deletes sessions that the loader has picked: those idle for too long, or those of a port that is gone. Run through
 * BPF_PROG_TEST_RUN on a frame that holds their keys behind 14 bytes: cb[0] how many keys, cb[1] nonzero to delete them
 * whatever their age, cb[2] the clock. cb[3] tells how many sessions went.
 *
 * Guarantees: age is judged here, at the last moment, so that a session that wakes up meanwhile stays; the quota follows
 * as on the packets' path. Few keys a run: it never holds up a CPU's packets for long.
 */
#pragma once
#include "ingress.h"

__noinline int session_expire(const struct session_key *key, __u32 now_s)
{
	if (!key || !bpf_map_lookup_elem(&sessions, key))
		return 0;
	return !session_get(key, now_s);
}

SEC("classifier/weft_expire")
int weft_expire(struct __sk_buff *skb)
{
	__u32 keys = skb->cb[0], whatever = skb->cb[1], now_s = skb->cb[2], gone = 0;

	for (__u32 i = 0; i < EXPIRE_KEYS_MAX && i < keys; i++) {
		struct session_key key;

		if (bpf_skb_load_bytes(skb, ETHERNET_BYTES + i * sizeof(key), &key, sizeof(key)))
			break;
		gone += whatever ? session_delete(&key) : session_expire(&key, now_s);
	}
	skb->cb[3] = gone;
	return 0;
}
