// SPDX-License-Identifier: GPL-2.0
/* For map_faults.c and qdisc_faults.c: memory that cannot be had. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#define ENOMEM	12

/* The user's; the first request of this task is number 1 */
__u32 pid;
__u64 fail_from = 1, fail_to;
__u32 fail_size;		/* objects of this size are not had by anybody who cannot wait */

__u64 requests, failures;

static bool fails(gfp_t flags)
{
	if (flags & 1 << ___GFP_NOFAIL_BIT || (__u32)bpf_get_current_pid_tgid() != pid)
		return false;
	requests++;
	if (requests < fail_from || requests > fail_to)
		return false;
	failures++;
	return true;
}

SEC("fmod_ret/should_failslab")
int BPF_PROG(fail_slab, struct kmem_cache *cache, gfp_t flags)
{
	if (fail_size && cache->object_size == fail_size && !(flags & 1 << ___GFP_DIRECT_RECLAIM_BIT))
		return -ENOMEM;
	return fails(flags) ? -ENOMEM : 0;
}

/* But not the pages of user space */
SEC("fmod_ret/should_fail_alloc_page")
int BPF_PROG(fail_page, gfp_t flags, unsigned int order)
{
	return !(flags & 1 << ___GFP_MOVABLE_BIT) && fails(flags);
}

char LICENSE[] SEC("license") = "GPL";
