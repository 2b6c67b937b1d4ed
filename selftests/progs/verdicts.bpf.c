// SPDX-License-Identifier: GPL-2.0
/* A packet's mark says what becomes of it. */
#include "../../policies/policy.h"

enum {				/* also in accounting.py */
	QUEUE,
	DROP_BY_KFUNC,
	DROP_BY_VERDICT,
	STEAL,
	CLONE,			/* queue it twice */
	DROP_HEAD,		/* make room, then queue it */
	LIE,			/* drop it and say that it is queued */
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
	case DROP_BY_KFUNC:
		return bpf_qdisc_drop(ctx, skb, 0);
	case DROP_BY_VERDICT:
		return SCH_BPF_DROP;
	case STEAL:
		return SCH_BPF_STOLEN;
	case CLONE:
		push_clone(ctx, skb);
		return push(ctx, skb);
	case DROP_HEAD:
		drop_head(ctx);
		push(ctx, skb);
		return SCH_BPF_CN;
	case LIE:
		bpf_qdisc_drop(ctx, skb, 0);
		return SCH_BPF_QUEUED;
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
		return SCH_BPF_THROTTLE;
	}
	bpf_for(i, 0, 1000) {
		skb = bpf_qdisc_take(ctx, &verdict_pkts);
		if (!skb)
			return SCH_BPF_EMPTY;
		if (skb->mark != DROP_AT_DEQUEUE)
			return bpf_qdisc_deliver(ctx, skb);
		bpf_qdisc_drop(ctx, skb, 0);
	}
	return SCH_BPF_EMPTY;
}

char LICENSE[] SEC("license") = "GPL";
