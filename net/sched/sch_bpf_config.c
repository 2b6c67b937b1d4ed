// SPDX-License-Identifier: GPL-2.0
/* The configuration of the qdiscs "bpf" and "bpf_mq": netlink, and change in place
 *
 * Change in place swaps both programs under the tree lock. Packets stay in their
 * maps and classes; a change is refused if the new dequeue program knows nothing of a
 * map that holds some, or takes none from classes and a class does.
 */
#include <linux/bpf.h>
#include <linux/filter.h>
#include <linux/rtnetlink.h>
#include <linux/skbuff.h>
#include <net/netlink.h>
#include "sch_bpf_priv.h"
#include <trace/events/sch_bpf.h>

#define SCH_BPF_LIMIT		10000

/* A policy in trouble for longer is stuck. */
#define SCH_BPF_PATIENCE	(5ULL * NSEC_PER_SEC)

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
int sch_bpf_parse(struct sch_bpf_config *cfg, struct nlattr *opt, bool create,
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

int sch_bpf_dump(struct Qdisc *sch, struct sk_buff *skb)
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

/* ---- the maps of programs ---- */

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

/* ---- change ---- */

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

/* True if a map with packets has no mark; @name is set to its name. Before it says so, it marks the
 * maps in ordered maps again, now under the tree lock: the first marking ran beside the programs,
 * which move such maps between keys, and can have missed one.
 */
static bool sch_bpf_out_of_reach(struct sch_bpf_data *q, const struct sch_bpf_config *cfg,
				 char *name)
{
	const struct bpf_prog_aux *aux;
	u32 i;

	if (!sch_bpf_reached_by(cfg) ||
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
 * @how: what about packets that the new programs do not reach; SCH_BPF_FORCE and
 *       SCH_BPF_FORCE_ALL are for a roll-back: @cfg has the former programs, and the change
 *       does not fail. A policy that was stuck before is stuck again. What the former
 *       programs do not reach, in maps or classes, leaves before all others
 * @extack: for the reason of a failure
 *
 * Context: process, under RTNL; between sch_bpf_reach_begin() and sch_bpf_reach_end()
 * of sch_bpf_reached_by(), but for SCH_BPF_FORCE_ALL.
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

int sch_bpf_change(struct Qdisc *sch, struct nlattr *opt,
		   struct netlink_ext_ack *extack)
{
	const struct bpf_prog *reached;
	struct sch_bpf_config cfg;
	int err;

	err = sch_bpf_parse(&cfg, opt, false, extack);
	if (err)
		return err;
	sch_bpf_maps(sch, cfg.enqueue, cfg.dequeue, bpf_rbtree_use);
	reached = sch_bpf_reached_by(&cfg);
	err = sch_bpf_reach_begin(reached);
	if (!err) {
		err = sch_bpf_config_change(sch, &cfg, SCH_BPF_CHANGE, extack);
		sch_bpf_reach_end(reached);
	}
	sch_bpf_config_put(&cfg);
	return err;
}
