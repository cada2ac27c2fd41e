// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
// The lab's sender and sinks. The sender runs as BPF_PROG_TEST_RUN with live frames: the kernel hands it the same pages
// over and over, so it writes every byte that matters each time. The sinks count and drop.
#include <linux/bpf.h>
#include <linux/types.h>

#define SEC(name) __attribute__((section(name), used))
#define FRAME_BYTES 60

static void *(*const bpf_map_lookup_elem)(void *map, const void *key) = (void *)BPF_FUNC_map_lookup_elem;
static long (*const bpf_redirect)(__u32 ifindex, __u64 flags) = (void *)BPF_FUNC_redirect;
static long (*const bpf_xdp_adjust_head)(struct xdp_md *ctx, int bytes) = (void *)BPF_FUNC_xdp_adjust_head;

// What to send: a whole UDP frame, where to, and over how many source ports to spread it.
struct template {
	__u8 frame[FRAME_BYTES];
	__u32 ifindex;
	__u32 flows;      // a power of two, at least 1
	__u32 flow_first; // the first client port, host order
	__u32 flow_at;    // where the client's port stands: 34 (source) or 36 (destination)
	__u32 padding;
	__u64 sent; // written by the sender
};

#define MAP(type_, key_, value_, entries_)                                                                             \
	struct {                                                                                                       \
		int(*type)[type_];                                                                                     \
		key_ *key;                                                                                             \
		value_ *value;                                                                                         \
		int(*max_entries)[entries_];                                                                           \
	}

MAP(BPF_MAP_TYPE_ARRAY, __u32, struct template, 1) templates SEC(".maps");
MAP(BPF_MAP_TYPE_PERCPU_ARRAY, __u32, __u64, 1) counted SEC(".maps");
MAP(BPF_MAP_TYPE_ARRAY, __u32, __u32, 1) targets SEC(".maps");

SEC("xdp")
int lab_send(struct xdp_md *ctx)
{
	__u32 zero = 0;
	struct template *t = bpf_map_lookup_elem(&templates, &zero);
	__u8 *data = (void *)(long)ctx->data;
	__u8 *end = (void *)(long)ctx->data_end;
	if (!t || data + FRAME_BYTES > end)
		return XDP_ABORTED;
	__builtin_memcpy(data, t->frame, FRAME_BYTES);
	__u32 port = t->flow_first + (t->sent & (t->flows - 1));
	__u32 at = t->flow_at == 36 ? 36 : 34;
	data[at] = port >> 8;
	data[at + 1] = port;
	t->sent++;
	return bpf_redirect(t->ifindex, 0);
}

SEC("xdp")
int lab_pass(struct xdp_md *ctx)
{
	return XDP_PASS;
}

SEC("xdp")
int lab_drop(struct xdp_md *ctx)
{
	__u32 zero = 0;
	__u64 *count = bpf_map_lookup_elem(&counted, &zero);
	if (count)
		*count += 1;
	return XDP_DROP;
}

// The most that XDP on an uplink could bring: whatever looks like VXLAN over IPv4 goes to one device without its tunnel,
// and neither its sender nor a session nor a policy is asked.
SEC("xdp")
int lab_decapsulate(struct xdp_md *ctx)
{
	enum { OUTER_BYTES = 14 + 20 + 8 + 8 };
	__u32 zero = 0;
	__u32 *target = bpf_map_lookup_elem(&targets, &zero);
	__u8 *data = (void *)(long)ctx->data;
	__u8 *end = (void *)(long)ctx->data_end;
	if (!target || data + OUTER_BYTES + 14 > end)
		return XDP_PASS;
	int vxlan = data[12] == 0x08 && data[13] == 0 && data[14] == 0x45 && data[23] == 17 && data[36] == 4789 >> 8 &&
		    data[37] == (4789 & 0xff);
	if (!vxlan || bpf_xdp_adjust_head(ctx, OUTER_BYTES))
		return XDP_PASS;
	return bpf_redirect(*target, 0);
}

// Counts what reaches a guest and drops it before the stack sees it: the same for every path that is compared.
SEC("classifier")
int lab_sink(struct __sk_buff *skb)
{
	__u32 zero = 0;
	__u64 *count = bpf_map_lookup_elem(&counted, &zero);
	if (count)
		*count += 1;
	return 2; // TCX_DROP
}

char LICENSE[] SEC("license") = "GPL";
