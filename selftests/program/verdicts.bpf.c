// SPDX-License-Identifier: GPL-2.0
/* A packet's mark says what becomes of it; what the program returns means nothing. */
#include "../../policies/policy.h"

enum {				/* also in accounting.py */
	QUEUE,
	DROP_NOW,
	STEAL,
	CLONE,			/* queue it twice */
	DROP_HEAD,		/* make room, then queue it */
	LIE,			/* queue it and return NET_XMIT_DROP */
	DROP_AT_DEQUEUE,
	MARK_CE,		/* queue it marked, or drop it if it cannot be */
	OPEN,			/* queue it; from now on packets leave */
};

struct {
	__uint(type, BPF_MAP_TYPE_RBTREE);
	__type(key, __u64);
	__type(value, struct pkt);
	__uint(max_entries, 1000);
} verdict_pkts SEC(".maps");

static int push(struct sch_bpf_ctx *ctx, struct sk_buff *skb)
{
	__u64 key = 0;

	return bpf_qdisc_push(ctx, &verdict_pkts, &key, skb);
}

static void push_clone(struct sch_bpf_ctx *ctx, struct sk_buff *skb)
{
	struct sk_buff *clone = bpf_qdisc_clone(ctx, skb);

	if (clone)
		push(ctx, clone);
}

static void drop_head(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *head = bpf_qdisc_take(ctx, &verdict_pkts);

	if (head)
		bpf_qdisc_drop(ctx, head, 0);
}

static bool open;

SEC("qdisc/enqueue")
int verdict_enqueue(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb = ctx->skb;

	switch (skb->mark) {
	case DROP_NOW:
		return bpf_qdisc_drop(ctx, skb, 0);
	case STEAL:
		return bpf_qdisc_steal(ctx, skb);
	case CLONE:
		push_clone(ctx, skb);
		return push(ctx, skb);
	case DROP_HEAD:
		drop_head(ctx);
		return push(ctx, skb);
	case LIE:
		push(ctx, skb);
		return 1;
	case MARK_CE:
		if (!bpf_qdisc_ecn_mark(ctx, skb))
			return bpf_qdisc_drop(ctx, skb, 0);
		return push(ctx, skb);
	case OPEN:
		open = true;
		return push(ctx, skb);
	default:
		return push(ctx, skb);
	}
}

SEC("qdisc/dequeue")
int verdict_dequeue(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb;
	int i;

	if (!open) {
		ctx->expire = bpf_ktime_get_ns() + NSEC_PER_SEC / 100;
		return 0;
	}
	bpf_for(i, 0, 1000) {
		skb = bpf_qdisc_take(ctx, &verdict_pkts);
		if (!skb)
			break;
		if (skb->mark != DROP_AT_DEQUEUE)
			return bpf_qdisc_deliver(ctx, skb);
		bpf_qdisc_drop(ctx, skb, 0);
	}
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
