// SPDX-License-Identifier: GPL-2.0
/*
 * What functions cost that need a device: those of dequeue programs and of classes, segment, orphan
 * and classify. The parameter says which. A packet with a mark goes to the class and stays there; any
 * other one leaves, or, for a function that is called N times, by this run or the next dequeue, is dropped.
 */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_qdisc.h>
#include <bpf/bpf_rbtree.h>

#define N	10000
#define CLASS	0x10001

enum {				/* in the order of DEVICE_FUNCTIONS in bench/run */
	EMPTY_RUN,
	CLASS_LEN,
	CLASS_HEAD,
	CLASSIFY,
	POP,
	POP_FROM,
	POP_UNTIL,
	POP_KEY,
	TAKE_DELIVER,
	PASS_POP_CLASS,
	WHOLE,			/* a GSO packet */
	SEGMENT,
	SENT,
	ORPHAN,
};

__u32 which SEC(".data.param");
__u32 failed SEC(".data.stats");

BPF_QDISC_QUEUE(pkts, __u64, 1000);

/* Without a branch in the loop */
#define CALL(function)						\
	do {							\
		bpf_for(i, 0, N)				\
			failed += (function) <= 0;		\
	} while (0)

SEC("qdisc/enqueue")
int enqueue(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb = ctx->skb;
	__u64 key = 0;
	int i;

	if (skb->mark || which == PASS_POP_CLASS)
		return bpf_qdisc_pass(ctx, skb, CLASS);
	if (which == SEGMENT && bpf_qdisc_pkt_segs(skb) > 1)
		return bpf_qdisc_segment(ctx, skb);
	if (which == ORPHAN)
		failed += !bpf_qdisc_orphan(ctx, skb);
	if (which == CLASSIFY)
		CALL(1 + bpf_skb_tc_classify(ctx, skb, 0, 0));
	return bpf_qdisc_push(ctx, &pkts, &key, skb);
}

static void call(struct sch_bpf_ctx *ctx)
{
	int i;

	if (which == CLASS_LEN)
		CALL(bpf_qdisc_class_len(ctx, CLASS));
	else if (which == CLASS_HEAD)
		CALL(bpf_qdisc_class_head(ctx, CLASS));
	else if (which == EMPTY_RUN)
		CALL(1);
}

SEC("qdisc/dequeue")
int dequeue(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb;
	__u64 key = 0;

	if (which == POP_FROM)
		return bpf_qdisc_pop_from(ctx, &pkts, &key);
	if (which == POP_UNTIL)
		return bpf_qdisc_pop_until(ctx, &pkts, &key);
	if (which == POP_KEY)
		return bpf_qdisc_pop_key(ctx, &pkts, &key);
	if (which == PASS_POP_CLASS)
		return bpf_qdisc_pop_class(ctx, CLASS);
	if (which >= POP && which != TAKE_DELIVER)
		return bpf_qdisc_pop(ctx, &pkts);
	ctx->expire = bpf_ktime_get_ns() + 10 * NSEC_PER_SEC;
	skb = bpf_qdisc_take(ctx, &pkts);
	if (!skb)
		return 0;
	if (which == TAKE_DELIVER)
		return bpf_qdisc_deliver(ctx, skb);
	call(ctx);
	return bpf_qdisc_drop(ctx, skb, 0);
}

char LICENSE[] SEC("license") = "GPL";
