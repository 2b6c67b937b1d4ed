// SPDX-License-Identifier: GPL-2.0
/*
 * tenants: a link is shared by tenants, and what a tenant has by its subscribers.
 *
 * A tenant and a subscriber have a guaranteed rate and a ceiling. `rate` is what the link
 * has; 0 is whatever the device takes. Thousands of them are in tables, and change while
 * packets wait:
 *
 *   # tc qdisc add dev eth0 root bpf obj tenants.bpf.o set rate=1gbit \
 *         set tenant[3]=200mbit,500mbit set subscriber[7]=3,20mbit,50mbit
 *   # tc qdisc change dev eth0 root bpf set subscriber[7]=3,30mbit,50mbit
 *
 * Subscriber 7 belongs to tenant 3. A rate is a weight, too: siblings that have packets, and
 * whose ceilings let them, share what their parent has in the ratio of their rates. So each has
 * its rate as long as those of its siblings and its own are not more than what their parent
 * has; else all have less, in proportion; and what one does not use the others borrow, in
 * that ratio. Without a rate the weight is that of 1 Mbit/s, and nothing is guaranteed;
 * without a ceiling, or with 0, there is none.
 *
 * `leaf_by` says what tells a packet's subscriber: 0 its mark; 1 the minor number of the
 * class that filters on this qdisc find; 2 the id of its socket's cgroup; 3 and 4 the longest
 * prefix of its source or destination address in the map tenants_prefix, where IPv4 addresses
 * are ::ffff:a.b.c.d. Who is in no table is subscriber 0, and counted: `unknown`.
 *
 * How: two levels of start-time fair queueing. A tenant with packets has a virtual time, to
 * which each of its packets adds its length over the tenant's rate; the tenant that has
 * least is next, and chooses among its subscribers likewise. A ceiling is a time, too: that
 * at which the next packet may go. Who is held by it waits in a map of these times,
 * competes with nobody meanwhile, and comes back with the virtual time of those who do. So
 * what a packet costs grows with the height of these maps alone.
 *
 * Within a subscriber flows are fair, in rounds of `quantum` bytes, and CoDel drops or
 * marks (`ecn`) where the packets of a flow wait for longer than `target`; with 0 it does
 * not. A flow has at most `flow_limit` packets here, a subscriber `leaf_limit`, and never
 * more than the packets for which the qdisc's limit leaves room: who floods the queue finds
 * half of it, and leaves the other half.
 *
 * With bpf_mq each tx queue has all that, without a common lock. The times of ceilings and
 * of the link are one for all queues; and where the link has a rate each tenant has a
 * share: the time at which its next packet may go if it gets no more than its weight in
 * that of all tenants that have packets. A packet beyond the share is `borrowed`: it goes
 * if the link has been free for a quarter of `burst`, so when nobody wants his own, and is
 * given back within `burst`. So tenants have their shares whatever the number of their
 * flows and queues, and no capacity is lost.
 *
 * Guarantees:
 *
 * - A ceiling, or the rate of the link, is exceeded by what `burst` carries, or a packet
 *   that takes longer, after a pause, and by a packet; with several queues, by one of each
 *   that sends at the same moment.
 * - While two siblings in one queue have packets, and no ceiling holds them, what they have
 *   had differs from their ratio by a packet of each. Over several queues, with a rate,
 *   what a tenant has had differs from its share by what `burst` carries, twice at most.
 * - The link is not idle while a subscriber has packets that is below its ceilings. With
 *   several queues, not for longer than a quarter of `burst`, and that is made up for.
 *
 * Where it does badly:
 *
 * - A GSO packet is one packet, and leaves whole.
 * - Who could send and is late (a timer, a CPU, a link that others use) makes up for the
 *   last `burst` of it, or for a packet. With several queues that should be some packets'
 *   times.
 * - Of several queues each shares by weight among the subscribers of a tenant, but not all
 *   together; nor do tenants, if the link has no rate. What a tenant leaves of its share
 *   goes to the queue that asks first. A tenant whose subscribers are all held by their
 *   ceilings has no share meanwhile, and then the link after others.
 * - A queue that stands still keeps the weight of its tenants in the sum: others then
 *   borrow what these leave. All queues ask again whenever the link is free.
 * - More than 16 flows of a subscriber that wait share places.
 * - Rates and ceilings hold for the next packet. No packet holds up the next one for more
 *   than 10 s, so a ceiling that was a mistake is over then, and none is below a packet in
 *   10 s.
 * - A subscriber that is no longer in the table keeps its memory here.
 *
 * Statistics, in packets: of nobody (`unknown`), dropped because of a limit, by CoDel, or
 * for want of memory, borrowed, marked, and not paced for want of memory.
 */
