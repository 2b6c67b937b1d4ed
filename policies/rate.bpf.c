// SPDX-License-Identifier: GPL-2.0
/*
 * rate: all tx queues of a device share one rate, but no lock; flows are fair, and kept short.
 *
 *   # tc qdisc add dev eth0 root bpf_mq obj rate.bpf.o set rate=2gbit
 *   # tc qdisc change dev eth0 root bpf_mq set rate=3gbit
 *
 * Each tx queue has an instance with a lock and maps of its own. What they share is a number:
 * when a link as slow as `rate` will be free. A packet that leaves adds to it the time that the
 * link is busy with it, in one atomic step, and what comes out is when its queue may send again.
 * So queues that have packets take turns, a packet each; a queue that was silent waits for
 * nobody; and what one does not use the others have. After a pause of all, what would have left
 * in the last `burst` of it leaves at once.
 *
 * Within a queue the flows share by rounds of `quantum` bytes, and CoDel drops or marks (`ecn`)
 * where the packets of one wait for longer than `target`; with 0 it does not. Who fills the queue
 * loses: a packet that finds it full takes the place of the packet that would leave last, and
 * that is one of the flow with most packets, or is dropped if it would leave later itself. A
 * packet that finds the queue empty has nobody to be fair to: it leaves next, unpaid. GSO
 * packets longer than `split_gso` bytes are cut before: at 5 Mbit/s one of 64 kB is a burst of
 * 0.1 s, and queues take turns by packets.
 *
 * Guarantees: within any time T what leaves is at most what the link carries in T and in `burst`,
 * and a packet of each queue. The link is not idle while any queue has packets, but for a CPU
 * that is late, and that is made up for within `burst`.
 *
 * As `bpf` at the root it does the same under one lock.
 *
 * Where it does badly: a flow is fair to those of its queue, not to those of other ones, so that
 * of a crowded queue has less; where that matters the policy tenants has shares. Flows are told
 * apart by the packet's hash; of 100 in a queue one in ten shares its place. What CoDel drops its
 * flow has paid for. The rate is one of Ethernet frames without preamble and FCS. A packet takes
 * 2 s at most: at less than that the rate is exceeded. A queue that comes into use later
 * (ethtool -L) has neither programs nor rate before the next `tc qdisc change` with an object.
 * The limit is one for each queue.
 *
 * Statistics, by `tc -s qdisc show`, of each tx queue: packets that CoDel has dropped and marked.
 */
#include "policy.h"
#include <bpf/bpf_rbtree.h>

#define MAX_PACKETS	10000
#define FLOWS		1024
#define MTU		1514		/* CoDel leaves that much waiting */
#define LONGEST		(2 * NSEC_PER_SEC)	/* for which one packet holds up the others */

/* Parameters; rate in bytes a second, times in ns, sizes in bytes */
__u64 rate SEC(".data.param") BPF_QDISC_RANGE(0, 10tbit);	/* 0: no rate */
__u64 burst SEC(".data.param") BPF_QDISC_RANGE(0, 10s) = 5 * NSEC_PER_MSEC;
__u32 quantum SEC(".data.param") BPF_QDISC_RANGE(1, 1mb) = 1514;
__u64 target SEC(".data.param") BPF_QDISC_RANGE(0, 10s) = 5 * NSEC_PER_MSEC;	/* 0: no CoDel */
__u64 interval SEC(".data.param") BPF_QDISC_RANGE(1ms, 100s) = 100 * NSEC_PER_MSEC;
__u32 split_gso SEC(".data.param") BPF_QDISC_RANGE(0, 1mb);	/* 0: cut none */
bool ecn SEC(".data.param") = true;

/* Statistics: packets */
__u64 codel_drops SEC(".data.stats");
__u64 ecn_marks SEC(".data.stats");

struct flow {
	struct bpf_drr_flow drr;
	struct bpf_codel codel;
};

struct queue {
	__u64 next;		/* when it may send again */
	__u64 round;		/* the latest from which a packet has left */
	__u64 latest;		/* that any flow has */
	struct flow flow[FLOWS];
};

struct note {			/* on a packet */
	__u64 came;		/* 0: it found the queue empty, and is of no flow */
	__u32 round;		/* the lower half: rounds here are never 2^31 apart */
	__u32 flow;
};

/* In maps, not in variables, which new programs do not take over */
MAP_OF_ONE(rate_link, __u64) BPF_QDISC_SHARED;		/* when it will be free */
MAP_OF_ONE(rate_queue, struct queue);
BPF_QDISC_QUEUE(rate_packets, __u64, MAX_PACKETS);	/* by round */

static struct queue *the_queue(void)
{
	return bpf_map_lookup_elem(&rate_queue, &(__u32){ 0 });
}

/* Drops the packet that would leave last, if that is later than in this round. It is the youngest
 * of its flow, which is as if that packet had never come.
 */
