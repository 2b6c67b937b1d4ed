// SPDX-License-Identifier: GPL-2.0
/*
 * taprio: gates of traffic classes open and close by a schedule that repeats (IEEE 802.1Qbv).
 *
 * The schedule is a list: for intervals[0] the classes of the mask gates[0] may send, then for
 * intervals[1] those of gates[1], and so on until an interval of 0. It begins anew each `cycle`,
 * which is the sum of the intervals unless it is given: a shorter one cuts the list, a longer one
 * prolongs its last entry. Cycles begin at `base`, ns CLOCK_TAI, and at multiples of the cycle
 * from there. The first half of each ms is for class 7 alone:
 *
 *	tc qdisc add dev eth0 root bpf obj taprio set rate=1gbit \
 *		set gates=0x80,0x7f set intervals=500us,500us
 *
 * A packet's priority (skb->priority) chooses its class by `priomap`. Of the classes whose gates
 * are open the highest sends first. A packet that the link, at its `rate`, would not have sent
 * before its gate closes waits until that opens again. If no window of its class is longer by
 * 50 us, or by a third in short ones, it is dropped, or it would wait for a timer that is never
 * late; so is one with more than max_sdu[CLASS] bytes behind its Ethernet header. GSO packets
 * are cut instead. A class has room for class_limit packets.
 *
 * Another schedule is taken when `schedule`, its number, is another one, so set that last:
 *
 *	tc qdisc change dev eth0 root bpf set gates[0]=0xc0 set base=1800000000s set schedule=2
 *
 * The old one holds until `base`, or, if that has passed, until a cycle of the new one begins. A
 * packet that would still be under way then waits. Before the first schedule's base all gates
 * are open. A new object does the same with its own parameters.
 *
 * With `plug` nothing leaves, whatever the gates say, until it is false again.
 *
 * Where it does badly: a gate opens when a timer runs, some us late on an idle machine, and what
 * is let go reaches the wire some us later: leave as much between two gates. At most 100 us of
 * packets are in the device's queue, by `rate`, which is not asked from the device; no gate holds
 * these back. Preamble, FCS and gap are 24 bytes more (tc ... stab overhead 24). With bpf_mq each
 * tx queue has gates and a link of its own.
 *
 * Not as taprio: nothing is offloaded, there is no txtime assist, no departure times, no cycle
 * time extension, no preemption; a class is a FIFO, not tx queues with qdiscs. Not as plug: there
 * is no mark up to which packets go.
 *
 * Statistics, by `tc -s qdisc show`: packets of each class that were sent, and that were dropped as
 * too long for max_sdu, as too long for all windows, and as too many.
 */
#include "policy.h"
#include <bpf/bpf_rbtree.h>

#define MAX_PACKETS	10000
#define CLASSES		8
#define ENTRIES		64
#define PRIORITIES	16
#define NEVER		(~0ULL)
#define AHEAD		(100 * NSEC_PER_USEC)	/* of the link's time, in the device */
#define LATE		(50 * NSEC_PER_USEC)	/* by which a timer may be, in a long window */
#define SHORTEST	(10 * NSEC_PER_USEC)	/* entries, on average, with a timer for each */

/* Parameters; times in ns, the rate in bytes a second */
__u32 gates[ENTRIES] SEC(".data.param") BPF_QDISC_RANGE(0, 255) = { 0xff };
__u64 intervals[ENTRIES] SEC(".data.param") BPF_QDISC_RANGE(0, 1s) = { NSEC_PER_MSEC };
__u64 cycle SEC(".data.param") BPF_QDISC_RANGE(0, 64s);		/* 0: the sum of the intervals */
__u64 base SEC(".data.param") BPF_QDISC_RANGE(0, 9000000000s);
__u64 rate SEC(".data.param") BPF_QDISC_RANGE(8kbit, 1tbit) = 125000000;
__u32 priomap[PRIORITIES] SEC(".data.param") BPF_QDISC_RANGE(0, 7) = {
	0, 1, 2, 3, 4, 5, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7
};

__u32 max_sdu[CLASSES] SEC(".data.param") BPF_QDISC_RANGE(0, 65535);	/* 0: any */
__u32 class_limit SEC(".data.param") BPF_QDISC_RANGE(0, 1000000) = 1000;
__u32 schedule SEC(".data.param") BPF_QDISC_RANGE(1, 4294967295) = 1;
bool plug SEC(".data.param");

