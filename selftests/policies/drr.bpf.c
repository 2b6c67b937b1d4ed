// SPDX-License-Identifier: GPL-2.0
/* drr: flows, one for each skb->priority, share the link by their quanta. */
#include "../../policies/policy.h"

#define FLOWS		16

__u32 quantum SEC(".data.param") BPF_QDISC_RANGE(1, 1mb) = 1500;	/* times priority, and 1 */

BPF_QDISC_QUEUE(drr_pkts, __u64, 10000);	/* by round */

struct bpf_drr_flow flows[FLOWS];
static __u64 round = 2;			/* the latest from which a packet has left */

SEC("qdisc/enqueue")
int drr_enqueue(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb = ctx->skb;
	__u32 flow = skb->priority % FLOWS, own = quantum * (flow + 1);
	__u64 key = bpf_drr_round(&flows[flow], round, own, own, bpf_qdisc_pkt_len(skb));

	*bpf_qdisc_note(skb, __u64) = key;
	return bpf_qdisc_push(ctx, &drr_pkts, &key, skb);
}

SEC("qdisc/dequeue")
int drr_dequeue(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb;

	bpf_qdisc_pop(ctx, &drr_pkts);
	skb = ctx->skb;
	if (skb && *bpf_qdisc_note(skb, __u64) > round)
		round = *bpf_qdisc_note(skb, __u64);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
