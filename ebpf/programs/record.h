/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * Record: the walk's result becomes a session of two entries (docs/pipeline.md, section 6.3 and SNAT's port).
 *
 * Guarantees: a port never holds more sessions than its quota; a session whose reply entry does not fit is not there at all.
 */
#pragma once
#include "forward.h"

/* The reply key that the walk's result leads to. */
static __always_inline void reply_key(struct session_key *to, const struct scratch *s)
{
	to->ingress = s->out.reply_ingress;
	address_copy(to->source, s->out.destination);
	address_copy(to->destination, s->out.source);
	to->source_port = s->out.destination_port;
	to->destination_port = s->out.source_port;
	to->protocol = s->forward.protocol;
	to->family = s->forward.family;
	to->vlan = s->forward.vlan;
}

/* Where replies go, and with which link header: the mirror of the way forward, unless one of both is a tunnel. */
static __always_inline void reply_link_fill(struct scratch *s, struct session *r)
{
	struct network_record *network;

	if (s->forward.ingress & SLOT_TUNNEL) {
		r->flags |= s->back.flags;
		r->output = s->back.output;
		r->tunnel_host = s->back.tunnel_host;
		r->mtu = s->back.mtu;
		r->ttl = s->back.ttl;
		mac_copy(r->match_mac, s->opener_source_mac);
		mac_copy(r->source_mac, s->back.source_mac);
		mac_copy(r->destination_mac, s->back.destination_mac);
		return;
	}
	int transit = s->forward.ingress & SLOT_UPLINK && slot_guest(s->out.output) && s->back.flags & SESSION_TRANSIT;

	r->output = s->forward.ingress;
	if (transit) {
		r->flags |= SESSION_TRANSIT;
		r->tunnel_host = s->back.tunnel_host;
		r->mtu = s->back.mtu;
	}
	mac_copy(r->source_mac, s->opener_destination_mac);
	mac_copy(r->destination_mac, s->opener_source_mac);
	if ((s->out.flags & (SESSION_ROUTED | SESSION_TUNNEL)) != SESSION_ROUTED) {
		mac_copy(r->match_mac, s->opener_source_mac);
		return;
	}
	network = bpf_map_lookup_elem(&networks, &s->network);
	r->flags |= SESSION_ROUTED;
	r->ttl = s->out.ttl;
	if (transit && !s->back.resolved)
		__builtin_memset(r->destination_mac, 0, 6);
	if (network && (!transit || network->mtu < r->mtu))
		r->mtu = network->mtu;
	mac_copy(r->match_mac, s->out.source_mac);
}

/* The transformations of both directions: s->entry is the forward one, s->other the reply's. */
__noinline int entries_fill(void)
{
	struct scratch *s = scratch_get();
	struct session *f, *r;
	__u16 nat;

	if (!s)
		return -1;
	f = &s->entry;
	r = &s->other;
	__builtin_memset(f, 0, sizeof(*f));
	__builtin_memset(r, 0, sizeof(*r));
	nat = s->out.flags & (SESSION_NAT_SOURCE | SESSION_NAT_DESTINATION);
	mac_copy(f->match_mac, s->opener_destination_mac);
	f->flags = SESSION_FORWARD | s->out.flags;
	r->flags = (nat & SESSION_NAT_SOURCE ? SESSION_NAT_DESTINATION : 0) |
		   (nat & SESSION_NAT_DESTINATION ? SESSION_NAT_SOURCE : 0);
	f->revision = r->revision = s->revision;
	f->revision_ingress = r->revision_output = s->revision_ingress;
	f->revision_output = r->revision_ingress = s->revision_output;
	f->output = s->out.output;
	f->ttl = s->out.ttl;
	f->icmp_type = r->icmp_type = s->opener_type;
	f->icmp_code = r->icmp_code = s->opener_code;
	f->mtu = s->out.mtu;
	mac_copy(f->source_mac, s->out.source_mac);
	mac_copy(f->destination_mac, s->out.destination_mac);
	reply_link_fill(s, r);
	address_copy(f->source, s->out.source);
	address_copy(f->destination, s->out.destination);
	address_copy(r->source, s->forward.destination);
	address_copy(r->destination, s->forward.source);
	f->source_port = s->out.source_port;
	f->destination_port = s->out.destination_port;
	r->source_port = s->forward.destination_port;
	r->destination_port = s->forward.source_port;
	f->owner = r->owner = slot_guest(s->forward.ingress) ? s->forward.ingress : s->out.output;
	f->tunnel_host = s->out.tunnel_host;
	f->other_ingress = s->out.reply_ingress;
	r->other_ingress = s->forward.ingress;
	if (f->flags & (SESSION_TUNNEL | SESSION_TRANSIT))
		f->tunnel_port = tunnel_port(&s->forward, f->source, f->destination, f->source_port, f->destination_port);
	if (s->denied) {
		r->flags |= SESSION_DENIED;
		r->denied = s->denied;
	}
	if (r->flags & (SESSION_TUNNEL | SESSION_TRANSIT))
		r->tunnel_port = tunnel_port(&s->forward, r->source, r->destination, r->source_port, r->destination_port);
	address_copy(f->next_hop, s->out.next_hop);
	mac_copy(f->opener_mac, s->opener_source_mac);
	mac_copy(r->opener_mac, s->opener_source_mac);
	f->network = r->network = s->network;
	f->seen_s = r->seen_s = s->now_s;
	qos_note(f, s->forward.ingress, f->output, s->out.account_source, s->out.account_destination);
	qos_note(r, f->output, r->output, s->out.account_destination, s->out.account_source);
	if (unlikely(s->out.gateway))
		return meters_note();
	return 0;
}

