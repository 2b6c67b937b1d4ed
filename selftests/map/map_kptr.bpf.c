// SPDX-License-Identifier: GPL-2.0
/* For map_kptr.c: ordered maps that hold references on the task that runs them, and
 * ones that hold objects of every other kind.
 */
#include "vmlinux.h"
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include "../lib/map.bpf.h"

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
static int references_on_task(void)
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
int references_##map(void *ctx)						\
{									\
	return references_on_task();					\
}									\
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

ORDERED(without_tasks, __u64, struct held, 200);

SEC("syscall")
int pop_without_tasks(struct args *args)
{
	struct task_struct *task = bpf_rbtree_map_pop_task(&without_tasks, &args->key);

	if (task)
		bpf_task_release(task);
	return !!task;
}

/* ---- kptrs of every other kind ---- */

struct local {
	struct bpf_refcount count;
	struct bpf_cpumask __kptr *mask;
};

struct numbers {
	__u64 number[8];
};

struct objects {
	__u64 extra;
	struct bpf_cpumask __kptr *mask;	/* the kernel's, with a destructor */
	struct local __kptr *local;		/* with another one in it */
	struct numbers __percpu_kptr *numbers;
	struct task_struct __kptr_untrusted *task;
};

ORDERED(objects, __u64, struct objects, ENTRIES);
ORDERED_FLAGS(allocated_objects, __u64, struct objects, ENTRIES, BPF_F_NO_PREALLOC);

/* All masks are one, and this is the first reference on it. */
struct ledger {
	struct bpf_cpumask __kptr *mask;
	__u64 numbers;				/* of those that were made and not dropped */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, struct ledger);
	__uint(max_entries, 1);
} ledger SEC(".maps");

static struct ledger *get_ledger(void)
{
	return bpf_map_lookup_elem(&ledger, &(__u32){ 0 });
}

/* How many objects were dropped by a process; which one */
__u32 released[2] SEC(".data.released");

/* By whatever holds them */
SEC("fentry/__bpf_obj_drop_impl")
int BPF_PROG(drop, void *object, const struct btf_record *record, bool percpu)
{
	struct ledger *here = get_ledger();

	if (bpf_get_current_pid_tgid() >> 32 == released[1])
		__sync_fetch_and_add(&released[0], 1);
	if (here && percpu)
		__sync_fetch_and_sub(&here->numbers, 1);
	return 0;
}

static __always_inline struct bpf_cpumask *acquire_mask(void)
{
	struct bpf_cpumask *mask, *acquired;
	struct ledger *here = get_ledger();

	if (!here)
		return NULL;
	mask = bpf_kptr_xchg(&here->mask, NULL);
	if (!mask)
		mask = bpf_cpumask_create();
	if (!mask)
		return NULL;
	acquired = bpf_cpumask_acquire(mask);
	mask = bpf_kptr_xchg(&here->mask, mask);
	if (mask)
		bpf_cpumask_release(mask);
	return acquired;
}

static __always_inline struct local *new_local(void)
{
	struct local *local = bpf_obj_new(bpf_core_type_id_local(struct local)), *acquired;
	struct bpf_cpumask *mask;

	if (!local)
		return NULL;
	mask = bpf_kptr_xchg(&local->mask, acquire_mask());
	if (mask)
		bpf_cpumask_release(mask);
	/* Of two references the map gets the last. */
	acquired = bpf_refcount_acquire(local);
	bpf_obj_drop(local);
	return acquired;
}

static __always_inline struct numbers __percpu_kptr *new_numbers(void)
{
	struct numbers __percpu_kptr *numbers =
		bpf_percpu_obj_new(bpf_core_type_id_local(struct numbers));
	struct ledger *here = get_ledger();

	if (numbers && here)
		__sync_fetch_and_add(&here->numbers, 1);
	return numbers;
}

/* How many there are of each; -1 if not as many of one kind as of the other */
static int references_on_objects(void)
{
	struct ledger *here = get_ledger();
	struct bpf_cpumask *mask;
	int masks;

	if (!here)
		return -1;
	mask = here->mask;
	masks = mask ? mask->usage.refs.counter - 1 : 0;
	return masks == 2 * here->numbers ? masks / 2 : -1;
}

/* Whether there were any */
static __always_inline int exchange_objects(struct objects *at, bool fill)
{
	struct numbers __percpu_kptr *numbers = NULL;
	struct bpf_cpumask *mask = NULL;
	struct ledger *here = get_ledger();
	struct local *local = NULL;
	int n = 0;

	if (!here)
		return -1;
	at->task = fill ? bpf_get_current_task_btf() : NULL;
	if (fill)
		mask = acquire_mask();
	mask = bpf_kptr_xchg(&at->mask, mask);
	if (mask) {
		bpf_cpumask_release(mask);
		n++;
	}
	if (fill)
		local = new_local();
	local = bpf_kptr_xchg(&at->local, local);
	if (local) {
		bpf_obj_drop(local);
		n++;
	}
	if (fill)
		numbers = new_numbers();
	numbers = bpf_kptr_xchg(&at->numbers, numbers);
	if (numbers) {
		bpf_percpu_obj_drop(numbers);
		__sync_fetch_and_sub(&here->numbers, 1);
		n++;
	}
	return n == 3 ? 1 : n ? 2 : 0;	/* a worker may have released a part */
}

