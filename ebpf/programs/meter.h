/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * Metering: which meter counts a direction of a session that passes a router's gateway, and what it counts
 * (docs/pipeline.md, section 6).
 *
 * Guarantees: rules are looked at when a session is recorded, never for its packets. Sessions that no label counts do not
 * come here.
 */
#pragma once
#include "tunnel.h"

/* Notes that the opener passes this router's gateway, if that is counted. */
static __always_inline void gateway_note(struct scratch *s, __u32 slot, __u32 in)
{
	struct router_record *router = bpf_map_lookup_elem(&routers, &slot);

	if (router && unlikely(router->flags & ROUTER_METERED))
		s->out.gateway = GATEWAY_PASSED | in | slot;
}

/* The number of the range that an address is in; `side`: 0 for sources, 1 for destinations. */
static __always_inline __u32 meter_range_get(__u32 table, __u32 side, __u32 family, const __u8 *address)
{
	struct route_key key = { .prefix_bits = 64 + 128, .table = table << 1 | side, .family = family };
	struct meter_range *range;

	address_copy(key.address, address);
	range = bpf_map_lookup_elem(&meter_ranges, &key);
	return range ? range->number : 0;
}

/* The meter of one direction. */
static __always_inline void meter_note(struct session *e, __u32 table, __u32 family, const __u8 *source, const __u8 *destination)
{
	struct meter_region_key key = {
		.table = table,
		.family = family,
		.source = meter_range_get(table, 0, family, source),
		.destination = meter_range_get(table, 1, family, destination),
	};
	struct meter_region *region = bpf_map_lookup_elem(&meter_regions, &key);

	if (!region)
		return;
	e->meter = region->meter;
	e->flags |= SESSION_METERED;
}

/* Both directions' meters, as the packets are inside: into s->entry and s->other. */
__noinline int meters_note(void)
{
	struct scratch *s = scratch_get();
	__u32 table, family;
	int in;

	if (!s)
		return -1;
	in = !!(s->out.gateway & GATEWAY_IN);
	table = (s->out.gateway & ~(GATEWAY_PASSED | GATEWAY_IN)) << 1;
	family = s->forward.family;
	if (in) {
		meter_note(&s->entry, table | 1, family, s->forward.source, s->out.destination);
		meter_note(&s->other, table, family, s->out.destination, s->forward.source);
	} else {
		meter_note(&s->entry, table, family, s->forward.source, s->forward.destination);
		meter_note(&s->other, table | 1, family, s->forward.destination, s->forward.source);
	}
	return 0;
}

static __always_inline void meter_count(__u32 number, __u64 packets, __u64 bytes)
{
	struct meter *meter = bpf_map_lookup_elem(&meters, &number);

	if (!meter)
		return;
	meter->packets += packets;
	meter->bytes += bytes - packets * ETHERNET_BYTES;
}
