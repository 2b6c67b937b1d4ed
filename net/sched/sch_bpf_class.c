// SPDX-License-Identifier: GPL-2.0
/* Classes and filters of the qdisc "bpf"
 *
 * A class is a child qdisc with a handle. Programs pass packets to it and pop packets
 * from it; classes mean nothing else to the kernel, and there are none below a class.
 * The filters on the qdisc itself are run only when a program asks for it.
 */
#include <linux/rtnetlink.h>
#include <linux/slab.h>
#include <net/pkt_cls.h>
#include "sch_bpf_priv.h"

struct sch_bpf_class {
	struct Qdisc_class_common common;
	struct gnet_stats_basic_sync bstats;
	struct net_rate_estimator __rcu *rate_est;
	struct Qdisc *qdisc;
};

static struct sch_bpf_class *sch_bpf_class_find(struct Qdisc *sch, u32 classid)
{
	struct sch_bpf_data *q = qdisc_priv(sch);
	struct Qdisc_class_common *clc;

	clc = qdisc_class_find(&q->classes, classid);
	return clc ? container_of(clc, struct sch_bpf_class, common) : NULL;
}

/**
 * sch_bpf_class_enqueue() - pass a packet of an enqueue program to a class
 * @q: the qdisc
 * @skb: the packet
 * @classid: handle of the class
 *
 * A packet for a class that does not exist is dropped and counted. A child that
 * drops or segments other packets tells all its parents itself, this qdisc too.
 *
 * Context: under the qdisc's root lock, bottom halves off.
 * Return: 0; -ENOENT without a class; -ENOBUFS if its qdisc has dropped the packet.
 */
int sch_bpf_class_enqueue(struct sch_bpf_data *q, struct sk_buff *skb, u32 classid)
{
	struct Qdisc *sch = sch_bpf_qdisc(q);
	struct sch_bpf_class *cl = sch_bpf_class_find(sch, classid);
	unsigned int len = qdisc_pkt_len(skb);
	bool came = skb == q->run.ctx.skb;
	int ret, err = 0;

	if (!cl) {
		sch_bpf_drop(q, skb, QDISC_DROP_NO_CLASS);
		return -ENOENT;
	}

	/* The child may free it at once, and its address may then be that of a clone. */
	if (came)
		q->run.ctx.skb = NULL;
	/* qlen is held above 0 while the child runs. Else a child that drops all its packets
	 * would tell our parents, in the middle of a run, that we are empty.
	 */
	qdisc_qlen_inc(sch);
	q->passing = true;
	ret = qdisc_enqueue(skb, cl->qdisc, q->run.to_free);
	q->passing = false;
	if (ret == NET_XMIT_SUCCESS) {
		qstats_backlog_add(sch, len);
		/* hfsc peeks when it enqueues, and its leaf may drop the packet then. */
		if (unlikely(!qdisc_qlen(sch)))
			q->run.state |= SCH_BPF_RUN_EMPTIED;
		if (came)
			q->run.state |= SCH_BPF_RUN_QUEUED;
		else
			sch_bpf_count_others(&q->run, 1, len);
		return 0;
	}
	qdisc_qlen_dec(sch);
	if (!qdisc_qlen(sch))
		q->run.state |= SCH_BPF_RUN_EMPTIED;
	if (net_xmit_drop_count(ret)) {
		qdisc_qstats_drop(sch);
		err = ret == NET_XMIT_CN ? 0 : -ENOBUFS;	/* CN: it dropped another one */
	}
	if (came) {
		q->run.state |= SCH_BPF_RUN_RET;
		q->run.ret = ret;
	}
	return err;
}

static struct sk_buff *sch_bpf_class_take(struct sch_bpf_class *cl)
{
	struct sk_buff *skb = qdisc_dequeue_peeked(cl->qdisc);

	if (skb)
		bstats_update(&cl->bstats, skb);
	return skb;
}

/* A dequeue program asks a class. If the program holds packets that it may put back, or has
 * delivered one, qlen is held above 0 meanwhile, for the reason in sch_bpf_class_enqueue().
 * No program runs for what the child gives the root: this run is not over.
 */