/* Statistics: packets of each class */
__u64 sent[CLASSES] SEC(".data.stats");
__u64 sdu_drops[CLASSES] SEC(".data.stats");
__u64 window_drops[CLASSES] SEC(".data.stats");
__u64 limit_drops[CLASSES] SEC(".data.stats");

struct schedule {
	__u64 start;			/* from when on it holds; times are CLOCK_TAI */
	__u64 phase;			/* of its cycles */
	__u64 cycle;
	__u64 longest[CLASSES];		/* time that a packet may take; NEVER: any */
	__u32 entries;			/* 0: all gates are open */
	struct {
		__u32 gates;
		__u64 end;		/* in the cycle */
	} entry[ENTRIES];
};

struct place {				/* of a packet in the map */
	__u64 rank;			/* 0 for the highest class */
	__u64 number;			/* of those of the class that came before */
};

BPF_QDISC_QUEUE(taprio_pkts, struct place, MAX_PACKETS);

/* What new programs go on with */
struct state {
	struct schedule schedules[2];
	__u32 running;			/* which of them; the other one is next if it is pending */
	bool pending;
	__u32 open;			/* the gates, from `begin` until `end` */
	__u64 begin, end;
	__u64 closes[CLASSES];		/* when, of a gate that is open */
	__u64 came[CLASSES];		/* packets */
	__u64 link_free;		/* CLOCK_MONOTONIC */
};

MAP_OF_ONE(taprio_state, struct state);

static __u32 taken;			/* number of the schedule */

static struct schedule *running(struct state *state)
{
	return &state->schedules[state->running & 1];
}

static struct schedule *next(struct state *state)
{
	return &state->schedules[~state->running & 1];
}

static void take_schedule(struct state *state, __u64 now)
{
	struct schedule *new = next(state);
	__u64 end = 0, window;
	__u32 at;
	int i, class;

	new->entries = 0;
	bpf_for(i, 0, ENTRIES) {
		if (!intervals[i] || (cycle && end >= cycle))
			break;
		end += intervals[i];
		new->entry[i].gates = gates[i];
		new->entry[i].end = end;
		new->entries = i + 1;
	}
	new->cycle = cycle ?: end ?: 1;
	new->entry[(new->entries - 1) % ENTRIES].end = new->cycle;
	new->phase = base % new->cycle;
	new->start = base > now ? base : now;
	if (base <= now && running(state)->entries)
		new->start += new->cycle - (now - new->phase) % new->cycle;
	bpf_for(class, 0, CLASSES) {
		new->longest[class] = 0;
		window = 0;
		bpf_for(i, 0, 2 * ENTRIES) {		/* a window may go on in the next cycle */
			if (i >= 2 * new->entries)
				break;
			at = i % new->entries;
			if (!at)
				end = 0;
			window += new->entry[at % ENTRIES].end - end;
			end = new->entry[at % ENTRIES].end;
			if (!(new->entry[at % ENTRIES].gates & 1 << class))
				window = 0;
			if (window > new->longest[class])
				new->longest[class] = window;
		}
		if (new->longest[class] > new->cycle)
			new->longest[class] = NEVER;
		else if (new->longest[class] / 4 < LATE)
			new->longest[class] -= new->longest[class] / 4;
		else
			new->longest[class] -= LATE;
	}
	state->pending = true;
	state->end = 0;
}

/* The gates that are open now, until when all stay as they are, and when each closes. */
static void look_up(struct state *state, __u64 now)
{
	__u64 most = NEVER, from, end;
	struct schedule *sched;
	__u32 open, closing, at = 0;
	int i, class;

	if (state->pending && now >= next(state)->start) {
		state->running++;
		state->pending = false;
	}
	if (state->pending)
		most = next(state)->start;
	sched = running(state);
	bpf_for(class, 0, CLASSES)
		state->closes[class] = most;
	state->begin = now;
	state->end = most;
	state->open = 0xff;
	if (!sched->entries)
		return;

	from = now - (now - sched->phase) % sched->cycle;
	bpf_for(i, 0, ENTRIES) {
		at = i;
		if (now - from < sched->entry[i].end)
			break;
	}
	open = sched->entry[at].gates;
	end = from + sched->entry[at].end;
	state->open = open;
	if (end < most)
		state->end = end;
	bpf_for(i, 0, ENTRIES) {
		__u32 then = at + 1 + i;		/* no count of its own: the verifier would follow it */

		if (i >= sched->entries || !open || end >= most)
			break;
		closing = open & ~sched->entry[then % sched->entries % ENTRIES].gates;
		open &= ~closing;
		bpf_for(class, 0, CLASSES)
			if (closing & 1 << class)
				state->closes[class] = end;
		end = from + sched->entry[then % sched->entries % ENTRIES].end +
		      (then >= sched->entries ? sched->cycle : 0);
	}
}

