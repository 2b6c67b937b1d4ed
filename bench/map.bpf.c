// SPDX-License-Identifier: GPL-2.0
/*
 * What operations of maps cost. For each type of key, and for each kind of map beside the
 * ordered one: a program that pushes N elements with scattered keys, one that looks for
 * each key (in an ordered map: for its lower bound), and one that takes all out. The loop
 * and making a key are in the cost of each. They return how many operations failed.
 */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_rbtree.h>

#define N	10000

struct pair {
	__u16 high;
	__s32 low;			/* after padding */
};

struct flow {
	__u8 address[6];
	__u16 ports[2];
};

struct bytes {				/* as memcmp() has it */
	__u8 byte[8];
};

/* Neighbouring numbers come out far apart, and all different. */
static __always_inline __u32 scatter(__u32 i)
{
	return i * 0x9e3779b1;
}

static __always_inline void make_pair(struct pair *key, __u32 i)
{
	__builtin_memset(key, 0, sizeof(*key));
	key->high = scatter(i) % 64;
	key->low = scatter(i);
}

static __always_inline void make_flow(struct flow *key, __u32 i)
{
	__builtin_memset(key, 0, sizeof(*key));
	key->address[0] = 10;
	key->address[3] = scatter(i) % 16;
	key->ports[0] = scatter(i) >> 16;
	key->ports[1] = scatter(i);
}

static __always_inline void make_bytes(struct bytes *key, __u32 i)
{
	__u64 value = (__u64)scatter(i) << 32 | scatter(~i);

	__builtin_memcpy(key, &value, sizeof(value));
}

#define make_number(key, i)	\
	(*(key) = ((__u64)scatter(i) << 32 | scatter(i)) >> (64 - 8 * sizeof(*(key))))
#define make_same(key, i)	(*(key) = 1)
#define make_rising(key, i)	(*(key) = i)

/* N times a key and a value, and something that uses them */
#define PROGRAM(name, type, make, ...)						\
SEC("syscall")									\
int name(void *ctx)								\
{										\
	__u32 i, failed = 0;							\
										\
	bpf_for(i, 0, N) {							\
		__u64 value = i;						\
		type key;							\
										\
		make(&key, i);							\
		asm volatile("" :: "r"(&key), "r"(&value) : "memory");		\
		__VA_ARGS__;							\
	}									\
	return failed;								\
}

#define MAP(name, map_type, key_type, flags)					\
	struct {								\
		__uint(type, map_type);						\
		__type(key, key_type);						\
		__type(value, __u64);						\
		__uint(max_entries, N);						\
		__uint(map_flags, flags);					\
	} name SEC(".maps")

#define ORDERED(name, type, make, flags)					\
MAP(by_##name, BPF_MAP_TYPE_RBTREE, type, flags);					\
PROGRAM(push_##name, type, make, failed += !!bpf_rbtree_map_push(&by_##name, &key, &value))	\
PROGRAM(find_##name, type, make, failed += !bpf_rbtree_map_lower_bound(&by_##name, &key))	\
PROGRAM(pop_##name, type, make, failed += !!bpf_rbtree_map_pop(&by_##name, &key, &value))

ORDERED(u8, __u8, make_number, 0)
ORDERED(s8, __s8, make_number, 0)
ORDERED(u16, __u16, make_number, 0)
ORDERED(s16, __s16, make_number, 0)
ORDERED(u32, __u32, make_number, 0)
ORDERED(s32, __s32, make_number, 0)
ORDERED(u64, __u64, make_number, 0)
ORDERED(s64, __s64, make_number, 0)
ORDERED(struct_pair, struct pair, make_pair, 0)
ORDERED(struct_flow, struct flow, make_flow, 0)
ORDERED(bytes, struct bytes, make_bytes, 0)
ORDERED(u64_same, __u64, make_same, 0)
ORDERED(u64_rising, __u64, make_rising, 0)
ORDERED(u64_no_prealloc, __u64, make_number, BPF_F_NO_PREALLOC)

/* Its seed would be another each time. */
MAP(hash, BPF_MAP_TYPE_HASH, __u64, BPF_F_ZERO_SEED);
PROGRAM(push_hash, __u64, make_number, failed += !!bpf_map_update_elem(&hash, &key, &value, BPF_ANY))
PROGRAM(find_hash, __u64, make_number, failed += !bpf_map_lookup_elem(&hash, &key))
PROGRAM(pop_hash, __u64, make_number, failed += !!bpf_map_delete_elem(&hash, &key))

struct {
	__uint(type, BPF_MAP_TYPE_QUEUE);
	__type(value, __u64);
	__uint(max_entries, N);
} queue SEC(".maps");

PROGRAM(push_queue, __u64, make_same, failed += !!bpf_map_push_elem(&queue, &value, 0))
PROGRAM(pop_queue, __u64, make_same, failed += !!bpf_map_pop_elem(&queue, &value))

/* A tree of the program's own: an allocation and a lock for each element */
struct node {
	struct bpf_rb_node node;
	__u64 key;
	__u64 value;
};

#define __contains(name, node)	__attribute__((btf_decl_tag("contains:" #name ":" #node)))
#define private			SEC(".data.private") __hidden __attribute__((aligned(8)))

private struct bpf_spin_lock lock;
private struct bpf_rb_root root __contains(node, node);

static bool less(struct bpf_rb_node *a, const struct bpf_rb_node *b)
{
	return container_of(a, struct node, node)->key < container_of(b, struct node, node)->key;
}

static int push_node(__u64 key, __u64 value)
{
	struct node *node = bpf_obj_new(bpf_core_type_id_local(struct node));

	if (!node)
		return 1;
	node->key = key;
	node->value = value;
	bpf_spin_lock(&lock);
	bpf_rbtree_add(&root, &node->node, less);
	bpf_spin_unlock(&lock);
	return 0;
}

static int pop_node(__u64 *key, __u64 *value)
{
	struct bpf_rb_node *first;
	struct node *node;

	bpf_spin_lock(&lock);
	first = bpf_rbtree_first(&root);
	if (first)
		first = bpf_rbtree_remove(&root, first);
	bpf_spin_unlock(&lock);
	if (!first)
		return 1;
	node = container_of(first, struct node, node);
	*key = node->key;
	*value = node->value;
	bpf_obj_drop(node);
	return 0;
}

PROGRAM(push_bpf_rb_root, __u64, make_number, failed += push_node(key, value))
PROGRAM(pop_bpf_rb_root, __u64, make_number, failed += pop_node(&key, &value))

char LICENSE[] SEC("license") = "GPL";
