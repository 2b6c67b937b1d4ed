// SPDX-License-Identifier: GPL-2.0
/*
 * htb: a tree of classes with rates, which borrow from their parents.
 *
 *   # tc qdisc add dev eth0 root handle 1: bpf obj htb.bpf.o limit 100000 set default_class=0x20 \
 *         set rate[1]=10mbit set rate[0x10]=6mbit set ceiling[0x10]=10mbit set parent[0x10]=1 \
 *         set rate[0x20]=4mbit set ceiling[0x20]=10mbit set parent[0x20]=1 set prio[0x20]=1
 *   # tc filter add dev eth0 parent 1: protocol ip flower ip_proto tcp dst_port 22 classid 1:10
 *   # tc qdisc change dev eth0 root bpf set rate[0x20]=3mbit
 *
 * The key of each table is a class's minor number, hexadecimal with 0x. What has a `rate` is a
 * class. Without a `ceiling` that is its rate; without a `parent` nobody lends to it. A packet
 * belongs to the class that skb->priority names, else to that which a filter finds, else to
 * `default_class`; without that, and with the handle of the qdisc for a class, it leaves before all
 * others, without a rate.
 *
 * A class sends while it is below its rate, else on account of the nearest class above it that is
 * below its rate, if no ceiling on the way there has been reached. Who needs not borrow is first;
 * then who borrows from a class further down; then, of these, the lowest `prio`. Equals take turns
 * of `quantum` bytes, by default what the rate sends in 0.1 s, but 1000 to 200,000. A class that
 * was silent sends `burst` bytes beyond its rate, `cburst` beyond its ceiling: by default 1600 and
 * what 1 ms carries. But for that default all is as in the native htb.
 *
 * A class is a FIFO of `leaf_limit` packets, unless it has been added: then it is the qdisc of that
 * class, a pfifo or another one, and packets that came before leave first:
 *
 *   # tc class add dev eth0 parent 1: classid 1:10 bpf
 *   # tc qdisc add dev eth0 parent 1:10 fq_codel
 *
 * Where it differs from htb: no filters on inner classes. A packet for a class that others have for
 * a parent is not given to the default class: it leaves before theirs. Who comes back into the
 * turns is last. A quantum less than a packet keeps the shares, too. A class of which the rate
 * becomes 0 is none any more, its children have no parent, and what waits in it leaves at once.
 * Minor numbers are less than 0x400; beyond 8 levels nobody lends. Who stands in a circle of
 * parents pays several times. Overhead and cells are tc's: `stab`.
 *
 * Where it does badly: a packet costs more. With bpf_mq each tx queue has all rates for itself (the
 * statistics are of all). Who has used a lot at a rate that was a mistake waits for as long, but
 * 60 s at most. A class that holds its packets back is asked each 0.1 ms. GSO packets are not cut:
 * one waits for as many turns as it has quanta, and each thousand of these that find nothing to
 * send hold up the link for 10 us. All FIFOs together have the qdisc's limit.
 *
 * Statistics are tables, too, so `tc qdisc show` has them, and `set` begins one anew: of each class
 * the bytes `sent`, the packets `lent` (its own, too) and `borrowed`, as tc shows them of the
 * native htb's classes, and the packets `dropped` for want of room in its FIFO.
 */
#include "policy.h"
#include <bpf/bpf_rbtree.h>

#define MAX_PACKETS	100000
#define CLASSES		1024
#define LEVELS		8
#define MTU		1600
#define HELD		(100 * NSEC_PER_USEC)
#define SOON		(10 * NSEC_PER_USEC)
#define LONGEST_DEBT	(60 * NSEC_PER_SEC)

/* Parameters; rates in bytes a second, sizes in bytes */
__u32 default_class SEC(".data.param") BPF_QDISC_RANGE(0, 1023);
__u32 leaf_limit SEC(".data.param") BPF_QDISC_RANGE(1, 100000) = 1000;	/* packets */

#define TABLE(name)					\
	struct {					\
		__uint(type, BPF_MAP_TYPE_ARRAY);	\
		__type(key, __u32);			\
		__type(value, __u64);			\
		__uint(max_entries, CLASSES);		\
	} name SEC(".maps") BPF_QDISC_TABLE

