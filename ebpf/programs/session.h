/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * Sessions: lookup, age, state, deletion, and the fragments that belong to them (docs/pipeline.md, section 4).
 *
 * Guarantees: a session's two entries come and go together, as far as two map operations can; its port's quota follows
 * its forward entry: whoever deletes that, gives one back.
 */
#pragma once
#include "deliver.h"

static __always_inline int keys_equal(const struct session_key *a, const struct session_key *b)
{
	const __u32 *x = (const void *)a, *y = (const void *)b;
	__u32 differs = 0;

	for (int i = 0; i < (int)(sizeof(*a) / 4); i++)
		differs |= x[i] ^ y[i];
	return !differs;
}

/* The key of the other direction. */
static __always_inline void session_other_key(struct session_key *to, const struct session_key *key, const struct session *e)
{
	to->ingress = e->other_ingress;
	address_copy(to->source, e->destination);
	address_copy(to->destination, e->source);
	to->source_port = e->destination_port;
	to->destination_port = e->source_port;
	to->protocol = key->protocol;
	to->family = key->family;
	to->vlan = key->vlan;
}

static __always_inline __u32 session_timeout_s(__u8 protocol, __u8 state)
{
	if (protocol == PROTOCOL_TCP)
		return state == STATE_OPENING ? TIMEOUT_TCP_OPENING :
		       state == STATE_CLOSING ? TIMEOUT_TCP_CLOSING :
						TIMEOUT_TCP_ESTABLISHED;
	if (protocol == PROTOCOL_ICMP || protocol == PROTOCOL_ICMPV6)
		return TIMEOUT_ICMP;
	return state == STATE_OPENING ? TIMEOUT_UDP_OPENING : TIMEOUT_UDP_ESTABLISHED;
}

static __always_inline int session_idle(const struct session_key *key, const struct session *e, __u32 now_s)
{
	__u32 seen_s = e->seen_s;

	return now_s > seen_s && now_s - seen_s > session_timeout_s(key->protocol, e->state);
}

/* Deletes one entry; a forward one gives its port's quota back. */
static __always_inline void session_entry_delete(const struct session_key *key, const struct session *e)
{
	__u32 owner = e->owner;
	int forward = e->flags & SESSION_FORWARD;
	__u32 *count;

	if (bpf_map_delete_elem(&sessions, key) || !forward)
		return;
	count = bpf_map_lookup_elem(&quotas, &owner);
	if (count)
		__sync_fetch_and_add(count, -1);
}

/* The entry under `key`, unless its session is idle for too long: then both are deleted. */
static __always_inline struct session *session_get(const struct session_key *key, __u32 now_s)
{
	struct session *e = bpf_map_lookup_elem(&sessions, key), *other;
	struct session_key other_key;

	if (!e || likely(!session_idle(key, e, now_s)))
		return e;
	session_other_key(&other_key, key, e);
	other = bpf_map_lookup_elem(&sessions, &other_key);
	if (other && !((other->flags ^ e->flags) & SESSION_FORWARD))
		other = 0; /* another session's: ours was replaced */
	if (other && !session_idle(&other_key, other, now_s))
		return e;
	if (other)
		session_entry_delete(&other_key, other);
	session_entry_delete(key, e);
	return 0;
}

/* Deletes the session that has an entry under `key`. */
__noinline int session_delete(const struct session_key *key)
{
	struct session_key other_key;
	struct session *e, *other;

	if (!key)
		return 0;
	e = bpf_map_lookup_elem(&sessions, key);
	if (!e)
		return 0;
	session_other_key(&other_key, key, e);
	other = bpf_map_lookup_elem(&sessions, &other_key);
	if (other && (other->flags ^ e->flags) & SESSION_FORWARD)
		session_entry_delete(&other_key, other);
	session_entry_delete(key, e);
	return 1;
}

/* Whether `key` is taken, by a session that is not idle for too long. */
__noinline int session_taken(const struct session_key *key)
{
	struct scratch *s = scratch_get();

	if (!key || !s)
		return 1;
	return session_get(key, s->now_s) != 0;
}

