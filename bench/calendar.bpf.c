// SPDX-License-Identifier: GPL-2.0
/*
 * A calendar: packets leave at their departure times, in slots of `slot` ns. Times of one slot are
 * one key of the map, its end; so a packet leaves up to a slot late, and one timer serves all of it.
 */
#include "../policies/policy.h"

#define MAX_PACKETS	262144

__u64 slot SEC(".data.param") BPF_QDISC_RANGE(1, 1s) = 100 * NSEC_PER_USEC;

/* By the end of the slot, ns CLOCK_MONOTONIC */
BPF_QDISC_QUEUE(calendar_pkts, __u64, MAX_PACKETS);

SEC("qdisc/enqueue")
int calendar_enqueue(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb = ctx->skb;
	__u64 end = (bpf_qdisc_departure(ctx, skb) + slot - 1) / slot * slot;

	return bpf_qdisc_push(ctx, &calendar_pkts, &end, skb);
}

SEC("qdisc/dequeue")
int calendar_dequeue(struct sch_bpf_ctx *ctx)
{
	__u64 now = bpf_ktime_get_ns();

	return bpf_qdisc_pop_until(ctx, &calendar_pkts, &now);
}

char LICENSE[] SEC("license") = "GPL";
