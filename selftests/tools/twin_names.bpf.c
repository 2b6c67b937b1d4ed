// SPDX-License-Identifier: GPL-2.0
/* Two maps of packets whose names differ behind the 15 characters that the kernel keeps. No
 * packet leaves.
 */
#include "../../policies/policy.h"

BPF_QDISC_QUEUE(twin_names_pkts_a, __u64, 100);
BPF_QDISC_QUEUE(twin_names_pkts_b, __u64, 100);

SEC("qdisc/enqueue")
int twin_names_enqueue(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb = ctx->skb;
	__u64 key = 0;

	if (skb->mark)
		return bpf_qdisc_push(ctx, &twin_names_pkts_b, &key, skb);
	return bpf_qdisc_push(ctx, &twin_names_pkts_a, &key, skb);
}

SEC("qdisc/dequeue")
int twin_names_dequeue(struct sch_bpf_ctx *ctx)
{
	if (bpf_rbtree_map_len(&twin_names_pkts_a) + bpf_rbtree_map_len(&twin_names_pkts_b))
		ctx->expire = bpf_ktime_get_ns() + 5 * NSEC_PER_SEC;
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
