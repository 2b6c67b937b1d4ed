// SPDX-License-Identifier: GPL-2.0
/* Counts each packet that it is given, drops those with a mark, and lets none go before
 * it is opened.
 */
#include "../../policies/policy.h"

bool open SEC(".data.param");

__u64 given SEC(".data.stats");
__u64 dropped SEC(".data.stats");

struct {
	__uint(type, BPF_MAP_TYPE_RBTREE);
	__type(key, __u64);
	__type(value, struct pkt);
	__uint(max_entries, 1000);
} burst_pkts SEC(".maps");

SEC("qdisc/enqueue")
int burst_enqueue(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb = ctx->skb;
	__u64 key = 0;

	given++;
	if (!skb->mark)
		return bpf_qdisc_push(ctx, &burst_pkts, &key, skb);
	dropped++;
	return bpf_qdisc_drop(ctx, skb, 0);
}

SEC("qdisc/dequeue")
int burst_dequeue(struct sch_bpf_ctx *ctx)
{
	if (open)
		return bpf_qdisc_pop(ctx, &burst_pkts);
	ctx->expire = bpf_ktime_get_ns() + 10 * NSEC_PER_MSEC;
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
