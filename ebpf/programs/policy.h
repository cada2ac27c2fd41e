/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * The classifier: which rule of a port's security groups allows a packet. Layouts as in ebpf/common/src/policy.rs,
 * which also says how a packet is classified.
 *
 * Guarantees: the matching rule of the smallest index is answered, by the compiled tree and by the interpreter here
 * alike; without a policy nothing is allowed; without a continuation the packet is dropped.
 * Assumes, before it is included: the kernel's types, SEC and __uint/__type/__array, the helpers bpf_tail_call and
 * bpf_map_lookup_elem, and two maps of the including file:
 *   walks   per-CPU array of one struct whose first member is a struct policy_walk
 *   stages  program array in which policy_walk.continuation is an index
 * Cost: a tree 30 to 90 ns at any number of rules; the interpreter about 2 ns a rule.
 */
#ifndef WEFT_POLICY_H
#define WEFT_POLICY_H

#define POLICY_SLOTS_MAX 32768u
#define POLICY_PROGRAM_PARTS_MAX 4096u
#define POLICY_PROGRAM_INTERPRETER (POLICY_SLOTS_MAX + POLICY_PROGRAM_PARTS_MAX)
#define POLICY_PROGRAMS_MAX (POLICY_PROGRAM_INTERPRETER + 1)
#define POLICY_RULE_NONE 0xffffffffu
#define POLICY_GROUP_NONE 0xffffu
#define POLICY_CHUNK_RULES 32
#define POLICY_CHUNKS_MAX 512
#define POLICY_DOMAIN_NONE 0
#define POLICY_MEMBERS_MAX 1048576u
#define POLICY_DROP 2 /* TC_ACT_SHOT */

struct policy_walk {
	__u32 slot;
	__u32 continuation;
	__u32 rule_index;
	__u16 port;
	__u8 protocol;
	__u8 zero;
	__u32 remote[4];
	__u64 group_bits[4];
};

struct policy_rule {
	__u8 protocol;
	__u8 protocol_mask;
	__u16 group;
	__u16 port_first;
	__u16 port_last;
	__u32 rule_index;
	__u32 remote[4];
	__u32 remote_mask[4];
};

struct policy_chunk {
	__u32 domain;
	__u32 count;
	struct policy_rule rules[POLICY_CHUNK_RULES];
};

struct policy_member_key {
	__u32 domain;
	__u32 address[4];
};

struct policy_group_bits {
	__u64 bits[4];
};

_Static_assert(sizeof(struct policy_walk) == 64, "policy_walk");
_Static_assert(__builtin_offsetof(struct policy_walk, rule_index) == 8, "policy_walk.rule_index");
_Static_assert(__builtin_offsetof(struct policy_walk, remote) == 16, "policy_walk.remote");
_Static_assert(__builtin_offsetof(struct policy_walk, group_bits) == 32, "policy_walk.group_bits");
_Static_assert(sizeof(struct policy_rule) == 44, "policy_rule");
_Static_assert(sizeof(struct policy_chunk) == 1416, "policy_chunk");
_Static_assert(sizeof(struct policy_member_key) == 20, "policy_member_key");

/* A policy's compiled tree by slot, further parts of large ones, the interpreter. */
struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, POLICY_PROGRAMS_MAX);
	__type(key, __u32);
	__type(value, __u32);
} policy_programs SEC(".maps");

/* A policy's rules by slot. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, POLICY_SLOTS_MAX);
	__type(key, __u32);
	__array(values, struct {
		__uint(type, BPF_MAP_TYPE_ARRAY);
		__uint(map_flags, BPF_F_INNER_MAP);
		__uint(max_entries, 1);
		__uint(key_size, sizeof(__u32));
		__uint(value_size, sizeof(struct policy_chunk)); /* by size: clang leaves the type out of BTF here */
	});
} policy_rules SEC(".maps");

/* Which groups of a domain an address is in. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, POLICY_MEMBERS_MAX);
	__type(key, struct policy_member_key);
	__type(value, struct policy_group_bits);
} policy_members SEC(".maps");

/*
 * Asks policy walk->slot, and goes on at stages[walk->continuation] with the answer in walk->rule_index. Returns only
 * if that is not possible: the packet must be dropped then. `walk` is the value of `walks`.
 */
static __always_inline int policy_classify(struct __sk_buff *skb, struct policy_walk *walk)
{
	walk->rule_index = POLICY_RULE_NONE;
	if (walk->slot < POLICY_SLOTS_MAX) {
		bpf_tail_call(skb, &policy_programs, walk->slot);
		bpf_tail_call(skb, &policy_programs, POLICY_PROGRAM_INTERPRETER);
	}
	return POLICY_DROP;
}

/* Fills walk->group_bits for a domain. */
static __always_inline void policy_groups(struct policy_walk *walk, __u32 domain)
{
	struct policy_member_key key = {
		.domain = domain,
		.address = { walk->remote[0], walk->remote[1], walk->remote[2], walk->remote[3] },
	};
	struct policy_group_bits *found = bpf_map_lookup_elem(&policy_members, &key);

	for (int i = 0; i < 4; i++)
		walk->group_bits[i] = found ? found->bits[i] : 0;
}

static __always_inline int policy_rule_matches(const struct policy_rule *rule, const struct policy_walk *walk)
{
	__u32 differs = (rule->protocol ^ walk->protocol) & rule->protocol_mask;
	__u32 group = rule->group;

	for (int i = 0; i < 4; i++)
		differs |= (rule->remote[i] ^ walk->remote[i]) & rule->remote_mask[i];
	if (differs || walk->port < rule->port_first || walk->port > rule->port_last)
		return 0;
	return group == POLICY_GROUP_NONE || (walk->group_bits[group >> 6 & 3] >> (group & 63) & 1);
}

/* Answers from one chunk; says whether another has to be asked. */
static __always_inline int policy_chunk_walk(const struct policy_chunk *chunk, struct policy_walk *walk)
{
	for (__u32 i = 0; i < POLICY_CHUNK_RULES; i++) {
		if (i >= chunk->count)
			return 0;
		if (policy_rule_matches(&chunk->rules[i], walk)) {
			walk->rule_index = chunk->rules[i].rule_index;
			return 0;
		}
	}
	return 1;
}

struct policy_step {
	void *table;
	struct policy_walk *walk;
};

static long policy_chunk_step(__u64 index, struct policy_step *step)
{
	__u32 key = index;
	struct policy_chunk *chunk = bpf_map_lookup_elem(step->table, &key);

	if (!chunk)
		return 1;
	if (index == 0 && chunk->domain != POLICY_DOMAIN_NONE)
		policy_groups(step->walk, chunk->domain);
	return !policy_chunk_walk(chunk, step->walk);
}

/* The interpreter: what serves a policy that has no tree (yet). */
SEC("classifier/policy_interpreter")
int policy_interpreter(struct __sk_buff *skb)
{
	__u32 zero = 0;
	struct policy_walk *walk = bpf_map_lookup_elem(&walks, &zero);
	struct policy_step step;
	__u32 slot;

	if (!walk)
		return POLICY_DROP;
	walk->rule_index = POLICY_RULE_NONE;
	slot = walk->slot;
	step.walk = walk;
	step.table = bpf_map_lookup_elem(&policy_rules, &slot);
	if (step.table)
		bpf_loop(POLICY_CHUNKS_MAX, policy_chunk_step, &step, 0);
	bpf_tail_call(skb, &stages, walk->continuation);
	return POLICY_DROP;
}

#endif
