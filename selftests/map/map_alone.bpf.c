// SPDX-License-Identifier: GPL-2.0
/* For map_alone.c: a qdisc that is alone with its map, and all who may look at that, each of
 * which is loaded when its turn has come.
 */
#include "../../policies/policy.h"
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>

struct queue {
	__uint(type, BPF_MAP_TYPE_RBTREE);
	__type(key, __u64);
	__type(value, struct pkt);
	__uint(max_entries, 1000);
};

struct queue pkts SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__type(key, __u32);
	__uint(max_entries, 1);
	__array(values, struct queue);
} in_array SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH_OF_MAPS);
	__type(key, __u32);
	__uint(max_entries, 1);
	__array(values, struct queue);
} in_hash SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RBTREE);
	__type(key, __u32);
	__type(value, __u32);
	__uint(max_entries, 1);
	__array(values, struct queue);
} in_order SEC(".maps");

__u64 taken;			/* from the front, by the owner's own look */

SEC("qdisc/enqueue")
int alone_enqueue(struct sch_bpf_ctx *ctx)
{
	__u64 key = bpf_get_prandom_u32() % 64;

	return bpf_qdisc_push(ctx, &pkts, &key, ctx->skb);
}

/* The owner may look, too. Some packets stay, so that there is something to see. */
SEC("qdisc/dequeue")
int alone_dequeue(struct sch_bpf_ctx *ctx)
{
	__u64 first;

	if (bpf_rbtree_map_len(&pkts) > 20 && bpf_rbtree_map_first(&pkts, &first) &&
	    !bpf_qdisc_pop_key(ctx, &pkts, &first))
		taken++;
	else
		ctx->expire = bpf_ktime_get_ns() + 5 * NSEC_PER_SEC;
	return 0;
}

/* ---- who else may look ---- */

SEC("?qdisc/enqueue")
int other_enqueue(struct sch_bpf_ctx *ctx)
{
	__u64 key = 1;

	return bpf_qdisc_push(ctx, &pkts, &key, ctx->skb);
}

SEC("?qdisc/enqueue")
int puts_inside(struct sch_bpf_ctx *ctx)
{
	__u32 key = 1;

	bpf_rbtree_map_push_map(&in_order, &key, &pkts);
	return bpf_qdisc_drop(ctx, ctx->skb, 0);
}

struct timed {
	struct bpf_timer timer;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, struct timed);
	__uint(max_entries, 1);
} timers SEC(".maps");

static int look_later(void *map, __u32 *key, struct timed *value)
{
	__u64 first;

	bpf_rbtree_map_first(&pkts, &first);
	return 0;
}

SEC("?qdisc/enqueue")
int looks_later(struct sch_bpf_ctx *ctx)
{
	struct timed *timed = bpf_map_lookup_elem(&timers, &(__u32){ 0 });

	if (timed && !bpf_timer_init(&timed->timer, &timers, 1))
		bpf_timer_set_callback(&timed->timer, look_later);
	return bpf_qdisc_drop(ctx, ctx->skb, 0);
}

SEC("?tc")
int at_clsact(struct __sk_buff *skb)
{
	__u64 first;

	bpf_rbtree_map_first(&pkts, &first);
	return 0;
}

SEC("?iter/bpf_map_elem")
int elements(struct bpf_iter__bpf_map_elem *ctx)
{
	return 0;
}

SEC("?iter/bpf_qdisc_packet")
int packets(struct bpf_iter__bpf_qdisc_packet *ctx)
{
	return 0;
}

/* ---- what the test sees ---- */

__u32 id;			/* of the map; also in map_alone.c, as all that follows */
__u32 is_alone, is_shared;

SEC("iter/bpf_map")
int look(struct bpf_iter__bpf_map *ctx)
{
	struct bpf_map *map = ctx->map;
	struct bpf_rbtree *rb;

	if (!map || map->id != id)
		return 0;
	rb = bpf_core_cast(map, struct bpf_rbtree);
	is_alone = !!rb->alone;
	is_shared = rb->shared;
	return 0;
}

/* ---- between two steps ---- */

__u32 tid;			/* of who shares the map */
volatile __u32 hold, held, waits;

static long wait(__u32 i, void *unused)
{
	return !hold;
}

/* One loop is over in a second. All of them are, before the kernel takes the CPU for locked up. */
static long wait_for_long(__u32 i, void *unused)
{
	bpf_loop(1 << 23, wait, NULL, 0);
	return !hold;
}

SEC("fentry/rbtree_insert")
int BPF_PROG(in_a_step)
{
	if (hold && !held) {
		held = 1;
		bpf_loop(8, wait_for_long, NULL, 0);
	}
	return 0;
}

SEC("fentry/synchronize_rcu_expedited")
int BPF_PROG(on_waiting)
{
	if ((__u32)bpf_get_current_pid_tgid() == tid)
		waits++;
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
