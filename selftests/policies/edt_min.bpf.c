// SPDX-License-Identifier: GPL-2.0
/* The README's example, to the letter: a whole policy that has no more to say. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_qdisc.h>

BPF_QDISC_QUEUE(pkts, __u64, 10000);            /* departure time in ns -> packets, up to 10000 */

SEC("qdisc/enqueue")
int edt_enqueue(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb = ctx->skb;                 /* this program owns the packet */
	__u64 when = bpf_qdisc_departure(ctx, skb);     /* ns CLOCK_MONOTONIC */

	return bpf_qdisc_push(ctx, &pkts, &when, skb);  /* gives it away: stored, or dropped */
}

SEC("qdisc/dequeue")
int edt_dequeue(struct sch_bpf_ctx *ctx)
{
	__u64 now = bpf_ktime_get_ns();

	return bpf_qdisc_pop_until(ctx, &pkts, &now);   /* one leaves, or ctx->expire is set */
}

char LICENSE[] SEC("license") = "GPL";
