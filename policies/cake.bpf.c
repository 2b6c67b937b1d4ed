// SPDX-License-Identifier: GPL-2.0
/*
 * cake: the slow link of a home: shaped here, so that the queue is here, short and fair.
 *
 *   # tc qdisc replace dev eth0 root bpf obj cake.bpf.o set rate=20mbit set overhead=44 set atm=1 \
 *         set isolate=1 set ack_filter=1
 *   # tc qdisc add dev eth0 clsact
 *   # tc qdisc add dev eth0 parent ffff:fff2 bpf obj cake.bpf.o set rate=80mbit set overhead=44 \
 *         set atm=1 set isolate=2 set ingress=1
 *
 * are the uplink and the downlink of an ADSL modem at eth0, where sqm-scripts would take an ifb.
 *
 * Rate: a packet leaves when the one before it has left a link of `rate`. There it has the bytes
 * of its IP packet and `overhead`, and `mpu` at least; with atm=1 in cells of 53 bytes that carry
 * 48, with atm=2 with one byte more for each 64 (PTM). Without a setting the overhead is that of
 * an Ethernet header. GSO packets longer than `split_gso` bytes are cut before.
 *
 * Tins: the DSCP chooses one of `tins`. With 1 there is best effort alone; with 2 bulk, too (LE,
 * CS1); with 3 voice (TOS4, VA, EF, CS6, CS7); with 4 video (TOS4, CS2, CS3, AF2x to AF4x), and
 * then CS4 and CS5 are voice. A tin below its threshold goes before others: voice, up to 1/4 of
 * the rate, before video, up to 1/2, before bulk, up to 1/16, before best effort. Of tins above
 * theirs that one goes first which will be below it first. Without a rate tins share in the ratio
 * of their thresholds, where that of best effort is 1.
 *
 * Flows take turns in a tin, new ones first, by their bytes on the link. One that goes on for
 * longer than a turn counts for its hosts: its turn is divided by the number of such flows that
 * its source has in the tin (isolate=1), its destination (2), or that of them which has more (3).
 * CoDel keeps each short, by marks, or by drops where ECN is not known. On a slow link its target
 * is one and a half times that of a packet of 1514 bytes at the rate of the tin, its interval is
 * as much longer, and what waits for less than four such packets it lets be. A full queue, of
 * packets or of `limit_bytes`, drops from the flow that has most: half of its bytes, or 64
 * packets.
 *
 * With `ack_filter` an ACK takes the place of the one before it in its flow, if it says more. With
 * `ingress`, for a queue behind the slow link, what CoDel drops has used that link, too; but a
 * packet waits no longer for that than half of its own time.
 *
 * With bpf_mq each tx queue has all that, and the rate is one for all, without a common lock.
 *
 * Where it differs from the kernel's cake: no BLUE stands beside CoDel; neither filters, marks nor
 * skb->priority choose a tin or a flow; `rate` is what is set (no autorate); `limit_bytes` counts
 * lengths, not memory, and does not grow with the rate; one ACK is enough, where cake keeps two.
 * diffserv8 and precedence are not here. It cannot wash, as no program of a qdisc may write to a
 * packet: pedit in a clsact does. It does not look behind NAT: put both on the LAN's device then,
 * where hosts are seen.
 *
 * Where it does badly: an address is a host, so one with IPv6 has as many shares as addresses.
 * More than 8 flows of a tin whose hashes are neighbours share a queue. Several tx queues
 * take turns on the link: hosts and tins have their shares in a queue. A new rate holds for the
 * next packet: one that was a mistake holds it up for 10 s at most. A GSO packet that is
 * not cut counts as segments of equal length. To drop when full costs a look at each of 4096
 * flows.
 *
 * Statistics, by `tc -s qdisc show`, of each tin (best effort, bulk, video, voice), in packets:
 * sent, with their bytes on the link, dropped by CoDel, because of a limit, and by the ACK filter,
 * and marked; and GSO packets cut.
 */
#include "policy.h"
#include <bpf/bpf_rbtree.h>

#define TINS		4
#define FLOWS		1024		/* of a tin */
#define HOSTS		2048		/* likewise, each as source and as destination */
#define WAYS		8		/* places that a flow, or a host, may have */
#define MAX_PACKETS	10240
#define MTU		1514
#define PARTS		1024		/* of a byte, in which turns are counted */
#define LATE		(10 * NSEC_PER_MSEC)	/* for which who is late makes up */
#define LONGEST		(10 * NSEC_PER_SEC)	/* for which one packet holds up the next one */
#define UNLIMITED	(1ULL << 36)	/* bytes a second, by which tins share without a rate */

