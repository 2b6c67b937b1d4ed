// SPDX-License-Identifier: GPL-2.0
/* Programs that must be refused when they are loaded, each with what the verifier
 * has to say; and, so that a loader which can load nothing is noticed, some that
 * must be accepted. selftests/lib/load.c reads the annotations.
 */
#include "../../policies/policy.h"
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_rbtree.h>

#define __refused(words) __attribute__((btf_decl_tag("refused:" words)))
#define __accepted	 __attribute__((btf_decl_tag("accepted:")))

#define PACKETS(name, key_type, value_type)		\
	struct {					\
		__uint(type, BPF_MAP_TYPE_RBTREE);	\
		__type(key, key_type);			\
		__type(value, value_type);		\
		__uint(max_entries, 8);			\
	} name SEC(".maps")

PACKETS(pkts, __u64, struct pkt);
PACKETS(others, __u64, struct pkt);
BPF_QDISC_QUEUES(inner_pkts, __u64, 8, 2);
PACKETS(numbers, __u64, __u64);			/* ordered, but not of packets */

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, __u64);
	__type(value, struct pkt);
	__uint(max_entries, 8);
} hash SEC(".maps");

#define KEY (&(__u64){ 0 })

/* The packet of the context, read again here: also if it may have been given away */
#define READ_AGAIN(ctx) (*(struct sk_buff * volatile *)&(ctx)->skb)

/* For the qdiscs of struct_ops */
extern void bpf_kfree_skb(struct sk_buff *skb) __ksym;

/* ---- who owns the packet, enqueue ---- */

SEC("qdisc/enqueue")
__accepted
int push(struct sch_bpf_ctx *ctx)
{
	return bpf_qdisc_push(ctx, &pkts, KEY, ctx->skb);
}

SEC("qdisc/enqueue")
__accepted
int drop(struct sch_bpf_ctx *ctx)
{
	return bpf_qdisc_drop(ctx, ctx->skb, QDISC_DROP_OVERLIMIT);
}

SEC("qdisc/enqueue")
__accepted
int lose(struct sch_bpf_ctx *ctx)
{
	return bpf_qdisc_lose(ctx, ctx->skb);
}

SEC("qdisc/enqueue")
__accepted
int orphan_and_push(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb = ctx->skb;

	bpf_qdisc_orphan(ctx, skb);
	return bpf_qdisc_push(ctx, &pkts, KEY, skb);
}

SEC("qdisc/enqueue")
__accepted
int pass(struct sch_bpf_ctx *ctx)
{
	return bpf_qdisc_pass(ctx, ctx->skb, ctx->classid);
}

SEC("qdisc/enqueue")
__accepted
int steal(struct sch_bpf_ctx *ctx)
{
	return bpf_qdisc_steal(ctx, ctx->skb);
}

SEC("qdisc/enqueue")
__accepted
int segment(struct sch_bpf_ctx *ctx)
{
	return bpf_qdisc_segment(ctx, ctx->skb);
}

SEC("qdisc/enqueue")
__refused("Unreleased reference")
int give_to_nobody(struct sch_bpf_ctx *ctx)
{
	return 0;
}

SEC("qdisc/enqueue")
__refused("Unreleased reference")
int read_and_give_to_nobody(struct sch_bpf_ctx *ctx)
{
	return ctx->skb->len;
}

SEC("qdisc/enqueue")
__refused("release kfunc bpf_qdisc_drop_skb expects referenced PTR_TO_BTF_ID")
int drop_after_push(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb = ctx->skb;

	bpf_qdisc_push(ctx, &pkts, KEY, skb);
	return bpf_qdisc_drop(ctx, skb, 0);
}

SEC("qdisc/enqueue")
__refused("release kfunc bpf_qdisc_lose_skb expects referenced PTR_TO_BTF_ID")
int lose_after_push(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb = ctx->skb;

	bpf_qdisc_push(ctx, &pkts, KEY, skb);
	return bpf_qdisc_lose(ctx, skb);
}

/* To let the sender go on is not to give the packet away. */
SEC("qdisc/enqueue")
__refused("Unreleased reference")
int orphan_and_leak(struct sch_bpf_ctx *ctx)
{
	return bpf_qdisc_orphan(ctx, ctx->skb);
}

SEC("qdisc/enqueue")
__refused("release kfunc bpf_qdisc_steal_skb expects referenced PTR_TO_BTF_ID")
int steal_after_pass(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb = ctx->skb;

	bpf_qdisc_pass(ctx, skb, 0x10001);
	return bpf_qdisc_steal(ctx, skb);
}

SEC("qdisc/enqueue")
__refused("release kfunc bpf_qdisc_push_skb expects referenced PTR_TO_BTF_ID")
int push_after_segment(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb = ctx->skb;

	if (bpf_qdisc_segment(ctx, skb))
		return bpf_qdisc_push(ctx, &pkts, KEY, skb);
	return 0;
}

/* A push that fails has dropped the packet. */
SEC("qdisc/enqueue")
__refused("release kfunc bpf_qdisc_drop_skb expects referenced PTR_TO_BTF_ID")
int drop_if_push_fails(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb = ctx->skb;

	if (bpf_qdisc_push(ctx, &pkts, KEY, skb))
		bpf_qdisc_drop(ctx, skb, 0);
	return 0;
}

SEC("qdisc/enqueue")
__refused("release kfunc bpf_qdisc_push_skb expects referenced PTR_TO_BTF_ID")
int push_twice(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb = ctx->skb;

	bpf_qdisc_push(ctx, &pkts, KEY, skb);
	return bpf_qdisc_push(ctx, &pkts, KEY, skb);
}

SEC("qdisc/enqueue")
__refused("Reference may already be released")
int push_twice_from_the_context(struct sch_bpf_ctx *ctx)
{
	bpf_qdisc_push(ctx, &pkts, KEY, ctx->skb);
	return bpf_qdisc_push(ctx, &pkts, KEY, ctx->skb);
}

SEC("qdisc/enqueue")
__refused("invalid mem access 'scalar'")
int read_after_push(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb = ctx->skb;

	bpf_qdisc_push(ctx, &pkts, KEY, skb);
	return skb->len;
}

SEC("qdisc/enqueue")
__refused("Unreleased reference")
int push_on_one_path_only(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb = ctx->skb;

	if (skb->len > 100)
		return bpf_qdisc_push(ctx, &pkts, KEY, skb);
	return 0;
}

SEC("qdisc/enqueue")
__refused("Unreleased reference")
int leak_a_packet_that_was_taken(struct sch_bpf_ctx *ctx)
{
	bpf_qdisc_take(ctx, &pkts);
	return bpf_qdisc_drop(ctx, ctx->skb, 0);
}

SEC("qdisc/enqueue")
__refused("Unreleased reference")
int leak_a_clone(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb = ctx->skb;

	bpf_qdisc_clone(ctx, skb);
	return bpf_qdisc_drop(ctx, skb, 0);
}

SEC("qdisc/enqueue")
__refused("Possibly NULL pointer")
int push_what_may_be_null(struct sch_bpf_ctx *ctx)
{
	bpf_qdisc_push(ctx, &pkts, KEY, bpf_qdisc_take(ctx, &pkts));
	return bpf_qdisc_drop(ctx, ctx->skb, 0);
}

/* What a program returns means nothing. */
SEC("qdisc/enqueue")
__accepted
int return_any_number(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb = ctx->skb;
	__u32 len = skb->len;

	bpf_qdisc_push(ctx, &pkts, KEY, skb);
	return len;
}

/* What says that the packet is gone has to be heeded. */
SEC("qdisc/enqueue")
__refused("release kfunc bpf_qdisc_push_skb expects referenced PTR_TO_BTF_ID")
int push_whatever_filters_say(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb = ctx->skb;

	bpf_qdisc_filter(ctx, skb);
	return bpf_qdisc_push(ctx, &pkts, KEY, skb);
}

