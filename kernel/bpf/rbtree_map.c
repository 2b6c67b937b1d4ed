// SPDX-License-Identifier: GPL-2.0
/* The ordered map: the operations of its map type */
#include <linux/btf_ids.h>
#include "map_in_map.h"
#include "rbtree.h"

#define RBTREE_CREATE_FLAG_MASK \
	(BPF_F_NO_PREALLOC | BPF_F_NUMA_NODE | BPF_F_ACCESS_MASK)

static void rbtree_work_soon(struct irq_work *work)
{
	struct bpf_rbtree *rb = container_of(work, struct bpf_rbtree, work_soon);

	queue_work(system_dfl_wq, &rb->work);
}

/* What programs leave to a worker. */
static void rbtree_work(struct work_struct *work)
{
	struct bpf_rbtree *rb = container_of(work, struct bpf_rbtree, work);

	rbtree_free_unused(rb);
	rbtree_free_dead(rb);
	/* A map that nobody has is in no memory cgroup any more. */
	if (!IS_ERR(__bpf_map_inc_not_zero(&rb->map, false))) {
		rbtree_grow(rb);
		bpf_map_put(&rb->map);
	}
}

static int rbtree_map_alloc_check(union bpf_attr *attr)
{
	if (!attr->max_entries || !attr->key_size || !attr->value_size ||
	    attr->map_flags & ~RBTREE_CREATE_FLAG_MASK ||
	    !bpf_map_flags_access_ok(attr->map_flags))
		return -EINVAL;

	/* Memory comes from the node that the CPU is on. */
	if (attr->map_flags & BPF_F_NO_PREALLOC && bpf_map_attr_numa_node(attr) != NUMA_NO_NODE)
		return -EINVAL;

	/* Programs get inner maps, not values: the flags for those would mean nothing. */
	if (attr->inner_map_fd &&
	    (attr->value_size != sizeof(u32) ||
	     attr->map_flags & (BPF_F_NO_PREALLOC | BPF_F_RDONLY_PROG | BPF_F_WRONLY_PROG)))
		return -EINVAL;

	if (attr->key_size > BPF_RBTREE_KEY_MAX ||
	    attr->value_size > KMALLOC_MAX_SIZE - BPF_RBTREE_KEY_MAX - sizeof(struct rbtree_elem))
		return -E2BIG;

	return 0;
}

static struct bpf_map *rbtree_map_alloc(union bpf_attr *attr)
{
	int node = bpf_map_attr_numa_node(attr);
	struct bpf_rbtree *rb;
	int err;

	rb = bpf_map_area_alloc(sizeof(*rb), node);
	if (!rb)
		return ERR_PTR(-ENOMEM);

	bpf_map_init_from_attr(&rb->map, attr);
	raw_res_spin_lock_init(&rb->lock);
	rb->root = RB_ROOT;
	init_llist_head(&rb->returned);
	init_llist_head(&rb->detached);
	init_llist_head(&rb->unused);
	init_llist_head(&rb->dead);
	init_irq_work(&rb->work_soon, rbtree_work_soon);
	INIT_WORK(&rb->work, rbtree_work);
	INIT_LIST_HEAD(&rb->owner_node);
	refcount_set(&rb->refs, 1);
	rb->no_prealloc = attr->map_flags & BPF_F_NO_PREALLOC;
	rb->is_bare = !rb->no_prealloc && !attr->inner_map_fd;
	rb->value_off = offsetof(struct rbtree_elem, key) + round_up(attr->key_size, 8);
	rb->elem_size = rb->value_off + round_up(attr->value_size, 8);
	rbtree_order_bytes(rb);

	if (attr->inner_map_fd) {
		rb->elem_size += sizeof(u64);
		err = rbtree_alloc_outer(rb, attr->inner_map_fd);
		if (err)
			goto free_rb;
	}
	err = rbtree_alloc_elems(rb);
	if (err)
		goto free_outer;
	return &rb->map;

free_outer:
	if (rb->map.inner_map_meta)
		bpf_map_meta_free(rb->map.inner_map_meta);
free_rb:
	bpf_map_area_free(rb);
	return ERR_PTR(err);
}

