// SPDX-License-Identifier: GPL-2.0
/*
 * PIFO (Sivaraman et al., SIGCOMM 2016): the packet of the lowest rank leaves, of equals the
 * oldest one. A packet that finds no room takes the place of the youngest one of the highest rank,
 * if its own is lower. That is what an ordered map does.
 */
#include "ranks.h"
#include <bpf/bpf_rbtree.h>

BPF_QDISC_QUEUE(pifo_pkts, __u32, ROOM);	/* by rank */

SEC("qdisc/enqueue")
int pifo_enqueue(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb = ctx->skb, *last;
	__u32 rank = rank_of(skb), highest = 0;

	count_arrival(skb);
	if (bpf_qdisc_is_full(ctx->qdisc, ROOM)) {
		if (!bpf_rbtree_map_last(&pifo_pkts, &highest) || highest <= rank)
			return drop(ctx, skb);
		last = bpf_qdisc_take_last(ctx, &pifo_pkts);
		if (last)
			drop(ctx, last);
	}
	return bpf_qdisc_push(ctx, &pifo_pkts, &rank, skb);
}

SEC("qdisc/dequeue")
int pifo_dequeue(struct sch_bpf_ctx *ctx)
{
	bpf_qdisc_pop(ctx, &pifo_pkts);
	count_departure(ctx);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
