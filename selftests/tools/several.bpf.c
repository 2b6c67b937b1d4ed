// SPDX-License-Identifier: GPL-2.0
/* Two policies in one object, first in first out and last in first out, beside a
 * classifier and a program that the verifier would refuse.
 */
#include "../../policies/policy.h"

struct {
	__uint(type, BPF_MAP_TYPE_RBTREE);
	__type(key, __u64);
	__type(value, struct pkt);
	__uint(max_entries, 100);
} several_pkts SEC(".maps");

static __u64 count;

SEC("qdisc/enqueue/first")
int first_enqueue(struct sch_bpf_ctx *ctx)
{
	__u64 key = 0;

	return bpf_qdisc_push(ctx, &several_pkts, &key, ctx->skb);
}

SEC("qdisc/enqueue/last")
int last_enqueue(struct sch_bpf_ctx *ctx)
{
	__u64 key = -__sync_add_and_fetch(&count, 1);

	return bpf_qdisc_push(ctx, &several_pkts, &key, ctx->skb);
}

SEC("qdisc/dequeue")
int any_dequeue(struct sch_bpf_ctx *ctx)
{
	return bpf_qdisc_pop(ctx, &several_pkts);
}

SEC("qdisc/dequeue/never")
int never_dequeue(struct sch_bpf_ctx *ctx)
{
	bpf_qdisc_take(ctx, &several_pkts);
	return 0;
}

SEC("tc")
int classify(struct __sk_buff *skb)
{
	return TC_ACT_UNSPEC;
}

char LICENSE[] SEC("license") = "GPL";
