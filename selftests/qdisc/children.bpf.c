// SPDX-License-Identifier: GPL-2.0
/* A packet goes to the class whose minor number is the last byte of its mark; with 0
 * it is kept here. Nothing leaves before a packet with OPEN in its mark has come;
 * then the classes go first. Others say what else to do, once or from then on.
 */
#include "../../policies/policy.h"

enum {				/* also in children.py */
	OPEN = 1,
	ASK_EMPTY_CLASS,	/* the next dequeue asks a class without packets alone */
	ASK_NO_CLASS,		/* the same for one that does not exist */
	DROP_REST,		/* the next dequeue delivers the first and drops all others kept */
	WAIT_FOR_CLASSES,	/* what is kept stays as long as no class gave a packet */
	SILENT,			/* nothing leaves any more, without a word */
	SHUT,			/* nothing leaves any more */
	AGAIN,			/* the same; and the first packet is taken out and kept again */
};

#define CLASSES		9
#define NO_CLASS	77

struct {
	__uint(type, BPF_MAP_TYPE_RBTREE);
	__type(key, __u64);
	__type(value, struct pkt);
	__uint(max_entries, 10000);
} children_pkts SEC(".maps");

static __u32 state;		/* 0: shut, too */

SEC("qdisc/enqueue")
int children_enqueue(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb = ctx->skb;
	__u32 class = skb->mark & 0xff;
	__u64 key = 0;

	if (skb->mark >> 8)
		state = skb->mark >> 8;
	if (class)
		return bpf_qdisc_pass(ctx, skb, ctx->qdisc->handle | class);
	bpf_qdisc_push(ctx, &children_pkts, &key, skb);
	if (state != AGAIN)
		return 0;
	skb = bpf_qdisc_take(ctx, &children_pkts);
	return skb ? bpf_qdisc_push(ctx, &children_pkts, &key, skb) : 0;
}

static int drop_rest(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb;
	int i;

	bpf_qdisc_pop(ctx, &children_pkts);
	for (i = 0; i < 100; i++) {
		skb = bpf_qdisc_take(ctx, &children_pkts);
		if (!skb)
			break;
		bpf_qdisc_drop(ctx, skb, 0);
	}
	return 0;
}

SEC("qdisc/dequeue")
int children_dequeue(struct sch_bpf_ctx *ctx)
{
	__u32 handle = ctx->qdisc->handle, i, doing = state;

	if (doing == SILENT)
		return 0;
	if (!doing || doing >= SHUT) {
		ctx->expire = bpf_ktime_get_ns() + 5 * NSEC_PER_SEC;
		return 0;
	}
	if (doing < WAIT_FOR_CLASSES)
		state = OPEN;
	if (doing == ASK_EMPTY_CLASS || doing == ASK_NO_CLASS)
		return bpf_qdisc_pop_class(ctx, handle | (doing == ASK_EMPTY_CLASS ? 1 : NO_CLASS));
	if (doing == DROP_REST)
		return drop_rest(ctx);

	for (i = 1; i <= CLASSES; i++)
		if (!bpf_qdisc_pop_class(ctx, handle | i))
			return 0;
	if (doing == WAIT_FOR_CLASSES)
		return 0;
	return bpf_qdisc_pop(ctx, &children_pkts);
}

char LICENSE[] SEC("license") = "GPL";
