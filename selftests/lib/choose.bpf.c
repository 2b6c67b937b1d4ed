// SPDX-License-Identifier: GPL-2.0
/* The policy chooses the tx queue: the packet's mark is its number. What the device
 * does not have is dropped.
 */
#include "../../policies/policy.h"

struct {
	__uint(type, BPF_MAP_TYPE_RBTREE);
	__type(key, __u64);
	__type(value, struct pkt);
	__uint(max_entries, 1000);
} choose_pkts SEC(".maps");

SEC("qdisc/enqueue")
int choose_enqueue(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb = ctx->skb;
	__u64 key = 0;

	if (bpf_qdisc_set_queue(ctx, skb, skb->mark))
		return bpf_qdisc_drop(ctx, skb, 0);
	return bpf_qdisc_push(ctx, &choose_pkts, &key, skb);
}

SEC("qdisc/dequeue")
int choose_dequeue(struct sch_bpf_ctx *ctx)
{
	return bpf_qdisc_pop(ctx, &choose_pkts);
}

char LICENSE[] SEC("license") = "GPL";
