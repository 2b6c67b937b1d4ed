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
#define TC_ACT_UNSPEC	(-1)

#define NSEC_PER_MSEC	1000000ULL
#define NSEC_PER_SEC	1000000000ULL

#endif /* __POLICY_H */
