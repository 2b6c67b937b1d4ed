// SPDX-License-Identifier: GPL-2.0
/* What functions return that cannot do what they are asked for. A packet's mark says what
 * is done with it; after LOOK the next dequeue tries all the others.
 */
#include "../../policies/policy.h"

enum {				/* also in errors.py */
	PUSH, PUSH_FRONT, PUSH_SHARED, FRONT_SHARED, PASS_NOWHERE, PASS_FULL, PASS_SLOW,
	SET_QUEUE, LOOK,
	POP_SHARED, POP_UNTIL_SHARED, POP_KEY_SHARED, POP_FROM_SHARED,
	POP_NOTHING, POP_LATER, POP_NO_KEY, POP_FROM_NO_KEY,
	POP_NO_CLASS, POP_EMPTY_CLASS, POP_SLOW_CLASS, HEAD_NO_CLASS, HEAD_EMPTY_CLASS, HEAD_SLOW_CLASS,
	LEN_NO_CLASS, LEN_EMPTY_CLASS, LEN_SLOW_CLASS, TAKEN_SHARED, TAKEN_NO_KEY, LOAD_SHARED,
	POP, POP_AGAIN, POP_UNTIL_AGAIN, POP_KEY_AGAIN, POP_FROM_AGAIN, POP_CLASS_AGAIN, DELIVER_AGAIN,
	CASES,
};

#define FULL_CLASS	1	/* minor numbers, also in errors.py */
#define SLOW_CLASS	2
#define NO_CLASS	3

#define SECOND_QUEUE	1

struct {
	__uint(type, BPF_MAP_TYPE_RBTREE);
	__type(key, __u64);
	__type(value, struct pkt);
	__uint(max_entries, 2);
} errors_pkts SEC(".maps"), errors_none SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RBTREE);
	__type(key, __u64);
	__type(value, struct pkt);
	__uint(max_entries, 2);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} errors_shared SEC(".maps");

struct {			/* what was tried -> what was returned last */
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, int);
	__uint(max_entries, CASES);
} errors_seen SEC(".maps");

static bool look;

static void note(__u32 which, int err)
{
	int *seen = bpf_map_lookup_elem(&errors_seen, &which);

	if (seen)
		*seen = err;
}

SEC("qdisc/enqueue")
int errors_enqueue(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb = ctx->skb;
	__u32 mark = skb->mark, handle = ctx->qdisc->handle;
	__u64 key = 1000;

	switch (mark) {
	case PUSH:
		note(mark, bpf_qdisc_push(ctx, &errors_pkts, &key, skb));
		break;
	case PUSH_FRONT:
		note(mark, bpf_qdisc_push_front(ctx, &errors_pkts, &key, skb));
		break;
	case PUSH_SHARED:
		note(mark, bpf_qdisc_push(ctx, &errors_shared, &key, skb));
		break;
	case FRONT_SHARED:
		note(mark, bpf_qdisc_push_front(ctx, &errors_shared, &key, skb));
		break;
	case PASS_NOWHERE:
		note(mark, bpf_qdisc_pass(ctx, skb, handle | NO_CLASS));
		break;
	case PASS_FULL:
		note(mark, bpf_qdisc_pass(ctx, skb, handle | FULL_CLASS));
		break;
	case PASS_SLOW:
		note(mark, bpf_qdisc_pass(ctx, skb, handle | SLOW_CLASS));
		break;
	case SET_QUEUE:
		note(mark, bpf_qdisc_set_queue(ctx, skb, SECOND_QUEUE));
		bpf_qdisc_drop(ctx, skb, 0);
		break;
	default:
		look = true;
		note(mark, bpf_qdisc_drop(ctx, skb, 0));
	}
	return 0;
}

/* Drop a packet that there should not be; whether there was one */
static int taken(struct sch_bpf_ctx *ctx, struct sk_buff *skb)
{
	if (skb)
		bpf_qdisc_drop(ctx, skb, 0);
	return !!skb;
}

