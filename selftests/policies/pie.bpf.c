// SPDX-License-Identifier: GPL-2.0
/* pie: one queue, before which packets are dropped with a probability that keeps the delay
 * of the others near the target.
 */
#include "../../policies/policy.h"

__u64 target SEC(".data.param") BPF_QDISC_RANGE(0, 10s) = 15 * NSEC_PER_MSEC;
__u64 tupdate SEC(".data.param") BPF_QDISC_RANGE(1ms, 10s) = 15 * NSEC_PER_MSEC;
__u64 burst SEC(".data.param") BPF_QDISC_RANGE(0, 10s) = 150 * NSEC_PER_MSEC;
__u32 alpha SEC(".data.param") = 2;	/* sixteenths */
__u32 beta SEC(".data.param") = 20;
__u32 mtu SEC(".data.param") = 1514;
bool ecn SEC(".data.param");

BPF_QDISC_QUEUE(pie_pkts, __u64, 10000);	/* by time of arrival */

struct bpf_pie pie;

static struct bpf_pie_params params(void)
{
	return (struct bpf_pie_params){ target, tupdate, burst, alpha, beta, mtu, ecn };
}

SEC("qdisc/enqueue")
int pie_enqueue(struct sch_bpf_ctx *ctx)
{
	struct bpf_pie_params p = params();
	struct sk_buff *skb = ctx->skb;
	__u64 now = bpf_ktime_get_ns();

	if (bpf_aqm_drops(ctx, skb, bpf_pie_enqueue(&pie, &p, now, ctx->qdisc->qstats.backlog)))
		return bpf_qdisc_drop(ctx, skb, QDISC_DROP_CONGESTED);
	*bpf_qdisc_note(skb, __u64) = now;
	return bpf_qdisc_push(ctx, &pie_pkts, &now, skb);
}

SEC("qdisc/dequeue")
int pie_dequeue(struct sch_bpf_ctx *ctx)
{
	struct bpf_pie_params p = params();
	struct sk_buff *skb;

	bpf_qdisc_pop(ctx, &pie_pkts);
	skb = ctx->skb;
	if (skb)
		bpf_pie_dequeue(&pie, &p, bpf_ktime_get_ns(), *bpf_qdisc_note(skb, __u64),
				ctx->qdisc->qstats.backlog);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