enum { BEST_EFFORT, BULK, VIDEO, VOICE };	/* tins, from the lowest priority on */
enum { BY_SOURCE = 1, BY_DESTINATION = 2 };
enum { ATM = 1, PTM = 2 };

/* Parameters; times in ns, sizes in bytes */
__u64 rate SEC(".data.param") BPF_QDISC_RANGE(0, 1tbit);	/* bytes a second; 0: any */
__s32 overhead SEC(".data.param") BPF_QDISC_RANGE(-64, 256) = ETH_HLEN;
__u32 mpu SEC(".data.param") BPF_QDISC_RANGE(0, 256);
__u32 atm SEC(".data.param") BPF_QDISC_RANGE(0, 2);
__u32 tins SEC(".data.param") BPF_QDISC_RANGE(1, 4) = 3;
__u32 isolate SEC(".data.param") BPF_QDISC_RANGE(0, 3) = BY_SOURCE | BY_DESTINATION;
__u64 target SEC(".data.param") BPF_QDISC_RANGE(0, 10s) = 5 * NSEC_PER_MSEC;
__u64 interval SEC(".data.param") BPF_QDISC_RANGE(1us, 100s) = 100 * NSEC_PER_MSEC;
__u32 limit_bytes SEC(".data.param") BPF_QDISC_RANGE(0, 2gb) = 4 << 20;	/* 0: no limit */
__u32 split_gso SEC(".data.param") BPF_QDISC_RANGE(0, 1mb) = MTU;	/* 0: cut none */
bool ack_filter SEC(".data.param");
bool ingress SEC(".data.param");

/* Statistics: packets, and bytes on the link */
__u64 sent[TINS] SEC(".data.stats");
__u64 sent_bytes[TINS] SEC(".data.stats");
__u64 codel_drops[TINS] SEC(".data.stats");
__u64 limit_drops[TINS] SEC(".data.stats");
__u64 ack_drops[TINS] SEC(".data.stats");
__u64 ecn_marks[TINS] SEC(".data.stats");
__u64 cut SEC(".data.stats");

/* ---- state ---- */

struct flow {
	struct bpf_drr_flow drr;
	struct bpf_codel codel;
	__u32 bytes;		/* that wait */
	__u16 host[2];		/* source, destination */
	bool old;		/* it has had its first turn */
	bool counts;		/* for its hosts: it went on then */
};

struct tin {
	__u64 next;		/* when it is below its threshold again */
	__u64 round;		/* the latest from which a packet has left */
	__u32 turns;		/* flows that have one */
	struct hash_place places[FLOWS];
	struct flow flows[FLOWS];
	struct hash_place hosts[HOSTS];	/* their users are flows that go on for long */
};

struct turn {
	__u64 tin;
	__u64 round;
};

struct note {			/* on a packet */
	__u64 came;
	__u32 len;		/* on the link */
};

/* In maps, not in variables, which new programs do not take over. A flow's number is that of its
 * tin, times FLOWS, and its place in that.
 */
ARRAY_MAP(cake_tins, struct tin, TINS);

ORDERED_MAP(cake_turns, struct turn, __u32, TINS * FLOWS);	/* -> number of a flow */

MAP_OF_ONE(cake_link, __u64) BPF_QDISC_SHARED;	/* when it will be free, for all tx queues */

BPF_QDISC_QUEUE(cake_packets, __u32, MAX_PACKETS);	/* by number of a flow */

static __u64 now;
static __u64 due;		/* when this tx queue may send again: queues take turns */
static __u64 clock;		/* of tins: now, or without a rate what one has had of the link */
static __u64 owed;		/* bytes of what CoDel has dropped, with ingress */
static __u32 generation;	/* of what is counted */

static struct tin *tin_of(__u32 number)
{
	return bpf_map_lookup_elem(&cake_tins, &number);
}

static __u64 *the_link(void)
{
	return bpf_map_lookup_elem(&cake_link, &(__u32){ 0 });
}

static __u64 rate_of(__u32 tin)		/* its threshold */
{
	static const __u8 share[TINS] = { 0, 4, 1, 2 };

	return (rate ?: UNLIMITED) >> share[tin % TINS] ?: 1;
}

