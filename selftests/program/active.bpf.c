// SPDX-License-Identifier: GPL-2.0
/* active: flows take turns, a packet each. A flow is a map of packets, and stands in a list as
 * long as it has some: the list is an ordered map of these maps, by turn, with room for no more
 * than all flows. Packets with a mark are of that flow. While `hold` is set nothing leaves.
 */
#include "../../policies/policy.h"
#include <bpf/bpf_rbtree.h>

#define FLOWS		16
#define MAX_PACKETS	100000

bool hold SEC(".data.param");

__u64 turns SEC(".data.stats");		/* that flows have got */
__u64 lost SEC(".data.stats");		/* flows that had packets, and no place in the list */

BPF_QDISC_QUEUES(active_flows, __u64, MAX_PACKETS, FLOWS);

struct {
	__uint(type, BPF_MAP_TYPE_RBTREE);
	__type(key, __u64);
	__type(value, __u32);
	__uint(max_entries, FLOWS);
	__array(values, struct {
		__BPF_QDISC_QUEUE(__u64, MAX_PACKETS);
	});
} active_list SEC(".maps");

static void give_a_turn(void *flow)
{
	__u64 turn = ++turns;

	lost += !!bpf_rbtree_map_push_map(&active_list, &turn, flow);
}

SEC("qdisc/enqueue")
int active_enqueue(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb = ctx->skb;
	__u32 index = (skb->mark ?: bpf_skb_get_hash(skb)) % FLOWS;
	void *flow = bpf_map_lookup_elem(&active_flows, &index);
	__u64 key = 0;
	bool is_idle;
	int err;

	if (!flow)
		return bpf_qdisc_drop(ctx, skb, 0);
	is_idle = !bpf_rbtree_map_len(flow);
	err = bpf_qdisc_push(ctx, flow, &key, skb);
	if (!err && is_idle)
		give_a_turn(flow);
	return err;
}

SEC("qdisc/dequeue")
int active_dequeue(struct sch_bpf_ctx *ctx)
{
	__u64 turn = 0;
	void *flow;

	if (hold) {
		ctx->expire = bpf_ktime_get_ns() + NSEC_PER_SEC / 10;
		return 0;
	}
	flow = bpf_rbtree_map_pop_map(&active_list, &turn);
	if (!flow)
		return 0;
	bpf_qdisc_pop(ctx, flow);
	if (bpf_rbtree_map_len(flow))
		give_a_turn(flow);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
