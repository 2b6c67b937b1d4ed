// SPDX-License-Identifier: GPL-2.0
/* The qdisc "bpf_mq": one instance of "bpf" for each tx queue
 *
 * Each instance has its own lock and, as a map of packets belongs to one qdisc, its own
 * maps of packets. There are two ways to that. Programs that find such a map in an array
 * of maps by ctx->queue are given once, for all queues, and share all other maps.
 * Programs that name one are loaded once for each queue in use, and a pair is given for
 * each. Other maps these share or not, as whoever has loaded them wanted.
 *
 * A queue that is announced, but not in use, has no programs then: the instance serves a
 * FIFO if it is put in use, until a change gives programs to all. So no packet is lost,
 * and memory grows with the queues in use.
 *
 * The instances are made, changed and removed together. Each has a handle, by which it
 * gets classes and filters of its own.
 */
#include <linux/bpf.h>
#include <linux/module.h>
#include <linux/netdevice.h>
#include <net/sch_priv.h>
#include "sch_bpf_priv.h"

struct sch_bpf_mq {
	struct mq_sched mq;		/* must be first */
	struct sch_bpf_config cfg;	/* to show, with the programs of the first queue */
	unsigned int queues;		/* so many have programs of their own; 0: all the same */
};

/* The programs of a tx queue, with a reference on each: none if NULL. */
struct sch_bpf_pair {
	struct bpf_prog *enqueue;
	struct bpf_prog *dequeue;
};

/* What a netlink message asks for */
struct sch_bpf_mq_request {
	struct sch_bpf_config cfg;	/* the programs apart */
	struct sch_bpf_pair *pair;	/* for each queue; or NULL: no programs are given */
	unsigned int queues;		/* as in struct sch_bpf_mq */
};

static struct Qdisc *sch_bpf_mq_child(struct Qdisc *sch, unsigned int queue)
{
	return rtnl_dereference(netdev_get_tx_queue(qdisc_dev(sch), queue)->qdisc_sleeping);
}

static void sch_bpf_mq_put(struct Qdisc *sch, struct sch_bpf_mq_request *req)
{
	unsigned int i;

	for (i = 0; req->pair && i < qdisc_dev(sch)->num_tx_queues; i++) {
		if (!req->pair[i].enqueue)
			continue;
		bpf_prog_put(req->pair[i].enqueue);
		bpf_prog_put(req->pair[i].dequeue);
	}
	kvfree(req->pair);
}

/* A map of packets for two instances would take those of one and refuse those of the
 * other. Returns whether the program names any. Marks of the request are higher than
 * @before, the pair's is @mark.
 */
static int sch_bpf_mq_check_maps(struct bpf_prog_aux *aux, u64 before, u64 mark, bool for_all,
				 struct netlink_ext_ack *extack)
{
	struct bpf_map *map;
	int ret = 0;
	u64 last;
	u32 i;

	mutex_lock(&aux->used_maps_mutex);
	for (i = 0; i < aux->used_map_cnt && ret >= 0; i++) {
		map = aux->used_maps[i];
		if (!bpf_rbtree_holds_packets(map))
			continue;
		ret = 1;
		last = bpf_rbtree_mark(map, mark);
		if (!for_all && (last <= before || last == mark))
			continue;
		NL_SET_ERR_MSG_FMT(extack, "Map '%s' holds packets: each tx queue needs its own",
				   map->name);
		ret = -EINVAL;
	}
	mutex_unlock(&aux->used_maps_mutex);
	return ret;
}

static int sch_bpf_mq_check_pair(const struct sch_bpf_pair *pair, u64 before, bool for_all,
				 struct netlink_ext_ack *extack)
{
	u64 mark = sch_bpf_new_mark();
	int enqueue, dequeue;

	enqueue = sch_bpf_mq_check_maps(pair->enqueue->aux, before, mark, for_all, extack);
	if (enqueue < 0)
		return enqueue;
	dequeue = sch_bpf_mq_check_maps(pair->dequeue->aux, before, mark, for_all, extack);
	return dequeue < 0 ? dequeue : enqueue | dequeue;
}

