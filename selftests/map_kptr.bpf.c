// SPDX-License-Identifier: GPL-2.0
/* For map_kptr.c: ordered maps that hold references on the task that runs them. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include "map.bpf.h"

#define ENTRIES	16

struct held {
	__u64 extra;
	struct task_struct __kptr *task;
};

struct args {
	__u64 key;
	__u64 value;
};

ORDERED(tasks, __u64, struct held, ENTRIES);
ORDERED_FLAGS(allocated, __u64, struct held, ENTRIES, BPF_F_NO_PREALLOC);

/* References that others may hold on the task, as long as it lives. */
SEC("syscall")
int references(void *ctx)
{
	return bpf_get_current_task_btf()->rcu_users.refs.counter;
}

static __always_inline struct task_struct *acquire_current(void)
{
	return bpf_task_acquire(bpf_get_current_task_btf());
}

#define MAP_OF_TASKS(map)						\
									\
SEC("syscall")								\
int push_##map(struct args *args)					\
{									\
	struct task_struct *task = acquire_current();			\
	__u64 key = args->key;						\
									\
	return task ? bpf_rbtree_map_push_task(task, &map, &key) : -1;	\
}									\
									\
/* Its key and pid */							\
SEC("syscall")								\
int pop_##map(struct args *args)					\
{									\
	struct task_struct *task;					\
	__u64 key = 0;							\
									\
	task = bpf_rbtree_map_pop_task(&map, &key);			\
	if (!task)							\
		return -ENOENT;						\
	args->key = key;						\
	args->value = task->pid;					\
	bpf_task_release(task);						\
	return 0;							\
}									\
									\
/* All of the element, the task is released */				\
SEC("syscall")								\
int pop_plain_##map(struct args *args)					\
{									\
	struct held held = {};						\
	__u64 key = 0;							\
	int err = bpf_rbtree_map_pop(&map, &key, &held);		\
									\
	args->key = key;						\
	args->value = held.extra;					\
	return err ?: held.task ? 1 : 0;				\
}									\
									\
static __always_inline int exchange_##map(__u64 key, struct task_struct *task, bool delete)	\
{									\
	struct task_struct *old;					\
	struct held *held = bpf_map_lookup_elem(&map, &key);		\
									\
	if (!held) {							\
		if (task)						\
			bpf_task_release(task);				\
		return -ENOENT;						\
	}								\
	if (delete)							\
		bpf_map_delete_elem(&map, &key);			\
	old = bpf_kptr_xchg(&held->task, task);				\
	if (!old)							\
		return 0;						\
	bpf_task_release(old);						\
	return 1;							\
}									\
									\
/* Whether there was one */						\
SEC("syscall")								\
int put_##map(struct args *args)					\
{									\
	struct task_struct *task = acquire_current();			\
									\
	return task ? exchange_##map(args->key, task, false) : -1;	\
}									\
									\
SEC("syscall")								\
int take_##map(struct args *args)					\
{									\
	return exchange_##map(args->key, NULL, false);			\
}									\
									\
/* Into a value whose element has left */				\
SEC("syscall")								\
int put_late_##map(struct args *args)					\
{									\
	struct task_struct *task = acquire_current();			\
									\
	return task ? exchange_##map(args->key, task, true) : -1;	\
}

MAP_OF_TASKS(tasks)
MAP_OF_TASKS(allocated)

char LICENSE[] SEC("license") = "GPL";
