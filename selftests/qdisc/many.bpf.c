// SPDX-License-Identifier: GPL-2.0
/* Takes packets, each under a key of its own as a rule, and lets none go. */
#include "../../policies/policy.h"
#include <bpf/bpf_rbtree.h>

BPF_QDISC_QUEUE(many_pkts, __u64, 1000000);

__u32 packets SEC(".data.param") = 1000000;	/* those above end here */
__u32 silent SEC(".data.param") = 0;	/* 1: says not even that it waits, and gets stuck */

SEC("qdisc/enqueue")
int many_enqueue(struct sch_bpf_ctx *ctx)
{
	__u64 key = bpf_get_prandom_u32();

	if (bpf_rbtree_map_len(&many_pkts) >= packets)
		return bpf_qdisc_steal(ctx, ctx->skb);
	return bpf_qdisc_push(ctx, &many_pkts, &key, ctx->skb);
}

SEC("qdisc/dequeue")
int many_dequeue(struct sch_bpf_ctx *ctx)
{
	if (!silent)
		ctx->expire = ~0ULL;	/* so at the horizon */
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
