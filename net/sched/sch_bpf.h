/* SPDX-License-Identifier: GPL-2.0 */
/* Between the qdisc (sch_bpf.c) and its program type (sch_bpf_prog.c). */
#ifndef _SCH_BPF_H
#define _SCH_BPF_H

#include <linux/bpf_rbtree.h>
#include <net/pkt_sched.h>
#include <net/sch_bpf.h>

struct sch_bpf_data {
	struct bpf_prog *enqueue;
	struct bpf_prog *dequeue;
	struct bpf_rbtree_owner owner;
	u32 stored;			/* packets in the maps; qlen has more to it */
	u32 idle;			/* dequeues in a row that gave nothing */
	u32 queue;			/* tx queue of the device */
	struct qdisc_watchdog watchdog;
	char object[SCH_BPF_OBJECT_LEN];
};

/* One run of a program. The functions that it calls change the qdisc's counters
 * and leave here what became of the packet.
 */
struct sch_bpf_run {
	struct sch_bpf_ctx ctx;		/* what the program sees */
	struct Qdisc *sch;
	struct sk_buff **to_free;	/* enqueue only */
	struct sk_buff *out;		/* dequeue only: the packet that leaves */
	bool given_away;		/* enqueue: ctx.skb is the program's no more */
	bool queued;			/* enqueue: ctx.skb is in a map */
};

static inline struct sch_bpf_run *sch_bpf_run(struct sch_bpf_ctx *ctx)
{
	return container_of(ctx, struct sch_bpf_run, ctx);
}

void sch_bpf_drop(struct sch_bpf_run *run, struct sk_buff *skb,
		  enum qdisc_drop_reason reason);

#endif /* _SCH_BPF_H */
