// SPDX-License-Identifier: GPL-2.0
/*
 * netem: packets leave as if they had passed a network: late, lost, twice, in another order.
 *
 * Delay: a packet leaves `delay` after it has come, give or take up to `jitter`. With delay_values
 * of the table delay_dist it is later by jitter times one of these, in parts of 8192. The
 * table has rows of 128 values; tc's own files fill it:
 *
 *	values() { grep -v '#' /usr/lib/x86_64-linux-gnu/tc/$1.dist | xargs -n 128 | tr ' ' ,; }
 *	tc qdisc add dev eth0 root bpf obj netem set delay=50ms set jitter=10ms set delay_values=4096 \
 *		$(values normal | awk '{ print "set delay_dist[" (NR - 1) "]=" $0 }')
 *
 * Loss: with probability `loss` a packet is lost, and its sender does not learn of it. With
 * loss_model 1 and 2 the chain `loss_chain` decides: p13, p31, p32, p23, p14, or p, r, 1-h, 1-k,
 * as tc's `loss state` and `loss gemodel` take them. With `ecn` a packet that takes part is marked
 * instead.
 *
 * Copies and order: with probability `duplicate` a second one goes the same way. With `gap` every
 * gap-th packet, but only with probability `reorder`, overtakes all that wait.
 *
 * Rate: with `rate` a packet leaves no sooner than the link is free and has sent it, with
 * `overhead` bytes, and in cells of cell_size bytes with cell_overhead.
 *
 * Slots: with slot_delay or slot_jitter packets leave in slots of slot_packets or slot_bytes, which
 * begin as long after one another as `delay` would say, with slot_values of the table slot_dist.
 *
 * Chance: a correlation is the share that the last random number of its kind has in the next one.
 * With the same `seed` the numbers are the same each time, and those of the kernel's netem; another
 * seed begins them anew.
 *
 * Where it does badly: jitter reorders packets, and so does a new delay. A GSO packet is delayed,
 * lost or doubled as one. No qdisc orders what waits here: to have a queue in front of the
 * network, put netem below tbf, or on the other device. With bpf_mq each tx queue is a network of
 * its own, with the whole rate and the same numbers. At most 10000 packets wait.
 *
 * What it does not do: it corrupts nothing. Other owners may share a packet's bytes, so no program
 * of a qdisc may write them; a clsact program may. A distribution has no more than 4096 values.
 *
 * Statistics, by `tc -s qdisc show`, of packets: delayed, lost, duplicated, marked, reordered.
 */
#include "policy.h"

#define MAX_PACKETS	10000
#define MILLION		1000000
#define ROW		128		/* values: as many as tc sets at once */
#define ROWS		32
#define SCALE		8192		/* of a value, one jitter */

/* Parameters; times in ns, rates in bytes a second, probabilities and correlations in parts of a
 * million
 */
__u64 delay SEC(".data.param") BPF_QDISC_RANGE(0, 3600s);
__u32 jitter SEC(".data.param") BPF_QDISC_RANGE(0, 2s);
__u32 delay_corr SEC(".data.param") BPF_QDISC_RANGE(0, 1000000);
__u32 delay_values SEC(".data.param") BPF_QDISC_RANGE(0, 4096);	/* 0: all are as likely */
__u32 loss SEC(".data.param") BPF_QDISC_RANGE(0, 1000000);
__u32 loss_corr SEC(".data.param") BPF_QDISC_RANGE(0, 1000000);
__u8 loss_model SEC(".data.param") BPF_QDISC_RANGE(0, 2);	/* loss, 4 states, Gilbert-Elliott */
__u32 loss_chain[5] SEC(".data.param") BPF_QDISC_RANGE(0, 1000000);
bool ecn SEC(".data.param");
__u32 duplicate SEC(".data.param") BPF_QDISC_RANGE(0, 1000000);
__u32 duplicate_corr SEC(".data.param") BPF_QDISC_RANGE(0, 1000000);
__u32 gap SEC(".data.param") BPF_QDISC_RANGE(0, 1000000);	/* 0: none overtakes */
__u32 reorder SEC(".data.param") BPF_QDISC_RANGE(0, 1000000) = MILLION;
__u32 reorder_corr SEC(".data.param") BPF_QDISC_RANGE(0, 1000000);
__u64 rate SEC(".data.param") BPF_QDISC_RANGE(0, 10tbit);	/* 0: any */
__s32 overhead SEC(".data.param") BPF_QDISC_RANGE(-1000, 1000);
__u32 cell_size SEC(".data.param") BPF_QDISC_RANGE(0, 10000);	/* 0: no cells */
__u32 cell_overhead SEC(".data.param") BPF_QDISC_RANGE(0, 1000);
__u64 slot_delay SEC(".data.param") BPF_QDISC_RANGE(0, 3600s);
__u32 slot_jitter SEC(".data.param") BPF_QDISC_RANGE(0, 2s);	/* both 0: no slots */
__u32 slot_values SEC(".data.param") BPF_QDISC_RANGE(0, 4096);
__u32 slot_packets SEC(".data.param") BPF_QDISC_RANGE(0, 1000000);	/* 0: any number */
__u32 slot_bytes SEC(".data.param") BPF_QDISC_RANGE(0, 1gb);		/* likewise */
__u64 seed SEC(".data.param");					/* 0: other numbers each time */

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, __s16[ROW]);
	__uint(max_entries, ROWS);
} delay_dist SEC(".maps") BPF_QDISC_TABLE BPF_QDISC_RANGE(-32768, 32767),
  slot_dist SEC(".maps") BPF_QDISC_TABLE BPF_QDISC_RANGE(-32768, 32767);

