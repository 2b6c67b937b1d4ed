// SPDX-License-Identifier: GPL-2.0
/* The qdisc "bpf_mq": one instance of "bpf" for each tx queue
 *
 * All instances run the same two programs; each has its own lock and, as a map of
 * packets belongs to one qdisc, its own maps: the programs find them in an array of
 * maps by ctx->queue. Other maps are shared, for what one policy decides for all
 * queues. The instances are made, changed and removed together.
 */
#include <linux/bpf.h>
#include <linux/module.h>
#include <linux/netdevice.h>
#include <net/sch_priv.h>
#include "sch_bpf.h"

struct sch_bpf_mq {
	struct mq_sched mq;		/* must be first */
	struct sch_bpf_config cfg;	/* to show */
};

static struct Qdisc *sch_bpf_mq_child(struct Qdisc *sch, unsigned int queue)
{
	return rtnl_dereference(netdev_get_tx_queue(qdisc_dev(sch), queue)->qdisc_sleeping);
}

static int sch_bpf_mq_init(struct Qdisc *sch, struct nlattr *opt,
			   struct netlink_ext_ack *extack)
{
	struct sch_bpf_mq *priv = qdisc_priv(sch);
	unsigned int i;
	int err;

	if (sch->parent != TC_H_ROOT || !netif_is_multiqueue(qdisc_dev(sch))) {
		NL_SET_ERR_MSG(extack, "bpf_mq is the root of a device with several tx queues");
		return -EOPNOTSUPP;
	}
	err = sch_bpf_config_parse(&priv->cfg, opt, true, extack);
	if (err)
		return err;
	priv->cfg.flags = 0;	/* for this time only, and there is nothing to flush */

	err = mq_init_common(sch, opt, extack, &sch_bpf_queue_ops);
	if (err)
		return err;
	for (i = 0; i < qdisc_dev(sch)->num_tx_queues; i++) {
		struct sch_bpf_config cfg = priv->cfg;

		sch_bpf_config_get(&cfg);
		sch_bpf_config_swap(priv->mq.qdiscs[i], &cfg);
	}
	return 0;
}

static void sch_bpf_mq_destroy(struct Qdisc *sch)
{
	struct sch_bpf_mq *priv = qdisc_priv(sch);

	mq_destroy_common(sch);
	sch_bpf_config_put(&priv->cfg);
}

static int sch_bpf_mq_change_one(struct Qdisc *child, const struct sch_bpf_config *cfg,
				 u32 flags, struct netlink_ext_ack *extack)
{
	struct sch_bpf_config one = *cfg;
	int err;

	one.flags |= flags;
	sch_bpf_config_get(&one);
	err = sch_bpf_config_change(child, &one, false, extack);
	sch_bpf_config_put(&one);
	return err;
}

static int sch_bpf_mq_change(struct Qdisc *sch, struct nlattr *opt,
			     struct netlink_ext_ack *extack)
{
	struct sch_bpf_mq *priv = qdisc_priv(sch);
	unsigned int i, n = qdisc_dev(sch)->num_tx_queues;
	struct sch_bpf_config cfg;
	int err;

	if (!opt)
		return 0;
	err = sch_bpf_config_parse(&cfg, opt, false, extack);
	if (err)
		return err;

	for (i = 0; i < n && !err; i++)
		err = sch_bpf_config_change(sch_bpf_mq_child(sch, i), &cfg, true, extack);
	if (err)
		goto out;

	/* Packets that come meanwhile can make it fail after all. */
	for (i = 0; i < n && !err; i++)
		err = sch_bpf_mq_change_one(sch_bpf_mq_child(sch, i), &cfg, 0, extack);
	if (err) {
		/* What the new programs have stored by now the old ones may not
		 * reach. Those few packets are dropped, rather than a part of
		 * the queues left with other programs.
		 */
		for (i--; i--; ) {
			struct Qdisc *child = sch_bpf_mq_child(sch, i);

			if (sch_bpf_mq_change_one(child, &priv->cfg, 0, NULL))
				sch_bpf_mq_change_one(child, &priv->cfg, SCH_BPF_FLUSH, NULL);
		}
		goto out;
	}

	if (cfg.limit)
		priv->cfg.limit = cfg.limit;
	if (cfg.horizon)
		priv->cfg.horizon = cfg.horizon;
	if (cfg.patience)
		priv->cfg.patience = cfg.patience;
	if (cfg.enqueue) {
		swap(priv->cfg.enqueue, cfg.enqueue);
		swap(priv->cfg.dequeue, cfg.dequeue);
		memcpy(priv->cfg.object, cfg.object, sizeof(cfg.object));
	}
out:
	sch_bpf_config_put(&cfg);
	return err;
}

static int sch_bpf_mq_dump(struct Qdisc *sch, struct sk_buff *skb)
{
	struct sch_bpf_mq *priv = qdisc_priv(sch);

	mq_dump_common(sch, skb);
	return sch_bpf_config_dump(&priv->cfg, skb);
}

static int sch_bpf_mq_graft(struct Qdisc *sch, unsigned long cl, struct Qdisc *new,
			    struct Qdisc **old, struct netlink_ext_ack *extack)
{
	NL_SET_ERR_MSG(extack, "The instances of bpf_mq are changed together");
	return -EOPNOTSUPP;
}

static const struct Qdisc_class_ops sch_bpf_mq_class_ops = {
	.select_queue	= mq_select_queue,
	.graft		= sch_bpf_mq_graft,
	.leaf		= mq_leaf,
	.find		= mq_find,
	.walk		= mq_walk,
	.dump		= mq_dump_class,
	.dump_stats	= mq_dump_class_stats,
};

static struct Qdisc_ops sch_bpf_mq_qdisc_ops __read_mostly = {
	.id			= "bpf_mq",
	.static_flags		= TCQ_F_NO_DEFAULT,
	.cl_ops			= &sch_bpf_mq_class_ops,
	.priv_size		= sizeof(struct sch_bpf_mq),
	.init			= sch_bpf_mq_init,
	.destroy		= sch_bpf_mq_destroy,
	.attach			= mq_attach,
	.change			= sch_bpf_mq_change,
	.change_real_num_tx	= mq_change_real_num_tx,
	.dump			= sch_bpf_mq_dump,
	.owner			= THIS_MODULE,
};

static int __init sch_bpf_mq_module_init(void)
{
	return register_qdisc(&sch_bpf_mq_qdisc_ops);
}
device_initcall(sch_bpf_mq_module_init);