SEC("qdisc/enqueue")
__accepted
int push_what_filters_leave(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb = ctx->skb;

	return bpf_qdisc_filter(ctx, skb) ? 0 : bpf_qdisc_push(ctx, &pkts, KEY, skb);
}

SEC("qdisc/enqueue")
__refused("release kfunc bpf_qdisc_push_skb expects referenced PTR_TO_BTF_ID")
int push_also_what_was_cut(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb = ctx->skb;

	bpf_qdisc_cut(ctx, skb, 1514);
	return bpf_qdisc_push(ctx, &pkts, KEY, skb);
}

SEC("qdisc/enqueue")
__accepted
int push_what_was_not_cut(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb = ctx->skb;

	return bpf_qdisc_cut(ctx, skb, 1514) ? 0 : bpf_qdisc_push(ctx, &pkts, KEY, skb);
}

/* It marks, or says what is to be done; it drops nothing. */
SEC("qdisc/enqueue")
__refused("Unreleased reference")
int drop_by_an_aqm(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb = ctx->skb;

	return bpf_aqm_drops(ctx, skb, BPF_AQM_DROP) ? 0 : bpf_qdisc_push(ctx, &pkts, KEY, skb);
}

/* ---- who owns the packet, dequeue ---- */

SEC("qdisc/dequeue")
__accepted
int take_and_deliver(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb = bpf_qdisc_take(ctx, &pkts);

	return skb ? bpf_qdisc_deliver(ctx, skb) : 0;
}

SEC("qdisc/dequeue")
__refused("Unreleased reference")
int take_and_leak(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb = bpf_qdisc_take(ctx, &pkts);

	return skb ? skb->len : 0;
}

SEC("qdisc/dequeue")
__accepted
int take_and_lose(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb = bpf_qdisc_take(ctx, &pkts);

	return skb ? bpf_qdisc_lose(ctx, skb) : 0;
}

SEC("qdisc/dequeue")
__refused("release kfunc bpf_qdisc_deliver_skb expects referenced PTR_TO_BTF_ID")
int deliver_twice(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb = bpf_qdisc_take(ctx, &pkts);

	if (!skb)
		return 0;
	bpf_qdisc_deliver(ctx, skb);
	return bpf_qdisc_deliver(ctx, skb);
}

SEC("qdisc/dequeue")
__accepted
int look_at_what_was_popped(struct sch_bpf_ctx *ctx)
{
	int err = bpf_qdisc_pop(ctx, &pkts);
	struct sk_buff *skb = ctx->skb;

	if (skb) {
		skb->mark = skb->len;
		bpf_qdisc_ecn_mark(ctx, skb);
	}
	return err;
}

SEC("qdisc/dequeue")
__refused("invalid mem access 'trusted_ptr_or_null_'")
int look_at_what_may_not_be_there(struct sch_bpf_ctx *ctx)
{
	bpf_qdisc_pop(ctx, &pkts);
	return ctx->skb->len;
}

/* That it was there when it was read before says nothing. */
SEC("qdisc/dequeue")
__refused("invalid mem access 'trusted_ptr_or_null_'")
int look_at_what_was_there(struct sch_bpf_ctx *ctx)
{
	bpf_qdisc_pop(ctx, &pkts);
	if (READ_AGAIN(ctx))
		return READ_AGAIN(ctx)->len;
	return 0;
}

SEC("qdisc/dequeue")
__refused("release kfunc bpf_qdisc_drop_skb expects referenced PTR_TO_BTF_ID")
int drop_what_was_popped(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb;

	bpf_qdisc_pop(ctx, &pkts);
	skb = ctx->skb;
	if (skb)
		bpf_qdisc_drop(ctx, skb, 0);
	return 0;
}

SEC("qdisc/dequeue")
__refused("Unreleased reference")
int leak_the_last(struct sch_bpf_ctx *ctx)
{
	bpf_qdisc_take_last(ctx, &pkts);
	return 0;
}

SEC("qdisc/dequeue")
__refused("Unreleased reference")
int leak_what_is_due(struct sch_bpf_ctx *ctx)
{
	bpf_qdisc_take_until(ctx, &pkts, KEY);
	return 0;
}

SEC("qdisc/enqueue")
__refused("Unreleased reference")
int leak_the_oldest_of_a_key(struct sch_bpf_ctx *ctx)
{
	bpf_qdisc_take_key(ctx, &pkts, KEY);
	return bpf_qdisc_drop(ctx, ctx->skb, 0);
}

SEC("qdisc/enqueue")
__refused("Unreleased reference")
int leak_the_youngest_of_a_key(struct sch_bpf_ctx *ctx)
{
	bpf_qdisc_take_youngest(ctx, &pkts, KEY);
	return bpf_qdisc_drop(ctx, ctx->skb, 0);
}

SEC("qdisc/dequeue")
__refused("Unreleased reference")
int leak_the_first_from_a_key_on(struct sch_bpf_ctx *ctx)
{
	bpf_qdisc_take_from(ctx, &pkts, KEY);
	return 0;
}

SEC("qdisc/enqueue")
__accepted
int look_and_put_back(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *other = bpf_qdisc_take_key(ctx, &pkts, KEY);
	struct bpf_dynptr bytes;
	__u8 first = 0;

	if (other) {
		if (!bpf_dynptr_from_skb((struct __sk_buff *)other, 0, &bytes))
			bpf_dynptr_read(&first, sizeof(first), &bytes, 0, 0);
		if (first)
			bpf_qdisc_drop(ctx, other, 0);
		else
			bpf_qdisc_push_front(ctx, &pkts, KEY, other);
	}
	return bpf_qdisc_push(ctx, &pkts, KEY, ctx->skb);
}

SEC("qdisc/dequeue")
__refused("release kfunc bpf_qdisc_deliver_skb expects referenced PTR_TO_BTF_ID")
int put_back_and_deliver(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb = bpf_qdisc_take(ctx, &pkts);

	if (!skb)
		return 0;
	bpf_qdisc_push_front(ctx, &pkts, KEY, skb);
	return bpf_qdisc_deliver(ctx, skb);
}

/* A packet that waits is the map's: it can be looked at, no more. */
SEC("qdisc/enqueue")
__refused("release kfunc bpf_qdisc_drop_skb expects referenced PTR_TO_BTF_ID")
int drop_what_waits(struct sch_bpf_ctx *ctx)
{
	struct pkt *pkt = bpf_rbtree_map_last(&pkts, KEY);
	struct sk_buff *skb = pkt ? pkt->skb : NULL;

	if (skb)
		bpf_qdisc_drop(ctx, skb, 0);
	return bpf_qdisc_drop(ctx, ctx->skb, 0);
}

/* Another CPU may free it meanwhile, where the map is another qdisc's. */
static struct sk_buff *first_that_waits(void)
{
	struct pkt *pkt = bpf_rbtree_map_first(&pkts, KEY);

	return pkt ? pkt->skb : NULL;
}

SEC("qdisc/dequeue")
__accepted
int read_what_waits(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb = first_that_waits();

	return skb ? skb->mark + bpf_qdisc_pkt_len(skb) + *bpf_qdisc_note(skb, __u32) : 0;
}

SEC("qdisc/dequeue")
__refused("must be referenced or trusted")
int mark_what_waits(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb = first_that_waits();

	return skb ? bpf_qdisc_ecn_mark(ctx, skb) : 0;
}

#define LOAD_BYTES(name, value, words)						\
SEC("qdisc/dequeue")								\
__refused(words)								\
int name(struct sch_bpf_ctx *ctx)						\
{										\
	struct pkt *pkt = bpf_rbtree_map_first(&pkts, KEY);			\
	__u64 byte = 0;								\
										\
	(void)pkt;								\
	return bpf_qdisc_load_bytes(ctx, &pkts, (void *)(value), &byte, 1);	\
}

