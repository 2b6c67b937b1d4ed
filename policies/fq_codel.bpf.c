// SPDX-License-Identifier: GPL-2.0
/*
 * fq_codel: flows take turns, and each is kept short.
 *
 * Each flow has a queue, which is a key of the map, and sends `quantum` bytes in its turn. One
 * that comes back after its turn has found it empty goes before those that always have packets:
 * so who sends little waits for nobody (RFC 8290). When every packet of a flow that has left for
 * an `interval` has waited for longer than `target`, CoDel drops one, or with `ecn` marks it, and
 * does so the more often the longer that lasts (RFC 8289). For what it drops the flow does not
 * pay.
 *
 * Who fills the queue loses: a packet that finds it full, in packets (the qdisc's limit) or in
 * bytes (`limit_bytes`), pushes the oldest ones out of the flow that has most bytes here, the
 * new packet's counted: half of these, or 64 packets. Where that makes too little room it is
 * dropped itself, so one that is longer than `limit_bytes` always is.
 *
 * With flows=1 it is codel. A packet that leaves after more than `ce_threshold` is marked,
 * whatever CoDel says. GSO packets longer than `split_gso` bytes are cut before: at 5 Mbit/s
 * one of 64 kB holds all others up for 0.1 s. With `bypass` a packet that finds the queue
 * empty passes it by, as it does with the native qdiscs, and uncut.
 *
 * Where it does badly: flows are told apart by the packet's hash, so two may share a queue; of
 * 100 flows in 1024 queues one in ten does. A tunnel is one flow, and who opens many has many
 * shares. Senders that heed neither drops nor marks are bounded by the limits alone. A flow
 * whose packets are longer than the quantum waits for several turns, of which no more than 4096
 * are gone through at once: if a hundred flows owe a GSO packet each, shares are those of
 * packets for a while. `limit_bytes` counts lengths, not memory. It does not pace (fq does), and
 * filters choose no flow. PIE and dualpi2's queues are not here.
 *
 * Statistics, by `tc -s qdisc show`: packets that were dropped because the queue was full, and
 * by CoDel; that were marked by CoDel, and because of ce_threshold; and how often a flow came
 * that had no turn.
 */
#include "policy.h"

#define MAX_PACKETS	10240
#define FLOWS		1024
#define MAX_TURNS	4096		/* that are gone through at once */

/* Parameters; times in ns, sizes in bytes */
__u64 target SEC(".data.param") BPF_QDISC_RANGE(0, 10s) = 5 * NSEC_PER_MSEC;
__u64 interval SEC(".data.param") BPF_QDISC_RANGE(1us, 100s) = 100 * NSEC_PER_MSEC;
__u64 ce_threshold SEC(".data.param") BPF_QDISC_RANGE(0, 10s);	/* 0: never mark */
__u32 quantum SEC(".data.param") BPF_QDISC_RANGE(256, 1mb) = 1514;
__u32 mtu SEC(".data.param") BPF_QDISC_RANGE(0, 1mb) = 1514;	/* CoDel leaves that much waiting */
__u32 flows SEC(".data.param") BPF_QDISC_RANGE(1, 1024) = FLOWS;
__u32 limit_bytes SEC(".data.param") BPF_QDISC_RANGE(0, 2gb) = 32 << 20;	/* 0: no limit */
__u32 split_gso SEC(".data.param") BPF_QDISC_RANGE(0, 1mb);	/* 0: cut none */
bool ecn SEC(".data.param") = true;
bool bypass SEC(".data.param");			/* an empty queue is passed by */

/* Statistics: packets, and flows */
__u64 drop_overlimit SEC(".data.stats");
__u64 drop_codel SEC(".data.stats");
__u64 ecn_mark SEC(".data.stats");
__u64 ce_mark SEC(".data.stats");
__u64 new_flow_count SEC(".data.stats");

struct flow {
	struct bpf_codel codel;
	__u32 bytes;		/* that wait */
	__s32 credit;		/* bytes that it may send in this turn */
	__u32 next;		/* number of the flow behind it */
	bool listed;
};

BPF_QDISC_QUEUE(fq_codel_pkts, __u32, MAX_PACKETS);	/* by number of the flow, from 1 on */

/* Flows that have packets, or had some when their turn came last, stand in one list, whose head
 * is flow 0: first the new ones, then the others. It is in a map, not in variables: so new
 * programs are given it with the packets.
 */
struct flows {
	struct flow flow[FLOWS + 1];
	__u32 last_new;			/* number of the last new flow; 0: there is none */
	__u32 last;			/* and of the last of all */
	__u32 generation;
};

MAP_OF_ONE(fq_codel_flows, struct flows);

static struct flow *flow_of(struct flows *q, __u32 number)
{
	barrier_var(number);	/* what is compared is what is used, as the verifier wants it */
	return &q->flow[number <= FLOWS ? number : 0];
}

/* ---- the list ---- */

static void insert(struct flows *q, __u32 before, __u32 number, struct flow *flow)
{
	struct flow *other = flow_of(q, before);

	flow->listed = true;
	flow->next = other->next;
	other->next = number;
	if (!flow->next)
		q->last = number;
}

static void remove_first(struct flows *q, __u32 number, struct flow *flow)
{
	flow->listed = false;
	q->flow[0].next = flow->next;
	if (q->last_new == number)
		q->last_new = 0;
	if (q->last == number)
		q->last = 0;
}

/* After a reset no flow has packets; after a change those have that had, and what is known of
 * them is still right, unless the flows of the programs before were others (then their bytes
 * are those of packets that have come since).
 */