#define MAP_OF_OBJECTS(map)						\
									\
SEC("syscall")								\
int references_##map(void *ctx)						\
{									\
	return references_on_objects();					\
}									\
									\
SEC("syscall")								\
int push_##map(struct args *args)					\
{									\
	struct objects new = { .extra = bpf_ktime_get_ns() }, *at;	\
	__u64 key = args->key;						\
	int err;							\
									\
	err = bpf_rbtree_map_push(&map, &key, &new);			\
	if (err)							\
		return err;						\
	at = bpf_map_lookup_elem(&map, &key);				\
	/* Another one of this key stays empty. */			\
	if (at && at->extra == new.extra && exchange_objects(at, true) < 0)	\
		return -1;						\
	return 0;							\
}									\
									\
/* As of a map of tasks, elements without objects are passed by. */	\
SEC("syscall")								\
int pop_##map(struct args *args)					\
{									\
	struct objects out, *at;					\
	struct task_struct *task;					\
	bool empty = true;						\
	__u64 key = 0;							\
	int i;								\
									\
	for (i = 0; i < ENTRIES && empty; i++) {			\
		at = bpf_rbtree_map_first(&map, &key);			\
		if (!at)						\
			return -ENOENT;					\
		empty = !at->mask;					\
		task = at->task;					\
		args->value = task ? task->pid : 0;			\
		if (bpf_rbtree_map_pop(&map, &key, &out))		\
			return -ENOENT;					\
		args->key = key;					\
	}								\
	return 0;							\
}									\
									\
SEC("syscall")								\
int pop_plain_##map(struct args *args)					\
{									\
	struct objects out = {};					\
	__u64 key = 0;							\
	int err = bpf_rbtree_map_pop(&map, &key, &out);			\
									\
	return err ?: out.mask || out.local || out.numbers || out.task;	\
}									\
									\
SEC("syscall")								\
int put_##map(struct args *args)					\
{									\
	__u64 key = args->key;						\
	struct objects *at = bpf_map_lookup_elem(&map, &key);		\
									\
	return at ? exchange_objects(at, true) : -ENOENT;		\
}									\
									\
SEC("syscall")								\
int take_##map(struct args *args)					\
{									\
	__u64 key = args->key;						\
	struct objects *at = bpf_map_lookup_elem(&map, &key);		\
									\
	return at ? exchange_objects(at, false) : -ENOENT;		\
}									\
									\
SEC("syscall")								\
int put_late_##map(struct args *args)					\
{									\
	__u64 key = args->key;						\
	struct objects *at = bpf_map_lookup_elem(&map, &key);		\
									\
	bpf_map_delete_elem(&map, &key);				\
	return at ? exchange_objects(at, true) : -ENOENT;		\
}

MAP_OF_OBJECTS(objects)
MAP_OF_OBJECTS(allocated_objects)

/* ---- nothing to release, and yet special ---- */

struct plain {
	struct bpf_refcount count;
	struct task_struct __kptr_untrusted *task;
};

ORDERED(plain, __u64, struct plain, 1);
ORDERED_FLAGS(allocated_plain, __u64, struct plain, 1, BPF_F_NO_PREALLOC);

#define MAP_OF_PLAIN(map)						\
									\
/* Its task was there before? */					\
SEC("syscall")								\
int put_##map(struct args *args)					\
{									\
	struct task_struct *old;					\
	__u64 key = args->key;						\
	struct plain *at = bpf_map_lookup_elem(&map, &key);		\
									\
	if (!at)							\
		return -ENOENT;						\
	old = at->task;							\
	at->task = bpf_get_current_task_btf();				\
	args->value = old ? old->pid : 0;				\
	return old != NULL;						\
}									\
									\
SEC("syscall")								\
int push_##map(struct args *args)					\
{									\
	struct plain new = {};						\
	__u64 key = args->key;						\
									\
	return bpf_rbtree_map_push(&map, &key, &new);			\
}									\
									\
SEC("syscall")								\
int pop_plain_##map(struct args *args)					\
{									\
	struct plain out;						\
	__u64 key = 0;							\
	int err = bpf_rbtree_map_pop(&map, &key, &out);			\
									\
	return err ?: out.task != NULL;					\
}

MAP_OF_PLAIN(plain)
MAP_OF_PLAIN(allocated_plain)

char LICENSE[] SEC("license") = "GPL";
