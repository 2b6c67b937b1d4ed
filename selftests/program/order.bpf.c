// SPDX-License-Identifier: GPL-2.0
/* For order.py: which packets the functions take, and where they put them. A packet's mark
 * says what its enqueue does, and with which key; until one opens the queue nothing leaves.
 */
#include "../../policies/policy.h"
#include <bpf/bpf_rbtree.h>

enum {				/* mark / 256, also in order.py */
	PUSH, PUSH_FRONT, DROP_KEY, DROP_YOUNGEST, DROP_FROM, DROP_LAST, PUT_BACK, MOVE, MARK, LOOK, WALK, OPEN,
};

#define CLOSED	(~0U)

struct look {			/* keys, and lengths of packets; 0: there is none */
	__u32 packets, bytes;
	__u32 first, first_len;
	__u32 last, last_len;
	__u32 from, from_len;
	__u32 above, above_len;
	__u32 tos, marks;	/* of the packet that was marked last: before, how often */
};

struct walk_seen {
	__u32 packets, lengths, toses;	/* sums of the bytes that were copied of each, and of TOS */
	__s32 gone;			/* what is said of one that has been taken */
};

#ifndef ORDER_FLAGS
#define ORDER_FLAGS 0			/* order_allocated.bpf.c has others */
#endif

struct {
	__BPF_QDISC_QUEUE(__u32, 100);
	__uint(map_flags, ORDER_FLAGS);
} order_pkts SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, struct look);
	__uint(max_entries, 1);
} order_seen SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, struct walk_seen);
	__uint(max_entries, 1);
} order_walk SEC(".maps");

struct {			/* the generation in the last run of enqueue */
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, __u32);
	__uint(max_entries, 1);
} order_run SEC(".maps");

__u64 wait SEC(".data.param") = 5 * NSEC_PER_SEC;	/* ns, to be asked again */

static __u32 from = CLOSED;		/* packets from this key on leave first */

static __u32 len_of(struct pkt *pkt)
{
	struct sk_buff *skb = pkt ? pkt->skb : NULL;

	return skb ? skb->len : 0;
}

static void look(__u32 key)
{
	struct look *seen = bpf_map_lookup_elem(&order_seen, &(__u32){ 0 });

	if (!seen)
		return;
	__builtin_memset(seen, 0, sizeof(*seen));
	seen->packets = bpf_rbtree_map_len(&order_pkts);
	seen->bytes = bpf_rbtree_map_bytes(&order_pkts);
	seen->first_len = len_of(bpf_rbtree_map_first(&order_pkts, &seen->first));
	seen->last_len = len_of(bpf_rbtree_map_last(&order_pkts, &seen->last));
	seen->from = key;
	seen->from_len = len_of(bpf_rbtree_map_lower_bound(&order_pkts, &seen->from));
	seen->above = key;
	seen->above_len = len_of(bpf_rbtree_map_upper_bound(&order_pkts, &seen->above));
}

struct walk {
	struct sch_bpf_ctx *ctx;
	struct walk_seen *seen;
};

static long walk_one(void *map, const __u32 *key, struct pkt *pkt, struct walk *walk)
{
	__u8 bytes[300] = {};
	__s32 copied = bpf_qdisc_load_bytes(walk->ctx, &order_pkts, pkt, bytes, sizeof(bytes));

	walk->seen->packets++;
	walk->seen->lengths += copied;
	walk->seen->toses += bytes[ETH_HLEN + 1];
	return 0;
}

