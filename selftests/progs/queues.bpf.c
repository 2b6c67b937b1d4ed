// SPDX-License-Identifier: GPL-2.0
/* For bpf_mq: each tx queue keeps its packets in a map of its own. */
#include "../../policies/policy.h"

struct queue {
	__uint(type, BPF_MAP_TYPE_RBTREE);
	__type(key, __u64);
	__type(value, struct pkt);
	__uint(max_entries, 100);
};

struct {				/* one for each tx queue: no max_entries */
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__type(key, __u32);
	__array(values, struct queue);
} queues SEC(".maps");

SEC("qdisc/enqueue")
int queues_enqueue(struct sch_bpf_ctx *ctx)
{
	__u32 queue = ctx->queue;
	__u64 key = 0;
	void *pkts;

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

/* clang describes struct pkt, which only the inner map uses, if a function has it */
SEC("syscall")
int queues_unused(struct pkt *pkt)
{
	return sizeof(*pkt);
}

char LICENSE[] SEC("license") = "GPL";