static bool sch_bpf_class_ask(struct sch_bpf_data *q)
{
	bool holds = q->run.ctx.skb || (q->run.state & SCH_BPF_RUN_OTHERS);

	if (unlikely(holds))
		qdisc_qlen_inc(sch_bpf_qdisc(q));
	q->passing = true;
	return holds;
}

static void sch_bpf_class_asked(struct sch_bpf_data *q, bool holds)
{
	struct Qdisc *sch = sch_bpf_qdisc(q);

	q->passing = false;
	if (likely(!holds))
		return;
	qdisc_qlen_dec(sch);
	if (!qdisc_qlen(sch))
		q->run.state |= SCH_BPF_RUN_EMPTIED;
}

static void sch_bpf_class_count_taken(struct Qdisc *sch, const struct sk_buff *skb)
{
	qdisc_qlen_dec(sch);
	qdisc_qstats_backlog_dec(sch, skb);
}

/* The qdisc of a class has given none: has it any? */
static int sch_bpf_class_gives_none(struct sch_bpf_data *q, const struct sch_bpf_class *cl)
{
	if (!qdisc_qlen(cl->qdisc))
		return -ENOENT;
	q->run.state |= SCH_BPF_RUN_WAITING;
	return -EAGAIN;
}

/**
 * sch_bpf_class_dequeue() - take a packet from a class
 * @q: the qdisc whose program asks
 * @classid: handle of the class
 *
 * Context: under the qdisc's root lock, bottom halves off.
 * Return: a packet, that is no longer counted in the qdisc; ERR_PTR(-ENOENT) if the
 * class has none or does not exist; ERR_PTR(-EAGAIN) if its qdisc holds them back.
 */
struct sk_buff *sch_bpf_class_dequeue(struct sch_bpf_data *q, u32 classid)
{
	struct Qdisc *sch = sch_bpf_qdisc(q);
	struct sch_bpf_class *cl = sch_bpf_class_find(sch, classid);
	struct sk_buff *skb;
	bool holds;

	if (!cl)
		return ERR_PTR(-ENOENT);
	holds = sch_bpf_class_ask(q);
	skb = sch_bpf_class_take(cl);
	sch_bpf_class_asked(q, holds);
	if (skb) {
		sch_bpf_class_count_taken(sch, skb);
		return skb;
	}
	return ERR_PTR(sch_bpf_class_gives_none(q, cl));
}

/**
 * sch_bpf_class_head() - look at the next packet of a class
 * @q: the qdisc whose program asks
 * @classid: handle of the class
 *
 * A program that has seen a packet which may leave does not wait for another class.
 *
 * Context: under the qdisc's root lock, bottom halves off.
 * Return: its length in bytes; -ENOENT if the class has none or does not exist; -EAGAIN
 * if its qdisc holds them back.
 */
int sch_bpf_class_head(struct sch_bpf_data *q, u32 classid)
{
	struct sch_bpf_class *cl = sch_bpf_class_find(sch_bpf_qdisc(q), classid);
	struct sk_buff *skb;
	bool holds;

	if (!cl)
		return -ENOENT;
	holds = sch_bpf_class_ask(q);
	/* Not peek(): that of etf shows a packet that it does not give yet. */
	skb = qdisc_peek_dequeued(cl->qdisc);
	sch_bpf_class_asked(q, holds);
	if (!skb)
		return sch_bpf_class_gives_none(q, cl);
	q->run.state |= SCH_BPF_RUN_READY;
	return qdisc_pkt_len(skb);
}

/**
 * sch_bpf_class_len() - how many packets a class has
 * @q: the qdisc whose program asks
 * @classid: handle of the class
 *
 * Context: under the qdisc's root lock, bottom halves off.
 * Return: packets; -ENOENT if there is no such class.
 */
int sch_bpf_class_len(struct sch_bpf_data *q, u32 classid)
{
	struct sch_bpf_class *cl = sch_bpf_class_find(sch_bpf_qdisc(q), classid);

	return cl ? qdisc_qlen(cl->qdisc) : -ENOENT;
}

/**
 * sch_bpf_class_dequeue_any() - take a packet from any class
 * @sch: a qdisc whose policy is stuck, or does not ask for what is in classes
 *
 * Context: under the qdisc's root lock, bottom halves off.
 * Return: a packet, that is no longer counted in the qdisc; NULL if no class has one
 * now.
 */
