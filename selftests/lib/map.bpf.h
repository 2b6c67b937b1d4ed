/* SPDX-License-Identifier: GPL-2.0 */
/* What programs of the map_*.bpf.c tests share. Include it after vmlinux.h and
 * <bpf/bpf_helpers.h>.
 */
#ifndef SELFTESTS_MAP_BPF_H
#define SELFTESTS_MAP_BPF_H

#include <bpf/bpf_rbtree.h>

extern struct task_struct *bpf_task_acquire(struct task_struct *task) __ksym;
extern void bpf_task_release(struct task_struct *task) __ksym;

#define ORDERED_FLAGS(name, key_type, value_type, entries, flags)	\
	struct {							\
		__uint(type, BPF_MAP_TYPE_RBTREE);			\
		__type(key, key_type);					\
		__type(value, value_type);				\
		__uint(max_entries, entries);				\
		__uint(map_flags, flags);				\
	} name SEC(".maps")

#define ORDERED(name, key_type, value_type, entries)			\
	ORDERED_FLAGS(name, key_type, value_type, entries, 0)

#define ENOENT	2
#define E2BIG	7
#define EPERM	1
#define ENOMEM	12

#endif /* SELFTESTS_MAP_BPF_H */
