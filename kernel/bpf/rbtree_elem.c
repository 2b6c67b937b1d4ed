// SPDX-License-Identifier: GPL-2.0
/* The ordered map: memory for elements, and elements that are values */
#include <linux/btf.h>
#include <linux/sched/task.h>
#include "rbtree.h"

/* Bytes of the first chunk of elements, and of one that a push allocates. A map of so few
 * elements, or of such large ones that few fit, has all of them in its first chunk.
 */
#define RBTREE_CHUNK		4096
#define RBTREE_CHUNK_FEW	64
#define RBTREE_CHUNK_LARGE	(RBTREE_CHUNK / 8)

/* ---- memory for elements ---- */

static u64 rbtree_chunk_size(const struct bpf_rbtree *rb, u32 count)
{
	return sizeof(struct rbtree_chunk) + (u64)count * rb->elem_size;
}

static struct rbtree_elem *rbtree_chunk_elem(const struct bpf_rbtree *rb,
					     struct rbtree_chunk *chunk, u32 i)
{
	return (void *)chunk->elems + (u64)i * rb->elem_size;
}

/* Make a list of the elements of a new chunk, which is all zero. */
static void rbtree_chunk_init(const struct bpf_rbtree *rb, struct rbtree_chunk *chunk, u32 count)
{
	u32 i;

	chunk->count = count;
	for (i = 1; i < count; i++)
		rbtree_chunk_elem(rb, chunk, i - 1)->next = rbtree_chunk_elem(rb, chunk, i);
}

/* In process context. */
static struct rbtree_chunk *rbtree_chunk_alloc(struct bpf_rbtree *rb, u32 count)
{
	struct rbtree_chunk *chunk;

	chunk = bpf_map_area_alloc(rbtree_chunk_size(rb, count), rb->map.numa_node);
	if (chunk)
		rbtree_chunk_init(rb, chunk, count);
	return chunk;
}

/* Wherever elements are pushed: packets not in hard interrupt, all else anywhere. */
static struct rbtree_chunk *rbtree_chunk_alloc_now(struct bpf_rbtree *rb, u32 count)
{
	u64 size = rbtree_chunk_size(rb, count);
	struct rbtree_chunk *chunk;

	if (rb->has_packets)
		chunk = bpf_map_kmalloc_node(&rb->map, size,
					     GFP_ATOMIC | __GFP_NOWARN | __GFP_ZERO,
					     rb->map.numa_node);
	else
		chunk = bpf_map_kmalloc_nolock(&rb->map, size, __GFP_ZERO, rb->map.numa_node);
	if (chunk)
		rbtree_chunk_init(rb, chunk, count);
	return chunk;
}

/* Under the lock: the chunk becomes the map's, unless that would have too many elements:
 * others have added some since its size was chosen.
 */
static bool rbtree_chunk_add(struct bpf_rbtree *rb, struct rbtree_chunk *chunk)
{
	if (chunk->count > rb->map.max_entries - rb->slots)
		return false;
	WRITE_ONCE(rb->slots, rb->slots + chunk->count);
	WRITE_ONCE(rb->chunk_bytes, rb->chunk_bytes + rbtree_chunk_size(rb, chunk->count));
	chunk->next = rb->chunks;
	rb->chunks = chunk;
	return true;
}

/* kmalloc_nolock() has nothing on machines without a double cmpxchg. */
static bool rbtree_can_alloc_now(void)
{
	void *probe = kmalloc_nolock(sizeof(struct rbtree_chunk), 0, NUMA_NO_NODE);

	kfree_nolock(probe);
	return probe;
}

int rbtree_alloc_elems(struct bpf_rbtree *rb)
{
	u32 count = rb->map.max_entries;
	struct rbtree_chunk *chunk;

	if (rb->no_prealloc) {
		rb->slots = count;
		return bpf_mem_alloc_init(&rb->ma, rb->elem_size, false);
	}

	if (count > RBTREE_CHUNK_FEW && rb->elem_size <= RBTREE_CHUNK_LARGE &&
	    rbtree_can_alloc_now())
		count = (RBTREE_CHUNK - sizeof(*chunk)) / rb->elem_size;
	count = min(count, rb->map.max_entries);
	chunk = rbtree_chunk_alloc(rb, count);
	if (!chunk)
		return -ENOMEM;
	rbtree_chunk_add(rb, chunk);
	rb->spare = chunk;
	return 0;
}

