// SPDX-License-Identifier: GPL-2.0
/* The qdisc "bpf": enqueue and dequeue are BPF programs
 *
 * Enqueue: the program owns the packet. It pushes it into an ordered map under
 * a key of its choice, drops it, or leaves it to the kernel with a verdict.
 * Dequeue: the program takes the next packet out of its maps, or says that there
 * is none now (SCH_BPF_EMPTY) or none before a time (SCH_BPF_THROTTLE).
 *
 * Accounting is the kernel's. The functions that a program calls count what was
 * stored, taken and dropped (sch_bpf_prog.c); here the difference that a run has
 * made to qlen and backlog is made known to the parents and decides what the
 * caller gets. A verdict cannot make a packet appear or disappear.
 *
 * Maps: a map of packets belongs to the qdisc that pushes first, until it is
 * empty (kernel/bpf/rbtree.c). Reset takes the packets of all maps that the
 * qdisc holds, also of inner maps that user space has unlinked meanwhile.
 *
 * A policy can be slow but not silent: a throttle is cut at a horizon, and while
 * packets are stored and the program says EMPTY, it is asked again.
 */
#include <linux/bpf.h>
#include <linux/filter.h>
#include <linux/module.h>
#include <linux/netdevice.h>
#include <linux/rtnetlink.h>
#include <linux/skbuff.h>
#include <net/netlink.h>
#include "sch_bpf.h"

#define SCH_BPF_LIMIT		10000

/* No throttle is longer. */
#define SCH_BPF_HORIZON		(10ULL * NSEC_PER_SEC)

/* A program that says EMPTY while packets are stored is asked again after 1 ms,
 * 2 ms, ... 1024 ms.
 */
#define SCH_BPF_RETRY		NSEC_PER_MSEC
#define SCH_BPF_RETRY_SHIFT_MAX	10

/**
 * sch_bpf_drop() - drop a packet that no map holds, and count it
 * @run: the run of the program that drops it
 * @skb: the packet
 * @reason: why
 *
 * Context: under the qdisc's root lock, bottom halves off. The packet is freed
 * after the lock has been released.
 */
void sch_bpf_drop(struct sch_bpf_run *run, struct sk_buff *skb,
		  enum qdisc_drop_reason reason)
{
	qdisc_qstats_drop(run->sch);

	if (!run->to_free) {
		qdisc_dequeue_drop(run->sch, skb, reason);
		return;
	}
	if (skb == run->ctx.skb)
		run->given_away = true;
	tcf_set_qdisc_drop_reason(skb, reason);
	__qdisc_drop(skb, run->to_free);
}

/* The packet is still owned: do what the verdict says, and say what it was. */
static int sch_bpf_settle(struct sch_bpf_run *run, u32 verdict)
{
	if (verdict == SCH_BPF_STOLEN) {
		__qdisc_drop(run->ctx.skb, run->to_free);
		return NET_XMIT_SUCCESS | __NET_XMIT_STOLEN;
	}
	/* SCH_BPF_PASS too, as long as there are no classes */
	sch_bpf_drop(run, run->ctx.skb, QDISC_DROP_GENERIC);
	return NET_XMIT_DROP;
}

static int sch_bpf_enqueue(struct sk_buff *skb, struct Qdisc *sch,
			   struct sk_buff **to_free)
{
	struct sch_bpf_data *q = qdisc_priv(sch);
	unsigned int len = qdisc_pkt_len(skb);
	u32 backlog = sch->qstats.backlog;
	u32 qlen = sch->q.qlen;
	struct sch_bpf_run run = {
		.ctx.skb = skb,
		.ctx.qdisc = sch,
		.ctx.queue = q->queue,
		.sch = sch,
		.to_free = to_free,
	};
	u32 verdict;
	int ret;

	verdict = bpf_prog_run(q->enqueue, &run.ctx);
	q->idle = 0;

	qlen = sch->q.qlen - qlen;
	backlog = sch->qstats.backlog - backlog;
	if (likely(run.queued && qlen == 1 && backlog == len))
		return NET_XMIT_SUCCESS;

	if (run.queued)
		ret = NET_XMIT_CN;
	else if (run.given_away)
		ret = NET_XMIT_DROP;
	else
		ret = sch_bpf_settle(&run, verdict);

	/* The parents count this packet only on success. Whatever else the
	 * program has stored or dropped is not known to them.
	 */
	qdisc_tree_reduce_backlog(sch, -(int)qlen, -(int)backlog);
	return ret;
}

/* Nothing left although packets are stored: see to it that the program is asked
 * again.
 */
