// SPDX-License-Identifier: GPL-2.0
/* The qdisc "bpf": enqueue and dequeue are BPF programs
 *
 * Enqueue: the program owns the packet. It pushes it into an ordered map under
 * a key of its choice, passes it to a class, drops or steals it, or has it cut into
 * segments, for each of which the program runs.
 * Dequeue: the program delivers the next packet of its maps or classes. If it delivers
 * none, ctx->expire says when to ask again; 0 means that it knows no time.
 *
 * Accounting is the kernel's. The functions that a program calls count what was
 * stored, taken and dropped (sch_bpf_prog.c); here the difference that a run has
 * made to qlen and backlog is made known to the parents and decides what the
 * caller gets. What a program returns means nothing.
 *
 * Maps: a map of packets belongs to the qdisc that pushes first, until it is
 * empty (kernel/bpf/rbtree.c). Reset takes the packets of all maps that the
 * qdisc holds, also of inner maps that user space has unlinked meanwhile.
 *
 * A policy can be slow but not silent. While packets are stored and the program
 * delivers nothing, it is asked again: at ctx->expire, at the horizon if that comes
 * first, or, without a time, soon. A policy is stuck if for five seconds it was asked
 * and has neither delivered nor dropped a packet nor given a time to wait for. The
 * kernel then takes its packets in key order and serves a FIFO of its own, until the
 * programs are changed or the qdisc is reset. What is a wait, and what a deliberate
 * drop, no sender can turn into being stuck. The same FIFO serves a tx queue for which
 * bpf_mq was given no programs (sch_bpf_mq.c).
 *
 * Change in place swaps both programs under the tree lock. Packets stay in their
 * maps and classes; a change is refused if the new dequeue program knows nothing of a
 * map that holds some, or takes none from classes and a class does.
 */
#include <linux/bpf.h>
#include <linux/filter.h>
#include <linux/module.h>
#include <linux/netdevice.h>
#include <linux/rtnetlink.h>
#include <linux/skbuff.h>
#include <net/netlink.h>
#include "sch_bpf.h"

#define CREATE_TRACE_POINTS
#include <trace/events/sch_bpf.h>

#define SCH_BPF_LIMIT		10000

/* A program that delivers nothing while packets are stored, and gives no time, is asked
 * again after 1 ms, 2 ms, ... 1024 ms.
 */
#define SCH_BPF_RETRY		NSEC_PER_MSEC
#define SCH_BPF_RETRY_SHIFT_MAX	10

/* How much later than asked for the timer may come, so that one serves several. */
#define SCH_BPF_SLACK		(10 * NSEC_PER_USEC)

/* So many packets of a stuck policy leave its maps at a time, under the root lock. */
#define SCH_BPF_RESCUE_BATCH	64

/* A policy in trouble for longer is stuck. */
#define SCH_BPF_PATIENCE	(5ULL * NSEC_PER_SEC)

/* Not qdisc_dequeue_drop(), whose reasons the tracepoint does not show where it frees at once. */
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
 * Context: under the qdisc's root lock, bottom halves off. The packet is freed
 * after the lock has been released; at once if it was stored, and the root is of a kind
 * that does not drop in dequeue itself.
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

static noinline void sch_bpf_run_timed(const struct bpf_prog *prog, const void *ctx)
{
	bpf_prog_run(prog, ctx);
}

/* bpf_prog_run(), but sysctl kernel.bpf_stats_enabled costs no register without it. */
static __always_inline void sch_bpf_run(const struct bpf_prog *prog, const void *ctx)
{
	if (static_branch_unlikely(&bpf_stats_enabled_key))
		sch_bpf_run_timed(prog, ctx);
	else
		bpf_dispatcher_nop_func(ctx, prog->insnsi, prog->bpf_func);
}

/* ---- the safety net ---- */

/* The program has packets, and neither sends one nor says when. Is it so for too long?
 * Only what happens again counts: a single event, and another one much later, do not.
 */
static bool sch_bpf_trouble(struct sch_bpf_data *q, u64 now)
{
	if (!q->trouble || now - q->trouble_last > q->patience)
		q->trouble = now;
	q->trouble_last = now;
	return now - q->trouble >= q->patience;
}

static void sch_bpf_work_soon(struct sch_bpf_data *q)
{
	WRITE_ONCE(q->work_wait, 1);
	mod_delayed_work(system_percpu_wq, &q->work, 0);
}

/* From now on the kernel serves what is in the maps, in key order, behind what is in the
 * FIFO already, and before what comes.
 */
static void sch_bpf_take_over(struct sch_bpf_data *q)
{
	if (!q->stuck)
		q->rescued_last = skb_peek_tail(&q->fifo);
	q->rescued = true;
	q->stuck = true;
}

/* Packets leave the maps, which the kernel serves, for the FIFO: in key order, behind
 * those that did so before. Returns whether there may be more.
 */
static noinline bool sch_bpf_rescue(struct sch_bpf_data *q)
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

/* The policy is out of service. Its packets stay in the maps until they leave, which
 * costs the same for a million of them as for one.
 */
static void sch_bpf_set_stuck(struct Qdisc *sch)
{
	struct sch_bpf_data *q = qdisc_priv(sch);

	sch_bpf_take_over(q);
	q->xstats.stuck++;
	trace_sch_bpf_stuck(sch, q->enqueue, q->dequeue);
	WRITE_ONCE(q->to_report, true);
	sch_bpf_work_soon(q);
	/* Who may attach a policy in a container could fill the host's log. */
	if (net_ratelimit())
		netdev_warn(qdisc_dev(sch),
			    "qdisc bpf %x: policy '%s' is stuck, serving a FIFO until it is changed\n",
			    sch->handle >> 16, q->enqueue->aux->name);
}

static int sch_bpf_fifo_enqueue(struct sk_buff *skb, struct Qdisc *sch, struct sk_buff **to_free)
{
	struct sch_bpf_data *q = qdisc_priv(sch);

	if (q->stored + q->fifo.qlen >= sch->limit)
		return qdisc_drop_reason(skb, sch, to_free, QDISC_DROP_OVERLIMIT);
	__skb_queue_tail(&q->fifo, skb);
	sch_bpf_count_in(q, skb);
	return NET_XMIT_SUCCESS;
}

