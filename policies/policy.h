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

/* The value of a map of packets. */
struct pkt {
	struct sk_buff __kptr *skb;
};

/* Bytes on the wire, with the headers that every segment of a GSO packet will
 * get; without preamble, FCS and gap.
 */
static __always_inline __u32 pkt_len(const struct sk_buff *skb)
{
	return ((struct qdisc_skb_cb *)skb->cb)->pkt_len;
}

#endif /* __POLICY_H */