/* Allocate a spare chunk, as large as all others together. */
void rbtree_grow(struct bpf_rbtree *rb)
{
	struct mem_cgroup *memcg, *old_memcg;
	struct rbtree_chunk *chunk;
	unsigned long flags;
	bool added = false;
	u32 slots;

	/* Only this function stores a spare chunk. */
	while (!added && !READ_ONCE(rb->spare)) {
		slots = READ_ONCE(rb->slots);
		if (slots == rb->map.max_entries)
			break;
		bpf_map_memcg_enter(&rb->map, &old_memcg, &memcg);
		chunk = rbtree_chunk_alloc(rb, min(slots, rb->map.max_entries - slots));
		bpf_map_memcg_exit(old_memcg, memcg);
		/* The next push that finds no element calls again. */
		if (!chunk)
			break;
		if (!raw_res_spin_lock_irqsave(&rb->lock, flags)) {
			added = rbtree_chunk_add(rb, chunk);
			if (added)	/* an owner that is alone takes it without the lock */
				smp_store_release(&rb->spare, chunk);
			raw_res_spin_unlock_irqrestore(&rb->lock, flags);
		}
		if (!added)
			bpf_map_area_free(chunk);
	}
}

/* Work cannot be queued from everywhere. */
static void rbtree_want_spare(struct bpf_rbtree *rb)
{
	if (READ_ONCE(rb->slots) < rb->map.max_entries)
		irq_work_queue(&rb->work_soon);
}

/* Without the lock: a push has found that none of so many elements is free, and the worker
 * is late. Returns 0 to try again, -E2BIG if there may be no more, -ENOMEM, or an error of
 * the lock.
 */
int rbtree_grow_now(struct bpf_rbtree *rb, u32 slots)
{
	u32 count = (RBTREE_CHUNK - sizeof(struct rbtree_chunk)) / rb->elem_size;
	struct rbtree_chunk *chunk;
	unsigned long flags;
	bool added = false;
	int err;

	if (slots == rb->map.max_entries) {
		/* The worker may have added the last after an owner that is alone has looked. */
		err = raw_res_spin_lock_irqsave(&rb->lock, flags);
		if (err)
			return err;
		added = rb->spare;
		raw_res_spin_unlock_irqrestore(&rb->lock, flags);
		return added ? 0 : -E2BIG;
	}
	rbtree_want_spare(rb);
	count = min(count, rb->map.max_entries - slots);
	chunk = rbtree_chunk_alloc_now(rb, count);
	if (!chunk)
		return -ENOMEM;

	err = raw_res_spin_lock_irqsave(&rb->lock, flags);
	if (!err) {
		added = rbtree_chunk_add(rb, chunk);
		if (added) {
			rbtree_chunk_elem(rb, chunk, count - 1)->next = rb->free;
			rb->free = rbtree_chunk_elem(rb, chunk, 0);
		}
		raw_res_spin_unlock_irqrestore(&rb->lock, flags);
	}
	if (added)
		return 0;
	if (rb->has_packets)
		kfree(chunk);
	else
		kfree_nolock(chunk);
	return err;
}

/* The list of free elements is empty: another one, or NULL. */
struct rbtree_elem *rbtree_slots_more(struct bpf_rbtree *rb)
{
	struct llist_node *list = llist_del_all(&rb->returned);
	struct rbtree_chunk *chunk = smp_load_acquire(&rb->spare);	/* of rbtree_grow() */

	if (list)
		return llist_entry(list, struct rbtree_elem, returned);
	if (!chunk)
		return NULL;
	WRITE_ONCE(rb->spare, NULL);
	rbtree_want_spare(rb);
	return rbtree_chunk_elem(rb, chunk, 0);
}

/* ---- elements of maps without packets ---- */

