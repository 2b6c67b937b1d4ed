// SPDX-License-Identifier: GPL-2.0
/* How long the functions of the qdisc take at most that run under the root lock. For one CPU. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, __u64);		/* ns */
	__uint(max_entries, 4);
} lock_longest SEC(".maps");

#define LONGEST(function, number)						\
static __u64 begun_##number;							\
static __u32 depth_##number;							\
										\
SEC("fentry/" #function)							\
int BPF_PROG(begin_##number)							\
{										\
	if (!depth_##number++)							\
		begun_##number = bpf_ktime_get_ns();				\
	return 0;								\
}										\
										\
SEC("fexit/" #function)								\
int BPF_PROG(end_##number)							\
{										\
	__u64 took = bpf_ktime_get_ns() - begun_##number, *longest;		\
										\
	longest = bpf_map_lookup_elem(&lock_longest, &(__u32){ number });	\
	if (!--depth_##number && longest && took > *longest)			\
		*longest = took;						\
	return 0;								\
}

LONGEST(sch_bpf_reset, 0)
LONGEST(sch_bpf_config_change, 1)
LONGEST(sch_bpf_dequeue, 2)
LONGEST(sch_bpf_rescue, 3)

char LICENSE[] SEC("license") = "GPL";
