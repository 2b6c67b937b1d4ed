// SPDX-License-Identifier: GPL-2.0
/* A policy outside the repository, built with libbpf-qdisc-dev alone: packages/check. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_qdisc.h>

BPF_QDISC_QUEUE(pkts, __u64, 1000);

SEC("qdisc/enqueue")
int mine_enqueue(struct sch_bpf_ctx *ctx)
{
	__u64 key = 0;

	return bpf_qdisc_push(ctx, &pkts, &key, ctx->skb);
}

SEC("qdisc/dequeue")
int mine_dequeue(struct sch_bpf_ctx *ctx)
{
	return bpf_qdisc_pop(ctx, &pkts);
}

char LICENSE[] SEC("license") = "GPL";
