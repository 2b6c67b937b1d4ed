/* SPDX-License-Identifier: (LGPL-2.1 OR BSD-2-Clause) */
/*
 * Building blocks of queueing policies: when a queue is too long (CoDel, PIE, RED), who is
 * next (rounds of fair queueing), and when a packet may leave (a token bucket, time on a
 * shared link). Include it after <bpf/bpf_qdisc.h>.
 *
 * A block is a state of a few bytes, parameters, and a function or two. They touch no map
 * and no packet: a policy keeps the state where it likes, and does what it is told. A state
 * of zeroes is a new one. A global variable that holds one is not static: clang takes a static
 * structure apart, and what it says of it in BTF the kernel refuses then. Any value of a
 * parameter is safe; sums saturate.
 *
 * Units: times are ns CLOCK_MONOTONIC, lengths bytes, rates bytes a second.
 *
 * Locks: the programs of a qdisc run one after the other, under the lock of its root or of its
 * tx queue; so a state that belongs to one qdisc needs no lock of its own. With bpf_mq the
 * instances run at the same time: each tx queue has a state, its own if the object is loaded
 * for each, else found by ctx->queue. Only
 * bpf_qdisc_link_reserve() and bpf_qdisc_link_give_back() may be called for one state by
 * several qdiscs, and by programs of other types, at a time.
 */
#ifndef __BPF_QDISC_AQM_H
#define __BPF_QDISC_AQM_H

/**
 * enum bpf_aqm_verdict - what is to become of a packet
 * @BPF_AQM_DELIVER: nothing is wrong: deliver it, or store it
 * @BPF_AQM_MARK: mark it (ECN), or drop it if its transport takes no part in that
 * @BPF_AQM_DROP: drop it
 */
enum bpf_aqm_verdict {
	BPF_AQM_DELIVER,
	BPF_AQM_MARK,
	BPF_AQM_DROP,
};

/**
 * bpf_aqm_drops() - mark a packet, or say that it has to be dropped
 * @ctx: context of the program
 * @skb: an owned packet, which stays the program's
 * @verdict: what one of the functions below has said of it
 *
 * Return: true if the policy has to drop the packet.
 */
static __always_inline bool bpf_aqm_drops(struct sch_bpf_ctx *ctx, struct sk_buff *skb,
					  enum bpf_aqm_verdict verdict)
{
	return verdict == BPF_AQM_DROP ||
	       (verdict == BPF_AQM_MARK && !bpf_qdisc_ecn_mark(ctx, skb));
}

/**
 * bpf_aqm_drops_counted() - bpf_aqm_drops(), and count what it did
 * @ctx: context of the program
 * @skb: an owned packet, which stays the program's
 * @verdict: what one of the functions below has said of it
 * @drops: one more if the packet has to be dropped
 * @marks: one more if it has been marked
 *
 * Return: true if the policy has to drop the packet.
 */
static __always_inline bool bpf_aqm_drops_counted(struct sch_bpf_ctx *ctx, struct sk_buff *skb,
						  enum bpf_aqm_verdict verdict, __u64 *drops,
						  __u64 *marks)
{
	if (bpf_aqm_drops(ctx, skb, verdict)) {
		++*drops;
		return true;
	}
	*marks += verdict == BPF_AQM_MARK;
	return false;
}

/* The product of a number and a fraction, which is in parts of 2^32 and at most 2^32. */
static __always_inline __u64 __bpf_aqm_scale(__u64 number, __u64 fraction)
{
	return (number >> 32) * fraction + ((number & 0xffffffff) * fraction >> 32);
}

/* ---- times ---- */

/**
 * bpf_qdisc_time_add() - the sum of a time and a duration
 * @time: a time
 * @duration: a duration, which may be any number, as a parameter may
 *
 * Return: the sum, or the latest time there is if 64 bits have no room for it.
 */
static __always_inline __u64 bpf_qdisc_time_add(__u64 time, __u64 duration)
{
	__u64 sum = time + duration;

	return sum < time ? ~0ULL : sum;
}

/**
 * bpf_qdisc_time_sub() - the time that was so long before another one
 * @time: a time
 * @duration: a duration, which may be any number
 *
 * Return: the difference, or 0 if the duration is longer.
 */
static __always_inline __u64 bpf_qdisc_time_sub(__u64 time, __u64 duration)
{
	return time > duration ? time - duration : 0;
}