static void rbtree_map_free(struct bpf_map *map)
{
	struct bpf_rbtree *rb = to_rbtree(map);

	irq_work_sync(&rb->work_soon);
	cancel_work_sync(&rb->work);
	rbtree_free_unused(rb);
	rbtree_free_dead(rb);
	if (map->inner_map_meta)
		rbtree_free_outer(rb);
	/* The map's reference becomes the owner's. */
	if (rb->has_packets && rbtree_leave_to_owner(rb))
		return;
	if (refcount_dec_and_test(&rb->refs))
		rbtree_free(rb);
}

/* Elements live as long as a program may look at them: a value whose element goes
 * away while it is in use is stale, never gone.
 */
static void *rbtree_map_lookup_elem(struct bpf_map *map, void *key)
{
	return rbtree_look(to_rbtree(map), RBTREE_KEY, key, NULL);
}

/* User space sees the ids of inner maps. */
static void *rbtree_map_lookup_elem_sys_only(struct bpf_map *map, void *key)
{
	struct rbtree_elem *elem;

	elem = rbtree_look_elem(to_rbtree(map), RBTREE_KEY, key, NULL, NULL);
	return IS_ERR_OR_NULL(elem) ? NULL : elem_value(to_rbtree(map), elem);
}

/* In a map of maps, @value is a file descriptor: only the syscall comes here. */
static long rbtree_map_update_elem(struct bpf_map *map, void *key, void *value, u64 flags)
{
	struct bpf_map *inner = NULL, *old = NULL;
	struct bpf_rbtree *rb = to_rbtree(map);
	struct rbtree_elem *elem, *spare;
	unsigned long irq;
	u32 slots;
	long err;

	if (flags > BPF_EXIST)
		return -EINVAL;
	/* An element without a packet must never be seen. */
	if (rb->has_packets)
		return -EOPNOTSUPP;

	err = rbtree_spare_get(rb, &spare);
	if (err)
		return err;
	if (map->inner_map_meta) {
		inner = bpf_map_fd_get_ptr(map, NULL, *(u32 *)value);
		if (IS_ERR(inner))
			return PTR_ERR(inner);
	}
again:
	if (raw_res_spin_lock_irqsave(&rb->lock, irq)) {
		err = -EBUSY;
		goto out;
	}
	elem = rbtree_find(rb, key);
	if (elem && flags == BPF_NOEXIST) {
		err = -EEXIST;
	} else if (elem) {
		old = inner ? *elem_obj(rb, elem) : NULL;
	} else if (flags == BPF_EXIST) {
		err = -ENOENT;
	} else {
		elem = rbtree_elem_get(rb, &spare);
		if (elem) {
			rbtree_set_key(rb, elem, key);
			rbtree_link(rb, elem);
		} else {
			err = -E2BIG;
		}
	}
	if (!err && inner)
		rbtree_set_inner(rb, elem, inner);
	else if (!err)
		copy_map_value(map, elem_value(rb, elem), value);
	slots = rb->slots;
	raw_res_spin_unlock_irqrestore(&rb->lock, irq);
	if (err == -E2BIG) {
		err = rbtree_grow_now(rb, slots);
		if (!err)
			goto again;
	}
out:
	rbtree_spare_put(rb, spare);
	if (err && inner)
		bpf_map_put(inner);
	else if (old)
		rbtree_inner_put(old);
	return err;
}

static long rbtree_map_delete_elem(struct bpf_map *map, void *key)
{
	return rbtree_remove(to_rbtree(map), RBTREE_KEY, key, NULL, NULL);
}

static int rbtree_map_lookup_and_delete_elem(struct bpf_map *map, void *key, void *value,
					     u64 flags)
{
	if (flags)
		return -EINVAL;
	return rbtree_remove(to_rbtree(map), RBTREE_KEY, key, NULL, value);
}

static int rbtree_map_get_next_key(struct bpf_map *map, void *key, void *next_key)
{
	struct rbtree_elem *elem;

	elem = rbtree_look_elem(to_rbtree(map), key ? RBTREE_ABOVE : RBTREE_FIRST, key, next_key,
				NULL);
	return elem ? PTR_ERR_OR_ZERO(elem) : -ENOENT;
}