/* Store @key behind all others with an equal key, with @value, or, if @obj is given, with
 * zeroes. *@obj becomes the element's object: what was there before, or
 * *@obj itself if the push fails, is the caller's to release.
 */
static __always_inline int
rbtree_push(struct bpf_rbtree *rb, const void *key, const void *value, void **obj)
{
	struct rbtree_elem *elem, *spare;
	unsigned long flags;
	u32 slots;
	int err;

	err = rbtree_spare_get(rb, &spare);
	if (err)
		return err;
again:
	err = raw_res_spin_lock_irqsave(&rb->lock, flags);
	if (err)
		goto out;
	elem = rbtree_elem_get(rb, &spare);
	if (elem) {
		rbtree_set_key(rb, elem, key);
		if (obj)
			zero_map_value(&rb->map, elem_value(rb, elem));
		else if (likely(rb->is_bare))
			rbtree_copy(elem_value(rb, elem), value, rb->map.value_size);
		else
			copy_map_value(&rb->map, elem_value(rb, elem), (void *)value);
		/* bpf_kptr_xchg() may have stored into a value that had left */
		if (obj)
			*obj = xchg(elem_obj(rb, elem), *obj);
		rbtree_link(rb, elem);
	}
	slots = rb->slots;
	raw_res_spin_unlock_irqrestore(&rb->lock, flags);
	if (!elem) {
		err = rbtree_grow_now(rb, slots);
		if (!err)
			goto again;
	}
out:
	rbtree_spare_put(rb, spare);
	return err;
}

/* Release what the value of an element holds that is out of the tree, and only then let its
 * memory be used again. Without the lock, with migration disabled.
 */
static void rbtree_elem_release(struct bpf_rbtree *rb, struct rbtree_elem *elem)
{
	bpf_obj_free_fields(rb->map.record, elem_value(rb, elem));
	if (rb->no_prealloc)
		bpf_mem_cache_free(&rb->ma, elem);
	else
		llist_add(&elem->returned, &rb->returned);
}

void rbtree_free_dead(struct bpf_rbtree *rb)
{
	struct rbtree_elem *elem, *next;

	llist_for_each_entry_safe(elem, next, llist_del_all(&rb->dead), returned) {
		migrate_disable();
		rbtree_elem_release(rb, elem);
		migrate_enable();
		atomic_dec(&rb->nr_dead);
		cond_resched();
	}
}

/* An element is out of the tree. Objects are released by a worker, because a destructor
 * takes locks that a program may have interrupted, or that are held where it runs. Inner
 * maps are removed by system calls only, and popped by rbtree_map_pop_map().
 */
static void rbtree_elem_free(struct bpf_rbtree *rb, struct rbtree_elem *elem)
{
	if (rb->has_objects) {
		atomic_inc(&rb->nr_dead);
		if (llist_add(&elem->returned, &rb->dead))
			irq_work_queue(&rb->work_soon);
		return;
	}
	if (rb->map.inner_map_meta)
		rbtree_inner_put(*elem_obj(rb, elem));
	rbtree_elem_release(rb, elem);
}

void rbtree_copy_fields(struct bpf_rbtree *rb, struct rbtree_elem *elem, void *value)
{
	copy_map_value(&rb->map, value, elem_value(rb, elem));
	check_and_init_map_value(&rb->map, value);
}

/* Take an element out: the first, the first if its key is at most @key, or the oldest
 * of @key. Copy its key, also one that is above @key, and its value without special
 * fields to where they are wanted.
 */
int rbtree_remove(struct bpf_rbtree *rb, enum rbtree_which which, const void *key,
		  void *key_out, void *value_out)
{
	struct rbtree_elem *elem;
	unsigned long flags;
	int err = 0;

	if (rb->has_packets || raw_res_spin_lock_irqsave(&rb->lock, flags))
		return -EBUSY;
	elem = rbtree_which(rb, which, key);
	if (!elem) {
		err = -ENOENT;
	} else if (which == RBTREE_UNTIL && rbtree_beyond(rb, elem, key)) {
		rbtree_copy_out(rb, elem, key_out, NULL);
		err = -EAGAIN;
	} else {
		rbtree_copy_out(rb, elem, key_out, value_out);
		rbtree_unlink(rb, elem);
		if (likely(rb->is_bare)) {
			rbtree_slot_put(rb, elem);
			elem = NULL;
		}
	}
	raw_res_spin_unlock_irqrestore(&rb->lock, flags);

	if (!err && elem)
		rbtree_elem_free(rb, elem);
	return err;
}

