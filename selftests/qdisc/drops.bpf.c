// SPDX-License-Identifier: GPL-2.0
/* drops: it stores packets, and drops them when it is asked for one. */
#include "../../policies/policy.h"

BPF_QDISC_QUEUE(drops_pkts, __u64, 1000);

SEC("qdisc/enqueue")
int drops_enqueue(struct sch_bpf_ctx *ctx)
{
	__u64 key = 0;

	return bpf_qdisc_push(ctx, &drops_pkts, &key, ctx->skb);
}

SEC("qdisc/dequeue")
int drops_dequeue(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb = bpf_qdisc_take(ctx, &drops_pkts);

	return skb ? bpf_qdisc_drop(ctx, skb, 0) : 0;
}

char LICENSE[] SEC("license") = "GPL";
