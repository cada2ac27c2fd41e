// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
/*
 * What the classifier's tests and benches load: a way in that takes the question from the frame, and a way out that
 * writes the answer into it. Never attached to a device.
 *
 * Frame: 14 bytes, then a struct policy_walk; rule_index comes back in it. harness_many takes the questions one after
 * the other from `questions`, so that repeated runs do not ask the same.
 */
#include <linux/bpf.h>

#define SEC(name) __attribute__((section(name), used))
#define __uint(name, val) int(*name)[val]
#define __type(name, val) typeof(val) *name
#define __array(name, val) typeof(val) *name[]
#undef __always_inline
#define __always_inline inline __attribute__((always_inline))
static void *(*bpf_map_lookup_elem)(void *map, const void *key) = (void *)1;
static long (*bpf_tail_call)(void *ctx, void *map, __u32 index) = (void *)12;
static long (*bpf_loop)(__u32 nr, void *callback, void *context, __u64 flags) = (void *)181;

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__uint(key_size, 4);
	__uint(value_size, 64); /* a struct policy_walk, which policy.h declares */
} walks SEC(".maps");
struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, __u32);
} stages SEC(".maps");

#include "policy.h"

#define QUESTIONS_MAX 4096 /* a power of two */

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, QUESTIONS_MAX);
	__type(key, __u32);
	__type(value, struct policy_walk);
} questions SEC(".maps");

static __u32 asked;

#define FRAME_HEADER 14

SEC("classifier/harness_in")
int harness_in(struct __sk_buff *skb)
{
	__u32 zero = 0;
	struct policy_walk *walk = bpf_map_lookup_elem(&walks, &zero);
	void *data = (void *)(long)skb->data;
	void *end = (void *)(long)skb->data_end;

	if (!walk || data + FRAME_HEADER + sizeof(*walk) > end)
		return POLICY_DROP;
	__builtin_memcpy(walk, data + FRAME_HEADER, sizeof(*walk));
	return policy_classify(skb, walk);
}

SEC("classifier/harness_many")
int harness_many(struct __sk_buff *skb)
{
	__u32 zero = 0, next = asked++ & (QUESTIONS_MAX - 1);
	struct policy_walk *walk = bpf_map_lookup_elem(&walks, &zero);
	struct policy_walk *question = bpf_map_lookup_elem(&questions, &next);

	if (!walk || !question)
		return POLICY_DROP;
	*walk = *question;
	return policy_classify(skb, walk);
}

SEC("classifier/harness_out")
int harness_out(struct __sk_buff *skb)
{
	__u32 zero = 0;
	struct policy_walk *walk = bpf_map_lookup_elem(&walks, &zero);
	void *data = (void *)(long)skb->data;
	void *end = (void *)(long)skb->data_end;

	if (!walk || data + FRAME_HEADER + sizeof(*walk) > end)
		return POLICY_DROP;
	__builtin_memcpy(data + FRAME_HEADER + 8, &walk->rule_index, 4);
	return 0;
}

char _license[] SEC("license") = "Dual MIT/GPL";
