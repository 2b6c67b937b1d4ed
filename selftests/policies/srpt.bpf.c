// SPDX-License-Identifier: GPL-2.0
/* srpt: the flow with the least left to send goes first (shortest remaining processing time).
 *
 * A sender tells with each packet, by its priority, what the flow has left. Packets of a flow
 * leave in the order in which they came, so what counts is what the first one tells, which
 * can be read while it waits. A packet that finds the queue full takes the place of the
 * youngest one of the flow that has most left, unless that is its own.
 */
#include "../../policies/policy.h"
#include <bpf/bpf_rbtree.h>

#define MAX_PACKETS	10000

BPF_QDISC_QUEUE(srpt_pkts, __u32, MAX_PACKETS);	/* by flow */

/* Of all flows that have packets here, the one with the least left, or the most. */
static __s64 find_flow(__u32 *flow, bool most)
{
	__s64 found = -1, left;
	struct sk_buff *skb;
	struct pkt *pkt;
	__u32 key = 0;
	int i;

	bpf_for(i, 0, MAX_PACKETS) {
		pkt = i ? bpf_rbtree_map_upper_bound(&srpt_pkts, &key) :
			  bpf_rbtree_map_first(&srpt_pkts, &key);
		skb = pkt ? pkt->skb : NULL;
		if (!skb)
			break;
		left = skb->priority;
		if (found < 0 || (most ? left > found : left < found)) {
			found = left;
			*flow = key;
		}
	}
	return found;
}

SEC("qdisc/enqueue")
int srpt_enqueue(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb = ctx->skb, *other;
	__u32 flow = bpf_skb_get_hash(skb), longest = 0;

	if (ctx->qdisc->q.qlen >= ctx->qdisc->limit) {
		if (find_flow(&longest, true) <= skb->priority || longest == flow)
			return bpf_qdisc_drop(ctx, skb, QDISC_DROP_OVERLIMIT);
		other = bpf_qdisc_take_youngest(ctx, &srpt_pkts, &longest);
		if (other)
			bpf_qdisc_drop(ctx, other, QDISC_DROP_OVERLIMIT);
	}
	return bpf_qdisc_push(ctx, &srpt_pkts, &flow, skb);
}

SEC("qdisc/dequeue")
int srpt_dequeue(struct sch_bpf_ctx *ctx)
{
	__u32 flow = 0;

	return find_flow(&flow, false) < 0 ? 0 : bpf_qdisc_pop_key(ctx, &srpt_pkts, &flow);
}

char LICENSE[] SEC("license") = "GPL";
