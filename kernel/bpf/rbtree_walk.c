// SPDX-License-Identifier: GPL-2.0
/* The ordered map: walks, by programs and by system calls */
#include "rbtree.h"

static bool rbtree_same_key(const struct bpf_rbtree *rb, const void *a, const void *b)
{
	return rbtree_rank(rb, a) == rbtree_rank(rb, b) &&
	       (rb->rank_is_key || !rbtree_cmp_slow(rb, a, b));
}

/* What follows the cursor, or NULL. */
static struct rbtree_elem *rbtree_after(struct bpf_rbtree *rb, const struct bpf_rbtree_cursor *c)
{
	struct rbtree_elem *oldest;

	if (!c->started)
		return rb->first;
	if (!c->elem)
		return rbtree_above(rb, c->key, false);

	oldest = rbtree_above(rb, c->key, true);
	if (!oldest || !rbtree_same_key(rb, oldest->key, c->key) || oldest->number > c->number)
		return oldest;
	/* The element may have left: a walk goes on with the next key. */
	if (c->jumps != rb->jumps)
		return rbtree_above(rb, c->key, false);
	/* c->elem is still there, see rbtree.h. */
	return c->elem->next ?: node_elem(rb_next(&oldest->node));
}

/* Move the cursor to the next element that was there when it started, or to the
 * end: NULL. ERR_PTR(-EAGAIN) if there are so many new ones that the lock should
 * be given up in between.
 */
static struct rbtree_elem *rbtree_next(struct bpf_rbtree *rb, struct bpf_rbtree_cursor *c)
{
	struct rbtree_elem *elem;
	int i;

	if (!c->end)
		c->end = rb->pushed;
	for (i = 0; i < RBTREE_STEPS; i++) {
		elem = rbtree_after(rb, c);
		if (!elem)
			return NULL;
		memcpy(c->key, elem->key, rb->map.key_size);
		c->started = true;
		c->number = elem->number;
		c->jumps = rb->jumps;
		/* The others of this key are younger still. */
		c->elem = elem->number <= c->end ? elem : NULL;
		if (c->elem)
			return elem;
	}
	return ERR_PTR(-EAGAIN);
}

/* Move the cursor with the lock taken, copy the value if that is wanted, and call
 * @look with the element's object if that is given. Returns the value in the map,
 * NULL at the end, or ERR_PTR(-EBUSY).
 */
static void *rbtree_walk_obj(struct bpf_rbtree *rb, struct bpf_rbtree_cursor *c, void *value_out,
			     void (*look)(const void *obj, void *arg), void *arg)
{
	struct rbtree_elem *elem;
	unsigned long flags;

	do {
		if (raw_res_spin_lock_irqsave(&rb->lock, flags))
			return ERR_PTR(-EBUSY);
		elem = rbtree_next(rb, c);
		if (!IS_ERR_OR_NULL(elem)) {
			rbtree_copy_out(rb, elem, NULL, value_out);
			if (look)
				look(*elem_obj(rb, elem), arg);
		}
		raw_res_spin_unlock_irqrestore(&rb->lock, flags);
	} while (IS_ERR(elem));

	return elem ? elem_value(rb, elem) : NULL;
}

static void *rbtree_walk(struct bpf_rbtree *rb, struct bpf_rbtree_cursor *c, void *value_out)
{
	return rbtree_walk_obj(rb, c, value_out, NULL, NULL);
}

/**
 * bpf_rbtree_look() - look at the next object of a map, which stays there
 * @map: an ordered map of packets
 * @c: where the walk is, all zero at first; then it has the key of the element
 * @value: set to the element's value, special fields as zeroes
 * @look: called with the object and @arg under the map's lock, with interrupts
 *        off; the object may be gone when the lock has been released
 * @arg: argument of @look
 *
 * A walk visits the elements that were there when it began and have not left
 * before it reaches them.
 *
 * Context: any.
 * Return: 0; -ENOENT at the end; -EBUSY if the map's lock could not be had.
 */
int bpf_rbtree_look(struct bpf_map *map, struct bpf_rbtree_cursor *c, void *value,
		    void (*look)(const void *obj, void *arg), void *arg)
{
	void *found = rbtree_walk_obj(to_rbtree(map), c, value, look, arg);

	return found ? PTR_ERR_OR_ZERO(found) : -ENOENT;
}