struct sk_buff *sch_bpf_class_dequeue_any(struct Qdisc *sch)
{
	struct sch_bpf_data *q = qdisc_priv(sch);
	struct sch_bpf_class *cl;
	struct sk_buff *skb;
	unsigned int i;

	for (i = 0; i < q->classes.hashsize; i++) {
		hlist_for_each_entry(cl, &q->classes.hash[i], common.hnode) {
			skb = qdisc_qlen(cl->qdisc) ? sch_bpf_class_take(cl) : NULL;
			if (skb) {
				sch_bpf_class_count_taken(sch, skb);
				qdisc_bstats_update(sch, skb);
				return skb;
			}
		}
	}
	return NULL;
}

static struct Qdisc *sch_bpf_class_default(struct Qdisc *sch, u32 classid)
{
	struct Qdisc *child = qdisc_create_dflt(sch->dev_queue, &pfifo_qdisc_ops,
						classid, NULL);

	if (child)
		qdisc_hash_add(child, true);
	return child;
}

static int sch_bpf_class_add(struct Qdisc *sch, u32 classid, struct nlattr *est,
			     unsigned long *arg, struct netlink_ext_ack *extack)
{
	struct sch_bpf_data *q = qdisc_priv(sch);
	struct sch_bpf_class *cl;
	int err;

	if (!TC_H_MIN(classid) || TC_H_MAJ(classid) != sch->handle) {
		NL_SET_ERR_MSG(extack, "A class has the major number of its qdisc and a minor one");
		return -EINVAL;
	}
	cl = kzalloc_obj(*cl);
	if (!cl)
		return -ENOMEM;

	gnet_stats_basic_sync_init(&cl->bstats);
	cl->common.classid = classid;
	cl->qdisc = sch_bpf_class_default(sch, classid);
	if (!cl->qdisc) {
		kfree(cl);
		return -ENOMEM;
	}
	if (est) {
		err = gen_new_estimator(&cl->bstats, NULL, &cl->rate_est, NULL, true, est);
		if (err) {
			NL_SET_ERR_MSG(extack, "Cannot set up the rate estimator");
			qdisc_put(cl->qdisc);
			kfree(cl);
			return err;
		}
	}

	sch_tree_lock(sch);
	qdisc_class_hash_insert(&q->classes, &cl->common);
	sch_tree_unlock(sch);
	qdisc_class_hash_grow(sch, &q->classes);
	*arg = (unsigned long)cl;
	return 0;
}

static int sch_bpf_class_change(struct Qdisc *sch, u32 classid, u32 parentid,
				struct nlattr **tca, unsigned long *arg,
				struct netlink_ext_ack *extack)
{
	struct sch_bpf_class *cl = (struct sch_bpf_class *)*arg;
	int err;

	if (parentid != TC_H_ROOT && TC_H_MIN(parentid)) {
		NL_SET_ERR_MSG(extack, "A class of the bpf qdisc has no classes below it");
		return -EINVAL;
	}
	if (tca[TCA_OPTIONS] && nla_len(tca[TCA_OPTIONS])) {
		NL_SET_ERR_MSG_ATTR(extack, tca[TCA_OPTIONS],
				    "A class of the bpf qdisc has no options");
		return -EINVAL;
	}
	if (!cl)
		return sch_bpf_class_add(sch, classid, tca[TCA_RATE], arg, extack);
	if (!tca[TCA_RATE])
		return 0;
	err = gen_replace_estimator(&cl->bstats, NULL, &cl->rate_est, NULL, true,
				    tca[TCA_RATE]);
	if (err)
		NL_SET_ERR_MSG(extack, "Cannot set up the rate estimator");
	return err;
}

static void sch_bpf_class_free(struct sch_bpf_class *cl)
{
	gen_kill_estimator(&cl->rate_est);
	qdisc_put(cl->qdisc);
	kfree(cl);
}

static int sch_bpf_class_delete(struct Qdisc *sch, unsigned long arg,
				struct netlink_ext_ack *extack)
{
	struct sch_bpf_class *cl = (struct sch_bpf_class *)arg;
	struct sch_bpf_data *q = qdisc_priv(sch);

