// SPDX-License-Identifier: GPL-2.0
/* Filters decide: a class, or what a filter's action says. What no filter matches is
 * kept here and leaves last. Class 1:1 leaves before class 1:2.
 */
#include "../../policies/policy.h"

struct where {			/* whose filters to run for packets of a priority, modulo 16 */
	__s32 ifindex;
	__u32 handle;
};

struct seen {			/* of these packets */
	__u64 packets;
	__s64 verdict;		/* of the last one */
	__u64 classid;
	__u32 mark, priority, queue;	/* of the packet, afterwards */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, struct where);
	__uint(max_entries, 16);
} classes_where SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, struct seen);
	__uint(max_entries, 16);
} classes_seen SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RBTREE);
	__type(key, __u64);
	__type(value, struct pkt);
	__uint(max_entries, 100);
} classes_pkts SEC(".maps");

static int classify(struct sch_bpf_ctx *ctx, struct sk_buff *skb)
{
	__u32 which = skb->priority & 15;
	struct where *where = bpf_map_lookup_elem(&classes_where, &which);
	struct seen *seen = bpf_map_lookup_elem(&classes_seen, &which);
	int verdict;

	if (!where || !seen)
		return TC_ACT_SHOT;
	verdict = bpf_skb_tc_classify(ctx, skb, where->ifindex, where->handle);
	seen->packets++;
	seen->verdict = verdict;
	seen->classid = ctx->classid;
	seen->mark = skb->mark;
	seen->priority = skb->priority;
	seen->queue = skb->queue_mapping;
	return verdict;
}

SEC("qdisc/enqueue")
int classes_enqueue(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb = ctx->skb;
	__u64 key = 0;

	switch (classify(ctx, skb)) {
	case TC_ACT_SHOT:
		return bpf_qdisc_drop(ctx, skb, 0);
	case TC_ACT_STOLEN:
	case TC_ACT_QUEUED:
	case TC_ACT_TRAP:
		return bpf_qdisc_steal(ctx, skb);
	case TC_ACT_OK:
		return bpf_qdisc_pass(ctx, skb, ctx->classid);
	default:
		return bpf_qdisc_push(ctx, &classes_pkts, &key, skb);
	}
}

SEC("qdisc/dequeue")
int classes_dequeue(struct sch_bpf_ctx *ctx)
{
	if (!bpf_qdisc_pop_class(ctx, 0x10001) || !bpf_qdisc_pop(ctx, &classes_pkts))
		return 0;
	return bpf_qdisc_pop_class(ctx, 0x10002);
}

char LICENSE[] SEC("license") = "GPL";