/* ---- turns of flows ---- */

/* What it may send in a turn, in parts of a byte; of a host's flows all together as much as one */
static __u32 quantum_of(const struct tin *tin, const struct flow *flow, __u32 number)
{
	__u64 bytes = rate_of(number / FLOWS) >> 12;
	__u32 load = 1, source, destination;

	bytes = bytes < 300 ? 300 : bytes > MTU ? MTU : bytes;
	source = tin->hosts[flow->host[0] % HOSTS].users;
	destination = tin->hosts[flow->host[1] % HOSTS].users;
	if (isolate & BY_SOURCE && load < source)
		load = source;
	if (isolate & BY_DESTINATION && load < destination)
		load = destination;
	return bytes * PARTS / load ?: 1;
}

static void count_for_hosts(struct tin *tin, struct flow *flow, bool counts)
{
	if (flow->counts == counts)
		return;
	flow->counts = counts;
	tin->hosts[flow->host[0] % HOSTS].users += counts ? 1 : -1;
	tin->hosts[flow->host[1] % HOSTS].users += counts ? 1 : -1;
}

/* A flow that has a packet gets a turn: before the others, if it had none for a while. */
static bool enter(struct tin *tin, struct flow *flow, __u32 number)
{
	__u32 quantum = quantum_of(tin, flow, number);
	struct turn turn = { number / FLOWS };

	if (!tin->round)
		tin->round = 2;		/* no flow remembers any */
	turn.round = bpf_drr_round(&flow->drr, tin->round, quantum, quantum, 0);
	if (bpf_rbtree_map_push(&cake_turns, &turn, &number))
		return false;
	tin->places[number % FLOWS].users = 1;
	if (!tin->turns++ && tin->next < clock)
		tin->next = clock;
	return true;
}

/* The turn of a flow is gone. */
static void leave(struct tin *tin, struct flow *flow, __u32 number)
{
	count_for_hosts(tin, flow, false);
	flow->old = false;
	tin->places[number % FLOWS].users = 0;
	tin->turns--;
}

/* After a reset no flow has packets; after a change those have that had. */
static void begin_anew(void)
{
	struct turn turn;
	struct flow *flow;
	struct tin *tin;
	__u32 number;
	int i;

	bpf_for(i, 0, TINS * FLOWS)
		if (bpf_rbtree_map_pop(&cake_turns, &turn, &number))
			break;
	bpf_for(i, 0, TINS * FLOWS) {
		number = i;
		tin = tin_of(number / FLOWS);
		if (!tin)
			break;
		flow = &tin->flows[number % FLOWS];
		if (tin->places[number % FLOWS].users)
			leave(tin, flow, number);
		if (bpf_map_lookup_elem(&cake_packets, &number))
			enter(tin, flow, number);
		else
			flow->bytes = 0;
	}
}

static void begin(struct sch_bpf_ctx *ctx)
{
	now = bpf_ktime_get_ns();
	if (rate)
		clock = now;
	if (bpf_qdisc_begins_anew(ctx, &generation))
		begin_anew();
}

/* ---- enqueue ---- */

#define CODE(dscp)	(1ULL << (dscp))
#define EVERY_SECOND(first, last)	\
	((CODE((last) + 1) - CODE(first)) & 0x5555555555555555ULL)

static __u32 tin_for(const struct sk_buff *skb, __u8 dscp)
{
	const __u64 voice = CODE(44) | CODE(46) | CODE(48) | CODE(56);
	__u64 code = CODE(skb->protocol == bpf_htons(ETH_P_ARP) ? 56 : dscp);

	if (tins > BULK && code & (CODE(1) | CODE(8)))
		return BULK;
	if (tins == 3)
		return code & (voice | CODE(4)) ? VOICE : BEST_EFFORT;
	if (tins < 4)
		return BEST_EFFORT;
	if (code & (voice | CODE(32) | CODE(40)))
		return VOICE;
	return code & (CODE(4) | EVERY_SECOND(16, 30) | EVERY_SECOND(34, 38)) ? VIDEO : BEST_EFFORT;
}

static __u32 hash_of(const struct in6_addr *address, __u32 hash)
{
	int i;

	for (i = 0; i < 4; i++) {
		hash = (hash ^ address->in6_u.u6_addr32[i]) * 0x9e3779b1;
		hash ^= hash >> 15;
	}
	return hash;
}