TABLE(rate) BPF_QDISC_RANGE(0, 100gbit);
TABLE(ceiling) BPF_QDISC_RANGE(0, 100gbit);
TABLE(parent) BPF_QDISC_RANGE(0, 1023);
TABLE(prio) BPF_QDISC_RANGE(0, 7);
TABLE(quantum) BPF_QDISC_RANGE(0, 100mb);
TABLE(burst) BPF_QDISC_RANGE(0, 100mb);
TABLE(cburst) BPF_QDISC_RANGE(0, 100mb);

/* Statistics */
TABLE(sent);
TABLE(lent);
TABLE(borrowed);
TABLE(dropped);

/* Where a class stands that may send: in the row of its level, or, if it has to borrow, below its
 * parent. It stands there for the first one below itself, so the first of all is whose turn it is.
 */
struct place {
	__u32 where;			/* 0: nowhere; 1 + the level; BELOW(its parent) */
	__u32 prio;
	__u64 turn;
};

#define BELOW(id)	(LEVELS + (id))

struct moment {
	__u64 time;
	__u64 id;
};

enum { OWN, BORROWED };			/* turns while it sends on its own account, and else */

struct node {
	struct bpf_tbf rate, most;	/* below it if the bucket is not empty */
	struct place place;
	struct moment wakes;		/* 0: never */
	__u64 turn[2];
	__s64 deficit[2];
	__u32 qlen;			/* in the map */
	bool busy;			/* it has packets, as far as is known, */
	bool held;			/* or its qdisc holds them back */
};

ARRAY_MAP(htb_nodes, struct node, CLASSES);

BPF_QDISC_QUEUE(htb_pkts, __u32, MAX_PACKETS);	/* by class */
ORDERED_MAP(htb_tree, struct place, __u32, CLASSES);
ORDERED_MAP(htb_wakes, struct moment, __u32, CLASSES);

static __u32 generation;
static __u64 last_turn;

static struct node *node_at(__u32 id)
{
	return bpf_map_lookup_elem(&htb_nodes, &id);
}

static __always_inline __u64 of(void *table, __u32 id)
{
	__u64 *value = bpf_map_lookup_elem(table, &id);

	return value ? *value : 0;
}

static __always_inline void count(void *table, __u32 id, __u32 more)
{
	__u64 *value = bpf_map_lookup_elem(table, &id);

	if (value)
		__sync_fetch_and_add(value, more);
}

static bool is_class(__u32 id)
{
	return id && of(&rate, id);
}

static __u32 parent_of(__u32 id)
{
	__u32 above = of(&parent, id);

	return is_class(above) ? above : 0;
}

/* ---- the tree ---- */

static void wake(struct node *node, __u32 id, __u64 time)
{
	struct moment then = { time, id };

	if (!node->wakes.time) {
		if (bpf_rbtree_map_push(&htb_wakes, &then, &id))
			return;
	} else if (time < node->wakes.time) {
		bpf_rbtree_map_move(&htb_wakes, &node->wakes, &then);
	} else {
		return;
	}
	node->wakes = then;
}

static void stand(struct node *node, __u32 id, const struct place *place)
{
	struct place old = node->place;
	__u32 unused;
	int err = 0;

	if (old.where == place->where && old.prio == place->prio && old.turn == place->turn)
		return;
	if (!old.where)
		err = bpf_rbtree_map_push(&htb_tree, place, &id);
	else if (!place->where)
		bpf_rbtree_map_pop_key(&htb_tree, &old, &unused);
	else
		bpf_rbtree_map_move(&htb_tree, &old, place);
	if (!err)
		node->place = *place;
}

static __u32 quantum_of(__u32 id)
{
	__u64 set = of(&quantum, id), tenth = of(&rate, id) / 10;

	if (set)
		return set;
	return tenth < 1000 ? 1000 : tenth < 200000 ? tenth : 200000;
}

/* Of an inner class: the nearer to the root, the later */
static __u32 level_of(__u32 id)
{
	int i;

	bpf_for(i, 0, LEVELS - 2) {
		id = parent_of(id);
		if (!id)
			return LEVELS - 1 - i;
	}
	return 1;
}

