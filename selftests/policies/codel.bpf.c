// SPDX-License-Identifier: GPL-2.0
/* codel: one queue, from whose head packets are dropped while their delay is too long. */
#include "../../policies/policy.h"

#define MAX_PACKETS	10000

__u64 target SEC(".data.param") BPF_QDISC_RANGE(0, 10s) = 5 * NSEC_PER_MSEC;
__u64 interval SEC(".data.param") BPF_QDISC_RANGE(0, 100s) = 100 * NSEC_PER_MSEC;
__u32 mtu SEC(".data.param") = 1514;
bool ecn SEC(".data.param");

BPF_QDISC_QUEUE(codel_pkts, __u64, MAX_PACKETS);	/* by time of arrival */

struct bpf_codel codel;

SEC("qdisc/enqueue")
int codel_enqueue(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb = ctx->skb;
	__u64 now = bpf_ktime_get_ns();

	*bpf_qdisc_note(skb, __u64) = now;
	return bpf_qdisc_push(ctx, &codel_pkts, &now, skb);
}

SEC("qdisc/dequeue")
int codel_dequeue(struct sch_bpf_ctx *ctx)
{
	struct bpf_codel_params params = { target, interval, mtu, ecn };
	__u64 now = bpf_ktime_get_ns();
	struct sk_buff *skb;
	int i;

	bpf_for(i, 0, MAX_PACKETS) {
		skb = bpf_qdisc_take(ctx, &codel_pkts);
		if (!skb)
			break;
		if (!bpf_aqm_drops(ctx, skb, bpf_codel_dequeue(&codel, &params, now,
							       *bpf_qdisc_note(skb, __u64),
							       ctx->qdisc->qstats.backlog)))
			return bpf_qdisc_deliver(ctx, skb);
		bpf_qdisc_drop(ctx, skb, QDISC_DROP_CONGESTED);
	}
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
