/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What every policy here needs beside the interface of <bpf/bpf_qdisc.h>.
 */
#ifndef __POLICY_H
#define __POLICY_H

#include "vmlinux.h"
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_qdisc.h>

/* The sum of a time and a parameter, which may be any number; one that has no room in
 * 64 bits is as late as can be.
 */
static __always_inline __u64 saturating_add(__u64 time, __u64 parameter)
{
	__u64 sum = time + parameter;

	return sum < time ? ~0ULL : sum;
}

#endif /* __POLICY_H */