#define NO_VALUE	"is not the value of an element of map 'pkts'"

LOAD_BYTES(bytes_of_perhaps_nothing, pkt, "Possibly NULL pointer passed")
LOAD_BYTES(bytes_of_nothing, NULL, "Possibly NULL pointer passed")
LOAD_BYTES(bytes_of_the_packet, pkt ? pkt->skb : NULL, "Possibly NULL pointer passed")
LOAD_BYTES(bytes_by_a_local_value, &byte, NO_VALUE)
LOAD_BYTES(bytes_by_a_number, 42, NO_VALUE)

SEC("qdisc/dequeue")
__refused(NO_VALUE)
int bytes_beside_the_value(struct sch_bpf_ctx *ctx)
{
	struct pkt *pkt = bpf_rbtree_map_first(&pkts, KEY);
	__u8 byte = 0;

	return pkt ? bpf_qdisc_load_bytes(ctx, &pkts, pkt + 1, &byte, sizeof(byte)) : 0;
}

SEC("qdisc/dequeue")
__refused(NO_VALUE)
int bytes_of_another_map(struct sch_bpf_ctx *ctx)
{
	struct pkt *pkt = bpf_rbtree_map_first(&others, KEY);
	__u8 byte = 0;

	return pkt ? bpf_qdisc_load_bytes(ctx, &pkts, pkt, &byte, sizeof(byte)) : 0;
}

/* To the verifier both inner maps have the type of one, and differ by where they were found. */
SEC("qdisc/dequeue")
__refused("is not the value of an element of map '")
int bytes_of_another_inner_map(struct sch_bpf_ctx *ctx)
{
	void *first = bpf_map_lookup_elem(&inner_pkts, &(__u32){ 0 });
	void *second = bpf_map_lookup_elem(&inner_pkts, &(__u32){ 1 });
	struct pkt *pkt = second ? bpf_rbtree_map_first(second, KEY) : NULL;
	__u8 byte = 0;

	return first && pkt ? bpf_qdisc_load_bytes(ctx, first, pkt, &byte, sizeof(byte)) : 0;
}

SEC("qdisc/dequeue")
__accepted
int bytes_of_an_inner_map(struct sch_bpf_ctx *ctx)
{
	void *inner = bpf_map_lookup_elem(&inner_pkts, &(__u32){ 0 });
	struct pkt *pkt = inner ? bpf_rbtree_map_first(inner, KEY) : NULL;
	__u8 byte = 0;

	return pkt ? bpf_qdisc_load_bytes(ctx, inner, pkt, &byte, sizeof(byte)) : 0;
}

SEC("qdisc/dequeue")
__refused("must be referenced or trusted")
int bytes_of_what_waits(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb = first_that_waits();
	struct bpf_dynptr bytes;

	return skb ? bpf_dynptr_from_skb((struct __sk_buff *)skb, 0, &bytes) : 0;
}

SEC("qdisc/dequeue")
__refused("must be referenced or trusted")
int hash_what_waits(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb = first_that_waits();

	return skb ? bpf_skb_get_hash(skb) : 0;
}

SEC("qdisc/dequeue")
__refused("must be referenced or trusted")
int departure_of_what_waits(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb = first_that_waits();

	return skb ? bpf_qdisc_departure(ctx, skb) : 0;
}

SEC("qdisc/dequeue")
__refused("must be referenced or trusted")
int set_departure_of_what_waits(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb = first_that_waits();

	if (skb)
		bpf_qdisc_set_departure(ctx, skb, 1);
	return 0;
}

SEC("qdisc/dequeue")
__refused("must be referenced or trusted")
int set_queue_of_what_waits(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb = first_that_waits();

	return skb ? bpf_qdisc_set_queue(ctx, skb, 0) : 0;
}

SEC("qdisc/dequeue")
__refused("must be referenced or trusted")
int orphan_what_waits(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb = first_that_waits();

	return skb ? bpf_qdisc_orphan(ctx, skb) : 0;
}

SEC("qdisc/enqueue")
__refused("must be referenced or trusted")
int clone_what_waits(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb = first_that_waits(), *clone = skb ? bpf_qdisc_clone(ctx, skb) : NULL;

	if (clone)
		bpf_qdisc_drop(ctx, clone, 0);
	return bpf_qdisc_drop(ctx, ctx->skb, 0);
}

SEC("qdisc/dequeue")
__refused("only read is supported")
int write_the_mark_of_what_waits(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb = first_that_waits();

	if (skb)
		skb->mark = 1;
	return 0;
}

SEC("qdisc/dequeue")
__refused("only read is supported")
int write_the_note_of_what_waits(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb = first_that_waits();

	if (skb)
		*bpf_qdisc_note(skb, __u32) = 1;
	return 0;
}

SEC("qdisc/dequeue")
__accepted
int deliver_nothing(struct sch_bpf_ctx *ctx)
{
	ctx->expire = bpf_ktime_get_ns() + NSEC_PER_SEC;
	return 0;
}

SEC("qdisc/dequeue")
__accepted
int make_room_and_keep_the_rest(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb = bpf_qdisc_take_last(ctx, &pkts);

	if (skb && skb->len > 100)
		return bpf_qdisc_drop(ctx, skb, 0);
	return skb ? bpf_qdisc_push(ctx, &pkts, KEY, skb) : 0;
}

/* ---- paths that join, of which each owns another packet ---- */

/* A branch that stays one, whichever path the compiler would rather have first */
#define IF(condition, number, label)						\
	asm volatile goto("if %[n] " condition " 0 goto %l[" #label "]"		\
			  : : [n] "r"(number) : : label)

/* Owns a clone where the first path owns ctx->skb; the verifier sees that one first. */
SEC("qdisc/enqueue")
__refused("Reference may already be released")
int join_with_a_clone(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb = ctx->skb, *clone;
	__u32 mark = skb->mark;

	IF("!=", mark, slow);
join:
	return bpf_qdisc_drop(ctx, READ_AGAIN(ctx), 0);
slow:
	clone = bpf_qdisc_clone(ctx, skb);
	if (clone)
		bpf_qdisc_push(ctx, &pkts, KEY, skb);
	goto join;
}

/* The same, with the other path first */
SEC("qdisc/enqueue")
__refused("Reference may already be released")
int join_with_a_clone_first(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb = ctx->skb, *clone;
	__u32 mark = skb->mark;

	IF("==", mark, join);
	clone = bpf_qdisc_clone(ctx, skb);
	if (clone)
		bpf_qdisc_push(ctx, &pkts, KEY, skb);
join:
	return bpf_qdisc_drop(ctx, READ_AGAIN(ctx), 0);
}

SEC("qdisc/enqueue")
__refused("Reference may already be released")
int join_with_a_packet_that_was_taken(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb = ctx->skb, *taken;
	__u32 mark = skb->mark;

	IF("!=", mark, slow);
join:
	return bpf_qdisc_push(ctx, &pkts, KEY, READ_AGAIN(ctx));
slow:
	taken = bpf_qdisc_take(ctx, &pkts);
	if (taken)
		bpf_qdisc_drop(ctx, skb, 0);
	goto join;
}

SEC("qdisc/enqueue")
__refused("Reference may already be released")
int join_with_a_packet_that_was_taken_first(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb = ctx->skb, *taken;
	__u32 mark = skb->mark;

	IF("==", mark, join);
	taken = bpf_qdisc_take(ctx, &pkts);
	if (taken)
		bpf_qdisc_drop(ctx, skb, 0);
join:
	return bpf_qdisc_push(ctx, &pkts, KEY, READ_AGAIN(ctx));
}

/* A path that owns nothing any more */
SEC("qdisc/enqueue")
__refused("Reference may already be released")
int join_with_nothing(struct sch_bpf_ctx *ctx)
{
	__u32 mark = ctx->skb->mark;

	IF("!=", mark, slow);
join:
	return bpf_qdisc_drop(ctx, READ_AGAIN(ctx), 0);
slow:
	bpf_qdisc_steal(ctx, ctx->skb);
	goto join;
}