#include "policy.h"
#include <bpf/bpf_rbtree.h>

#define MAX_PACKETS	1000000
#define MAX_SUBSCRIBERS	65536
#define MAX_TENANTS	4096
#define MAX_STATES	131072		/* of subscribers, one for each tx queue that one uses */
#define MAX_QUEUES	1024
#define FLOWS		16		/* of a subscriber, told apart; in sets of WAYS */
#define WAYS		4
#define TRIES		64		/* to find a packet, before the program is asked again */
#define RELEASED	8		/* nodes whose time has come, in one run */
#define LONGEST		(10 * NSEC_PER_SEC)	/* for which one packet holds up the next one */
#define TCQ_F_ONETXQUEUE	0x10
#define DEFAULT_RATE	125000		/* the weight of a node without a rate: 1 Mbit/s */

enum { BY_MARK, BY_CLASS, BY_CGROUP, BY_SOURCE, BY_DESTINATION };

/* Parameters; times in ns, sizes in bytes */
__u64 rate SEC(".data.param") BPF_QDISC_RANGE(0, 10tbit);	/* of the link; 0: no rate */
__u64 burst SEC(".data.param") BPF_QDISC_RANGE(0, 1s) = 5 * NSEC_PER_MSEC;
__u32 leaf_by SEC(".data.param") BPF_QDISC_RANGE(0, 4);
__u32 leaf_limit SEC(".data.param") BPF_QDISC_RANGE(1, 1000000) = 1000;
__u32 flow_limit SEC(".data.param") BPF_QDISC_RANGE(1, 1000000) = 500;
__u32 quantum SEC(".data.param") BPF_QDISC_RANGE(1, 1mb) = 1514;
__u64 target SEC(".data.param") BPF_QDISC_RANGE(0, 10s) = 5 * NSEC_PER_MSEC;	/* 0: no CoDel */
__u64 interval SEC(".data.param") BPF_QDISC_RANGE(1ms, 100s) = 100 * NSEC_PER_MSEC;
bool ecn SEC(".data.param") = true;

/* Statistics: packets */
__u64 unknown SEC(".data.stats");	/* of no subscriber: they went to number 0 */
__u64 limit_drops SEC(".data.stats");
__u64 borrowed SEC(".data.stats");	/* beyond the tenant's share; with several tx queues */
__u64 codel_drops SEC(".data.stats");
__u64 ecn_marks SEC(".data.stats");
__u64 no_memory_drops SEC(".data.stats");
__u64 unpaced SEC(".data.stats");	/* left beyond a ceiling, of which there are too many */

/* ---- what is configured ---- */

typedef __u64 subscriber_terms[3];	/* tenant, rate, ceiling */
typedef __u64 tenant_terms[2];		/* rate, ceiling */

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32);
	__type(value, subscriber_terms);
	__uint(max_entries, MAX_SUBSCRIBERS);
} subscriber SEC(".maps") BPF_QDISC_TABLE BPF_QDISC_RANGE(0, 10tbit);

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32);
	__type(value, tenant_terms);
	__uint(max_entries, MAX_TENANTS);
} tenant SEC(".maps") BPF_QDISC_TABLE BPF_QDISC_RANGE(0, 10tbit);

struct prefix {
	__u32 length;			/* bits; 96 more for IPv4 */
	__u8 address[16];		/* IPv6, or IPv4 as ::ffff:a.b.c.d */
};

struct {				/* address -> subscriber */
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct prefix);
	__type(value, __u32);
	__uint(max_entries, MAX_SUBSCRIBERS);
} tenants_prefix SEC(".maps");

struct terms {
	__u32 tenant;
	__u64 rate;
	__u64 ceiling;
};

static bool read_subscriber(__u32 id, struct terms *terms)
{
	__u64 *found = bpf_map_lookup_elem(&subscriber, &id);

	*terms = (struct terms){};
	if (found) {
		terms->tenant = found[0];
		terms->rate = found[1];
		terms->ceiling = found[2];
	}
	return found;
}