/**
 * bpf_qdisc_tx_time() - how long a link is busy with a packet
 * @len: length of the packet, bytes; 0 takes no time
 * @rate: bytes a second; 0: no rate
 *
 * Return: ns, rounded up: who adds these times never exceeds the rate, and stays below it by
 * less than a nanosecond a packet, which is 0.1 % if a packet takes 1 us. Returns 0 without a
 * rate.
 */
static __always_inline __u64 bpf_qdisc_tx_time(__u32 len, __u64 rate)
{
	return rate && len ? (len * NSEC_PER_SEC - 1) / rate + 1 : 0;
}

/**
 * bpf_qdisc_tx_time_most() - the same, but at most so long
 * @len: length of the packet, bytes
 * @rate: bytes a second; 0: no rate
 * @most: the longest time, ns
 *
 * At a very low rate a packet would hold up those behind it for years, also when the rate has
 * been set right.
 *
 * Return: bpf_qdisc_tx_time(), or @most if that is less.
 */
static __always_inline __u64 bpf_qdisc_tx_time_most(__u32 len, __u64 rate, __u64 most)
{
	__u64 time = bpf_qdisc_tx_time(len, rate);

	return time < most ? time : most;
}

/* ---- CoDel (RFC 8289) ---- */

#define BPF_CODEL_MAX_DROPS	256		/* of one queue in one run */

/**
 * struct bpf_codel_params - parameters of CoDel
 * @target: a delay that is no reason to drop, ns; the RFC's is 5 ms
 * @interval: the time within which a delay is to come down to that, ns: a round trip of most
 *            of the connections; the RFC's is 100 ms
 * @mtu: with so many bytes or fewer behind it no packet is dropped
 * @ecn: mark, rather than drop: a queue of senders that take part in ECN and heed no mark is
 *       then not dropped from, so bound its length, too
 */
struct bpf_codel_params {
	__u64 target;
	__u64 interval;
	__u32 mtu;
	bool ecn;
};

/**
 * struct bpf_codel - state of CoDel for one queue
 * @first_above: when the delay will have been above the target for an interval; 0: it is below
 * @drop_next: when the next packet is dropped, while packets are
 * @count: packets dropped since packets are
 * @lastcount: what @count began with
 * @dropping: packets are dropped
 * @drops: overdue drops at the time @run
 * @run: when there was one last: the lower half of that time
 */
struct bpf_codel {
	__u64 first_above;
	__u64 drop_next;
	__u32 count;
	__u32 lastcount;
	bool dropping;
	__u16 drops;
	__u32 run;
};

/* interval / sqrt(count), where the root is in parts of 2^15. It is computed once a drop. The
 * bits of the root are found without a branch: the verifier would follow both ways of each.
 */
static __always_inline __u64 __bpf_codel_spacing(__u64 interval, __u32 count)
{
	__u64 square = (__u64)count << 30, root = 0, bit, larger;
	__s64 too_large;

#pragma clang loop unroll(disable)
	for (bit = 1 << 30; bit; bit >>= 1) {
		larger = root | bit;
		too_large = (__s64)(square - larger * larger) >> 63;
		barrier_var(too_large);
		root |= bit & ~too_large;
	}
	return ((interval / root) << 15) + ((interval % root) << 15) / root;
}

/**
 * bpf_codel_empty() - CoDel: note that a queue is empty
 * @codel: state of the queue
 *
 * Where a qdisc has several queues, call it when one of them was to give a packet and had none:
 * nothing in it waits for too long then. The last packet of a qdisc does the same by itself.
 */
static __always_inline void bpf_codel_empty(struct bpf_codel *codel)
{
	codel->first_above = 0;
	codel->dropping = false;
}

