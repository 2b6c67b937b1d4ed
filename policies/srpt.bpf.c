// SPDX-License-Identifier: GPL-2.0
/*
 * srpt: the flow that has least left to send goes first (shortest remaining processing time), as
 * in pFabric.
 *
 * The packet with the fewest remaining bytes chooses the flow, and the oldest packet of that flow
 * leaves. So a flow keeps its order, and packets that it sent when it had more left do not wait
 * for its end. A packet that finds the queue full takes the place of the one with the most
 * remaining bytes, or is dropped if it has as many.
 *
 * What a flow has left are its bytes that are not acknowledged when a packet is sent. (Not those
 * behind the packet, or each flow whose last one waits would be as good as done.) `rank_by` says
 * who tells:
 *
 *	0	nobody. What the flow has sent so far stands for what it has left (least attained
 *		service): where few flows have most of the bytes, as on the web, one that has sent
 *		little is soon done. No host has to change.
 *	1	skb->priority, bytes: SO_PRIORITY, which an application sets before it writes. Up to
 *		6, which anyone may set, it tells nothing.
 *	2	skb->mark, bytes: SO_MARK, or a clsact or cgroup program that knows the requests
 *	3	the TCP socket, on the host that sends: what has been written to it. No application
 *		has to change; what fits into no send buffer yet is not seen.
 *
 * To tell takes CAP_NET_ADMIN (SO_MARK: or CAP_NET_RAW), so no user jumps the queue, but with 3
 * by writing little at a time. A packet that tells nothing is ranked by what its flow has sent. A
 * flow that had no packet here for the time `idle` begins anew: the next answer on a connection
 * that is kept is another flow.
 *
 * Where it does badly: a long flow waits while short ones fill the link, for ever if they always
 * do. With rank_by=0 who cuts its traffic into many connections gains, and equal flows that are
 * long share the link, so that all end late. A GSO packet leaves as one.
 *
 * Statistics: packets that told what is left, and packets dropped for one that has less.
 */
#include "policy.h"
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_rbtree.h>

#define MAX_PACKETS	10000
#define MAX_FLOWS	16384		/* that are remembered */
#define ANYONES		6		/* the highest priority without CAP_NET_ADMIN */

enum { SENT, PRIORITY, MARK, SOCKET };

/* Parameters */
__u32 rank_by SEC(".data.param") BPF_QDISC_RANGE(0, 3) = SENT;
__u64 idle SEC(".data.param") BPF_QDISC_RANGE(1ms, 86400s) = 100 * NSEC_PER_MSEC;

/* Statistics */
__u64 told SEC(".data.stats") = 0;
__u64 evicted SEC(".data.stats") = 0;

struct place {
	__u32 flow;
	__u64 came;		/* ns CLOCK_MONOTONIC: it goes on where programs change */
};

struct rank {
	__u64 remaining;	/* bytes; also noted on the packet */
	__u64 came;
	__u32 flow;
};

/* Each packet that waits is in the first map, and its rank in the second: so there is an order
 * within a flow, and one of all packets.
 */
BPF_QDISC_QUEUE(srpt_pkts, struct place, MAX_PACKETS);

ORDERED_MAP(srpt_ranks, struct rank, __u8, MAX_PACKETS);

struct flow {
	__u64 last;		/* when a packet came or left, ns */
	__u64 sent;		/* bytes */
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__type(key, __u32);
	__type(value, struct flow);
	__uint(max_entries, MAX_FLOWS);
} srpt_flows SEC(".maps");

/* Where no packet waits no rank is right: a reset and a flush take all packets, and leave those. */
static void forget_who_is_gone(void)
{
	struct rank rank;
	__u8 nothing;
	int i;

	if (bpf_rbtree_map_len(&srpt_pkts) || !bpf_rbtree_map_len(&srpt_ranks))
		return;
	bpf_for(i, 0, MAX_PACKETS)
		if (bpf_rbtree_map_pop(&srpt_ranks, &rank, &nothing))
			break;
}

/* The oldest packet of a flow, if one waits */
static bool find_oldest(__u32 flow, struct place *oldest)
{
	*oldest = (struct place){ flow };
	return bpf_rbtree_map_lower_bound(&srpt_pkts, oldest) && oldest->flow == flow;
}