static void sch_bpf_rearm(struct sch_bpf_data *q, const struct sch_bpf_run *run, u32 verdict)
{
	u64 now = ktime_get_ns(), when;

	if (verdict == SCH_BPF_THROTTLE && run->ctx.expire) {
		qdisc_qstats_overlimit(run->sch);
		when = min(run->ctx.expire, now + SCH_BPF_HORIZON);
	} else {
		when = now + (SCH_BPF_RETRY << min(q->idle, SCH_BPF_RETRY_SHIFT_MAX));
		q->idle++;
	}
	qdisc_watchdog_schedule_ns(&q->watchdog, when);
}

static struct sk_buff *sch_bpf_dequeue(struct Qdisc *sch)
{
	struct sch_bpf_data *q = qdisc_priv(sch);
	u32 backlog = sch->qstats.backlog;
	u32 qlen = sch->q.qlen;
	struct sch_bpf_run run;
	u32 verdict;

	/* Not qlen: that counts a packet that was peeked at, too. */
	if (!q->stored)
		return NULL;

	run.ctx.skb = NULL;
	run.ctx.qdisc = sch;
	run.ctx.expire = 0;
	run.ctx.classid = 0;
	run.ctx.queue = q->queue;
	run.sch = sch;
	run.to_free = NULL;
	run.out = NULL;

	verdict = bpf_prog_run(q->dequeue, &run.ctx);

	qlen -= sch->q.qlen;
	backlog -= sch->qstats.backlog;
	if (likely(run.out)) {
		q->idle = 0;
		qdisc_bstats_update(sch, run.out);
		qlen--;
		backlog -= qdisc_pkt_len(run.out);
	} else if (q->stored) {
		sch_bpf_rearm(q, &run, verdict);
	}
	if (unlikely(qlen || backlog))
		qdisc_tree_reduce_backlog(sch, qlen, backlog);
	return run.out;
}

static void sch_bpf_reset(struct Qdisc *sch)
{
	struct sch_bpf_data *q = qdisc_priv(sch);
	struct sk_buff *skb;

	if (q->watchdog.qdisc)
		qdisc_watchdog_cancel(&q->watchdog);
	if (q->owner.maps.next) {
		while ((skb = bpf_rbtree_drain(&q->owner)))
			rtnl_kfree_skbs(skb, skb);
	}
	q->stored = 0;
	q->idle = 0;
}

/* ---- netlink ---- */

static const struct nla_policy sch_bpf_prog_policy[TCA_SCH_BPF_PROG_MAX + 1] = {
	[TCA_SCH_BPF_PROG_FD]	= { .type = NLA_U32 },
};

static const struct nla_policy sch_bpf_policy[TCA_SCH_BPF_MAX + 1] = {
	[TCA_SCH_BPF_LIMIT]	= NLA_POLICY_MIN(NLA_U32, 1),
	[TCA_SCH_BPF_OBJECT]	= { .type = NLA_NUL_STRING, .len = SCH_BPF_OBJECT_LEN - 1 },
	[TCA_SCH_BPF_ENQUEUE]	= NLA_POLICY_NESTED(sch_bpf_prog_policy),
	[TCA_SCH_BPF_DEQUEUE]	= NLA_POLICY_NESTED(sch_bpf_prog_policy),
};

/* tc does not set NLA_F_NESTED; apart from that nothing is forgiven. */
#define SCH_BPF_VALIDATE (NL_VALIDATE_STRICT & ~NL_VALIDATE_NESTED)

static struct bpf_prog *sch_bpf_get_prog(struct nlattr *opt, u32 type,
					 struct netlink_ext_ack *extack)
{
	struct nlattr *tb[TCA_SCH_BPF_PROG_MAX + 1];
	struct bpf_prog *prog;
	int err;

	err = __nla_parse(tb, TCA_SCH_BPF_PROG_MAX, nla_data(opt), nla_len(opt),
			  sch_bpf_prog_policy, SCH_BPF_VALIDATE, extack);
	if (err)
		return ERR_PTR(err);
	if (!tb[TCA_SCH_BPF_PROG_FD]) {
		NL_SET_ERR_MSG_ATTR(extack, opt, "A BPF program needs a file descriptor");
		return ERR_PTR(-EINVAL);
	}

	prog = bpf_prog_get_type(nla_get_u32(tb[TCA_SCH_BPF_PROG_FD]), BPF_PROG_TYPE_QDISC);
	if (IS_ERR(prog)) {
		NL_SET_ERR_MSG_ATTR(extack, opt,
				    "The file descriptor is none of a BPF program of type qdisc");
		return prog;
	}
	if (prog->expected_attach_type != type) {
		bpf_prog_put(prog);
		NL_SET_ERR_MSG_ATTR(extack, opt,
				    "The program was loaded for the other direction");
		return ERR_PTR(-EINVAL);
	}
	return prog;
}

