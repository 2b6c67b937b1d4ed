// SPDX-License-Identifier: GPL-2.0
/* A packet's mark is its class. Class 1 goes first; class 2 waits, 100 ms from its first run
 * on, also while class 1 holds its packets back.
 */
#include "../../policies/policy.h"

#define DELAY	(100 * NSEC_PER_MSEC)	/* also in classes.py */

SEC("qdisc/enqueue")
int wait_class_enqueue(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb = ctx->skb;

	return bpf_qdisc_pass(ctx, skb, ctx->qdisc->handle | skb->mark);
}

SEC("qdisc/dequeue")
int wait_class_dequeue(struct sch_bpf_ctx *ctx)
{
	__u32 handle = ctx->qdisc->handle;
	static __u64 when;
	__u64 now;

	if (!bpf_qdisc_pop_class(ctx, handle | 1))
		return 0;
	now = bpf_ktime_get_ns();
	if (!when)
		when = now + DELAY;
	if (now >= when)
		return bpf_qdisc_pop_class(ctx, handle | 2);
	ctx->expire = when;
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