/**
 * bpf_codel_dequeue() - CoDel: what becomes of a packet that was taken from its queue
 * @codel: state of the queue
 * @params: parameters
 * @now: the present time, the same for all packets of a run
 * @enqueued: when the packet came, from the policy's note on it
 * @backlog: bytes that still wait, without this packet: in all of the queues that share the rate
 *           of this one; in it alone if it has a rate of its own
 *
 * Call it once for each packet that is taken from the queue's head, in dequeue programs, and
 * take the next one if this one is dropped; where there are several queues, bpf_codel_empty()
 * if there is none. Only the policy that owns the queue may call it (see the head of this file).
 *
 * Guarantees: no packet is dropped unless each one that left the queue within the last interval
 * had waited for the target or longer, the queue was not found empty in it, and more than an MTU
 * waits in the qdisc. The nth drop is followed by the next one after interval / sqrt(n), to
 * 0.01 %, or by as many as are overdue. When these are more than BPF_CODEL_MAX_DROPS in one run,
 * as after a long time without a dequeue, a packet is delivered and the next drop is due an
 * interval / sqrt(n) from now. A queue that becomes too long again within 16 intervals goes on
 * with the n that held it before. The last packet of a qdisc is never dropped, so a loop that
 * takes packets until one is delivered ends.
 *
 * Return: BPF_AQM_DELIVER, or BPF_AQM_MARK with params->ecn, or BPF_AQM_DROP without.
 */
static __always_inline enum bpf_aqm_verdict
bpf_codel_dequeue(struct bpf_codel *codel, const struct bpf_codel_params *params, __u64 now,
		  __u64 enqueued, __u32 backlog)
{
	bool behind = false;
	__u32 drops;

	if (now < bpf_qdisc_time_add(enqueued, params->target) || backlog <= params->mtu) {
		bpf_codel_empty(codel);
		return BPF_AQM_DELIVER;
	}
	if (!codel->first_above)
		codel->first_above = bpf_qdisc_time_add(now, params->interval);
	if (now < codel->first_above) {
		codel->dropping = false;
		return BPF_AQM_DELIVER;
	}
	if (codel->dropping && now < codel->drop_next)
		return BPF_AQM_DELIVER;
	if (!codel->dropping) {
		drops = codel->count - codel->lastcount;
		if (drops < 2 || (now >= codel->drop_next &&
				  (now - codel->drop_next) / 16 >= params->interval))
			drops = 1;
		codel->count = drops;
		codel->lastcount = drops;
		codel->drop_next = now;
		codel->dropping = true;
	} else {
		if (codel->run != (__u32)now) {
			codel->run = now;
			codel->drops = 0;
		}
		behind = codel->drops == BPF_CODEL_MAX_DROPS;
		if (behind) {
			codel->drop_next = now;
		} else {
			codel->drops++;
			if (codel->count != ~0U)
				codel->count++;
		}
	}
	codel->drop_next = bpf_qdisc_time_add(codel->drop_next,
					      __bpf_codel_spacing(params->interval, codel->count));
	if (behind)
		return BPF_AQM_DELIVER;
	return params->ecn ? BPF_AQM_MARK : BPF_AQM_DROP;
}

/* ---- PIE (RFC 8033) ---- */

#define BPF_PIE_ONE	0x100000000000000ULL	/* 2^56, the probability 1 */
#define BPF_PIE_UPDATES	256			/* missed ones that are made up for */

/**
 * struct bpf_pie_params - parameters of PIE
 * @target: the delay wanted, ns; the RFC's is 15 ms
 * @tupdate: the probability changes so often, ns; the RFC's is 15 ms
 * @burst: so long a burst is let pass after the queue was short, ns; the RFC's is 150 ms
 * @alpha: how much of the distance from the target, in seconds, is added to the probability
 *         at each update, in sixteenths; the RFC's is 2
 * @beta: how much of the delay's growth since the last update, likewise; the RFC's is 20
 * @mtu: with fewer than two of these, in bytes, waiting no packet is dropped
 * @ecn: mark, rather than drop, up to a probability of 10 %
 */
struct bpf_pie_params {
	__u64 target;
	__u64 tupdate;
	__u64 burst;
	__u32 alpha;
	__u32 beta;
	__u32 mtu;
	bool ecn;
};

/**
 * struct bpf_pie - state of PIE for one queue
 * @prob: the probability that a packet is dropped, of BPF_PIE_ONE
 * @accu_prob: its sum since the last drop
 * @delay: how long the packet had waited that left last, ns
 * @delay_old: what that was at the last update
 * @burst: what is left of a burst that is let pass, ns
 * @next: time of the next update
 */
struct bpf_pie {
	__u64 prob;
	__u64 accu_prob;
	__u64 delay;
	__u64 delay_old;
	__u64 burst;
	__u64 next;
};

