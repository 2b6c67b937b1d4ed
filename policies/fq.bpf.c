// SPDX-License-Identifier: GPL-2.0
/*
 * fq: flows share the link fairly, and packets wait for their time.
 *
 * Fair: in rounds. A flow may send `quantum` bytes in each round, so a packet that
 * arrives knows the round in which it will leave, and that is its key: the map is
 * the queue. There is no queue for each flow and no list of flows, and what a
 * packet costs does not depend on their number. A flow that has been silent goes
 * before those that have not, with one quantum; a new one with `initial_quantum`.
 * A packet that finds the queue empty has nobody to be fair to, and leaves next.
 *
 * Paced: a packet with a departure time (skb->tstamp: TCP's pacing, SO_TXTIME), or
 * whose socket has a pacing rate (SO_MAX_PACING_RATE), waits for its time in a
 * second map, sorted by time. If the first map is empty then, it leaves at once;
 * else it is given its round now. What has a time beyond `horizon` is dropped.
 *
 * Each socket has a pace of its own, by its address, and keeps it while it sends. There is room for
 * 65,536, at 96 bytes each; a socket beyond sends unpaced, and its packets are counted.
 *
 * A flow may have `flow_limit` packets here. A packet that leaves later than
 * `ce_threshold` after its time is marked: congestion experienced.
 *
 * With a `target` CoDel keeps each flow short: while for an `interval` all of its packets leave
 * later than that after their time, or after they came if they have none, some are dropped, or
 * marked if their sender takes part in ECN and `ecn` is set. With `since_arrival` it counts from
 * when they came in any case: for times that are no sender's, but those of a clsact program that
 * gives each pod a rate (that of edt does). A pod does not get the time back of what is dropped.
 *
 *   # tc qdisc add dev eth0 root bpf obj fq.bpf.o set target=5ms set since_arrival=1 set group_by=2
 *
 * Groups of flows can share the link by weight, however many flows they have: a
 * flow then pays for a byte as many as there are active flows in its group, divided by
 * the group's weight. `group_by` says what a group is; 0, the default, that there
 * are none:
 *
 *   1  band, by skb->priority: `priomap` has a digit for each; 0, 1 and 2 have the
 *      weights 9, 3 and 1
 *   2  the cgroup of the packet's socket: its id modulo 1024
 *   3  the class that filters on this qdisc find, its minor number modulo 1024
 *
 * The table fq_weights has another weight for a group, if it is not 0:
 *
 *   # tc qdisc add dev eth0 root handle 1: bpf obj fq.bpf.o set group_by=3 \
 *         set fq_weights[7]=20
 *   # tc filter add dev eth0 parent 1: protocol ip flower ip_proto tcp classid 1:7
 *
 * Where it does badly: flows are told apart by the packet's hash, so two may share
 * one share and one limit; behind a VLAN tag in the frame, a hash that is not the socket's or the
 * NIC's tells nothing. A packet without a time may overtake one of its flow that
 * waits. With groups, what stands has paid by the number of flows in its group when it
 * came, not by the present one: a burst that came first is ahead until it has left.
 * What stands when the programs are changed counts in no flow and no group any more.
 *
 * Statistics, by `tc -s qdisc show`: packets that waited for their time, that were marked,
 * that were dropped because of flow_limit and horizon, and that CoDel dropped and marked; and those
 * that left without a wait, because there was no room for their socket's pace (`unpaced`).
 */
#include "policy.h"

#define MAX_PACKETS	10000
#define FLOWS		16384
#define SOCKETS		65536
#define GROUPS		1024
#define BANDS		3
#define PRIORITIES	16
#define NEVER		(~0ULL)
#define IDLE		(3 * NSEC_PER_SEC)

enum { BY_PRIORITY = 1, BY_CGROUP, BY_CLASS };

