// SPDX-License-Identifier: GPL-2.0
/* Puts packets into many maps, in turn, and lets none go. */
#include "../../policies/policy.h"
#include <bpf/bpf_rbtree.h>

#define MAPS	1024

BPF_QDISC_QUEUES(spread_pkts, __u64, MAPS, MAPS);

__u32 maps SEC(".data.param") BPF_QDISC_RANGE(1, MAPS) = MAPS;
__u32 packets SEC(".data.param") = MAPS;	/* those above end here */

SEC("qdisc/enqueue")
int spread_enqueue(struct sch_bpf_ctx *ctx)
{
	__u32 count = ctx->qdisc->q.qlen, index = count % maps;
	__u64 key = 0;
	void *pkts;

	pkts = bpf_map_lookup_elem(&spread_pkts, &index);
	if (!pkts || count >= packets)
		return bpf_qdisc_steal(ctx, ctx->skb);
	return bpf_qdisc_push(ctx, pkts, &key, ctx->skb);
}

SEC("qdisc/dequeue")
int spread_dequeue(struct sch_bpf_ctx *ctx)
{
	ctx->expire = ~0ULL;	/* so at the horizon */
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