/**
 * bpf_rbtree_mark_inner() - mark the maps in an ordered map of maps
 * @outer: any map; if it is an ordered map of ordered maps, these are marked
 * @mark: as for bpf_rbtree_mark()
 *
 * Context: as bpf_rbtree_mark(). Maps that are pushed meanwhile may be missed.
 */
void bpf_rbtree_mark_inner(struct bpf_map *outer, u64 mark)
{
	struct bpf_rbtree *rb = to_rbtree(outer);
	struct bpf_rbtree_cursor c = {};
	struct rbtree_elem *elem;
	unsigned long flags;

	if (!rbtree_holds_maps(outer))
		return;
	do {
		if (raw_res_spin_lock_irqsave(&rb->lock, flags))
			return;
		elem = rbtree_next(rb, &c);
		if (!IS_ERR_OR_NULL(elem))
			bpf_rbtree_mark(*elem_obj(rb, elem), mark);
		raw_res_spin_unlock_irqrestore(&rb->lock, flags);
	} while (elem);
}

long rbtree_for_each(struct bpf_map *map, bpf_callback_t callback_fn,
		     void *callback_ctx, u64 flags)
{
	struct bpf_rbtree *rb = to_rbtree(map);
	struct bpf_rbtree_cursor c = {};
	long visited = 0;
	void *value;

	if (flags)
		return -EINVAL;

	while ((value = rbtree_walk(rb, &c, NULL))) {
		if (IS_ERR(value))
			return PTR_ERR(value);
		visited++;
		/* The element's key, which a program may keep, is as long there as its value. */
		if (callback_fn((u64)(long)map, (u64)(long)value_elem(rb, value)->key,
				(u64)(long)value, (u64)(long)callback_ctx, 0))
			break;
	}
	return visited;
}

/* ---- batches: the cursor is a key; those with equal keys come all or not at all ---- */

struct rbtree_batch {
	struct bpf_rbtree *rb;
	struct bpf_rbtree_cursor cursor;
	void __user *keys;
	void __user *values;
	void *value;
	u32 max;
	u32 count;
};

static int rbtree_batch_put(struct rbtree_batch *b, const void *key, u32 at)
{
	const struct bpf_map *map = &b->rb->map;

	if (copy_to_user(b->keys + (u64)at * map->key_size, key, map->key_size) ||
	    copy_to_user(b->values + (u64)at * map->value_size, b->value, map->value_size))
		return -EFAULT;
	return 0;
}

/* One key: see how many elements it has, and copy them unless @count_only. What
 * the cursor walks over then is the key's elements up to the present moment.
 */
static int rbtree_batch_key(struct rbtree_batch *b, bool count_only)
{
	struct bpf_rbtree_cursor c = b->cursor, next;
	u32 at = b->count;
	void *value;
	int err;

	c.elem = NULL;
	c.end = 0;
	for (;;) {
		next = c;
		value = rbtree_walk(b->rb, &next, b->value);
		if (IS_ERR(value))
			return PTR_ERR(value);
		if (!value || (at > b->count && !rbtree_same_key(b->rb, next.key, c.key)))
			break;
		if (at == b->max)
			return -ENOSPC;
		if (!count_only) {
			err = rbtree_batch_put(b, next.key, at);
			if (err)
				return err;
		}
		at++;
		c = next;
		cond_resched();
	}
	if (at == b->count)
		return -ENOENT;

	b->cursor = c;
	b->cursor.elem = NULL;
	if (!count_only)
		b->count = at;
	return at - b->count;
}

/* One key: delete as many elements as it had when they were counted. */
static int rbtree_batch_delete_key(struct rbtree_batch *b)
{
	int n, err;

	n = rbtree_batch_key(b, true);
	for (; n > 0; n--) {
		bpf_disable_instrumentation();
		err = rbtree_remove(b->rb, RBTREE_KEY, b->cursor.key, NULL, b->value);
		bpf_enable_instrumentation();
		if (err == -ENOENT)
			return 0;
		err = err ?: rbtree_batch_put(b, b->cursor.key, b->count);
		if (err)
			return err;
		b->count++;
		cond_resched();
	}
	return n;
}

static int rbtree_batch(struct bpf_map *map, const union bpf_attr *attr,
			union bpf_attr __user *uattr, bool delete)
{
	void __user *in = u64_to_user_ptr(attr->batch.in_batch);
	void __user *out = u64_to_user_ptr(attr->batch.out_batch);
	struct rbtree_batch b = {
		.rb = to_rbtree(map),
		.keys = u64_to_user_ptr(attr->batch.keys),
		.values = u64_to_user_ptr(attr->batch.values),
		.max = attr->batch.count,
	};
	int err = 0;