__bpf_kfunc_start_defs();

/**
 * bpf_rbtree_map_push() - store a value behind all others with an equal key
 * @map__value_map: an ordered map that holds neither packets nor maps
 * @key__mapkey: the key, as long as the map's keys
 * @value__mapvalue: the value, as long as the map's values; its special fields are not
 *                   read, and those of the new element are empty, but for what a program
 *                   has stored into the value of an element that had been removed
 *
 * Context: any.
 * Return: 0; -E2BIG if the map is full; -EPERM if it was created with
 * BPF_F_RDONLY_PROG; -ENOMEM without memory for an element; -EDEADLK or
 * -ETIMEDOUT if its lock could not be had.
 */
__bpf_kfunc int bpf_rbtree_map_push(void *map__value_map, const void *key__mapkey,
				    const void *value__mapvalue)
{
	struct bpf_map *map = map__value_map;

	if (map->map_flags & BPF_F_RDONLY_PROG)
		return -EPERM;
	return rbtree_push(to_rbtree(map), key__mapkey, value__mapvalue, NULL);
}

/**
 * bpf_rbtree_map_pop() - take the first element out
 * @map__value_map: an ordered map that holds neither packets nor maps
 * @key__mapkey: where to store its key
 * @value__mapvalue: where to store its value, special fields as zeroes; a worker
 *                   releases what they hold, and until then the element takes room
 *
 * Context: any.
 * Return: 0; -ENOENT if the map is empty; -EPERM if it was created with
 * BPF_F_RDONLY_PROG or BPF_F_WRONLY_PROG; -EBUSY if its lock could not be had.
 */
__bpf_kfunc int bpf_rbtree_map_pop(void *map__value_map, void *key__mapkey,
				   void *value__mapvalue)
{
	struct bpf_map *map = map__value_map;

	if (map->map_flags & (BPF_F_RDONLY_PROG | BPF_F_WRONLY_PROG))
		return -EPERM;
	return rbtree_remove(to_rbtree(map), RBTREE_FIRST, NULL, key__mapkey, value__mapvalue);
}

/**
 * bpf_rbtree_map_pop_until() - take the first element out, if its key is at most a bound
 * @map__value_map: an ordered map that holds neither packets nor maps
 * @bound__mapkey: the highest key to take, as long as the map's keys
 * @key__mapkey: where to store the first key, whether its element is taken or not
 * @value__mapvalue: where to store the value, as bpf_rbtree_map_pop() does
 *
 * Context: any.
 * Return: as bpf_rbtree_map_pop(); -EAGAIN if the first key is above the bound.
 */
__bpf_kfunc int bpf_rbtree_map_pop_until(void *map__value_map, const void *bound__mapkey,
					 void *key__mapkey, void *value__mapvalue)
{
	struct bpf_map *map = map__value_map;

	if (map->map_flags & (BPF_F_RDONLY_PROG | BPF_F_WRONLY_PROG))
		return -EPERM;
	return rbtree_remove(to_rbtree(map), RBTREE_UNTIL, bound__mapkey, key__mapkey,
			     value__mapvalue);
}

/**
 * bpf_rbtree_map_pop_key() - take the oldest element of one key out
 * @map__value_map: an ordered map that holds neither packets nor maps
 * @key__mapkey: the key, as long as the map's keys
 * @value__mapvalue: where to store the value, as bpf_rbtree_map_pop() does
 *
 * Context: any.
 * Return: as bpf_rbtree_map_pop(); -ENOENT if there is no element of the key.
 */