/* Parameters; times in ns, sizes in bytes */
__u32 quantum SEC(".data.param") BPF_QDISC_RANGE(1, 1mb) = 2 * 1514;
__u32 initial_quantum SEC(".data.param") BPF_QDISC_RANGE(1, 16mb) = 10 * 1514;
__u32 flow_limit SEC(".data.param") BPF_QDISC_RANGE(1, 1000000) = 100;
__u64 horizon SEC(".data.param") BPF_QDISC_RANGE(1ms, 86400s) = 10 * NSEC_PER_SEC;
__u64 ce_threshold SEC(".data.param") BPF_QDISC_RANGE(0, 10s);	/* 0: never mark */
__u64 target SEC(".data.param") BPF_QDISC_RANGE(0, 10s);	/* 0: no CoDel */
__u64 interval SEC(".data.param") BPF_QDISC_RANGE(1us, 100s) = 100 * NSEC_PER_MSEC;
bool ecn SEC(".data.param") = true;
bool since_arrival SEC(".data.param");		/* CoDel counts the wait for a time, too */
__u32 group_by SEC(".data.param") BPF_QDISC_RANGE(0, 3);	/* 0: no groups */
char priomap[PRIORITIES + 1] SEC(".data.param") = "1222120011111111";

/* Statistics: packets */
__u64 waited SEC(".data.stats");		/* for their time */
__u64 flow_limit_drops SEC(".data.stats");
__u64 horizon_drops SEC(".data.stats");
__u64 ce_marks SEC(".data.stats");
__u64 unpaced SEC(".data.stats");	/* no room for their socket's pace */
__u64 codel_drops SEC(".data.stats");
__u64 codel_marks SEC(".data.stats");

struct fq {				/* first what every packet needs, in one cache line */
	__u64 round;		/* the latest from which a packet has left */
	__u64 next_due;		/* nothing in fq_later is due before */
	__u64 past;		/* what the clock said when it was read last */
	__u32 ready;		/* packets in fq_now, at most */
	__u32 generation;	/* ready counts if this is the qdisc's */
	__u64 hand;		/* the socket that forget() has looked at last */
	__u32 era;		/* another one after a reset or a flush */
};

struct flow {			/* what every packet needs is behind CoDel, in one line */
	struct bpf_codel codel;
	struct bpf_drr_flow drr;
	__u32 qlen;
	__u32 generation;	/* qlen counts if this is the qdisc's */
	__u16 group;
	bool active;		/* counted in its group */
};

struct pace {			/* of a socket with a rate */
	__u64 next;		/* when the rate lets its next packet go */
	__u64 whose;		/* another socket may have its address later */
};

struct group {
	__u32 active;		/* flows with packets here */
	__u32 generation;	/* as of a flow */
};

struct note {			/* on a packet in a map */
	__u64 round;
	__u64 when;		/* departure time, if it has one */
	__u32 flow;		/* its index; FLOWS: none, it found the queue empty */
};

BPF_QDISC_QUEUE(fq_now, __u64, MAX_PACKETS);	/* by round */
BPF_QDISC_QUEUE(fq_later, __u64, MAX_PACKETS);	/* by departure time */

MAP_OF_ONE(fq_state, struct fq);
ARRAY_MAP(fq_flows, struct flow, FLOWS);	/* by hash of a packet */
ARRAY_MAP(fq_groups, struct group, GROUPS);
ARRAY_MAP(fq_weights, __u32, GROUPS) BPF_QDISC_TABLE BPF_QDISC_RANGE(0, 1000000);

struct {			/* address of a socket -> its pace */
	__uint(type, BPF_MAP_TYPE_RBTREE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u64);
	__type(value, struct pace);
	__uint(max_entries, SOCKETS);
} fq_paces SEC(".maps");

/* ---- groups ---- */

static __u32 group_of(struct sch_bpf_ctx *ctx, struct sk_buff *skb)
{
	switch (group_by) {
	case BY_PRIORITY:
		return (priomap[skb->priority % PRIORITIES] - '0') % GROUPS;
	case BY_CGROUP:
		return cgroup_of(skb, 0) % GROUPS;
	default:
		return (ctx->classid & 0xffff) % GROUPS;
	}
}

static __u32 weight_of(__u32 group)
{
	static const __u32 bands[BANDS] = { 9, 3, 1 };
	__u32 *weight = bpf_map_lookup_elem(&fq_weights, &group);

	if (weight && *weight)
		return *weight;
	return group_by == BY_PRIORITY && group < BANDS ? bands[group] : 1;
}

static struct group *find_group(struct sch_bpf_ctx *ctx, struct flow *flow)
{
	__u32 index = flow->group;
	struct group *group = bpf_map_lookup_elem(&fq_groups, &index);

