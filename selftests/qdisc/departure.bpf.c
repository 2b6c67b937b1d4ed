// SPDX-License-Identifier: GPL-2.0
/* Each packet is stamped, whatever stamp it had: a qdisc below sends it so many milliseconds
 * later as its mark says, or at once without a mark. A stamp that does not read as it was
 * written drops its packet.
 */
#include "../../policies/policy.h"

SEC("qdisc/enqueue")
int departure_enqueue(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb = ctx->skb;
	__u64 when = skb->mark ? bpf_ktime_get_ns() + skb->mark * NSEC_PER_MSEC : 0;

	bpf_qdisc_set_departure(ctx, skb, when);
	if (when && bpf_qdisc_departure(ctx, skb) != when)
		return bpf_qdisc_drop(ctx, skb, 0);
	return bpf_qdisc_pass(ctx, skb, 0x10001);
}

SEC("qdisc/dequeue")
int departure_dequeue(struct sch_bpf_ctx *ctx)
{
	return bpf_qdisc_pop_class(ctx, 0x10001);
}

char LICENSE[] SEC("license") = "GPL";
