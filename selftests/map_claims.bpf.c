// SPDX-License-Identifier: GPL-2.0
/* For map_claims.c: packets go through the map that user space has put here last. */
#include "../policies/policy.h"

struct queue {
	__uint(type, BPF_MAP_TYPE_RBTREE);
	__type(key, __u64);
	__type(value, struct pkt);
	__uint(max_entries, 20000);
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__type(key, __u32);
	__uint(max_entries, 1);
	__array(values, struct queue);
} queues SEC(".maps");

__u32 closed;
__u64 keys = 1;

SEC("qdisc/enqueue")
int claims_enqueue(struct sch_bpf_ctx *ctx)
{
	__u64 key = bpf_get_prandom_u32() % keys;
	__u32 first = 0;
	void *pkts;

	pkts = bpf_map_lookup_elem(&queues, &first);
	if (!pkts)
		return bpf_qdisc_drop(ctx, ctx->skb, QDISC_DROP_GENERIC);
	return bpf_qdisc_push(ctx, pkts, &key, ctx->skb);
}

SEC("qdisc/dequeue")
int claims_dequeue(struct sch_bpf_ctx *ctx)
{
	__u32 first = 0;
	void *pkts;

	if (closed) {
		ctx->expire = bpf_ktime_get_ns() + 5 * NSEC_PER_SEC;
		return 0;
	}
	pkts = bpf_map_lookup_elem(&queues, &first);
	if (!pkts)
		return 0;
	return bpf_qdisc_pop(ctx, pkts);
}

/* clang describes struct pkt, which only the inner map uses, if a function has it */
SEC("syscall")
int claims_unused(struct pkt *pkt)
{
	return sizeof(*pkt);
}

char LICENSE[] SEC("license") = "GPL";