/* Where a class belongs now. A change below it has been made before. */
static void put(struct node *node, __u32 id, __u64 now)
{
	struct place place = { BELOW(id) };
	bool green = node->rate.empty <= now;
	__u32 above;

	if (node->busy) {
		place.prio = of(&prio, id);
		place.turn = node->turn[green ? OWN : BORROWED];
	} else if (!bpf_rbtree_map_lower_bound(&htb_tree, &place) || place.where != BELOW(id)) {
		place.where = 0;
	}
	if (place.where && node->most.empty > now) {
		wake(node, id, node->most.empty);
		place.where = 0;
	} else if (place.where && !green) {
		wake(node, id, node->rate.empty);
		above = parent_of(id);
		place.where = above ? BELOW(above) : 0;
	} else if (place.where) {
		place.where = 1 + (node->busy ? 0 : level_of(id));
	}
	if (!place.where)
		place = (struct place){};
	stand(node, id, &place);
}

static void charge(struct node *node, __u32 id, bool lends, __u32 len, __u64 now)
{
	__u64 own = of(&rate, id), most = of(&ceiling, id) ?: own;

	if (lends)
		bpf_tbf_reserve(&node->rate, own, of(&burst, id) ?: own / 1000 + MTU, now, len);
	bpf_tbf_reserve(&node->most, most, of(&cburst, id) ?: most / 1000 + MTU, now, len);
	if (node->rate.empty > now + LONGEST_DEBT)
		node->rate.empty = now + LONGEST_DEBT;
	if (node->most.empty > now + LONGEST_DEBT)
		node->most.empty = now + LONGEST_DEBT;
	count(&sent, id, len);
	if (!lends)
		count(&borrowed, id, 1);
}

/* After a change of a class, and for a packet that it has sent and that `lender` accounts for */
static void climb(__u32 id, __u32 lender, __u32 len, __u64 now)
{
	bool lends = false;
	struct node *node;
	int i;

	bpf_for(i, 0, LEVELS) {
		node = node_at(id);
		if (!node)
			break;
		lends |= id == lender;
		if (len)
			charge(node, id, lends, len, now);
		put(node, id, now);
		id = parent_of(id);
		if (!id)
			break;
	}
}

/* No two turns are one, also if other programs have given the last ones. */
static __u64 next_turn(__u64 now)
{
	last_turn = last_turn < now ? now : last_turn + 1;
	return last_turn;
}

static void gets_busy(struct node *node, __u32 id, __u64 now)
{
	node->busy = true;
	node->held = false;
	node->turn[OWN] = next_turn(now);
	node->turn[BORROWED] = last_turn;
	climb(id, 0, 0, now);
}

/* After a reset a class has no packets, after a change of programs it may have some. */
static void look_at_the_classes(struct sch_bpf_ctx *ctx, __u64 now)
{
	struct node *node;
	__u32 id;
	int i;

	if (!bpf_qdisc_begins_anew(ctx, &generation))
		return;
	bpf_for(i, 0, CLASSES) {
		id = i;
		node = node_at(id);
		if (!node)
			break;
		if (!bpf_map_lookup_elem(&htb_pkts, &id))
			node->qlen = 0;
		if (id && (node->qlen || bpf_qdisc_class_len(ctx, CLASSID(ctx, id)) > 0))
			gets_busy(node, id, now);
	}
}

/* ---- enqueue ---- */