SEC("qdisc/enqueue")
__refused("Reference may already be released")
int join_with_nothing_first(struct sch_bpf_ctx *ctx)
{
	__u32 mark = ctx->skb->mark;

	IF("==", mark, join);
	bpf_qdisc_steal(ctx, ctx->skb);
join:
	return bpf_qdisc_drop(ctx, READ_AGAIN(ctx), 0);
}

/* Both own a packet in the same register, and it is this one that they give away. */
SEC("qdisc/enqueue")
__accepted
int join_and_drop_what_is_owned(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb = ctx->skb, *clone;
	__u32 mark = skb->mark;

	IF("!=", mark, slow);
join:
	return bpf_qdisc_drop(ctx, skb, 0);
slow:
	clone = bpf_qdisc_clone(ctx, skb);
	if (!clone)
		goto join;
	bpf_qdisc_push(ctx, &pkts, KEY, skb);
	skb = clone;
	goto join;
}

SEC("qdisc/enqueue")
__accepted
int join_and_drop_what_is_owned_in_the_other_order(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb = ctx->skb, *clone;
	__u32 mark = skb->mark;

	IF("==", mark, join);
	clone = bpf_qdisc_clone(ctx, skb);
	if (!clone)
		goto join;
	bpf_qdisc_push(ctx, &pkts, KEY, skb);
	skb = clone;
join:
	return bpf_qdisc_drop(ctx, skb, 0);
}

/* Both own the packet of the context. */
SEC("qdisc/enqueue")
__accepted
int join_and_read_again(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb = ctx->skb, *clone;
	__u32 mark = skb->mark;

	IF("!=", mark, slow);
join:
	return bpf_qdisc_push(ctx, &pkts, KEY, READ_AGAIN(ctx));
slow:
	clone = bpf_qdisc_clone(ctx, skb);
	if (clone)
		bpf_qdisc_push(ctx, &pkts, KEY, clone);
	goto join;
}

/* The end of a loop's first round is a join, too. */
SEC("qdisc/enqueue")
__refused("Reference may already be released")
int loop_and_read_again(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb = ctx->skb, *clone;
	int i;

	bpf_for(i, 0, 100) {
		clone = bpf_qdisc_clone(ctx, skb);
		if (!clone)
			break;
		bpf_qdisc_push(ctx, &pkts, KEY, skb);
		skb = clone;
	}
	return bpf_qdisc_drop(ctx, READ_AGAIN(ctx), 0);
}

SEC("qdisc/enqueue")
__accepted
int loop_and_drop_what_is_owned(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb = ctx->skb, *clone;
	int i;

	bpf_for(i, 0, 100) {
		clone = bpf_qdisc_clone(ctx, skb);
		if (!clone)
			break;
		bpf_qdisc_push(ctx, &pkts, KEY, skb);
		skb = clone;
	}
	return bpf_qdisc_drop(ctx, skb, 0);
}

SEC("qdisc/enqueue")
__refused("Unreleased reference")
int loop_and_leak(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *clone = NULL;
	int i;

	bpf_for(i, 0, 100) {
		clone = bpf_qdisc_clone(ctx, ctx->skb);
		if (!clone)
			break;
	}
	if (clone)
		bpf_qdisc_drop(ctx, clone, 0);
	return bpf_qdisc_drop(ctx, ctx->skb, 0);
}

static __noinline int push_again(struct sch_bpf_ctx *ctx)
{
	return bpf_qdisc_push(ctx, &pkts, KEY, READ_AGAIN(ctx));
}

SEC("qdisc/enqueue")
__refused("Reference may already be released")
int join_in_a_subprogram(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb = ctx->skb, *clone;
	__u32 mark = skb->mark;

	IF("!=", mark, slow);
join:
	return push_again(ctx);
slow:
	clone = bpf_qdisc_clone(ctx, skb);
	if (clone)
		bpf_qdisc_drop(ctx, skb, 0);
	goto join;
}

SEC("qdisc/enqueue")
__refused("Reference may already be released")
int join_in_a_subprogram_in_the_other_order(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb = ctx->skb, *clone;
	__u32 mark = skb->mark;

	IF("==", mark, join);
	clone = bpf_qdisc_clone(ctx, skb);
	if (clone)
		bpf_qdisc_drop(ctx, skb, 0);
join:
	return push_again(ctx);
}

SEC("qdisc/enqueue")
__accepted
int push_in_a_subprogram(struct sch_bpf_ctx *ctx)
{
	return push_again(ctx);
}

static __noinline int push_if_long(struct sch_bpf_ctx *ctx, struct sk_buff *skb)
{
	return skb->len > 100 ? bpf_qdisc_push(ctx, &pkts, KEY, skb) : 0;
}

SEC("qdisc/enqueue")
__refused("Unreleased reference")
int leak_in_a_subprogram(struct sch_bpf_ctx *ctx)
{
	return push_if_long(ctx, ctx->skb);
}

/* It is looked at alone, and so does not own a packet. */
__noinline int push_in_a_global_function(struct sch_bpf_ctx *ctx)
{
	return bpf_qdisc_push(ctx, &pkts, KEY, ctx->skb);
}

SEC("qdisc/enqueue")
__refused("Unreleased reference")
int push_globally(struct sch_bpf_ctx *ctx)
{
	return push_in_a_global_function(ctx);
}

struct loop {
	struct sch_bpf_ctx *ctx;
	__u64 done;
};

static long push_in_a_callback(__u64 i, struct loop *loop)
{
	struct sch_bpf_ctx *ctx = loop->ctx;

	bpf_qdisc_push(ctx, &pkts, KEY, READ_AGAIN(ctx));
	return 0;
}

SEC("qdisc/enqueue")
__refused("Unreleased reference")
int callback_that_pushes_each_time(struct sch_bpf_ctx *ctx)
{
	struct loop loop = { ctx };

	bpf_loop(2, push_in_a_callback, &loop, 0);
	return 0;
}

static long push_a_clone_in_a_callback(__u64 i, struct loop *loop)
{
	struct sch_bpf_ctx *ctx = loop->ctx;
	struct sk_buff *clone = bpf_qdisc_clone(ctx, ctx->skb);

	if (clone)
		bpf_qdisc_push(ctx, &pkts, KEY, clone);
	return 0;
}

SEC("qdisc/enqueue")
__accepted
int callback_that_pushes_clones(struct sch_bpf_ctx *ctx)
{
	struct loop loop = { ctx };

	bpf_loop(2, push_a_clone_in_a_callback, &loop, 0);
	return bpf_qdisc_drop(ctx, READ_AGAIN(ctx), 0);
}

SEC("qdisc/enqueue")
__refused("Reference may already be released")
int callback_without_a_packet(struct sch_bpf_ctx *ctx)
{
	struct loop loop = { ctx };

	bpf_qdisc_drop(ctx, ctx->skb, 0);
	bpf_loop(2, push_a_clone_in_a_callback, &loop, 0);
	return 0;
}

/*
 * Within a callback: one path owns a clone where the other owns ctx->skb. No later round gives a
 * packet away, so what is refused is the path of the clone, and what it is refused for is the join.
 */
static long join_in_a_callback(__u64 i, struct loop *loop)
{
	struct sch_bpf_ctx *ctx = loop->ctx;
	struct sk_buff *clone;

	if (loop->done)
		return 1;
	IF("!=", i, slow);
join:
	loop->done = 1;
	return 1;
slow:
	clone = bpf_qdisc_clone(ctx, ctx->skb);
	if (clone)
		bpf_qdisc_drop(ctx, ctx->skb, 0);
	goto join;
}

