// SPDX-License-Identifier: GPL-2.0
/*
 * tenants: tenants share a link, and the subscribers of a tenant what it has.
 *
 *   # tc qdisc add dev eth0 root bpf_mq obj tenants.bpf.o set rate=1gbit \
 *         set tenant[3]=200mbit,500mbit set subscriber[7]=3,20mbit,50mbit
 *   # tc qdisc change dev eth0 root bpf_mq set subscriber[7]=3,30mbit,50mbit
 *
 * Subscriber 7 belongs to tenant 3 (tc shows that number as a rate, too: 24bit); each has a
 * guaranteed rate and a ceiling. `rate` is the link's; with 0 it is whatever the device takes.
 * Thousands of them are in tables, and change while packets wait.
 *
 * A rate is a weight: siblings that have packets, and that no ceiling holds, share what their
 * parent has in the ratio of their rates. So each has its rate if those of its siblings and its
 * own are together no more than their parent has, else all have less, in proportion; what one
 * does not use the others borrow, in that ratio. Without a rate the weight is that of 1 Mbit/s,
 * and nothing is guaranteed; without a ceiling, or with 0, there is none.
 *
 * `leaf_by` says what tells a packet's subscriber: 0 its mark; 1 the minor number of the class
 * that filters on this qdisc find; 2 the id of its socket's cgroup (stat -c %i of its folder); 3
 * and 4 the longest prefix of its source or destination address in the map tenants_prefix; 5 its
 * VLAN, 0 without a tag. Who is not in the table is subscriber 0. A prefix has 128 bits, IPv4
 * addresses are ::ffff:a.b.c.d; so 192.0.2.0/24, whose length is 120 then, is subscriber 7's by
 *
 *   # bpftool map update name tenants_prefix key 120 0 0 0 0 0 0 0 0 0 0 0 0 0 255 255 192 0 2 0 \
 *         value 7 0 0 0
 *
 * Who is next is told by deficit round robin on both levels: in a round each may send what its
 * rate carries in 1/64000 s. Who is held by its ceiling waits in a map of the times at which the
 * next packet may go, competes with nobody meanwhile, and comes back in the present round. So
 * what a packet costs grows with the height of these maps alone.
 *
 * The flows of a subscriber share by rounds of `quantum` bytes, and CoDel drops or marks (`ecn`)
 * where the packets of one wait for longer than `target`; with 0 it does not. A flow has no more
 * packets here than its subscriber, which has up to `leaf_limit`, has room left, and a subscriber
 * no more than the qdisc has: who floods fills half of the room. GSO packets longer than
 * `split_gso` bytes are cut before.
 *
 * With bpf_mq each tx queue has all that, without a common lock. One for all queues is until when
 * the link is used, and each ceiling; and where the link has a rate each tenant has a share, its
 * weight in that of all tenants that have packets. Of each of these a packet that leaves adds the
 * time that it takes, in one atomic step, and its queue waits for that part of what is used by then
 * that the packet has of an MTU. So queues that have packets of one subscriber, or of one tenant,
 * take turns and send as many bytes, and one that was silent waits for nobody. A packet beyond the
 * share is `borrowed`: it goes if the link has been free for a quarter of `burst`, so when nobody
 * wants his own, and is given back within `burst`; a queue from which the tenant has sent just now
 * waits for half of it, so that the others come first. So tenants have their shares whatever the
 * number of their flows and queues, and no capacity is lost.
 *
 * Guarantees:
 *
 * - A ceiling, or the rate of the link, is exceeded by what `burst` carries, or by a packet that
 *   takes longer, after a pause; and by an MTU or a longer packet of each queue.
 * - While two siblings in one queue have packets, and no ceiling holds them, what they have had
 *   differs from their ratio by a round and a packet of each. Over several queues, with a rate,
 *   what a tenant has had differs from its share by what `burst` carries, twice at most, and by an
 *   MTU or a longer packet of each queue.
 * - The link is not idle while a subscriber has packets that is below its ceilings. With several
 *   queues, not for longer than half of `burst`, and that is made up for.
 *
 * Where it does badly: a packet costs more than with any other policy here, 5000 to 6000
 * instructions in the programs. Who could send and is late (a timer, a CPU, a link that others use)
 * makes up for the last `burst` of it, or for a packet: with several queues `burst` should be the
 * times of some packets. Of several queues each shares by weight among the subscribers of a tenant,
 * but not all together; nor do tenants, if the link has no rate. Queues that borrow take turns by
 * packets, as well as the CPUs' timers are exact; a packet longer than an MTU is a turn, too, so
 * `split_gso` should cut it. A tenant whose subscribers are all held by their ceilings has no share
 * meanwhile, and then the link after others. A queue that stands still, or is not used any more
 * (ethtool -L), keeps the weight of its tenants in the sum: others then borrow what these leave.
 * More than 16 flows of a subscriber that wait share places. What CoDel drops, its flow has paid
 * for. Rates and ceilings hold for the next packet: at one that was a mistake a packet of each
 * queue holds up the next ones, for 10 s at most. A rate below 10 kbit/s is a weight to one part in
 * ten. A subscriber that is no longer in the table keeps its memory, which is 1.5 kB in each tx
 * queue in which it had packets.
 *
 * Statistics, by `tc -s qdisc show`, of each tx queue, in packets: of nobody in the table, dropped
 * because of a limit, by CoDel, or for want of memory, marked, and borrowed.
 */