static void read_tenant(__u32 id, struct terms *terms)
{
	__u64 *found = bpf_map_lookup_elem(&tenant, &id);

	*terms = (struct terms){};
	if (found) {
		terms->rate = found[0];
		terms->ceiling = found[1];
	}
}

/* ---- state ---- */

struct vtime {				/* a virtual time of 96 bits, in 2^-12 ns at a weight */
	__u64 time;
	__u32 era;
};

enum { IDLE, READY, WAITING };

struct flow {
	struct bpf_drr_flow drr;
	struct bpf_codel codel;
	__u32 hash;
	__u32 qlen;
	__u32 bytes;
};

struct leaf {				/* of a subscriber, in a tx queue */
	struct vtime start;		/* of its next packet, among those of its tenant */
	__u32 where;
	__u32 qlen;
	__u64 round;			/* the latest from which a packet has left */
	__u32 epoch;			/* qlen counts if this is that of the queue */
	struct flow flows[FLOWS];
};

struct group {				/* of a tenant, in a tx queue */
	struct vtime start;		/* among the tenants */
	struct vtime present;		/* among its subscribers */
	__u32 where;
	__u32 ready;			/* subscribers that are */
	bool counted;			/* in its share */
};

struct queue {
	struct vtime present;
	__u32 generation;
	__u32 epoch;			/* another one after a reset */
};

struct id {
	__u32 queue;
	__u32 number;
};

#define STATES(name, state, entries)			\
	struct {					\
		__uint(type, BPF_MAP_TYPE_HASH);	\
		__uint(map_flags, BPF_F_NO_PREALLOC);	\
		__type(key, struct id);			\
		__type(value, struct state);		\
		__uint(max_entries, entries);		\
	} name SEC(".maps")

STATES(tenants_leaves, leaf, MAX_STATES);
STATES(tenants_groups, group, 4 * MAX_TENANTS);

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, struct queue);
	__uint(max_entries, MAX_QUEUES);
} tenants_state SEC(".maps");

/* When a ceiling lets the next packet go, for all queues */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u64);
	__type(value, __u64);
	__uint(max_entries, MAX_SUBSCRIBERS + MAX_TENANTS);
} tenants_clocks SEC(".maps");

struct link {
	__u64 free;			/* when it will be */
	__u64 weight;			/* of the tenants that could send now */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, struct link);
	__uint(max_entries, 1);
} tenants_link SEC(".maps");

struct share {				/* of a tenant in the link, for all queues */
	__u64 next;			/* when its next packet may go */
	__u64 weight;			/* what it has in that of the link */
	__u32 queues;			/* in which it could send now */
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32);
	__type(value, struct share);
	__uint(max_entries, MAX_TENANTS);
} tenants_shares SEC(".maps");

typedef __u64 tenants_place[2];		/* subscriber, round */
typedef __u64 tenants_rank[2];		/* tenant << 32 | era, time */

#define ORDERED(name, key_type)							\
	struct {								\
		__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);			\
		__type(key, __u32);						\
		__uint(max_entries, 0);						\
		__array(values, struct {					\
			__uint(type, BPF_MAP_TYPE_RBTREE);			\
			__type(key, key_type);					\
			__type(value, __u64);					\
			__uint(max_entries, MAX_STATES);			\
		});								\
	} name SEC(".maps")

BPF_QDISC_QUEUES(tenants_packets, tenants_place, MAX_PACKETS, 0);
ORDERED(tenants_ready, tenants_rank);		/* groups, by virtual time */
ORDERED(tenants_leaf_ready, tenants_rank);	/* leaves of each tenant, by virtual time */
ORDERED(tenants_waiting, __u64);	/* groups and leaves, by the time at which they may go on */

#define TENANT	0x100000000ULL		/* in a value: the number is a tenant's */

struct note {				/* on a packet */
	__u64 came;
	__u32 flow;			/* which of the leaf's */
};

/* All that a run works with */
struct run {
	__u32 number;			/* of the queue */
	bool several;			/* it is one of several */
	bool shared;			/* and the link has a rate */
	struct link *link;
	struct queue *queue;
	void *packets;
	void *groups;
	void *leaves;
	void *waiting;
	__u64 now;
};

