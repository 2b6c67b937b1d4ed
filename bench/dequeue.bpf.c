// SPDX-License-Identifier: GPL-2.0
/*
 * What functions cost that need a device: those of dequeue programs, segment, and orphan. The
 * parameter says which. A packet with a mark goes to the class and stays there; any other one
 * leaves, or, for the functions of a class, has the next dequeue call it N times, and is dropped.
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
	POP,
	POP_FROM,
	WHOLE,			/* a GSO packet */
	SEGMENT,
	SENT,
	ORPHAN,
};

__u32 which SEC(".data.param");
__u32 failed SEC(".data.stats");

BPF_QDISC_QUEUE(pkts, __u64, 1000);

SEC("qdisc/enqueue")
int enqueue(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb = ctx->skb;
	__u64 key = 0;

	if (skb->mark)
		return bpf_qdisc_pass(ctx, skb, CLASS);
	if (which == SEGMENT && bpf_qdisc_pkt_segs(skb) > 1)
		return bpf_qdisc_segment(ctx, skb);
	if (which == ORPHAN)
		failed += !bpf_qdisc_orphan(ctx, skb);
	return bpf_qdisc_push(ctx, &pkts, &key, skb);
}

/* Without a branch in the loop */
#define CALL(function)						\
	do {							\
		bpf_for(i, 0, N)				\
			failed += (function) <= 0;		\
	} while (0)

static void call(struct sch_bpf_ctx *ctx)
{
	int i;

	if (which == CLASS_LEN)
		CALL(bpf_qdisc_class_len(ctx, CLASS));
	else if (which == CLASS_HEAD)
		CALL(bpf_qdisc_class_head(ctx, CLASS));
	else
		CALL(1);
}

SEC("qdisc/dequeue")
int dequeue(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb;
	__u64 key = 0;

	if (which == POP_FROM)
		return bpf_qdisc_pop_from(ctx, &pkts, &key);
	if (which >= POP)
		return bpf_qdisc_pop(ctx, &pkts);
	ctx->expire = bpf_ktime_get_ns() + 10 * NSEC_PER_SEC;
	skb = bpf_qdisc_take(ctx, &pkts);
	if (!skb)
		return 0;
	call(ctx);
	return bpf_qdisc_drop(ctx, skb, 0);
}

char LICENSE[] SEC("license") = "GPL";
