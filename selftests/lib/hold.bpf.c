// SPDX-License-Identifier: GPL-2.0
/* Takes 2000 packets and lets none go: what is queued stays there to be looked at. */
#include "../../policies/policy.h"

struct {
	__uint(type, BPF_MAP_TYPE_RBTREE);
	__type(key, __u64);
	__type(value, struct pkt);
	__uint(max_entries, 2000);
} hold_pkts SEC(".maps");

SEC("qdisc/enqueue")
int hold_enqueue(struct sch_bpf_ctx *ctx)
{
	__u64 key = 0;

	return bpf_qdisc_push(ctx, &hold_pkts, &key, ctx->skb);
}

SEC("qdisc/dequeue")
int hold_dequeue(struct sch_bpf_ctx *ctx)
{
	ctx->expire = bpf_ktime_get_ns() + 5 * NSEC_PER_SEC;
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
