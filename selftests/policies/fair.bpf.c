// SPDX-License-Identifier: GPL-2.0
/* fair: flows share the link by bytes, in turns, and who has most waiting loses.
 *
 * One map has the packets of all flows. Its key is the flow, and where in the flow's bytes the
 * packet starts; so the packets of a flow stand together and in order, and what a flow has
 * waiting is the distance from the start of its first packet to the end of its last one. A
 * packet that finds the queue full pushes the oldest one of the flow out that has most.
 */
#include "../../policies/policy.h"
#include <bpf/bpf_rbtree.h>

#define FLOWS		16384
#define QUANTUM		1514

struct place {
	__u64 flow;
	__u64 start;
};

struct flow {
	__u64 end;		/* of the last packet that came */
	__s32 credit;		/* bytes that it may send in its turn */
};

BPF_QDISC_QUEUE(fair_pkts, struct place, 10000);

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, struct flow);
	__uint(max_entries, FLOWS);
} fair_flows SEC(".maps");

static __u64 turn;		/* the flow whose turn it is, if it has packets; or the next one */

static struct flow *flow_of(__u32 index)
{
	return bpf_map_lookup_elem(&fair_flows, &index);
}

static void drop_from_the_fattest(struct sch_bpf_ctx *ctx)
{
	struct place first = {}, fattest = {};
	struct sk_buff *skb;
	struct flow *flow;
	__u64 most = 0;
	int i;

	bpf_for(i, 0, FLOWS) {
		if (!bpf_rbtree_map_lower_bound(&fair_pkts, &first))
			break;
		flow = flow_of(first.flow);
		if (flow && flow->end - first.start > most) {
			most = flow->end - first.start;
			fattest = first;
		}
		first.flow++;
		first.start = 0;
	}
	skb = bpf_qdisc_take_key(ctx, &fair_pkts, &fattest);
	if (skb)
		bpf_qdisc_drop(ctx, skb, QDISC_DROP_OVERLIMIT);
}

SEC("qdisc/enqueue")
int fair_enqueue(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb = ctx->skb;
	struct place place = { .flow = bpf_skb_get_hash(skb) % FLOWS };
	__u32 len = bpf_qdisc_pkt_len(skb);
	struct flow *flow = flow_of(place.flow);

	if (!flow)
		return bpf_qdisc_drop(ctx, skb, 0);
	if (ctx->qdisc->q.qlen >= ctx->qdisc->limit)
		drop_from_the_fattest(ctx);
	place.start = flow->end;
	if (!bpf_qdisc_push(ctx, &fair_pkts, &place, skb))
		flow->end += len;
	return 0;
}

SEC("qdisc/dequeue")
int fair_dequeue(struct sch_bpf_ctx *ctx)
{
	struct place first = { .flow = turn };
	struct sk_buff *skb;
	struct flow *flow;
	int i;

	bpf_for(i, 0, FLOWS) {
		if (!bpf_rbtree_map_lower_bound(&fair_pkts, &first) &&
		    !bpf_rbtree_map_first(&fair_pkts, &first))
			break;
		flow = flow_of(first.flow);
		if (!flow)
			break;
		if (flow->credit > 0) {
			bpf_qdisc_pop_key(ctx, &fair_pkts, &first);
			skb = ctx->skb;
			if (skb)
				flow->credit -= bpf_qdisc_pkt_len(skb);
			turn = first.flow;
			break;
		}
		flow->credit += QUANTUM;
		first.flow++;
		first.start = 0;
	}
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