/* Does it serve one tx queue, and are there others? */
static bool is_one_of_several(const struct Qdisc *sch)
{
	return (sch->flags & TCQ_F_ONETXQUEUE) && sch->dev_queue->dev->real_num_tx_queues > 1;
}

static bool begin(struct sch_bpf_ctx *ctx, struct run *run)
{
	__u32 number = ctx->queue;

	run->number = number;
	run->queue = bpf_map_lookup_elem(&tenants_state, &number);
	run->packets = bpf_map_lookup_elem(&tenants_packets, &number);
	run->groups = bpf_map_lookup_elem(&tenants_ready, &number);
	run->leaves = bpf_map_lookup_elem(&tenants_leaf_ready, &number);
	run->waiting = bpf_map_lookup_elem(&tenants_waiting, &number);
	run->link = bpf_map_lookup_elem(&tenants_link, &(__u32){ 0 });
	run->now = bpf_ktime_get_ns();
	run->several = is_one_of_several(ctx->qdisc);
	run->shared = rate && run->several;
	return run->link && run->queue && run->packets && run->groups && run->leaves &&
	       run->waiting;
}

static void count(__u64 *what)
{
	__sync_fetch_and_add(what, 1);
}

/* ---- virtual times ---- */

static bool before(const struct vtime *a, const struct vtime *b)
{
	return a->era != b->era ? a->era < b->era : a->time < b->time;
}

static void advance(struct vtime *time, __u64 weight, __u32 len)
{
	__u64 cost = len * (NSEC_PER_SEC << 12) / (weight ?: DEFAULT_RATE);

	time->time += cost;
	time->era += time->time < cost;
}

/* ---- nodes ---- */

const struct leaf new_leaf;
const struct group new_group;
const struct share new_share;

/* Nothing of it is stored: a reset, say, took its packets. */
static void forget_packets(struct leaf *leaf)
{
	int i;

	leaf->qlen = 0;
	bpf_for(i, 0, FLOWS) {
		leaf->flows[i & (FLOWS - 1)].qlen = 0;
		leaf->flows[i & (FLOWS - 1)].bytes = 0;
	}
}

static struct leaf *find_leaf(const struct run *run, __u32 number)
{
	struct id id = { run->number, number };
	struct leaf *leaf = bpf_map_lookup_elem(&tenants_leaves, &id);

	if (leaf && leaf->epoch != run->queue->epoch) {
		forget_packets(leaf);
		leaf->epoch = run->queue->epoch;
	}
	return leaf;
}

static struct leaf *make_leaf(const struct run *run, __u32 number)
{
	struct id id = { run->number, number };
	struct leaf *leaf = find_leaf(run, number);

	if (leaf)
		return leaf;
	bpf_map_update_elem(&tenants_leaves, &id, &new_leaf, BPF_NOEXIST);
	leaf = bpf_map_lookup_elem(&tenants_leaves, &id);
	if (leaf) {
		leaf->epoch = run->queue->epoch;
		leaf->round = run->now;		/* later than all of an earlier instance */
	}
	return leaf;
}

static struct group *find_group(const struct run *run, __u32 number)
{
	struct id id = { run->number, number };

	return bpf_map_lookup_elem(&tenants_groups, &id);
}

static struct group *make_group(const struct run *run, __u32 number)
{
	struct id id = { run->number, number };
	struct group *group = find_group(run, number);

	if (group)
		return group;
	bpf_map_update_elem(&tenants_groups, &id, &new_group, BPF_NOEXIST);
	return bpf_map_lookup_elem(&tenants_groups, &id);
}

/* ---- ceilings ---- */

/* When the node's ceiling lets its next packet go; @value names the node. */
static __u64 *find_clock(__u64 value, __u64 now)
{
	__u64 *clock = bpf_map_lookup_elem(&tenants_clocks, &value);

	if (clock)
		return clock;
	bpf_map_update_elem(&tenants_clocks, &value, &now, BPF_NOEXIST);
	return bpf_map_lookup_elem(&tenants_clocks, &value);
}

static __u64 held_until(__u64 value, __u64 ceiling, __u64 now)
{
	__u64 *clock = ceiling ? find_clock(value, now) : NULL;

	return clock ? *clock : 0;
}

