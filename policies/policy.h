/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What every policy here includes, and what several of them use.
 */
#ifndef __POLICY_H
#define __POLICY_H

#include "vmlinux.h"
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_qdisc.h>
#include <bpf/bpf_qdisc_aqm.h>

#define TCP_TIME_WAIT		6
#define TCP_NEW_SYN_RECV	12

/* The packet's socket, if it has one and that is whole: not a connection that
 * begins or has ended.
 */
static inline struct sock *socket_of(struct sk_buff *skb)
{
	struct sock *sk = skb->sk;

	if (sk && sk->__sk_common.skc_state != TCP_NEW_SYN_RECV &&
	    sk->__sk_common.skc_state != TCP_TIME_WAIT)
		return sk;
	return NULL;
}

#endif /* __POLICY_H */
