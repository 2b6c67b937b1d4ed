// SPDX-License-Identifier: GPL-2.0
/* For map_claims.c: packets go through the map that user space has put here last. */
#include "../../policies/policy.h"

BPF_QDISC_QUEUES(queues, __u64, 20000, 1);

struct {			/* also in map_claims.c */
	__u32 closed;
	__u32 generation;
} state;
__u64 keys = 1;

SEC("qdisc/enqueue")
int claims_enqueue(struct sch_bpf_ctx *ctx)
{
	__u64 key = bpf_get_prandom_u32() % keys;
	__u32 first = 0;
	void *pkts;

	state.generation = ctx->generation;
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

	if (state.closed) {
		ctx->expire = bpf_ktime_get_ns() + 5 * NSEC_PER_SEC;
		return 0;
	}
	pkts = bpf_map_lookup_elem(&queues, &first);
	if (!pkts)
		return 0;
	return bpf_qdisc_pop(ctx, pkts);
}

char LICENSE[] SEC("license") = "GPL";
