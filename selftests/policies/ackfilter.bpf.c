// SPDX-License-Identifier: GPL-2.0
/* ackfilter: of the acknowledgments of a flow that wait, the newest is enough.
 *
 * Flows take turns. An ACK that carries nothing else, and acknowledges more than the one
 * that came before it and still waits, takes its place. Those with SACK blocks stay, and
 * those that acknowledge the same again: they tell of losses.
 */
#include "../../policies/policy.h"
#include <bpf/bpf_rbtree.h>

BPF_QDISC_QUEUE(ack_pkts, __u32, 10000);	/* by flow */

struct headers {
	struct iphdr ip;
	struct tcphdr tcp;
};

static __u32 turn;		/* flow, or the next one that has packets */

/* Is that an ACK and nothing else, without SACK blocks? Its headers are read then. */
static bool read_ack(struct sk_buff *skb, struct headers *h)
{
	struct bpf_dynptr bytes;

	return skb->protocol == bpf_htons(ETH_P_IP) &&
	       !bpf_dynptr_from_skb((struct __sk_buff *)skb, 0, &bytes) &&
	       !bpf_dynptr_read(h, sizeof(*h), &bytes, ETH_HLEN, 0) &&
	       h->ip.ihl == 5 && h->ip.protocol == IPPROTO_TCP &&
	       h->tcp.ack && !h->tcp.syn && !h->tcp.fin && !h->tcp.rst && !h->tcp.psh &&
	       !h->tcp.urg && !h->tcp.ece && !h->tcp.cwr && h->tcp.doff <= 8 &&
	       bpf_ntohs(h->ip.tot_len) == sizeof(h->ip) + 4 * h->tcp.doff;
}

/* Two flows may have one hash. */
static bool is_later(const struct headers *h, const struct headers *than)
{
	return h->ip.saddr == than->ip.saddr && h->ip.daddr == than->ip.daddr &&
	       h->tcp.source == than->tcp.source && h->tcp.dest == than->tcp.dest &&
	       (__s32)(bpf_ntohl(h->tcp.ack_seq) - bpf_ntohl(than->tcp.ack_seq)) > 0;
}

static void replace(struct sch_bpf_ctx *ctx, __u32 flow, const struct headers *h)
{
	struct sk_buff *waits = bpf_qdisc_take_youngest(ctx, &ack_pkts, &flow);
	struct headers its;

	if (!waits)
		return;
	if (read_ack(waits, &its) && is_later(h, &its))
		bpf_qdisc_drop(ctx, waits, QDISC_DROP_CONGESTED);
	else
		bpf_qdisc_push(ctx, &ack_pkts, &flow, waits);
}

SEC("qdisc/enqueue")
int ack_enqueue(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb = ctx->skb;
	__u32 flow = bpf_skb_get_hash(skb);
	struct headers h;

	if (read_ack(skb, &h))
		replace(ctx, flow, &h);
	return bpf_qdisc_push(ctx, &ack_pkts, &flow, skb);
}

SEC("qdisc/dequeue")
int ack_dequeue(struct sch_bpf_ctx *ctx)
{
	__u32 flow = turn;

	if (!bpf_rbtree_map_lower_bound(&ack_pkts, &flow) && !bpf_rbtree_map_first(&ack_pkts, &flow))
		return 0;
	turn = flow + 1;
	return bpf_qdisc_pop_key(ctx, &ack_pkts, &flow);
}

char LICENSE[] SEC("license") = "GPL";