/* The difference of two delays in seconds, times a weight in sixteenths, between -1 and 1. */
static __always_inline __s64 __bpf_pie_term(__u32 weight, __u64 delay, __u64 than)
{
	__u64 diff = delay > than ? delay - than : than - delay;
	__u64 unit = weight * (BPF_PIE_ONE / NSEC_PER_SEC) / 16;
	__u64 term = unit && diff > BPF_PIE_ONE / unit ? BPF_PIE_ONE : unit * diff;

	return delay > than ? term : -term;
}

static __always_inline void __bpf_pie_update(struct bpf_pie *pie,
					     const struct bpf_pie_params *params)
{
	__s64 delta = __bpf_pie_term(params->alpha, pie->delay, params->target) +
		      __bpf_pie_term(params->beta, pie->delay, pie->delay_old);
	__u64 most = BPF_PIE_ONE / 10;
	__s64 prob = pie->prob;
	int i;

	/* Small steps of a small probability: a 2nd, and a 4th of that for each power of ten */
	if (pie->prob < most) {
		delta /= 2;
		for (i = 0; i < 5; i++) {
			most /= 10;
			if (pie->prob < most)
				delta /= 4;
		}
	} else if (delta > (__s64)(BPF_PIE_ONE / 50)) {
		delta = BPF_PIE_ONE / 50;
	}
	if (pie->delay > 250 * NSEC_PER_MSEC)
		delta += BPF_PIE_ONE / 50;

	prob += delta;
	if (prob < 0)
		prob = 0;
	if (prob > (__s64)BPF_PIE_ONE)
		prob = BPF_PIE_ONE;
	if (!pie->delay && !pie->delay_old)
		prob -= prob >> 6;
	pie->prob = prob;

	pie->burst = pie->burst > params->tupdate ? pie->burst - params->tupdate : 0;
	if (!prob && pie->delay < params->target / 2 && pie->delay_old < params->target / 2)
		pie->burst = params->burst;
	pie->delay_old = pie->delay;
}

/* There is no timer: what happens next makes up for the updates that were due before. */
static __always_inline void __bpf_pie_catch_up(struct bpf_pie *pie,
					       const struct bpf_pie_params *params, __u64 now)
{
	__u64 period = params->tupdate ?: 1;
	int i;

	if (now < pie->next)
		return;
	if ((now - pie->next) / period >= BPF_PIE_UPDATES) {
		*pie = (struct bpf_pie){ .burst = params->burst,
					 .next = bpf_qdisc_time_add(now, period) };
		return;
	}
	bpf_for(i, 0, BPF_PIE_UPDATES) {
		if (now < pie->next)
			break;
		__bpf_pie_update(pie, params);
		pie->next = bpf_qdisc_time_add(pie->next, period);
	}
}

/**
 * bpf_pie_enqueue() - PIE: what becomes of a packet that has come
 * @pie: state of the queue
 * @params: parameters
 * @now: the present time
 * @backlog: bytes that wait in the queue, without this packet
 *
 * Call it once for each packet, where it joins the queue, and bpf_pie_dequeue() for each that
 * leaves. Only the policy that owns the queue may call them (see the head of this file).
 *
 * Guarantees: the probability is that of the RFC, with delays measured by time stamps, and 2 %
 * an update are added to it while packets wait for longer than 250 ms, as Linux' pie does. All
 * packets count alike, whatever their length. Between two drops the probabilities add up to
 * 0.85 at least and to 8.5 at most, one packet's more or less. Updates that were due while no
 * packet came or left are made up for, up to 256; after more the state is a new one, as it
 * would be by then without packets.
 *
 * Return: BPF_AQM_DELIVER, BPF_AQM_MARK (with params->ecn) or BPF_AQM_DROP.
 */
static __always_inline enum bpf_aqm_verdict
bpf_pie_enqueue(struct bpf_pie *pie, const struct bpf_pie_params *params, __u64 now,
		__u32 backlog)
{
	__bpf_pie_catch_up(pie, params, now);
	if (pie->burst || (pie->delay < params->target / 2 && pie->prob < BPF_PIE_ONE / 5) ||
	    backlog < 2ULL * params->mtu)
		return BPF_AQM_DELIVER;
	pie->accu_prob = pie->prob ? pie->accu_prob + pie->prob : 0;
	if (pie->accu_prob < BPF_PIE_ONE / 100 * 85)
		return BPF_AQM_DELIVER;
	if (pie->accu_prob < BPF_PIE_ONE / 2 * 17 &&
	    (__u64)bpf_get_prandom_u32() << 24 >= pie->prob)
		return BPF_AQM_DELIVER;
	pie->accu_prob = 0;
	return params->ecn && pie->prob <= BPF_PIE_ONE / 10 ? BPF_AQM_MARK : BPF_AQM_DROP;
}