/* The pairs of a message; one, unless it names a map of packets, is for all queues. */
static int sch_bpf_mq_get_pairs(struct Qdisc *sch, struct sch_bpf_mq_request *req,
				const struct sch_bpf_fds *fds, struct netlink_ext_ack *extack)
{
	unsigned int used = qdisc_dev(sch)->real_num_tx_queues, i;
	u64 before = sch_bpf_new_mark();
	bool names = false;
	int ret;

	if (fds->pairs != 1 && fds->pairs != used) {
		NL_SET_ERR_MSG_FMT(extack, "%u pairs of programs, but %u tx queues are in use",
				   fds->pairs, used);
		return -EINVAL;
	}
	req->pair = kvcalloc(qdisc_dev(sch)->num_tx_queues, sizeof(*req->pair), GFP_KERNEL);
	if (!req->pair)
		return -ENOMEM;

	for (i = 0; i < fds->pairs; i++) {
		struct sch_bpf_config cfg;

		ret = sch_bpf_config_get_progs(&cfg, fds, i, extack);
		if (ret)
			return ret;
		req->pair[i].enqueue = cfg.enqueue;
		req->pair[i].dequeue = cfg.dequeue;
		ret = sch_bpf_mq_check_pair(&req->pair[i], before, fds->pairs < used, extack);
		if (ret < 0)
			return ret;
		names |= ret;
	}
	if (fds->pairs > 1 || names) {
		req->queues = fds->pairs;
		return 0;
	}
	for (i = 1; i < qdisc_dev(sch)->num_tx_queues; i++) {
		bpf_prog_inc(req->pair[0].enqueue);
		bpf_prog_inc(req->pair[0].dequeue);
		req->pair[i] = req->pair[0];
	}
	return 0;
}

static int sch_bpf_mq_parse(struct Qdisc *sch, struct sch_bpf_mq_request *req,
			    struct nlattr *opt, bool create, struct netlink_ext_ack *extack)
{
	struct sch_bpf_fds fds;
	int err;

	memset(req, 0, sizeof(*req));
	err = sch_bpf_config_parse(&req->cfg, &fds, opt, create, extack);
	if (err || !fds.pairs)
		return err;
	err = sch_bpf_mq_get_pairs(sch, req, &fds, extack);
	if (err)
		sch_bpf_mq_put(sch, req);
	return err;
}

/* What one queue is given, with the references on its programs; sch_bpf_mq_took() takes
 * back what it leaves of them, or those that were in force.
 */
static struct sch_bpf_config sch_bpf_mq_give(const struct sch_bpf_mq_request *req, unsigned int i)
{
	struct sch_bpf_config cfg = req->cfg;

	if (req->pair) {
		cfg.enqueue = req->pair[i].enqueue;
		cfg.dequeue = req->pair[i].dequeue;
	}
	return cfg;
}

static void sch_bpf_mq_took(struct sch_bpf_mq_request *req, unsigned int i,
			    const struct sch_bpf_config *cfg)
{
	if (req->pair) {
		req->pair[i].enqueue = cfg->enqueue;
		req->pair[i].dequeue = cfg->dequeue;
	}
}

/* From now on this is what is shown. */
static void sch_bpf_mq_show(struct sch_bpf_mq *priv, const struct sch_bpf_mq_request *req,
			    const struct sch_bpf_pair *first)
{
	if (req->cfg.limit)
		priv->cfg.limit = req->cfg.limit;
	if (req->cfg.horizon)
		priv->cfg.horizon = req->cfg.horizon;
	if (req->cfg.patience)
		priv->cfg.patience = req->cfg.patience;
	if (!req->pair)
		return;
	sch_bpf_config_put(&priv->cfg);
	priv->cfg.progs = true;
	priv->cfg.enqueue = first->enqueue;
	priv->cfg.dequeue = first->dequeue;
	if (first->enqueue)
		bpf_prog_inc(first->enqueue);
	if (first->dequeue)
		bpf_prog_inc(first->dequeue);
	memcpy(priv->cfg.object, req->cfg.object, sizeof(priv->cfg.object));
	priv->queues = req->queues;
}

static int sch_bpf_mq_init(struct Qdisc *sch, struct nlattr *opt,
			   struct netlink_ext_ack *extack)
{
	struct sch_bpf_mq *priv = qdisc_priv(sch);
	struct sch_bpf_mq_request req;
	unsigned int i;
	int err;

