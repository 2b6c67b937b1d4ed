// SPDX-License-Identifier: GPL-2.0
/*
 * What a push and a pop cost, by the number of distinct keys: in an ordered map, and in a tree of
 * the program's own (bpf_rb_root). fill_*() stores so many elements, cycle_*() takes the first one
 * out and stores it under a later key, and drain_*() takes all out. They return how many operations
 * failed.
 *
 * Keys of a round are above all of the round before, and come in an order of their own; so elements
 * go in at any place among those of the next round.
 */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_rbtree.h>

#define MAX_ELEMENTS	(1 << 20)

struct order {
	__u32 elements;		/* of the map; a power of two, as keys */
	__u32 keys;		/* of a round */
	__u32 count;		/* how often */
};

static __u64 pushed;		/* so far */

/* The key of the next element. An odd factor visits each key of a power of two once. */
static __u64 next_key(const struct order *order)
{
	__u64 round = pushed / order->elements;
	__u32 place = (__u32)pushed++ * 0x9e3779b1 % order->keys;

	return round * order->keys + place;
}

#define CALLS(name)							\
SEC("syscall")								\
int fill_##name(struct order *order)				\
{									\
	__u32 i, failed = 0;						\
									\
	pushed = 0;							\
	bpf_for(i, 0, order->elements)				\
		failed += push_##name(next_key(order));		\
	return failed;							\
}									\
SEC("syscall")								\
int cycle_##name(struct order *order)				\
{									\
	__u32 i, failed = 0;						\
									\
	bpf_for(i, 0, order->count)					\
		failed += pop_##name() || push_##name(next_key(order));	\
	return failed;							\
}									\
SEC("syscall")								\
int drain_##name(struct order *order)				\
{									\
	__u32 i, failed = 0;						\
									\
	bpf_for(i, 0, order->elements)				\
		failed += pop_##name();					\
	return failed;							\
}

struct {
	__uint(type, BPF_MAP_TYPE_RBTREE);
	__type(key, __u64);
	__type(value, __u64);
	__uint(max_entries, MAX_ELEMENTS);
} ordered SEC(".maps");

static int push_map(__u64 key)
{
	__u64 value = key;

	return !!bpf_rbtree_map_push(&ordered, &key, &value);
}

static int pop_map(void)
{
	__u64 key, value;

	return !!bpf_rbtree_map_pop(&ordered, &key, &value);
}

CALLS(map)

struct node {
	struct bpf_rb_node node;
	__u64 key;
};

#define __contains(name, node)	__attribute__((btf_decl_tag("contains:" #name ":" #node)))
#define private			SEC(".data.private") __hidden __attribute__((aligned(8)))

private struct bpf_spin_lock lock;
private struct bpf_rb_root root __contains(node, node);

static bool less(struct bpf_rb_node *a, const struct bpf_rb_node *b)
{
	return container_of(a, struct node, node)->key < container_of(b, struct node, node)->key;
}

static int push_tree(__u64 key)
{
	struct node *node = bpf_obj_new(bpf_core_type_id_local(struct node));

	if (!node)
		return 1;
	node->key = key;
	bpf_spin_lock(&lock);
	bpf_rbtree_add(&root, &node->node, less);
	bpf_spin_unlock(&lock);
	return 0;
}

static int pop_tree(void)
{
	struct bpf_rb_node *first;

	bpf_spin_lock(&lock);
	first = bpf_rbtree_first(&root);
	if (first)
		first = bpf_rbtree_remove(&root, first);
	bpf_spin_unlock(&lock);
	if (!first)
		return 1;
	bpf_obj_drop(container_of(first, struct node, node));
	return 0;
}

CALLS(tree)

char LICENSE[] SEC("license") = "GPL";
