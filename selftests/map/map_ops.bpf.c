// SPDX-License-Identifier: GPL-2.0
/* For map_ops.c: what only programs can do with an ordered map. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include "../lib/map.bpf.h"

#define ENTRIES	64

struct args {
	__u64 key;
	__u64 value;
};

ORDERED(numbers, __u64, __u64, ENTRIES);
ORDERED_FLAGS(allocated, __u64, __u64, ENTRIES, BPF_F_NO_PREALLOC);
ORDERED_FLAGS(read_only, __u64, __u64, ENTRIES, BPF_F_RDONLY_PROG);
ORDERED_FLAGS(write_only, __u64, __u64, ENTRIES, BPF_F_WRONLY_PROG);
ORDERED(big, __u64, __u64, 100000);

SEC("syscall")
int push(struct args *args)
{
	struct args a = *args;

	return bpf_rbtree_map_push(&numbers, &a.key, &a.value);
}

/* Of a type that is named nowhere: the functions are for all */
SEC("socket")
int push_in_a_socket_filter(struct __sk_buff *skb)
{
	__u64 key = skb->len, value = 7;

	return bpf_rbtree_map_push(&numbers, &key, &value);
}

SEC("syscall")
int push_allocated(struct args *args)
{
	struct args a = *args;

	return bpf_rbtree_map_push(&allocated, &a.key, &a.value);
}

SEC("syscall")
int push_read_only(struct args *args)
{
	struct args a = *args;

	return bpf_rbtree_map_push(&read_only, &a.key, &a.value);
}

SEC("syscall")
int pop(struct args *args)
{
	struct args a = *args;
	int err = bpf_rbtree_map_pop(&numbers, &a.key, &a.value);

	*args = a;
	return err;
}

struct pop_until_args {
	__u64 bound;
	struct args first;
};

SEC("syscall")
int pop_until(struct pop_until_args *args)
{
	struct pop_until_args a = *args;
	int err = bpf_rbtree_map_pop_until(&numbers, &a.bound, &a.first.key, &a.first.value);

	*args = a;
	return err;
}

SEC("syscall")
int pop_key(struct args *args)
{
	struct args a = *args;
	int err = bpf_rbtree_map_pop_key(&numbers, &a.key, &a.value);

	*args = a;
	return err;
}

SEC("syscall")
int pop_until_read_only(struct args *args)
{
	struct args a = *args;

	return bpf_rbtree_map_pop_until(&read_only, &a.key, &a.key, &a.value);
}

SEC("syscall")
int pop_key_write_only(struct args *args)
{
	struct args a = *args;

	return bpf_rbtree_map_pop_key(&write_only, &a.key, &a.value);
}

SEC("syscall")
int pop_read_only(struct args *args)
{
	struct args a = *args;

	return bpf_rbtree_map_pop(&read_only, &a.key, &a.value);
}

/* How many ways show an element, or its key? */
SEC("syscall")
int look_write_only(struct args *args)
{
	__u64 key = 0;
	int shown = 0;

	shown += !!bpf_rbtree_map_first(&write_only, &key);
	shown += !!bpf_rbtree_map_last(&write_only, &key);
	shown += !!bpf_rbtree_map_lower_bound(&write_only, &key);
	shown += !!bpf_rbtree_map_upper_bound(&write_only, &key);
	return shown ?: key != 0;
}

SEC("syscall")
int pop_write_only(struct args *args)
{
	struct args a = *args;

	return bpf_rbtree_map_pop(&write_only, &a.key, &a.value);
}

SEC("syscall")
int first(struct args *args)
{
	__u64 key = args->key, *value;

	value = bpf_rbtree_map_first(&numbers, &key);
	if (!value)
		return -ENOENT;
	args->key = key;
	args->value = *value;
	return 0;
}

SEC("syscall")
int lower_bound(struct args *args)
{
	__u64 key = args->key, *value;

	value = bpf_rbtree_map_lower_bound(&numbers, &key);
	if (!value)
		return -ENOENT;
	args->key = key;
	args->value = (*value)++;
	return 0;
}

