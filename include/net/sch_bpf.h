/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _NET_SCH_BPF_H
#define _NET_SCH_BPF_H

#include <linux/types.h>

struct Qdisc;
struct sk_buff;

/**
 * struct sch_bpf_ctx - what a program of type BPF_PROG_TYPE_QDISC gets
 * @skb: to an enqueue program the packet, which it owns; to a dequeue program
 *       the one that it has delivered, to look at and to mark, NULL before
 * @qdisc: the qdisc, to read
 * @expire: when a program that delivers nothing is to be asked again, ns
 *          CLOCK_MONOTONIC; 0: no time is known; read and written, dequeue
 *          programs only
 * @classid: the class that bpf_skb_tc_classify() has found, a handle; to read
 * @queue: tx queue of the device that the qdisc belongs to
 * @generation: another number after each reset, flush and change of the programs, and
 *              when an inner map is gone that held packets: what a program remembers of
 *              its packets may be wrong; never 0, and never that of another qdisc
 */
struct sch_bpf_ctx {
	struct sk_buff *skb;
	struct Qdisc *qdisc;
	u64 expire;
	u32 classid;
	u32 queue;
	u32 generation;
};

#endif /* _NET_SCH_BPF_H */
