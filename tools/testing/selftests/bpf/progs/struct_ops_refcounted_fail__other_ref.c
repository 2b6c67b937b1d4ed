// SPDX-License-Identifier: GPL-2.0
#include <vmlinux.h>
#include <bpf/bpf_tracing.h>
#include "../test_kmods/bpf_testmod.h"
#include "bpf_misc.h"

char _license[] SEC("license") = "GPL";

extern struct task_struct *bpf_task_acquire(struct task_struct *p) __ksym;
extern void bpf_task_release(struct task_struct *p) __ksym;

/* BTF FUNC records are not generated for kfuncs referenced
 * from assembler. These records are necessary for
 * libbpf to link the program. The function below is a hack
 * to ensure that BTF FUNC records are generated.
 */
void __kfunc_btf_root(void)
{
	bpf_task_release(bpf_task_acquire(NULL));
}

/* Test that the verifier does not take another reference for that of a
 * referenced kptr argument where two paths join. The first path still holds
 * the argument's, so it may read the argument again. The second one has
 * released it and holds one that it has acquired: it may not.
 */
SEC("struct_ops/test_refcounted")
__failure __msg("invalid bpf_context access off=8. Reference may already be released")
__flag(BPF_F_TEST_STATE_FREQ)
__naked int refcounted_fail__other_ref(void)
{
	asm volatile ("					\
	r6 = r1;					\
	r7 = *(u64 *)(r6 + 8);				\
	r1 = *(u64 *)(r6 + 0);				\
	if r1 != 0 goto other_%=;			\
join_%=:						\
	r1 = *(u64 *)(r6 + 8);				\
	call %[bpf_task_release];			\
	r0 = 0;						\
	exit;						\
other_%=:						\
	r1 = r7;					\
	call %[bpf_task_acquire];			\
	if r0 == 0 goto join_%=;			\
	r1 = r7;					\
	call %[bpf_task_release];			\
	goto join_%=;					\
"	:
	: __imm(bpf_task_acquire), __imm(bpf_task_release)
	: __clobber_all);
}

SEC(".struct_ops.link")
struct bpf_testmod_ops testmod_other_ref = {
	.test_refcounted = (void *)refcounted_fail__other_ref,
};
