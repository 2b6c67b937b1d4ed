// SPDX-License-Identifier: GPL-2.0
/* The packet is given to nobody: the verifier refuses it. */
#include <policy.h>

SEC("qdisc/enqueue")
int bad_enqueue(struct sch_bpf_ctx *ctx)
{
	return 0;
}

SEC("qdisc/dequeue")
int bad_dequeue(struct sch_bpf_ctx *ctx)
{
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
