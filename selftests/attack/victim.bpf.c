// SPDX-License-Identifier: GPL-2.0
/* For qdisc_faults.c: every way of a packet that takes memory, and two pairs of programs
 * of which one can follow the other.
 */
#include "../../policies/policy.h"

#define ROOT	0x10000		/* the qdisc that has the class, not the one below */
#define CLASS	0x10001

enum { PLAIN, LARGE, CLONE, CLASSIFY, PASS, SEGMENT };

struct large_pkt {
	struct sk_buff __kptr *skb;
	char rest[1600];		/* an element is of a size that hardly anybody else has */
};

BPF_QDISC_QUEUES(queues, __u64, 100, 0);

struct large_queue {
	__uint(type, BPF_MAP_TYPE_RBTREE);
	__type(key, __u64);
	__type(value, struct large_pkt);
	struct large_pkt (*max_entries)[4096];	/* so that clang describes it */
	__uint(map_flags, BPF_F_NO_PREALLOC);
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__type(key, __u32);
	__array(values, struct large_queue);
} large_queues SEC(".maps");

__u32 number SEC(".data.param") = 1;	/* to be set */

/* The test's */
__u32 how;
bool closed;
int verdict;			/* of the filters, or of the function that cuts */

static int store(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb = ctx->skb, *clone;
	__u64 key = number;
	__u32 queue = ctx->queue;
	void *pkts;

	pkts = how == LARGE ? bpf_map_lookup_elem(&large_queues, &queue) :
			      bpf_map_lookup_elem(&queues, &queue);
	if (!pkts)
		return bpf_qdisc_drop(ctx, skb, 0);
	switch (how) {
	case CLONE:
		clone = bpf_qdisc_clone(ctx, skb);
		if (clone)
			bpf_qdisc_push(ctx, pkts, &key, clone);
		break;
	case CLASSIFY:
		verdict = bpf_skb_tc_classify(ctx, skb, 0, 0);
		return bpf_qdisc_pass(ctx, skb, ctx->classid);
	case PASS:
		if (ctx->qdisc->handle != ROOT)
			break;
		return bpf_qdisc_pass(ctx, skb, CLASS);
	case SEGMENT:
		if (bpf_qdisc_pkt_segs(skb) == 1)
			break;
		verdict = bpf_qdisc_segment(ctx, skb);
		return 0;
	}
	return bpf_qdisc_push(ctx, pkts, &key, skb);
}

static int serve(struct sch_bpf_ctx *ctx)
{
	__u32 queue = ctx->queue;
	void *pkts;

	if (closed) {
		ctx->expire = bpf_ktime_get_ns() + 5 * NSEC_PER_SEC;
		return 0;
	}
	pkts = bpf_map_lookup_elem(&queues, &queue);
	if (pkts && !bpf_qdisc_pop(ctx, pkts))
		return 0;
	pkts = bpf_map_lookup_elem(&large_queues, &queue);
	if (pkts && !bpf_qdisc_pop(ctx, pkts))
		return 0;
	return bpf_qdisc_pop_class(ctx, CLASS);
}

SEC("qdisc/enqueue/old")
int old_enqueue(struct sch_bpf_ctx *ctx)
{
	return store(ctx);
}

SEC("qdisc/dequeue/old")
int old_dequeue(struct sch_bpf_ctx *ctx)
{
	return serve(ctx);
}

SEC("qdisc/enqueue/new")
int new_enqueue(struct sch_bpf_ctx *ctx)
{
	return store(ctx);
}

SEC("qdisc/dequeue/new")
int new_dequeue(struct sch_bpf_ctx *ctx)
{
	return serve(ctx);
}

char LICENSE[] SEC("license") = "GPL";