static void begin_anew(struct flows *q)
{
	struct flow *flow;
	__u32 number;
	int i;

	q->last_new = 0;
	q->last = 0;
	q->flow[0].next = 0;
	bpf_for(i, 1, FLOWS + 1) {
		number = i;
		flow = flow_of(q, number);
		if (bpf_map_lookup_elem(&fq_codel_pkts, &number))
			insert(q, q->last, number, flow);
		else
			*flow = (struct flow){};
	}
}

/* ---- enqueue ---- */

static bool is_full(const struct Qdisc *sch, __u32 len)
{
	return bpf_qdisc_is_full(sch, MAX_PACKETS) || bpf_qdisc_exceeds(sch, len, limit_bytes);
}

static __u32 fattest(struct flows *q)
{
	__u32 number = q->flow[0].next, found = 0, most = 0;
	struct flow *flow;
	int i;

	bpf_for(i, 0, FLOWS) {
		if (!number)
			break;
		flow = flow_of(q, number);
		if (flow->bytes > most) {
			most = flow->bytes;
			found = number;
		}
		number = flow->next;
	}
	return found;
}

static void drop_from_the_fattest(struct sch_bpf_ctx *ctx, struct flows *q)
{
	__u32 number = fattest(q);
	struct flow *flow = flow_of(q, number);

	drop_half(ctx, &fq_codel_pkts, &number, &flow->bytes, &flow->codel, &drop_overlimit);
}

SEC("qdisc/enqueue")
int fq_codel_enqueue(struct sch_bpf_ctx *ctx)
{
	struct flows *q = bpf_map_lookup_elem(&fq_codel_flows, &(__u32){ 0 });
	struct sk_buff *skb = ctx->skb;
	__u32 len = bpf_qdisc_pkt_len(skb), number;
	struct flow *flow;
	int err;

	if (!q)
		return bpf_qdisc_drop(ctx, skb, 0);
	if (bpf_qdisc_cut(ctx, skb, split_gso))
		return 0;
	if (bypass)
		bpf_qdisc_bypass(ctx);
	if (bpf_qdisc_begins_anew(ctx, &q->generation))
		begin_anew(q);
	number = 1 + ((__u64)bpf_skb_get_hash(skb) * flows >> 32);
	flow = flow_of(q, number);
	flow->bytes += len;
	if (!flow->listed) {
		flow->credit = quantum;
		insert(q, q->last_new, number, flow);
		q->last_new = number;
		new_flow_count++;
	}
	if (is_full(ctx->qdisc, len)) {
		drop_from_the_fattest(ctx, q);
		if (is_full(ctx->qdisc, len)) {
			lose_bytes(&flow->bytes, len);
			drop_overlimit++;
			return bpf_qdisc_drop(ctx, skb, QDISC_DROP_OVERLIMIT);
		}
	}
	*bpf_qdisc_note(skb, __u64) = bpf_ktime_get_ns();
	err = bpf_qdisc_push(ctx, &fq_codel_pkts, &number, skb);
	if (err) {
		lose_bytes(&flow->bytes, len);
		drop_overlimit++;
	}
	return err;
}

/* ---- dequeue ---- */

/* Of the flow whose turn it is, the packet that leaves, or one that CoDel drops before. */
static bool deliver_or_drop(struct sch_bpf_ctx *ctx, struct flow *flow, struct sk_buff *skb,
			    __u64 now)
{
	struct bpf_codel_params params = { target, interval, mtu, ecn };
	__u64 enqueued = *bpf_qdisc_note(skb, __u64);
	__u32 len = bpf_qdisc_pkt_len(skb);
	enum bpf_aqm_verdict verdict;

	lose_bytes(&flow->bytes, len);
	verdict = bpf_codel_dequeue(&flow->codel, &params, now, enqueued,
				    ctx->qdisc->qstats.backlog);
	if (bpf_aqm_drops_counted(ctx, skb, verdict, &drop_codel, &ecn_mark)) {
		bpf_qdisc_drop(ctx, skb, QDISC_DROP_CONGESTED);
		return false;
	}
	if (ce_threshold && now > bpf_qdisc_time_add(enqueued, ce_threshold) &&
	    bpf_qdisc_ecn_mark(ctx, skb))
		ce_mark++;
	flow->credit -= len;
	bpf_qdisc_deliver(ctx, skb);
	return true;
}

SEC("qdisc/dequeue")
int fq_codel_dequeue(struct sch_bpf_ctx *ctx)
{
	struct flows *q = bpf_map_lookup_elem(&fq_codel_flows, &(__u32){ 0 });
	struct sk_buff *skb;
	struct flow *flow;
	__u64 now = 0;
	__u32 number;
	bool new;
	int i;

	if (!q)
		return 0;
	/* CoDel delivers the last packet, however long it has waited. */
	if (ctx->qdisc->q.qlen > 1 || ce_threshold)
		now = bpf_ktime_get_ns();
	/* Packets stand, or this would not run. */
	if (bpf_qdisc_begins_anew(ctx, &q->generation) || !q->last)
		begin_anew(q);
	bpf_for(i, 0, MAX_TURNS + MAX_PACKETS + 2 * FLOWS) {
		number = q->flow[0].next;
		if (!number)
			break;
		flow = flow_of(q, number);
		if (flow->credit <= 0 && i < MAX_TURNS) {
			flow->credit += quantum;
			remove_first(q, number, flow);
			insert(q, q->last, number, flow);
			continue;
		}
		skb = bpf_qdisc_take_key(ctx, &fq_codel_pkts, &number);
		if (skb) {
			if (deliver_or_drop(ctx, flow, skb, now))
				break;
			continue;
		}
		bpf_codel_empty(&flow->codel);
		/* A new one stays for a turn among the others, or it could starve them. */
		new = q->last_new;
		remove_first(q, number, flow);
		if (new && q->last != q->last_new)
			insert(q, q->last, number, flow);
	}
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