#include "policy.h"
#include <bpf/bpf_rbtree.h>

#define MAX_PACKETS	1000000
#define MAX_SUBSCRIBERS	65536
#define MAX_TENANTS	4096
#define FLOWS		16		/* of a subscriber, told apart */
#define WAYS		4		/* places that a flow may have */
#define TRIES		64		/* to find a packet, before the program is asked again */
#define RELEASED	8		/* nodes whose time has come, in one run */
#define ROUNDS		64000		/* a second, of siblings that use all of their rates */
#define PARTS		1024		/* of a byte, in which weights are counted */
#define MTU		1514		/* CoDel leaves that much waiting; a turn of a tx queue */
#define LONGEST		(10 * NSEC_PER_SEC)	/* for which one packet holds up the next one */
#define DEFAULT_RATE	125000		/* the weight of who has no rate: 1 Mbit/s */
#define NOBODY		(~0U)

#define TCQ_F_ONETXQUEUE	0x10

enum { BY_MARK, BY_CLASS, BY_CGROUP, BY_SOURCE, BY_DESTINATION, BY_VLAN };

/* Parameters; rates in bytes a second, times in ns, sizes in bytes */
__u64 rate SEC(".data.param") BPF_QDISC_RANGE(0, 1tbit);	/* of the link; 0: no rate */
__u64 burst SEC(".data.param") BPF_QDISC_RANGE(0, 10s) = 5 * NSEC_PER_MSEC;
__u32 leaf_by SEC(".data.param") BPF_QDISC_RANGE(0, 5);
__u32 leaf_limit SEC(".data.param") BPF_QDISC_RANGE(1, 1000000) = 1000;	/* packets */
__u32 quantum SEC(".data.param") BPF_QDISC_RANGE(1, 1mb) = 1514;
__u64 target SEC(".data.param") BPF_QDISC_RANGE(0, 10s) = 5 * NSEC_PER_MSEC;	/* 0: no CoDel */
__u64 interval SEC(".data.param") BPF_QDISC_RANGE(1ms, 100s) = 100 * NSEC_PER_MSEC;
__u32 split_gso SEC(".data.param") BPF_QDISC_RANGE(0, 1mb);	/* 0: cut none */
bool ecn SEC(".data.param") = true;

