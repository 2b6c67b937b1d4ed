// SPDX-License-Identifier: GPL-2.0
/* newest: a packet that comes takes the place of the one that waits. */
#include "../../policies/policy.h"

BPF_QDISC_QUEUE(newest_pkts, __u64, 1000);

SEC("qdisc/enqueue")
int newest_enqueue(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *old = bpf_qdisc_take(ctx, &newest_pkts);
	__u64 key = 0;

	if (old)
		bpf_qdisc_drop(ctx, old, 0);
	return bpf_qdisc_push(ctx, &newest_pkts, &key, ctx->skb);
}

SEC("qdisc/dequeue")
int newest_dequeue(struct sch_bpf_ctx *ctx)
{
	return bpf_qdisc_pop(ctx, &newest_pkts);
}

char LICENSE[] SEC("license") = "GPL";
