// SPDX-License-Identifier: GPL-2.0
/* bpf_skb_tc_classify(): run TC filters that exist already
 *
 * Filters see a clone of the packet, with its socket. The program owns the packet, and may hold
 * pointers into its bytes: an action that keeps it (act_ct) or moves its bytes
 * (act_pedit, act_vlan) must not do so to the packet itself. Of what the actions of
 * the qdisc's own filters edit, mark, priority and tx queue are taken over; a tx queue
 * only if a program may choose it (sch_bpf_set_queue()).
 *
 * Both run under the root lock of this qdisc. To send a packet to another device
 * from here could need this very lock again (a VLAN of the same device), so
 * act_mirred, and bpf_clone_redirect(), are told that they are nested as deep as
 * they may be: they refuse.
 */
#include <linux/bpf.h>
#include <linux/btf.h>
#include <linux/bpf_mprog.h>
#include <linux/netdevice.h>
#include <linux/skbuff.h>
#include <net/inet_sock.h>
#include <net/pkt_cls.h>
#include <net/tcx.h>
#include "sch_bpf_priv.h"

static struct netdev_xmit *sch_bpf_xmit_state(void)
{
#ifdef CONFIG_PREEMPT_RT
	return &current->net_xmit;
#else
	return this_cpu_ptr(&softnet_data.xmit);
#endif
}

static int sch_bpf_run_filters(struct sk_buff *skb, const struct tcf_proto *tp,
			       struct tcf_result *res)
{
	struct netdev_xmit *xmit = sch_bpf_xmit_state();
	u16 recursion = xmit->recursion;
	int act;
#if IS_ENABLED(CONFIG_NET_ACT_MIRRED)
	u8 nest = xmit->sched_mirred_nest;

	xmit->sched_mirred_nest = MIRRED_NEST_LIMIT;
#endif
	xmit->recursion = XMIT_RECURSION_LIMIT + 1;
	act = tcf_classify_qdisc(skb, tp, res, false);
	xmit->recursion = recursion;
#if IS_ENABLED(CONFIG_NET_ACT_MIRRED)
	xmit->sched_mirred_nest = nest;
#endif
	return act;
}

/* The clone has the packet's socket, or, for a request socket, that of its listener: filters
 * may ask for its cgroup, its cookie or its owner.
 */
static struct sk_buff *sch_bpf_clone(struct sk_buff *skb)
{
	struct sk_buff *clone = skb_clone(skb, GFP_ATOMIC);
	struct sock *sk = skb_to_full_sk(skb);

	if (clone && sk && sk_fullsock(sk) && refcount_inc_not_zero(&sk->sk_refcnt)) {
		clone->sk = sk;
		clone->destructor = sock_efree;
	}
	return clone;
}

static int sch_bpf_run_on_clone(struct Qdisc *sch, struct sk_buff *skb,
				const struct tcf_proto *tp, struct tcf_result *res, bool own)
{
	struct sk_buff *clone;
	int act;

	if (!tp)
		return TC_ACT_UNSPEC;
	clone = sch_bpf_clone(skb);
	if (!clone)
		return -ENOMEM;
	act = sch_bpf_run_filters(clone, tp, res);
	if (act == TC_ACT_CONSUMED)
		return TC_ACT_STOLEN;
	if (own) {
		skb->mark = clone->mark;
		skb->priority = clone->priority;
		if (skb_get_queue_mapping(skb) != skb_get_queue_mapping(clone))
			sch_bpf_set_queue(sch, skb, skb_get_queue_mapping(clone));
	}
	consume_skb(clone);
	return act;
}