SEC("syscall")
int upper_bound(struct args *args)
{
	__u64 key = args->key, *value;

	value = bpf_rbtree_map_upper_bound(&numbers, &key);
	if (!value)
		return -ENOENT;
	args->key = key;
	args->value = *value;
	return 0;
}

SEC("syscall")
int last(struct args *args)
{
	__u64 key = args->key, *value;

	value = bpf_rbtree_map_last(&numbers, &key);
	if (!value)
		return -ENOENT;
	args->key = key;
	args->value = *value;
	return 0;
}

SEC("syscall")
int len(void *ctx)
{
	return bpf_rbtree_map_len(&numbers);
}

/* ---- walks: each returns what bpf_for_each_map_elem() returned ---- */

struct walk {
	__u64 count;		/* calls */
	__u64 wrong;		/* not after the element before */
	__u64 last_key;
	__u64 last_value;
} state;

static void look(const __u64 *key, const __u64 *value)
{
	if (state.count++ && (state.last_key > *key ||
			      (state.last_key == *key && state.last_value >= *value)))
		state.wrong++;
	state.last_key = *key;
	state.last_value = *value;
}

static long visit(struct bpf_map *map, __u64 *key, __u64 *value, void *unused)
{
	look(key, value);
	return 0;
}

static long visit_three(struct bpf_map *map, __u64 *key, __u64 *value, void *unused)
{
	look(key, value);
	return state.count == 3;
}

static long visit_and_delete(struct bpf_map *map, __u64 *key, __u64 *value, void *unused)
{
	__u64 k = *key;

	look(key, value);
	bpf_map_delete_elem(map, &k);
	return 0;
}

/* What is visited leaves, and comes again: behind the others, and ahead. */
static long visit_and_renew(struct bpf_map *map, __u64 *key, __u64 *value, void *unused)
{
	__u64 k = *key, v = *value + 1000;

	look(key, value);
	bpf_map_delete_elem(&numbers, &k);
	bpf_rbtree_map_push(&numbers, &k, &v);
	return 0;
}

static long visit_and_push_ahead(struct bpf_map *map, __u64 *key, __u64 *value, void *unused)
{
	__u64 k = *key + 1, v = 0;

	look(key, value);
	bpf_rbtree_map_push(&big, &k, &v);
	bpf_rbtree_map_push(&big, &k, &v);
	return 0;
}

/* Elements ahead go, too. */
static long visit_and_pop(struct bpf_map *map, __u64 *key, __u64 *value, void *unused)
{
	__u64 k = 0, v = 0;

	look(key, value);
	bpf_rbtree_map_pop(&numbers, &k, &v);
	bpf_rbtree_map_pop(&numbers, &k, &v);
	return 0;
}

/* A program may keep both: they are the element's, and none is the kernel's stack. */
static long visit_beside(struct bpf_map *map, __u64 *key, __u64 *value, void *unused)
{
	look(key, value);
	state.wrong += value - key != 1;
	return 0;
}

#define WALK(name, map, callback)					\
SEC("syscall")								\
int name(struct walk *args)						\
{									\
	long n;								\
									\
	state = *args;							\
	n = bpf_for_each_map_elem(&map, callback, NULL, 0);		\
	*args = state;							\
	return n;							\
}

WALK(walk, numbers, visit)
WALK(walk_beside, numbers, visit_beside)
WALK(walk_three, numbers, visit_three)
WALK(walk_and_delete, numbers, visit_and_delete)
WALK(walk_and_delete_allocated, allocated, visit_and_delete)
WALK(walk_and_renew, numbers, visit_and_renew)
WALK(walk_and_pop, numbers, visit_and_pop)
WALK(walk_and_push_ahead, big, visit_and_push_ahead)

SEC("iter/bpf_map_elem")
int show(struct bpf_iter__bpf_map_elem *ctx)
{
	__u64 *key = ctx->key, *value = ctx->value;

	if (key && value)
		BPF_SEQ_PRINTF(ctx->meta->seq, "%llu %llu\n", *key, *value);
	else
		BPF_SEQ_PRINTF(ctx->meta->seq, "end\n");
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
