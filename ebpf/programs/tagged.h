/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * Frames with a guest's own tag, in VLAN-transparent networks (docs/pipeline.md, "Guests' own tags"). The tag is off by now, and in
 * s->guest_tci; PACKET_GUEST_TAG says so.
 *
 * Guarantees: what comes here is bridged within its network and VLAN and leaves with the tag as it came, or not at all; the host's
 * services and routers never see it. Frames without such a tag never come here.
 */
#pragma once
#include "stateless.h"

/* From a guest, an uplink or a tunnel, in place of their own programs' rest. */
SEC("classifier/weft_tagged")
int weft_tagged(struct __sk_buff *skb)
{
	struct scratch *s = scratch_get();
	struct port_record *port;
	struct session *e;
	int reason;

	if (!s)
		return TC_ACT_SHOT;
	reason = decode(skb);
	if (!reason && slot_guest(s->ingress)) {
		port = bpf_map_lookup_elem(&ports, &s->ingress);
		if (!port)
			return drop(skb, s, REASON_PORT_DOWN);
		if (port->flags & PORT_SECURITY)
			reason = port_secure(skb, s, port);
	}
	if (!reason)
		reason = tagged_settle(skb);
	if (reason) {
		if (s->ingress & SLOT_UPLINK)
			return pass(skb, s);
		return s->ingress & SLOT_TUNNEL ? tunnel_drop(skb, s, reason) : drop(skb, s, reason);
	}
	if (s->flags & PACKET_FRAGMENT && !fragment_follow())
		return stray(skb, s, REASON_FRAGMENT_UNKNOWN);
	if (s->flags & PACKET_ICMP_ERROR) {
		bpf_tail_call(skb, &stages, STAGE_ICMP_ERROR);
		return drop(skb, s, REASON_ENGINE_ERROR);
	}
	e = session_get(&s->key, s->now_s);
	if (!e || !mac_equal(e->match_mac, s->destination_mac) || !icmp_belongs(s, e))
		return walk(skb, s);
	if (!session_fresh(&s->key, e)) {
		s->flags |= PACKET_STALE;
		return walk(skb, s);
	}
	session_count(skb, s, e);
	s->entry = *e;
	bpf_tail_call(skb, &stages, STAGE_APPLY_TAGGED);
	return drop(skb, s, REASON_ENGINE_ERROR);
}

/* As apply(), of s->entry: nothing of the frame changes but for a mark. */
SEC("classifier/weft_apply_tagged")
int weft_apply_tagged(struct __sk_buff *skb)
{
	struct scratch *s = scratch_get();
	struct session *e;
	int reason;

	if (!s)
		return TC_ACT_SHOT;
	e = &s->entry;
	if (s->ethertype == ETHERTYPE_ARP)
		e->flags &= ~SESSION_DSCP;
	reason = passable(skb, s, e);
	if (reason)
		return impassable(skb, reason, e->mtu, e->output);
	reason = qos_apply(skb, s, e);
	if (reason)
		return drop(skb, s, reason);
	if (e->flags & SESSION_TUNNEL)
		return encapsulate_tagged(skb, e->output, e->tunnel_host, e->tunnel_port);
	return output_tagged(skb, e->output);
}
