// SPDX-License-Identifier: GPL-2.0
/* tc_errors.py makes some of its types refer to themselves. Its maps hold no packets. */
#include "../../policies/policy.h"

#define PARAM SEC(".data.param")

typedef __u64 of_itself_t;
typedef __u64 of_arrays_t[2];

struct of_structures {
	__u64 a, b;
};

volatile of_itself_t of_itself PARAM = 1;
volatile of_arrays_t of_arrays PARAM = { 1, 2 };
volatile __u64 plain PARAM = 5;

struct {
	__uint(type, BPF_MAP_TYPE_RBTREE);
	__type(key, __u64);
	__type(value, struct of_structures);
	__uint(max_entries, 2);
} loops SEC(".maps");

SEC("qdisc/enqueue")
int loops_enqueue(struct sch_bpf_ctx *ctx)
{
	__u64 key = plain + of_itself + of_arrays[0];

	bpf_map_lookup_elem(&loops, &key);
	return bpf_qdisc_drop(ctx, ctx->skb, 0);
}

SEC("qdisc/dequeue")
int loops_dequeue(struct sch_bpf_ctx *ctx)
{
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