/* Who is late, because others had the link, makes up for a packet at least. */
static void spend(__u64 *clock, __u64 ceiling, __u64 now, __u32 len)
{
	__u64 cost = bpf_qdisc_tx_time(len, ceiling), depth;

	if (cost > LONGEST)
		cost = LONGEST;
	depth = cost > burst ? cost : burst;
	bpf_qdisc_link_reserve(clock, now > depth ? now - depth : 0, cost);
}

static void spend_of(__u64 value, __u64 ceiling, __u64 now, __u32 len)
{
	__u64 *clock = ceiling ? find_clock(value, now) : NULL;

	if (clock)
		spend(clock, ceiling, now, len);
	else if (ceiling)
		count(&unpaced);
}

/* ---- shares of tenants in a link of several tx queues ---- */

static struct share *find_share(__u32 number)
{
	struct share *share = bpf_map_lookup_elem(&tenants_shares, &number);

	if (share)
		return share;
	bpf_map_update_elem(&tenants_shares, &number, &new_share, BPF_NOEXIST);
	return bpf_map_lookup_elem(&tenants_shares, &number);
}

/* The tenant has this weight among those that could send. Whatever the order in which queues
 * come and go, what was added for it is what is taken off.
 */
static void set_weight(struct link *link, struct share *share, __u64 weight)
{
	__u64 old = __sync_lock_test_and_set(&share->weight, weight);

	__sync_fetch_and_add(&link->weight, weight - old);
}

static void count_in(struct group *group, struct share *share)
{
	if (group->counted)
		return;
	group->counted = true;
	__sync_fetch_and_add(&share->queues, 1);
}

static void count_out(const struct run *run, struct group *group, __u32 number)
{
	struct share *share;

	if (!group->counted)
		return;
	group->counted = false;
	share = find_share(number);
	if (share && __sync_fetch_and_add(&share->queues, -1) == 1)
		set_weight(run->link, share, 0);
}

/* Bytes a second that a tenant of this weight has of the link */
static __u64 rate_of_share(const struct link *link, __u64 weight)
{
	__u64 all = link->weight;

	if (weight >= all)
		return rate;
	if (all >> 32) {
		all >>= 10;
		weight >>= 10;
	}
	return __bpf_aqm_scale(rate, (weight << 32) / all);
}

/* A packet of the tenant leaves. What it has borrowed it gives back, for a burst's time at most. */
static void spend_share(const struct run *run, __u32 number, __u64 weight, __u32 len)
{
	struct share *share = run->shared ? find_share(number) : NULL;
	__u64 mine, cost;

	if (!share)
		return;
	if (share->weight != weight)
		set_weight(run->link, share, weight);
	mine = rate_of_share(run->link, weight) ?: 1;
	if (share->next <= run->now) {
		spend(&share->next, mine, run->now, len);
		return;
	}
	count(&borrowed);
	cost = bpf_qdisc_tx_time(len, mine);
	if (share->next < run->now + burst)
		__sync_fetch_and_add(&share->next, cost < burst ? cost : burst);
}

/* ---- who competes ---- */

/* Until when a tenant cannot send, or 0: its ceiling holds it, or it has had its share and
 * the link is not free for so long that nobody else can want it.
 */
static __u64 group_held_until(const struct run *run, struct group *group, __u32 number,
			      const struct terms *terms)
{
	__u64 when = held_until(number | TENANT, terms->ceiling, run->now), free;
	struct share *share;

	if (!run->shared)
		return when;
	share = find_share(number);
	if (!share)
		return when;
	count_in(group, share);
	if (when > run->now)
		return when;
	free = run->link->free + burst / 4;
	return share->next < free ? share->next : free;
}

static int wait(const struct run *run, __u64 value, __u64 when)
{
	return bpf_rbtree_map_push(run->waiting, &when, &value);
}

static int compete(void *map, struct vtime *start, const struct vtime *present, __u64 parent,
		   __u64 value)
{
	tenants_rank rank;

	if (before(start, present))
		*start = *present;
	rank[0] = parent << 32 | start->era;
	rank[1] = start->time;
	return bpf_rbtree_map_push(map, &rank, &value);
}

static int place_group(const struct run *run, struct group *group, __u32 number,
		       const struct terms *terms)
{
	__u64 when = group_held_until(run, group, number, terms);
	int err;

	if (when > run->now) {
		err = wait(run, number | TENANT, when);
		if (!err)
			group->where = WAITING;
		return err;
	}
	err = compete(run->groups, &group->start, &run->queue->present, 0, number);
	if (!err)
		group->where = READY;
	return err;
}

