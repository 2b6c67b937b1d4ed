// SPDX-License-Identifier: GPL-2.0
/* Programs that must be refused when they are loaded, each with what the verifier
 * has to say; and, so that a loader which can load nothing is noticed, some that
 * must be accepted. selftests/load.c reads the annotations.
 */
#include "../policies/policy.h"

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
PACKETS(numbers, __u64, __u64);			/* ordered, but not of packets */

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, __u64);
	__type(value, struct pkt);
	__uint(max_entries, 8);
} hash SEC(".maps");

#define KEY (&(__u64){ 0 })

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
int keep_and_drop(struct sch_bpf_ctx *ctx)
{
	return SCH_BPF_DROP;
}

SEC("qdisc/enqueue")
__refused("the packet is still owned")
int queued_without_push(struct sch_bpf_ctx *ctx)
{
	return SCH_BPF_QUEUED;
}

SEC("qdisc/enqueue")
__refused("the packet was given away")
int drop_after_push(struct sch_bpf_ctx *ctx)
{
	bpf_qdisc_push(ctx, &pkts, KEY, ctx->skb);
	return SCH_BPF_DROP;
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
	return skb->len ? SCH_BPF_QUEUED : SCH_BPF_DROPPED;
}

SEC("qdisc/enqueue")
__refused("the packet is still owned")
int push_on_one_path_only(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb = ctx->skb;

	if (skb->len > 100)
		return bpf_qdisc_push(ctx, &pkts, KEY, skb);
	return SCH_BPF_QUEUED;
}

SEC("qdisc/enqueue")
__refused("Unreleased reference")
int leak_a_packet_that_was_taken(struct sch_bpf_ctx *ctx)
{
	bpf_qdisc_take(ctx, &pkts);
	return SCH_BPF_DROP;
}

SEC("qdisc/enqueue")
__refused("Unreleased reference")
int leak_a_clone(struct sch_bpf_ctx *ctx)
{
	bpf_qdisc_clone(ctx, ctx->skb);
	return SCH_BPF_DROP;
}

SEC("qdisc/enqueue")
__refused("Possibly NULL pointer")
int push_what_may_be_null(struct sch_bpf_ctx *ctx)
{
	bpf_qdisc_push(ctx, &pkts, KEY, bpf_qdisc_take(ctx, &pkts));
	return SCH_BPF_DROP;
}

SEC("qdisc/enqueue")
__refused("should have been in")
int verdict_of_a_dequeue_program(struct sch_bpf_ctx *ctx)
{
	bpf_qdisc_push(ctx, &pkts, KEY, ctx->skb);
	return SCH_BPF_DEQUEUED;
}

SEC("qdisc/enqueue")
__refused("should have been in")
int verdict_that_does_not_exist(struct sch_bpf_ctx *ctx)
{
	bpf_qdisc_push(ctx, &pkts, KEY, ctx->skb);
	return 42;
}

SEC("qdisc/enqueue")
__refused("should have been in")
int verdict_that_nobody_knows(struct sch_bpf_ctx *ctx)
{
	__u32 len = ctx->skb->len;

	bpf_qdisc_push(ctx, &pkts, KEY, ctx->skb);
	return len;
}

/* ---- who owns the packet, dequeue ---- */

SEC("qdisc/dequeue")
__accepted
int take_and_deliver(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb = bpf_qdisc_take(ctx, &pkts);

	return skb ? bpf_qdisc_deliver(ctx, skb) : SCH_BPF_EMPTY;
}

SEC("qdisc/dequeue")
__refused("Unreleased reference")
int take_and_leak(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb = bpf_qdisc_take(ctx, &pkts);

	return skb ? SCH_BPF_DEQUEUED : SCH_BPF_EMPTY;
}

SEC("qdisc/dequeue")
__refused("release kfunc bpf_qdisc_deliver_skb expects referenced PTR_TO_BTF_ID")
int deliver_twice(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb = bpf_qdisc_take(ctx, &pkts);

	if (!skb)
		return SCH_BPF_EMPTY;
	bpf_qdisc_deliver(ctx, skb);
	return bpf_qdisc_deliver(ctx, skb);
}

SEC("qdisc/dequeue")
__accepted
int look_at_what_was_popped(struct sch_bpf_ctx *ctx)
{
	int verdict = bpf_qdisc_pop(ctx, &pkts);
	struct sk_buff *skb = ctx->skb;

	if (skb) {
		skb->mark = skb->len;
		bpf_qdisc_ecn_mark(ctx, skb);
	}
	return verdict;
}

SEC("qdisc/dequeue")
__refused("invalid mem access 'trusted_ptr_or_null_'")
int look_at_what_may_not_be_there(struct sch_bpf_ctx *ctx)
{
	bpf_qdisc_pop(ctx, &pkts);
	return ctx->skb->len ? SCH_BPF_DEQUEUED : SCH_BPF_EMPTY;
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
	return SCH_BPF_EMPTY;
}