	if (group && bpf_qdisc_begins_anew(ctx, &group->generation))
		group->active = 0;
	return group;
}

/* What an active flow pays for @len bytes. */
static __u32 price(struct sch_bpf_ctx *ctx, struct flow *flow, __u32 len)
{
	struct group *group = find_group(ctx, flow);

	return group && group->active ? len * group->active / weight_of(flow->group) : len;
}

static void activate(struct sch_bpf_ctx *ctx, struct flow *flow, struct sk_buff *skb)
{
	struct group *group;

	flow->group = group_of(ctx, skb);
	group = find_group(ctx, flow);
	if (group)
		group->active++;
	flow->active = true;
}

static void deactivate(struct sch_bpf_ctx *ctx, struct flow *flow)
{
	struct group *group = find_group(ctx, flow);

	if (group && group->active)
		group->active--;
	flow->active = false;
}

/* ---- flows ---- */

static struct flow *flow_of(struct sch_bpf_ctx *ctx, __u32 index)
{
	struct flow *flow = bpf_map_lookup_elem(&fq_flows, &index);

	if (flow && bpf_qdisc_begins_anew(ctx, &flow->generation)) {
		flow->qlen = 0;
		flow->active = false;
	}
	return flow;
}

/* A packet of the flow has left. */
static void flow_loses(struct sch_bpf_ctx *ctx, struct flow *flow)
{
	if (flow->qlen && !--flow->qlen && flow->active)
		deactivate(ctx, flow);
}

/* ---- sockets with a rate ---- */

/* The packet's socket, if it has a pacing rate. */
static struct sock *paced_socket(struct sk_buff *skb)
{
	struct sock *sk = bpf_qdisc_socket(skb);

	return sk && sk->sk_pacing_rate && sk->sk_pacing_rate != NEVER ? sk : NULL;
}

/* For each new socket two others are looked at, and forgotten if they are idle: so the map holds
 * few that send no more. A pace whose time has come says nothing. While there is much room it is
 * kept for IDLE all the same, because to make a pace costs more than to find it.
 */
static void forget(struct fq *q, __u64 now)
{
	__u64 idle = bpf_rbtree_map_len(&fq_paces) < SOCKETS / 2 ? IDLE : 0;
	struct pace *pace;
	int i;

	bpf_for(i, 0, 2) {
		pace = bpf_rbtree_map_upper_bound(&fq_paces, &q->hand);
		if (!pace)
			q->hand = 0;
		else if (pace->next + idle <= now)
			bpf_map_delete_elem(&fq_paces, &q->hand);
	}
}

/* When a packet may go by the rate of its socket, which may change that: no packet holds up
 * the next one for longer than a second. Two sockets of one address are told apart by their inodes.
 */
static __u64 slot(struct fq *q, struct sock *sk, __u32 len, __u64 now)
{
	__u64 key = (__u64)sk, when = now;
	struct pace *pace = bpf_map_lookup_elem(&fq_paces, &key), next = {
		.whose = sk->sk_ino ^ (__u64)q->era << 32,
	};

	if (pace && pace->whose == next.whose && pace->next > now)
		when = pace->next;
	next.next = when + bpf_qdisc_tx_time_most(len, sk->sk_pacing_rate, NSEC_PER_SEC);
	if (pace) {
		*pace = next;
		return when;
	}
	forget(q, now);
	if (bpf_rbtree_map_push(&fq_paces, &key, &next))
		unpaced++;
	return when;
}

/* ---- enqueue ---- */

static int push_now(struct sch_bpf_ctx *ctx, struct fq *q, struct flow *flow, struct sk_buff *skb)
{
	struct note *note = bpf_qdisc_cb(skb);
	__u32 len = bpf_qdisc_pkt_len(skb);
	__u64 round;

	if (group_by)
		len = price(ctx, flow, len);
	round = bpf_drr_round(&flow->drr, q->round, quantum, initial_quantum, len);
	note->round = round;
	q->ready++;
	return bpf_qdisc_push(ctx, &fq_now, &round, skb);
}

