// SPDX-License-Identifier: GPL-2.0
/* Packets that the kernel moves and no program: those of a policy that is stuck, and all of them
 * when a qdisc is reset
 *
 * A stuck policy's packets leave in this order: those in classes (sch_bpf_dequeue_rescued()), those
 * in the FIFO up to rescued_last, those in maps, in key order, and the rest of the FIFO, which came
 * later.
 */
#include <linux/bpf_rbtree.h>
#include <linux/netdevice.h>
#include <linux/rtnetlink.h>
#include <linux/skbuff.h>
#include "sch_bpf_priv.h"

/* So many packets of a stuck policy leave its maps at a time, under the root lock. */
#define SCH_BPF_RESCUE_BATCH	64

/* Not qdisc_dequeue_drop(), which does not trace qdisc_drop if the root has no
 * TCQ_F_DEQUEUE_DROPS.
 */
static void sch_bpf_drop_in_dequeue(struct Qdisc *sch, struct sk_buff *skb)
{
	struct Qdisc *root;

	rcu_read_lock();
	root = qdisc_root_sleeping(sch);
	if (root->flags & TCQ_F_DEQUEUE_DROPS) {
		__qdisc_drop(skb, &root->to_free);
	} else {
		skb_mark_not_on_list(skb);
		tcf_kfree_skb_list(skb, root, sch->dev_queue, qdisc_dev(sch));
	}
	rcu_read_unlock();
}

/**
 * sch_bpf_drop() - drop a packet that no map holds, and count it
 * @q: the qdisc whose program drops it
 * @skb: the packet
 * @reason: why
 *
 * Context: under the qdisc's root lock, bottom halves off. The packet is freed after the
 * lock has been released. Only if a dequeue program drops it and the root qdisc has no
 * TCQ_F_DEQUEUE_DROPS, it is freed at once, under the lock.
 */
void sch_bpf_drop(struct sch_bpf_data *q, struct sk_buff *skb,
		  enum qdisc_drop_reason reason)
{
	struct Qdisc *sch = sch_bpf_qdisc(q);

	qdisc_qstats_drop(sch);

	tcf_set_qdisc_drop_reason(skb, reason);
	if (q->run.to_free)
		__qdisc_drop(skb, q->run.to_free);
	else
		sch_bpf_drop_in_dequeue(sch, skb);
}

/**
 * sch_bpf_set_queue() - choose the tx queue of a packet
 * @sch: the qdisc that has it
 * @skb: the packet
 * @queue: index of a tx queue of the device
 *
 * A qdisc below mq, at whatever depth, sends to the tx queue of the mq class above it,
 * because only the lock of that queue is held when the packet leaves.
 *
 * Context: under the qdisc's root lock.
 * Return: 0; -EINVAL if the device has no such queue; -EOPNOTSUPP if the root above the
 * qdisc belongs to one tx queue.
 */
int sch_bpf_set_queue(struct Qdisc *sch, struct sk_buff *skb, u32 queue)
{
	bool one_queue;

	rcu_read_lock();
	one_queue = qdisc_root_sleeping(sch)->flags & TCQ_F_ONETXQUEUE;
	rcu_read_unlock();
	if (one_queue)
		return -EOPNOTSUPP;
	if (queue >= READ_ONCE(qdisc_dev(sch)->real_num_tx_queues))
		return -EINVAL;
	skb_set_queue_mapping(skb, queue);
	return 0;
}

/* ---- the FIFO ---- */

/* From now on the kernel serves what is in the maps, in key order, behind what is in the
 * FIFO already, and before what comes.
 */
void sch_bpf_take_over(struct sch_bpf_data *q)
{
	if (!q->stuck)
		q->rescued_last = skb_peek_tail(&q->fifo);
	q->rescued = true;
	q->stuck = true;
}

/* Packets leave the maps, which the kernel serves, for the FIFO: in key order, behind
 * those that did so before. Returns whether there may be more.
 */
bool sch_bpf_rescue(struct sch_bpf_data *q)
{
	unsigned int n = SCH_BPF_RESCUE_BATCH;
	struct sk_buff *skb = NULL;

	while (n-- && (skb = bpf_rbtree_drain(&q->owner))) {
		if (q->rescued_last)
			__skb_queue_after(&q->fifo, q->rescued_last, skb);
		else
			__skb_queue_head(&q->fifo, skb);
		q->rescued_last = skb;
		q->stored--;
	}
	return skb;
}

int sch_bpf_fifo_enqueue(struct sk_buff *skb, struct Qdisc *sch, struct sk_buff **to_free)
{
	struct sch_bpf_data *q = qdisc_priv(sch);

	if (q->stored + q->fifo.qlen >= sch->limit)
		return qdisc_drop_reason(skb, sch, to_free, QDISC_DROP_OVERLIMIT);
	__skb_queue_tail(&q->fifo, skb);
	sch_bpf_count_in(q, skb);
	return NET_XMIT_SUCCESS;
}

