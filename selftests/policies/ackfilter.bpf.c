// SPDX-License-Identifier: GPL-2.0
/* ackfilter: of the acknowledgments of a flow that wait, the newest is enough.
 *
 * Flows take turns. An ACK that carries nothing else, and acknowledges more than the one
 * that came before it and still waits, takes its place. Those with SACK blocks stay, and
 * those that acknowledge the same again: they tell of losses. The policy cake does the same.
 */
#include "../../policies/policy.h"
#include <bpf/bpf_rbtree.h>

BPF_QDISC_QUEUE(ack_pkts, __u32, 10000);	/* by flow */

static __u32 turn;		/* flow, or the next one that has packets */

SEC("qdisc/enqueue")
int ack_enqueue(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb = ctx->skb;
	__u32 flow = bpf_skb_get_hash(skb);

	drop_older_ack(ctx, &ack_pkts, &flow, skb);
	return bpf_qdisc_push(ctx, &ack_pkts, &flow, skb);
}

SEC("qdisc/dequeue")
int ack_dequeue(struct sch_bpf_ctx *ctx)
{
	__u32 flow = turn;

	if (!bpf_rbtree_map_lower_bound(&ack_pkts, &flow) && !bpf_rbtree_map_first(&ack_pkts, &flow))
		return 0;
	turn = flow + 1;
	return bpf_qdisc_pop_key(ctx, &ack_pkts, &flow);
}

char LICENSE[] SEC("license") = "GPL";
