// SPDX-License-Identifier: GPL-2.0
/* For bpf_mq: each tx queue keeps its packets in a map of its own. */
#include "../../policies/policy.h"

#ifndef GROUP_TYPE
#define GROUP_TYPE	__u32
#endif

struct place {			/* nothing but the map describes it */
	GROUP_TYPE group;
	__u32 number;
};

BPF_QDISC_QUEUES(queues, struct place, 100, 0);

__u64 enqueued SEC(".data.stats");	/* packets, by all instances */

SEC("qdisc/enqueue")
int queues_enqueue(struct sch_bpf_ctx *ctx)
{
	struct place key = {};
	__u32 queue = ctx->queue;
	void *pkts;

	__sync_fetch_and_add(&enqueued, 1);
	pkts = bpf_map_lookup_elem(&queues, &queue);
	if (!pkts)
		return bpf_qdisc_drop(ctx, ctx->skb, 0);
	return bpf_qdisc_push(ctx, pkts, &key, ctx->skb);
}

SEC("qdisc/dequeue")
int queues_dequeue(struct sch_bpf_ctx *ctx)
{
	__u32 queue = ctx->queue;
	void *pkts;

	pkts = bpf_map_lookup_elem(&queues, &queue);
	return pkts ? bpf_qdisc_pop(ctx, pkts) : 0;
}

char LICENSE[] SEC("license") = "GPL";
