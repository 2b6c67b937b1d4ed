// SPDX-License-Identifier: GPL-2.0
/* An object that is no policy: who would put packets in? */
#include "../../policies/policy.h"

SEC("qdisc/dequeue")
int none_dequeue(struct sch_bpf_ctx *ctx)
{
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