static bool rbtree_map_meta_equal(const struct bpf_map *meta0, const struct bpf_map *meta1)
{
	/* An inner map holds no maps: its values are not what programs take them for. Who looks
	 * for it in an outer map finds none that somebody is alone with.
	 */
	return bpf_map_meta_equal(meta0, meta1) && !meta1->inner_map_meta &&
	       (!rbtree_can_be_shared(meta1) || rbtree_is_shared(to_rbtree(meta1)));
}

static u64 rbtree_map_mem_usage(const struct bpf_map *map)
{
	const struct bpf_rbtree *rb = to_rbtree(map);

	if (rb->no_prealloc)
		return sizeof(*rb) + (u64)rbtree_count_unlocked(rb) * rb->elem_size;
	return sizeof(*rb) + READ_ONCE(rb->chunk_bytes);
}

/* ---- what is left of a map without preallocation ---- */

/* What an allocator that outlives its map needs to release objects. */
struct rbtree_dtor {
	struct btf *btf;
	struct btf_record *record;
	u32 value_off;
};

static void rbtree_ma_dtor(void *elem, void *ctx)
{
	struct rbtree_dtor *dtor = ctx;

	bpf_obj_free_fields(dtor->record, elem + dtor->value_off);
}

static void rbtree_ma_dtor_free(void *ctx)
{
	struct rbtree_dtor *dtor = ctx;

	/* The record's local types point into the BTF. */
	btf_record_free(dtor->record);
	btf_put(dtor->btf);
	kfree(dtor);
}

/* bpf_kptr_xchg() may store into a value after its element was freed. */
static int rbtree_set_ma_dtor(struct bpf_rbtree *rb)
{
	struct rbtree_dtor *dtor;

	dtor = kzalloc_obj(*dtor);
	if (!dtor)
		return -ENOMEM;
	dtor->record = btf_record_dup(rb->map.record);
	if (IS_ERR(dtor->record)) {
		int err = PTR_ERR(dtor->record);

		kfree(dtor);
		return err;
	}
	dtor->btf = rb->map.btf;
	btf_get(dtor->btf);
	dtor->value_off = rb->value_off;
	bpf_mem_alloc_set_dtor(&rb->ma, rbtree_ma_dtor, rbtree_ma_dtor_free, dtor);
	return 0;
}

static int rbtree_map_check_btf(struct bpf_map *map, const struct btf *btf,
				const struct btf_type *key_type,
				const struct btf_type *value_type)
{
	struct bpf_rbtree *rb = to_rbtree(map);

	return rb->no_prealloc && rb->has_objects ? rbtree_set_ma_dtor(rb) : 0;
}

BTF_ID_LIST_SINGLE(rbtree_map_btf_ids, struct, bpf_rbtree)

const struct bpf_map_ops rbtree_map_ops = {
	.map_meta_equal = rbtree_map_meta_equal,
	.map_alloc_check = rbtree_map_alloc_check,
	.map_alloc = rbtree_map_alloc,
	.map_free = rbtree_map_free,
	.map_get_next_key = rbtree_map_get_next_key,
	.map_lookup_elem = rbtree_map_lookup_elem,
	.map_lookup_elem_sys_only = rbtree_map_lookup_elem_sys_only,
	.map_update_elem = rbtree_map_update_elem,
	.map_delete_elem = rbtree_map_delete_elem,
	.map_lookup_and_delete_elem = rbtree_map_lookup_and_delete_elem,
	.map_set_for_each_callback_args = map_set_for_each_callback_args,
	.map_for_each_callback = rbtree_for_each,
	.map_check_btf = rbtree_map_check_btf,
	.map_mem_usage = rbtree_map_mem_usage,
	.map_lookup_batch = rbtree_lookup_batch,
	.map_lookup_and_delete_batch = rbtree_lookup_and_delete_batch,
	.map_update_batch = generic_map_update_batch,
	.map_delete_batch = generic_map_delete_batch,
	.map_btf_id = &rbtree_map_btf_ids[0],
	.iter_seq_info = &rbtree_seq_info,
};
