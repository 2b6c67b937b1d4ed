// SPDX-License-Identifier: GPL-2.0
/* For map_maps.c: queues in an ordered map, by rank. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include "../lib/map.bpf.h"

#define MANY	64
#define FLOWS	16
#define STEPS	100000

struct args {
	__u64 rank;
	__u64 key;
	__u64 value;
	__u32 which;
};

struct queue {
	__uint(type, BPF_MAP_TYPE_RBTREE);
	__type(key, __u64);
	__type(value, __u64);
	__uint(max_entries, 8);
} a SEC(".maps"), b SEC(".maps"), c SEC(".maps");

ORDERED(different, __u64, __u32, 8);

struct packet {
	struct sk_buff __kptr *skb;
};

ORDERED(packets, __u64, struct packet, 8);

struct {
	__uint(type, BPF_MAP_TYPE_RBTREE);
	__type(key, __u64);
	__type(value, __u32);
	__uint(max_entries, 4);
	__array(values, struct queue);
} outer SEC(".maps");

/* With elements of its own from the beginning */
struct {
	__uint(type, BPF_MAP_TYPE_RBTREE);
	__type(key, __u32);
	__type(value, __u32);
	__uint(max_entries, 4);
	__array(values, struct queue);
} filled SEC(".maps") = {
	.values = { [0] = &b, [2] = &a },
};

SEC("syscall")
int push(struct args *args)
{
	__u64 rank = args->rank;

	switch (args->which) {
	case 0:
		return bpf_rbtree_map_push_map(&outer, &rank, &a);
	case 1:
		return bpf_rbtree_map_push_map(&outer, &rank, &b);
	default:
		return bpf_rbtree_map_push_map(&outer, &rank, &c);
	}
}

/* Store into the map under a rank */
SEC("syscall")
int store(struct args *args)
{
	__u64 rank = args->rank, key = args->key, value = args->value;
	void *inner = bpf_map_lookup_elem(&outer, &rank);

	return inner ? bpf_rbtree_map_push(inner, &key, &value) : -ENOENT;
}

/* The first element of the first map */
SEC("syscall")
int first(struct args *args)
{
	__u64 rank = 0, key = 0, *value;
	void *inner;

	inner = bpf_rbtree_map_first(&outer, &rank);
	if (!inner)
		return -ENOENT;
	value = bpf_rbtree_map_first(inner, &key);
	args->rank = rank;
	args->key = key;
	args->value = value ? *value : 0;
	return value ? 0 : 1;
}

static int pop_from(void *inner, struct args *args)
{
	__u64 key = 0, value = 0;
	int err = bpf_rbtree_map_pop(inner, &key, &value);

	args->key = key;
	args->value = value;
	return err;
}

/* The first map goes, after one element was taken out of it. */
SEC("syscall")
int pop(struct args *args)
{
	__u64 rank = 0;
	void *inner = bpf_rbtree_map_pop_map(&outer, &rank);

	if (!inner)
		return -ENOENT;
	args->rank = rank;
	return pop_from(inner, args);
}

/* The first map comes back behind the others, if anything was in it. */
SEC("syscall")
int rotate(struct args *args)
{
	__u64 rank = 0;
	void *inner = bpf_rbtree_map_pop_map(&outer, &rank);
	int err;

	if (!inner)
		return -ENOENT;
	err = pop_from(inner, args);
	if (err)
		return err;
	args->rank = rank;
	rank += args->which;
	return bpf_rbtree_map_push_map(&outer, &rank, inner);
}

/* The first map gets a later rank, after one element was taken out of it. */
SEC("syscall")
int move(struct args *args)
{
	__u64 rank = 0, next;
	void *inner;
	int err;

	inner = bpf_rbtree_map_first(&outer, &rank);
	if (!inner)
		return -ENOENT;
	err = pop_from(inner, args);
	args->rank = rank;
	next = rank + args->which;
	return err ?: bpf_rbtree_map_move(&outer, &rank, &next);
}