/* All that waits is looked into; then the last, after it was taken out. */
static void walk(struct sch_bpf_ctx *ctx)
{
	struct walk_seen *seen = bpf_map_lookup_elem(&order_walk, &(__u32){ 0 });
	struct walk walk = { ctx, seen };
	struct sk_buff *skb;
	struct pkt *last;
	__u32 key = 0;
	__u8 byte = 0;

	if (!seen)
		return;
	__builtin_memset(seen, 0, sizeof(*seen));
	bpf_for_each_map_elem(&order_pkts, walk_one, &walk, 0);
	last = bpf_rbtree_map_last(&order_pkts, &key);
	skb = bpf_qdisc_take_last(ctx, &order_pkts);
	if (last)
		seen->gone = bpf_qdisc_load_bytes(ctx, &order_pkts, last, &byte, sizeof(byte));
	if (skb)
		bpf_qdisc_push(ctx, &order_pkts, &key, skb);
}

static struct sk_buff *take(struct sch_bpf_ctx *ctx, __u32 what, __u32 key)
{
	switch (what) {
	case DROP_YOUNGEST:
		return bpf_qdisc_take_youngest(ctx, &order_pkts, &key);
	case DROP_FROM:
		return bpf_qdisc_take_from(ctx, &order_pkts, &key);
	case DROP_LAST:
		return bpf_qdisc_take_last(ctx, &order_pkts);
	default:
		return bpf_qdisc_take_key(ctx, &order_pkts, &key);
	}
}

/* A packet that waits, and goes on waiting where it was, is looked into and marked. */
static int mark(struct sch_bpf_ctx *ctx, struct sk_buff *skb, __u32 key)
{
	struct look *seen = bpf_map_lookup_elem(&order_seen, &(__u32){ 0 });
	__u32 *marks = bpf_qdisc_note(skb, __u32);
	struct bpf_dynptr bytes;
	__u8 tos = 0;

	if (!bpf_dynptr_from_skb((struct __sk_buff *)skb, 0, &bytes))
		bpf_dynptr_read(&tos, sizeof(tos), &bytes, ETH_HLEN + 1, 0);
	++*marks;
	if (seen) {
		seen->tos = tos;
		seen->marks = *marks;
	}
	bpf_qdisc_ecn_mark(ctx, skb);
	return bpf_qdisc_push_front(ctx, &order_pkts, &key, skb);
}

/* Drop the packet that tells what to do, and perhaps the one taken. */
static int obey(struct sch_bpf_ctx *ctx, struct sk_buff *skb, __u32 what, __u32 key)
{
	struct sk_buff *taken = NULL;
	__u32 above = key + 1;

	if (what == LOOK)
		look(key);
	else if (what == WALK)
		walk(ctx);
	else if (what == OPEN)
		from = key;
	else
		taken = take(ctx, what, key);
	if (taken) {
		if (what == PUT_BACK)
			bpf_qdisc_push_front(ctx, &order_pkts, &key, taken);
		else if (what == MOVE)
			bpf_qdisc_push(ctx, &order_pkts, &above, taken);
		else if (what == MARK)
			mark(ctx, taken, key);
		else
			bpf_qdisc_drop(ctx, taken, 0);
	}
	return bpf_qdisc_drop(ctx, skb, 0);
}

SEC("qdisc/enqueue")
int order_enqueue(struct sch_bpf_ctx *ctx)
{
	__u32 *generation = bpf_map_lookup_elem(&order_run, &(__u32){ 0 });
	struct sk_buff *skb = ctx->skb;
	__u32 what = skb->mark >> 8, key = skb->mark & 0xff;

	if (generation)
		*generation = ctx->generation;
	switch (what) {
	case PUSH:
		*bpf_qdisc_note(skb, __u32) = 0;
		return bpf_qdisc_push(ctx, &order_pkts, &key, skb);
	case PUSH_FRONT:
		return bpf_qdisc_push_front(ctx, &order_pkts, &key, skb);
	default:
		return obey(ctx, skb, what, key);
	}
}

SEC("qdisc/dequeue")
int order_dequeue(struct sch_bpf_ctx *ctx)
{
	__u32 key = from;

	if (key != CLOSED)
		return bpf_qdisc_pop_from(ctx, &order_pkts, &key) && bpf_qdisc_pop(ctx, &order_pkts);
	ctx->expire = bpf_ktime_get_ns() + wait;
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
