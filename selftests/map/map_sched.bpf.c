// SPDX-License-Identifier: GPL-2.0
/* A scheduler whose run queue is an ordered map of tasks.
 *
 * One queue for all CPUs, keyed by the time a task has run, divided by its weight.
 * A CPU that finds no task in its own queue takes the first one. A task that wakes
 * up is not ahead of the others by more than a slice. For map_sched.c.
 *
 * Where it does badly: a task that leaves while it is queued, because its priority
 * changes, say, stays in the map until its turn comes; the kernel then ignores
 * that, but a reference has been held. All CPUs share one lock. Tasks that may not
 * run on the CPU that finds them first in the queue lose their place in it.
 */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include "../lib/map.bpf.h"

#define SLICE	5000000ULL		/* ns */
#define TRIES	16			/* tasks that are for other CPUs */

extern s32 scx_bpf_select_cpu_dfl(struct task_struct *p, s32 prev_cpu, u64 wake_flags,
				  bool *is_idle) __ksym;
extern void scx_bpf_dsq_insert(struct task_struct *p, u64 dsq_id, u64 slice,
			       u64 enq_flags) __ksym;
extern void scx_bpf_kick_cpu(s32 cpu, u64 flags) __ksym;
extern bool bpf_cpumask_test_cpu(u32 cpu, const struct cpumask *cpumask) __ksym;
extern u32 bpf_cpumask_any_distribute(const struct cpumask *cpumask) __ksym;

struct queued {
	struct task_struct __kptr *task;
};

ORDERED(queue, __u64, struct queued, 10000);

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, __u32);
	__type(value, __u64);
	__uint(max_entries, 1);
} started SEC(".maps");			/* what the running task had run before, ns */

__u64 pushed, popped, overflows;
static __u64 vtime_now;

SEC("struct_ops/map_select_cpu")
s32 BPF_PROG(map_select_cpu, struct task_struct *p, s32 prev_cpu, u64 wake_flags)
{
	bool is_idle = false;
	s32 cpu = scx_bpf_select_cpu_dfl(p, prev_cpu, wake_flags, &is_idle);

	if (is_idle)
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, SLICE, 0);
	return cpu;
}

SEC("struct_ops/map_enqueue")
int BPF_PROG(map_enqueue, struct task_struct *p, u64 enq_flags)
{
	__u64 vtime = p->scx.dsq_vtime;
	struct task_struct *task;

	if (p->nr_cpus_allowed == 1) {
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, SLICE, enq_flags);
		return 0;
	}
	if ((enq_flags & SCX_ENQ_WAKEUP) && (s64)(vtime - (vtime_now - SLICE)) < 0)
		vtime = vtime_now - SLICE;

	task = bpf_task_acquire(p);
	if (task && !bpf_rbtree_map_push_task(task, &queue, &vtime)) {
		__sync_fetch_and_add(&pushed, 1);
	} else {
		__sync_fetch_and_add(&overflows, 1);
		scx_bpf_dsq_insert(p, SCX_DSQ_GLOBAL, SLICE, enq_flags);
	}
	return 0;
}

/* Whether this CPU has something to run now */
static bool dispatch_one(s32 cpu)
{
	struct task_struct *p;
	__u64 vtime = 0;
	bool here;

	p = bpf_rbtree_map_pop_task(&queue, &vtime);
	if (!p)
		return true;
	__sync_fetch_and_add(&popped, 1);
	here = bpf_cpumask_test_cpu(cpu, p->cpus_ptr);
	scx_bpf_dsq_insert(p, here ? SCX_DSQ_LOCAL : SCX_DSQ_GLOBAL, SLICE, 0);
	if (!here)
		scx_bpf_kick_cpu(bpf_cpumask_any_distribute(p->cpus_ptr), SCX_KICK_IDLE);
	bpf_task_release(p);
	return here;
}

SEC("struct_ops/map_dispatch")
int BPF_PROG(map_dispatch, s32 cpu, struct task_struct *prev)
{
	int i;

	for (i = 0; i < TRIES && !dispatch_one(cpu); i++)
		;
	return 0;
}

SEC("struct_ops/map_running")
int BPF_PROG(map_running, struct task_struct *p)
{
	__u64 *start = bpf_map_lookup_elem(&started, &(__u32){ 0 });

	if (start)
		*start = p->se.sum_exec_runtime;
	if ((s64)(vtime_now - p->scx.dsq_vtime) < 0)
		vtime_now = p->scx.dsq_vtime;
	return 0;
}

SEC("struct_ops/map_stopping")
int BPF_PROG(map_stopping, struct task_struct *p, bool runnable)
{
	__u64 *start = bpf_map_lookup_elem(&started, &(__u32){ 0 });

	/* Not by what is left of the slice: a late tick would be for free. */
	if (start)
		p->scx.dsq_vtime += (p->se.sum_exec_runtime - *start) * 100 / p->scx.weight;
	return 0;
}

SEC("struct_ops/map_enable")
int BPF_PROG(map_enable, struct task_struct *p)
{
	p->scx.dsq_vtime = vtime_now;
	return 0;
}

SEC(".struct_ops.link")
struct sched_ext_ops map_sched = {
	.select_cpu	= (void *)map_select_cpu,
	.enqueue	= (void *)map_enqueue,
	.dispatch	= (void *)map_dispatch,
	.running	= (void *)map_running,
	.stopping	= (void *)map_stopping,
	.enable		= (void *)map_enable,
	.name		= "map_sched",
};

char LICENSE[] SEC("license") = "GPL";
