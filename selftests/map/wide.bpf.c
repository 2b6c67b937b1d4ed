// SPDX-License-Identifier: GPL-2.0
/* Keeps packets under a key that is longer than the one integer in it. */
#include "../../policies/policy.h"

struct wide_key {
	__u64 number;
} __attribute__((aligned(16)));

struct {
	__uint(type, BPF_MAP_TYPE_RBTREE);
	__type(key, struct wide_key);
	__type(value, struct pkt);
	__uint(max_entries, 100);
} wide_pkts SEC(".maps");

__u64 taken;

SEC("qdisc/enqueue")
int wide_enqueue(struct sch_bpf_ctx *ctx)
{
	struct wide_key key = { .number = -taken };	/* the youngest comes first */

	taken++;
	return bpf_qdisc_push(ctx, &wide_pkts, &key, ctx->skb);
}

SEC("qdisc/dequeue")
int wide_dequeue(struct sch_bpf_ctx *ctx)
{
	ctx->expire = bpf_ktime_get_ns() + 5 * NSEC_PER_SEC;
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
