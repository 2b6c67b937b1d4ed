/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the schedulers have in common that bench/published compares by the ranks of packets: the
 * rank of a packet, the room, and the books. An inversion is a packet that leaves while one of a
 * lower rank waits.
 */
#ifndef __RANKS_H
#define __RANKS_H

#include "../policies/policy.h"

#define RANKS	100
#define ROOM	80		/* packets that wait */

/* Statistics: packets of each rank */
__u64 came[RANKS] SEC(".data.stats");
__u64 dropped[RANKS] SEC(".data.stats");
__u64 inverted[RANKS] SEC(".data.stats");

static __u32 waiting[RANKS];

static __u32 rank_of(const struct sk_buff *skb)
{
	return skb->priority % RANKS;
}

static void count_arrival(const struct sk_buff *skb)
{
	came[rank_of(skb)]++;
	waiting[rank_of(skb)]++;
}

static int drop(struct sch_bpf_ctx *ctx, struct sk_buff *skb)
{
	dropped[rank_of(skb)]++;
	waiting[rank_of(skb)]--;
	return bpf_qdisc_drop(ctx, skb, QDISC_DROP_OVERLIMIT);
}

/* After a pop: of the packet that leaves, if there is one */
static void count_departure(struct sch_bpf_ctx *ctx)
{
	const struct sk_buff *skb = ctx->skb;
	__u32 rank, lower;

	if (!skb)
		return;
	rank = rank_of(skb);
	waiting[rank]--;
	bpf_for(lower, 0, rank) {
		if (lower < RANKS && waiting[lower]) {
			inverted[rank]++;
			break;
		}
	}
}

#endif /* __RANKS_H */
