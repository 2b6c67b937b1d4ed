// SPDX-License-Identifier: GPL-2.0
/*
 * SP-PIFO (Alcoz et al., NSDI 2020): a few FIFOs with strict priorities stand for the order of a
 * PIFO. Each has a bound, the lowest rank that it takes. A packet goes into the last queue whose
 * bound is not above its rank, and raises that bound to its rank. One that is below all bounds goes
 * into the first queue, which is an inversion to come; by as much as it is below, all bounds sink.
 * Each queue has its part of the room.
 */
#include "ranks.h"

#define QUEUES	8

BPF_QDISC_QUEUE(sppifo_pkts, __u32, ROOM);	/* by queue */

static __s64 bound[QUEUES];
static __u32 qlen[QUEUES];

/* The queue for a rank, with its bound as it was before this packet */
static __u32 queue_of(__s64 rank)
{
	__u32 i, queue;

	bpf_for(i, 0, QUEUES) {
		queue = (QUEUES - 1 - i) % QUEUES;
		if (bound[queue] <= rank)
			return queue;
	}
	return 0;
}

static void adapt(__u32 queue, __s64 rank)
{
	__s64 below = bound[queue] - rank;
	__u32 i;

	bpf_for(i, 0, QUEUES)
		if (below > 0 && i < QUEUES)
			bound[i] -= below;
	bound[queue] = rank;
}

SEC("qdisc/enqueue")
int sppifo_enqueue(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb = ctx->skb;
	__s64 rank = rank_of(skb);
	__u32 queue = queue_of(rank) % QUEUES;

	count_arrival(skb);
	if (qlen[queue] >= ROOM / QUEUES)
		return drop(ctx, skb);
	adapt(queue, rank);
	*bpf_qdisc_note(skb, __u32) = queue;
	qlen[queue]++;
	return bpf_qdisc_push(ctx, &sppifo_pkts, &queue, skb);
}

SEC("qdisc/dequeue")
int sppifo_dequeue(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb;

	bpf_qdisc_pop(ctx, &sppifo_pkts);
	skb = ctx->skb;
	if (skb)
		qlen[*bpf_qdisc_note(skb, __u32) % QUEUES]--;
	count_departure(ctx);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
