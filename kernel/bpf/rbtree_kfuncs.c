// SPDX-License-Identifier: GPL-2.0
/* The ordered map: what programs of all types may call */
#include <linux/btf.h>
#include <linux/btf_ids.h>
#include "rbtree.h"

static bool rbtree_holds_values(const struct bpf_map *map)
{
	return rbtree_is(map) && !rbtree_holds_maps(map) && !bpf_rbtree_holds_packets(map);
}

static bool rbtree_holds_no_packets(const struct bpf_map *map)
{
	return rbtree_is(map) && !bpf_rbtree_holds_packets(map);
}

static const struct bpf_rbtree_arg rbtree_args[] = {
	{ "__rbtree", "an rbtree map", rbtree_is },
	{ "__value_map", "an rbtree map that holds neither packets nor maps",
	  rbtree_holds_values },
	{ "__no_packet_map", "an rbtree map that holds no packets", rbtree_holds_no_packets },
	{ "__packet_map", "an rbtree map whose value holds one sk_buff kptr",
	  bpf_rbtree_holds_packets },
	{ "__task_map", "an rbtree map whose value holds one task_struct kptr",
	  rbtree_holds_tasks },
	{ "__map_map", "an rbtree map of maps", rbtree_holds_maps },
	{ "__inner_map", "a map that the map of maps before it can hold" },
};

/**
 * bpf_rbtree_arg() - which maps does this argument of a kfunc take?
 * @name: the argument's name; its end says it
 *
 * Context: any.
 * Return: what the verifier asks of the map, NULL if the argument is no such map.
 */
const struct bpf_rbtree_arg *bpf_rbtree_arg(const char *name)
{
	int i;

	for (i = 0; i < ARRAY_SIZE(rbtree_args); i++)
		if (name && strends(name, rbtree_args[i].suffix))
			return &rbtree_args[i];
	return NULL;
}

/**
 * bpf_rbtree_arg_takes() - may this map be this argument of a kfunc?
 * @arg: the argument
 * @map: the map
 * @outer: the map that is an argument before it, NULL if there is none
 *
 * Context: process, may sleep.
 * Return: true if it may.
 */
bool bpf_rbtree_arg_takes(const struct bpf_rbtree_arg *arg, struct bpf_map *map,
			  const struct bpf_map *outer)
{
	const struct bpf_map *meta;

	if (arg->takes)
		return arg->takes(map);
	meta = outer ? outer->inner_map_meta : NULL;
	bpf_rbtree_share(map);
	return meta && !map->excl_prog_sha && map->ops->map_meta_equal &&
	       meta->ops->map_meta_equal(meta, map);
}

/* To a program: a map that it may only write shows it no key. */
static __always_inline void *rbtree_show(struct bpf_rbtree *rb, enum rbtree_which which,
					 const void *key, void *key_out)
{
	if (rb->map.map_flags & BPF_F_WRONLY_PROG)
		return NULL;
	return rbtree_look(rb, which, key, key_out);
}

__bpf_kfunc_start_defs();

/**
 * bpf_rbtree_map_first() - look at the first element
 * @map__rbtree: an ordered map
 * @key__mapkey: where to store its key
 *
 * Context: any.
 * Return: the value, or the inner map of a map of maps; NULL if the map is empty,
 * was created with BPF_F_WRONLY_PROG, or its lock could not be had.
 */
__bpf_kfunc void *bpf_rbtree_map_first(void *map__rbtree, void *key__mapkey)
{
	return rbtree_show(to_rbtree(map__rbtree), RBTREE_FIRST, NULL, key__mapkey);
}

/**
 * bpf_rbtree_map_lower_bound() - look at the first element from a key on
 * @map__rbtree: an ordered map
 * @key__mapkey: the lowest key wanted; set to the one that was found
 *
 * Context: any.
 * Return: the value of the oldest element of the lowest key that is not below
 * the one wanted, or the inner map of a map of maps; NULL if there is none, or as
 * bpf_rbtree_map_first().
 */
__bpf_kfunc void *bpf_rbtree_map_lower_bound(void *map__rbtree, void *key__mapkey)
{
	return rbtree_show(to_rbtree(map__rbtree), RBTREE_FROM, key__mapkey, key__mapkey);
}

/**
 * bpf_rbtree_map_upper_bound() - look at the first element above a key
 * @map__rbtree: an ordered map
 * @key__mapkey: the key; set to the one that was found
 *
 * Context: any.
 * Return: as bpf_rbtree_map_lower_bound(), of the lowest key that is above the one
 * given.
 */
__bpf_kfunc void *bpf_rbtree_map_upper_bound(void *map__rbtree, void *key__mapkey)
{
	return rbtree_show(to_rbtree(map__rbtree), RBTREE_ABOVE, key__mapkey, key__mapkey);
}