/* What is in the maps has come before what is in the FIFO, but for the rescued. */
static struct sk_buff *sch_bpf_fifo_dequeue(struct Qdisc *sch)
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

/* ---- enqueue ---- */

static __always_inline void sch_bpf_enqueue_run(struct sch_bpf_data *q, struct sk_buff *skb,
						struct sk_buff **to_free)
{
	sch_bpf_enqueue_begin(q, skb, to_free);
	sch_bpf_run(q->enqueue, &q->run.ctx);
}

/* Run the program for the next packet that a class has given to the root, or for the next
 * segment. False if there is none. A duplicate follows its original, so few wait here,
 * however many segments there are.
 */
static noinline bool sch_bpf_enqueue_next(struct sch_bpf_data *q)
{
	struct sk_buff *skb = q->given;

	if (skb) {
		q->given = skb->next;
	} else {
		skb = q->run.segments;
		if (!skb)
			return false;
		q->run.segments = skb->next;
	}
	skb_mark_not_on_list(skb);
	sch_bpf_enqueue_run(q, skb, q->run.to_free);
	return true;
}

/**
 * sch_bpf_enqueue_ret() - what a run of the enqueue program comes to
 * @q: the qdisc, after the run
 *
 * Runs the program for the segments of the packet, if it was cut into some, and for what
 * classes have given to the root meanwhile. Tells the parents of what they do not count
 * themselves.
 *
 * Context: under the qdisc's root lock, bottom halves off.
 * Return: what enqueue returns to its caller, a NET_XMIT code.
 */
noinline int sch_bpf_enqueue_ret(struct sch_bpf_data *q)
{
	int ret = NET_XMIT_DROP, more = 0, bytes = 0;
	u32 len = q->run.len;
	bool queued = false, emptied = false, again = false;

	do {
		if (q->run.state & SCH_BPF_RUN_OTHERS) {
			more += q->run.more;
			bytes += q->run.bytes;
		}
		if (q->run.state & SCH_BPF_RUN_RET)
			ret = q->run.ret;
		if (q->run.state & SCH_BPF_RUN_QUEUED) {
			queued = true;
			more++;
			bytes += q->run.len;
		}
		emptied |= !!(q->run.state & SCH_BPF_RUN_EMPTIED);
		again |= !!(q->run.state & SCH_BPF_RUN_AGAIN);
	} while (unlikely(again) && sch_bpf_enqueue_next(q));

	/* The parents count one packet of this length, and know that there is something
	 * to take, if and only if this returns success. So it does whenever there is more
	 * in the queue than before, if only a clone; but not for an empty queue, which a
	 * parent would ask in vain. Whatever else the program has stored or dropped they do
	 * not know of, nor that a class has emptied itself.
	 */
	if (qdisc_qlen(sch_bpf_qdisc(q)) && (queued || more > 0)) {
		ret = NET_XMIT_SUCCESS;
		more--;
		bytes -= len;
	}
	if (more || bytes || emptied)
		qdisc_tree_reduce_backlog(sch_bpf_qdisc(q), -more, -bytes);
	return ret;
}

/* netem, in a class, gives a duplicate to the root, whose enqueue has not returned: its turn
 * comes when the run is over, because there is one at a time. What a netem below a netem gives
 * when a dequeue program asks the class is dropped: no run of the enqueue program follows.
 */
static int sch_bpf_enqueue_given(struct sch_bpf_data *q, struct sk_buff *skb,
				 struct sk_buff **to_free)
{
	struct sk_buff **last = &q->given;

	if (!q->run.to_free)	/* a dequeue program runs */
		return qdisc_drop(skb, sch_bpf_qdisc(q), to_free);
	while (*last)
		last = &(*last)->next;
	*last = skb;
	skb->next = NULL;
	q->run.state |= SCH_BPF_RUN_AGAIN;
	return NET_XMIT_SUCCESS | __NET_XMIT_STOLEN;	/* no parent counts it */
}

static int sch_bpf_enqueue(struct sk_buff *skb, struct Qdisc *sch,
			   struct sk_buff **to_free)
{
	struct sch_bpf_data *q = qdisc_priv(sch);

	if (unlikely(q->no_enqueue))
		return q->passing ? sch_bpf_enqueue_given(q, skb, to_free) :
				    sch_bpf_fifo_enqueue(skb, sch, to_free);

	q->idle = 0;
	sch_bpf_enqueue_run(q, skb, to_free);
	if (likely(q->run.state == SCH_BPF_RUN_QUEUED))
		return NET_XMIT_SUCCESS;
	return sch_bpf_enqueue_ret(q);
}

/* ---- dequeue ---- */

static struct sk_buff *sch_bpf_dequeue_run(struct sch_bpf_data *q);
static struct sk_buff *sch_bpf_dequeue(struct Qdisc *sch);

/* Packets of a policy that got stuck, or that a roll-back found out of reach, leave
 * before all others.
 */
static noinline struct sk_buff *sch_bpf_dequeue_rescued(struct Qdisc *sch)
{
	struct sch_bpf_data *q = qdisc_priv(sch);
	struct sk_buff *skb = NULL;

	/* hfsc and qfq look at the next packet as one comes: that is for later. */
	if (q->passing)
		return NULL;
	/* What is in classes has come before what is in the FIFO. */
	if ((q->stuck || q->classes_first) && qdisc_qlen(sch) > q->stored + q->fifo.qlen)
		skb = sch_bpf_class_dequeue_any(sch);
	if (!skb)
		skb = sch_bpf_fifo_dequeue(sch);
	if (skb)
		return skb;
	if (q->stuck)
		return NULL;
	/* A class that holds its packets back says itself when to ask it again. */
	q->classes_first &= sch_bpf_class_has_packets(sch);
	q->rescued = q->classes_first;
	if (!q->rescued)
		return sch_bpf_dequeue(sch);
	return q->stored ? sch_bpf_dequeue_run(q) : NULL;
}

