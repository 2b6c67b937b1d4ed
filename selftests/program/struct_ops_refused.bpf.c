// SPDX-License-Identifier: GPL-2.0
/* The packet that a qdisc of struct_ops gets has a reference of its own, too: no other stands
 * for it where paths join. Apart from refused.bpf.c, because libbpf loads such a program with
 * every other one of its object.
 */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>

#define __refused(words) __attribute__((btf_decl_tag("refused:" words)))

extern void bpf_kfree_skb(struct sk_buff *skb) __ksym;
extern struct task_struct *bpf_task_acquire(struct task_struct *task) __ksym;

/* The packet, read again wherever this is */
#define PACKET(ctx) ((struct sk_buff *)((volatile unsigned long long *)(ctx))[0])

/* A path apart, which the verifier sees after the other */
#define SOMETIMES(label)							\
	asm volatile goto("if %[n] != 0 goto %l[" #label "]"			\
			  : : [n] "r"(bpf_get_prandom_u32()) : : label)

/* Holds a task where the first path holds the packet */
SEC("struct_ops")
__refused("Reference may already be released")
int join_with_a_task(unsigned long long *ctx)
{
	struct task_struct *task;

	SOMETIMES(slow);
join:
	bpf_kfree_skb(PACKET(ctx));
	return 0;
slow:
	task = bpf_task_acquire(bpf_get_current_task_btf());
	if (task)
		bpf_kfree_skb(PACKET(ctx));
	goto join;
}

SEC(".struct_ops.link")
struct Qdisc_ops join_with_a_task_ops = {
	.enqueue = (void *)join_with_a_task,
	.id = "refused",
};

char LICENSE[] SEC("license") = "GPL";
