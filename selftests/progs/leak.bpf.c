// SPDX-License-Identifier: GPL-2.0
/* Says that the packet is stored, and does not store it: the verifier refuses. */
#include "../../policies/policy.h"

SEC("qdisc/enqueue")
int leak_enqueue(struct sch_bpf_ctx *ctx)
{
	return SCH_BPF_QUEUED;
}

SEC("qdisc/dequeue")
int leak_dequeue(struct sch_bpf_ctx *ctx)
{
	return SCH_BPF_EMPTY;
}

char LICENSE[] SEC("license") = "GPL";
