// SPDX-License-Identifier: GPL-2.0
/* Has no map and no variable, but calls a function of the kernel. */
#include "../../policies/policy.h"

SEC("qdisc/enqueue")
int no_maps_enqueue(struct sch_bpf_ctx *ctx)
{
	return bpf_qdisc_drop(ctx, ctx->skb, 0);
}

SEC("qdisc/dequeue")
int no_maps_dequeue(struct sch_bpf_ctx *ctx)
{
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