static __u64 sent_before(const struct place *place, __u32 len)
{
	struct flow *flow = bpf_map_lookup_elem(&srpt_flows, &place->flow);
	struct flow begun = { place->came, len };
	struct place oldest;
	__u64 before;

	if (!flow) {
		bpf_map_update_elem(&srpt_flows, &place->flow, &begun, BPF_ANY);
		return 0;
	}
	if (idle < place->came - flow->last && !find_oldest(place->flow, &oldest))
		flow->sent = 0;
	before = flow->sent;
	flow->last = place->came;
	flow->sent += len;
	return before;
}

static __u32 not_acknowledged(const struct sk_buff *skb)
{
	const struct sock *sk = bpf_qdisc_socket(skb);
	const struct tcp_sock *tcp;

	if (!sk || sk->sk_type != SOCK_STREAM || sk->sk_protocol != IPPROTO_TCP)
		return 0;
	tcp = bpf_core_cast(sk, struct tcp_sock);
	return tcp->write_seq - tcp->snd_una;
}

/* Bytes that the flow has left, or 0 */
static __u32 what_it_tells(const struct sk_buff *skb)
{
	switch (rank_by) {
	case PRIORITY:
		return skb->priority > ANYONES ? skb->priority : 0;
	case MARK:
		return skb->mark;
	case SOCKET:
		return not_acknowledged(skb);
	}
	return 0;
}

SEC("qdisc/enqueue")
int srpt_enqueue(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb = ctx->skb, *other;
	struct place place = { bpf_skb_get_hash(skb), bpf_ktime_get_ns() }, last;
	struct rank rank = { what_it_tells(skb), place.came, place.flow }, most;
	__u8 nothing = 0;
	int i;

	forget_who_is_gone();
	if (rank.remaining)
		told++;
	else
		rank.remaining = sent_before(&place, bpf_qdisc_pkt_len(skb));
	bpf_for(i, 0, MAX_PACKETS) {
		if (!bpf_qdisc_is_full(ctx->qdisc, MAX_PACKETS))
			break;
		if (!bpf_rbtree_map_last(&srpt_ranks, &most) || most.remaining <= rank.remaining)
			return bpf_qdisc_drop(ctx, skb, QDISC_DROP_OVERLIMIT);
		bpf_map_delete_elem(&srpt_ranks, &most);
		last = (struct place){ most.flow, most.came };
		other = bpf_qdisc_take_key(ctx, &srpt_pkts, &last);
		if (other) {
			bpf_qdisc_drop(ctx, other, QDISC_DROP_OVERLIMIT);
			evicted++;
		}
	}
	if (bpf_rbtree_map_push(&srpt_ranks, &rank, &nothing))
		return bpf_qdisc_drop(ctx, skb, QDISC_DROP_MAP_NOMEM);
	*bpf_qdisc_note(skb, __u64) = rank.remaining;
	if (bpf_qdisc_push(ctx, &srpt_pkts, &place, skb))
		bpf_map_delete_elem(&srpt_ranks, &rank);
	return 0;
}

SEC("qdisc/dequeue")
int srpt_dequeue(struct sch_bpf_ctx *ctx)
{
	struct place oldest;
	struct sk_buff *skb;
	struct flow *flow;
	struct rank rank;
	int i;

	bpf_for(i, 0, MAX_PACKETS) {
		if (!bpf_rbtree_map_first(&srpt_ranks, &rank))
			return 0;
		if (find_oldest(rank.flow, &oldest))
			break;
		/* Of two packets that came in one tick of the clock, one was evicted for the other. */
		bpf_map_delete_elem(&srpt_ranks, &rank);
	}
	skb = bpf_qdisc_take_key(ctx, &srpt_pkts, &oldest);
	if (!skb)
		return 0;
	rank = (struct rank){ *bpf_qdisc_note(skb, __u64), oldest.came, oldest.flow };
	bpf_map_delete_elem(&srpt_ranks, &rank);
	flow = bpf_map_lookup_elem(&srpt_flows, &oldest.flow);
	if (flow)
		flow->last = bpf_ktime_get_ns();
	return bpf_qdisc_deliver(ctx, skb);
}

char LICENSE[] SEC("license") = "GPL";
