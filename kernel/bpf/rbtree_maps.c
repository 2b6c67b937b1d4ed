// SPDX-License-Identifier: GPL-2.0
/* The ordered map: maps of maps */
#include <linux/btf.h>
#include "map_in_map.h"
#include "rbtree.h"

void rbtree_set_inner(struct bpf_rbtree *rb, struct rbtree_elem *elem,
		      struct bpf_map *inner)
{
	*(u32 *)elem_value(rb, elem) = inner->id;
	*elem_obj(rb, elem) = inner;
}

/* What links a map into the list of the unused: nobody uses its rcu_head before the last
 * reference, which is the list's, has been dropped.
 */
static struct llist_node *rbtree_unused_node(struct bpf_map *inner)
{
	BUILD_BUG_ON(sizeof(struct llist_node) > sizeof(struct rcu_head));
	return (struct llist_node *)&inner->rcu;
}

void rbtree_free_unused(struct bpf_rbtree *rb)
{
	struct llist_node *node, *next;

	llist_for_each_safe(node, next, llist_del_all(&rb->unused))
		bpf_map_put(container_of((struct rcu_head *)node, struct bpf_map, rcu));
}

int rbtree_alloc_outer(struct bpf_rbtree *rb, int inner_map_fd)
{
	struct bpf_map *meta = bpf_map_meta_alloc(inner_map_fd);

	if (IS_ERR(meta))
		return PTR_ERR(meta);
	rb->map.inner_map_meta = meta;
	rb->obj_off = rb->value_off + sizeof(u64);
	return 0;
}

void rbtree_free_outer(struct bpf_rbtree *rb)
{
	struct rbtree_elem *elem;

	while ((elem = rb->first)) {
		rbtree_unlink(rb, elem);
		rbtree_inner_put(*elem_obj(rb, elem));
	}
	bpf_map_meta_free(rb->map.inner_map_meta);
}

__bpf_kfunc_start_defs();

/**
 * bpf_rbtree_map_push_map() - store a map behind all others with an equal key
 * @map__map_map: an ordered map of maps
 * @key__mapkey: the key, as long as the outer map's keys
 * @inner__inner_map: a map like the one that the outer map was created with
 *
 * Context: any.
 * Return: as bpf_rbtree_map_push(); -ENOENT if nobody has the inner map any more.
 */
__bpf_kfunc int bpf_rbtree_map_push_map(void *map__map_map, const void *key__mapkey,
					void *inner__inner_map)
{
	struct bpf_map *inner = inner__inner_map;
	struct bpf_rbtree *rb = to_rbtree(map__map_map);
	struct rbtree_elem *elem;
	unsigned long flags;
	u32 slots;
	int err;

again:
	err = raw_res_spin_lock_irqsave(&rb->lock, flags);
	if (err)
		return err;
	elem = rbtree_slot_get(rb);
	if (elem && IS_ERR(__bpf_map_inc_not_zero(inner, false))) {
		rbtree_slot_put(rb, elem);
		err = -ENOENT;
	} else if (elem) {
		rbtree_set_key(rb, elem, key__mapkey);
		rbtree_set_inner(rb, elem, inner);
		rbtree_link(rb, elem);
	}
	slots = rb->slots;
	raw_res_spin_unlock_irqrestore(&rb->lock, flags);
	if (!elem) {
		err = rbtree_grow_now(rb, slots);
		if (!err)
			goto again;
	}
	return err;
}

/**
 * bpf_rbtree_map_pop_map() - take the first inner map out
 * @map__map_map: an ordered map of maps
 * @key__mapkey: where to store its key
 *
 * The program can use the map until it returns. It can push the map again if
 * somebody else has it, too: an inner map that nobody but this outer map had is
 * about to go away, and pushing it can fail. bpf_rbtree_map_move() keeps it.
 *
 * Context: any.
 * Return: the map; NULL if there is none, or the outer map's lock could not be had.
 */
__bpf_kfunc void *bpf_rbtree_map_pop_map(void *map__map_map, void *key__mapkey)
{
	struct bpf_rbtree *rb = to_rbtree(map__map_map);
	struct rbtree_elem *elem;
	struct bpf_map *inner = NULL;
	unsigned long flags;

	if (raw_res_spin_lock_irqsave(&rb->lock, flags))
		return NULL;
	elem = rb->first;
	if (elem) {
		memcpy(key__mapkey, elem->key, rb->map.key_size);
		inner = *elem_obj(rb, elem);
		rbtree_unlink(rb, elem);
		rbtree_slot_put(rb, elem);
	}
	raw_res_spin_unlock_irqrestore(&rb->lock, flags);

	if (inner) {
		rbtree_inner_leaves(inner);
		/* What follows the last reference takes locks that the program may have
		 * interrupted.
		 */
		if (!atomic64_add_unless(&inner->refcnt, -1, 1)) {
			llist_add(rbtree_unused_node(inner), &rb->unused);
			irq_work_queue(&rb->work_soon);
		}
	}
	return inner;
}

__bpf_kfunc_end_defs();
