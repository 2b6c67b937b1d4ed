// SPDX-License-Identifier: GPL-2.0
/* For map_faults.c: maps, and programs that use them. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include "map.bpf.h"

#define ENTRIES	16

struct args {
	__u64 key;
	__u64 value;
};

struct pkt {
	struct sk_buff __kptr *skb;
};

struct held {
	__u64 extra;
	struct task_struct __kptr *task;
};

struct large {
	__u64 number;
	char rest[1600];		/* an element is of a size that hardly anybody else has */
};

ORDERED(numbers, __u64, __u64, ENTRIES);
ORDERED_FLAGS(allocated, __u64, __u64, ENTRIES, BPF_F_NO_PREALLOC);
ORDERED(tasks, __u64, struct held, ENTRIES);
ORDERED_FLAGS(allocated_tasks, __u64, struct held, ENTRIES, BPF_F_NO_PREALLOC);
ORDERED(pkts, __u64, struct pkt, ENTRIES);
ORDERED_FLAGS(allocated_pkts, __u64, struct pkt, ENTRIES, BPF_F_NO_PREALLOC);
ORDERED(many, __u64, struct large, 512);
ORDERED_FLAGS(large, __u64, struct large, 4096, BPF_F_NO_PREALLOC);

struct {
	__uint(type, BPF_MAP_TYPE_RBTREE);
	__type(key, __u64);
	__type(value, __u32);
	__uint(max_entries, ENTRIES);
	__array(values, typeof(numbers));
} outer SEC(".maps");

#define PROGRAMS(map)								\
SEC("syscall")									\
int push_##map(struct args *args)						\
{										\
	__u64 key = args->key, value = args->value;				\
										\
	return bpf_rbtree_map_push(&map, &key, &value);				\
}										\
										\
SEC("syscall")									\
int pop_##map(struct args *args)						\
{										\
	__u64 key = 0, value = 0;						\
	int err = bpf_rbtree_map_pop(&map, &key, &value);			\
										\
	args->key = key;							\
	args->value = value;							\
	return err;								\
}

PROGRAMS(numbers)
PROGRAMS(allocated)

/* A kptr's type has a body in BTF only if it is used. */
SEC("syscall")
int bodies(void *ctx)
{
	struct held *held;
	struct pkt *pkt;
	__u64 key = 0;

	pkt = bpf_rbtree_map_first(&pkts, &key);
	held = bpf_rbtree_map_first(&tasks, &key);
	return (pkt && pkt->skb ? pkt->skb->len : 0) + (held && held->task ? held->task->pid : 0);
}

struct large element;

SEC("syscall")
int push_large(struct args *args)
{
	__u64 key = args->key;

	element.number = args->value;
	return bpf_rbtree_map_push(&large, &key, &element);
}

struct args seen;		/* by the iterator: how many, and their sum */

SEC("iter/bpf_map_elem")
int visit(struct bpf_iter__bpf_map_elem *ctx)
{
	__u64 *key = ctx->key, *value = ctx->value;

	if (key && value) {
		seen.key++;
		seen.value += *value;
		bpf_seq_write(ctx->meta->seq, key, sizeof(*key));
	}
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