static int push_later(struct sch_bpf_ctx *ctx, struct fq *q, struct sk_buff *skb, __u64 when)
{
	struct note *note = bpf_qdisc_cb(skb);

	note->round = 0;
	if (when < q->next_due)
		q->next_due = when;
	waited++;
	return bpf_qdisc_push(ctx, &fq_later, &when, skb);
}

static int push_alone(struct sch_bpf_ctx *ctx, struct fq *q, struct sk_buff *skb, struct note *note)
{
	__u64 first = 1;

	note->round = first;
	note->flow = FLOWS;
	q->ready = 1;
	return bpf_qdisc_push(ctx, &fq_now, &first, skb);
}

/* Is that yet to come? The clock is read when it must be. */
static bool is_later(struct fq *q, __u64 when)
{
	if (when <= q->past)
		return false;
	q->past = bpf_ktime_get_ns();
	return when > q->past;
}

/* Somebody is waiting, or this packet has to. */
static int enqueue_flow(struct sch_bpf_ctx *ctx, struct fq *q, struct sk_buff *skb,
			struct note *note, struct sock *sk, bool wait)
{
	struct flow *flow;
	__u64 when;
	int err;

	note->flow = bpf_skb_get_hash(skb) % FLOWS;
	flow = flow_of(ctx, note->flow);
	if (!flow)
		return bpf_qdisc_drop(ctx, skb, 0);
	if (flow->qlen >= flow_limit) {
		flow_limit_drops++;
		return bpf_qdisc_drop(ctx, skb, QDISC_DROP_FLOW_LIMIT);
	}
	if (!flow->qlen++ && group_by)
		activate(ctx, flow, skb);
	if (sk) {
		__u64 now = bpf_ktime_get_ns();

		note->when = slot(q, sk, bpf_qdisc_pkt_len(skb), now);
		wait = note->when > now;
	}
	when = note->when;
	if (target && (since_arrival || when < q->past))
		note->when = q->past;
	err = wait ? push_later(ctx, q, skb, when) : push_now(ctx, q, flow, skb);
	if (err)
		flow_loses(ctx, flow);
	return err;
}

/* Another qdisc with these programs, one of a test run, say, may have written ready. */
static struct fq *fq_of(struct sch_bpf_ctx *ctx)
{
	struct fq *q = bpf_map_lookup_elem(&fq_state, &(__u32){ 0 });

	if (q && bpf_qdisc_begins_anew(ctx, &q->generation)) {
		q->ready = MAX_PACKETS;
		if (!ctx->qdisc->q.qlen)	/* as after a reset or a flush */
			q->era++;
	}
	return q;
}

SEC("qdisc/enqueue")
int fq_enqueue(struct sch_bpf_ctx *ctx)
{
	struct fq *q = fq_of(ctx);
	struct sk_buff *skb = ctx->skb;
	struct note *note = bpf_qdisc_cb(skb);
	__u32 qlen = ctx->qdisc->q.qlen;
	struct sock *sk = NULL;
	bool wait = false;

	if (!q)
		return bpf_qdisc_drop(ctx, skb, 0);
	if (qlen >= ctx->qdisc->limit)	/* before the hash is computed */
		return bpf_qdisc_drop(ctx, skb, QDISC_DROP_OVERLIMIT);
	if (group_by == BY_CLASS && bpf_qdisc_filter(ctx, skb))
		return 0;
	note->when = NEVER;		/* a threshold may be set while it waits */
	if (!q->round)			/* later than all of an earlier instance */
		q->round = bpf_ktime_get_ns();
	if (skb->tstamp || ce_threshold || target) {
		/* The clock first: a time beyond the qdisc's own horizon is given as that. */
		q->past = bpf_ktime_get_ns();
		note->when = bpf_qdisc_departure(ctx, skb);
		if (note->when >= bpf_qdisc_time_add(q->past, horizon)) {
			horizon_drops++;
			return bpf_qdisc_drop(ctx, skb, QDISC_DROP_HORIZON_LIMIT);
		}
		wait = note->when > q->past;
	}
	if (!skb->tstamp)
		sk = paced_socket(skb);
	if (!qlen && !wait && !sk)
		return push_alone(ctx, q, skb, note);
	if (!qlen)
		q->ready = 0;
	return enqueue_flow(ctx, q, skb, note, sk, wait);
}

/* ---- dequeue ---- */