/* A class holds its packets back, and no other one has shown a packet that may leave. */
static bool sch_bpf_waits_for_class(const struct sch_bpf_data *q)
{
	return (q->run.state & (SCH_BPF_RUN_WAITING | SCH_BPF_RUN_READY)) == SCH_BPF_RUN_WAITING;
}

/* The program waits for a time. */
static void sch_bpf_throttle(struct sch_bpf_data *q, u64 now)
{
	u64 when = min(q->run.ctx.expire, now + q->horizon);

	q->idle = 0;
	q->trouble = 0;
	q->armed = when;
	qdisc_watchdog_schedule_range_ns(&q->watchdog, when, SCH_BPF_SLACK);
}

/* Nothing left although packets are there: see to it that the program is asked
 * again. Returns a packet if it has been found stuck.
 */
static noinline struct sk_buff *sch_bpf_rearm(struct sch_bpf_data *q)
{
	struct Qdisc *sch = sch_bpf_qdisc(q);
	u64 now, wait = 0;

	/* As it was: the watchdog asks again, and the clock need not be read. */
	if (q->run.ctx.expire && q->run.ctx.expire == q->armed &&
	    hrtimer_is_queued(&q->watchdog.timer)) {
		qdisc_qstats_overlimit(sch);
		return NULL;
	}
	now = ktime_get_ns();
	if (q->run.ctx.expire) {
		qdisc_qstats_overlimit(sch);
		if (q->run.ctx.expire > now) {
			sch_bpf_throttle(q, now);
			return NULL;
		}
	}
	/* To wait for a class is no fault of the policy, unless another one could send. Nor is
	 * what it cannot reach: packets in a map that is gone stay until the work gets RTNL.
	 */
	if (sch_bpf_waits_for_class(q) || delayed_work_pending(&q->work)) {
		q->trouble = 0;
	} else if (sch_bpf_trouble(q, now)) {
		sch_bpf_set_stuck(sch);
		return sch_bpf_dequeue_rescued(sch);
	}
	/* A time that has come since the program has looked at the clock is no reason to
	 * wait. A program that gives such a time again and again knows none. One that has
	 * seen a packet and left it may give its class more to spend in each run.
	 */
	if (q->run.state & SCH_BPF_RUN_READY)
		wait = SCH_BPF_RETRY;
	else if (!q->run.ctx.expire || q->idle)
		wait = min(SCH_BPF_RETRY << min(q->idle, SCH_BPF_RETRY_SHIFT_MAX),
			   q->patience / 4);
	q->idle++;
	q->armed = 0;
	qdisc_watchdog_schedule_range_ns(&q->watchdog, now + wait, SCH_BPF_SLACK);
	return NULL;
}

/* The run did not end as most do. */
static noinline struct sk_buff *sch_bpf_dequeue_slow(struct sch_bpf_data *q)
{
	struct Qdisc *sch = sch_bpf_qdisc(q);
	struct sk_buff *skb = q->run.ctx.skb;

	/* What was dropped the parents count still. If it was all but the packet
	 * that leaves, they must not think that there is nothing to take: that
	 * packet may have been asked for by peek. That a class has emptied itself they do
	 * not know, either.
	 */
	if (q->run.state & SCH_BPF_RUN_OTHERS) {
		if (q->run.more || q->run.bytes || (q->run.state & SCH_BPF_RUN_EMPTIED)) {
			WRITE_ONCE(sch->q.qlen, sch->q.qlen + !!skb);
			qdisc_tree_reduce_backlog(sch, -q->run.more, -q->run.bytes);
			WRITE_ONCE(sch->q.qlen, sch->q.qlen - !!skb);
		}
		if (q->run.more < 0) {	/* a drop on purpose is neither trouble nor idleness */
			q->trouble = 0;
			q->idle = 0;
		}
	}

	if (skb) {
		q->idle = 0;
		q->trouble = 0;
		qdisc_bstats_update(sch, skb);
		return skb;
	}

	/* A class that holds its packets back knows when to ask again; the program may
	 * want to be asked earlier.
	 */
	if (q->stored ||
	    (qdisc_qlen(sch) && (q->run.ctx.expire || !sch_bpf_waits_for_class(q))))
		return sch_bpf_rearm(q);

	/* It has dropped all that it had. drr, ets, hfsc and qfq ask no other class then, and
	 * are not asked again themselves.
	 */
	if (q->run.state & SCH_BPF_RUN_OTHERS && sch->parent != TC_H_ROOT)
		qdisc_watchdog_schedule_ns(&q->watchdog, ktime_get_ns());
	return NULL;
}

/* Apart, for the half of all calls that find nothing: these save no registers. */
static noinline struct sk_buff *sch_bpf_dequeue_run(struct sch_bpf_data *q)
{
	q->run.ctx.skb = NULL;
	q->run.ctx.expire = 0;
	q->run.to_free = NULL;
	q->run.state = 0;
	sch_bpf_run(q->dequeue, &q->run.ctx);

	if (unlikely(!q->run.ctx.skb || (q->run.state & ~SCH_BPF_RUN_READY)))
		return sch_bpf_dequeue_slow(q);
	q->idle = 0;
	q->trouble = 0;
	qdisc_bstats_update(sch_bpf_qdisc(q), q->run.ctx.skb);
	return q->run.ctx.skb;
}

static struct sk_buff *sch_bpf_dequeue(struct Qdisc *sch)
{
	struct sch_bpf_data *q = qdisc_priv(sch);

	if (unlikely(q->no_dequeue))
		return sch_bpf_dequeue_rescued(sch);

	/* Not qlen alone: that counts a packet that was peeked at, too. */
	if (!q->stored && (!q->classes.hashelems || !qdisc_qlen(sch)))
		return NULL;