__bpf_kfunc int bpf_rbtree_map_pop_key(void *map__value_map, const void *key__mapkey,
				       void *value__mapvalue)
{
	struct bpf_map *map = map__value_map;

	if (map->map_flags & (BPF_F_RDONLY_PROG | BPF_F_WRONLY_PROG))
		return -EPERM;
	return rbtree_remove(to_rbtree(map), RBTREE_KEY, key__mapkey, NULL, value__mapvalue);
}

/**
 * bpf_rbtree_map_push_task() - store a task behind all others with an equal key
 * @task: an acquired task; it is given away, whatever is returned
 * @map__task_map: an ordered map whose value holds one task_struct kptr
 * @key__mapkey: the key, as long as the map's keys
 *
 * The rest of the value is zero.
 *
 * Context: any but NMI.
 * Return: as bpf_rbtree_map_push(); unless that is 0 the reference was dropped.
 */
__bpf_kfunc int bpf_rbtree_map_push_task(struct task_struct *task, void *map__task_map,
					 const void *key__mapkey)
{
	void *obj = task;
	int err;

	err = rbtree_push(to_rbtree(map__task_map), key__mapkey, NULL, &obj);
	if (obj)
		put_task_struct_rcu_user(obj);
	return err;
}

/**
 * bpf_rbtree_map_pop_task() - take the first task out
 * @map__task_map: an ordered map whose value holds one task_struct kptr
 * @key__mapkey: where to store its key
 *
 * Elements without a task, whose task bpf_kptr_xchg() has taken, are removed on
 * the way, 64 at most.
 *
 * Context: any.
 * Return: the oldest task of the lowest key, with its reference; NULL if there is
 * none among those, or the map's lock could not be had.
 */
__bpf_kfunc struct task_struct *bpf_rbtree_map_pop_task(void *map__task_map, void *key__mapkey)
{
	struct bpf_rbtree *rb = to_rbtree(map__task_map);
	struct task_struct *task = NULL;
	struct rbtree_elem *elem, *spare;
	int steps = RBTREE_STEPS;
	unsigned long flags;

	do {
		spare = NULL;
		if (raw_res_spin_lock_irqsave(&rb->lock, flags))
			return NULL;
		elem = rb->first;
		if (elem) {
			memcpy(key__mapkey, elem->key, rb->map.key_size);
			task = xchg((struct task_struct **)elem_obj(rb, elem), NULL);
			rbtree_unlink(rb, elem);
			if (rb->no_prealloc)
				spare = elem;
			else
				rbtree_slot_put(rb, elem);
		}
		raw_res_spin_unlock_irqrestore(&rb->lock, flags);
		rbtree_spare_put(rb, spare);
	} while (elem && !task && --steps);
	return task;
}

__bpf_kfunc_end_defs();

/* ---- nobody uses the map any more ---- */

/* Free elements too: bpf_kptr_xchg() may have stored into a value that had already been
 * deleted. Into that of a packet it cannot, and a map of packets is empty.
 */
static void rbtree_chunk_free(struct bpf_rbtree *rb, struct rbtree_chunk *chunk)
{
	u32 i;

	for (i = 0; rb->has_objects && !rb->has_packets && i < chunk->count; i++) {
		bpf_obj_free_fields(rb->map.record,
				    elem_value(rb, rbtree_chunk_elem(rb, chunk, i)));
		cond_resched();
	}
	bpf_map_area_free(chunk);
}

/* Nobody uses the map any more. */
static void rbtree_free_elems(struct bpf_rbtree *rb)
{
	struct rbtree_chunk *chunk;
	struct rbtree_elem *elem;

	if (rb->no_prealloc) {
		while ((elem = rb->first)) {
			rbtree_unlink(rb, elem);
			rbtree_elem_release(rb, elem);
			cond_resched();
		}
		bpf_mem_alloc_destroy(&rb->ma);
		return;
	}

	while ((chunk = rb->chunks)) {
		rb->chunks = chunk->next;
		rbtree_chunk_free(rb, chunk);
	}
}

void rbtree_free(struct bpf_rbtree *rb)
{
	rbtree_free_elems(rb);
	bpf_map_area_free(rb);
}

void rbtree_free_work(struct work_struct *work)
{
	rbtree_free(container_of(work, struct bpf_rbtree, work));
}
