// SPDX-License-Identifier: GPL-2.0
/* An object that is no policy: who would take packets out? */
#include "../../policies/policy.h"

SEC("qdisc/enqueue")
int none_enqueue(struct sch_bpf_ctx *ctx)
{
	return bpf_qdisc_drop(ctx, ctx->skb, 0);
}

char LICENSE[] SEC("license") = "GPL";
