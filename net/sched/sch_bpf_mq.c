// SPDX-License-Identifier: GPL-2.0
/* The qdisc "bpf_mq": one instance of "bpf" for each tx queue
 *
 * All instances run the same two programs; each has its own lock and, as a map of
 * packets belongs to one qdisc, its own maps: the programs find them in an array of
 * maps by ctx->queue, and programs that name one are refused. Other maps are shared,
 * for what one policy decides for all queues. The instances are made, changed and
 * removed together. Each has a handle, by which it gets classes and filters of its own.
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

/* The only map of packets for all instances would take those of one and refuse those
 * of all others.
 */
static int sch_bpf_mq_check_maps(struct bpf_prog_aux *aux, struct netlink_ext_ack *extack)
{
	int err = 0;
	u32 i;

	mutex_lock(&aux->used_maps_mutex);
	for (i = 0; i < aux->used_map_cnt && !err; i++) {
		if (!bpf_rbtree_holds_packets(aux->used_maps[i]))
			continue;
		NL_SET_ERR_MSG_FMT(extack, "Map '%s' holds packets: each tx queue needs its own",
				   aux->used_maps[i]->name);
		err = -EINVAL;
	}
	mutex_unlock(&aux->used_maps_mutex);
	return err;
}

static int sch_bpf_mq_parse(struct sch_bpf_config *cfg, struct nlattr *opt, bool create,
			    struct netlink_ext_ack *extack)
{
	int err;

	err = sch_bpf_config_parse(cfg, opt, create, extack);
	if (err || !cfg->enqueue)
		return err;
	err = sch_bpf_mq_check_maps(cfg->enqueue->aux, extack) ?:
	      sch_bpf_mq_check_maps(cfg->dequeue->aux, extack);
	if (err) {
		sch_bpf_config_put(cfg);
		memset(cfg, 0, sizeof(*cfg));	/* destroy() puts it too */
	}
	return err;
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
	err = sch_bpf_mq_parse(&priv->cfg, opt, true, extack);
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

/* mq_attach() makes the instances known, by their handles. */
static void sch_bpf_mq_attach(struct Qdisc *sch)
{
	struct sch_bpf_mq *priv = qdisc_priv(sch);
	unsigned int i;

	for (i = 0; i < qdisc_dev(sch)->num_tx_queues; i++)
		priv->mq.qdiscs[i]->handle = qdisc_alloc_handle(qdisc_dev(sch));
	mq_attach(sch);
}

static void sch_bpf_mq_destroy(struct Qdisc *sch)
{
	struct sch_bpf_mq *priv = qdisc_priv(sch);

	mq_destroy_common(sch);
	sch_bpf_config_put(&priv->cfg);
}

/* The first queues have been changed, and are to be as they were. What the new programs
 * have stored by now the old ones may not reach.
 */
static void sch_bpf_mq_roll_back(struct Qdisc *sch, unsigned int changed)
{
	struct sch_bpf_mq *priv = qdisc_priv(sch);
	enum sch_bpf_how how = SCH_BPF_FORCE;
	unsigned int i;

	if (sch_bpf_reach_begin(&priv->cfg))
		how = SCH_BPF_FORCE_ALL;
	for (i = 0; i < changed; i++)
		sch_bpf_config_change(sch_bpf_mq_child(sch, i), &priv->cfg, how, NULL);
	if (how == SCH_BPF_FORCE)
		sch_bpf_reach_end(&priv->cfg);
}

static int sch_bpf_mq_change(struct Qdisc *sch, struct nlattr *opt,
			     struct netlink_ext_ack *extack)
{
	struct sch_bpf_mq *priv = qdisc_priv(sch);
	unsigned int i, changed = 0, n = qdisc_dev(sch)->num_tx_queues;
	struct sch_bpf_config cfg;
	int err;

	if (!opt)
		return 0;
	err = sch_bpf_mq_parse(&cfg, opt, false, extack);
	if (err)
		return err;

	err = sch_bpf_reach_begin(&cfg);
	if (err)
		goto out;
	for (i = 0; i < n && !err; i++)
		err = sch_bpf_config_change(sch_bpf_mq_child(sch, i), &cfg, SCH_BPF_TRY, extack);
	/* Packets that come meanwhile can make it fail after all. */
	for (; changed < n && !err; changed += !err)
		err = sch_bpf_config_change(sch_bpf_mq_child(sch, changed), &cfg,
					    SCH_BPF_CHANGE, extack);
	sch_bpf_reach_end(&cfg);
	if (err) {
		sch_bpf_mq_roll_back(sch, changed);
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
	.attach			= sch_bpf_mq_attach,
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
