// SPDX-License-Identifier: GPL-2.0
/* red: one queue, before which packets are dropped at random when it is long on average. */
#include "../../policies/policy.h"

__u32 min SEC(".data.param") = 30000;
__u32 max SEC(".data.param") = 90000;
__u32 percent SEC(".data.param") BPF_QDISC_RANGE(0, 100) = 2;	/* probability at max */
__u8 weight_log SEC(".data.param") BPF_QDISC_RANGE(0, 24) = 9;
__u64 packet_time SEC(".data.param") = NSEC_PER_MSEC;
bool ecn SEC(".data.param");

BPF_QDISC_QUEUE(red_pkts, __u64, 10000);	/* all of one key */

struct bpf_red red;

SEC("qdisc/enqueue")
int red_enqueue(struct sch_bpf_ctx *ctx)
{
	struct bpf_red_params params = {
		.min = min, .max = max, .max_p = percent * (~0U / 100), .weight_log = weight_log,
		.ecn = ecn, .packet_time = packet_time,
	};
	struct sk_buff *skb = ctx->skb;
	__u64 key = 0;

	if (bpf_aqm_drops(ctx, skb, bpf_red_enqueue(&red, &params, bpf_ktime_get_ns(),
						    ctx->qdisc->qstats.backlog)))
		return bpf_qdisc_drop(ctx, skb, QDISC_DROP_CONGESTED);
	return bpf_qdisc_push(ctx, &red_pkts, &key, skb);
}

SEC("qdisc/dequeue")
int red_dequeue(struct sch_bpf_ctx *ctx)
{
	bpf_qdisc_pop(ctx, &red_pkts);
	bpf_red_dequeue(&red, bpf_ktime_get_ns(), ctx->qdisc->qstats.backlog);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