	if (attr->batch.elem_flags || attr->batch.flags)
		return -EINVAL;
	if (delete && b.rb->has_packets)
		return -EBUSY;
	if (!b.max)
		return 0;
	bpf_rbtree_share(map);
	if (put_user(0, &uattr->batch.count))
		return -EFAULT;
	if (in && copy_from_user(b.cursor.key, in, map->key_size))
		return -EFAULT;
	b.cursor.started = in;

	b.value = kvmalloc(map->value_size, GFP_USER | __GFP_NOWARN);
	if (!b.value)
		return -ENOMEM;
	while (err >= 0 && b.count < b.max)
		err = delete ? rbtree_batch_delete_key(&b) : rbtree_batch_key(&b, false);
	kvfree(b.value);

	/* No room for the next key: the next call's business, unless it is the first. */
	if (err > 0 || (err == -ENOSPC && b.count))
		err = 0;
	if (err == -EFAULT)
		return err;
	if (put_user(b.count, &uattr->batch.count) ||
	    (b.count && copy_to_user(out, b.cursor.key, map->key_size)))
		return -EFAULT;
	return err;
}

int rbtree_lookup_batch(struct bpf_map *map, const union bpf_attr *attr,
			union bpf_attr __user *uattr)
{
	return rbtree_batch(map, attr, uattr, false);
}

int rbtree_lookup_and_delete_batch(struct bpf_map *map, const union bpf_attr *attr,
				   union bpf_attr __user *uattr)
{
	return rbtree_batch(map, attr, uattr, true);
}

/* ---- the iterator bpf_map_elem: it shows copies ---- */

struct rbtree_seq {
	struct bpf_map *map;
	struct bpf_rbtree_cursor cursor;
	void *value;			/* copy; NULL before the first and after the last */
	void *buf;
};

static void *rbtree_seq_walk(struct rbtree_seq *info)
{
	void *value = rbtree_walk(to_rbtree(info->map), &info->cursor, info->buf);

	info->value = IS_ERR_OR_NULL(value) ? NULL : info->buf;
	return IS_ERR(value) ? value : info->value;
}

static void *rbtree_seq_start(struct seq_file *seq, loff_t *pos)
{
	struct rbtree_seq *info = seq->private;

	if (*pos)
		return info->value;
	++*pos;
	return rbtree_seq_walk(info);
}

static void *rbtree_seq_next(struct seq_file *seq, void *v, loff_t *pos)
{
	++*pos;
	return rbtree_seq_walk(seq->private);
}

static int rbtree_seq_show(struct seq_file *seq, void *value)
{
	struct rbtree_seq *info = seq->private;
	struct bpf_iter__bpf_map_elem ctx = {};
	struct bpf_iter_meta meta;
	struct bpf_prog *prog;

	meta.seq = seq;
	prog = bpf_iter_get_info(&meta, !value);
	if (!prog)
		return 0;

	ctx.meta = &meta;
	ctx.map = info->map;
	ctx.key = value ? info->cursor.key : NULL;
	ctx.value = value;
	return bpf_iter_run_prog(prog, &ctx);
}

static void rbtree_seq_stop(struct seq_file *seq, void *value)
{
	if (!value)
		rbtree_seq_show(seq, NULL);
}

static int rbtree_seq_init(void *priv, struct bpf_iter_aux_info *aux)
{
	struct rbtree_seq *info = priv;

	info->buf = kvmalloc(aux->map->value_size, GFP_USER | __GFP_NOWARN);
	if (!info->buf)
		return -ENOMEM;
	bpf_rbtree_share(aux->map);
	bpf_map_inc_with_uref(aux->map);
	info->map = aux->map;
	return 0;
}

static void rbtree_seq_fini(void *priv)
{
	struct rbtree_seq *info = priv;

	bpf_map_put_with_uref(info->map);
	kvfree(info->buf);
}

static const struct seq_operations rbtree_seq_ops = {
	.start = rbtree_seq_start,
	.next = rbtree_seq_next,
	.stop = rbtree_seq_stop,
	.show = rbtree_seq_show,
};

const struct bpf_iter_seq_info rbtree_seq_info = {
	.seq_ops = &rbtree_seq_ops,
	.init_seq_private = rbtree_seq_init,
	.fini_seq_private = rbtree_seq_fini,
	.seq_priv_size = sizeof(struct rbtree_seq),
};