static __always_inline int protocol_icmp(__u8 family)
{
	return family == FAMILY_V4 ? PROTOCOL_ICMP : PROTOCOL_ICMPV6;
}

/* The type of the answer to a query, of the query to an answer; of all others the type itself. */
static __always_inline __u8 icmp_counterpart(__u8 family, __u8 type)
{
	if (family == FAMILY_V6)
		return type == 128 || type == 129 ? type ^ 1 : type;
	if (type == 0 || type == 8)
		return type ^ 8;
	if (type == 13 || type == 15 || type == 17)
		return type + 1;
	return type == 14 || type == 16 || type == 18 ? type - 1 : type;
}

/* An ICMP packet is of the exchange that opened the session, and goes the way of its type. */
static __always_inline int icmp_belongs(const struct scratch *s, const struct session *e)
{
	if (likely(s->key.protocol != protocol_icmp(s->key.family)))
		return 1;
	if (e->flags & SESSION_FORWARD)
		return s->icmp_type == e->icmp_type;
	return icmp_counterpart(s->key.family, s->icmp_type) == e->icmp_type;
}

static __always_inline int session_fresh(const struct session_key *key, const struct session *e)
{
	return e->revision == revision_get(0) && e->revision_ingress == revision_of(key->ingress) &&
	       e->revision_output == revision_of(e->output);
}

static __always_inline __u8 session_state_next(struct scratch *s, const struct session *e)
{
	__u8 state = e->state;

	if (s->flags & PACKET_LATER)
		return state;
	if (s->key.protocol == PROTOCOL_TCP) {
		if (s->tcp_flags & (TCP_FIN | TCP_RST))
			return STATE_CLOSING;
		if (state == STATE_CLOSING && e->flags & SESSION_FORWARD && (s->tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN)
			return STATE_OPENING;
	}
	if (state == STATE_OPENING && !(e->flags & SESSION_FORWARD))
		return STATE_ESTABLISHED;
	return state;
}

/* Counts a packet of the session: time, state, counters. */
static __always_inline void session_count(struct __sk_buff *skb, struct scratch *s, struct session *e)
{
	__u8 state = session_state_next(s, e);

	if (e->seen_s != s->now_s)
		e->seen_s = s->now_s;
	if (unlikely(state != e->state)) {
		struct session_key other_key;
		struct session *other;

		e->state = state;
		session_other_key(&other_key, &s->key, e);
		other = bpf_map_lookup_elem(&sessions, &other_key);
		if (other && (other->flags ^ e->flags) & SESSION_FORWARD)
			other->state = state;
	}
	__sync_fetch_and_add(&e->packets, 1);
	__sync_fetch_and_add(&e->bytes, skb->len);
}

/* Writes what a first fragment said, or reads it for a later one. Says whether it is known. */
__noinline int fragment_follow(void)
{
	struct scratch *s = scratch_get();
	struct fragment_key key = {};
	struct fragment *known;

	if (!s)
		return 0;
	key.ingress = s->ingress;
	key.identification = s->identification;
	key.protocol = s->key.protocol;
	key.family = s->key.family;
	key.vlan = s->key.vlan;
	address_copy(key.source, s->key.source);
	address_copy(key.destination, s->key.destination);
	if (!(s->flags & PACKET_LATER)) {
		struct fragment first = {
			.source_port = s->key.source_port,
			.destination_port = s->key.destination_port,
			.icmp_type = s->icmp_type,
			.icmp_code = s->icmp_code,
			.tcp_flags = s->tcp_flags,
			.flags = s->flags & (PACKET_ICMP_QUERY | PACKET_ICMP_ERROR),
		};

		bpf_map_update_elem(&fragments, &key, &first, 0);
		return 1;
	}
	known = bpf_map_lookup_elem(&fragments, &key);
	if (!known)
		return 0;
	s->key.source_port = known->source_port;
	s->key.destination_port = known->destination_port;
	s->icmp_type = known->icmp_type;
	s->icmp_code = known->icmp_code;
	s->tcp_flags = known->tcp_flags;
	s->flags |= known->flags;
	return 1;
}