/**
 * bpf_pie_dequeue() - PIE: note how long a packet has waited that leaves
 * @pie: state of the queue
 * @params: parameters
 * @now: the present time
 * @enqueued: when the packet came, from the policy's note on it
 * @backlog: bytes that still wait in the queue, without this packet
 */
static __always_inline void bpf_pie_dequeue(struct bpf_pie *pie,
					    const struct bpf_pie_params *params, __u64 now,
					    __u64 enqueued, __u32 backlog)
{
	__bpf_pie_catch_up(pie, params, now);
	pie->delay = backlog && now > enqueued ? now - enqueued : 0;
}

/* ---- RED (Floyd and Jacobson, 1993) ---- */

#define __BPF_RED_SHIFT	24		/* of an average: parts of a byte */

/**
 * struct bpf_red_params - parameters of RED
 * @min: up to this average no packet is dropped, bytes
 * @max: from this average on each one is, bytes
 * @max_p: probability just below @max, in parts of 2^32
 * @weight_log: weight of the present backlog in the average: 2^-weight_log; at most 24
 * @ecn: mark, rather than drop
 * @packet_time: how long the link is busy with a typical packet, ns: an average that no
 *               packet renews goes down as if so many packets found the queue empty
 */
struct bpf_red_params {
	__u32 min;
	__u32 max;
	__u32 max_p;
	__u8 weight_log;
	bool ecn;
	__u64 packet_time;
};

/**
 * struct bpf_red - state of RED for one queue
 * @avg: average backlog, in 2^-24 bytes
 * @idle: since when the queue is empty; 0: it is not
 * @count: packets since the last drop; 0: @random is of none
 * @random: where in the present round the next drop is, in parts of 2^32
 */
struct bpf_red {
	__u64 avg;
	__u64 idle;
	__u32 count;
	__u32 random;
};

/* An average after so many packets that have found the queue empty. */
static __always_inline __u64 __bpf_red_decay(__u64 avg, __u8 weight_log, __u64 packets)
{
	__u64 keep = (1ULL << 32) - ((1ULL << 32) >> weight_log);
	int i;

#pragma clang loop unroll(disable)
	for (i = 0; i < 64 && packets; i++) {
		if (packets & 1)
			avg = __bpf_aqm_scale(avg, keep);
		keep = __bpf_aqm_scale(keep, keep);
		packets >>= 1;
	}
	return avg;
}

/**
 * bpf_red_enqueue() - RED: what becomes of a packet that has come
 * @red: state of the queue
 * @params: parameters
 * @now: the present time
 * @backlog: bytes that wait in the queue, without this packet
 *
 * Call it once for each packet, where it joins the queue, and bpf_red_dequeue() for each that
 * leaves. Only the policy that owns the queue may call them (see the head of this file).
 *
 * Guarantees: with p = max_p * (avg - min) / (max - min) the next drop is that of any of the
 * next 1 / p packets, with equal chances: at a constant average 2 p / (1 + p) of the packets,
 * with at most 1 / p between two.
 *
 * Return: BPF_AQM_DELIVER, or BPF_AQM_MARK with params->ecn, or BPF_AQM_DROP without.
 */