static bool make_room(struct sch_bpf_ctx *ctx, struct queue *q, __u64 round)
{
	struct bpf_drr_flow *drr;
	struct sk_buff *skb;
	struct note *note;
	__u64 last;

	if (!bpf_rbtree_map_last(&rate_packets, &last) || last <= round)
		return false;
	skb = bpf_qdisc_take_last(ctx, &rate_packets);
	if (!skb)
		return false;
	note = bpf_qdisc_note(skb, struct note);
	drr = &q->flow[note->flow % FLOWS].drr;
	drr->round = last;
	drr->used = (drr->used + quantum - bpf_qdisc_pkt_len(skb) % quantum) % quantum;
	bpf_qdisc_drop(ctx, skb, QDISC_DROP_OVERLIMIT);
	return true;
}

SEC("qdisc/enqueue")
int rate_enqueue(struct sch_bpf_ctx *ctx)
{
	struct queue *q = the_queue();
	struct sk_buff *skb = ctx->skb;
	struct note *note = bpf_qdisc_note(skb, struct note);
	struct bpf_drr_flow drr;
	struct flow *flow;
	__u64 round = 0;
	__u32 number;

	if (bpf_qdisc_cut(ctx, skb, split_gso))
		return 0;
	if (!ctx->qdisc->q.qlen) {
		if (q->round < q->latest)
			q->round = q->latest;
		q->round += 2;		/* no flow has a round as late: it owes nothing */
		*note = (struct note){ 0, q->round };
		return bpf_qdisc_push(ctx, &rate_packets, &round, skb);
	}
	number = bpf_skb_get_hash(skb) % FLOWS;
	flow = &q->flow[number];
	if (flow->drr.round + 1 < q->round)
		bpf_codel_empty(&flow->codel);	/* silent for a round */
	drr = flow->drr;
	round = bpf_drr_round(&drr, q->round, quantum, quantum, bpf_qdisc_pkt_len(skb));
	if (bpf_qdisc_is_full(ctx->qdisc, MAX_PACKETS) && !make_room(ctx, q, round))
		return bpf_qdisc_drop(ctx, skb, QDISC_DROP_OVERLIMIT);
	flow->drr = drr;
	if (q->latest < drr.round)
		q->latest = drr.round;
	*note = (struct note){ bpf_ktime_get_ns(), round, number };
	return bpf_qdisc_push(ctx, &rate_packets, &round, skb);
}

/* Who is late, because of a timer or a CPU, makes up for the last `burst` of it. */
static void pay(struct queue *q, __u32 len, __u64 now)
{
	__u64 *link = bpf_map_lookup_elem(&rate_link, &(__u32){ 0 });
	__u64 cost = bpf_qdisc_tx_time_most(len, rate, LONGEST);

	if (rate)
		q->next = bpf_qdisc_link_reserve(link, bpf_qdisc_time_sub(now, burst), cost) + cost;
}

static bool drops(struct sch_bpf_ctx *ctx, struct queue *q, struct sk_buff *skb, __u64 now)
{
	struct bpf_codel_params params = { target, interval, MTU, ecn };
	struct note *note = bpf_qdisc_note(skb, struct note);
	enum bpf_aqm_verdict verdict;

	if (!target || !note->came)
		return false;
	verdict = bpf_codel_dequeue(&q->flow[note->flow % FLOWS].codel, &params, now, note->came,
				    ctx->qdisc->qstats.backlog);
	return bpf_aqm_drops_counted(ctx, skb, verdict, &codel_drops, &ecn_marks);
}

SEC("qdisc/dequeue")
int rate_dequeue(struct sch_bpf_ctx *ctx)
{
	struct queue *q = the_queue();
	__u64 now = bpf_ktime_get_ns();
	struct sk_buff *skb;
	__s32 ahead;
	int i;

	if (rate && q->next > now) {
		ctx->expire = q->next;
		return 0;
	}
	if (ctx->qdisc->q.qlen == 1) {		/* CoDel leaves the last one alone */
		bpf_qdisc_pop(ctx, &rate_packets);
		skb = ctx->skb;
		if (skb)
			pay(q, bpf_qdisc_pkt_len(skb), now);
		return 0;
	}
	bpf_for(i, 0, MAX_PACKETS) {
		skb = bpf_qdisc_take(ctx, &rate_packets);
		if (!skb)
			break;
		ahead = bpf_qdisc_note(skb, struct note)->round - (__u32)q->round;
		if (ahead > 0)
			q->round += ahead;
		if (!drops(ctx, q, skb, now)) {
			pay(q, bpf_qdisc_pkt_len(skb), now);
			return bpf_qdisc_deliver(ctx, skb);
		}
		bpf_qdisc_drop(ctx, skb, QDISC_DROP_CONGESTED);
	}
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
