// SPDX-License-Identifier: GPL-2.0
/* GSO packets come in their segments. A packet's mark says what becomes of it, or of each
 * of its segments; until one opens the queue nothing leaves.
 */
#include "../../policies/policy.h"
#include <bpf/bpf_rbtree.h>

#define STAMP	1		/* ns: long ago */
#define HANDLE	0x20000		/* also in gso.py: of the qdisc, 2:, whose class 2:1 is */

enum {				/* also in gso.py */
	KEEP,
	DROP_ODD,		/* the second, the fourth, ... of all */
	DROP_ALL,
	PASS,			/* to the first class */
	FORCE,			/* cut what is no GSO packet */
	CUT_A_CLONE,		/* and keep the packet as it is */
	KEEP_A_CLONE,		/* as it is, and cut the packet */
	TAKE_BACK,		/* keep the first, and drop it with the second, and so on */
	STEAL_ODD,
	STEAL_OR_PASS,		/* steal the first, pass the second to the first class, and so on */
	EMPTY_CLASS,		/* by this packet, with one of the map held meanwhile */
	REPLACE,		/* what the class has, by the packet of the map */
	OPEN_AND_LOOK,		/* at the class, with the packet of the map held meanwhile */
	LOOK_BEHIND_THE_LAST,	/* at the class, when the last packet of the map is delivered */
	OPEN,
};

BPF_QDISC_QUEUE(segment_pkts, __u64, 1000);

static bool open, look, look_behind;
static __u32 count;
static __u32 segments;	/* to come */

/* Segments without what the packet had */
__u32 strange SEC(".data.stats");

/* What bpf_qdisc_segment() returned last */
int error SEC(".data.stats");

static int push(struct sch_bpf_ctx *ctx, struct sk_buff *skb)
{
	return bpf_qdisc_push(ctx, &segment_pkts, &(__u64){ 0 }, skb);
}

/* A GSO packet: cut it, but for what else the mark says. */
static int cut(struct sch_bpf_ctx *ctx, struct sk_buff *skb)
{
	struct sk_buff *clone;

	*bpf_qdisc_note(skb, __u64) = STAMP;
	bpf_qdisc_set_departure(ctx, skb, STAMP);
	segments = skb->mark == CUT_A_CLONE ? 0 : bpf_qdisc_pkt_segs(skb);
	if (skb->mark != CUT_A_CLONE && skb->mark != KEEP_A_CLONE)
		return error = bpf_qdisc_segment(ctx, skb);
	clone = bpf_qdisc_clone(ctx, skb);
	if (!clone)
		return bpf_qdisc_drop(ctx, skb, 0);
	if (skb->mark == KEEP_A_CLONE) {
		push(ctx, clone);
		return bpf_qdisc_segment(ctx, skb);
	}
	error = bpf_qdisc_segment(ctx, clone);
	return push(ctx, skb);
}

/* Drop the first packet of the map, if there is one, and this. */
static int take_back(struct sch_bpf_ctx *ctx, struct sk_buff *skb)
{
	struct sk_buff *first = bpf_qdisc_take(ctx, &segment_pkts);

	if (!first)
		return push(ctx, skb);
	bpf_qdisc_drop(ctx, first, 0);
	return bpf_qdisc_drop(ctx, skb, 0);
}

/* The class's qdisc has this policy, too: it drops what it has. */
static int empty_class(struct sch_bpf_ctx *ctx, struct sk_buff *skb)
{
	struct sk_buff *first;

	if (ctx->qdisc->handle != HANDLE)
		return take_back(ctx, skb);
	first = bpf_qdisc_take(ctx, &segment_pkts);
	bpf_qdisc_pass(ctx, skb, HANDLE | 1);
	return first ? push(ctx, first) : 0;
}

SEC("qdisc/enqueue")
int segment_enqueue(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb = ctx->skb, *first;

	if (bpf_qdisc_pkt_segs(skb) > 1)
		return cut(ctx, skb);
	if (segments) {
		segments--;
		strange += *bpf_qdisc_note(skb, __u64) != STAMP || bpf_qdisc_departure(ctx, skb) != STAMP;
	}
	switch (skb->mark) {
	case TAKE_BACK:
		return take_back(ctx, skb);
	case EMPTY_CLASS:
		return empty_class(ctx, skb);
	case REPLACE:
		first = bpf_qdisc_take(ctx, &segment_pkts);
		if (first)
			bpf_qdisc_pass(ctx, first, HANDLE | 1);
		return bpf_qdisc_drop(ctx, skb, 0);
	case OPEN_AND_LOOK:
		look = true;
		open = true;
		return bpf_qdisc_drop(ctx, skb, 0);
	case LOOK_BEHIND_THE_LAST:
		look_behind = true;
		return bpf_qdisc_drop(ctx, skb, 0);
	case STEAL_ODD:
		return ++count % 2 ? push(ctx, skb) : bpf_qdisc_steal(ctx, skb);
	case STEAL_OR_PASS:
		return ++count % 2 ? bpf_qdisc_steal(ctx, skb) : bpf_qdisc_pass(ctx, skb, HANDLE | 1);
	case DROP_ODD:
		return ++count % 2 ? push(ctx, skb) : bpf_qdisc_drop(ctx, skb, 0);
	case DROP_ALL:
		return bpf_qdisc_drop(ctx, skb, 0);
	case PASS:
		return ctx->qdisc->handle == HANDLE ? bpf_qdisc_pass(ctx, skb, HANDLE | 1) : push(ctx, skb);
	case FORCE:
		return error = bpf_qdisc_segment(ctx, skb);
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
	struct sk_buff *skb;

	/* The class's qdisc drops a packet whenever it is asked. */
	if (ctx->qdisc->handle != HANDLE) {
		skb = bpf_qdisc_take(ctx, &segment_pkts);
		return skb ? bpf_qdisc_drop(ctx, skb, 0) : 0;
	}
	if (look) {
		look = false;
		skb = bpf_qdisc_take(ctx, &segment_pkts);
		bpf_qdisc_class_head(ctx, HANDLE | 1);
		return skb ? bpf_qdisc_push_front(ctx, &segment_pkts, &(__u64){ 0 }, skb) : 0;
	}
	if (look_behind) {
		bpf_qdisc_pop(ctx, &segment_pkts);
		if (!bpf_rbtree_map_len(&segment_pkts))
			bpf_qdisc_class_head(ctx, HANDLE | 1);
		return 0;
	}
	if (!open) {
		ctx->expire = bpf_ktime_get_ns() + 5 * NSEC_PER_SEC;
		return 0;
	}
	return bpf_qdisc_pop(ctx, &segment_pkts) && bpf_qdisc_pop_class(ctx, HANDLE | 1);
}

char LICENSE[] SEC("license") = "GPL";
