// SPDX-License-Identifier: GPL-2.0
/* For map_packets.py: packets leave at the time that is stamped on them. Elements
 * are allocated as they come, and a value has more than the packet.
 */
#include "../../policies/policy.h"

struct marked {
	__u64 mark;
	struct sk_buff __kptr *skb;
};

struct {
	__uint(type, BPF_MAP_TYPE_RBTREE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u64);
	__type(value, struct marked);
	__uint(max_entries, 100);
} map_pkts SEC(".maps");

SEC("qdisc/enqueue")
int map_enqueue(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb = ctx->skb;
	__u64 when = bpf_qdisc_departure(ctx, skb);

	return bpf_qdisc_push(ctx, &map_pkts, &when, skb);
}

SEC("qdisc/dequeue")
int map_dequeue(struct sch_bpf_ctx *ctx)
{
	__u64 now = bpf_ktime_get_ns();

	return bpf_qdisc_pop_until(ctx, &map_pkts, &now);
}

char LICENSE[] SEC("license") = "GPL";
