// SPDX-License-Identifier: GPL-2.0
/* As shared.bpf.c, but for the sign of the key: the order is another. */
#include "../../policies/policy.h"

struct {
	__uint(type, BPF_MAP_TYPE_RBTREE);
	__type(key, __s64);
	__type(value, struct pkt);
	__uint(max_entries, 8);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} shared_pkts SEC(".maps");

SEC("qdisc/enqueue")
int shared_enqueue(struct sch_bpf_ctx *ctx)
{
	__s64 key = 0;

	return bpf_qdisc_push(ctx, &shared_pkts, &key, ctx->skb);
}

SEC("qdisc/dequeue")
int shared_dequeue(struct sch_bpf_ctx *ctx)
{
	return bpf_qdisc_pop(ctx, &shared_pkts);
}

char LICENSE[] SEC("license") = "GPL";