/* Statistics: packets */
__u64 unknown SEC(".data.stats");	/* of nobody in the table: they went to number 0 */
__u64 limit_drops SEC(".data.stats");
__u64 codel_drops SEC(".data.stats");
__u64 memory_drops SEC(".data.stats");
__u64 ecn_marks SEC(".data.stats");
__u64 borrowed SEC(".data.stats");	/* beyond the tenant's share; with several tx queues */

/* ---- what is configured ---- */

struct terms {				/* bytes a second */
	__u64 rate;			/* guaranteed; 0: DEFAULT_RATE is the weight */
	__u64 ceiling;			/* 0: none */
};

struct subscription {
	__u64 tenant;
	struct terms terms;
};

typedef __u64 tenant_terms[2];		/* struct terms */
typedef __u64 subscriber_terms[3];	/* struct subscription */

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32);
	__type(value, tenant_terms);
	__uint(max_entries, MAX_TENANTS);
} tenant SEC(".maps") BPF_QDISC_TABLE BPF_QDISC_RANGE(0, 1tbit);

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32);
	__type(value, subscriber_terms);
	__uint(max_entries, MAX_SUBSCRIBERS);
} subscriber SEC(".maps") BPF_QDISC_TABLE BPF_QDISC_RANGE(0, 1tbit);

struct prefix {
	__u32 length;			/* bits; 96 more for IPv4 */
	struct in6_addr address;	/* of IPv4 ::ffff:a.b.c.d */
};

struct {				/* address -> subscriber */
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct prefix);
	__type(value, __u32);
	__uint(max_entries, MAX_SUBSCRIBERS);
} tenants_prefix SEC(".maps") BPF_QDISC_SHARED;

static const struct subscription nothing;

static const struct terms *terms_of(__u32 number)
{
	const void *found = bpf_map_lookup_elem(&tenant, &number);

	return found ?: &nothing.terms;
}

static const struct subscription *subscription_of(__u32 number)
{
	const void *found = bpf_map_lookup_elem(&subscriber, &number);

	return found ?: &nothing;
}

/* ---- state ---- */

enum { IDLE, READY, WAITING };

struct flow {
	struct bpf_drr_flow drr;
	struct bpf_codel codel;
};

struct leaf {				/* of a subscriber */
	struct bpf_drr_flow drr;	/* among those of its tenant */
	__u32 tenant;
	__u32 where;
	__u64 round;			/* the latest from which a packet of its flows has left */
	__u32 qlen;
	__u32 bytes;
	__u32 generation;		/* qlen and bytes are right if this is the qdisc's */
	__u64 turn;			/* this queue's, below its ceiling */
	struct hash_place places[FLOWS];	/* of its flows; their users are packets */
	struct flow flows[FLOWS];
};

struct group {				/* of a tenant */
	struct bpf_drr_flow drr;	/* among tenants */
	__u32 where;
	__u32 ready;			/* subscribers that are */
	__u64 round;			/* the latest from which one of them has sent */
	__u64 turn;			/* this queue's, below its ceiling */
	__u64 share;			/* this queue's turn in its share */
	__u64 last;			/* until when it has used the link */
	bool counted;			/* in its share */
};

struct shared {				/* of a tenant or subscriber, for all tx queues */
	__u64 free;			/* until when its packets use its ceiling */
	__u64 next;			/* until when its share of the link */
	__u64 weight;			/* what it has in that of the link */
	__u32 queues;			/* in which it could send now */
};

#define TENANT	0x100000000ULL		/* in an id: the number is a tenant's */

#define STATES(name, key_type, state, entries)		\
	struct {					\
		__uint(type, BPF_MAP_TYPE_HASH);	\
		__uint(map_flags, BPF_F_NO_PREALLOC);	\
		__type(key, key_type);			\
		__type(value, struct state);		\
		__uint(max_entries, entries);		\
	} name SEC(".maps")

STATES(tenants_leaves, __u32, leaf, MAX_SUBSCRIBERS);
STATES(tenants_groups, __u32, group, MAX_TENANTS);
STATES(tenants_shared, __u64, shared, MAX_SUBSCRIBERS + MAX_TENANTS) BPF_QDISC_SHARED;

