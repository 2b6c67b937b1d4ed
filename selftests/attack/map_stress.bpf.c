// SPDX-License-Identifier: GPL-2.0
/* For map_stress.c: mixed operations on ordered maps, and books of them. The value
 * of an element follows from its key, so that a mix-up is noticed.
 */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include "../lib/map.bpf.h"

#define ENTRIES	512
#define KEYS	64

struct held {
	struct task_struct __kptr *task;
};

/* What a thread has done; the same in map_stress.c */
struct books {
	__u64 pushed;
	__u64 removed;
	__u64 full;
	__u64 failed;		/* the lock could not be had; nothing was done */
	__u64 wrong;		/* a value that is not the key's, or keys out of order */
};

ORDERED(numbers, __u64, __u64, ENTRIES);
ORDERED(few, __u64, __u64, ENTRIES);
ORDERED_FLAGS(allocated, __u64, __u64, ENTRIES, BPF_F_NO_PREALLOC);
ORDERED(tasks, __u64, struct held, ENTRIES);

struct inner {
	__uint(type, BPF_MAP_TYPE_RBTREE);
	__type(key, __u64);
	__type(value, __u64);
	__uint(max_entries, 16);
} mine SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RBTREE);
	__type(key, __u64);
	__type(value, __u32);
	__uint(max_entries, KEYS);
	__array(values, struct inner);
} maps SEC(".maps");

static __u64 value_of(__u64 key)
{
	return key * 0x9e3779b97f4a7c15 + 1;
}

static void note(int err, __u64 *done, struct books *books)
{
	if (!err)
		(*done)++;
	else if (err == -E2BIG)
		books->full++;
	else if (err != -ENOENT)
		books->failed++;
}

/* The element may have left, and its memory hold another one: order is looked at elsewhere. */
static long visit(struct bpf_map *map, __u64 *key, __u64 *value, struct books *books)
{
	if (*key >= KEYS)
		books->wrong++;
	return bpf_get_prandom_u32() % 16 == 0;
}

#define CHURN(map)							\
SEC("syscall")								\
int churn_##map(struct books *args)					\
{									\
	struct books books = *args;					\
									\
	bpf_loop(2000, mix_##map, &books, 0);				\
	*args = books;							\
	return 0;							\
}

#define MIX(map)							\
static int mix_##map(__u32 i, struct books *books)			\
{									\
	__u64 key = bpf_get_prandom_u32() % KEYS, value = value_of(key), *at; \
									\
	switch (bpf_get_prandom_u32() % 10) {				\
	case 0 ... 3:							\
		note(bpf_rbtree_map_push(&map, &key, &value), &books->pushed, books); \
		break;							\
	case 4 ... 5:							\
		note(bpf_rbtree_map_pop(&map, &key, &value), &books->removed, books); \
		if (value != value_of(key))				\
			books->wrong++;					\
		break;							\
	case 6:								\
		note(bpf_map_delete_elem(&map, &key), &books->removed, books); \
		break;							\
	case 7:								\
		/* The value may be another element's by now. */	\
		at = bpf_rbtree_map_lower_bound(&map, &key);		\
		if (at && !*at)						\
			books->wrong++;					\
		break;							\
	case 8:								\
		bpf_map_update_elem(&map, &key, &value, BPF_EXIST);	\
		break;							\
	case 9:								\
		bpf_for_each_map_elem(&map, visit, books, 0);		\
		break;							\
	}								\
	return 0;							\
}									\
									\
CHURN(map)

MIX(numbers)
MIX(allocated)

/* The map is empty, or nearly so, whenever it is asked how many there are. */
static int mix_few(__u32 i, struct books *books)
{
	__u64 key = bpf_get_prandom_u32() % KEYS, value = value_of(key);

	note(bpf_rbtree_map_push(&few, &key, &value), &books->pushed, books);
	if (bpf_rbtree_map_len(&few) > ENTRIES)
		books->wrong++;
	note(bpf_rbtree_map_pop(&few, &key, &value), &books->removed, books);
	if (bpf_rbtree_map_len(&few) > ENTRIES)
		books->wrong++;
	return 0;
}

CHURN(few)

/* A key that others write to while it is stored. */
struct wide {
	__u64 group;
	__u64 number;
};

ORDERED(wide, struct wide, __u64, ENTRIES);

static struct wide shared;

static int mix_wide(__u32 i, struct books *books)
{
	struct wide key = {};
	__u64 value;

	/* Threads have numbers one after the other. */
	if (bpf_get_current_pid_tgid() & 1) {
		__sync_lock_test_and_set(&shared.group, i % KEYS);
		return 0;
	}
	note(bpf_rbtree_map_push(&wide, &shared, &(__u64){ 0 }), &books->pushed, books);
	if (i % 2)
		note(bpf_rbtree_map_pop(&wide, &key, &value), &books->removed, books);
	return 0;
}

CHURN(wide)

static int mix_tasks(__u32 i, struct books *books)
{
	__u64 key = bpf_get_prandom_u32() % KEYS;
	struct task_struct *task;

	switch (bpf_get_prandom_u32() % 8) {
	case 0 ... 3:
		task = bpf_task_acquire(bpf_get_current_task_btf());
		if (task)
			note(bpf_rbtree_map_push_task(task, &tasks, &key), &books->pushed, books);
		break;
	case 4 ... 6:
		task = bpf_rbtree_map_pop_task(&tasks, &key);
		if (task) {
			bpf_task_release(task);
			books->removed++;
		}
		break;
	case 7:
		note(bpf_map_delete_elem(&tasks, &key), &books->removed, books);
		break;
	}
	return 0;
}

CHURN(tasks)

/* Inner maps come, too, from user space, which replaces them and takes them away. */
static int mix_maps(__u32 i, struct books *books)
{
	__u64 rank = bpf_get_prandom_u32() % KEYS, key = bpf_get_prandom_u32() % KEYS, value;
	void *inner;

	switch (bpf_get_prandom_u32() % 4096) {
	case 0 ... 7:
		note(bpf_rbtree_map_push_map(&maps, &rank, &mine), &books->pushed, books);
		break;
	case 8:
		if (bpf_rbtree_map_pop_map(&maps, &rank))
			books->removed++;
		break;
	case 9 ... 1023:
		inner = bpf_rbtree_map_pop_map(&maps, &rank);
		if (!inner)
			break;
		books->removed++;
		if (!bpf_rbtree_map_pop(inner, &key, &value) && value != value_of(key))
			books->wrong++;
		rank = bpf_get_prandom_u32() % KEYS;
		note(bpf_rbtree_map_push_map(&maps, &rank, inner), &books->pushed, books);
		break;
	case 1024 ... 2047:
		inner = bpf_rbtree_map_lower_bound(&maps, &rank);
		if (!inner)
			break;
		if (!bpf_rbtree_map_pop(inner, &key, &value) && value != value_of(key))
			books->wrong++;
		key = bpf_get_prandom_u32() % KEYS;
		bpf_rbtree_map_move(&maps, &rank, &key);
		break;
	case 2048 ... 4095:
		inner = bpf_rbtree_map_lower_bound(&maps, &rank);
		value = value_of(key);
		if (inner)
			bpf_rbtree_map_push(inner, &key, &value);
		break;
	}
	return 0;
}

CHURN(maps)

SEC("iter/bpf_map_elem")
int show(struct bpf_iter__bpf_map_elem *ctx)
{
	__u64 *key = ctx->key, *value = ctx->value;

	if (key && value)
		bpf_seq_write(ctx->meta->seq, value, sizeof(*value));
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