/* Where SNAT puts the port: ICMP's identifier and everybody's source port alike. */
static __always_inline int snat_try(struct scratch *s, __u16 port)
{
	s->out.source_port = port;
	reply_key(&s->reply, s);
	return !session_taken(&s->reply);
}

struct snat_search {
	__u32 hash;
	__u32 found;
};

static long snat_step(__u64 index, struct snat_search *search)
{
	struct scratch *s = scratch_get();
	__u32 first, size, i = index + 1;

	if (!s)
		return 1;
	first = s->out.snat_first;
	size = s->out.snat_last - first + 1;
	if (!size)
		return 1;
	if (!snat_try(s, htons(first + (search->hash + i * 40503) % size)))
		return 0;
	search->found = 1;
	return 1;
}

/* Takes a port for s->out: 0, or -1 if there is none. */
__noinline int snat_take(void)
{
	struct scratch *s = scratch_get();
	struct snat_search search = { .hash = 0x9e3779b9 };
	__u8 protocol;
	__u16 port;

	if (!s)
		return -1;
	protocol = s->forward.protocol;
	port = ntohs(s->forward.source_port);
	if (!protocol_has_ports(protocol) && protocol != PROTOCOL_ICMP)
		return s->out.snat & SNAT_PORTLESS && snat_try(s, 0) ? 0 : -1;
	if (port >= s->out.snat_first && port <= s->out.snat_last && snat_try(s, s->forward.source_port))
		return 0;
	if (protocol == PROTOCOL_SCTP)
		return -1;
	search.hash = hash_mix(search.hash, protocol);
	search.hash = hash_mix(search.hash, ntohl(load32(s->forward.source)));
	search.hash = hash_mix(search.hash, ntohl(load32(s->forward.destination)));
	search.hash = hash_mix(search.hash, port << 16 | ntohs(s->forward.destination_port));
	bpf_loop(LIMIT_NAT_PORT_TRIES_MAX - 1, snat_step, &search, 0);
	return search.found ? 0 : -1;
}

/* One more session for the port: 0, or -1 at its quota. */
static __always_inline int quota_take(__u32 owner)
{
	__u32 *count;

	if (!slot_guest(owner))
		return 0;
	count = bpf_map_lookup_elem(&quotas, &owner);
	if (!count)
		return -1;
	if (__sync_fetch_and_add(count, 1) >= sessions_per_port_max) {
		__sync_fetch_and_add(count, -1);
		return -1;
	}
	return 0;
}

static __always_inline void quota_give(__u32 owner)
{
	__u32 *count;

	if (!slot_guest(owner))
		return;
	count = bpf_map_lookup_elem(&quotas, &owner);
	if (count)
		__sync_fetch_and_add(count, -1);
}

/* Whom the session counts for. */
static __always_inline __u32 session_owner(const struct scratch *s)
{
	return slot_guest(s->forward.ingress) ? s->forward.ingress : s->out.output;
}

/* Makes room for a miss, and finds its reply key. 0, or why not. */
static __always_inline int session_place(struct scratch *s)
{
	__u32 owner = session_owner(s);

	session_delete(&s->forward);
	reply_key(&s->reply, s);
	if (!s->out.snat) {
		session_delete(&s->reply);
		if (keys_equal(&s->forward, &s->reply))
			return REASON_NO_ROUTE;
	}
	if (quota_take(owner))
		return REASON_SESSION_QUOTA;
	if (s->out.snat && snat_take()) {
		quota_give(owner);
		return REASON_NAT_PORTS_EXHAUSTED;
	}
	return 0;
}

/* Records a miss that has its place; s->entry is its direction then. 0, or why not. */
static __always_inline int session_open(struct __sk_buff *skb, struct scratch *s)
{
	int reason = 0;

	if (entries_fill())
		reason = REASON_ENGINE_ERROR;
	if (!reason) {
		s->entry.packets = 1;
		s->entry.bytes = skb->len;
		if (bpf_map_update_elem(&sessions, &s->forward, &s->entry, BPF_ANY)) {
			reason = REASON_SESSION_TABLE_FULL;
		} else if (bpf_map_update_elem(&sessions, &s->reply, &s->other, BPF_ANY)) {
			bpf_map_delete_elem(&sessions, &s->forward);
			reason = REASON_SESSION_TABLE_FULL;
		}
	}
	if (reason)
		quota_give(session_owner(s));
	return reason;
}

