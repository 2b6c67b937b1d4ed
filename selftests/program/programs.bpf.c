// SPDX-License-Identifier: GPL-2.0
/* For programs.c: packets in inner maps of an ordered map of maps, by mark, and a
 * look at the first packet of a map that leaves it there. programs.c creates
 * `ranks` with an inner map like `rank1`.
 */
#include "../../policies/policy.h"
#include "../lib/map.bpf.h"

struct {
	__u64 key;
	__u64 after;		/* the first key from 150 on */
	__u32 len;
	__u32 len_after;
	__u32 runs;
	__u32 generation;
	__u32 same;		/* runs with the generation of the one before, or 0 */
} seen;

ORDERED(rank1, __u64, struct pkt, 100);
ORDERED(rank2, __u64, struct pkt, 100);
ORDERED(ranks, __u64, __u32, 4);
ORDERED(pkts, __u64, struct pkt, 100);

bool closed = true;

SEC("?qdisc/enqueue/ranks")	/* needs `ranks` as it should be */
int ranks_enqueue(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb = ctx->skb;
	__u64 key = 0, rank = skb->mark;
	void *inner = bpf_map_lookup_elem(&ranks, &rank);

	return inner ? bpf_qdisc_push(ctx, inner, &key, skb) : bpf_qdisc_drop(ctx, skb, 0);
}

/* In the order of their ranks; a rank behind the first leaves when it moves. */
SEC("?qdisc/dequeue/ranks")
int ranks_dequeue(struct sch_bpf_ctx *ctx)
{
	__u64 rank = 0;
	void *inner;
	int i;

	if (closed) {
		ctx->expire = bpf_ktime_get_ns() + NSEC_PER_SEC;
		return 0;
	}
	for (i = 0; i < 4; i++) {
		inner = bpf_rbtree_map_lower_bound(&ranks, &rank);
		if (!inner)
			break;
		if (!bpf_qdisc_pop(ctx, inner))
			break;
		rank++;
	}
	return 0;
}

/* Does not lead to `ranks`, but the other programs' `pkts` */
SEC("qdisc/enqueue/pkts")
int pkts_enqueue(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb = ctx->skb;
	__u64 key = skb->mark;

	seen.runs++;
	seen.key = key;
	seen.same += seen.generation == ctx->generation;
	seen.generation = ctx->generation;
	switch (skb->len) {
	case 66:
		bpf_qdisc_drop(ctx, skb, 0);
		break;
	case 77:
		bpf_qdisc_pass(ctx, skb, 0x10001);	/* there is none */
		break;
	case 88:
		bpf_qdisc_steal(ctx, skb);
		break;
	default:
		bpf_qdisc_push(ctx, &pkts, &key, skb);
	}
	return 4711;			/* means nothing */
}

SEC("qdisc/dequeue/pkts")
int pkts_dequeue(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb;
	struct pkt *pkt;
	__u64 key = 0;

	pkt = bpf_rbtree_map_first(&pkts, &key);
	if (pkt) {
		seen.key = key;
		skb = pkt->skb;
		seen.len = skb ? skb->len : 0;
	}
	key = 150;
	pkt = bpf_rbtree_map_lower_bound(&pkts, &key);
	if (pkt) {
		seen.after = key;
		skb = pkt->skb;
		seen.len_after = skb ? skb->len : 0;
	}
	if (closed) {
		ctx->expire = bpf_ktime_get_ns() + NSEC_PER_SEC;
		return 0;
	}
	return bpf_qdisc_pop(ctx, &pkts);
}

/* All that an enqueue program may call, for BPF_PROG_TEST_RUN */
SEC("qdisc/enqueue/all")
int all_enqueue(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb = ctx->skb, *other;
	__u64 key = bpf_qdisc_departure(ctx, skb);
	struct bpf_dynptr bytes;
	__u8 buffer[14], *data;
	struct pkt *waits;

	seen.runs++;
	seen.key = key;
	seen.len = skb->len;
	if (!bpf_dynptr_from_skb((struct __sk_buff *)skb, 0, &bytes)) {
		data = bpf_dynptr_slice(&bytes, 0, buffer, sizeof(buffer));
		seen.after = data ? data[13] : 0;
	}
	seen.len_after = bpf_skb_get_hash(skb) != 0;
	bpf_qdisc_ecn_mark(ctx, skb);
	bpf_qdisc_set_queue(ctx, skb, 0);
	bpf_skb_tc_classify(ctx, skb, 0, 0);
	bpf_skb_tc_classify(ctx, skb, 1, 0xFFFFFFF3);
	other = bpf_qdisc_take(ctx, &pkts);
	if (other)
		bpf_qdisc_drop(ctx, other, 0);
	other = bpf_qdisc_clone(ctx, skb);
	if (other)
		bpf_qdisc_push(ctx, &pkts, &key, other);
	waits = bpf_map_lookup_elem(&pkts, &key);
	if (waits)
		bpf_qdisc_load_bytes(ctx, &pkts, waits, buffer, sizeof(buffer));
	other = bpf_qdisc_take_youngest(ctx, &pkts, &key);
	if (other)
		bpf_qdisc_push_front(ctx, &pkts, &key, other);
	other = bpf_qdisc_take_from(ctx, &pkts, &key);
	if (other)
		bpf_qdisc_push(ctx, &pkts, &key, other);
	other = bpf_qdisc_take_key(ctx, &pkts, &key);
	if (other)
		bpf_qdisc_push_front(ctx, &pkts, &key, other);
	other = bpf_qdisc_clone(ctx, skb);
	if (other)
		bpf_qdisc_drop(ctx, other, 0);
	return bpf_qdisc_push(ctx, &pkts, &key, skb);
}

char LICENSE[] SEC("license") = "GPL";
