// SPDX-License-Identifier: GPL-2.0
/*
 * The timing wheel of Carousel (Saeed et al., SIGCOMM 2017): packets leave at their departure
 * times, in slots of `tick` ns. As long as packets wait, a timer looks at each slot when it ends,
 * also at one without packets.
 */
#include "../policies/policy.h"

#define MAX_PACKETS	262144

__u64 tick SEC(".data.param") BPF_QDISC_RANGE(1us, 1s) = 100 * NSEC_PER_USEC;

/* By the number of the slot that begins when they leave */
BPF_QDISC_QUEUE(carousel_pkts, __u64, MAX_PACKETS);

SEC("qdisc/enqueue")
int carousel_enqueue(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb = ctx->skb;
	__u64 slot = (bpf_qdisc_departure(ctx, skb) + tick - 1) / tick;

	return bpf_qdisc_push(ctx, &carousel_pkts, &slot, skb);
}

SEC("qdisc/dequeue")
int carousel_dequeue(struct sch_bpf_ctx *ctx)
{
	__u64 slot = bpf_ktime_get_ns() / tick;

	if (bpf_qdisc_pop_until(ctx, &carousel_pkts, &slot) == -EAGAIN)
		ctx->expire = (slot + 1) * tick;
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
