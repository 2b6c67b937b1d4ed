// SPDX-License-Identifier: GPL-2.0
/* For map_faults.c: maps, and programs that use them. */
#include "vmlinux.h"
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include "../lib/map.bpf.h"

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

struct large_held {
	struct task_struct __kptr *task;
	char rest[1600];
};

struct local {
	struct task_struct __kptr *task;
};

struct objects {
	struct local __kptr *local;
	struct args __percpu_kptr *numbers;
};

ORDERED(numbers, __u64, __u64, ENTRIES);
ORDERED(others, __u64, __u64, ENTRIES);
ORDERED_FLAGS(allocated, __u64, __u64, ENTRIES, BPF_F_NO_PREALLOC);
ORDERED(tasks, __u64, struct held, ENTRIES);
ORDERED_FLAGS(allocated_tasks, __u64, struct held, ENTRIES, BPF_F_NO_PREALLOC);
ORDERED(pkts, __u64, struct pkt, ENTRIES);
ORDERED_FLAGS(allocated_pkts, __u64, struct pkt, ENTRIES, BPF_F_NO_PREALLOC);
ORDERED_FLAGS(near, __u64, __u64, ENTRIES, BPF_F_NUMA_NODE);
ORDERED_FLAGS(read_only, __u64, __u64, ENTRIES, BPF_F_RDONLY_PROG);
ORDERED(objects, __u64, struct objects, ENTRIES);
ORDERED_FLAGS(allocated_objects, __u64, struct objects, ENTRIES, BPF_F_NO_PREALLOC);
ORDERED(many, __u64, struct large, 512);
ORDERED_FLAGS(large, __u64, struct large, 4096, BPF_F_NO_PREALLOC);
ORDERED_FLAGS(large_tasks, __u64, struct large_held, 4096, BPF_F_NO_PREALLOC);

struct {
	__uint(type, BPF_MAP_TYPE_RBTREE);
	__type(key, __u64);
	__type(value, __u32);
	__uint(max_entries, ENTRIES);
	__array(values, typeof(numbers));
} outer SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RBTREE);
	__type(key, __u64);
	__type(value, __u32);
	__uint(max_entries, ENTRIES);
	__array(values, typeof(tasks));
} outer_of_tasks SEC(".maps");

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

SEC("syscall")
int push_outer(struct args *args)
{
	__u64 key = args->key;

	return bpf_rbtree_map_push_map(&outer, &key, &others);
}

SEC("syscall")
int pop_outer(struct args *args)
{
	__u64 key = 0;

	return bpf_rbtree_map_pop_map(&outer, &key) ? 0 : -ENOENT;
}

/* A kptr's type has a body in BTF only if it is used. */
SEC("syscall")
int bodies(void *ctx)
{
	struct held *held;
	struct pkt *pkt;
	__u64 key = 0;

	pkt = bpf_rbtree_map_first(&pkts, &key);
	held = bpf_rbtree_map_first(&tasks, &key);
	return (pkt && pkt->skb ? pkt->skb->len : 0) + (held && held->task ? held->task->pid : 0) +
	       bpf_core_type_id_local(struct local);
}

struct large element;

SEC("syscall")
int push_large(struct args *args)
{
	__u64 key = args->key;

	element.number = args->value;
	return bpf_rbtree_map_push(&large, &key, &element);
}

/* References that others may hold on the task, as long as it lives. */
SEC("syscall")
int references(void *ctx)
{
	return bpf_get_current_task_btf()->rcu_users.refs.counter;
}

SEC("syscall")
int push_large_tasks(struct args *args)
{
	struct task_struct *task = bpf_task_acquire(bpf_get_current_task_btf());
	__u64 key = args->key;

	return task ? bpf_rbtree_map_push_task(task, &large_tasks, &key) : -1;
}

SEC("syscall")
int pop_large_tasks(struct args *args)
{
	struct task_struct *task;
	__u64 key = 0;

	task = bpf_rbtree_map_pop_task(&large_tasks, &key);
	if (!task)
		return -ENOENT;
	bpf_task_release(task);
	return 0;
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