/* Statistics: packets */
__u64 delayed SEC(".data.stats");
__u64 lost SEC(".data.stats");
__u64 duplicated SEC(".data.stats");
__u64 marked SEC(".data.stats");
__u64 reordered SEC(".data.stats");

/* Time of departure, ns CLOCK_MONOTONIC -> packet; 0: it overtakes */
BPF_QDISC_QUEUE(netem_pkts, __u64, MAX_PACKETS);

enum kind { DELAY, LOSS, DUPLICATE, REORDER, KINDS };

__u32 lfsr[4];			/* state of the random numbers; 0: they have no seed yet */
__u32 last[KINDS];		/* number of each kind */
static __u64 seeded;		/* with which seed */
static __u32 chain;		/* state of the loss model, from 0 on */
static __u32 in_order;		/* packets since the last that overtook others */
static __u64 slot_next;
static __s64 slot_packets_left, slot_bytes_left;

/* ---- random numbers: L'Ecuyer's LFSR113, as netem has them, so that a seed is the same ---- */

static void sow(void)
{
	__u64 from = seed ?: (__u64)bpf_get_prandom_u32() << 32 | bpf_get_prandom_u32();
	__u32 i, first = from >> 32 ^ from << 10 ^ from;
	static const __u32 least[4] = { 2, 8, 16, 128 };

	for (i = 0; i < 4; i++)
		lfsr[i] = first < least[i] ? first + least[i] : first;
	for (i = 0; i < KINDS; i++)
		last[i] = 1U << 31;
	chain = in_order = 0;
	seeded = seed;
}

static __u32 step(__u32 s, int unused, int a, int b, int c)
{
	return (s & ~0U << unused) << c ^ (s << a ^ s) >> b;
}

static __u32 draw(void)
{
	lfsr[0] = step(lfsr[0], 1, 6, 13, 18);
	lfsr[1] = step(lfsr[1], 3, 2, 27, 2);
	lfsr[2] = step(lfsr[2], 4, 13, 21, 7);
	lfsr[3] = step(lfsr[3], 7, 3, 12, 13);
	return lfsr[0] ^ lfsr[1] ^ lfsr[2] ^ lfsr[3];
}

/* In parts of the largest number there is */
static __u32 part(__u32 of_a_million)
{
	return (of_a_million * 0xffffffffULL + MILLION / 2) / MILLION;
}

static __u32 draw_correlated(enum kind kind, __u32 correlation)
{
	__u64 share = part(correlation) + 1ULL;
	__u32 number = draw();

	if (correlation)
		last[kind] = number = (number * ((1ULL << 32) - share) + last[kind] * share) >> 32;
	return number;
}

static bool happens(__u32 probability, enum kind kind, __u32 correlation)
{
	return probability && draw_correlated(kind, correlation) <= part(probability);
}

/* ---- what becomes of a packet ---- */

/* States: 0 and 1 nothing is lost, 2 all is, 3 the one packet is */
static bool lost_by_4_states(void)
{
	__u32 number = draw(), p13 = part(loss_chain[0]), p31 = part(loss_chain[1]);
	__u32 p32 = part(loss_chain[2]), p23 = part(loss_chain[3]), p14 = part(loss_chain[4]);

	if (chain == 0)
		chain = number < p14 ? 3 : number < (__u64)p13 + p14 ? 2 : 0;
	else if (chain == 1)
		chain = number < p23 ? 2 : 1;
	else if (chain == 2)
		chain = number < p32 ? 1 : number < (__u64)p31 + p32 ? 0 : 2;
	else
		chain = 0;
	return chain >= 2;
}

/* States: 0 is good, all others are bad. What is lost depends on what the state was. */
static bool lost_by_gilbert_elliott(void)
{
	bool bad = chain;

	chain = draw() < part(loss_chain[bad]) ? !bad : bad;
	return bad ? draw() > ~part(loss_chain[2]) : draw() < part(loss_chain[3]);
}

static bool loses(struct sch_bpf_ctx *ctx, struct sk_buff *skb)
{
	bool loses = loss_model == 1 ? lost_by_4_states() :
		     loss_model == 2 ? lost_by_gilbert_elliott() : happens(loss, LOSS, loss_corr);

	if (!loses)
		return false;
	if (ecn && bpf_qdisc_ecn_mark(ctx, skb)) {
		marked++;
		return false;
	}
	lost++;
	return true;
}