	if (qdisc_class_in_use(&cl->common)) {
		NL_SET_ERR_MSG(extack, "A filter refers to the class");
		return -EBUSY;
	}

	sch_tree_lock(sch);
	qdisc_purge_queue(cl->qdisc);
	qdisc_class_hash_remove(&q->classes, &cl->common);
	sch_tree_unlock(sch);
	sch_bpf_class_free(cl);
	return 0;
}

static unsigned long sch_bpf_class_search(struct Qdisc *sch, u32 classid)
{
	return (unsigned long)sch_bpf_class_find(sch, classid);
}

static struct tcf_block *sch_bpf_tcf_block(struct Qdisc *sch, unsigned long arg,
					   struct netlink_ext_ack *extack)
{
	struct sch_bpf_data *q = qdisc_priv(sch);

	if (arg) {
		NL_SET_ERR_MSG(extack, "Filters are on the qdisc, not on its classes");
		return NULL;
	}
	return q->block;
}

static unsigned long sch_bpf_class_bind(struct Qdisc *sch, unsigned long parent, u32 classid)
{
	struct sch_bpf_class *cl = sch_bpf_class_find(sch, classid);

	if (cl)
		qdisc_class_get(&cl->common);
	return (unsigned long)cl;
}

static void sch_bpf_class_unbind(struct Qdisc *sch, unsigned long arg)
{
	struct sch_bpf_class *cl = (struct sch_bpf_class *)arg;

	qdisc_class_put(&cl->common);
}

static int sch_bpf_class_graft(struct Qdisc *sch, unsigned long arg, struct Qdisc *new,
			       struct Qdisc **old, struct netlink_ext_ack *extack)
{
	struct sch_bpf_class *cl = (struct sch_bpf_class *)arg;

	if (!new)
		new = sch_bpf_class_default(sch, cl->common.classid);
	if (!new)
		return -ENOMEM;
	*old = qdisc_replace(sch, new, &cl->qdisc);
	return 0;
}

static struct Qdisc *sch_bpf_class_leaf(struct Qdisc *sch, unsigned long arg)
{
	return ((struct sch_bpf_class *)arg)->qdisc;
}

static int sch_bpf_class_dump(struct Qdisc *sch, unsigned long arg,
			      struct sk_buff *skb, struct tcmsg *tcm)
{
	struct sch_bpf_class *cl = (struct sch_bpf_class *)arg;

	tcm->tcm_parent = TC_H_ROOT;
	tcm->tcm_handle = cl->common.classid;
	tcm->tcm_info = cl->qdisc->handle;
	return 0;
}

static int sch_bpf_class_dump_stats(struct Qdisc *sch, unsigned long arg, struct gnet_dump *d)
{
	struct sch_bpf_class *cl = (struct sch_bpf_class *)arg;

	if (gnet_stats_copy_basic(d, NULL, &cl->bstats, true) < 0 ||
	    gnet_stats_copy_rate_est(d, &cl->rate_est) < 0 ||
	    qdisc_qstats_copy(d, cl->qdisc) < 0)
		return -1;
	return 0;
}

static void sch_bpf_class_walk(struct Qdisc *sch, struct qdisc_walker *arg)
{
	struct sch_bpf_data *q = qdisc_priv(sch);
	struct sch_bpf_class *cl;
	unsigned int i;

	if (arg->stop)
		return;
	for (i = 0; i < q->classes.hashsize; i++)
		hlist_for_each_entry(cl, &q->classes.hash[i], common.hnode)
			if (!tc_qdisc_stats_dump(sch, (unsigned long)cl, arg))
				return;
}

/* The first filter of the qdisc is another one now, or there is none any more. Packets
 * must not pass by a filter that is there: bpf_qdisc_bypass() looks at filter_list under
 * the lock that is taken here, so what it has set before is cleared, and it sets nothing
 * afterwards.
 */
static void sch_bpf_filters_changed(struct tcf_proto *first, void *priv)
{
	struct Qdisc *sch = priv;
	struct sch_bpf_data *q = qdisc_priv(sch);

	rcu_assign_pointer(q->filter_list, first);
	sch_tree_lock(sch);
	sch->flags &= ~TCQ_F_CAN_BYPASS;
	sch_tree_unlock(sch);
}