/* Is one due that waits for its time? */
static bool due(struct fq *q)
{
	return q->next_due != NEVER && !is_later(q, q->next_due);
}

/* Give all packets that are due their rounds. */
static void release(struct sch_bpf_ctx *ctx, struct fq *q)
{
	__u64 now = q->past;
	struct sk_buff *skb;
	struct flow *flow;
	struct note *note;
	int i;

	bpf_for(i, 0, MAX_PACKETS) {
		skb = bpf_qdisc_take_until(ctx, &fq_later, &now);
		if (!skb) {
			q->next_due = ctx->expire ?: NEVER;
			return;
		}
		note = bpf_qdisc_cb(skb);
		flow = flow_of(ctx, note->flow);
		if (!flow)
			bpf_qdisc_drop(ctx, skb, 0);
		else if (push_now(ctx, q, flow, skb))
			flow_loses(ctx, flow);
	}
}

/* Nobody but packets that were waiting for their time: they leave in that order. */
static int pop_due(struct sch_bpf_ctx *ctx, struct fq *q)
{
	__u64 now = q->past;
	int err = bpf_qdisc_pop_until(ctx, &fq_later, &now);

	if (err == -EAGAIN)
		q->next_due = ctx->expire;
	else if (err == -ENOENT)
		q->next_due = NEVER;
	return err;
}

static void pop(struct sch_bpf_ctx *ctx, struct fq *q)
{
	if (due(q)) {
		if (q->ready)
			release(ctx, q);
		else if (!pop_due(ctx, q) || (due(q) && !pop_due(ctx, q)))
			return;
	}
	if (q->ready && bpf_qdisc_pop(ctx, &fq_now) == -ENOENT)
		q->ready = 0;
}

/* Keep the books when a packet leaves. */
static struct flow *account(struct sch_bpf_ctx *ctx, struct fq *q, struct note *note)
{
	struct flow *flow = flow_of(ctx, note->flow);

	if (note->round > q->round)
		q->round = note->round;
	if (note->round && q->ready)
		q->ready--;
	if (flow)
		flow_loses(ctx, flow);
	return flow;
}

/* The next packet that CoDel does not drop. A flow does not pay for those: it has room in
 * the rounds to come.
 */
static void deliver_what_is_kept(struct sch_bpf_ctx *ctx, struct fq *q)
{
	struct bpf_codel_params params = { target, interval, 1514, ecn };
	enum bpf_aqm_verdict verdict;
	struct sk_buff *skb;
	struct flow *flow;
	struct note *note;
	int i;

	q->past = bpf_ktime_get_ns();
	if (due(q))
		release(ctx, q);
	bpf_for(i, 0, MAX_PACKETS) {
		skb = bpf_qdisc_take(ctx, &fq_now);
		if (!skb)
			return;
		note = bpf_qdisc_cb(skb);
		flow = account(ctx, q, note);
		verdict = flow ? bpf_codel_dequeue(&flow->codel, &params, q->past, note->when,
						   ctx->qdisc->qstats.backlog) : BPF_AQM_DELIVER;
		if (!bpf_aqm_drops_counted(ctx, skb, verdict, &codel_drops, &codel_marks)) {
			bpf_qdisc_deliver(ctx, skb);
			return;
		}
		flow->drr.used -= bpf_qdisc_pkt_len(skb);
		bpf_qdisc_drop(ctx, skb, QDISC_DROP_CONGESTED);
	}
}

SEC("qdisc/dequeue")
int fq_dequeue(struct sch_bpf_ctx *ctx)
{
	struct fq *q = fq_of(ctx);
	struct sk_buff *skb;
	struct note *note;

	if (!q)
		return 0;
	if (target)
		deliver_what_is_kept(ctx, q);
	else
		pop(ctx, q);
	skb = ctx->skb;
	if (!skb) {
		ctx->expire = q->next_due == NEVER ? 0 : q->next_due;
		return 0;
	}
	note = bpf_qdisc_cb(skb);
	if (!target)
		account(ctx, q, note);
	if (ce_threshold && note->when != NEVER && bpf_ktime_get_ns() - note->when > ce_threshold &&
	    bpf_qdisc_ecn_mark(ctx, skb))
		ce_marks++;
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