struct link {
	__u64 free;			/* when it will be */
	__u64 weight;			/* of the tenants that could send now */
};

struct queue {
	__u64 turn;			/* when it may send again */
	__u64 round;			/* the latest from which a tenant has sent */
};

/* In maps, not in variables, which new programs do not take over */
MAP_OF_ONE(tenants_link, struct link) BPF_QDISC_SHARED;
MAP_OF_ONE(tenants_queue, struct queue);

struct turn {
	__u64 of;			/* a subscriber, or a tenant */
	__u64 round;			/* of a packet, or of a subscriber of the tenant */
};

BPF_QDISC_QUEUE(tenants_packets, struct turn, MAX_PACKETS);
ORDERED_MAP(tenants_ready, __u64, __u64, MAX_TENANTS);		/* round -> number of a tenant */
ORDERED_MAP(tenants_leaf_ready, struct turn, __u64, MAX_SUBSCRIBERS);	/* -> a subscriber */
ORDERED_MAP(tenants_waiting, __u64, __u64, MAX_SUBSCRIBERS + MAX_TENANTS);	/* its time -> id */

struct note {				/* on a packet */
	__u64 came;
	__u32 flow;			/* which of the leaf's */
};

static __u64 now;
static bool several;			/* this is one of several tx queues */

static void begin(struct sch_bpf_ctx *ctx)
{
	const struct Qdisc *sch = ctx->qdisc;

	now = bpf_ktime_get_ns();
	several = (sch->flags & TCQ_F_ONETXQUEUE) && sch->dev_queue->dev->real_num_tx_queues > 1;
}

/* The element of a key, or a new one, of zeroes; NULL without memory */
static __always_inline void *get(void *map, const void *key)
{
	static const struct leaf zeroes;	/* no element is longer */
	void *found = bpf_map_lookup_elem(map, key);

	if (found)
		return found;
	bpf_map_update_elem(map, key, &zeroes, BPF_NOEXIST);
	return bpf_map_lookup_elem(map, key);
}

/* The element of an array is there: the verifier knows it. */
static struct link *the_link(void)
{
	return bpf_map_lookup_elem(&tenants_link, &(__u32){ 0 });
}

static struct queue *the_queue(void)
{
	return bpf_map_lookup_elem(&tenants_queue, &(__u32){ 0 });
}

static struct shared *shared_of(__u64 id)
{
	return get(&tenants_shared, &id);
}

static struct group *group_of(__u32 number)
{
	return get(&tenants_groups, &number);
}

static bool has_packets(__u32 number)
{
	struct turn turn = { number };

	return bpf_rbtree_map_lower_bound(&tenants_packets, &turn) && turn.of == number;
}

static void forget_packets(struct leaf *leaf)
{
	int i;

	leaf->qlen = 0;
	leaf->bytes = 0;
	bpf_for(i, 0, FLOWS)
		leaf->places[i % FLOWS].users = 0;
}

/* After a reset it has no packets; after a change, those that it had. */
static struct leaf *leaf_of(struct sch_bpf_ctx *ctx, __u32 number)
{
	struct leaf *leaf = get(&tenants_leaves, &number);

	if (leaf && bpf_qdisc_begins_anew(ctx, &leaf->generation) && !has_packets(number))
		forget_packets(leaf);
	return leaf;
}

/* ---- rounds ---- */

/* What it may send in a round, in parts of a byte */
static __u32 weight_of(const struct terms *terms)
{
	return (terms->rate ?: DEFAULT_RATE) * PARTS / ROUNDS ?: 1;
}

/* In which a packet of this length leaves. That of the next one does not depend on its length. */
static __u64 round_of(struct bpf_drr_flow *drr, __u64 latest, const struct terms *terms, __u32 len)
{
	__u32 weight = weight_of(terms);

	return bpf_drr_round(drr, latest, weight, weight, len * PARTS);
}