/* The filters that a handle names on a device, or an error. Under RCU. */
static const struct tcf_proto *sch_bpf_find_filters(struct net_device *dev, u32 handle)
{
	const struct Qdisc_class_ops *cops;
	struct bpf_mprog_entry *entry;
	struct mini_Qdisc *miniq;
	struct tcf_block *block;
	struct tcf_chain *chain;
	struct Qdisc *sch;

	if (TC_H_MAJ(handle) == TC_H_MAJ(TC_H_CLSACT)) {
		if (TC_H_MIN(handle) == TC_H_MIN_INGRESS)
			entry = rcu_dereference_bh(dev->tcx_ingress);
		else if (TC_H_MIN(handle) == TC_H_MIN_EGRESS)
			entry = rcu_dereference_bh(dev->tcx_egress);
		else
			return ERR_PTR(-EINVAL);
		miniq = entry ? rcu_dereference_bh(tcx_entry(entry)->miniq) : NULL;
		if (miniq)
			return miniq->filter_list;
		/* A direction without filters has none, one without clsact no count. */
		return entry && data_race(tcx_entry(entry)->miniq_active) ? NULL : ERR_PTR(-ENOENT);
	}

	sch = qdisc_lookup_rcu(dev, TC_H_MAJ(handle));
	if (!sch)
		return ERR_PTR(-ENOENT);
	cops = sch->ops->cl_ops;
	block = cops && cops->tcf_block ? cops->tcf_block(sch, 0, NULL) : NULL;
	if (!block)
		return ERR_PTR(-EOPNOTSUPP);
	/* Not by chain0, which is not published for readers without RTNL */
	list_for_each_entry_rcu(chain, &block->chain_list, list) {
		if (!chain->index)
			return rcu_dereference_bh(chain->filter_chain);
	}
	return NULL;
}

__bpf_kfunc_start_defs();

/**
 * bpf_skb_tc_classify() - run the TC filters of a qdisc on a packet
 * @ctx: context of the program; ctx->classid is set if a filter matches
 * @skb: the packet, which stays the program's
 * @ifindex: device of the qdisc whose filters to run; 0 for the program's own
 * @handle: handle of that qdisc; with the minor number ffff:fff2 or ffff:fff3 a
 *          direction of clsact; 0 for the program's own qdisc
 *
 * The filters see a clone, with the packet's socket; mark, priority and tx queue as the own qdisc's
 * filters leave them are taken over, but for a tx queue that bpf_qdisc_set_queue() would refuse.
 * Redirects and mirrors to a device are refused, with TC_ACT_SHOT.
 *
 * Context: enqueue programs, under the qdisc's root lock, bottom halves off.
 * Return: TC_ACT_UNSPEC if no filter matches; the matching filter's verdict,
 * TC_ACT_OK, SHOT, STOLEN and so on: it is for the program to act on it; -ENODEV
 * without such a device in the namespace, -ENOENT without such a qdisc,
 * -EOPNOTSUPP if it can have no filters, -EINVAL for another minor of clsact, -ENOMEM.
 */
__bpf_kfunc int bpf_skb_tc_classify(struct sch_bpf_ctx *ctx, struct sk_buff *skb,
				    int ifindex, u32 handle)
{
	struct sch_bpf_data *q = sch_bpf_data(ctx);
	struct Qdisc *sch = sch_bpf_qdisc(q);
	struct net_device *dev = qdisc_dev(sch);
	const struct tcf_proto *tp;
	struct tcf_result res = {};
	int act;

	rcu_read_lock();
	if (ifindex && ifindex != dev->ifindex) {
		dev = dev_get_by_index_rcu(dev_net(dev), ifindex);
		if (!dev) {
			act = -ENODEV;
			goto out;
		}
	} else if (!handle || handle == sch->handle) {
		tp = rcu_dereference_bh(q->filter_list);
		act = sch_bpf_run_on_clone(sch, skb, tp, &res, true);
		goto out;
	}

	tp = sch_bpf_find_filters(dev, handle);
	act = IS_ERR(tp) ? PTR_ERR(tp) : sch_bpf_run_on_clone(sch, skb, tp, &res, false);
out:
	rcu_read_unlock();
	if (act >= 0)
		ctx->classid = res.classid;
	return act;
}

__bpf_kfunc_end_defs();