/* Classes have been asked before; the order is at the head of this file. */
struct sk_buff *sch_bpf_fifo_dequeue(struct Qdisc *sch)
{
	struct sch_bpf_data *q = qdisc_priv(sch);
	struct sk_buff *skb = NULL;

	if (q->stuck && !q->rescued_last && q->stored)
		skb = bpf_rbtree_drain(&q->owner);
	if (skb)
		q->stored--;
	else
		skb = __skb_dequeue(&q->fifo);
	if (!skb)
		return NULL;
	if (skb == q->rescued_last)
		q->rescued_last = NULL;
	sch_bpf_count_out(q, skb);
	qdisc_bstats_update(sch, skb);
	return skb;
}

/* ---- all packets ---- */

/* A worker of the map's calls this, after a reset or a flush. */
static void sch_bpf_free_packet(void *skb)
{
	kfree_skb_reason(skb, SKB_DROP_REASON_QUEUE_PURGE);
}

/**
 * sch_bpf_new_generation() - tell programs that they remember packets which are gone
 * @q: the qdisc
 *
 * No two qdiscs have had the same generation: programs may keep what they remember in a map
 * that is pinned, and outlives the qdisc. Programs that were just loaded remember the
 * generation 0.
 *
 * Context: under the root lock, or before the qdisc can be found.
 */
void sch_bpf_new_generation(struct sch_bpf_data *q)
{
	static atomic_t generations;

	do {
		q->run.ctx.generation = atomic_inc_return(&generations);
	} while (!q->run.ctx.generation);
}

/* Take all packets, those of classes excepted: a worker frees what is in the maps, the
 * caller what is in @list. It takes a step for each map, as long for a million packets
 * in it as for one.
 */
void sch_bpf_purge(struct sch_bpf_data *q, struct sk_buff_head *list)
{
	skb_queue_splice_tail_init(&q->fifo, list);
	q->rescued_last = NULL;
	bpf_rbtree_detach(&q->owner, sch_bpf_free_packet);
	q->stored = 0;
	q->bytes = 0;
	sch_bpf_new_generation(q);
}

/* Packets that programs have not taken are gone. */
void sch_bpf_count_purged(struct Qdisc *sch, u32 packets, u32 bytes)
{
	WRITE_ONCE(sch->q.qlen, sch->q.qlen - packets);
	qstats_backlog_sub(sch, bytes);
	__qdisc_qstats_drop(sch, packets);
	qdisc_tree_reduce_backlog(sch, packets, bytes);
}

void sch_bpf_free_list(struct sk_buff_head *list)
{
	if (!skb_queue_empty(list))
		rtnl_kfree_skbs(skb_peek(list), skb_peek_tail(list));
}

/* ---- what is to be done under RTNL ---- */

void sch_bpf_work_soon(struct sch_bpf_data *q)
{
	WRITE_ONCE(q->work_wait, 1);
	mod_delayed_work(system_percpu_wq, &q->work, 0);
}

/* Drop the packets of inner maps that user space has taken away: no program can reach them. */
static void sch_bpf_drop_gone(struct Qdisc *sch)
{
	struct sch_bpf_data *q = qdisc_priv(sch);
	u64 bytes = 0;
	u32 packets;

	sch_tree_lock(sch);
	packets = bpf_rbtree_detach_gone(&q->owner, sch_bpf_free_packet, &bytes);
	if (packets) {
		q->stored -= packets;
		q->bytes -= bytes;
		sch_bpf_count_purged(sch, packets, bytes);
		sch_bpf_new_generation(q);
	}
	sch_tree_unlock(sch);
}

/* What is to be done under RTNL: tell user space that the policy is stuck, and drop what is
 * in maps that are gone. No reference is held for it: a qdisc that is deleted is gone then,
 * and its handle is free.
 */
void sch_bpf_work(struct work_struct *work)
{
	struct sch_bpf_data *q = container_of(work, struct sch_bpf_data, work.work);
	int wait;

	/* destroy() waits for this with RTNL held. Others may hold it for long. */
	if (!rtnl_trylock()) {
		wait = READ_ONCE(q->work_wait);
		schedule_delayed_work(&q->work, wait);
		WRITE_ONCE(q->work_wait, min(2 * wait, HZ));
		return;
	}
	if (READ_ONCE(q->to_report)) {
		WRITE_ONCE(q->to_report, false);
		qdisc_report(q->watchdog.qdisc);
	}
	sch_bpf_drop_gone(q->watchdog.qdisc);
	rtnl_unlock();
}

void sch_bpf_map_gone(struct bpf_rbtree_owner *owner)
{
	sch_bpf_work_soon(container_of(owner, struct sch_bpf_data, owner));
}
