// SPDX-License-Identifier: GPL-2.0
/* A packet's mark says why it is dropped, as enum qdisc_drop_reason; with LATE it is
 * dropped at dequeue. A mark of 0 is for packets that are kept, in a map for two.
 */
#include "../../policies/policy.h"

#define LATE	0x100		/* also in reasons.py */

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
	__u64 key = !(mark & LATE);	/* these leave first */

	if (mark && !(mark & LATE))
		return bpf_qdisc_drop(ctx, skb, __QDISC_DROP_REASON + mark);
	return bpf_qdisc_push(ctx, &reasons_pkts, &key, skb);
}

SEC("qdisc/dequeue")
int reasons_dequeue(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb;
	__u64 key = 0;

	if (bpf_rbtree_map_first(&reasons_pkts, &key) && !key) {
		skb = bpf_qdisc_take(ctx, &reasons_pkts);
		if (skb)
			bpf_qdisc_drop(ctx, skb, __QDISC_DROP_REASON + (skb->mark & 0xff));
		return SCH_BPF_EMPTY;
	}
	ctx->expire = bpf_ktime_get_ns() + 5 * NSEC_PER_SEC;
	return SCH_BPF_THROTTLE;
}

char LICENSE[] SEC("license") = "GPL";
