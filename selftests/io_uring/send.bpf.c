// SPDX-License-Identifier: GPL-2.0
/* A packet's mark says what becomes of it. One without a mark leaves at once. */
#include "../../policies/policy.h"
#include "send_marks.h"

BPF_QDISC_QUEUE(send_pkts, __u64, 2000);

static bool open;

SEC("qdisc/enqueue")
int send_enqueue(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb = ctx->skb;
	__u64 key = skb->mark;

	if (key == REFUSE)
		return bpf_qdisc_drop(ctx, skb, 0);
	if (key == LOSE)
		return bpf_qdisc_lose(ctx, skb);
	if (key == CUT && bpf_qdisc_pkt_segs(skb) > 1)
		return bpf_qdisc_segment(ctx, skb);
	if (key == CUT)
		key = bpf_qdisc_pkt_len(skb) < SHORT ? HOLD : 0;
	if (key == GO)
		open = true;
	return bpf_qdisc_push(ctx, &send_pkts, &key, skb);
}

SEC("qdisc/dequeue")
int send_dequeue(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb;
	__u64 key = 0;

	if (!bpf_rbtree_map_first(&send_pkts, &key))
		return 0;
	if (key == LATE) {
		skb = bpf_qdisc_take(ctx, &send_pkts);
		return skb ? bpf_qdisc_drop(ctx, skb, 0) : 0;
	}
	if (key == HOLD && !open) {
		ctx->expire = bpf_ktime_get_ns() + 5 * NSEC_PER_SEC;
		return 0;
	}
	if (key == GO)
		open = false;
	return bpf_qdisc_pop(ctx, &send_pkts);
}

char LICENSE[] SEC("license") = "GPL";
