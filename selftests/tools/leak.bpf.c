// SPDX-License-Identifier: GPL-2.0
/* Neither stores nor drops its packet: the verifier refuses. */
#include "../../policies/policy.h"

SEC("qdisc/enqueue")
int leak_enqueue(struct sch_bpf_ctx *ctx)
{
	return 0;
}

SEC("qdisc/dequeue")
int leak_dequeue(struct sch_bpf_ctx *ctx)
{
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