	return sch_bpf_dequeue_run(q);
}

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
static void sch_bpf_purge(struct sch_bpf_data *q, struct sk_buff_head *list)
{
	skb_queue_splice_tail_init(&q->fifo, list);
	q->rescued_last = NULL;
	bpf_rbtree_detach(&q->owner, sch_bpf_free_packet);
	q->stored = 0;
	q->bytes = 0;
	sch_bpf_new_generation(q);
}

/* Packets that programs have not taken are gone. */
static void sch_bpf_count_purged(struct Qdisc *sch, u32 packets, u32 bytes)
{
	WRITE_ONCE(sch->q.qlen, sch->q.qlen - packets);
	qstats_backlog_sub(sch, bytes);
	__qdisc_qstats_drop(sch, packets);
	qdisc_tree_reduce_backlog(sch, packets, bytes);
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
static void sch_bpf_work(struct work_struct *work)
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

static void sch_bpf_map_gone(struct bpf_rbtree_owner *owner)
{
	sch_bpf_work_soon(container_of(owner, struct sch_bpf_data, owner));
}

static void sch_bpf_free_list(struct sk_buff_head *list)
{
	if (!skb_queue_empty(list))
		rtnl_kfree_skbs(skb_peek(list), skb_peek_tail(list));
}

static void sch_bpf_reset(struct Qdisc *sch)
{
	struct sch_bpf_data *q = qdisc_priv(sch);
	struct sk_buff_head list;

	/* Not initialised if another kind's init failed before ours. */
	if (q->watchdog.qdisc != sch)
		return;
	qdisc_watchdog_cancel(&q->watchdog);
	__qdisc_qstats_drop(sch, qdisc_qlen(sch));	/* those in classes, too */
	__skb_queue_head_init(&list);
	sch_bpf_purge(q, &list);
	sch_bpf_free_list(&list);
	sch_bpf_class_reset(sch);
	q->idle = 0;
	q->trouble = 0;
	q->stuck = !q->enqueue;
	q->classes_first = false;
	sch->flags &= ~TCQ_F_CAN_BYPASS;
}

/* ---- netlink ---- */

static const struct nla_policy sch_bpf_prog_policy[TCA_SCH_BPF_PROG_MAX + 1] = {
	[TCA_SCH_BPF_PROG_FD]	= NLA_POLICY_MIN_LEN(sizeof(u32)),
};

static const struct netlink_range_validation sch_bpf_time_range = {
	.min = 10 * NSEC_PER_MSEC,
	.max = 24ULL * 3600 * NSEC_PER_SEC,
};

static const struct nla_policy sch_bpf_policy[TCA_SCH_BPF_MAX + 1] = {
	[TCA_SCH_BPF_LIMIT]	= NLA_POLICY_MIN(NLA_U32, 1),
	[TCA_SCH_BPF_OBJECT]	= { .type = NLA_NUL_STRING, .len = SCH_BPF_OBJECT_LEN - 1 },
	[TCA_SCH_BPF_ENQUEUE]	= NLA_POLICY_NESTED(sch_bpf_prog_policy),
	[TCA_SCH_BPF_DEQUEUE]	= NLA_POLICY_NESTED(sch_bpf_prog_policy),
	[TCA_SCH_BPF_FLAGS]	= NLA_POLICY_MASK(NLA_U32, SCH_BPF_FLUSH),
	[TCA_SCH_BPF_HORIZON]	= NLA_POLICY_FULL_RANGE(NLA_U64, &sch_bpf_time_range),
	[TCA_SCH_BPF_PATIENCE]	= NLA_POLICY_FULL_RANGE(NLA_U64, &sch_bpf_time_range),
};

/* tc does not set NLA_F_NESTED; apart from that nothing is forgiven. */
#define SCH_BPF_VALIDATE (NL_VALIDATE_STRICT & ~NL_VALIDATE_NESTED)

static struct nlattr *sch_bpf_get_fds(struct nlattr *opt, struct netlink_ext_ack *extack)
{
	struct nlattr *tb[TCA_SCH_BPF_PROG_MAX + 1];
	int err;

	err = __nla_parse(tb, TCA_SCH_BPF_PROG_MAX, nla_data(opt), nla_len(opt),
			  sch_bpf_prog_policy, SCH_BPF_VALIDATE, extack);
	if (err)
		return ERR_PTR(err);
	if (!tb[TCA_SCH_BPF_PROG_FD] || nla_len(tb[TCA_SCH_BPF_PROG_FD]) % sizeof(u32)) {
		NL_SET_ERR_MSG_ATTR(extack, opt, "A BPF program needs a file descriptor");
		return ERR_PTR(-EINVAL);
	}
	return tb[TCA_SCH_BPF_PROG_FD];
}

static struct bpf_prog *sch_bpf_get_prog(const struct nlattr *fds, unsigned int pair, u32 type,
					 struct netlink_ext_ack *extack)
{
	struct bpf_prog *prog;

	prog = bpf_prog_get_type(((u32 *)nla_data(fds))[pair], BPF_PROG_TYPE_QDISC);
	if (IS_ERR(prog)) {
		NL_SET_ERR_MSG_ATTR(extack, fds,
				    "The file descriptor is none of a BPF program of type qdisc");
		return prog;
	}
	if (prog->expected_attach_type != type) {
		bpf_prog_put(prog);
		NL_SET_ERR_MSG_ATTR(extack, fds,
				    "The program was loaded for the other direction");
		return ERR_PTR(-EINVAL);
	}
	return prog;
}

/**
 * sch_bpf_config_put() - drop the references on the programs of a configuration
 * @cfg: the configuration
 *
 * Context: any.
 */
void sch_bpf_config_put(const struct sch_bpf_config *cfg)
{
	if (cfg->enqueue)
		bpf_prog_put(cfg->enqueue);
	if (cfg->dequeue)
		bpf_prog_put(cfg->dequeue);
}

/**
 * sch_bpf_config_get_progs() - take a pair of programs from a netlink message
 * @cfg: where to; holds references on both programs, after a failure on none
 * @fds: what sch_bpf_config_parse() has found
 * @pair: which one of @fds->pairs, from 0
 * @extack: for the reason of a failure
 *
 * Context: process, under RTNL.
 * Return: 0 or a negative errno.
 */
int sch_bpf_config_get_progs(struct sch_bpf_config *cfg, const struct sch_bpf_fds *fds,
			     unsigned int pair, struct netlink_ext_ack *extack)
{
	struct bpf_prog *enqueue, *dequeue;

	enqueue = sch_bpf_get_prog(fds->enqueue, pair, BPF_QDISC_ENQUEUE, extack);
	if (IS_ERR(enqueue))
		return PTR_ERR(enqueue);
	dequeue = sch_bpf_get_prog(fds->dequeue, pair, BPF_QDISC_DEQUEUE, extack);
	if (IS_ERR(dequeue)) {
		bpf_prog_put(enqueue);
		return PTR_ERR(dequeue);
	}
	cfg->enqueue = enqueue;
	cfg->dequeue = dequeue;
	return 0;
}

/**
 * sch_bpf_config_parse() - read the options of a netlink message
 * @cfg: where to; the programs excepted
 * @fds: where to, for sch_bpf_config_get_progs(): of @opt
 * @opt: the options, or NULL
 * @create: for a new qdisc, that needs programs and takes what is not given from
 *          the defaults
 * @extack: for the reason of a failure
 *
 * Context: process, under RTNL.
 * Return: 0 or a negative errno.
 */
int sch_bpf_config_parse(struct sch_bpf_config *cfg, struct sch_bpf_fds *fds,
			 struct nlattr *opt, bool create, struct netlink_ext_ack *extack)
{
	struct nlattr *tb[TCA_SCH_BPF_MAX + 1] = {};
	int err;

	memset(cfg, 0, sizeof(*cfg));
	memset(fds, 0, sizeof(*fds));
	if (opt) {
		err = __nla_parse(tb, TCA_SCH_BPF_MAX, nla_data(opt), nla_len(opt),
				  sch_bpf_policy, SCH_BPF_VALIDATE, extack);
		if (err)
			return err;
	}
	if (create && !tb[TCA_SCH_BPF_ENQUEUE] && !tb[TCA_SCH_BPF_DEQUEUE]) {
		NL_SET_ERR_MSG(extack, "The bpf qdisc needs an enqueue and a dequeue program");
		return -EINVAL;
	}
	if (!tb[TCA_SCH_BPF_ENQUEUE] != !tb[TCA_SCH_BPF_DEQUEUE]) {
		NL_SET_ERR_MSG(extack, "An enqueue and a dequeue program are given together");
		return -EINVAL;
	}
	cfg->limit = nla_get_u32_default(tb[TCA_SCH_BPF_LIMIT], create ? SCH_BPF_LIMIT : 0);
	cfg->horizon = nla_get_u64_default(tb[TCA_SCH_BPF_HORIZON], create ? SCH_BPF_HORIZON : 0);
	cfg->patience = nla_get_u64_default(tb[TCA_SCH_BPF_PATIENCE],
					    create ? SCH_BPF_PATIENCE : 0);
	cfg->flags = nla_get_u32_default(tb[TCA_SCH_BPF_FLAGS], 0);
	if (tb[TCA_SCH_BPF_OBJECT])
		nla_strscpy(cfg->object, tb[TCA_SCH_BPF_OBJECT], sizeof(cfg->object));
	if (!tb[TCA_SCH_BPF_ENQUEUE])
		return 0;

	fds->enqueue = sch_bpf_get_fds(tb[TCA_SCH_BPF_ENQUEUE], extack);
	if (IS_ERR(fds->enqueue))
		return PTR_ERR(fds->enqueue);
	fds->dequeue = sch_bpf_get_fds(tb[TCA_SCH_BPF_DEQUEUE], extack);
	if (IS_ERR(fds->dequeue))
		return PTR_ERR(fds->dequeue);
	if (nla_len(fds->enqueue) != nla_len(fds->dequeue)) {
		NL_SET_ERR_MSG(extack, "There are as many enqueue as dequeue programs");
		return -EINVAL;
	}
	fds->pairs = nla_len(fds->enqueue) / sizeof(u32);
	cfg->progs = true;
	return 0;
}

/* For the kind bpf, which has one pair of programs */
static int sch_bpf_parse(struct sch_bpf_config *cfg, struct nlattr *opt, bool create,
			 struct netlink_ext_ack *extack)
{
	struct sch_bpf_fds fds;
	int err;

	err = sch_bpf_config_parse(cfg, &fds, opt, create, extack);
	if (err || !fds.pairs)
		return err;
	if (fds.pairs > 1) {
		NL_SET_ERR_MSG(extack, "Several pairs of programs are for bpf_mq");
		return -EINVAL;
	}
	return sch_bpf_config_get_progs(cfg, &fds, 0, extack);
}

static void sch_bpf_prog_maps(struct sch_bpf_data *q, const struct bpf_prog *prog,
			      void (*call)(struct bpf_map *map, struct bpf_rbtree_owner *owner))
{
	u32 i;

	if (!prog)
		return;
	mutex_lock(&prog->aux->used_maps_mutex);
	for (i = 0; i < prog->aux->used_map_cnt; i++)
		call(prog->aux->used_maps[i], &q->owner);
	mutex_unlock(&prog->aux->used_maps_mutex);
}

/**
 * sch_bpf_maps() - tell the maps that programs name which qdisc runs these
 * @sch: a qdisc of the kind bpf
 * @enqueue: its program, or NULL
 * @dequeue: likewise
 * @call: bpf_rbtree_use() before the qdisc can run them, bpf_rbtree_unuse() when it has run them
 *
 * Context: process, may sleep; not between sch_bpf_reach_begin() and sch_bpf_reach_end().
 */
void sch_bpf_maps(struct Qdisc *sch, const struct bpf_prog *enqueue,
		  const struct bpf_prog *dequeue,
		  void (*call)(struct bpf_map *map, struct bpf_rbtree_owner *owner))
{
	sch_bpf_prog_maps(qdisc_priv(sch), enqueue, call);
	sch_bpf_prog_maps(qdisc_priv(sch), dequeue, call);
}

/**
 * sch_bpf_config_swap() - put a configuration in force
 * @sch: a qdisc of the kind bpf
 * @cfg: the configuration; it gets the programs that were in force before
 *
 * Context: under the qdisc's tree lock, or before the qdisc can be found; after sch_bpf_maps().
 */
void sch_bpf_config_swap(struct Qdisc *sch, struct sch_bpf_config *cfg)
{
	struct sch_bpf_data *q = qdisc_priv(sch);

	if (cfg->limit)
		WRITE_ONCE(sch->limit, cfg->limit);
	if (cfg->horizon) {
		q->horizon = cfg->horizon;
		q->horizon_was = 0;
		q->armed = 0;		/* the watchdog may wait for longer than the new one */
	}
	if (cfg->patience)
		q->patience = cfg->patience;
	sch->flags &= ~TCQ_F_CAN_BYPASS;	/* a parameter may have changed */
	if (!cfg->progs)
		return;
	swap(q->enqueue, cfg->enqueue);
	swap(q->dequeue, cfg->dequeue);
	memcpy(q->object, cfg->object, sizeof(q->object));
	q->was_stuck = q->stuck;
	if (!q->enqueue)
		sch_bpf_take_over(q);
	else
		q->stuck = false;
	q->idle = 0;
	q->trouble = 0;
	sch_bpf_new_generation(q);
}

/* An instance that has no programs yet: bpf_mq puts them in before it can be found. */
static int sch_bpf_queue_init(struct Qdisc *sch, struct nlattr *opt,
			      struct netlink_ext_ack *extack)
{
	struct sch_bpf_data *q = qdisc_priv(sch);
	struct net_device *dev = qdisc_dev(sch);

	/* destroy runs after any failure */
	qdisc_watchdog_init(&q->watchdog, sch);
	INIT_DELAYED_WORK(&q->work, sch_bpf_work);
	bpf_rbtree_owner_init(&q->owner, sch_bpf_map_gone);
	__skb_queue_head_init(&q->fifo);
	q->run.ctx.qdisc = sch;
	if (sch->dev_queue != dev_ingress_queue(dev))
		q->run.ctx.queue = sch->dev_queue - netdev_get_tx_queue(dev, 0);
	sch->flags |= TCQ_F_DEQUEUE_DROPS;
	return sch_bpf_class_init(sch, opt, extack);
}

static int sch_bpf_init(struct Qdisc *sch, struct nlattr *opt,
			struct netlink_ext_ack *extack)
{
	struct sch_bpf_config cfg;
	int err;

	err = sch_bpf_queue_init(sch, opt, extack);
	if (err)
		return err;
	err = sch_bpf_parse(&cfg, opt, true, extack);
	if (err)
		return err;
	sch_bpf_maps(sch, cfg.enqueue, cfg.dequeue, bpf_rbtree_use);
	sch_bpf_config_swap(sch, &cfg);
	return 0;
}

/* ---- change ---- */

static u64 sch_bpf_mark;	/* the last; under RTNL */

/**
 * sch_bpf_new_mark() - a mark for bpf_rbtree_mark() that is higher than all before
 *
 * Context: process, under RTNL.
 * Return: the mark.
 */
u64 sch_bpf_new_mark(void)
{
	return ++sch_bpf_mark;
}

/* Mark the inner maps of an array or hash, which may be long: no lock is held. */
static int sch_bpf_mark_inner(struct bpf_map *outer)
{
	u32 size = round_up(outer->key_size, 8), left;
	void *keys, *key = NULL, *next, *inner;

	keys = kmalloc_array(2, size, GFP_KERNEL);
	if (!keys)
		return -ENOMEM;

	next = keys;
	/* A key that is deleted meanwhile can send a hash back to its beginning. */
	for (left = outer->max_entries; left; left--) {
		rcu_read_lock();
		if (outer->ops->map_get_next_key(outer, key, next)) {
			rcu_read_unlock();
			break;
		}
		inner = outer->ops->map_lookup_elem(outer, next);
		if (inner)
			bpf_rbtree_mark(inner, sch_bpf_mark);
		rcu_read_unlock();
		key = next;
		next = key == keys ? keys + size : keys;
		cond_resched();
	}
	kfree(keys);
	return 0;
}

/**
 * sch_bpf_reach_begin() - mark the maps that a program reaches
 * @dequeue: the program, or NULL
 *
 * Until sch_bpf_reach_end() the program keeps the maps that it uses. What user space
 * puts into an array or hash of maps meanwhile, or takes out, is not noticed.
 *
 * Context: process, under RTNL.
 * Return: 0; -ENOMEM.
 */
int sch_bpf_reach_begin(const struct bpf_prog *dequeue)
{
	struct bpf_prog_aux *aux;
	struct bpf_map *map;
	int err = 0;
	u32 i;

	if (!dequeue)
		return 0;

	aux = dequeue->aux;
	/* BPF_PROG_BIND_MAP may add to the maps of a program at any time. */
	mutex_lock(&aux->used_maps_mutex);
	sch_bpf_mark++;
	for (i = 0; i < aux->used_map_cnt && !err; i++) {
		map = aux->used_maps[i];
		bpf_rbtree_mark(map, sch_bpf_mark);
		bpf_rbtree_mark_inner(map, sch_bpf_mark);
		if (map->map_type == BPF_MAP_TYPE_ARRAY_OF_MAPS ||
		    map->map_type == BPF_MAP_TYPE_HASH_OF_MAPS)
			err = sch_bpf_mark_inner(map);
	}
	if (err)
		mutex_unlock(&aux->used_maps_mutex);
	return err;
}

/**
 * sch_bpf_reach_end() - let the maps go that are marked
 * @dequeue: the program whose maps they are, alive still; or NULL
 *
 * Context: process, under RTNL.
 */
void sch_bpf_reach_end(const struct bpf_prog *dequeue)
{
	if (dequeue)
		mutex_unlock(&dequeue->aux->used_maps_mutex);
}

/* Does a packet stay where it is not reached, and what is its map called? The maps in ordered maps
 * of maps are marked again, under the tree lock, if one seems out of reach: their qdisc moves them
 * about.
 */
static bool sch_bpf_out_of_reach(struct sch_bpf_data *q, const struct sch_bpf_config *cfg,
				 char *name)
{
	const struct bpf_prog_aux *aux;
	u32 i;

	if (!cfg->dequeue || cfg->flags & SCH_BPF_FLUSH ||
	    !bpf_rbtree_owner_unmarked(&q->owner, sch_bpf_mark, name))
		return false;
	aux = cfg->dequeue->aux;
	for (i = 0; i < aux->used_map_cnt; i++)
		bpf_rbtree_mark_inner(aux->used_maps[i], sch_bpf_mark);
	return bpf_rbtree_owner_unmarked(&q->owner, sch_bpf_mark, name);
}

/* What is in the maps leaves before all that comes from now on. Others have the tree lock
 * in between, and find the policy stuck: only a change or a reset ends that, and both need
 * RTNL, which the caller holds.
 */
static void sch_bpf_rescue_all(struct Qdisc *sch)
{
	while (sch_bpf_rescue(qdisc_priv(sch))) {
		sch_tree_unlock(sch);
		cond_resched();
		sch_tree_lock(sch);
	}
}

/* Back to programs that were in force: what they do not reach leaves first. It is few: what the
 * others have stored in the time that bpf_mq took for a change that failed.
 */
static void sch_bpf_rescue_unreached(struct sch_bpf_data *q, const struct sch_bpf_config *cfg)
{
	struct sk_buff *skb;

	if (!sch_bpf_out_of_reach(q, cfg, NULL))
		return;
	while ((skb = bpf_rbtree_drain_unmarked(&q->owner, sch_bpf_mark))) {
		__skb_queue_tail(&q->fifo, skb);
		q->stored--;
		q->rescued = true;
	}
}

static void sch_bpf_flush(struct Qdisc *sch, struct sk_buff_head *list)
{
	struct sch_bpf_data *q = qdisc_priv(sch);
	u32 packets = q->stored + q->fifo.qlen, bytes = q->bytes;

	sch_bpf_purge(q, list);
	sch_bpf_count_purged(sch, packets, bytes);
	sch_bpf_class_purge(sch);
}

/**
 * sch_bpf_config_change() - change a qdisc in place
 * @sch: a qdisc of the kind bpf
 * @cfg: the configuration; if it has programs, it gets those that were in force before
 * @how: what about packets that the new programs do not reach; to force takes the
 *       programs that were in force before, and a policy that was stuck is again; what is in
 *       classes that these do not ask leaves before all others
 * @extack: for the reason of a failure
 *
 * Context: process, under RTNL; between sch_bpf_reach_begin() and sch_bpf_reach_end()
 * of the new dequeue program, but for SCH_BPF_FORCE_ALL.
 * Return: 0; -EBUSY if a map or a class holds packets and the new dequeue program does
 * not use it: nothing has changed then.
 */
int sch_bpf_config_change(struct Qdisc *sch, struct sch_bpf_config *cfg,
			  enum sch_bpf_how how, struct netlink_ext_ack *extack)
{
	struct sch_bpf_data *q = qdisc_priv(sch);
	bool again = how >= SCH_BPF_FORCE && q->was_stuck;
	bool flush = cfg->flags & SCH_BPF_FLUSH, lost = false;
	bool takes = !cfg->dequeue || sch_bpf_takes_from_classes(cfg->dequeue);
	char name[BPF_OBJ_NAME_LEN];
	struct sk_buff_head list;
	int err = 0;

	__skb_queue_head_init(&list);
	sch_tree_lock(sch);
	if (how < SCH_BPF_FORCE && !takes && !flush && !q->classes_first &&
	    sch_bpf_class_has_packets(sch)) {
		NL_SET_ERR_MSG(extack,
			       "A class has packets the new dequeue can't take; flush drops them");
		err = -EBUSY;
		goto unlock;
	}
	if (how == SCH_BPF_FORCE_ALL || again)
		sch_bpf_take_over(q);
	if (!q->stuck && how < SCH_BPF_FORCE)
		lost = sch_bpf_out_of_reach(q, cfg, name);
	else if (!q->stuck)
		sch_bpf_rescue_unreached(q, cfg);
	else if (how != SCH_BPF_TRY && cfg->progs && !flush)
		sch_bpf_rescue_all(sch);	/* the new policy may have other maps */
	if (lost) {
		NL_SET_ERR_MSG_FMT(extack,
				   "Map '%s' has packets the new dequeue can't reach; flush drops them",
				   name);
		err = -EBUSY;
	} else if (how != SCH_BPF_TRY) {
		if (flush)
			sch_bpf_flush(sch, &list);
		sch_bpf_config_swap(sch, cfg);
		q->stuck |= again;
		if (cfg->progs)
			q->classes_first = !takes && sch_bpf_class_has_packets(sch);
		q->rescued |= q->classes_first;
		trace_sch_bpf_change(sch, q->enqueue, q->dequeue);
	}
unlock:
	sch_tree_unlock(sch);

	sch_bpf_free_list(&list);
	/* The new program may want to send what the old one held back. */
	if (!err && how != SCH_BPF_TRY && qdisc_qlen_lockless(sch))
		qdisc_watchdog_schedule_ns(&q->watchdog, ktime_get_ns());
	return err;
}

static int sch_bpf_change(struct Qdisc *sch, struct nlattr *opt,
			  struct netlink_ext_ack *extack)
{
	const struct bpf_prog *dequeue;
	struct sch_bpf_config cfg;
	int err;

	err = sch_bpf_parse(&cfg, opt, false, extack);
	if (err)
		return err;
	dequeue = cfg.dequeue;
	sch_bpf_maps(sch, cfg.enqueue, dequeue, bpf_rbtree_use);
	err = sch_bpf_reach_begin(dequeue);
	if (!err) {
		err = sch_bpf_config_change(sch, &cfg, SCH_BPF_CHANGE, extack);
		sch_bpf_reach_end(dequeue);
	}
	sch_bpf_config_put(&cfg);
	return err;
}

static void sch_bpf_destroy(struct Qdisc *sch)
{
	struct sch_bpf_data *q = qdisc_priv(sch);

	if (q->watchdog.qdisc != sch)
		return;
	sch_bpf_reset(sch);
	bpf_rbtree_disown(&q->owner);	/* no map that goes away asks for work any more */
	cancel_delayed_work_sync(&q->work);
	/* No packet outlives the device and its namespace. */
	bpf_rbtree_flush();
	sch_bpf_class_destroy(sch);
	sch_bpf_maps(sch, q->enqueue, q->dequeue, bpf_rbtree_unuse);
	if (q->enqueue)
		bpf_prog_put(q->enqueue);
	if (q->dequeue)
		bpf_prog_put(q->dequeue);
}

static int sch_bpf_dump_prog(struct sk_buff *skb, int attr, const struct bpf_prog *prog)
{
	struct nlattr *nest = nla_nest_start(skb, attr);

	if (!nest ||
	    nla_put_string(skb, TCA_SCH_BPF_PROG_NAME, prog->aux->name) ||
	    nla_put_u32(skb, TCA_SCH_BPF_PROG_ID, prog->aux->id) ||
	    nla_put(skb, TCA_SCH_BPF_PROG_TAG, sizeof(prog->tag), prog->tag))
		return -EMSGSIZE;
	nla_nest_end(skb, nest);
	return 0;
}

/**
 * sch_bpf_config_dump() - write a configuration as TCA_OPTIONS
 * @cfg: the configuration; without programs, that of a tx queue for which there are none
 * @queues: how many tx queues have programs of their own, or 0
 * @skb: the netlink message
 *
 * Context: process, under RTNL.
 * Return: length of the message; -EMSGSIZE if there is no room.
 */
int sch_bpf_config_dump(const struct sch_bpf_config *cfg, u32 queues, struct sk_buff *skb)
{
	struct nlattr *opts;

	opts = nla_nest_start_noflag(skb, TCA_OPTIONS);
	if (!opts)
		return -EMSGSIZE;
	if ((cfg->limit && nla_put_u32(skb, TCA_SCH_BPF_LIMIT, cfg->limit)) ||
	    nla_put_u64_64bit(skb, TCA_SCH_BPF_HORIZON, cfg->horizon, TCA_SCH_BPF_PAD) ||
	    nla_put_u64_64bit(skb, TCA_SCH_BPF_PATIENCE, cfg->patience, TCA_SCH_BPF_PAD) ||
	    (queues && nla_put_u32(skb, TCA_SCH_BPF_QUEUES, queues)))
		goto no_room;
	if (cfg->enqueue &&
	    ((cfg->object[0] && nla_put_string(skb, TCA_SCH_BPF_OBJECT, cfg->object)) ||
	     sch_bpf_dump_prog(skb, TCA_SCH_BPF_ENQUEUE, cfg->enqueue) ||
	     sch_bpf_dump_prog(skb, TCA_SCH_BPF_DEQUEUE, cfg->dequeue)))
		goto no_room;
	return nla_nest_end(skb, opts);
no_room:
	nla_nest_cancel(skb, opts);
	return -EMSGSIZE;
}

static int sch_bpf_dump(struct Qdisc *sch, struct sk_buff *skb)
{
	struct sch_bpf_data *q = qdisc_priv(sch);
	struct sch_bpf_config cfg = {
		.enqueue = q->enqueue,
		.dequeue = q->dequeue,
		.limit = READ_ONCE(sch->limit),
		.horizon = q->horizon,
		.patience = q->patience,
	};

	memcpy(cfg.object, q->object, sizeof(cfg.object));
	return sch_bpf_config_dump(&cfg, 0, skb);
}

static int sch_bpf_dump_stats(struct Qdisc *sch, struct gnet_dump *d)
{
	struct sch_bpf_data *q = qdisc_priv(sch);
	struct tc_sch_bpf_xstats xstats;

	sch_tree_lock(sch);
	xstats = q->xstats;
	xstats.stored = q->stored;
	xstats.fifo = q->fifo.qlen;
	xstats.is_stuck = q->stuck && q->enqueue;
	sch_tree_unlock(sch);
	return gnet_stats_copy_app(d, &xstats, sizeof(xstats));
}

static struct Qdisc_ops sch_bpf_qdisc_ops __read_mostly = {
	.id		= "bpf",
	.static_flags	= TCQ_F_NO_DEFAULT,
	.cl_ops		= &sch_bpf_class_ops,
	.priv_size	= sizeof(struct sch_bpf_data),
	.enqueue	= sch_bpf_enqueue,
	.dequeue	= sch_bpf_dequeue,
	.peek		= qdisc_peek_dequeued,
	.init		= sch_bpf_init,
	.reset		= sch_bpf_reset,
	.destroy	= sch_bpf_destroy,
	.change		= sch_bpf_change,
	.dump		= sch_bpf_dump,
	.dump_stats	= sch_bpf_dump_stats,
	.owner		= THIS_MODULE,
};

static int sch_bpf_queue_change(struct Qdisc *sch, struct nlattr *opt,
				struct netlink_ext_ack *extack)
{
	NL_SET_ERR_MSG(extack, "The instances of bpf_mq are changed together");
	return -EOPNOTSUPP;
}

/* The instances of bpf_mq: made without options, not changed alone */
struct Qdisc_ops sch_bpf_queue_ops __ro_after_init;

static int __init sch_bpf_module_init(void)
{
	sch_bpf_queue_ops = sch_bpf_qdisc_ops;
	sch_bpf_queue_ops.init = sch_bpf_queue_init;
	sch_bpf_queue_ops.change = sch_bpf_queue_change;
	return register_qdisc(&sch_bpf_qdisc_ops);
}
device_initcall(sch_bpf_module_init);