SEC("qdisc/enqueue")
__refused("Reference may already be released")
int callback_with_a_join(struct sch_bpf_ctx *ctx)
{
	struct loop loop = { ctx };

	bpf_loop(2, join_in_a_callback, &loop, 0);
	return bpf_qdisc_drop(ctx, READ_AGAIN(ctx), 0);
}

static long join_in_a_callback_first(__u64 i, struct loop *loop)
{
	struct sch_bpf_ctx *ctx = loop->ctx;
	struct sk_buff *clone;

	if (loop->done)
		return 1;
	IF("==", i, join);
	clone = bpf_qdisc_clone(ctx, ctx->skb);
	if (clone)
		bpf_qdisc_drop(ctx, ctx->skb, 0);
join:
	loop->done = 1;
	return 1;
}

SEC("qdisc/enqueue")
__refused("Reference may already be released")
int callback_with_a_join_in_the_other_order(struct sch_bpf_ctx *ctx)
{
	struct loop loop = { ctx };

	bpf_loop(2, join_in_a_callback_first, &loop, 0);
	return bpf_qdisc_drop(ctx, READ_AGAIN(ctx), 0);
}

/* The same, where both paths own ctx->skb */
static long join_alike_in_a_callback(__u64 i, struct loop *loop)
{
	struct sch_bpf_ctx *ctx = loop->ctx;
	struct sk_buff *clone;

	if (loop->done)
		return 1;
	IF("!=", i, slow);
join:
	loop->done = 1;
	return 1;
slow:
	clone = bpf_qdisc_clone(ctx, ctx->skb);
	if (clone)
		bpf_qdisc_drop(ctx, clone, 0);
	goto join;
}

SEC("qdisc/enqueue")
__accepted
int callback_whose_paths_own_the_same(struct sch_bpf_ctx *ctx)
{
	struct loop loop = { ctx };

	bpf_loop(2, join_alike_in_a_callback, &loop, 0);
	return bpf_qdisc_drop(ctx, READ_AGAIN(ctx), 0);
}

static long leak_in_a_callback(__u64 i, struct loop *loop)
{
	bpf_qdisc_clone(loop->ctx, loop->ctx->skb);
	return 0;
}

SEC("qdisc/enqueue")
__refused("Unreleased reference")
int callback_that_leaks(struct sch_bpf_ctx *ctx)
{
	struct loop loop = { ctx };

	bpf_loop(2, leak_in_a_callback, &loop, 0);
	return bpf_qdisc_drop(ctx, ctx->skb, 0);
}

/* ---- what belongs to the other direction ---- */

SEC("qdisc/enqueue")
__refused("is not allowed")
int pop_in_enqueue(struct sch_bpf_ctx *ctx)
{
	bpf_qdisc_pop(ctx, &pkts);
	return bpf_qdisc_drop(ctx, ctx->skb, 0);
}

SEC("qdisc/enqueue")
__refused("is not allowed")
int pop_from_in_enqueue(struct sch_bpf_ctx *ctx)
{
	bpf_qdisc_pop_from(ctx, &pkts, KEY);
	return bpf_qdisc_drop(ctx, ctx->skb, 0);
}

SEC("qdisc/enqueue")
__refused("is not allowed")
int pop_until_in_enqueue(struct sch_bpf_ctx *ctx)
{
	bpf_qdisc_pop_until(ctx, &pkts, KEY);
	return bpf_qdisc_drop(ctx, ctx->skb, 0);
}

SEC("qdisc/enqueue")
__refused("is not allowed")
int pop_key_in_enqueue(struct sch_bpf_ctx *ctx)
{
	bpf_qdisc_pop_key(ctx, &pkts, KEY);
	return bpf_qdisc_drop(ctx, ctx->skb, 0);
}

SEC("qdisc/enqueue")
__refused("is not allowed")
int pop_class_in_enqueue(struct sch_bpf_ctx *ctx)
{
	bpf_qdisc_pop_class(ctx, 0x10001);
	return bpf_qdisc_drop(ctx, ctx->skb, 0);
}

SEC("qdisc/dequeue")
__refused("is not allowed")
int classify_in_dequeue(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb = bpf_qdisc_take(ctx, &pkts);

	if (!skb)
		return 0;
	bpf_skb_tc_classify(ctx, skb, 0, 0);
	return bpf_qdisc_deliver(ctx, skb);
}

SEC("qdisc/dequeue")
__refused("is not allowed")
int filter_in_dequeue(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb = bpf_qdisc_take(ctx, &pkts);

	return skb && !bpf_qdisc_filter(ctx, skb) ? bpf_qdisc_deliver(ctx, skb) : 0;
}

SEC("qdisc/dequeue")
__refused("is not allowed")
int cut_in_dequeue(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb = bpf_qdisc_take(ctx, &pkts);

	return skb && !bpf_qdisc_cut(ctx, skb, 1514) ? bpf_qdisc_deliver(ctx, skb) : 0;
}

SEC("qdisc/enqueue")
__refused("is not allowed")
int deliver_in_enqueue(struct sch_bpf_ctx *ctx)
{
	return bpf_qdisc_deliver(ctx, ctx->skb);
}

SEC("qdisc/dequeue")
__refused("is not allowed")
int pass_in_dequeue(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb = bpf_qdisc_take(ctx, &pkts);

	return skb ? bpf_qdisc_pass(ctx, skb, 0x10001) : 0;
}

SEC("qdisc/dequeue")
__refused("is not allowed")
int steal_in_dequeue(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb = bpf_qdisc_take(ctx, &pkts);

	return skb ? bpf_qdisc_steal(ctx, skb) : 0;
}

SEC("qdisc/dequeue")
__refused("is not allowed")
int segment_in_dequeue(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb = bpf_qdisc_take(ctx, &pkts);

	return skb ? bpf_qdisc_segment(ctx, skb) : 0;
}

SEC("qdisc/enqueue")
__refused("is not allowed")
int class_head_in_enqueue(struct sch_bpf_ctx *ctx)
{
	bpf_qdisc_class_head(ctx, 0x10001);
	return bpf_qdisc_drop(ctx, ctx->skb, 0);
}

SEC("qdisc/enqueue")
__refused("expects")
int departure_of_a_packet_that_was_given_away(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb = ctx->skb;

	bpf_qdisc_push(ctx, &pkts, KEY, skb);
	bpf_qdisc_set_departure(ctx, skb, 1);
	return 0;
}

SEC("qdisc/enqueue")
__refused("expects")
int departure_after_push(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb = ctx->skb;

	bpf_qdisc_push(ctx, &pkts, KEY, skb);
	return bpf_qdisc_departure(ctx, skb);
}

SEC("qdisc/enqueue")
__refused("expects")
int set_queue_after_push(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb = ctx->skb;

	bpf_qdisc_push(ctx, &pkts, KEY, skb);
	return bpf_qdisc_set_queue(ctx, skb, 0);
}

SEC("qdisc/enqueue")
__refused("expects")
int mark_after_push(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb = ctx->skb;

	bpf_qdisc_push(ctx, &pkts, KEY, skb);
	return bpf_aqm_drops(ctx, skb, BPF_AQM_MARK);
}

SEC("qdisc/enqueue")
__refused("expects")
int hash_after_push(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb = ctx->skb;

	bpf_qdisc_push(ctx, &pkts, KEY, skb);
	return bpf_skb_get_hash(skb);
}

SEC("qdisc/enqueue")
__refused("expects")
int classify_after_push(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb = ctx->skb;

	bpf_qdisc_push(ctx, &pkts, KEY, skb);
	return bpf_skb_tc_classify(ctx, skb, 0, 0);
}

SEC("qdisc/enqueue")
__refused("expects")
int clone_after_push(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb = ctx->skb, *clone;

	bpf_qdisc_push(ctx, &pkts, KEY, skb);
	clone = bpf_qdisc_clone(ctx, skb);
	return clone ? bpf_qdisc_drop(ctx, clone, 0) : 0;
}

