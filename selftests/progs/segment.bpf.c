// SPDX-License-Identifier: GPL-2.0
/* GSO packets come in their segments. A packet's mark says what becomes of it, or of each
 * of its segments; until one opens the queue nothing leaves.
 */
#include "../../policies/policy.h"

enum {				/* also in gso.py */
	KEEP,
	DROP_ODD,		/* the second, the fourth, ... of all */
	DROP_ALL,
	PASS,			/* to the first class */
	FORCE,			/* cut what is no GSO packet */
	CUT_A_CLONE,		/* and keep the packet as it is */
	KEEP_A_CLONE,		/* as it is, and cut the packet */
	OPEN,
};

BPF_QDISC_QUEUE(segment_pkts, __u64, 1000);

static bool open;
static __u32 count;

static int push(struct sch_bpf_ctx *ctx, struct sk_buff *skb)
{
	return bpf_qdisc_push(ctx, &segment_pkts, &(__u64){ 0 }, skb);
}

/* A GSO packet: cut it, but for what else the mark says. */
static int cut(struct sch_bpf_ctx *ctx, struct sk_buff *skb)
{
	struct sk_buff *clone;

	if (skb->mark < CUT_A_CLONE)
		return bpf_qdisc_segment(ctx, skb);
	clone = bpf_qdisc_clone(ctx, skb);
	if (!clone)
		return bpf_qdisc_drop(ctx, skb, 0);
	if (skb->mark == KEEP_A_CLONE) {
		push(ctx, clone);
		return bpf_qdisc_segment(ctx, skb);
	}
	bpf_qdisc_segment(ctx, clone);
	return push(ctx, skb);
}

SEC("qdisc/enqueue")
int segment_enqueue(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb = ctx->skb;

	if (bpf_qdisc_pkt_segs(skb) > 1)
		return cut(ctx, skb);
	switch (skb->mark) {
	case DROP_ODD:
		return ++count % 2 ? push(ctx, skb) : bpf_qdisc_drop(ctx, skb, 0);
	case DROP_ALL:
		return bpf_qdisc_drop(ctx, skb, 0);
	case PASS:
		return bpf_qdisc_pass(ctx, skb, ctx->qdisc->handle | 1);
	case FORCE:
		return bpf_qdisc_segment(ctx, skb);
	case OPEN:
		open = true;
		return bpf_qdisc_drop(ctx, skb, 0);
	default:
		return push(ctx, skb);
	}
}

SEC("qdisc/dequeue")
int segment_dequeue(struct sch_bpf_ctx *ctx)
{
	if (!open) {
		ctx->expire = bpf_ktime_get_ns() + 5 * NSEC_PER_SEC;
		return 0;
	}
	return bpf_qdisc_pop(ctx, &segment_pkts) && bpf_qdisc_pop_class(ctx, ctx->qdisc->handle | 1);
}

char LICENSE[] SEC("license") = "GPL";