/* A packet has left, from the round that is the latest now. */
static void pay(struct bpf_drr_flow *drr, __u64 *latest, const struct terms *terms, __u32 len)
{
	__u64 left = round_of(drr, *latest, terms, len);

	if (*latest < left)
		*latest = left;
}

/* ---- ceilings ---- */

/* What several queues share is time, until when it is used. A packet that leaves adds what it
 * takes, and its queue's next turn is when that part of the time is over that the packet has of an
 * MTU: those of the others come meanwhile, and all have as many bytes. Who is late, because others
 * had the link, makes up for a packet at least. Returns until when the time is used.
 */
static __u64 spend(__u64 *until, __u64 *turn, __u64 bytes_a_second, __u32 len)
{
	__u64 part = several && len < MTU ? len : MTU;
	__u64 cost = bpf_qdisc_tx_time_most(len, bytes_a_second, LONGEST * part / MTU);
	__u64 floor = bpf_qdisc_time_sub(now, cost > burst ? cost : burst);
	__u64 end = bpf_qdisc_link_reserve(until, floor, cost) + cost;

	*turn = end > now ? now + (end - now) * part / MTU : end;
	return end;
}

static void spend_ceiling(__u64 id, __u64 *turn, const struct terms *terms, __u32 len)
{
	struct shared *shared = terms->ceiling ? shared_of(id) : NULL;

	if (shared)
		spend(&shared->free, turn, terms->ceiling, len);
}

/* ---- shares of tenants in a link of several tx queues ---- */

static bool is_shared(void)
{
	return rate && several;
}

/* Whatever the order in which queues come and go, what was added is what is taken off. */
static void set_weight(struct shared *shared, __u64 weight)
{
	__u64 old = __sync_lock_test_and_set(&shared->weight, weight);

	__sync_fetch_and_add(&the_link()->weight, weight - old);
}

static void count_in(struct group *group, struct shared *shared)
{
	if (group->counted)
		return;
	group->counted = true;
	__sync_fetch_and_add(&shared->queues, 1);
}

static void count_out(struct group *group, __u32 number)
{
	struct shared *shared;

	if (!group->counted)
		return;
	group->counted = false;
	shared = shared_of(number | TENANT);
	if (shared && __sync_fetch_and_add(&shared->queues, -1) == 1)
		set_weight(shared, 0);
}

/* What it has borrowed it gives back, for a burst's time at most. */
static void spend_share(struct group *group, __u32 number, const struct terms *terms, __u32 len)
{
	struct shared *shared = shared_of(number | TENANT);
	struct terms link = { .rate = rate };
	__u64 weight = weight_of(terms), mine, cost;

	if (!shared)
		return;
	if (shared->weight != weight)
		set_weight(shared, weight);
	mine = weight_of(&link) * weight / (the_link()->weight ?: weight) * ROUNDS / PARTS ?: 1;
	if (group->share <= now) {
		spend(&shared->next, &group->share, mine, len);
		return;
	}
	borrowed++;
	cost = bpf_qdisc_tx_time_most(len, mine, burst);
	if (shared->next < bpf_qdisc_time_add(now, burst))
		__sync_fetch_and_add(&shared->next, cost);
}

/* ---- who competes ---- */

static bool waits(__u64 id, __u64 when)
{
	return when > now && !bpf_rbtree_map_push(&tenants_waiting, &when, &id);
}

static __u64 leaf_held_until(const struct leaf *leaf, const struct terms *terms)
{
	return terms->ceiling ? leaf->turn : 0;
}

/* When a queue may have what nobody wants: the sooner the tenant had the link here, the later. */
static __u64 spare(const struct group *group)
{
	__u64 free = the_link()->free, ago = bpf_qdisc_time_sub(free, group->last);

	return bpf_qdisc_time_add(free, (2 * burst - (ago < burst ? ago : burst)) / 4);
}