SEC("syscall")
int move_from(struct args *args)
{
	__u64 from = args->rank, to = args->key;

	return bpf_rbtree_map_move(&outer, &from, &to);
}

SEC("syscall")
int move_value(struct args *args)
{
	__u64 from = args->rank, to = args->key;

	return bpf_rbtree_map_move(&a, &from, &to);
}

/* ---- at full speed ---- */

struct {
	__uint(type, BPF_MAP_TYPE_RBTREE);
	__type(key, __u64);
	__type(value, __u32);
	__uint(max_entries, MANY);
	__array(values, struct queue);
} many SEC(".maps");

/* Whatever is here is in these, too, or in `many` alone. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH_OF_MAPS);
	__type(key, __u32);
	__uint(max_entries, MANY);
	__array(values, struct queue);
} queues SEC(".maps");

struct turns {
	__u64 rank;
	__u32 done;
	int error;
};

static long pop_and_push(__u32 i, struct turns *turns)
{
	__u64 rank = 0;
	void *inner;

	inner = bpf_rbtree_map_pop_map(&many, &rank);
	if (!inner || rank != i) {
		turns->error = -ENOENT;
		return 1;
	}
	rank += MANY;
	turns->error = bpf_rbtree_map_push_map(&many, &rank, inner);
	turns->done += !turns->error;
	return turns->error != 0;
}

SEC("syscall")
int many_turns(struct turns *turns)
{
	struct turns here = {};

	bpf_loop(STEPS, pop_and_push, &here, 0);
	*turns = here;
	return here.error;
}

static long move_on(__u32 i, struct turns *turns)
{
	__u64 from = i, to = i + MANY;

	turns->error = bpf_rbtree_map_move(&many, &from, &to);
	turns->done += !turns->error;
	return turns->error != 0;
}

SEC("syscall")
int many_moves(struct turns *turns)
{
	struct turns here = {};

	bpf_loop(STEPS, move_on, &here, 0);
	*turns = here;
	return here.error;
}

/* Flows that have something are on a list: the queue of each is popped, and pushed again behind
 * the others if something is left in it.
 */
struct {
	__uint(type, BPF_MAP_TYPE_RBTREE);
	__type(key, __u64);
	__type(value, __u32);
	__uint(max_entries, FLOWS);
	__array(values, struct queue);
} active SEC(".maps");

/* Not on the stack: there the verifier would follow each value. */
static struct {
	__u64 round;
	__u64 in;
	__u64 out;
	int error;
	__u32 drain;
	bool listed[FLOWS];
} schedule;

static void flow_in(void)
{
	__u32 flow = bpf_get_prandom_u32() % FLOWS;
	__u64 key = 0, value = flow, round;
	void *inner;

	inner = bpf_map_lookup_elem(&queues, &flow);
	if (!inner || bpf_rbtree_map_push(inner, &key, &value))
		return;			/* full */
	schedule.in++;
	if (flow >= FLOWS || schedule.listed[flow])
		return;
	schedule.listed[flow] = true;
	round = schedule.round;
	schedule.error = bpf_rbtree_map_push_map(&active, &round, inner);
}

static void flow_out(void)
{
	__u64 round = 0, key = 0, value = 0;
	void *inner;

	inner = bpf_rbtree_map_pop_map(&active, &round);
	if (!inner)
		return;
	if (bpf_rbtree_map_pop(inner, &key, &value)) {
		schedule.error = -ENOENT;
		return;
	}
	schedule.out++;
	schedule.round = ++round;
	if (bpf_rbtree_map_first(inner, &key))
		schedule.error = bpf_rbtree_map_push_map(&active, &round, inner);
	else if (value < FLOWS)
		schedule.listed[value] = false;
}

