// SPDX-License-Identifier: GPL-2.0
/* Arrays of maps that could hold no packet; api.c loads one at a time. */
#include "../../policies/policy.h"

struct nothing {
};

BPF_QDISC_QUEUES(no_packets, __u64, 0, 2);
BPF_QDISC_QUEUES(no_key, struct nothing, 10, 2);

SEC("qdisc/enqueue")
int nothing_enqueue(struct sch_bpf_ctx *ctx)
{
	return bpf_qdisc_drop(ctx, ctx->skb, 0);
}

char LICENSE[] SEC("license") = "GPL";