/* `mean`, give or take up to `spread`, or its product with one of `count` values of the table */
static __s64 time_around(__u64 mean, __u32 spread, __u32 number, void *table, __u32 count)
{
	__u32 row;
	__s16 *values;
	__s64 more;

	if (!count)
		return mean - spread + number % (2 * spread);
	number %= count;
	row = number / ROW;
	values = bpf_map_lookup_elem(table, &row);
	more = values ? (__s64)spread * values[number % ROW] : 0;
	return mean + (more + (more < 0 ? -SCALE / 2 : SCALE / 2)) / SCALE;
}

/* 1, not 0, if that is before the clock began: 0 is the key of what overtakes. */
static __u64 later(__u64 now, __s64 time)
{
	return time < 0 && now <= -time ? 1 : now + time;
}

static __u64 time_on_the_link(__u32 len)
{
	__s64 longer = (__s64)len + overhead;
	__u64 bytes = longer < 0 ? 0 : longer;

	if (cell_size)
		bytes = (bytes + cell_size - 1) / cell_size * (cell_size + cell_overhead);
	return bytes * NSEC_PER_SEC / rate;
}

static __s64 time_on_the_path(void)
{
	return !jitter ? delay : time_around(delay, jitter, draw_correlated(DELAY, delay_corr),
					     &delay_dist, delay_values);
}

static __s64 time_between_slots(void)
{
	return !slot_jitter ? slot_delay : time_around(slot_delay, slot_jitter, draw(), &slot_dist,
						       slot_values);
}

static int store(struct sch_bpf_ctx *ctx, struct sk_buff *skb)
{
	__u64 now = bpf_ktime_get_ns(), when = 0, before;

	if (gap && in_order >= gap - 1 && happens(reorder, REORDER, reorder_corr)) {
		in_order = 0;
		reordered++;
		return bpf_qdisc_push_front(ctx, &netem_pkts, &when, skb);
	}
	in_order++;
	when = later(now, time_on_the_path());
	if (rate) {
		if (bpf_rbtree_map_last(&netem_pkts, &before) && when < before)
			when = before;
		when += time_on_the_link(bpf_qdisc_pkt_len(skb));
	}
	delayed += when != now;
	return bpf_qdisc_push(ctx, &netem_pkts, &when, skb);
}

SEC("qdisc/enqueue")
int netem_enqueue(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb = ctx->skb, *copy = NULL;
	bool twice;

	if (!lfsr[0] || seeded != seed)
		sow();
	twice = happens(duplicate, DUPLICATE, duplicate_corr);
	duplicated += twice;
	if (loses(ctx, skb)) {
		if (!twice)
			return bpf_qdisc_lose(ctx, skb);
		twice = false;		/* one of the two is left */
	}
	if (bpf_qdisc_is_full(ctx->qdisc, MAX_PACKETS))
		return bpf_qdisc_drop(ctx, skb, QDISC_DROP_OVERLIMIT);
	if (delay || jitter || rate)
		bpf_qdisc_orphan(ctx, skb);
	if (twice)
		copy = bpf_qdisc_clone(ctx, skb);
	if (copy) {
		if (loses(ctx, copy))
			bpf_qdisc_lose(ctx, copy);
		else
			store(ctx, copy);
	}
	return store(ctx, skb);
}

/* A slot begins after the last one, and not before the first packet that waits may leave. */
static void wait_for_a_slot(__u64 now)
{
	slot_next = later(now, time_between_slots());
	slot_packets_left = slot_packets ?: ~0U;
	slot_bytes_left = slot_bytes ?: ~0U;
}

/* Packets that overtake others wait for no slot. */
static bool has_a_slot(struct sch_bpf_ctx *ctx, __u64 now)
{
	__u64 when;
	struct pkt *first = bpf_rbtree_map_first(&netem_pkts, &when);
	struct sk_buff *skb = first ? first->skb : NULL;

	if (!skb || !when)
		return true;
	if (slot_next < when)
		wait_for_a_slot(now);
	if (now < when || now < slot_next) {
		ctx->expire = when < slot_next ? slot_next : when;
		return false;
	}
	slot_packets_left--;
	slot_bytes_left -= bpf_qdisc_pkt_len(skb);
	if (slot_packets_left <= 0 || slot_bytes_left <= 0)
		wait_for_a_slot(now);
	return true;
}

SEC("qdisc/dequeue")
int netem_dequeue(struct sch_bpf_ctx *ctx)
{
	__u64 now = bpf_ktime_get_ns();

	if ((slot_delay || slot_jitter) && !has_a_slot(ctx, now))
		return 0;
	return bpf_qdisc_pop_until(ctx, &netem_pkts, &now);
}

char LICENSE[] SEC("license") = "GPL";