/* Whether the walk still translates as the session does. SNAT: into its port, if the block still holds it. */
static __always_inline int session_holds(struct scratch *s)
{
	__u16 was = s->reply.destination_port, port = ntohs(was);

	if (s->out.snat) {
		if (!protocol_has_ports(s->forward.protocol) && s->forward.protocol != PROTOCOL_ICMP) {
			if (!(s->out.snat & SNAT_PORTLESS))
				return 0;
			s->out.source_port = 0;
		} else if (port < s->out.snat_first || port > s->out.snat_last) {
			return 0;
		} else {
			s->out.source_port = was;
		}
	}
	return s->out.reply_ingress == s->reply.ingress && address_equal(s->out.destination, s->reply.source) &&
	       address_equal(s->out.source, s->reply.destination) && s->out.destination_port == s->reply.source_port &&
	       s->out.source_port == was;
}

/* What a session keeps when it is recorded anew. */
static __always_inline void session_keep(struct session *to, const struct session *from)
{
	to->seen_s = from->seen_s;
	to->state = from->state;
	to->packets = from->packets;
	to->bytes = from->bytes;
}

/* Records a stale session anew that still holds; s->entry is this packet's direction then. 0, or why not. */
static __always_inline int session_renew(struct __sk_buff *skb, struct scratch *s)
{
	struct session *forward, *reply;

	forward = bpf_map_lookup_elem(&sessions, &s->forward);
	reply = bpf_map_lookup_elem(&sessions, &s->reply);
	if (!forward || !reply || forward->output != s->out.output)
		return REASON_SESSION_REVOKED;
	if (entries_fill())
		return REASON_ENGINE_ERROR;
	session_keep(&s->entry, forward);
	session_keep(&s->other, reply);
	if (bpf_map_update_elem(&sessions, &s->forward, &s->entry, BPF_EXIST) ||
	    bpf_map_update_elem(&sessions, &s->reply, &s->other, BPF_EXIST))
		return REASON_SESSION_TABLE_FULL;
	if (s->flags & PACKET_REPLY)
		s->entry = s->other;
	if (!(s->flags & PACKET_ICMP_ERROR)) {
		struct session *e = bpf_map_lookup_elem(&sessions, &s->key);

		if (e)
			session_count(skb, s, e);
	}
	return 0;
}

/* The walk's end: what the session is, is known. */
static __always_inline int record_end(struct __sk_buff *skb, struct scratch *s)
{
	int reason;

	if (s->flags & PACKET_STALE) {
		reason = session_renew(skb, s);
		if (reason)
			return walk_fail(skb, s, reason);
		if (s->flags & PACKET_ICMP_ERROR)
			return error_apply(skb, s);
	} else {
		reason = session_open(skb, s);
		if (reason)
			return drop(skb, s, reason);
	}
	bpf_tail_call(skb, &stages, unlikely(s->forward.vlan) ? STAGE_APPLY_TAGGED : STAGE_APPLY);
	return drop(skb, s, REASON_ENGINE_ERROR);
}

/* The walk ends on the way to there. */
static __always_inline int record_fail(struct __sk_buff *skb, struct scratch *s)
{
	if (!(s->flags & PACKET_STALE))
		quota_give(session_owner(s));
	return walk_fail(skb, s, REASON_ENGINE_ERROR);
}

SEC("classifier/weft_record")
int weft_record(struct __sk_buff *skb)
{
	struct scratch *s = scratch_get();
	int reason;

	if (!s)
		return TC_ACT_SHOT;
	if (slot_guest(s->out.output) && s->out.checked) {
		s->rule = s->policy.rule_index;
		decided(s, s->out.output, s->out.checked, LOG_INGRESS, s->rule != POLICY_RULE_NONE);
		if (s->rule == POLICY_RULE_NONE)
			return walk_fail(skb, s, REASON_SECURITY_GROUP_INGRESS_DENIED);
	}
	if (s->flags & PACKET_COPY)
		return copy_deliver(skb, s);
	if (s->flags & PACKET_STALE) {
		if (!session_holds(s))
			return walk_fail(skb, s, REASON_SESSION_REVOKED);
	} else {
		s->entry.flags = s->out.flags;
		s->entry.ttl = s->out.ttl;
		s->entry.mtu = s->out.mtu;
		reason = passable(skb, s, &s->entry);
		if (reason)
			return impassable(skb, reason, s->out.mtu, s->out.output);
		reason = session_place(s);
		if (reason)
			return drop(skb, s, reason);
	}
	s->denied = 0;
	if (likely(!(s->flags & PACKET_STATELESS)))
		return record_end(skb, s);
	s->crossing = CROSSING_REPLY;
	bpf_tail_call(skb, &stages, STAGE_STATELESS);
	return record_fail(skb, s);
}

/* Applies s->entry. */
SEC("classifier/weft_apply")
int weft_apply(struct __sk_buff *skb)
{
	struct scratch *s = scratch_get();

	if (!s)
		return TC_ACT_SHOT;
	return apply(skb, &s->entry);
}