SEC("qdisc/enqueue")
__refused("invalid mem access 'scalar'")
int length_after_push(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb = ctx->skb;

	bpf_qdisc_push(ctx, &pkts, KEY, skb);
	return bpf_qdisc_pkt_len(skb) + bpf_qdisc_pkt_segs(skb) + bpf_qdisc_network_offset(skb);
}

SEC("qdisc/enqueue")
__refused("invalid mem access 'scalar'")
int socket_after_push(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb = ctx->skb;

	bpf_qdisc_push(ctx, &pkts, KEY, skb);
	return bpf_qdisc_socket(skb) ? 1 : 0;
}

SEC("qdisc/enqueue")
__refused("invalid mem access 'rcu_ptr_or_null_'")
int socket_that_may_not_be_there(struct sch_bpf_ctx *ctx)
{
	__u32 state = ctx->skb->sk->__sk_common.skc_state;

	return bpf_qdisc_drop(ctx, ctx->skb, state);
}

SEC("qdisc/enqueue")
__accepted
int socket_that_is_there(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb = ctx->skb;
	struct sock *sk = bpf_qdisc_socket(skb);

	return bpf_qdisc_drop(ctx, skb, sk ? sk->__sk_common.skc_state : 0);
}

SEC("qdisc/enqueue")
__refused("expects")
int orphan_after_push(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb = ctx->skb;

	bpf_qdisc_push(ctx, &pkts, KEY, skb);
	return bpf_qdisc_orphan(ctx, skb);
}

SEC("qdisc/dequeue")
__accepted
int orphan_a_packet_that_leaves(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb;

	bpf_qdisc_pop(ctx, &pkts);
	skb = ctx->skb;
	return skb ? bpf_qdisc_orphan(ctx, skb) : 0;
}

SEC("qdisc/dequeue")
__accepted
int departure_of_a_packet_that_leaves(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb;

	bpf_qdisc_pop(ctx, &pkts);
	skb = ctx->skb;
	if (skb)
		bpf_qdisc_set_departure(ctx, skb, 1);
	return 0;
}

SEC("qdisc/enqueue")
__refused("expire is for dequeue programs, which can wait")
int expire_in_enqueue(struct sch_bpf_ctx *ctx)
{
	ctx->expire = 1;
	return bpf_qdisc_drop(ctx, ctx->skb, 0);
}

SEC("tc")
__refused("is not allowed")
int push_in_another_program_type(struct __sk_buff *skb)
{
	return bpf_qdisc_push((void *)skb, &pkts, KEY, (void *)skb);
}

/* ---- maps and keys ---- */

SEC("qdisc/enqueue")
__refused("is not a key of map 'pkts', 8 bytes")
int key_too_short(struct sch_bpf_ctx *ctx)
{
	__u32 key = 0;

	return bpf_qdisc_push(ctx, &pkts, &key, ctx->skb);
}

SEC("qdisc/dequeue")
__refused("is not a key of map 'pkts', 8 bytes")
int bound_too_short(struct sch_bpf_ctx *ctx)
{
	__u16 key = 0;

	return bpf_qdisc_pop_until(ctx, &pkts, &key);
}

SEC("qdisc/dequeue")
__refused("is ptr_Qdisc, whose memory may end before off=65536 size=8")
int key_behind_the_qdisc(struct sch_bpf_ctx *ctx)
{
	return bpf_qdisc_pop_until(ctx, &pkts, (void *)ctx->qdisc + 65536);
}

SEC("qdisc/enqueue")
__refused("is not a key of map 'pkts', 8 bytes")
int key_in_front_too_short(struct sch_bpf_ctx *ctx)
{
	__u32 key = 0;

	return bpf_qdisc_push_front(ctx, &pkts, &key, ctx->skb);
}

#define TAKE_BY_A_SHORT_KEY(take)							\
SEC("qdisc/dequeue")									\
__refused("is not a key of map 'pkts', 8 bytes")					\
int take##_by_a_short_key(struct sch_bpf_ctx *ctx)					\
{											\
	__u32 key = 0;									\
	struct sk_buff *skb = bpf_qdisc_##take(ctx, &pkts, &key);			\
											\
	return skb ? bpf_qdisc_drop(ctx, skb, 0) : 0;					\
}

TAKE_BY_A_SHORT_KEY(take_until)
TAKE_BY_A_SHORT_KEY(take_key)
TAKE_BY_A_SHORT_KEY(take_youngest)
TAKE_BY_A_SHORT_KEY(take_from)

#define POP_BY_A_SHORT_KEY(pop)							\
SEC("qdisc/dequeue")									\
__refused("is not a key of map 'pkts', 8 bytes")					\
int pop##_by_a_short_key(struct sch_bpf_ctx *ctx)					\
{											\
	__u32 key = 0;									\
											\
	return bpf_qdisc_##pop(ctx, &pkts, &key);					\
}

POP_BY_A_SHORT_KEY(pop_key)
POP_BY_A_SHORT_KEY(pop_from)

SEC("qdisc/enqueue")
__refused("is not a key of map 'pkts', 8 bytes")
int key_is_a_number(struct sch_bpf_ctx *ctx)
{
	return bpf_qdisc_push(ctx, &pkts, (void *)42, ctx->skb);
}

/* A helper could write to a key in a packet, for all that the verifier knows. */
SEC("qdisc/enqueue")
__refused("bpf_map_lookup_elem() may write into memory pointed by R2 type=trusted_ptr_")
int key_is_a_note(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb = ctx->skb;
	__u64 *note = bpf_qdisc_note(skb, __u64);
	struct pkt *found;

	*note = skb->mark;
	found = bpf_map_lookup_elem(&hash, note);
	return bpf_qdisc_drop(ctx, skb, found ? QDISC_DROP_CONGESTED : 0);
}

SEC("qdisc/enqueue")
__accepted
int key_is_a_copy_of_a_note(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb = ctx->skb;
	__u64 *note = bpf_qdisc_note(skb, __u64), key;
	struct pkt *found;

	*note = skb->mark;
	key = *note;
	found = bpf_map_lookup_elem(&hash, &key);
	return bpf_qdisc_drop(ctx, skb, found ? QDISC_DROP_CONGESTED : 0);
}

SEC("qdisc/enqueue")
__refused("expected an rbtree map whose value holds one sk_buff kptr, but 'hash' is none")
int hash_map(struct sch_bpf_ctx *ctx)
{
	return bpf_qdisc_push(ctx, &hash, KEY, ctx->skb);
}

SEC("qdisc/enqueue")
__refused("expected an rbtree map whose value holds one sk_buff kptr, but 'numbers' is none")
int front_of_a_map_without_packets(struct sch_bpf_ctx *ctx)
{
	return bpf_qdisc_push_front(ctx, &numbers, KEY, ctx->skb);
}

SEC("qdisc/dequeue")
__refused("expected an rbtree map whose value holds one sk_buff kptr, but 'hash' is none")
int take_from_a_hash_map(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb = bpf_qdisc_take_from(ctx, &hash, KEY);

	return skb ? bpf_qdisc_drop(ctx, skb, 0) : 0;
}

#define TAKE_FROM_ANOTHER_MAP(take, ...)							\
SEC("qdisc/dequeue")									\
__refused("expected an rbtree map whose value holds one sk_buff kptr, but 'hash' is none")	\
int take##_from_another_map(struct sch_bpf_ctx *ctx)					\
{											\
	struct sk_buff *skb = bpf_qdisc_##take(ctx, &hash, ##__VA_ARGS__);		\
											\
	return skb ? bpf_qdisc_drop(ctx, skb, 0) : 0;					\
}

TAKE_FROM_ANOTHER_MAP(take)
TAKE_FROM_ANOTHER_MAP(take_last)
TAKE_FROM_ANOTHER_MAP(take_until, KEY)
TAKE_FROM_ANOTHER_MAP(take_key, KEY)
TAKE_FROM_ANOTHER_MAP(take_youngest, KEY)

