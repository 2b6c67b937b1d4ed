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

/* Macros of the uapi headers: BTF, and so vmlinux.h, has no macros. */
#define ETH_P_IP	0x0800
#define ETH_P_IPV6	0x86DD
#define ETH_HLEN	14
#define VLAN_HLEN	4
#define ETH_P_8021Q	0x8100
#define ETH_P_8021AD	0x88A8
#define TC_ACT_UNSPEC	(-1)
#define EAGAIN		11

#define NSEC_PER_MSEC	1000000ULL
#define NSEC_PER_SEC	1000000000ULL

/* The sum of a time and a parameter, which may be any number; one that has no room in
 * 64 bits is as late as can be.
 */
static __always_inline __u64 saturating_add(__u64 time, __u64 parameter)
{
	__u64 sum = time + parameter;

	return sum < time ? ~0ULL : sum;
}

#endif /* __POLICY_H */