/* A leaf with packets that is neither ready nor waiting, and its tenant with it */
static int place_leaf(const struct run *run, struct leaf *leaf, __u32 number,
		      const struct terms *terms)
{
	__u64 when = held_until(number, terms->ceiling, run->now);
	struct group *group;
	struct terms tenant;
	int err;

	if (when > run->now) {
		err = wait(run, number, when);
		if (!err)
			leaf->where = WAITING;
		return err;
	}
	group = make_group(run, terms->tenant);
	if (!group)
		return -ENOMEM;
	err = compete(run->leaves, &leaf->start, &group->present, terms->tenant, number);
	if (err)
		return err;
	leaf->where = READY;
	group->ready++;
	if (group->where != IDLE)
		return 0;
	read_tenant(terms->tenant, &tenant);
	return place_group(run, group, terms->tenant, &tenant);
}

/* Nodes whose time has come compete again. */
static void release(const struct run *run)
{
	__u64 when, value;
	struct group *group;
	struct terms terms;
	struct leaf *leaf;
	int i;

	bpf_for(i, 0, RELEASED) {
		if (bpf_rbtree_map_pop_until(run->waiting, &run->now, &when, &value))
			return;
		if (value & TENANT) {
			group = find_group(run, value);
			if (!group)
				continue;
			group->where = IDLE;
			read_tenant(value, &terms);
			if (group->ready)
				place_group(run, group, value, &terms);
			else
				count_out(run, group, value);
		} else {
			leaf = find_leaf(run, value);
			if (!leaf)
				continue;
			leaf->where = IDLE;
			read_subscriber(value, &terms);
			if (leaf->qlen)
				place_leaf(run, leaf, value, &terms);
		}
	}
}

/* ---- enqueue ---- */

static __u32 cgroup_of(struct sk_buff *skb)
{
	struct sock *sk = skb->sk;

	if (!sk || sk->__sk_common.skc_state == TCP_NEW_SYN_RECV ||
	    sk->__sk_common.skc_state == TCP_TIME_WAIT)
		return 0;
	return sk->sk_cgrp_data.cgroup->kn->id;
}

/* The subscriber of the longest prefix that one of the packet's addresses has */
static __u32 subscriber_by_address(struct sk_buff *skb, bool source)
{
	__u32 ip = (__u64)skb->head + skb->network_header - (__u64)skb->data, *found;
	struct prefix prefix = { .length = 128 };
	struct bpf_dynptr bytes;

	if (bpf_dynptr_from_skb((struct __sk_buff *)skb, 0, &bytes))
		return 0;
	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		prefix.address[10] = 0xff;
		prefix.address[11] = 0xff;
		if (bpf_dynptr_read(&prefix.address[12], 4, &bytes, ip + (source ? 12 : 16), 0))
			return 0;
	} else if (skb->protocol != bpf_htons(ETH_P_IPV6) ||
		   bpf_dynptr_read(prefix.address, 16, &bytes, ip + (source ? 8 : 24), 0)) {
		return 0;
	}
	found = bpf_map_lookup_elem(&tenants_prefix, &prefix);
	return found ? *found : 0;
}

/* The place of a flow among those of its leaf: its own, a free one, or one that it shares */
static __u32 find_flow(struct leaf *leaf, __u32 hash)
{
	__u32 i, at, place = hash % FLOWS / WAYS * WAYS;
	bool found = false;

	for (i = 0; i < WAYS; i++) {
		at = (hash % FLOWS / WAYS * WAYS + i) % FLOWS;
		if (leaf->flows[at].hash == hash)
			return at;
		if (!found && !leaf->flows[at].qlen) {
			found = true;
			place = at;
		}
	}
	leaf->flows[place % FLOWS].hash = hash;
	return place;
}