static __u32 length_on_the_link(const struct sk_buff *skb)
{
	__u32 segs = bpf_qdisc_pkt_segs(skb) ?: 1;
	__s32 len = bpf_qdisc_pkt_len(skb) / segs;

	len += overhead - (__s32)bpf_qdisc_network_offset(skb);
	if (len < (__s32)mpu)
		len = mpu;
	if (atm == ATM)
		len = (len + 47U) / 48 * 53;
	else if (atm == PTM)
		len += (len + 63U) / 64;
	return len * segs;
}

static bool is_full(const struct Qdisc *sch, __u32 len)
{
	return bpf_qdisc_is_full(sch, MAX_PACKETS) || bpf_qdisc_exceeds(sch, len, limit_bytes);
}

static void drop_from_the_fattest(struct sch_bpf_ctx *ctx)
{
	struct flow *flow, *fattest = NULL;
	__u32 number = 0;
	struct tin *tin;
	int i;

	bpf_for(i, 0, TINS * FLOWS) {
		tin = tin_of(i / FLOWS);
		if (!tin)
			break;
		flow = &tin->flows[i % FLOWS];
		if (!fattest || flow->bytes > fattest->bytes) {
			fattest = flow;
			number = i;
		}
	}
	if (fattest)
		drop_half(ctx, &cake_packets, &number, &fattest->bytes, &fattest->codel,
			  &limit_drops[number / FLOWS % TINS]);
}

SEC("qdisc/enqueue")
int cake_enqueue(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb = ctx->skb;
	struct note *note = bpf_qdisc_note(skb, struct note);
	__u32 len = bpf_qdisc_pkt_len(skb), which, at, number, acks;
	struct flow *flow;
	struct tin *tin;
	struct ip ip;

	if (bpf_qdisc_cut(ctx, skb, split_gso)) {
		cut++;
		return 0;
	}
	begin(ctx);
	read_ip(skb, &ip);
	which = tin_for(skb, ip.dsfield >> 2);
	tin = tin_of(which);
	if (!tin)
		return bpf_qdisc_drop(ctx, skb, 0);
	if (!ctx->qdisc->q.qlen)
		owed = 0;
	at = hash_place_of(tin->places, FLOWS, WAYS, bpf_skb_get_hash(skb)) % FLOWS;
	number = which * FLOWS + at;
	flow = &tin->flows[at];
	if (!tin->places[at].users) {
		flow->host[0] = hash_place_of(tin->hosts, HOSTS, WAYS, hash_of(&ip.source, 1));
		flow->host[1] = hash_place_of(tin->hosts, HOSTS, WAYS, hash_of(&ip.destination, 2));
	}
	if (ack_filter) {
		acks = drop_older_ack(ctx, &cake_packets, &number, skb);
		lose_bytes(&flow->bytes, acks);
		ack_drops[which % TINS] += !!acks;
	}
	flow->bytes += len;
	if (is_full(ctx->qdisc, len))
		drop_from_the_fattest(ctx);
	if (is_full(ctx->qdisc, len) || (!tin->places[at].users && !enter(tin, flow, number))) {
		lose_bytes(&flow->bytes, len);
		limit_drops[which % TINS]++;
		return bpf_qdisc_drop(ctx, skb, QDISC_DROP_OVERLIMIT);
	}
	note->came = now;
	note->len = length_on_the_link(skb);
	if (bpf_qdisc_push(ctx, &cake_packets, &number, skb)) {
		lose_bytes(&flow->bytes, len);
		limit_drops[which % TINS]++;
	}
	return 0;
}

/* ---- dequeue ---- */

static bool is_dropped(struct sch_bpf_ctx *ctx, struct sk_buff *skb, struct flow *flow, __u32 which)
{
	__u64 packet = rate ? bpf_qdisc_tx_time_most(MTU, rate_of(which), LONGEST) : 0;
	struct bpf_codel_params params = { target, interval, 0, true };

	if (params.target < packet * 3 / 2)
		params.target = packet * 3 / 2;
	params.interval = bpf_qdisc_time_add(interval, params.target - target);
	if (params.interval < 2 * params.target)
		params.interval = 2 * params.target;
	if (params.target < 4 * packet)
		params.target = 4 * packet;
	return bpf_aqm_drops_counted(ctx, skb,
				     bpf_codel_dequeue(&flow->codel, &params, now,
						       bpf_qdisc_note(skb, struct note)->came,
						       flow->bytes),
				     &codel_drops[which % TINS], &ecn_marks[which % TINS]);
}