/**
 * sch_bpf_class_init() - set up filters and classes
 * @sch: the qdisc
 * @opt: its netlink options
 * @extack: for the reason of a failure
 *
 * sch_bpf_class_destroy() is called for the qdisc also after a failure.
 *
 * Context: process, under RTNL.
 * Return: 0 or a negative errno.
 */
int sch_bpf_class_init(struct Qdisc *sch, struct nlattr *opt, struct netlink_ext_ack *extack)
{
	struct tcf_block_ext_info ei = {
		.chain_head_change	= sch_bpf_filters_changed,
		.chain_head_change_priv	= sch,
	};
	struct sch_bpf_data *q = qdisc_priv(sch);
	int err;

	err = tcf_block_get_ext(&q->block, sch, &ei, extack);
	if (err)
		return err;
	return qdisc_class_hash_init(&q->classes);
}

/**
 * sch_bpf_class_reset() - drop the packets of all classes
 * @sch: the qdisc
 *
 * Context: as a qdisc's reset.
 */
void sch_bpf_class_reset(struct Qdisc *sch)
{
	struct sch_bpf_data *q = qdisc_priv(sch);
	struct sch_bpf_class *cl;
	unsigned int i;

	for (i = 0; i < q->classes.hashsize; i++)
		hlist_for_each_entry(cl, &q->classes.hash[i], common.hnode)
			qdisc_reset(cl->qdisc);
}

/**
 * sch_bpf_class_purge() - drop the packets of all classes, and tell the parents
 * @sch: the qdisc
 *
 * Context: under the tree lock.
 */
void sch_bpf_class_purge(struct Qdisc *sch)
{
	struct sch_bpf_data *q = qdisc_priv(sch);
	struct sch_bpf_class *cl;
	unsigned int i;

	for (i = 0; i < q->classes.hashsize; i++)
		hlist_for_each_entry(cl, &q->classes.hash[i], common.hnode)
			qdisc_purge_queue(cl->qdisc);	/* counts them as dropped here, too */
}

/**
 * sch_bpf_class_has_packets() - does any class have packets?
 * @sch: the qdisc
 *
 * Context: under the qdisc's root lock, bottom halves off.
 * Return: true if the qdisc of a class has.
 */
bool sch_bpf_class_has_packets(struct Qdisc *sch)
{
	struct sch_bpf_data *q = qdisc_priv(sch);
	struct sch_bpf_class *cl;
	unsigned int i;

	for (i = 0; i < q->classes.hashsize; i++)
		hlist_for_each_entry(cl, &q->classes.hash[i], common.hnode)
			if (qdisc_qlen(cl->qdisc))
				return true;
	return false;
}

/**
 * sch_bpf_class_destroy() - remove filters and classes
 * @sch: the qdisc, also one whose init has failed
 *
 * Context: process, under RTNL.
 */
void sch_bpf_class_destroy(struct Qdisc *sch)
{
	struct sch_bpf_data *q = qdisc_priv(sch);
	struct sch_bpf_class *cl;
	struct hlist_node *next;
	unsigned int i;

	tcf_block_put(q->block);
	for (i = 0; i < q->classes.hashsize; i++) {
		hlist_for_each_entry_safe(cl, next, &q->classes.hash[i], common.hnode) {
			qdisc_class_hash_remove(&q->classes, &cl->common);
			sch_bpf_class_free(cl);
		}
	}
	qdisc_class_hash_destroy(&q->classes);
}

const struct Qdisc_class_ops sch_bpf_class_ops = {
	.find		= sch_bpf_class_search,
	.change		= sch_bpf_class_change,
	.delete		= sch_bpf_class_delete,
	.tcf_block	= sch_bpf_tcf_block,
	.bind_tcf	= sch_bpf_class_bind,
	.unbind_tcf	= sch_bpf_class_unbind,
	.graft		= sch_bpf_class_graft,
	.leaf		= sch_bpf_class_leaf,
	.dump		= sch_bpf_class_dump,
	.dump_stats	= sch_bpf_class_dump_stats,
	.walk		= sch_bpf_class_walk,
};