static __always_inline enum bpf_aqm_verdict
bpf_red_enqueue(struct bpf_red *red, const struct bpf_red_params *params, __u64 now,
		__u32 backlog)
{
	enum bpf_aqm_verdict congested = params->ecn ? BPF_AQM_MARK : BPF_AQM_DROP;
	__s64 bytes = (__u64)backlog << __BPF_RED_SHIFT;
	__u64 avg, p;
	bool drop;

	if (red->idle) {
		red->avg = __bpf_red_decay(red->avg, params->weight_log, params->packet_time ?
					   (now - red->idle) / params->packet_time : ~0ULL);
		red->idle = 0;
	} else {
		red->avg += (bytes - (__s64)red->avg) >> params->weight_log;
	}
	avg = red->avg >> __BPF_RED_SHIFT;
	if (avg < params->min || avg >= params->max) {
		red->count = 0;
		return avg < params->min ? BPF_AQM_DELIVER : congested;
	}
	p = (avg - params->min) * params->max_p / (params->max - params->min);
	drop = red->count;
	if (drop && red->count * p < red->random) {
		if (red->count != ~0U)
			red->count++;
		return BPF_AQM_DELIVER;
	}
	red->random = bpf_get_prandom_u32();
	red->count = 1;
	return drop ? congested : BPF_AQM_DELIVER;
}

/**
 * bpf_red_dequeue() - RED: note when a queue becomes empty
 * @red: state of the queue
 * @now: the present time
 * @backlog: bytes that still wait in the queue
 */
static __always_inline void bpf_red_dequeue(struct bpf_red *red, __u64 now, __u32 backlog)
{
	if (!backlog)
		red->idle = now;
}

/* ---- rounds of fair queueing (Shreedhar and Varghese, 1995; RFC 8290) ---- */

/**
 * struct bpf_drr_flow - state of a flow
 * @round: round of its next packet; 0: it had none yet
 * @used: bytes that it has used of that round's quantum; negative: it has more than that
 */
struct bpf_drr_flow {
	__u64 round;
	__s64 used;
};

/**
 * bpf_drr_round() - the round in which a packet leaves that has come
 * @flow: state of the packet's flow
 * @round: the latest round from which a packet has left; at the beginning bpf_ktime_get_ns(),
 *         which is later than any round that packets or flows remember: those of before a
 *         change, and with rounds in rounds those of a host whose place another one gets. 2
 *         is enough where nothing is remembered
 * @quantum: bytes that the flow may send in a round, at least 1
 * @initial: bytes that it may send in its first round
 * @len: length of the packet, or what its flow is to pay for it, bytes
 *
 * It is the key of the packet in an ordered map: rounds leave one after the other, packets of
 * a round in the order in which they came, and so there is neither a queue for each flow nor a
 * list of flows. What it costs does not depend on their number. Only the policy that owns the
 * map may call it (see the head of this file).
 *
 * Guarantees: the packets of a flow keep their order. Flows that always have packets send in
 * the ratio of their quanta; two that begin together, with equal ones, are never apart by more
 * than a quantum and a packet. A flow that was silent for a round goes before those that were not,
 * with one quantum (a list of new flows and one of old ones do the same).
 *
 * A packet that is dropped after it has got its round has spent its flow's quantum: a flow of
 * which an AQM drops at the head gets less than its share. With CoDel, call this in dequeue
 * programs, with the length of the packet that leaves, and keep flows, not packets, under
 * their rounds: in another ordered map, whose value is the flow.
 *
 * Return: the round.
 */
static __always_inline __u64 bpf_drr_round(struct bpf_drr_flow *flow, __u64 round, __u32 quantum,
					   __u32 initial, __u32 len)
{
	if (flow->round + 1 < round) {
		flow->used = flow->round ? 0 : (__s64)quantum - initial;
		flow->round = round - 1;
	}
	round = flow->round;
	flow->used += len;
	if (flow->used >= quantum) {
		flow->round += (__u64)flow->used / quantum;
		flow->used = (__u64)flow->used % quantum;
	}
	return round;
}

/* ---- a token bucket ---- */

/**
 * struct bpf_tbf - state of a token bucket
 * @empty: when the bucket was empty, or will be, if no token is taken in between
 */
struct bpf_tbf {
	__u64 empty;
};