/* Until when a tenant cannot send, or 0: its ceiling holds it, or it has had its share and
 * the link is not free for so long that nobody else can want it.
 */
static __u64 group_held_until(struct group *group, __u32 number, const struct terms *terms)
{
	__u64 when = terms->ceiling ? group->turn : 0;
	struct shared *shared;

	if (when > now || !is_shared())
		return when;
	shared = shared_of(number | TENANT);
	if (!shared)
		return 0;
	count_in(group, shared);
	when = spare(group);
	return group->share < when ? group->share : when;
}

static void place_group(struct group *group, __u32 number, const struct terms *terms)
{
	__u64 key, value = number;

	if (waits(number | TENANT, group_held_until(group, number, terms))) {
		group->where = WAITING;
		return;
	}
	key = round_of(&group->drr, the_queue()->round, terms, 0);
	if (!bpf_rbtree_map_push(&tenants_ready, &key, &value))
		group->where = READY;
}

/* A leaf with packets that is neither ready nor waiting, and its tenant with it */
static void place_leaf(struct leaf *leaf, __u32 number, const struct subscription *subscription)
{
	struct turn turn = { (__u32)subscription->tenant };
	__u64 value = number;
	struct group *group;

	if (waits(number, leaf_held_until(leaf, &subscription->terms))) {
		leaf->where = WAITING;
		return;
	}
	group = group_of(turn.of);
	if (!group)
		return;
	if (leaf->tenant != turn.of) {	/* whose rounds are others */
		leaf->tenant = turn.of;
		leaf->drr = (struct bpf_drr_flow){};
	}
	turn.round = round_of(&leaf->drr, group->round, &subscription->terms, 0);
	if (bpf_rbtree_map_push(&tenants_leaf_ready, &turn, &value))
		return;
	leaf->where = READY;
	group->ready++;
	if (group->where == IDLE)
		place_group(group, turn.of, terms_of(turn.of));
}

/* Those whose time has come compete again. */
static void release(struct sch_bpf_ctx *ctx)
{
	struct group *group;
	struct leaf *leaf;
	__u64 when, id;
	int i;

	bpf_for(i, 0, RELEASED) {
		if (bpf_rbtree_map_pop_until(&tenants_waiting, &now, &when, &id))
			return;
		group = id & TENANT ? group_of(id) : NULL;
		leaf = id & TENANT ? NULL : leaf_of(ctx, id);
		if (group) {
			group->where = IDLE;
			if (group->ready)
				place_group(group, id, terms_of(id));
			else
				count_out(group, id);
		} else if (leaf) {
			leaf->where = IDLE;
			if (leaf->qlen)
				place_leaf(leaf, id, subscription_of(id));
		}
	}
}

/* ---- enqueue ---- */

/* Whose is the longest prefix that one of the packet's addresses has? */
static __u32 whose_address(struct sk_buff *skb, bool source)
{
	struct prefix prefix = { .length = 128 };
	__u32 *found = NULL;
	struct ip ip;

	if (read_ip(skb, &ip)) {
		prefix.address = source ? ip.source : ip.destination;
		found = bpf_map_lookup_elem(&tenants_prefix, &prefix);
	}
	return found ? *found : NOBODY;
}

/* The tag is beside the packet, or in it. */
static __u32 vlan_of(struct sk_buff *skb)
{
	struct bpf_dynptr bytes;
	__be16 tci = 0;

	if (skb->vlan_all)
		return skb->vlan_tci & 0xfff;
	if (bpf_qdisc_network_offset(skb) >= ETH_HLEN + VLAN_HLEN &&
	    !bpf_dynptr_from_skb((struct __sk_buff *)skb, 0, &bytes))
		bpf_dynptr_read(&tci, 2, &bytes, ETH_HLEN, 0);
	return bpf_ntohs(tci) & 0xfff;
}

