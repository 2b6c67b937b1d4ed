// SPDX-License-Identifier: GPL-2.0
/* For map_maps.c: queues in an ordered map, by rank. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include "map.bpf.h"

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

/* ---- what must be refused ---- */

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
