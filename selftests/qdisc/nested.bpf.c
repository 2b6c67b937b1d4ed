// SPDX-License-Identifier: GPL-2.0
/* nested: what its class, netem, duplicates comes back to the root within the run that has
 * passed it there. Nothing leaves before a packet with the mark OPEN has come.
 */
#include "../../policies/policy.h"

enum {				/* also in nested.py */
	PLAIN,
	CLONE_AWAY,		/* pass a clone, and store what the context then says has come */
	BOTH,			/* store a clone, and pass the packet */
	PASS,
	OPEN,
	AWAY_AND_STORED,	/* pass it; what comes back is stored */
};

BPF_QDISC_QUEUE(nested_pkts, __u64, 1000);

__u64 runs SEC(".data.stats");
__u64 another SEC(".data.stats");	/* packet in the context than before */

static bool open;

/* As if the program did not know what it has read before */
static struct sk_buff *read_again(struct sch_bpf_ctx *ctx)
{
	return *(struct sk_buff *volatile *)&ctx->skb;
}

SEC("qdisc/enqueue")
int nested_enqueue(struct sch_bpf_ctx *ctx)
{
	__u32 mark = ctx->skb->mark, class = ctx->qdisc->handle | 1;
	struct sk_buff *skb = ctx->skb, *clone = NULL;
	__u64 key = 0;

	runs++;
	if (mark == OPEN)
		open = true;
	if (mark == AWAY_AND_STORED) {
		skb->mark = PLAIN;
		return bpf_qdisc_pass(ctx, skb, class);
	}
	if (mark == PASS)
		return bpf_qdisc_pass(ctx, skb, class);
	if (mark != CLONE_AWAY && mark != BOTH)
		return bpf_qdisc_push(ctx, &nested_pkts, &key, skb);

	skb->mark = PLAIN;
	clone = bpf_qdisc_clone(ctx, skb);
	if (!clone)
		return bpf_qdisc_drop(ctx, skb, 0);
	if (mark == BOTH) {
		bpf_qdisc_push(ctx, &nested_pkts, &key, clone);
		return bpf_qdisc_pass(ctx, skb, class);
	}
	bpf_qdisc_pass(ctx, clone, class);
	another += read_again(ctx) != skb;
	return bpf_qdisc_push(ctx, &nested_pkts, &key, read_again(ctx));
}

SEC("qdisc/dequeue")
int nested_dequeue(struct sch_bpf_ctx *ctx)
{
	if (!open) {
		ctx->expire = bpf_ktime_get_ns() + 5 * NSEC_PER_SEC;
		return 0;
	}
	if (bpf_qdisc_pop_class(ctx, ctx->qdisc->handle | 1))
		bpf_qdisc_pop(ctx, &nested_pkts);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
