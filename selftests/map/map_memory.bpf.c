// SPDX-License-Identifier: GPL-2.0
/* For map_memory.c: maps that are filled at once. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include "../lib/map.bpf.h"

#define MANY	10000

ORDERED(numbers, __u64, __u64, MANY);
ORDERED(held_up, __u64, __u64, MANY);
ORDERED(arrived, __u64, __u64, MANY);
ORDERED(few, __u64, __u64, 64);

struct burst {
	__u64 start;
	__u32 count;
	__u32 done;
	int error;
};

/* Keys in no order, but each once: 7 and the number of keys have no common factor. */
#define FILL(name)									\
static long push_##name(__u32 i, struct burst *burst)					\
{											\
	__u64 key = (burst->start + i) * 7 % MANY, value = key + 1;			\
											\
	burst->error = bpf_rbtree_map_push(&name, &key, &value);			\
	burst->done += !burst->error;							\
	return burst->error != 0;							\
}											\
											\
SEC("syscall")										\
int fill_##name(struct burst *args)							\
{											\
	struct burst burst = *args;							\
											\
	bpf_loop(burst.count, push_##name, &burst, 0);					\
	*args = burst;									\
	return burst.error;								\
}											\
											\
static long pop_##name(__u32 i, struct burst *burst)					\
{											\
	__u64 key = 0, value = 0;							\
											\
	burst->error = bpf_rbtree_map_pop(&name, &key, &value);			\
	if (!burst->error && (key != i || value != i + 1))				\
		burst->error = -E2BIG;							\
	burst->done += !burst->error;							\
	return burst->error != 0;							\
}											\
											\
SEC("syscall")										\
int empty_##name(struct burst *args)							\
{											\
	struct burst burst = *args;							\
											\
	bpf_loop(burst.count, pop_##name, &burst, 0);					\
	*args = burst;									\
	return burst.error;								\
}

FILL(numbers)
FILL(held_up)
FILL(few)

struct {
	__u32 hold;
	__u32 held;
	__u32 packets;
	__u32 errors;
} bss;

static long wait_a_little(__u32 i, void *unused)
{
	return !*(volatile __u32 *)&bss.hold;
}

/* Spare memory comes late. */
SEC("fentry/rbtree_work")
int BPF_PROG(hold_up)
{
	if (bss.hold)
		bss.held++;
	bpf_loop(1 << 23, wait_a_little, NULL, 0);
	return 0;
}

/* In a softirq */
SEC("tc")
int arrive(struct __sk_buff *skb)
{
	__u64 key = bss.packets * 7 % MANY, value = key + 1;

	bss.packets++;
	if (bpf_rbtree_map_push(&arrived, &key, &value))
		bss.errors++;
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
