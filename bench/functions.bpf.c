// SPDX-License-Identifier: GPL-2.0
/*
 * What each function that a policy calls costs. A program for each runs it, or the two that
 * undo each other, N times; of 64 clones of its packet one is under each key meanwhile. The
 * loop, the key and the clones are in the cost of each: nothing() has no more than that.
 * If a function failed the program drops its packet.
 */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_qdisc.h>
#include <bpf/bpf_qdisc_aqm.h>
#include <bpf/bpf_rbtree.h>

#define N	10000
#define KEYS	64

BPF_QDISC_QUEUE(pkts, __u64, 2 * KEYS);

/* Without the fast path of a map whose keys are __u64 */
struct two_u32 {
	__u32 group, number;
};

struct two_u64 {
	__u64 group, number;
};

BPF_QDISC_QUEUE(pkts_by_two_u32, struct two_u32, 2 * KEYS);
BPF_QDISC_QUEUE(pkts_by_two_u64, struct two_u64, 2 * KEYS);

static bool failed;

/* One that must not fail */
#define MUST(ok)					\
	do {						\
		if (!(ok))				\
			failed = true;			\
	} while (0)

/* @number is what differs of the keys of @map. */
#define PROGRAM_ON(name, map, key_type, number, ...)					\
SEC("qdisc/enqueue")									\
int name(struct sch_bpf_ctx *ctx)							\
{											\
	struct sk_buff *skb = ctx->skb, *other;						\
	key_type key = {};								\
	__u32 i;									\
											\
	failed = false;									\
	bpf_for(i, 0, KEYS) {								\
		number = i;								\
		other = bpf_qdisc_clone(ctx, skb);					\
		if (other)								\
			bpf_qdisc_push(ctx, &map, &key, other);				\
	}										\
	bpf_for(i, 0, N) {								\
		number = i % KEYS;							\
		asm volatile("" :: "r"(&key) : "memory");				\
		__VA_ARGS__;								\
	}										\
	number = KEYS;									\
	if (failed)									\
		return bpf_qdisc_drop(ctx, skb, 0);					\
	return bpf_qdisc_push(ctx, &map, &key, skb);					\
}

#define PROGRAM(name, ...)	PROGRAM_ON(name, pkts, __u64, key, __VA_ARGS__)

#define TAKE_FROM(map, take, push)							\
	do {										\
		other = take;								\
		if (other)								\
			MUST(!push(ctx, &map, &key, other));				\
		else									\
			failed = true;							\
	} while (0)

#define TAKE(take, push)	TAKE_FROM(pkts, take, push)

#define REFUSE(give)									\
	do {										\
		other = bpf_qdisc_clone(ctx, skb);					\
		if (other)								\
			give;								\
		else									\
			failed = true;							\
	} while (0)

PROGRAM(nothing)
PROGRAM(take_push, TAKE(bpf_qdisc_take(ctx, &pkts), bpf_qdisc_push))
PROGRAM_ON(take_push_by_two_u32, pkts_by_two_u32, struct two_u32, key.number,
	   TAKE_FROM(pkts_by_two_u32, bpf_qdisc_take(ctx, &pkts_by_two_u32), bpf_qdisc_push))
PROGRAM_ON(take_push_by_two_u64, pkts_by_two_u64, struct two_u64, key.number,
	   TAKE_FROM(pkts_by_two_u64, bpf_qdisc_take(ctx, &pkts_by_two_u64), bpf_qdisc_push))
