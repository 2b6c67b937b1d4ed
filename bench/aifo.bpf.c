// SPDX-License-Identifier: GPL-2.0
/*
 * AIFO (Yu et al., SIGCOMM 2021): one FIFO that admits those packets which a PIFO would send. A
 * packet is admitted while the queue is shorter than `headroom` per cent of its room; beyond that
 * if of the last WINDOW packets the part that has a lower rank is at most the part of the room,
 * without the headroom, that is free. With a headroom of 100 it is a FIFO.
 */
#include "ranks.h"

#define WINDOW	64

__u32 headroom SEC(".data.param") BPF_QDISC_RANGE(0, 100) = 10;

BPF_QDISC_QUEUE(aifo_pkts, __u32, ROOM);	/* of one key */

static __u32 recent[WINDOW];			/* ranks, of the last packets that came */
static __u32 next, seen;

/* How many of them are lower */
static __u32 count_lower(__u32 rank)
{
	__u32 i, lower = 0;

	bpf_for(i, 0, seen)
		lower += i < WINDOW && recent[i] < rank;
	return lower;
}

static bool admits(__u32 rank, __u32 qlen)
{
	if (qlen >= ROOM)
		return false;
	if (100 * qlen < headroom * ROOM)
		return true;
	return (100 - headroom) * ROOM * count_lower(rank) <= 100 * (ROOM - qlen) * seen;
}

SEC("qdisc/enqueue")
int aifo_enqueue(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb = ctx->skb;
	__u32 rank = rank_of(skb), key = 0;
	bool admitted = admits(rank, ctx->qdisc->q.qlen);

	count_arrival(skb);
	recent[next++ % WINDOW] = rank;
	if (seen < WINDOW)
		seen++;
	return admitted ? bpf_qdisc_push(ctx, &aifo_pkts, &key, skb) : drop(ctx, skb);
}

SEC("qdisc/dequeue")
int aifo_dequeue(struct sch_bpf_ctx *ctx)
{
	bpf_qdisc_pop(ctx, &aifo_pkts);
	count_departure(ctx);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