static bool is_full(const struct Qdisc *sch, const struct leaf *leaf, const struct hash_place *flow)
{
	__u32 qlen = sch->q.qlen, limit = sch->limit;

	return qlen >= limit || leaf->qlen >= limit - qlen ||
	       leaf->qlen >= leaf_limit || flow->users >= leaf_limit - leaf->qlen;
}

static int drop_for_memory(struct sch_bpf_ctx *ctx, struct sk_buff *skb)
{
	memory_drops++;
	return bpf_qdisc_drop(ctx, skb, QDISC_DROP_MAXFLOWS);
}

static int store(struct sch_bpf_ctx *ctx, struct sk_buff *skb, __u32 number)
{
	struct note *note = bpf_qdisc_note(skb, struct note);
	const struct subscription *subscription;
	__u32 len = bpf_qdisc_pkt_len(skb);
	struct hash_place *place;
	struct turn turn;
	struct flow *flow;
	struct leaf *leaf;
	int err;

	subscription = bpf_map_lookup_elem(&subscriber, &number);
	if (!subscription) {
		unknown++;
		number = 0;
		subscription = subscription_of(number);
	}
	leaf = leaf_of(ctx, number);
	if (!leaf)
		return drop_for_memory(ctx, skb);
	note->came = now;
	note->flow = hash_place_of(leaf->places, FLOWS, WAYS, bpf_skb_get_hash(skb));
	flow = &leaf->flows[note->flow % FLOWS];
	place = &leaf->places[note->flow % FLOWS];
	if (is_full(ctx->qdisc, leaf, place)) {
		limit_drops++;
		return bpf_qdisc_drop(ctx, skb, QDISC_DROP_OVERLIMIT);
	}
	if (leaf->where == IDLE)
		place_leaf(leaf, number, subscription);
	if (leaf->where == IDLE)
		return drop_for_memory(ctx, skb);
	if (!place->users)
		bpf_codel_empty(&flow->codel);
	turn.of = number;
	turn.round = bpf_drr_round(&flow->drr, leaf->round, quantum, quantum, len);
	err = bpf_qdisc_push(ctx, &tenants_packets, &turn, skb);
	if (err) {
		memory_drops++;
		return err;
	}
	leaf->qlen++;
	leaf->bytes += len;
	place->users++;
	return 0;
}

SEC("qdisc/enqueue")
int tenants_enqueue(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb = ctx->skb;
	__u32 number;

	if (bpf_qdisc_cut(ctx, skb, split_gso))
		return 0;
	begin(ctx);
	switch (leaf_by) {
	case BY_CLASS:
		if (bpf_qdisc_filter(ctx, skb))
			return 0;
		number = ctx->classid & 0xffff;
		break;
	case BY_CGROUP:
		number = cgroup_of(skb, NOBODY);
		break;
	case BY_SOURCE:
	case BY_DESTINATION:
		number = whose_address(skb, leaf_by == BY_SOURCE);
		break;
	case BY_VLAN:
		number = vlan_of(skb);
		break;
	default:
		number = skb->mark;
	}
	return store(ctx, skb, number);
}

/* ---- dequeue ---- */

static bool drops(struct sch_bpf_ctx *ctx, struct sk_buff *skb, const struct leaf *leaf,
		  struct flow *flow)
{
	struct bpf_codel_params params = { target, interval, MTU, ecn };
	struct note *note = bpf_qdisc_note(skb, struct note);
	enum bpf_aqm_verdict verdict;

	if (!target)
		return false;
	verdict = bpf_codel_dequeue(&flow->codel, &params, now, note->came, leaf->bytes);
	return bpf_aqm_drops_counted(ctx, skb, verdict, &codel_drops, &ecn_marks);
}

/* The leaf's next packet, which is the program's then, or NULL if there is none */
static struct sk_buff *take(struct sch_bpf_ctx *ctx, struct leaf *leaf, __u32 number)
{
	struct sk_buff *skb;
	struct turn turn;
	struct flow *flow;
	__u32 at;
	int i;

