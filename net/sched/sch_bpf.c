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
 * stored, taken and dropped (sch_bpf_kfuncs.c); here the difference that a run has
 * made to qlen and backlog is made known to the parents and decides what the
 * caller gets. What a program returns means nothing.
 *
 * Maps: the first push claims a map of packets for its qdisc. A claim on an empty
 * map gives way to whoever comes next (kernel/bpf/rbtree.h). Reset takes the packets
 * of all maps that the qdisc holds, also of inner maps that user space has unlinked
 * meanwhile.
 *
 * A policy can be slow but not silent. While packets are stored and the program
 * delivers nothing, it is asked again: at ctx->expire, at the horizon if that comes
 * first, or, without a time, soon. A policy is stuck if, for the length of its patience
 * (five seconds by default), each run found packets stored, and neither delivered nor
 * dropped one nor gave a time that was yet to come. No program runs then until the
 * programs are changed or the qdisc is reset. The policy's packets stay where they
 * are: the kernel takes one for each dequeue, and serves what has come since by a FIFO
 * of its own (sch_bpf_fifo.c). Waiting and dropping are decisions of the policy: no
 * sender can turn them into being stuck. The same FIFO serves a tx queue for which
 * bpf_mq was given no programs (sch_bpf_mq.c).
 */
#include <linux/bpf.h>
#include <linux/filter.h>
#include <linux/module.h>
#include <linux/netdevice.h>
#include <linux/skbuff.h>
#include "sch_bpf_priv.h"

#define CREATE_TRACE_POINTS
#include <trace/events/sch_bpf.h>

/* A program that delivers nothing while packets are stored, and gives no time, is asked
 * again after 1 ms, 2 ms, ... 1024 ms.
 */
#define SCH_BPF_RETRY		NSEC_PER_MSEC
#define SCH_BPF_RETRY_SHIFT_MAX	10

/* How much later than asked for the timer may come, so that one serves several. */
#define SCH_BPF_SLACK		(10 * NSEC_PER_USEC)

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
 * sch_bpf_enqueue_finish() - what a run of the enqueue program comes to
 * @q: the qdisc, after the run
 *
 * Runs the program for the segments of the packet, if it was cut into some, and for what
 * classes have given to the root meanwhile. Tells the parents of what they do not count
 * themselves.
 *
 * Context: under the qdisc's root lock, bottom halves off.
 * Return: what enqueue returns to its caller, a NET_XMIT code.
 */
