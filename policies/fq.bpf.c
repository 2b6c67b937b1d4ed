// SPDX-License-Identifier: GPL-2.0
/*
 * fq: flows share the link fairly, and packets wait for their time.
 *
 * Fair: by virtual time, in bytes. A flow's packet starts, virtually, where the
 * flow's last one ended, but not before the packet that left last; the packets
 * leave in the order of these starts. So flows that always have packets take
 * turns, byte for byte, and one that comes back is served before those that
 * have had more. There is no queue for each flow: the ordered map is the queue.
 *
 * Paced: a packet with a departure time (skb->tstamp: TCP's pacing, SO_TXTIME), or
 * whose socket has a pacing rate, waits in a second map, sorted by time, and
 * joins the first when it is due. What would wait longer than `horizon` is
 * dropped.
 *
 * A flow may have flow_limit packets here. A packet that leaves ce_threshold or
 * more after its time is marked: congestion experienced.
 *
 * Where it does badly: flows are told apart by the packet's hash, so two may share
 * one share. A packet without a time may overtake one of its flow that waits for
 * its own. Fairness is by packet, not by quantum: flows change more often than in
 * sch_fq, which may cost TSO and caches. No bands.
 *
 * Statistics: map fq_stats, per CPU.
 */
#include "policy.h"

#define MAX_PACKETS	10000
#define NEVER		(~0ULL)

/* Parameters; times in ns */
__u32 flow_limit SEC(".data.param") = 100;
__u64 horizon SEC(".data.param") = 10 * NSEC_PER_SEC;
__u64 ce_threshold SEC(".data.param") = NEVER;

struct flow {
	__u64 vtime;		/* virtual end of its last packet */
	__u64 next;		/* when the socket's rate lets the next one go */
	__u32 qlen;
	__u32 epoch;		/* qlen counts if this is the present one */
};

struct fq_stats {
	__u64 packets;		/* offered */
	__u64 waited;		/* of these for their time */
	__u64 dropped;
	__u64 flow_limit;	/* dropped because of it */
	__u64 horizon;
	__u64 ce_marks;
};

struct later {			/* the second member keeps the order of equal times */
	__u64 when;
	__u64 number;
};

struct {				/* virtual start -> packet */
	__uint(type, BPF_MAP_TYPE_RBTREE);
	__type(key, __u64);
	__type(value, struct pkt);
	__uint(max_entries, MAX_PACKETS);
} fq_now SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RBTREE);
	__type(key, struct later);
	__type(value, struct pkt);
	__uint(max_entries, MAX_PACKETS);
} fq_later SEC(".maps");

struct {				/* flow hash -> flow */
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__type(key, __u32);
	__type(value, struct flow);
	__uint(max_entries, 65536);
} fq_flows SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, __u32);
	__type(value, struct fq_stats);
	__uint(max_entries, 1);
} fq_stats SEC(".maps");

static __u64 vnow;		/* virtual start of the packet that left last */
static __u64 next_due = NEVER;	/* nothing in fq_later is due before */
static __u64 numbers;
static __u32 epoch;		/* changes when the queue is found empty */

#define count(what)								\
	do {									\
		struct fq_stats *s = bpf_map_lookup_elem(&fq_stats, &(__u32){ 0 }); \
										\
		if (s)								\
			s->what++;						\
	} while (0)

/* What the qdisc's control block keeps of a packet in one of the maps. */
struct note {
	__u64 when;		/* departure time */
	__u64 order;		/* virtual start, or number */
};

static struct note *note(struct sk_buff *skb)
{
	return (struct note *)((struct qdisc_skb_cb *)skb->cb)->data;
}

static struct flow *flow_of(struct sk_buff *skb)
{
	struct flow *flow, fresh = { .epoch = epoch };
	__u32 hash = bpf_skb_get_hash(skb);

	flow = bpf_map_lookup_elem(&fq_flows, &hash);
	if (!flow) {
		bpf_map_update_elem(&fq_flows, &hash, &fresh, BPF_NOEXIST);
		flow = bpf_map_lookup_elem(&fq_flows, &hash);
	}
	/* The queue may have been reset, behind this program's back. */
	if (flow && flow->epoch != epoch) {
		flow->epoch = epoch;
		flow->qlen = 0;
	}
	return flow;
}