	if (sch->parent != TC_H_ROOT || !netif_is_multiqueue(qdisc_dev(sch))) {
		NL_SET_ERR_MSG(extack, "bpf_mq is the root of a device with several tx queues");
		return -EOPNOTSUPP;
	}
	if (rcu_access_pointer(sch->stab)) {
		NL_SET_ERR_MSG(extack, "bpf_mq has no size table: its instances take the packets");
		return -EOPNOTSUPP;
	}
	err = sch_bpf_mq_parse(sch, &req, opt, true, extack);
	if (err)
		return err;

	err = mq_init_common(sch, opt, extack, &sch_bpf_queue_ops);
	if (err)
		goto out;
	sch_bpf_mq_show(priv, &req, &req.pair[0]);
	for (i = 0; i < qdisc_dev(sch)->num_tx_queues; i++) {
		struct sch_bpf_config cfg = sch_bpf_mq_give(&req, i);

		sch_bpf_maps(priv->mq.qdiscs[i], cfg.enqueue, cfg.dequeue, bpf_rbtree_use);
		sch_bpf_config_swap(priv->mq.qdiscs[i], &cfg);
		sch_bpf_mq_took(&req, i, &cfg);
	}
out:
	sch_bpf_mq_put(sch, &req);
	return err;
}

/* mq_attach() makes the instances of queues in use known, by their handles. */
static void sch_bpf_mq_attach(struct Qdisc *sch)
{
	struct sch_bpf_mq *priv = qdisc_priv(sch);
	unsigned int i;

	for (i = 0; i < qdisc_dev(sch)->real_num_tx_queues; i++)
		priv->mq.qdiscs[i]->handle = qdisc_alloc_handle(qdisc_dev(sch));
	mq_attach(sch);
}

static void sch_bpf_mq_destroy(struct Qdisc *sch)
{
	struct sch_bpf_mq *priv = qdisc_priv(sch);

	mq_destroy_common(sch);
	sch_bpf_config_put(&priv->cfg);
}

/* Change the first @n queues, or until it fails. Returns how many were changed. Queues
 * with the same programs, one after the other, reach the same.
 */
static unsigned int sch_bpf_mq_change_queues(struct Qdisc *sch, struct sch_bpf_mq_request *req,
					     unsigned int n, enum sch_bpf_how how, int *err,
					     struct netlink_ext_ack *extack)
{
	const struct bpf_prog *reached = NULL, *to_reach;
	unsigned int i;

	*err = 0;
	for (i = 0; i < n; i++) {
		struct sch_bpf_config cfg = sch_bpf_mq_give(req, i);
		enum sch_bpf_how this = how;

		to_reach = sch_bpf_reached_by(&cfg);
		if (reached != to_reach) {
			sch_bpf_reach_end(reached);
			*err = sch_bpf_reach_begin(to_reach);
			reached = *err ? NULL : to_reach;
		}
		if (*err && how == SCH_BPF_FORCE)
			this = SCH_BPF_FORCE_ALL;
		else if (*err)
			break;
		*err = sch_bpf_config_change(sch_bpf_mq_child(sch, i), &cfg, this, extack);
		if (*err)
			break;
		sch_bpf_mq_took(req, i, &cfg);
	}
	sch_bpf_reach_end(reached);
	return i;
}

static int sch_bpf_mq_change(struct Qdisc *sch, struct nlattr *opt,
			     struct netlink_ext_ack *extack)
{
	struct sch_bpf_mq *priv = qdisc_priv(sch);
	unsigned int i, changed, n = qdisc_dev(sch)->num_tx_queues;
	struct sch_bpf_pair first = {};
	struct sch_bpf_mq_request req;
	int err, unused;

	if (!opt)
		return 0;
	err = sch_bpf_mq_parse(sch, &req, opt, false, extack);
	if (err)
		return err;
	if (req.pair)
		first = req.pair[0];
	for (i = 0; req.pair && i < n; i++)
		sch_bpf_maps(sch_bpf_mq_child(sch, i), req.pair[i].enqueue, req.pair[i].dequeue,
			     bpf_rbtree_use);

