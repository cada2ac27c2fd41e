/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * Collects what is idle for too long, and what belonged to a port that is gone. Run by the loader through
 * BPF_PROG_TEST_RUN: cb[0] is a port's slot or SLOT_NONE, cb[1] and cb[2] as for the ways in.
 *
 * Guarantees: it deletes only sessions that a packet would not find any more, or of that port. Entry by entry: it never
 * holds up a packet.
 */
#pragma once
#include "ingress.h"

struct collection {
	__u32 slot;
	__u32 now_s;
	__u32 sessions;
};

static long session_collect(void *map, const struct session_key *key, struct session *e, struct collection *c)
{
	struct session_key copy = *key;

	(void)map;
	if (c->slot != SLOT_NONE) {
		if (key->ingress != c->slot && e->output != c->slot && e->owner != c->slot)
			return 0;
		session_entry_delete(&copy, e);
		c->sessions++;
		return 0;
	}
	if (session_idle(&copy, e, c->now_s) && !session_get(&copy, c->now_s))
		c->sessions++;
	return 0;
}

SEC("classifier/weft_expire")
int weft_expire(struct __sk_buff *skb)
{
	struct collection c = { .slot = skb->cb[0], .now_s = skb->cb[2] };

	if (skb->cb[1] != 1)
		c.now_s = bpf_ktime_get_coarse_ns() / 1000000000;
	bpf_for_each_map_elem(&sessions, session_collect, &c, 0);
	skb->cb[3] = c.sessions;
	return 0;
}