	bpf_for(i, 0, MAX_PACKETS) {
		turn.of = number;
		turn.round = 0;
		if (!bpf_rbtree_map_lower_bound(&tenants_packets, &turn) ||
		    turn.of != number)
			break;
		skb = bpf_qdisc_take_key(ctx, &tenants_packets, &turn);
		if (!skb)
			break;
		if (leaf->round < turn.round)
			leaf->round = turn.round;
		at = bpf_qdisc_note(skb, struct note)->flow % FLOWS;
		flow = &leaf->flows[at];
		leaf->qlen--;
		leaf->bytes -= bpf_qdisc_pkt_len(skb);
		leaf->places[at].users--;
		if (!drops(ctx, skb, leaf, flow))
			return skb;
		bpf_qdisc_drop(ctx, skb, QDISC_DROP_CONGESTED);
	}
	return NULL;
}

/* A packet of the tenant whose turn it is, and of the subscriber of it whose turn it is; or
 * NULL, if a ceiling holds that one by now, or CoDel has dropped what it had.
 */
static struct sk_buff *serve_leaf(struct sch_bpf_ctx *ctx, struct group *group, __u32 tenant,
				  const struct terms *terms)
{
	const struct subscription *subscription;
	struct turn turn = { tenant };
	struct sk_buff *skb = NULL;
	struct leaf *leaf;
	__u64 number;
	__u32 len;

	if (!bpf_rbtree_map_lower_bound(&tenants_leaf_ready, &turn) || turn.of != tenant ||
	    bpf_rbtree_map_pop_key(&tenants_leaf_ready, &turn, &number)) {
		group->ready = 0;
		return NULL;
	}
	group->ready--;
	leaf = leaf_of(ctx, number);
	if (!leaf)
		return NULL;
	leaf->where = IDLE;
	subscription = subscription_of(number);
	if (!several || leaf_held_until(leaf, &subscription->terms) <= now)
		skb = take(ctx, leaf, number);
	if (skb) {
		len = bpf_qdisc_pkt_len(skb);
		if (rate)
			group->last = spend(&the_link()->free, &the_queue()->turn, rate, len);
		if (is_shared())
			spend_share(group, tenant, terms, len);
		pay(&group->drr, &the_queue()->round, terms, len);
		pay(&leaf->drr, &group->round, &subscription->terms, len);
		spend_ceiling(tenant | TENANT, &group->turn, terms, len);
		spend_ceiling(number, &leaf->turn, &subscription->terms, len);
	}
	if (leaf->qlen)
		place_leaf(leaf, number, subscription);
	return skb;
}

/* The tenant whose turn it is; false if there is none */
static bool serve(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb = NULL;
	const struct terms *terms;
	struct group *group;
	__u64 key, number;

	if (bpf_rbtree_map_pop(&tenants_ready, &key, &number))
		return false;
	group = group_of(number);
	if (!group)
		return true;
	terms = terms_of(number);
	group->where = IDLE;
	if (!several || group_held_until(group, number, terms) <= now)
		skb = serve_leaf(ctx, group, number, terms);
	if (group->where == IDLE && group->ready)
		place_group(group, number, terms);
	if (group->where == IDLE)
		count_out(group, number);
	if (skb)
		bpf_qdisc_deliver(ctx, skb);
	return true;
}

SEC("qdisc/dequeue")
int tenants_dequeue(struct sch_bpf_ctx *ctx)
{
	__u64 when = 0, turn;
	int i;

	begin(ctx);
	turn = rate ? the_queue()->turn : 0;
	if (turn > now) {
		ctx->expire = turn;
		return 0;
	}
	release(ctx);
	bpf_for(i, 0, TRIES) {
		if (!serve(ctx)) {
			bpf_rbtree_map_first(&tenants_waiting, &when);
			break;
		}
		if (ctx->skb)
			return 0;
	}
	ctx->expire = when ?: now;
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
