// SPDX-License-Identifier: GPL-2.0
/* Deficit round robin over two classes, whose first packets are looked at. A packet's mark
 * is its class; another one opens the queue, until when nothing leaves.
 */
#include "../../policies/policy.h"

#define CLASS	0x10001		/* 1:1, and 1:2 behind it */
#define OPEN	3		/* also in classes.py */

struct seen {			/* of the two classes, and of one that is not there */
	__s32 len[3];
	__s32 head[3];
	__u32 held;		/* how often one was held back */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, struct seen);
	__uint(max_entries, 1);
} class_drr_seen SEC(".maps");

static const __u32 quantum[2] = { 1000, 2000 };	/* bytes */
static __u32 turn;
static __u32 deficit[2];
static bool open;

SEC("qdisc/enqueue")
int class_drr_enqueue(struct sch_bpf_ctx *ctx)
{
	struct seen *seen = bpf_map_lookup_elem(&class_drr_seen, &(__u32){ 0 });
	struct sk_buff *skb = ctx->skb;
	int i, err, mark = skb->mark;

	if (mark == OPEN) {
		open = true;
		err = bpf_qdisc_drop(ctx, skb, 0);
	} else {
		err = bpf_qdisc_pass(ctx, skb, CLASS - 1 + mark);
	}
	for (i = 0; i < 3 && seen; i++)
		seen->len[i] = bpf_qdisc_class_len(ctx, CLASS + i);
	return err;
}

SEC("qdisc/dequeue")
int class_drr_dequeue(struct sch_bpf_ctx *ctx)
{
	struct seen *seen = bpf_map_lookup_elem(&class_drr_seen, &(__u32){ 0 });
	int i, len;

	if (!open) {
		ctx->expire = bpf_ktime_get_ns() + 5 * NSEC_PER_SEC;
		return 0;
	}
	for (i = 0; i < 3 && seen; i++) {
		seen->head[i] = bpf_qdisc_class_head(ctx, CLASS + i);
		seen->held += seen->head[i] == -EAGAIN;
	}
	for (i = 0; i < 5; i++) {
		len = bpf_qdisc_class_head(ctx, CLASS + turn);
		if (len > 0 && len <= deficit[turn & 1]) {
			deficit[turn & 1] -= len;
			return bpf_qdisc_pop_class(ctx, CLASS + turn);
		}
		if (len < 0)
			deficit[turn & 1] = 0;
		turn = !turn;
		deficit[turn & 1] += quantum[turn & 1];
	}
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