/* Put a packet behind those that started, virtually, before it. */
static int push_now(struct sch_bpf_ctx *ctx, struct sk_buff *skb, struct flow *flow)
{
	__u64 start = flow->vtime > vnow ? flow->vtime : vnow;

	flow->vtime = start + bpf_qdisc_pkt_len(skb);
	note(skb)->order = start;
	return bpf_qdisc_push(ctx, &fq_now, &start, skb);
}

static int push_later(struct sch_bpf_ctx *ctx, struct sk_buff *skb, __u64 number)
{
	struct later key = { .when = note(skb)->when, .number = number };

	if (key.when < next_due)
		next_due = key.when;
	note(skb)->order = number;
	return bpf_qdisc_push(ctx, &fq_later, &key, skb);
}

/* When a packet may leave: its own time, or what its socket's rate allows. */
static __u64 departure(struct sch_bpf_ctx *ctx, struct sk_buff *skb, struct flow *flow, __u64 now)
{
	struct sock *sk = skb->sk;
	__u64 rate, when;

	if (skb->tstamp)
		return bpf_qdisc_departure(ctx, skb);
	if (!sk)
		return now;
	rate = sk->sk_pacing_rate;
	if (!rate || rate == NEVER)
		return now;
	when = flow->next > now ? flow->next : now;
	flow->next = when + bpf_qdisc_pkt_len(skb) * NSEC_PER_SEC / rate;
	return when;
}

/* Is there a reason to drop a packet that is to leave at @when? */
static bool refuse(struct flow *flow, __u64 when, __u64 now)
{
	if (flow->qlen >= flow_limit) {
		count(flow_limit);
		return true;
	}
	if (when > now + horizon) {
		count(horizon);
		return true;
	}
	return false;
}

SEC("qdisc/enqueue")
int fq_enqueue(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb = ctx->skb;
	__u64 now = bpf_ktime_get_ns(), when;
	struct flow *flow;
	int verdict;

	count(packets);
	if (!ctx->qdisc->q.qlen)
		epoch++;
	flow = flow_of(skb);
	if (!flow)
		return SCH_BPF_DROP;
	when = departure(ctx, skb, flow, now);
	if (refuse(flow, when, now)) {
		count(dropped);
		return SCH_BPF_DROP;
	}
	note(skb)->when = when;
	if (when > now) {
		count(waited);
		verdict = push_later(ctx, skb, numbers++);
	} else {
		verdict = push_now(ctx, skb, flow);
	}
	if (verdict == SCH_BPF_QUEUED)
		flow->qlen++;
	else
		count(dropped);
	return verdict;
}

/* Move a packet that is due from the second map to the first; false if none is. */
static bool release_one(struct sch_bpf_ctx *ctx, __u64 now)
{
	struct sk_buff *skb = bpf_qdisc_take(ctx, &fq_later);
	struct flow *flow;
	__u64 when;

	next_due = NEVER;
	if (!skb)
		return false;
	when = note(skb)->when;
	if (when > now) {
		push_later(ctx, skb, note(skb)->order);
		return false;
	}
	next_due = when;
	flow = flow_of(skb);
	if (flow)
		push_now(ctx, skb, flow);
	else
		bpf_qdisc_drop(ctx, skb, 0);
	return true;
}

static void release(struct sch_bpf_ctx *ctx, __u64 now)
{
	int i;

	bpf_for(i, 0, MAX_PACKETS)
		if (now < next_due || !release_one(ctx, now))
			return;
}

static void leave(struct sch_bpf_ctx *ctx, struct sk_buff *skb, __u64 now)
{
	struct flow *flow = flow_of(skb);

	vnow = note(skb)->order;
	if (flow && flow->qlen)
		flow->qlen--;
	if (ce_threshold != NEVER && now - note(skb)->when > ce_threshold &&
	    bpf_qdisc_ecn_mark(ctx, skb))
		count(ce_marks);
}

SEC("qdisc/dequeue")
int fq_dequeue(struct sch_bpf_ctx *ctx)
{
	__u64 now = bpf_ktime_get_ns();
	struct sk_buff *skb;

	release(ctx, now);
	skb = bpf_qdisc_take(ctx, &fq_now);
	if (skb) {
		leave(ctx, skb, now);
		return bpf_qdisc_deliver(ctx, skb);
	}
	if (next_due == NEVER)
		return SCH_BPF_EMPTY;
	ctx->expire = next_due;
	return SCH_BPF_THROTTLE;
}

char LICENSE[] SEC("license") = "GPL";
