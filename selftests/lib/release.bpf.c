// SPDX-License-Identifier: GPL-2.0
/* What hold.bpf.c keeps leaves: the same map, other programs. */
#include "../../policies/policy.h"

struct {
	__uint(type, BPF_MAP_TYPE_RBTREE);
	__type(key, __u64);
	__type(value, struct pkt);
	__uint(max_entries, 2000);
} hold_pkts SEC(".maps");

SEC("qdisc/enqueue")
int release_enqueue(struct sch_bpf_ctx *ctx)
{
	__u64 key = 0;

	return bpf_qdisc_push(ctx, &hold_pkts, &key, ctx->skb);
}

SEC("qdisc/dequeue")
int release_dequeue(struct sch_bpf_ctx *ctx)
{
	return bpf_qdisc_pop(ctx, &hold_pkts);
}

char LICENSE[] SEC("license") = "GPL";