#define POP_FROM_ANOTHER_MAP(pop)								\
SEC("qdisc/dequeue")									\
__refused("expected an rbtree map whose value holds one sk_buff kptr, but 'hash' is none")	\
int pop##_from_another_map(struct sch_bpf_ctx *ctx)					\
{											\
	return bpf_qdisc_##pop(ctx, &hash, KEY);					\
}

POP_FROM_ANOTHER_MAP(pop_until)
POP_FROM_ANOTHER_MAP(pop_key)
POP_FROM_ANOTHER_MAP(pop_from)

#define WITHOUT_THE_CONTEXT(name, ...)						\
SEC("qdisc/dequeue")									\
__refused("expected pointer to ctx")							\
int name##_without_the_context(struct sch_bpf_ctx *ctx)				\
{											\
	bpf_qdisc_##name((void *)ctx->qdisc, ##__VA_ARGS__);				\
	return 0;									\
}

WITHOUT_THE_CONTEXT(pop_class, 0x10001)
WITHOUT_THE_CONTEXT(class_head, 0x10001)
WITHOUT_THE_CONTEXT(class_len, 0x10001)
WITHOUT_THE_CONTEXT(bypass)

SEC("qdisc/dequeue")
__refused("expected an rbtree map whose value holds one sk_buff kptr, but 'numbers' is none")
int map_without_packets(struct sch_bpf_ctx *ctx)
{
	return bpf_qdisc_pop(ctx, &numbers);
}

SEC("qdisc/enqueue")
__refused("cannot use helper bpf_kptr_xchg")
int exchange_uncounted(struct sch_bpf_ctx *ctx)
{
	struct pkt *p = bpf_map_lookup_elem(&pkts, KEY);
	struct sk_buff *skb;

	skb = p ? bpf_kptr_xchg(&p->skb, NULL) : NULL;
	if (skb)
		bpf_qdisc_drop(ctx, skb, 0);
	return bpf_qdisc_drop(ctx, ctx->skb, 0);
}

SEC("kprobe/dev_queue_xmit_nit")
__refused("tracing progs cannot use rbtree maps of packets")
int tracing(void *ctx)
{
	bpf_map_delete_elem(&pkts, KEY);
	return 0;
}

/* ---- tasks and inner maps, in programs of a qdisc ---- */

extern void bpf_task_release(struct task_struct *task) __ksym;

struct held {
	struct task_struct __kptr *task;
};

PACKETS(tasks, __u64, struct held);

struct {
	__uint(type, BPF_MAP_TYPE_RBTREE);
	__type(key, __u64);
	__type(value, __u32);
	__uint(max_entries, 8);
	__array(values, struct {
		__BPF_QDISC_QUEUE(__u64, 8);
	});
} queues SEC(".maps");

SEC("qdisc/dequeue")
__accepted
int give_a_task_another_turn(struct sch_bpf_ctx *ctx)
{
	struct task_struct *task = bpf_rbtree_map_pop_task(&tasks, KEY);

	return task ? bpf_rbtree_map_push_task(task, &tasks, KEY) : 0;
}

SEC("qdisc/dequeue")
__refused("Unreleased reference")
int keep_a_task(struct sch_bpf_ctx *ctx)
{
	struct task_struct *task = bpf_rbtree_map_pop_task(&tasks, KEY);

	return task ? task->pid : 0;
}

SEC("qdisc/dequeue")
__refused("bpf_task_release is not allowed")
int release_a_task(struct sch_bpf_ctx *ctx)
{
	struct task_struct *task = bpf_rbtree_map_pop_task(&tasks, KEY);

	if (task)
		bpf_task_release(task);
	return 0;
}

SEC("qdisc/enqueue")
__accepted
int push_into_an_inner_map(struct sch_bpf_ctx *ctx)
{
	void *queue = bpf_rbtree_map_pop_map(&queues, KEY);

	if (!queue)
		return bpf_qdisc_drop(ctx, ctx->skb, 0);
	bpf_qdisc_push(ctx, queue, KEY, ctx->skb);
	return bpf_rbtree_map_push_map(&queues, KEY, queue);
}

SEC("qdisc/enqueue")
__refused("Possibly NULL pointer")
int push_into_a_map_that_may_not_be_there(struct sch_bpf_ctx *ctx)
{
	return bpf_qdisc_push(ctx, bpf_rbtree_map_first(&queues, KEY), KEY, ctx->skb);
}

SEC("qdisc/enqueue")
__refused("expected an rbtree map whose value holds one sk_buff kptr, but 'queues' is none")
int push_into_a_map_of_maps(struct sch_bpf_ctx *ctx)
{
	return bpf_qdisc_push(ctx, &queues, KEY, ctx->skb);
}

SEC("qdisc/dequeue")
__refused("expected a map that the map of maps before it can hold")
int store_a_map_without_packets(struct sch_bpf_ctx *ctx)
{
	return bpf_rbtree_map_push_map(&queues, KEY, &numbers);
}

/* ---- the building blocks have no state of their own ---- */

union block {
	struct bpf_codel codel;
	struct bpf_pie pie;
	struct bpf_red red;
	struct bpf_drr_flow flow;
	struct bpf_tbf tbf;
	__u64 link;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, __u64);
	__type(value, union block);
	__uint(max_entries, 1);
} blocks SEC(".maps");

static const struct bpf_codel_params codel_params = { 5 * NSEC_PER_MSEC, 100 * NSEC_PER_MSEC, 1514 };
static const struct bpf_pie_params pie_params = { 15 * NSEC_PER_MSEC, 15 * NSEC_PER_MSEC };
static const struct bpf_red_params red_params = { 1000, 3000 };

#define STATE_THAT_MAY_NOT_BE_THERE(name, ...)				\
SEC("qdisc/dequeue")							\
__refused("map_value_or_null")						\
int name##_without_a_state(struct sch_bpf_ctx *ctx)			\
{									\
	union block *block = bpf_map_lookup_elem(&blocks, KEY);		\
	__u64 now = bpf_ktime_get_ns();					\
	__u32 backlog = ctx->qdisc->qstats.backlog;			\
									\
	(void)now, (void)backlog;					\
	bpf_##name(__VA_ARGS__);					\
	return 0;							\
}

STATE_THAT_MAY_NOT_BE_THERE(codel_empty, &block->codel)
STATE_THAT_MAY_NOT_BE_THERE(codel_dequeue, &block->codel, &codel_params, now, 0, backlog)
STATE_THAT_MAY_NOT_BE_THERE(pie_enqueue, &block->pie, &pie_params, now, backlog)
STATE_THAT_MAY_NOT_BE_THERE(pie_dequeue, &block->pie, &pie_params, now, 0, backlog)
STATE_THAT_MAY_NOT_BE_THERE(red_enqueue, &block->red, &red_params, now, backlog)
STATE_THAT_MAY_NOT_BE_THERE(red_dequeue, &block->red, now, backlog)
STATE_THAT_MAY_NOT_BE_THERE(drr_round, &block->flow, now, 1514, 1514, backlog)
STATE_THAT_MAY_NOT_BE_THERE(tbf_reserve, &block->tbf, 1000, 1514, now, backlog)
STATE_THAT_MAY_NOT_BE_THERE(qdisc_link_reserve, &block->link, now, backlog)
STATE_THAT_MAY_NOT_BE_THERE(qdisc_link_give_back, &block->link, backlog)

SEC("qdisc/dequeue")
__accepted
int reserve_if_there_is_a_state(struct sch_bpf_ctx *ctx)
{
	union block *block = bpf_map_lookup_elem(&blocks, KEY);

	if (block)
		ctx->expire = bpf_qdisc_link_reserve(&block->link, bpf_ktime_get_ns(), 1000);
	return 0;
}