SEC("qdisc/enqueue")
int htb_enqueue(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb = ctx->skb;
	__u32 id = CLASS_MINOR(ctx, skb->priority);
	__u64 now = bpf_ktime_get_ns();
	struct node *node;
	int err;

	look_at_the_classes(ctx, now);
	if (id && !is_class(id)) {
		if (bpf_qdisc_filter(ctx, skb))
			return 0;
		id = CLASS_MINOR(ctx, ctx->classid);
	}
	if (id && !is_class(id))
		id = is_class(default_class) ? default_class : 0;
	node = node_at(id);
	if (!node)
		return bpf_qdisc_drop(ctx, skb, 0);
	if (id && bpf_qdisc_class_len(ctx, CLASSID(ctx, id)) >= 0) {
		err = bpf_qdisc_pass(ctx, skb, CLASSID(ctx, id));
	} else if (node->qlen >= leaf_limit) {
		count(&dropped, id, 1);
		return bpf_qdisc_drop(ctx, skb, QDISC_DROP_FLOW_LIMIT);
	} else {
		err = bpf_qdisc_push(ctx, &htb_pkts, &id, skb);
		node->qlen += !err;
		if (err)
			count(&dropped, id, 1);
	}
	if (id && !err && !node->busy && !node->held)
		gets_busy(node, id, now);
	return 0;
}

/* ---- dequeue ---- */

static void release(__u64 now)
{
	struct moment bound = { now, ~0ULL }, when;
	struct node *node;
	__u32 id;
	int i;

	bpf_for(i, 0, CLASSES) {
		if (bpf_rbtree_map_pop_until(&htb_wakes, &bound, &when, &id))
			break;
		node = node_at(id);
		if (!node)
			break;
		node->wakes.time = 0;
		if (node->held)
			gets_busy(node, id, now);
		else
			climb(id, 0, 0, now);
	}
}

static int send(struct sch_bpf_ctx *ctx, struct node *node, __u32 id)
{
	if (bpf_qdisc_pop_key(ctx, &htb_pkts, &id))
		return id ? bpf_qdisc_pop_class(ctx, CLASSID(ctx, id)) : -ENOENT;
	node->qlen--;
	return 0;
}

/* Who is first below the first one of all: the leaf whose turn it is */
static __u32 leaf_of(__u32 id)
{
	struct place place;
	struct node *node;
	__u32 *found;
	int i;

	bpf_for(i, 0, LEVELS) {
		node = node_at(id);
		if (!node || node->busy)
			break;
		place = (struct place){ BELOW(id) };
		found = bpf_rbtree_map_lower_bound(&htb_tree, &place);
		if (!found || place.where != BELOW(id))
			break;
		id = *found;
	}
	return id;
}

/* Who is next sends, or has another place then; false: nobody may send. */
static bool serve(struct sch_bpf_ctx *ctx, bool *busy, __u64 now)
{
	struct place place;
	__u32 *first = bpf_rbtree_map_first(&htb_tree, &place), lender, id, len = 0;
	struct sk_buff *skb;
	struct node *node;
	int err, which;

	if (!first || place.where > LEVELS)
		return false;
	lender = *first;
	id = leaf_of(lender);
	node = node_at(id);
	if (!node)
		return false;
	*busy |= node->busy;
	which = id == lender ? OWN : BORROWED;
	if (node->busy && node->deficit[which] >= 0) {
		err = send(ctx, node, id);
		skb = ctx->skb;
		if (skb)
			len = bpf_qdisc_pkt_len(skb);
		node->deficit[which] -= len;
		node->busy = !err;
		if (err == -EAGAIN) {
			node->held = true;
			wake(node, id, now + HELD);
		}
	}
	if (node->deficit[which] < 0) {
		node->deficit[which] += quantum_of(id);
		node->turn[which] = next_turn(now);
	}
	if (len)
		count(&lent, lender, 1);
	climb(id, lender, len, now);
	return true;
}

SEC("qdisc/dequeue")
int htb_dequeue(struct sch_bpf_ctx *ctx)
{
	__u64 now = bpf_ktime_get_ns();
	struct node *direct = node_at(0);
	struct moment next;
	bool busy = false;
	int i;

	look_at_the_classes(ctx, now);
	if (direct && direct->qlen && !send(ctx, direct, 0))
		return 0;
	release(now);
	bpf_for(i, 0, CLASSES) {
		if (!serve(ctx, &busy, now)) {
			if (bpf_rbtree_map_first(&htb_wakes, &next))
				ctx->expire = next.time;
			return 0;
		}
		if (ctx->skb)
			return 0;
	}
	/* Long packets and short quanta are no fault, and go on soon. A circle of parents is one. */
	ctx->expire = busy ? bpf_ktime_get_ns() + SOON : now;
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
