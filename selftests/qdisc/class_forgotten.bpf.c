// SPDX-License-Identifier: GPL-2.0
/* A packet's mark, if it has one, is its class, of which the dequeue program never asks. */
#include "../../policies/policy.h"

BPF_QDISC_QUEUE(pkts, __u64, 1000);

SEC("qdisc/enqueue")
int class_forgotten_enqueue(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb = ctx->skb;
	__u64 first = 0;

	if (skb->mark)
		return bpf_qdisc_pass(ctx, skb, ctx->qdisc->handle | skb->mark);
	return bpf_qdisc_push(ctx, &pkts, &first, skb);
}

SEC("qdisc/dequeue")
int class_forgotten_dequeue(struct sch_bpf_ctx *ctx)
{
	return bpf_qdisc_pop(ctx, &pkts);
}

char LICENSE[] SEC("license") = "GPL";