static void try_without_a_packet(struct sch_bpf_ctx *ctx)
{
	__u32 handle = ctx->qdisc->handle;
	__u64 key = 500, above = 1001, there = 1000, first = 0;
	struct pkt *shared = bpf_rbtree_map_first(&errors_shared, &first);
	__u8 byte = 0;

	if (shared)
		note(LOAD_SHARED, bpf_qdisc_load_bytes(ctx, &errors_shared, shared, &byte, sizeof(byte)));
	note(POP_SHARED, bpf_qdisc_pop(ctx, &errors_shared));
	note(POP_UNTIL_SHARED, bpf_qdisc_pop_until(ctx, &errors_shared, &there));
	note(POP_KEY_SHARED, bpf_qdisc_pop_key(ctx, &errors_shared, &there));
	note(POP_FROM_SHARED, bpf_qdisc_pop_from(ctx, &errors_shared, &key));
	note(POP_NOTHING, bpf_qdisc_pop(ctx, &errors_none));
	note(POP_LATER, bpf_qdisc_pop_until(ctx, &errors_pkts, &key));
	note(POP_NO_KEY, bpf_qdisc_pop_key(ctx, &errors_pkts, &key));
	note(POP_FROM_NO_KEY, bpf_qdisc_pop_from(ctx, &errors_pkts, &above));
	note(POP_NO_CLASS, bpf_qdisc_pop_class(ctx, handle | NO_CLASS));
	note(POP_EMPTY_CLASS, bpf_qdisc_pop_class(ctx, handle | FULL_CLASS));
	note(POP_SLOW_CLASS, bpf_qdisc_pop_class(ctx, handle | SLOW_CLASS));
	note(HEAD_NO_CLASS, bpf_qdisc_class_head(ctx, handle | NO_CLASS));
	note(HEAD_EMPTY_CLASS, bpf_qdisc_class_head(ctx, handle | FULL_CLASS));
	note(HEAD_SLOW_CLASS, bpf_qdisc_class_head(ctx, handle | SLOW_CLASS));
	note(LEN_NO_CLASS, bpf_qdisc_class_len(ctx, handle | NO_CLASS));
	note(LEN_EMPTY_CLASS, bpf_qdisc_class_len(ctx, handle | FULL_CLASS));
	note(LEN_SLOW_CLASS, bpf_qdisc_class_len(ctx, handle | SLOW_CLASS));
	note(TAKEN_SHARED, taken(ctx, bpf_qdisc_take(ctx, &errors_shared)) +
	     taken(ctx, bpf_qdisc_take_until(ctx, &errors_shared, &there)) +
	     taken(ctx, bpf_qdisc_take_key(ctx, &errors_shared, &there)) +
	     taken(ctx, bpf_qdisc_take_youngest(ctx, &errors_shared, &there)) +
	     taken(ctx, bpf_qdisc_take_from(ctx, &errors_shared, &there)) +
	     taken(ctx, bpf_qdisc_take_last(ctx, &errors_shared)));
	note(TAKEN_NO_KEY, taken(ctx, bpf_qdisc_take_until(ctx, &errors_pkts, &key)) +
	     taken(ctx, bpf_qdisc_take_key(ctx, &errors_pkts, &key)) +
	     taken(ctx, bpf_qdisc_take_youngest(ctx, &errors_pkts, &key)) +
	     taken(ctx, bpf_qdisc_take_from(ctx, &errors_pkts, &above)));
}

static void try_with_one(struct sch_bpf_ctx *ctx)
{
	__u64 key = 1000;
	struct sk_buff *skb;

	note(POP, bpf_qdisc_pop(ctx, &errors_pkts));
	note(POP_AGAIN, bpf_qdisc_pop(ctx, &errors_pkts));
	note(POP_UNTIL_AGAIN, bpf_qdisc_pop_until(ctx, &errors_pkts, &key));
	note(POP_KEY_AGAIN, bpf_qdisc_pop_key(ctx, &errors_pkts, &key));
	note(POP_FROM_AGAIN, bpf_qdisc_pop_from(ctx, &errors_pkts, &key));
	note(POP_CLASS_AGAIN, bpf_qdisc_pop_class(ctx, ctx->qdisc->handle | SLOW_CLASS));
	skb = bpf_qdisc_take(ctx, &errors_pkts);
	if (skb)
		note(DELIVER_AGAIN, bpf_qdisc_deliver(ctx, skb));
}

SEC("qdisc/dequeue")
int errors_dequeue(struct sch_bpf_ctx *ctx)
{
	if (look) {
		look = false;
		try_without_a_packet(ctx);
		try_with_one(ctx);
		return 0;
	}
	ctx->expire = bpf_ktime_get_ns() + 5 * NSEC_PER_SEC;
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