noinline int sch_bpf_enqueue_finish(struct sch_bpf_data *q)
{
	int ret = NET_XMIT_DROP, more = 0, bytes = 0;
	u32 len = q->run.len;
	bool queued = false, emptied = false, again = false;

	do {
		if (q->run.state & SCH_BPF_RUN_OTHERS) {
			more += q->run.more;
			bytes += q->run.bytes;
		}
		/* A drop does not hide what became of the packet or segment before it. */
		if (q->run.state & SCH_BPF_RUN_RET &&
		    (!(q->run.ret & NET_XMIT_MASK) || (ret & NET_XMIT_MASK)))
			ret = q->run.ret;
		if (q->run.state & SCH_BPF_RUN_QUEUED) {
			queued = true;
			more++;
			bytes += q->run.len;
		}
		emptied |= !!(q->run.state & SCH_BPF_RUN_EMPTIED);
		again |= !!(q->run.state & SCH_BPF_RUN_AGAIN);
	} while (unlikely(again) && sch_bpf_enqueue_next(q));

	/* NET_XMIT_SUCCESS makes each parent count one packet of @len and ask this qdisc
	 * later. So it is returned if and only if the queue is not empty, and the packet is
	 * in it or the queue has grown, if only by a clone. qdisc_tree_reduce_backlog() tells
	 * the parents the rest: what else has come or left, and that the queue has become
	 * empty.
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

/* There is one run at a time, because q->run has room for one. netem in a class enqueues a
 * duplicate at the root, from within our run: it waits in q->given until the run is over. What a
 * netem below a netem gives when a dequeue program asks the class is dropped: no run of the
 * enqueue program follows.
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

	if (unlikely(q->enqueue_slow))
		return q->passing ? sch_bpf_enqueue_given(q, skb, to_free) :
				    sch_bpf_fifo_enqueue(skb, sch, to_free);

	q->idle = 0;
	sch_bpf_enqueue_run(q, skb, to_free);
	if (likely(q->run.state == SCH_BPF_RUN_QUEUED))
		return NET_XMIT_SUCCESS;
	return sch_bpf_enqueue_finish(q);
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

	/* A program of this qdisc has called a class. A parent (hfsc, qfq) to which netem there
	 * has given a duplicate peeks from within its enqueue: give none. It asks again when it
	 * dequeues.
	 */
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

/* The program has delivered nothing, and packets are there: have it asked again. Returns a
 * packet if the policy has been found stuck.
 */
static noinline struct sk_buff *sch_bpf_rearm(struct sch_bpf_data *q)
{
	struct Qdisc *sch = sch_bpf_qdisc(q);
	u64 now, wait = 0;

	/* The time is the same as before, and its timer is queued: nothing to do. */
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
	/* Two things are not trouble: a class holds its packets back, and no other class has
	 * shown that it could send; or packets are in a map that is gone, which only the work
	 * can drop, as soon as it gets RTNL.
	 */
	if (sch_bpf_waits_for_class(q) || delayed_work_pending(&q->work)) {
		q->trouble = 0;
	} else if (sch_bpf_trouble(q, now)) {
		sch_bpf_set_stuck(sch);
		return sch_bpf_dequeue_rescued(sch);
	}
	/* A program that has seen a packet of a class and left it is asked in 1 ms: DRR adds to
	 * the deficit in each run, and may need several. If ctx->expire has just passed, the
	 * program read the clock before that: it is asked at once. If that happens again, it is
	 * asked as one that gives no time.
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

	/* The parents still count what was dropped: tell them. The packet that leaves counts
	 * meanwhile, because a parent that has asked by peek() takes it later, and must not
	 * deactivate this qdisc. EMPTIED: a class has told them of its drops while qlen was
	 * held above 0; tell them that it is 0.
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

	/* The run has dropped all. A parent (drr, ets, hfsc, qfq) that gets NULL from an active
	 * class asks no other class, and nobody asks the parent again: so wake the root.
	 */
	if (q->run.state & SCH_BPF_RUN_OTHERS && sch->parent != TC_H_ROOT)
		qdisc_watchdog_schedule_ns(&q->watchdog, ktime_get_ns());
	return NULL;
}

/* noinline, so that sch_bpf_dequeue() saves no registers in the half of all calls that find
 * nothing.
 */
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

	if (unlikely(q->dequeue_slow))
		return sch_bpf_dequeue_rescued(sch);

	/* qlen alone does not say: it includes what is in gso_skb (peeked at, requeued). */
	if (!q->stored && (!q->classes.hashelems || !qdisc_qlen(sch)))
		return NULL;

	return sch_bpf_dequeue_run(q);
}

/* ---- life ---- */

static void sch_bpf_reset(struct Qdisc *sch)
{
	struct sch_bpf_data *q = qdisc_priv(sch);
	struct sk_buff_head list;

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

/* An instance that has no programs yet: bpf_mq puts them in before it can be found. A test run
 * (sch_bpf_test_run.c) runs its program itself.
 */
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

static void sch_bpf_destroy(struct Qdisc *sch)
{
	struct sch_bpf_data *q = qdisc_priv(sch);

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

/* The instances of bpf_mq, and of test runs: made without options, not changed alone */
struct Qdisc_ops sch_bpf_queue_ops __ro_after_init;

static int __init sch_bpf_module_init(void)
{
	sch_bpf_queue_ops = sch_bpf_qdisc_ops;
	sch_bpf_queue_ops.init = sch_bpf_queue_init;
	sch_bpf_queue_ops.change = sch_bpf_queue_change;
	return register_qdisc(&sch_bpf_qdisc_ops);
}
device_initcall(sch_bpf_module_init);
