// SPDX-License-Identifier: GPL-2.0
/* Two tables whose names differ behind the 15 characters that the kernel keeps. */
#include "../../policies/policy.h"

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, __u32);
	__uint(max_entries, 4);
} namesakes_table_a SEC(".maps") BPF_QDISC_TABLE;

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, __u32);
	__uint(max_entries, 4);
} namesakes_table_b SEC(".maps") BPF_QDISC_TABLE;

BPF_QDISC_QUEUE(namesakes_pkts, __u64, 100);

SEC("qdisc/enqueue")
int namesakes_enqueue(struct sch_bpf_ctx *ctx)
{
	__u64 key = 0;

	return bpf_qdisc_push(ctx, &namesakes_pkts, &key, ctx->skb);
}

SEC("qdisc/dequeue")
int namesakes_dequeue(struct sch_bpf_ctx *ctx)
{
	__u32 zero = 0;

	bpf_map_lookup_elem(&namesakes_table_b, &zero);
	return bpf_qdisc_pop(ctx, &namesakes_pkts);
}

char LICENSE[] SEC("license") = "GPL";
