/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * Stateless ports: their rules are asked for what no session of theirs speaks for (docs/pipeline.md, section 5, "Stateless
 * ports"): the answers of a session that is being recorded, and ICMP errors.
 *
 * Guarantees: who sends is asked first, then who gets it; flows of ports that keep state never come here.
 */
#pragma once
#include "record.h"

/* Asks the sender (0) or the receiver (1), if it is stateless: else returns 0. -1: there is no answer. */
static __always_inline int crossing_ask(struct __sk_buff *skb, struct scratch *s, int receiver)
{
	int error = s->crossing & CROSSING_ERROR;
	__u8 family = s->forward.family, protocol = s->forward.protocol;
	const __u8 *remote;
	struct port_record *port;
	__u32 slot;
	__u16 asked;

	if (error) {
		slot = receiver ? s->entry.output : s->ingress;
		family = s->key.family;
		protocol = protocol_icmp(family);
		asked = s->icmp_type << 8 | s->icmp_code;
		/* As in apply: who sent the packet inside is translated, everybody else not. */
		if (receiver)
			remote = address_equal(s->outer_source, s->key.source) ? s->entry.source : s->outer_source;
		else
			remote = s->key.destination;
	} else {
		slot = receiver ? s->forward.ingress : s->out.output;
		remote = receiver ? s->forward.destination : s->out.source;
		if (protocol == protocol_icmp(family))
			asked = icmp_counterpart(family, s->opener_type) << 8 | s->opener_code;
		else if (protocol_has_ports(protocol))
			asked = ntohs(receiver ? s->forward.source_port : s->out.source_port);
		else
			asked = 0;
	}
	if (!slot_guest(slot) || (!error && vlan_neighbour(&s->forward)))
		return 0;
	port = bpf_map_lookup_elem(&ports, &slot);
	if (!port || !(port->flags & PORT_STATELESS))
		return 0;
	slot = receiver ? 2 : 0;
	slot = port->policy[family == FAMILY_V6 ? slot + 1 : slot];
	policy_ask_of(skb, s, slot, STAGE_STATELESS, protocol, remote, asked);
	return -1;
}

/* No answer to be had. */
static __always_inline int crossing_fail(struct __sk_buff *skb, struct scratch *s)
{
	if (s->crossing & CROSSING_ERROR)
		return drop(skb, s, REASON_ENGINE_ERROR);
	return record_fail(skb, s);
}

/* One run for each question that is asked, and the first one. */
SEC("classifier/weft_stateless")
int weft_stateless(struct __sk_buff *skb)
{
	struct scratch *s = scratch_get();
	__u32 step;

	if (!s)
		return TC_ACT_SHOT;
	step = s->crossing & CROSSING_STEPS;
	if (step > 0 && s->policy.rule_index == POLICY_RULE_NONE)
		s->denied = step == 1 ? REASON_SECURITY_GROUP_EGRESS_DENIED : REASON_SECURITY_GROUP_INGRESS_DENIED;
	if (!s->denied && step == 0) {
		s->crossing++;
		step = 1;
		if (crossing_ask(skb, s, 0))
			return crossing_fail(skb, s);
	}
	if (!s->denied && step == 1) {
		s->crossing++;
		if (crossing_ask(skb, s, 1))
			return crossing_fail(skb, s);
	}
	if (!(s->crossing & CROSSING_ERROR))
		return record_end(skb, s);
	if (s->denied)
		return drop(skb, s, s->denied);
	/* Its own rules speak for an error, not those for the packets beside it. */
	s->entry.flags &= ~SESSION_DENIED;
	bpf_tail_call(skb, &stages, stage_apply_error(s));
	return drop(skb, s, REASON_ENGINE_ERROR);
}