PROGRAM(take_until_push, TAKE(bpf_qdisc_take_until(ctx, &pkts, &(__u64){ -1 }), bpf_qdisc_push))
PROGRAM(take_from_push, TAKE(bpf_qdisc_take_from(ctx, &pkts, &key), bpf_qdisc_push))
PROGRAM(take_last_push, TAKE(bpf_qdisc_take_last(ctx, &pkts), bpf_qdisc_push))
PROGRAM(take_key_push, TAKE(bpf_qdisc_take_key(ctx, &pkts, &key), bpf_qdisc_push))
PROGRAM(take_key_push_front, TAKE(bpf_qdisc_take_key(ctx, &pkts, &key), bpf_qdisc_push_front))
PROGRAM(take_youngest_push, TAKE(bpf_qdisc_take_youngest(ctx, &pkts, &key), bpf_qdisc_push))
PROGRAM(clone_drop, REFUSE(bpf_qdisc_drop(ctx, other, 0)))
PROGRAM(clone_lose, REFUSE(bpf_qdisc_lose(ctx, other)))
PROGRAM(clone_steal, REFUSE(bpf_qdisc_steal(ctx, other)))
PROGRAM(first, MUST(bpf_rbtree_map_first(&pkts, &key)))
PROGRAM(last, MUST(bpf_rbtree_map_last(&pkts, &key)))
PROGRAM(lower_bound, MUST(bpf_rbtree_map_lower_bound(&pkts, &key)))
PROGRAM(upper_bound, key -= key == KEYS - 1; MUST(bpf_rbtree_map_upper_bound(&pkts, &key)))
PROGRAM(first_load_bytes, {
	struct pkt *pkt = bpf_rbtree_map_first(&pkts, &key);
	__u8 to[34];

	MUST(pkt && bpf_qdisc_load_bytes(ctx, &pkts, pkt, to, sizeof(to)) > 0);
})
PROGRAM(len, MUST(bpf_rbtree_map_len(&pkts)))
PROGRAM(bytes, MUST(bpf_rbtree_map_bytes(&pkts)))
PROGRAM(pkt_len, MUST(bpf_qdisc_pkt_len(skb)))
PROGRAM(pkt_segs, MUST(bpf_qdisc_pkt_segs(skb)))
PROGRAM(network_offset, asm volatile("" :: "r"(bpf_qdisc_network_offset(skb))))
PROGRAM(note, *bpf_qdisc_note(skb, __u32) = key)
PROGRAM(departure, MUST(bpf_qdisc_departure(ctx, skb)))
PROGRAM(set_departure, bpf_qdisc_set_departure(ctx, skb, key + 1))
PROGRAM(get_hash, MUST(bpf_skb_get_hash(skb)))
PROGRAM(ecn_mark, MUST(bpf_qdisc_ecn_mark(ctx, skb)))
PROGRAM(set_queue, MUST(!bpf_qdisc_set_queue(ctx, skb, 0)))
PROGRAM(bypass, bpf_qdisc_bypass(ctx))
PROGRAM(generation, MUST(ctx->generation))
PROGRAM(dynptr_read, {
	struct bpf_dynptr bytes;
	__u16 protocol = 0;

	MUST(!bpf_dynptr_from_skb((struct __sk_buff *)skb, 0, &bytes));
	MUST(!bpf_dynptr_read(&protocol, sizeof(protocol), &bytes, ETH_HLEN - 2, 0));
})

/* ---- the blocks of <bpf/bpf_qdisc_aqm.h> ---- */

struct bpf_codel codel;
struct bpf_pie pie = { .prob = BPF_PIE_ONE / 100, .delay = 20 * NSEC_PER_MSEC };
struct bpf_red red = { .avg = 15000ULL << 24 };
struct bpf_drr_flow flow;
struct bpf_tbf bucket;
__u64 busy, now = NSEC_PER_SEC, rate = 1000000;

static const struct bpf_codel_params codel_params = { 5 * NSEC_PER_MSEC, 100 * NSEC_PER_MSEC, 1514 };
static const struct bpf_codel_params hasty = { 1, 1, 1514 };
static const struct bpf_pie_params pie_params = {
	15 * NSEC_PER_MSEC, 15 * NSEC_PER_MSEC, 150 * NSEC_PER_MSEC, 2, 20, 1514,
};
static const struct bpf_red_params red_params = { 10000, 30000, 1 << 26, 9, false, NSEC_PER_MSEC };

/* The time goes on between the calls. */
#define LATER(by)	now += (by)

PROGRAM(tx_time, MUST(bpf_qdisc_tx_time(64 + key, rate)))
PROGRAM(time_add, MUST(bpf_qdisc_time_add(rate, key)))
PROGRAM(aqm_drops, MUST(!bpf_aqm_drops(ctx, skb, key < KEYS ? BPF_AQM_MARK : BPF_AQM_DROP)))
PROGRAM(codel_dequeue, LATER(1000); MUST(!bpf_codel_dequeue(&codel, &codel_params, now, now - 1000, 30000)))
PROGRAM(codel_dequeue_drop, LATER(1000); bpf_codel_dequeue(&codel, &hasty, now, 0, 30000))
PROGRAM(codel_empty, bpf_codel_empty(&codel))
PROGRAM(pie_enqueue, LATER(1); bpf_pie_enqueue(&pie, &pie_params, now, 30000))
PROGRAM(pie_enqueue_update, LATER(15 * NSEC_PER_MSEC); bpf_pie_enqueue(&pie, &pie_params, now, 30000))
PROGRAM(pie_dequeue, LATER(1); bpf_pie_dequeue(&pie, &pie_params, now, now - 20 * NSEC_PER_MSEC, 30000))
PROGRAM(red_enqueue, LATER(1); bpf_red_enqueue(&red, &red_params, now, 15000))
PROGRAM(red_dequeue, LATER(1); bpf_red_dequeue(&red, now, 0))
PROGRAM(drr_round, bpf_drr_round(&flow, 2, 1514, 1514, 100))
PROGRAM(tbf_reserve, LATER(1); MUST(bpf_tbf_reserve(&bucket, rate, 15000, now, 100)))
PROGRAM(link_reserve, LATER(1); bpf_qdisc_link_reserve(&busy, now, 1000))
PROGRAM(link_give_back, LATER(1); busy = now; bpf_qdisc_link_give_back(&busy, 1000))

char LICENSE[] SEC("license") = "GPL";
