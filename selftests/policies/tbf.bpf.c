// SPDX-License-Identifier: GPL-2.0
/* tbf: packets leave at a rate, and after a pause a burst leaves at once. */
#include "../../policies/policy.h"

#define MAX_PACKETS	10000

__u64 rate SEC(".data.param") = 1000000;	/* bytes a second */
__u32 burst SEC(".data.param") = 10000;		/* bytes */

BPF_QDISC_QUEUE(tbf_pkts, __u64, MAX_PACKETS);	/* by departure time */

struct bpf_tbf tbf;

SEC("qdisc/enqueue")
int tbf_enqueue(struct sch_bpf_ctx *ctx)
{
	__u32 qlen = ctx->qdisc->q.qlen;
	struct sk_buff *skb = ctx->skb;
	__u64 when;

	if (qlen >= ctx->qdisc->limit || qlen >= MAX_PACKETS)
		return bpf_qdisc_drop(ctx, skb, QDISC_DROP_OVERLIMIT);
	when = bpf_tbf_reserve(&tbf, rate, burst, bpf_ktime_get_ns(), bpf_qdisc_pkt_len(skb));
	return bpf_qdisc_push(ctx, &tbf_pkts, &when, skb);
}

SEC("qdisc/dequeue")
int tbf_dequeue(struct sch_bpf_ctx *ctx)
{
	__u64 now = bpf_ktime_get_ns();

	return bpf_qdisc_pop_until(ctx, &tbf_pkts, &now);
}

char LICENSE[] SEC("license") = "GPL";
