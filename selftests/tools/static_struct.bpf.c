// SPDX-License-Identifier: GPL-2.0
/* A static structure, which clang takes apart: names of variables are not valid in BTF then,
 * and the kernel refuses all of it.
 */
#include "../../policies/policy.h"

BPF_QDISC_QUEUE(pkts, __u64, 10);

static struct {
	__u64 packets, bytes;
} sum;

SEC("qdisc/enqueue")
int static_enqueue(struct sch_bpf_ctx *ctx)
{
	__u64 key = sum.packets++;

	sum.bytes += bpf_qdisc_pkt_len(ctx->skb);
	return bpf_qdisc_push(ctx, &pkts, &key, ctx->skb);
}

SEC("qdisc/dequeue")
int static_dequeue(struct sch_bpf_ctx *ctx)
{
	return bpf_qdisc_pop(ctx, &pkts) && sum.bytes > sum.packets;
}

char LICENSE[] SEC("license") = "GPL";