static int store(struct sch_bpf_ctx *ctx, struct run *run, struct sk_buff *skb, __u32 number)
{
	__u32 len = bpf_qdisc_pkt_len(skb), qlen = ctx->qdisc->q.qlen, limit = ctx->qdisc->limit;
	struct note *note = bpf_qdisc_note(skb, struct note);
	struct terms terms;
	struct flow *flow;
	struct leaf *leaf;
	tenants_place place;

	if (!read_subscriber(number, &terms) && number) {
		count(&unknown);
		number = 0;
		read_subscriber(number, &terms);
	}
	leaf = make_leaf(run, number);
	if (!leaf) {
		count(&no_memory_drops);
		return bpf_qdisc_drop(ctx, skb, QDISC_DROP_MAXFLOWS);
	}
	if (qlen >= limit || leaf->qlen >= limit - qlen || leaf->qlen >= leaf_limit) {
		count(&limit_drops);
		return bpf_qdisc_drop(ctx, skb, QDISC_DROP_OVERLIMIT);
	}
	note->flow = find_flow(leaf, bpf_skb_get_hash(skb));
	flow = &leaf->flows[note->flow % FLOWS];
	if (flow->qlen >= flow_limit) {
		count(&limit_drops);
		return bpf_qdisc_drop(ctx, skb, QDISC_DROP_FLOW_LIMIT);
	}
	if (leaf->where == IDLE && place_leaf(run, leaf, number, &terms)) {
		count(&no_memory_drops);
		return bpf_qdisc_drop(ctx, skb, QDISC_DROP_MAXFLOWS);
	}
	note->came = run->now;
	place[0] = number;
	place[1] = bpf_drr_round(&flow->drr, leaf->round, quantum, quantum, len);
	if (bpf_qdisc_push(ctx, run->packets, &place, skb))
		return 0;
	leaf->qlen++;
	flow->qlen++;
	flow->bytes += len;
	return 0;
}

SEC("qdisc/enqueue")
int tenants_enqueue(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb = ctx->skb;
	struct run run;
	__u32 number;
	int verdict;

	if (!begin(ctx, &run))
		return bpf_qdisc_drop(ctx, skb, 0);
	if (run.queue->generation != ctx->generation) {
		run.queue->generation = ctx->generation;
		run.queue->epoch += !ctx->qdisc->q.qlen;
	}
	switch (leaf_by) {
	case BY_CLASS:
		verdict = bpf_skb_tc_classify(ctx, skb, 0, 0);
		if (verdict == TC_ACT_SHOT)
			return bpf_qdisc_drop(ctx, skb, 0);
		if (verdict == TC_ACT_STOLEN || verdict == TC_ACT_QUEUED || verdict == TC_ACT_TRAP)
			return bpf_qdisc_steal(ctx, skb);
		number = ctx->classid & 0xffff;
		break;
	case BY_CGROUP:
		number = cgroup_of(skb);
		break;
	case BY_SOURCE:
	case BY_DESTINATION:
		number = subscriber_by_address(skb, leaf_by == BY_SOURCE);
		break;
	default:
		number = skb->mark;
	}
	return store(ctx, &run, skb, number);
}

/* ---- dequeue ---- */

static bool drops(struct sch_bpf_ctx *ctx, struct sk_buff *skb, struct flow *flow,
		  const struct run *run)
{
	struct bpf_codel_params params = { target, interval, 1514, ecn };
	struct note *note = bpf_qdisc_note(skb, struct note);
	enum bpf_aqm_verdict verdict;

	if (!target)
		return false;
	verdict = bpf_codel_dequeue(&flow->codel, &params, run->now, note->came, flow->bytes);
	if (bpf_aqm_drops(ctx, skb, verdict)) {
		count(&codel_drops);
		return true;
	}
	if (verdict == BPF_AQM_MARK)
		count(&ecn_marks);
	return false;
}

/* The leaf's next packet, which is the program's then, or NULL if there is none */
static struct sk_buff *take(struct sch_bpf_ctx *ctx, const struct run *run, struct leaf *leaf,
			    __u32 number)
{
	struct sk_buff *skb;
	struct flow *flow;
	tenants_place place;
	int i;

	bpf_for(i, 0, MAX_PACKETS) {
		place[0] = number;
		place[1] = 0;
		if (!leaf->qlen)
			return NULL;
		skb = bpf_rbtree_map_lower_bound(run->packets, &place) && place[0] == number ?
		      bpf_qdisc_take_key(ctx, run->packets, &place) : NULL;
		if (!skb) {
			forget_packets(leaf);
			return NULL;
		}
		leaf->qlen--;
		if (leaf->round < place[1])
			leaf->round = place[1];
		flow = &leaf->flows[bpf_qdisc_note(skb, struct note)->flow % FLOWS];
		if (flow->qlen) {
			flow->qlen--;
			flow->bytes -= bpf_qdisc_pkt_len(skb);
		}
		if (!drops(ctx, skb, flow, run))
			return skb;
		bpf_qdisc_drop(ctx, skb, QDISC_DROP_CONGESTED);
	}
	return NULL;
}