static long schedule_one(__u32 i, void *unused)
{
	if (!schedule.drain && bpf_get_prandom_u32() % 16 < 9)
		flow_in();
	else
		flow_out();
	return schedule.error != 0;
}

SEC("syscall")
int many_flows(struct turns *turns)
{
	bpf_loop(STEPS, schedule_one, NULL, 0);
	schedule.drain = 1;
	bpf_loop(MANY * FLOWS, schedule_one, NULL, 0);
	turns->done = schedule.in > STEPS / 4 && schedule.in == schedule.out;
	return schedule.error;
}

/* ---- where nothing can be freed ---- */

__u32 popped SEC(".data.popped");

/* In a hard interrupt, which may have come at any place in the kernel */
SEC("fentry/sched_tick")
int BPF_PROG(pop_at_a_tick)
{
	__u64 rank = 0;

	if (bpf_rbtree_map_pop_map(&outer, &rank))
		__sync_fetch_and_add(&popped, 1);
	return 0;
}

/* Of this one no program that can sleep knows. */
struct {
	__uint(type, BPF_MAP_TYPE_RBTREE);
	__type(key, __u64);
	__type(value, __u32);
	__uint(max_entries, 1);
	__array(values, struct queue);
} outer_of_ticks SEC(".maps");

SEC("fentry/sched_tick")
int BPF_PROG(pop_for_ticks)
{
	__u64 rank = 0;

	bpf_rbtree_map_pop_map(&outer_of_ticks, &rank);
	return 0;
}

/* Of maps of that name, whether a callback that sleeps could still be at it */
__u32 freed[2] SEC(".data.freed");

SEC("fentry/rbtree_map_free")
int BPF_PROG(look_at_the_end, struct bpf_map *map)
{
	char name[sizeof("asleep")];

	bpf_probe_read_kernel(name, sizeof(name), map->name);
	if (bpf_strncmp(name, sizeof(name), "asleep"))
		return 0;
	if (map->free_after_mult_rcu_gp)
		__sync_fetch_and_add(&freed[1], 1);
	else
		__sync_fetch_and_add(&freed[0], 1);
	return 0;
}

/* ---- what must be refused ---- */

SEC("?syscall")
int refused_move_of_packets(struct args *args)
{
	struct packet *packet;
	__u64 rank = 0;

	/* A kptr's type has a body in BTF only if it is used. */
	packet = bpf_rbtree_map_first(&packets, &rank);
	if (packet && packet->skb)
		args->value = packet->skb->len;
	return bpf_rbtree_map_move(&packets, &rank, &rank);
}

SEC("?syscall")
int refused_update(struct args *args)
{
	__u64 rank = 0;
	__u32 value = 0;

	return bpf_map_update_elem(&outer, &rank, &value, BPF_ANY);
}

SEC("?syscall")
int refused_delete(struct args *args)
{
	__u64 rank = 0;

	return bpf_map_delete_elem(&outer, &rank);
}

SEC("?syscall")
int refused_plain_push(struct args *args)
{
	__u64 rank = 0;
	__u32 value = 0;

	return bpf_rbtree_map_push(&outer, &rank, &value);
}

SEC("?syscall")
int refused_different_map(struct args *args)
{
	__u64 rank = 0;

	return bpf_rbtree_map_push_map(&outer, &rank, &different);
}

SEC("?syscall")
int refused_outer_as_inner(struct args *args)
{
	__u64 rank = 0;

	return bpf_rbtree_map_push_map(&outer, &rank, &outer);
}

SEC("?syscall")
int refused_not_of_maps(struct args *args)
{
	__u64 rank = 0;

	return bpf_rbtree_map_push_map(&a, &rank, &b);
}

SEC("?syscall")
int refused_without_check(struct args *args)
{
	__u64 rank = 0;
	void *inner = bpf_rbtree_map_pop_map(&outer, &rank);

	return pop_from(inner, args);
}

char LICENSE[] SEC("license") = "GPL";