static struct state *look(__u64 now)
{
	struct state *state = bpf_map_lookup_elem(&taprio_state, &(__u32){ 0 });

	if (!state)
		return NULL;
	if (taken != schedule) {
		taken = schedule;
		take_schedule(state, now);
	}
	if (now < state->begin || now >= state->end)
		look_up(state, now);
	return state;
}

static bool fits_no_window(struct state *state, __u32 class, const struct sk_buff *skb)
{
	return running(state)->entries && bpf_qdisc_tx_time(bpf_qdisc_pkt_len(skb), rate) >
					  running(state)->longest[class % CLASSES];
}

static int drop(struct sch_bpf_ctx *ctx, struct sk_buff *skb, __u64 *count, int reason)
{
	++*count;
	return bpf_qdisc_drop(ctx, skb, reason);
}

SEC("qdisc/enqueue")
int taprio_enqueue(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb = ctx->skb;
	struct state *state = look(bpf_ktime_get_tai_ns());
	__u32 class = priomap[skb->priority % PRIORITIES] % CLASSES;
	struct place place = { .rank = CLASSES - 1 - class }, first = place;
	bool too_long = max_sdu[class] && skb->len > max_sdu[class] + ETH_HLEN;

	if (!state)
		return bpf_qdisc_drop(ctx, skb, 0);
	if (too_long || fits_no_window(state, class, skb)) {
		if (bpf_qdisc_pkt_segs(skb) > 1)
			return bpf_qdisc_segment(ctx, skb);
		return drop(ctx, skb, too_long ? &sdu_drops[class] : &window_drops[class], 0);
	}
	place.number = state->came[class];
	if (bpf_rbtree_map_lower_bound(&taprio_pkts, &first) && first.rank == place.rank &&
	    place.number - first.number >= class_limit)
		return drop(ctx, skb, &limit_drops[class], QDISC_DROP_BAND_LIMIT);
	state->came[class] += !bpf_qdisc_push(ctx, &taprio_pkts, &place, skb);
	return 0;
}

SEC("qdisc/dequeue")
int taprio_dequeue(struct sch_bpf_ctx *ctx)
{
	__u64 tai = bpf_ktime_get_tai_ns(), now = bpf_ktime_get_ns(), busy, wait, time;
	struct state *state = look(tai);
	struct place place = {};
	struct sk_buff *skb;
	struct pkt *pkt;
	__u32 class;
	int i;

	if (!state)
		return 0;
	ctx->expire = NEVER;
	if (plug)
		return 0;
	busy = bpf_qdisc_time_sub(state->link_free, now);
	if (busy > AHEAD) {
		ctx->expire = state->link_free - AHEAD / 2;
		return 0;
	}
	wait = state->end - tai;
	if (wait < SHORTEST && running(state)->cycle < running(state)->entries * SHORTEST)
		wait = SHORTEST;
	ctx->expire = bpf_qdisc_time_add(now, wait);
	bpf_for(i, 0, CLASSES) {
		pkt = bpf_rbtree_map_lower_bound(&taprio_pkts, &place);
		skb = pkt ? pkt->skb : NULL;
		if (!skb)
			break;
		class = (CLASSES - 1 - place.rank) % CLASSES;
		if (fits_no_window(state, class, skb)) {	/* it came in another schedule */
			skb = bpf_qdisc_take_key(ctx, &taprio_pkts, &place);
			ctx->expire = now;
			return skb ? drop(ctx, skb, &window_drops[class], 0) : 0;
		}
		time = busy + bpf_qdisc_tx_time(bpf_qdisc_pkt_len(skb), rate);
		if (state->open & 1 << class && time <= state->closes[class] - tai) {
			state->link_free = now + time;
			sent[class]++;
			return bpf_qdisc_pop_key(ctx, &taprio_pkts, &place);
		}
		place.rank++;
		place.number = 0;
	}
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