/* The leaf of the tenant whose turn it is; it competes no longer. */
static struct leaf *pick_leaf(const struct run *run, struct group *group, __u64 tenant,
			      __u64 *number)
{
	tenants_rank rank = { tenant << 32 };
	struct leaf *leaf;

	if (!bpf_rbtree_map_lower_bound(run->leaves, &rank) || rank[0] >> 32 != tenant ||
	    bpf_rbtree_map_pop_key(run->leaves, &rank, number)) {
		group->ready = 0;
		return NULL;
	}
	if (group->ready)
		group->ready--;
	leaf = find_leaf(run, *number);
	if (leaf)
		leaf->where = IDLE;
	return leaf;
}

/* A packet leaves: both have had their turns, and used what their ceilings allow. */
static void charge(const struct run *run, struct group *group, __u32 tenant,
		   const struct terms *tenant_terms, struct leaf *leaf, __u32 number,
		   const struct terms *terms, __u32 len)
{
	if (rate)
		spend(&run->link->free, rate, run->now, len);
	spend_share(run, tenant, tenant_terms->rate ?: DEFAULT_RATE, len);
	run->queue->present = group->start;
	group->present = leaf->start;
	advance(&group->start, tenant_terms->rate, len);
	advance(&leaf->start, terms->rate, len);
	spend_of(tenant | TENANT, tenant_terms->ceiling, run->now, len);
	spend_of(number, terms->ceiling, run->now, len);
}

static struct sk_buff *serve_leaf(struct sch_bpf_ctx *ctx, const struct run *run,
				  struct group *group, __u32 tenant,
				  const struct terms *tenant_terms)
{
	struct sk_buff *skb = NULL;
	struct terms terms;
	struct leaf *leaf;
	__u64 number;

	leaf = pick_leaf(run, group, tenant, &number);
	if (!leaf)
		return NULL;
	read_subscriber(number, &terms);
	/* Another tx queue may have used the ceiling meanwhile */
	if (!run->several || held_until(number, terms.ceiling, run->now) <= run->now) {
		skb = take(ctx, run, leaf, number);
		if (skb)
			charge(run, group, tenant, tenant_terms, leaf, number, &terms,
			       bpf_qdisc_pkt_len(skb));
	}
	if (leaf->qlen)
		place_leaf(run, leaf, number, &terms);
	return skb;
}

enum { NOBODY, NOTHING, DELIVERED };

/* The tenant whose turn it is */
static int serve(struct sch_bpf_ctx *ctx, const struct run *run)
{
	struct sk_buff *skb = NULL;
	struct group *group;
	struct terms terms;
	__u64 number;
	tenants_rank rank;

	if (bpf_rbtree_map_pop(run->groups, &rank, &number))
		return NOBODY;
	group = find_group(run, number);
	if (!group)
		return NOTHING;
	group->where = IDLE;
	read_tenant(number, &terms);
	if (!run->several || group_held_until(run, group, number, &terms) <= run->now)
		skb = serve_leaf(ctx, run, group, number, &terms);
	if (group->where == IDLE && group->ready)
		place_group(run, group, number, &terms);
	if (group->where == IDLE)
		count_out(run, group, number);
	if (!skb)
		return NOTHING;
	bpf_qdisc_deliver(ctx, skb);
	return DELIVERED;
}

SEC("qdisc/dequeue")
int tenants_dequeue(struct sch_bpf_ctx *ctx)
{
	int i, served = NOTHING;
	struct run run;
	__u64 when = 0;

	if (!begin(ctx, &run))
		return 0;
	if (rate && run.link->free > run.now) {
		ctx->expire = run.link->free;
		return 0;
	}
	release(&run);
	bpf_for(i, 0, TRIES) {
		served = serve(ctx, &run);
		if (served != NOTHING)
			break;
	}
	if (served == NOBODY)
		bpf_rbtree_map_first(run.waiting, &when);
	if (served != DELIVERED)
		ctx->expire = when ?: run.now;
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
