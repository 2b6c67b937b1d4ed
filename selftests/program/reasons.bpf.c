// SPDX-License-Identifier: GPL-2.0
/* A packet's mark says why it is dropped, as enum qdisc_drop_reason; with LATE it is
 * dropped at dequeue. A mark of 0 is for packets that are kept, in a map for two. Others
 * the kernel drops: with NOWHERE it is passed to a class that is not there, with TWICE a
 * clone is delivered before it; with CUT it is cut into segments, which are dropped.
 */
#include "../../policies/policy.h"

#define LATE	0x100		/* also in reasons.py */
#define NOWHERE	0x200
#define TWICE	0x400
#define STOLEN	0x800
#define CUT	0x1000

struct {
	__uint(type, BPF_MAP_TYPE_RBTREE);
	__type(key, __u64);
	__type(value, struct pkt);
	__uint(max_entries, 2);
} reasons_pkts SEC(".maps");

SEC("qdisc/enqueue")
int reasons_enqueue(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb = ctx->skb;
	__u32 mark = skb->mark;
	__u64 key = !(mark & (LATE | TWICE));	/* these leave first */

	if (mark & STOLEN)
		return bpf_qdisc_steal(ctx, skb);
	if (mark & CUT && bpf_qdisc_pkt_segs(skb) > 1)
		return bpf_qdisc_segment(ctx, skb);
	if (mark & NOWHERE)
		return bpf_qdisc_pass(ctx, skb, 0x10001);
	if (mark && key)
		return bpf_qdisc_drop(ctx, skb, __QDISC_DROP_REASON + mark);
	return bpf_qdisc_push(ctx, &reasons_pkts, &key, skb);
}

SEC("qdisc/dequeue")
int reasons_dequeue(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb, *clone;
	__u64 key = 0;

	if (bpf_rbtree_map_first(&reasons_pkts, &key) && !key) {
		skb = bpf_qdisc_take(ctx, &reasons_pkts);
		if (!skb)
			return 0;
		if (!(skb->mark & TWICE))
			return bpf_qdisc_drop(ctx, skb, __QDISC_DROP_REASON + (skb->mark & 0xff));
		clone = bpf_qdisc_clone(ctx, skb);
		if (clone)
			bpf_qdisc_deliver(ctx, clone);
		return bpf_qdisc_deliver(ctx, skb);
	}
	ctx->expire = bpf_ktime_get_ns() + 5 * NSEC_PER_SEC;
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