	sch_bpf_mq_change_queues(sch, &req, n, SCH_BPF_TRY, &err, extack);
	if (err)
		goto out;
	/* Packets that come meanwhile can make it fail after all. */
	changed = sch_bpf_mq_change_queues(sch, &req, n, SCH_BPF_CHANGE, &err, extack);
	if (err) {
		/* The first queues are to be as they were. What the new programs have
		 * stored by now the old ones may not reach.
		 */
		req.cfg = priv->cfg;
		sch_bpf_mq_change_queues(sch, &req, changed, SCH_BPF_FORCE, &unused, NULL);
		goto out;
	}
	sch_bpf_mq_show(priv, &req, &first);
out:
	sch_bpf_mq_put(sch, &req);
	return err;
}

/* An instance is known from the first time that its queue is in use: mq_change_real_num_tx()
 * leaves qdiscs with handles alone, too. Its classes and filters stay, and nobody else gets
 * its handle; but it is listed only while its queue is in use.
 */
static void sch_bpf_mq_change_real_num_tx(struct Qdisc *sch, unsigned int new_real_tx)
{
	struct sch_bpf_mq *priv = qdisc_priv(sch);
	struct net_device *dev = qdisc_dev(sch);
	struct Qdisc *child;
	unsigned int i;

	for (i = new_real_tx; i < dev->real_num_tx_queues; i++) {
		child = sch_bpf_mq_child(sch, i);
		sch_tree_lock(child);
		child->flags |= TCQ_F_INVISIBLE;
		sch_tree_unlock(child);
	}
	for (i = dev->real_num_tx_queues; i < new_real_tx; i++) {
		child = sch_bpf_mq_child(sch, i);
		sch_tree_lock(child);
		child->flags &= ~TCQ_F_INVISIBLE;
		sch_tree_unlock(child);
		if (hash_hashed(&child->hash))
			continue;
		child->handle = qdisc_alloc_handle(dev);
		qdisc_hash_add(child, false);
	}
	/* Tell which queues have no programs, and what gives them some. */
	if (priv->queues && new_real_tx > priv->queues &&
	    dev->real_num_tx_queues <= priv->queues && net_ratelimit())
		netdev_warn(dev,
			    "qdisc bpf_mq %x: tx queues from %u on have no programs, serving a FIFO until 'tc qdisc change dev %s root bpf_mq obj FILE'\n",
			    sch->handle >> 16, priv->queues, dev->name);
}

static int sch_bpf_mq_dump(struct Qdisc *sch, struct sk_buff *skb)
{
	struct sch_bpf_mq *priv = qdisc_priv(sch);

	mq_dump_common(sch, skb);
	return sch_bpf_config_dump(&priv->cfg, priv->queues, skb);
}

static int sch_bpf_mq_graft(struct Qdisc *sch, unsigned long cl, struct Qdisc *new,
			    struct Qdisc **old, struct netlink_ext_ack *extack)
{
	NL_SET_ERR_MSG(extack, "The instances of bpf_mq are changed together");
	return -EOPNOTSUPP;
}

/* The classes of bpf_mq are the tx queues. Who wants others is told where. */
static int sch_bpf_mq_change_class(struct Qdisc *sch, u32 classid, u32 parentid,
				   struct nlattr **tca, unsigned long *arg,
				   struct netlink_ext_ack *extack)
{
	NL_SET_ERR_MSG(extack,
		       "Add classes and filters to each instance, 'parent HANDLE:' of its qdisc");
	return -EOPNOTSUPP;
}

static const struct Qdisc_class_ops sch_bpf_mq_class_ops = {
	.select_queue	= mq_select_queue,
	.graft		= sch_bpf_mq_graft,
	.leaf		= mq_leaf,
	.find		= mq_find,
	.change		= sch_bpf_mq_change_class,
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
	.change_real_num_tx	= sch_bpf_mq_change_real_num_tx,
	.dump			= sch_bpf_mq_dump,
	.owner			= THIS_MODULE,
};

static int __init sch_bpf_mq_module_init(void)
{
	return register_qdisc(&sch_bpf_mq_qdisc_ops);
}
device_initcall(sch_bpf_mq_module_init);
