// SPDX-License-Identifier: GPL-2.0
/* For map_fuzz.c: a map for each type of key, and what only programs can do to it. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include "../lib/map.bpf.h"

#define ENTRIES	500

struct pair {
	__u16 high;
	__s32 low;			/* after two bytes of padding */
};

struct flow {
	__u8 address[6];
	__u16 ports[2];
	struct {
		__s8 class;
		__u64 cookie;
	} tag;
};

struct raw {
	__u8 bytes[12];
};

struct wide {
	__u64 number;			/* before eight bytes of padding */
} __attribute__((aligned(16)));

struct args {
	__u8 key[32];
	__u64 value;
	__u8 to[32];
};

#define PROGRAMS(name, type)						\
SEC("syscall")								\
int push_##name(struct args *args)					\
{									\
	__u64 value = args->value;					\
	type key;							\
									\
	__builtin_memcpy(&key, args->key, sizeof(key));			\
	return bpf_rbtree_map_push(&name, &key, &value);		\
}									\
									\
SEC("syscall")								\
int pop_##name(struct args *args)					\
{									\
	__u64 value = 0;						\
	type key;							\
	int err;							\
									\
	__builtin_memset(&key, 0, sizeof(key));				\
	err = bpf_rbtree_map_pop(&name, &key, &value);			\
	__builtin_memcpy(args->key, &key, sizeof(key));			\
	args->value = value;						\
	return err;							\
}									\
									\
SEC("syscall")								\
int until_##name(struct args *args)					\
{									\
	__u64 value = 0;						\
	type bound, key;						\
	int err;							\
									\
	__builtin_memcpy(&bound, args->key, sizeof(bound));		\
	__builtin_memset(&key, 0, sizeof(key));				\
	err = bpf_rbtree_map_pop_until(&name, &bound, &key, &value);	\
	__builtin_memcpy(args->key, &key, sizeof(key));			\
	args->value = value;						\
	return err;							\
}									\
									\
SEC("syscall")								\
int take_##name(struct args *args)					\
{									\
	__u64 value = 0;						\
	type key;							\
	int err;							\
									\
	__builtin_memcpy(&key, args->key, sizeof(key));			\
	err = bpf_rbtree_map_pop_key(&name, &key, &value);		\
	args->value = value;						\
	return err;							\
}									\
									\
SEC("syscall")								\
int move_##name(struct args *args)					\
{									\
	type from, to;							\
									\
	__builtin_memcpy(&from, args->key, sizeof(from));		\
	__builtin_memcpy(&to, args->to, sizeof(to));			\
	return bpf_rbtree_map_move(&name, &from, &to);			\
}									\
									\
SEC("syscall")								\
int first_##name(struct args *args)					\
{									\
	__u64 *value;							\
	type key;							\
									\
	__builtin_memset(&key, 0, sizeof(key));				\
	value = bpf_rbtree_map_first(&name, &key);			\
	__builtin_memcpy(args->key, &key, sizeof(key));			\
	args->value = value ? *value : 0;				\
	return value ? 0 : -ENOENT;					\
}									\
									\
SEC("syscall")								\
int from_##name(struct args *args)					\
{									\
	__u64 *value;							\
	type key;							\
									\
	__builtin_memcpy(&key, args->key, sizeof(key));			\
	value = bpf_rbtree_map_lower_bound(&name, &key);		\
	__builtin_memcpy(args->key, &key, sizeof(key));			\
	args->value = value ? *value : 0;				\
	return value ? 0 : -ENOENT;					\
}

#define KEYS(name, type, flags)						\
	ORDERED_FLAGS(name, type, __u64, ENTRIES, flags);		\
	PROGRAMS(name, type)

KEYS(by_u64, __u64, 0)
KEYS(by_u64_allocated, __u64, BPF_F_NO_PREALLOC)
KEYS(by_s64, __s64, 0)
KEYS(by_u32, __u32, 0)
KEYS(by_s32, __s32, 0)
KEYS(by_s16, __s16, 0)
KEYS(by_u8, __u8, 0)
KEYS(by_wide, struct wide, 0)
KEYS(by_pair, struct pair, 0)
KEYS(by_flow, struct flow, 0)

struct {
	__uint(type, BPF_MAP_TYPE_RBTREE);
	__uint(key_size, sizeof(struct raw));
	__uint(value_size, sizeof(__u64));
	__uint(max_entries, ENTRIES);
} without_btf SEC(".maps");

PROGRAMS(without_btf, struct raw)

char LICENSE[] SEC("license") = "GPL";