/**
 * bpf_tbf_reserve() - take tokens for a packet, and say when it may leave
 * @tbf: state of the bucket
 * @rate: bytes a second; 0: no rate: the packet may leave at once, and the bucket is full
 * @burst: depth of the bucket, bytes
 * @now: the present time
 * @len: length of the packet, bytes
 *
 * For a packet that has come, as its key in a map of departure times; so ask for room first:
 * tokens of a packet that is dropped then are lost. To police, reserve in a copy of the state:
 * if the packet may not leave by @now drop it, else keep the copy. Only the policy that owns the
 * bucket may call it (see the head of this file).
 *
 * Who may send while the bucket is not empty compares tbf->empty with @now, and reserves when the
 * packet has left.
 *
 * Guarantees: within any time T at most rate * T + burst bytes leave; who waits gets the rate,
 * less a nanosecond a packet. After a pause burst bytes leave at once, give or take a
 * nanosecond a packet. A packet that is longer than burst leaves when the bucket is full, and
 * those after it pay for it. Packets leave in the order in which they came, but for those that
 * come when the rate has become 0: they overtake those that wait.
 *
 * What is owed is a time, and a change from one rate to another leaves it as it is, so that
 * order holds: 10 s of 1 Mbit/s are 10 s at 1 Gbit/s, too. To bound that, drop packets whose
 * time would be beyond a horizon; to forgive it, set the state to zeroes.
 *
 * Return: the time, which is @now if the packet may leave at once.
 */
static __always_inline __u64 bpf_tbf_reserve(struct bpf_tbf *tbf, __u64 rate, __u32 burst,
					     __u64 now, __u32 len)
{
	__u64 depth = bpf_qdisc_tx_time(burst, rate);
	__u64 cost = bpf_qdisc_tx_time(len, rate), when;

	if (!rate) {
		tbf->empty = 0;
		return now;
	}
	if (now > depth && tbf->empty < now - depth)
		tbf->empty = now - depth;
	when = bpf_qdisc_time_add(tbf->empty, cost < depth ? cost : depth);
	tbf->empty = bpf_qdisc_time_add(tbf->empty, cost);
	return when > now ? when : now;
}

/* ---- time on a shared link ---- */

/**
 * bpf_qdisc_link_reserve() - take time on a link that several queues share, without a lock
 * @link: when the link will be free; a number that all of them share, 0 at the beginning
 * @floor: the earliest time that can be had: now, less the burst that a pause allows
 * @cost: how long the link is busy with the packet, ns: bpf_qdisc_tx_time()
 *
 * By any program, on several CPUs at a time, with @link in a map's value: one sets a link that
 * is idle to @floor, all add to it in one atomic step. The packet's departure time is what is
 * returned; a map of departure times, on each queue, holds it until then.
 *
 * Guarantees:
 *
 * - rate: within any time T what leaves is at most what the link carries in T and the burst,
 *   and a packet more. It falls short by less than a nanosecond a packet while somebody waits.
 *   CPUs that find the link idle together lengthen the burst by the distance of their floors.
 * - order: packets have times in the order of their steps, whatever the queue, and no two have
 *   the link at a time. Queues do not wait for each other, so where a CPU is late another's
 *   packet goes first.
 * - fairness: none. It is a FIFO: a queue gets what it has asked for, at the expense of all.
 * - a stopped queue holds up no other one, but what its packets have reserved is lost to the
 *   link while it stands still, and when it goes on they leave at once, beyond the rate. So
 *   bound what waits: refuse packets when @link is further ahead than a horizon, before they
 *   take time.
 *
 * A sum beyond 64 bits, 584 years of the link, is a time that is over: the link is then idle.
 *
 * Return: the time from which on the link is the packet's; @floor at the earliest.
 */
static __always_inline __u64 bpf_qdisc_link_reserve(__u64 *link, __u64 floor, __u64 cost)
{
	__u64 seen = *link;

	if (seen < floor)
		__sync_val_compare_and_swap(link, seen, floor);
	return __sync_fetch_and_add(link, cost);
}

/**
 * bpf_qdisc_link_give_back() - give time back that was reserved for a packet
 * @link: when the link will be free
 * @cost: what the packet had reserved, ns
 *
 * For a packet that is dropped: packets to come have its time. Those that have a departure time
 * keep it. As bpf_qdisc_link_reserve(), by any program and on several CPUs at a time.
 *
 * A link that has less time than @cost has none then: a number that wrapped would be a link
 * that is never free. If other CPUs are faster 16 times, the time is lost.
 */
static __always_inline void bpf_qdisc_link_give_back(__u64 *link, __u64 cost)
{
	__u64 seen, left;
	int i;

#pragma clang loop unroll(disable)
	for (i = 0; i < 16; i++) {
		seen = *link;
		left = seen > cost ? seen - cost : 0;
		if (__sync_val_compare_and_swap(link, seen, left) == seen)
			break;
	}
}

#endif /* __BPF_QDISC_AQM_H */