SEC("qdisc/dequeue")
__refused("Unreleased reference")
int leak_the_last(struct sch_bpf_ctx *ctx)
{
	bpf_qdisc_take_last(ctx, &pkts);
	return SCH_BPF_EMPTY;
}

SEC("qdisc/dequeue")
__refused("Unreleased reference")
int leak_what_is_due(struct sch_bpf_ctx *ctx)
{
	bpf_qdisc_take_until(ctx, &pkts, KEY);
	return SCH_BPF_EMPTY;
}

SEC("qdisc/dequeue")
__refused("should have been in")
int verdict_of_an_enqueue_program(struct sch_bpf_ctx *ctx)
{
	return SCH_BPF_QUEUED;
}

/* ---- what belongs to the other direction ---- */

SEC("qdisc/enqueue")
__refused("is not allowed")
int pop_in_enqueue(struct sch_bpf_ctx *ctx)
{
	bpf_qdisc_pop(ctx, &pkts);
	return SCH_BPF_DROP;
}

SEC("qdisc/enqueue")
__refused("is not allowed")
int deliver_in_enqueue(struct sch_bpf_ctx *ctx)
{
	return bpf_qdisc_deliver(ctx, ctx->skb);
}

SEC("qdisc/enqueue")
__refused("invalid bpf_context access")
int expire_in_enqueue(struct sch_bpf_ctx *ctx)
{
	ctx->expire = 1;
	return SCH_BPF_DROP;
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

SEC("qdisc/enqueue")
__refused("is not a key of map 'pkts', 8 bytes")
int key_is_a_number(struct sch_bpf_ctx *ctx)
{
	return bpf_qdisc_push(ctx, &pkts, (void *)42, ctx->skb);
}

SEC("qdisc/enqueue")
__refused("expected an rbtree map whose value holds one sk_buff kptr, but 'hash' is none")
int hash_map(struct sch_bpf_ctx *ctx)
{
	return bpf_qdisc_push(ctx, &hash, KEY, ctx->skb);
}

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

	if (!p)
		return SCH_BPF_DROP;
	skb = bpf_kptr_xchg(&p->skb, NULL);
	if (skb)
		bpf_qdisc_drop(ctx, skb, 0);
	return SCH_BPF_DROP;
}

SEC("kprobe/dev_queue_xmit_nit")
__refused("tracing progs cannot use rbtree maps of packets")
int tracing(void *ctx)
{
	bpf_map_delete_elem(&pkts, KEY);
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
__refused("of a packet only tstamp, mark, priority")
int write_length(struct sch_bpf_ctx *ctx)
{
	ctx->skb->len = 1;
	return SCH_BPF_DROP;
}

SEC("qdisc/enqueue")
__refused("of a packet only tstamp, mark, priority")
int write_accounted_length(struct sch_bpf_ctx *ctx)
{
	((struct qdisc_skb_cb *)ctx->skb->cb)->pkt_len = 1;
	return SCH_BPF_DROP;
}

SEC("qdisc/enqueue")
__refused("only a packet can be written to")
int write_to_the_qdisc(struct sch_bpf_ctx *ctx)
{
	ctx->qdisc->limit = 1;
	return SCH_BPF_DROP;
}

SEC("qdisc/enqueue")
__refused("invalid bpf_context access")
int write_the_packets_pointer(struct sch_bpf_ctx *ctx)
{
	*(__u64 *)&ctx->skb = 0;
	return SCH_BPF_DROP;
}

SEC("qdisc/dequeue")
__refused("invalid bpf_context access")
int write_the_queue(struct sch_bpf_ctx *ctx)
{
	ctx->queue = 1;
	return SCH_BPF_EMPTY;
}

/* ---- other ways to get rid of a packet, which nobody would count ---- */

SEC("qdisc/enqueue")
__refused("is not allowed")
int free_uncounted(struct sch_bpf_ctx *ctx)
{
	bpf_kfree_skb(ctx->skb);
	return SCH_BPF_DROPPED;
}

SEC("qdisc/enqueue")
__refused("cannot use helper bpf_clone_redirect")
int redirect(struct sch_bpf_ctx *ctx)
{
	bpf_clone_redirect((void *)ctx->skb, 1, 0);
	return SCH_BPF_DROP;
}

SEC("qdisc/enqueue")
__refused("cannot use helper bpf_skb_change_tail")
int cut(struct sch_bpf_ctx *ctx)
{
	bpf_skb_change_tail((void *)ctx->skb, 20, 0);
	return SCH_BPF_DROP;
}

SEC("qdisc/enqueue")
__refused("tail_call")
int tail_call(struct sch_bpf_ctx *ctx)
{
	bpf_tail_call(ctx, &hash, 0);
	return SCH_BPF_DROP;
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

char LICENSE[] SEC("license") = "GPL";