/* A tin that is below its threshold makes up for what it is late; one above it is a packet ahead.
 * The link is late since the packet waits.
 */
static void spend(struct tin *tin, __u32 which, __u32 len, __u64 came)
{
	__u64 cost = bpf_qdisc_tx_time_most(len, rate_of(which), LONGEST);
	__u64 earliest = bpf_qdisc_time_sub(clock, cost > LATE ? cost : LATE);

	if (tin->next < earliest)
		tin->next = earliest;
	if (tin->next < clock)
		tin->next += cost;
	else if (tin->next < clock + cost)
		tin->next = clock + cost;
	if (!rate)
		return;
	earliest = bpf_qdisc_time_sub(now, LATE);
	cost = bpf_qdisc_tx_time_most(len, rate, LONGEST);
	due = bpf_qdisc_link_reserve(the_link(), earliest < came ? came : earliest, cost) + cost;
}

/* Its flow pays, and stands behind the others if its turn is over. */
static void send(struct sch_bpf_ctx *ctx, struct tin *tin, struct flow *flow, __u32 number,
		 struct turn *turn, struct sk_buff *skb)
{
	__u32 which = number / FLOWS, quantum, len = bpf_qdisc_note(skb, struct note)->len, more;
	struct turn next = *turn;

	if (flow->old)
		count_for_hosts(tin, flow, true);
	quantum = quantum_of(tin, flow, number);
	bpf_drr_round(&flow->drr, turn->round, quantum, quantum, len * PARTS);
	next.round = flow->drr.round;
	if (next.round != turn->round && !bpf_rbtree_map_move(&cake_turns, turn, &next))
		flow->old = true;
	if (tin->round < turn->round)
		tin->round = turn->round;
	more = owed < len / 2 ? owed : len / 2;
	owed -= more;
	spend(tin, which, len + more, bpf_qdisc_note(skb, struct note)->came);
	sent[which % TINS]++;
	sent_bytes[which % TINS] += len;
	bpf_qdisc_deliver(ctx, skb);
}

/* The flow whose turn it is in a tin; false if none of its packets leaves now */
static bool serve(struct sch_bpf_ctx *ctx, struct tin *tin, __u32 which)
{
	struct turn turn = { which };
	struct sk_buff *skb;
	struct flow *flow;
	__u32 number, *found;

	found = bpf_rbtree_map_lower_bound(&cake_turns, &turn);
	if (!found || turn.tin != which) {
		tin->turns = 0;
		return false;
	}
	number = which * FLOWS + *found % FLOWS;
	flow = &tin->flows[number % FLOWS];
	skb = bpf_qdisc_take_key(ctx, &cake_packets, &number);
	if (!skb) {
		bpf_codel_empty(&flow->codel);
		flow->bytes = 0;
		if (!bpf_rbtree_map_pop_key(&cake_turns, &turn, &number))
			leave(tin, flow, number);
		return false;
	}
	lose_bytes(&flow->bytes, bpf_qdisc_pkt_len(skb));
	if (is_dropped(ctx, skb, flow, which)) {
		if (ingress)
			owed += bpf_qdisc_note(skb, struct note)->len;
		bpf_qdisc_drop(ctx, skb, QDISC_DROP_CONGESTED);
		return false;
	}
	send(ctx, tin, flow, number, &turn, skb);
	return true;
}

/* The highest tin that is below its threshold, or else the one that will be first; TINS: none */
static __u32 next_tin(void)
{
	__u32 i, found = TINS;
	__u64 first = 0;
	struct tin *tin;

	for (i = 0; i < TINS; i++) {
		tin = tin_of(i);
		if (!tin || !tin->turns)
			continue;
		if (found == TINS || tin->next <= clock || tin->next <= first) {
			found = i;
			first = tin->next;
		}
	}
	return found;
}

SEC("qdisc/dequeue")
int cake_dequeue(struct sch_bpf_ctx *ctx)
{
	struct tin *tin;
	__u32 which;
	int i;

	begin(ctx);
	if (rate && due > now) {
		ctx->expire = due;
		return 0;
	}
	bpf_for(i, 0, MAX_PACKETS + 2 * TINS * FLOWS) {
		which = next_tin();
		tin = tin_of(which);
		if (!tin)
			break;
		if (!rate && clock < tin->next)
			clock = tin->next;
		if (serve(ctx, tin, which))
			break;
	}
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