static int sch_bpf_parse(struct nlattr *tb[TCA_SCH_BPF_MAX + 1], struct nlattr *opt,
			 struct netlink_ext_ack *extack)
{
	if (!opt) {
		NL_SET_ERR_MSG(extack, "The bpf qdisc needs an enqueue and a dequeue program");
		return -EINVAL;
	}
	return __nla_parse(tb, TCA_SCH_BPF_MAX, nla_data(opt), nla_len(opt),
			   sch_bpf_policy, SCH_BPF_VALIDATE, extack);
}

static int sch_bpf_init(struct Qdisc *sch, struct nlattr *opt,
			struct netlink_ext_ack *extack)
{
	struct sch_bpf_data *q = qdisc_priv(sch);
	struct nlattr *tb[TCA_SCH_BPF_MAX + 1];
	struct bpf_prog *prog;
	int err;

	q->queue = sch->dev_queue - netdev_get_tx_queue(qdisc_dev(sch), 0);
	/* destroy runs after any failure */
	qdisc_watchdog_init(&q->watchdog, sch);
	bpf_rbtree_owner_init(&q->owner);

	err = sch_bpf_parse(tb, opt, extack);
	if (err)
		return err;
	if (!tb[TCA_SCH_BPF_ENQUEUE] || !tb[TCA_SCH_BPF_DEQUEUE]) {
		NL_SET_ERR_MSG(extack, "The bpf qdisc needs an enqueue and a dequeue program");
		return -EINVAL;
	}

	prog = sch_bpf_get_prog(tb[TCA_SCH_BPF_ENQUEUE], BPF_QDISC_ENQUEUE, extack);
	if (IS_ERR(prog))
		return PTR_ERR(prog);
	q->enqueue = prog;
	prog = sch_bpf_get_prog(tb[TCA_SCH_BPF_DEQUEUE], BPF_QDISC_DEQUEUE, extack);
	if (IS_ERR(prog))
		return PTR_ERR(prog);
	q->dequeue = prog;

	sch->limit = nla_get_u32_default(tb[TCA_SCH_BPF_LIMIT], SCH_BPF_LIMIT);
	if (tb[TCA_SCH_BPF_OBJECT])
		nla_strscpy(q->object, tb[TCA_SCH_BPF_OBJECT], sizeof(q->object));
	sch->flags |= TCQ_F_DEQUEUE_DROPS;
	return 0;
}

static void sch_bpf_destroy(struct Qdisc *sch)
{
	struct sch_bpf_data *q = qdisc_priv(sch);

	sch_bpf_reset(sch);
	if (q->owner.maps.next)
		bpf_rbtree_disown(&q->owner);
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

static int sch_bpf_dump(struct Qdisc *sch, struct sk_buff *skb)
{
	struct sch_bpf_data *q = qdisc_priv(sch);
	struct nlattr *opts;

	opts = nla_nest_start_noflag(skb, TCA_OPTIONS);
	if (!opts)
		return -EMSGSIZE;
	if (nla_put_u32(skb, TCA_SCH_BPF_LIMIT, READ_ONCE(sch->limit)) ||
	    (q->object[0] && nla_put_string(skb, TCA_SCH_BPF_OBJECT, q->object)) ||
	    sch_bpf_dump_prog(skb, TCA_SCH_BPF_ENQUEUE, q->enqueue) ||
	    sch_bpf_dump_prog(skb, TCA_SCH_BPF_DEQUEUE, q->dequeue)) {
		nla_nest_cancel(skb, opts);
		return -EMSGSIZE;
	}
	return nla_nest_end(skb, opts);
}

static struct Qdisc_ops sch_bpf_qdisc_ops __read_mostly = {
	.id		= "bpf",
	.priv_size	= sizeof(struct sch_bpf_data),
	.enqueue	= sch_bpf_enqueue,
	.dequeue	= sch_bpf_dequeue,
	.peek		= qdisc_peek_dequeued,
	.init		= sch_bpf_init,
	.reset		= sch_bpf_reset,
	.destroy	= sch_bpf_destroy,
	.dump		= sch_bpf_dump,
	.owner		= THIS_MODULE,
};

static int __init sch_bpf_module_init(void)
{
	return register_qdisc(&sch_bpf_qdisc_ops);
}
device_initcall(sch_bpf_module_init);