/**
 * bpf_rbtree_map_last() - look at the last element
 * @map__rbtree: an ordered map
 * @key__mapkey: where to store its key
 *
 * Context: any.
 * Return: as bpf_rbtree_map_first(), of the youngest element of the highest key.
 */
__bpf_kfunc void *bpf_rbtree_map_last(void *map__rbtree, void *key__mapkey)
{
	return rbtree_show(to_rbtree(map__rbtree), RBTREE_LAST, NULL, key__mapkey);
}

/**
 * bpf_rbtree_map_len() - how many elements are in a map
 * @map__rbtree: an ordered map
 *
 * Context: any.
 * Return: the number of elements, exact where nobody else pushes, pops or moves any; else
 * about so many, and never more than max_entries.
 */
__bpf_kfunc u32 bpf_rbtree_map_len(void *map__rbtree)
{
	return rbtree_count_unlocked(to_rbtree(map__rbtree));
}

/**
 * bpf_rbtree_map_bytes() - how many bytes the packets in a map have
 * @map__packet_map: an ordered map of packets
 *
 * Context: any.
 * Return: bytes, as a qdisc's backlog counts them; while others push and pop, a sum
 * that was right a moment ago. A 32-bit machine reads the sum in two halves, which may
 * be of two moments.
 */
__bpf_kfunc u64 bpf_rbtree_map_bytes(void *map__packet_map)
{
	return READ_ONCE(to_rbtree(map__packet_map)->bytes);
}

/**
 * bpf_rbtree_map_move() - give the oldest element of a key another key
 * @map__no_packet_map: an ordered map that holds no packets
 * @from__mapkey: its key
 * @to__mapkey: its next key, behind all others of which it comes; may be the same
 *
 * In one step: nobody sees the map without the element, and what it holds stays.
 *
 * Context: any.
 * Return: 0; -ENOENT if there is no element of the key; -EPERM if the map was
 * created with BPF_F_RDONLY_PROG; -EDEADLK or -ETIMEDOUT if its lock could not be
 * had.
 */
__bpf_kfunc int bpf_rbtree_map_move(void *map__no_packet_map, const void *from__mapkey,
				    const void *to__mapkey)
{
	struct bpf_rbtree *rb = to_rbtree(map__no_packet_map);
	struct rbtree_elem *elem;
	unsigned long flags;
	int err;

	if (rb->map.map_flags & BPF_F_RDONLY_PROG)
		return -EPERM;

	err = raw_res_spin_lock_irqsave(&rb->lock, flags);
	if (err)
		return err;
	elem = rbtree_find(rb, from__mapkey);
	if (elem) {
		rbtree_unlink(rb, elem);
		rbtree_set_key(rb, elem, to__mapkey);
		rbtree_link(rb, elem);
	} else {
		err = -ENOENT;
	}
	raw_res_spin_unlock_irqrestore(&rb->lock, flags);
	return err;
}

__bpf_kfunc_end_defs();

BTF_KFUNCS_START(rbtree_kfunc_ids)
BTF_ID_FLAGS(func, bpf_rbtree_map_push)
BTF_ID_FLAGS(func, bpf_rbtree_map_pop)
BTF_ID_FLAGS(func, bpf_rbtree_map_pop_until)
BTF_ID_FLAGS(func, bpf_rbtree_map_pop_key)
BTF_ID_FLAGS(func, bpf_rbtree_map_move)
BTF_ID_FLAGS(func, bpf_rbtree_map_first, KF_RET_NULL)
BTF_ID_FLAGS(func, bpf_rbtree_map_lower_bound, KF_RET_NULL)
BTF_ID_FLAGS(func, bpf_rbtree_map_upper_bound, KF_RET_NULL)
BTF_ID_FLAGS(func, bpf_rbtree_map_last, KF_RET_NULL)
BTF_ID_FLAGS(func, bpf_rbtree_map_len)
BTF_ID_FLAGS(func, bpf_rbtree_map_bytes)
BTF_ID_FLAGS(func, bpf_rbtree_map_push_task, KF_RELEASE)
BTF_ID_FLAGS(func, bpf_rbtree_map_pop_task, KF_ACQUIRE | KF_RET_NULL)
BTF_ID_FLAGS(func, bpf_rbtree_map_push_map)
BTF_ID_FLAGS(func, bpf_rbtree_map_pop_map, KF_RET_NULL)
BTF_KFUNCS_END(rbtree_kfunc_ids)

static const struct btf_kfunc_id_set rbtree_kfunc_set = {
	.owner = THIS_MODULE,
	.set = &rbtree_kfunc_ids,
};

static int __init rbtree_kfunc_init(void)
{
	return register_btf_kfunc_id_set(BPF_PROG_TYPE_UNSPEC, &rbtree_kfunc_set);
}
late_initcall(rbtree_kfunc_init);