/* ---- what may be written ---- */

SEC("qdisc/enqueue")
__accepted
int write_mark_priority_stamp(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb = ctx->skb;

	skb->mark = 1;
	skb->priority = 2;
	skb->tstamp = 3;
	return bpf_qdisc_push(ctx, &pkts, KEY, skb);
}

SEC("qdisc/enqueue")
__refused("of a packet only tstamp, mark, priority, note")
int write_length(struct sch_bpf_ctx *ctx)
{
	ctx->skb->len = 1;
	return bpf_qdisc_drop(ctx, ctx->skb, 0);
}

SEC("qdisc/enqueue")
__refused("of a packet only tstamp, mark, priority, note")
int write_accounted_length(struct sch_bpf_ctx *ctx)
{
	((struct qdisc_skb_cb *)ctx->skb->cb)->pkt_len = 1;
	return bpf_qdisc_drop(ctx, ctx->skb, 0);
}

SEC("qdisc/enqueue")
__refused("only a packet can be written to")
int write_to_the_qdisc(struct sch_bpf_ctx *ctx)
{
	ctx->qdisc->limit = 1;
	return bpf_qdisc_drop(ctx, ctx->skb, 0);
}

SEC("qdisc/enqueue")
__refused("of the context only expire can be written")
int write_the_packets_pointer(struct sch_bpf_ctx *ctx)
{
	*(__u64 *)&ctx->skb = 0;
	return bpf_qdisc_drop(ctx, ctx->skb, 0);
}

SEC("qdisc/enqueue")
__refused("of the context only expire can be written")
int write_the_class(struct sch_bpf_ctx *ctx)
{
	ctx->classid = 0x10001;
	return bpf_qdisc_pass(ctx, ctx->skb, 0x10001);
}

SEC("qdisc/dequeue")
__refused("of the context only expire can be written")
int write_the_queue(struct sch_bpf_ctx *ctx)
{
	ctx->queue = 1;
	return 0;
}

SEC("qdisc/dequeue")
__refused("of the context only expire can be written")
int write_the_generation(struct sch_bpf_ctx *ctx)
{
	ctx->generation = 1;
	return 0;
}

SEC("qdisc/enqueue")
__accepted
int read_the_generation(struct sch_bpf_ctx *ctx)
{
	return bpf_qdisc_drop(ctx, ctx->skb, ctx->generation ? 0 : QDISC_DROP_OVERLIMIT);
}

/* ---- other ways to get rid of a packet, which nobody would count ---- */

SEC("qdisc/enqueue")
__refused("is not allowed")
int free_uncounted(struct sch_bpf_ctx *ctx)
{
	bpf_kfree_skb(ctx->skb);
	return 0;
}

SEC("qdisc/enqueue")
__refused("cannot use helper bpf_clone_redirect")
int redirect(struct sch_bpf_ctx *ctx)
{
	bpf_clone_redirect((void *)ctx->skb, 1, 0);
	return bpf_qdisc_drop(ctx, ctx->skb, 0);
}

SEC("qdisc/enqueue")
__refused("cannot use helper bpf_skb_change_tail")
int cut(struct sch_bpf_ctx *ctx)
{
	bpf_skb_change_tail((void *)ctx->skb, 20, 0);
	return bpf_qdisc_drop(ctx, ctx->skb, 0);
}

SEC("qdisc/enqueue")
__refused("tail_call")
int tail_call(struct sch_bpf_ctx *ctx)
{
	bpf_tail_call(ctx, &hash, 0);
	return bpf_qdisc_drop(ctx, ctx->skb, 0);
}

/* ---- what else a program may call ---- */

struct kept {
	struct bpf_spin_lock lock;
	struct bpf_timer timer;
	__u64 number;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, __u64);
	__type(value, struct kept);
	__uint(max_entries, 8);
} keeps SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} ring SEC(".maps");

static long pass_over(struct bpf_map *map, const __u64 *key, struct pkt *pkt, void *unused)
{
	return 0;
}

static int later(void *map, __u64 *key, struct kept *kept)
{
	return 0;
}

static long do_nothing(__u64 i, void *unused)
{
	return 0;
}

/* The table of sch_bpf_idioms.rst: documents.py looks for each of its words here. */
SEC("qdisc/enqueue")
__accepted
int call_each_helper(struct sch_bpf_ctx *ctx)
{
	__u64 number = bpf_ktime_get_ns() + bpf_ktime_get_boot_ns() + bpf_ktime_get_tai_ns() +
		       bpf_jiffies64() + bpf_get_prandom_u32() + bpf_get_smp_processor_id();
	struct kept none = {}, *kept = bpf_map_lookup_elem(&keeps, KEY);
	struct sk_buff *skb = ctx->skb;
	struct sock *sk = bpf_qdisc_socket(skb);
	struct bpf_dynptr bytes;
	__u8 buffer[14], *header;
	__u32 i;

	if (kept) {
		bpf_spin_lock(&kept->lock);
		kept->number += number;
		bpf_spin_unlock(&kept->lock);
		bpf_timer_init(&kept->timer, &keeps, 1 /* CLOCK_MONOTONIC */);
		bpf_timer_set_callback(&kept->timer, later);
		bpf_timer_start(&kept->timer, NSEC_PER_SEC, 0);
	}
	bpf_map_update_elem(&keeps, KEY, &none, BPF_NOEXIST);
	bpf_map_delete_elem(&keeps, KEY);
	bpf_for_each_map_elem(&pkts, pass_over, NULL, 0);
	bpf_loop(2, do_nothing, NULL, 0);
	bpf_for(i, 0, 2)
		number += i;
	bpf_repeat(2)
		number++;
	if (sk)
		number += bpf_core_cast(sk, struct tcp_sock)->snd_una;
	if (!bpf_dynptr_from_skb((struct __sk_buff *)skb, 0, &bytes)) {
		bpf_dynptr_read(buffer, sizeof(buffer), &bytes, 0, 0);
		header = bpf_dynptr_slice(&bytes, 0, buffer, sizeof(buffer));
		number += header ? *header : 0;
	}
	bpf_probe_read_kernel(&i, sizeof(i), &skb->len);
	bpf_printk("%u %llu", i, number);
	bpf_ringbuf_output(&ring, &number, sizeof(number), 0);
	return bpf_qdisc_drop(ctx, skb, 0);
}

/* ---- what an iterator shows is a copy, no packet ---- */

SEC("iter/bpf_qdisc_packet")
__accepted
int read_the_copy(struct bpf_iter__bpf_qdisc_packet *ctx)
{
	return ctx->skb->len == 0;
}

SEC("iter/bpf_qdisc_packet")
__refused("expected pointer to STRUCT __sk_buff")
int take_the_copy_for_a_packet(struct bpf_iter__bpf_qdisc_packet *ctx)
{
	struct bpf_dynptr bytes;

	bpf_dynptr_from_skb((struct __sk_buff *)ctx->skb, 0, &bytes);
	return 0;
}

/* ---- filters, child qdiscs and destructors run within the functions ---- */

SEC("qdisc/enqueue")
__refused("a program of a qdisc can't disable preemption or interrupts")
int disable_preemption(struct sch_bpf_ctx *ctx)
{
	int ret;

	bpf_preempt_disable();
	ret = bpf_qdisc_push(ctx, &pkts, KEY, ctx->skb);
	bpf_preempt_enable();
	return ret;
}

SEC("qdisc/dequeue")
__refused("a program of a qdisc can't disable preemption or interrupts")
int disable_interrupts(struct sch_bpf_ctx *ctx)
{
	unsigned long flags;
	int ret;

	bpf_local_irq_save(&flags);
	ret = bpf_qdisc_pop_class(ctx, 0x10001);
	bpf_local_irq_restore(&flags);
	return ret;
}

char LICENSE[] SEC("license") = "GPL";
