// SPDX-License-Identifier: GPL-2.0
/* hold.bpf.c with another key: its packets cannot be taken over. */
#include "../../policies/policy.h"

struct {
	__uint(type, BPF_MAP_TYPE_RBTREE);
	__type(key, __s64);
	__type(value, struct pkt);
	__uint(max_entries, 2000);
} hold_pkts SEC(".maps");

SEC("qdisc/enqueue")
int hold_enqueue(struct sch_bpf_ctx *ctx)
{
	__s64 key = ctx->skb->mark;

	return bpf_qdisc_push(ctx, &hold_pkts, &key, ctx->skb);
}

SEC("qdisc/dequeue")
int hold_dequeue(struct sch_bpf_ctx *ctx)
{
	return bpf_qdisc_pop(ctx, &hold_pkts);
}

char LICENSE[] SEC("license") = "GPL";
