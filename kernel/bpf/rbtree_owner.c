// SPDX-License-Identifier: GPL-2.0
/* The ordered map: owners of packets, their claims, and all packets of one of them */
#include <linux/workqueue.h>
#include "rbtree.h"

static DEFINE_RAW_SPINLOCK(rbtree_owner_lock);

/* Held while an owner is told of a map that is gone: it does not go meanwhile. */
static DEFINE_MUTEX(rbtree_gone_mutex);

/* Protects who uses maps, and is held until a map that is to be shared is. */
static DEFINE_MUTEX(rbtree_use_mutex);

static struct workqueue_struct *rbtree_wq;

/* Maps whose objects rbtree_free_detached() is to free */
static LLIST_HEAD(rbtree_detached);

/* ---- claims ---- */

/* The memory of a map outlives the map as long as an owner keeps objects in it, which no
 * program can reach any more, or looks at it.
 */
static void rbtree_put(struct bpf_rbtree *rb)
{
	if (refcount_dec_and_test(&rb->refs)) {
		INIT_WORK(&rb->work, rbtree_free_work);
		queue_work(rbtree_wq, &rb->work);
	}
}

/* Under rbtree_owner_lock: @owner, or nobody, takes no lock from now on. */
static void rbtree_set_alone(struct bpf_rbtree *rb, struct bpf_rbtree_owner *owner)
{
	WRITE_ONCE(rb->alone, owner);
	WRITE_ONCE(rb->easy, rb->is_plain ? owner : NULL);
}

/* Under the map's lock, interrupts off, by who has a reference: the claim ends. */
static void rbtree_unclaim(struct bpf_rbtree *rb)
{
	raw_spin_lock(&rbtree_owner_lock);
	list_del_init(&rb->owner_node);
	WRITE_ONCE(rb->owner, NULL);
	rbtree_set_alone(rb, NULL);
	if (rb->is_gone)
		refcount_dec(&rb->refs);
	rb->is_gone = false;
	raw_spin_unlock(&rbtree_owner_lock);
}

/* Nobody can reach the map any more. If an owner keeps objects in it, its memory stays until
 * they are taken out, which the owner is told to do: returns true. An empty map has no owner
 * afterwards.
 */
bool rbtree_leave_to_owner(struct bpf_rbtree *rb)
{
	struct bpf_rbtree_owner *owner;
	unsigned long flags;
	bool gone;

	mutex_lock(&rbtree_gone_mutex);
	raw_spin_lock_irqsave(&rbtree_owner_lock, flags);
	owner = rb->owner;
	gone = owner && rbtree_count(rb);
	list_del_init(&rb->owner_node);
	if (gone) {
		rb->is_gone = true;
		/* bpf_rbtree_detach_gone() looks for them at the head. */
		list_add(&rb->owner_node, &owner->maps);
	}
	raw_spin_unlock_irqrestore(&rbtree_owner_lock, flags);
	if (gone)
		owner->map_gone(owner);
	mutex_unlock(&rbtree_gone_mutex);
	return gone;
}

/* Under the map's lock: @owner claims a map that is another's, or nobody's. A claim takes no
 * reference: a map that goes away ends it, see rbtree_leave_to_owner().
 */
int rbtree_claim(struct bpf_rbtree *rb, struct bpf_rbtree_owner *owner)
{
	unsigned long flags;

	if (rb->owner && rbtree_count(rb))
		return -EBUSY;

	raw_spin_lock_irqsave(&rbtree_owner_lock, flags);
	list_move_tail(&rb->owner_node, &owner->maps);
	rb->owner = owner;
	rb->claimed = rb->pushed;
	rbtree_set_alone(rb, READ_ONCE(rb->sole_user) == owner ? owner : NULL);
	raw_spin_unlock_irqrestore(&rbtree_owner_lock, flags);
	return 0;
}

/* ---- alone with a map ---- */

/* Under rbtree_use_mutex: no owner is alone with the map afterwards. */
static void rbtree_share(struct bpf_rbtree *rb)
{
	unsigned long flags;
	bool alone;

	raw_spin_lock_irqsave(&rbtree_owner_lock, flags);
	alone = rb->alone;
	rb->sole_user = NULL;
	rbtree_set_alone(rb, NULL);
	raw_spin_unlock_irqrestore(&rbtree_owner_lock, flags);
	if (alone)	/* its steps without the lock come to an end */
		synchronize_rcu_expedited();
	smp_store_release(&rb->shared, true);	/* after these steps */
}

/**
 * bpf_rbtree_share() - somebody else than a map's owner wants to look at it
 * @map: any map; one of packets is locked for each step from now on
 *
 * Context: process, may sleep; until the owner, which may have been alone with the map, takes
 * the lock.
 */
void bpf_rbtree_share(struct bpf_map *map)
{
	struct bpf_rbtree *rb = to_rbtree(map);

	if (!rbtree_can_be_shared(map) || rbtree_is_shared(rb))
		return;
	mutex_lock(&rbtree_use_mutex);
	if (!rb->shared)
		rbtree_share(rb);
	mutex_unlock(&rbtree_use_mutex);
}

/**
 * bpf_rbtree_share_fd() - share a map that may become an inner one
 * @ufd: its file descriptor, as user space has given it
 *
 * Context: process, may sleep.
 */
void bpf_rbtree_share_fd(u32 ufd)
{
	CLASS(fd, f)(ufd);
	struct bpf_map *map = __bpf_map_get(f);

	if (!IS_ERR(map))
		bpf_rbtree_share(map);
}

/**
 * bpf_rbtree_use() - programs that an owner is about to run name a map
 * @map: any map; one of packets is the owner's alone if no other has called this for it
 * @owner: the owner
 *
 * Context: process, may sleep.
 */
void bpf_rbtree_use(struct bpf_map *map, struct bpf_rbtree_owner *owner)
{
	struct bpf_rbtree_owner *sole_user;
	struct bpf_rbtree *rb = to_rbtree(map);

	if (!rbtree_can_be_shared(map))
		return;
	mutex_lock(&rbtree_use_mutex);
	sole_user = READ_ONCE(rb->sole_user);
	if (sole_user && sole_user != owner)
		rbtree_share(rb);
	else if (!sole_user && !rb->shared)
		WRITE_ONCE(rb->sole_user, owner);
	mutex_unlock(&rbtree_use_mutex);
}

/**
 * bpf_rbtree_unuse() - an owner has run the last program that names a map
 * @map: any map
 * @owner: the owner, without claims
 *
 * Not when programs are replaced: the new ones may name the map, too. A map that only the old
 * ones named stays in use, and is no later owner's alone.
 *
 * Context: any.
 */
void bpf_rbtree_unuse(struct bpf_map *map, struct bpf_rbtree_owner *owner)
{
	struct bpf_rbtree *rb = to_rbtree(map);

	if (!rbtree_can_be_shared(map))
		return;
	/* Not under rbtree_use_mutex, which may be held for a grace period. cmpxchg() is enough:
	 * everybody else stores an owner only over NULL.
	 */
	cmpxchg(&rb->sole_user, owner, NULL);
}

/* ---- all packets of an owner ---- */

/* The first map of @owner, with a reference; of those that are gone alone, if asked for. */
static struct bpf_rbtree *rbtree_owner_first(struct bpf_rbtree_owner *owner, bool gone)
{
	struct bpf_rbtree *rb;
	unsigned long flags;

	raw_spin_lock_irqsave(&rbtree_owner_lock, flags);
	rb = list_first_entry_or_null(&owner->maps, struct bpf_rbtree, owner_node);
	if (rb && gone && !rb->is_gone)
		rb = NULL;
	if (rb)
		refcount_inc(&rb->refs);
	raw_spin_unlock_irqrestore(&rbtree_owner_lock, flags);
	return rb;
}

/* Take an object of @owner out of @rb, and end the claim if that was the last, or if there
 * is none.
 */
static void *rbtree_drain_one(struct bpf_rbtree *rb, struct bpf_rbtree_owner *owner)
{
	struct rbtree_elem *spare = NULL;
	unsigned long flags;
	void *obj = NULL;

	if (raw_res_spin_lock_irqsave(&rb->lock, flags))
		return NULL;
	if (READ_ONCE(rb->owner) == owner) {
		if (rb->first) {
			spare = rbtree_take(rb, rb->first, RBTREE_FIRST, &obj);
			rb->bytes -= rbtree_packet_len(obj);
		}
		if (!rb->first)
			rbtree_unclaim(rb);
	}
	raw_res_spin_unlock_irqrestore(&rb->lock, flags);

	migrate_disable();
	rbtree_spare_put(rb, spare);
	migrate_enable();
	return obj;
}

/**
 * bpf_rbtree_drain() - take any object of an owner out of its maps
 * @owner: the owner
 *
 * Objects come in key order, map by map. A map that is empty then is no longer
 * claimed by @owner.
 *
 * Context: any but hard interrupt and NMI. The caller sees to it that @owner
 * does not push or pop meanwhile.
 * Return: an object with its reference; NULL if @owner keeps none anywhere.
 */
void *bpf_rbtree_drain(struct bpf_rbtree_owner *owner)
{
	struct bpf_rbtree *rb;
	void *obj;

	while ((rb = rbtree_owner_first(owner, false))) {
		obj = rbtree_drain_one(rb, owner);
		rbtree_put(rb);
		if (obj)
			return obj;
	}
	return NULL;
}

/* Free the objects of a tree that was taken out whole, and return its elements. Postorder: a
 * node comes after all below it, so no element that was returned is read again.
 */
static void rbtree_free_tree(struct bpf_rbtree *rb, struct rbtree_elem *top)
{
	struct rbtree_elem *oldest, *after, *elem, *next;
	void (*free_obj)(void *obj) = READ_ONCE(rb->free_obj);
	struct rb_root root = { .rb_node = &top->node };
	void *obj;

	rbtree_postorder_for_each_entry_safe(oldest, after, &root, node) {
		for (elem = oldest; elem; elem = next) {
			next = elem->next;
			obj = *elem_obj(rb, elem);
			*elem_obj(rb, elem) = NULL;
			free_obj(obj);
			if (rb->no_prealloc) {
				migrate_disable();
				bpf_mem_cache_free(&rb->ma, elem);
				migrate_enable();
				atomic_dec(&rb->nr_dead);
			} else {
				llist_add(&elem->returned, &rb->returned);
			}
			cond_resched();
		}
	}
}

static void rbtree_free_detached(struct work_struct *work)
{
	struct rbtree_elem *tree, *next_tree;
	struct bpf_rbtree *rb, *next;

	/* A map that has no more trees can be put on the list again: the next one has been
	 * read before.
	 */
	llist_for_each_entry_safe(rb, next, llist_del_all(&rbtree_detached), detached_node) {
		llist_for_each_entry_safe(tree, next_tree, llist_del_all(&rb->detached), detached)
			rbtree_free_tree(rb, tree);
		rbtree_put(rb);
	}
}

static DECLARE_WORK(rbtree_detached_work, rbtree_free_detached);

/* Take all objects of @owner out of @rb, and end the claim. Returns how many there were;
 * adds their bytes to @bytes.
 */
static u32 rbtree_detach_one(struct bpf_rbtree *rb, struct bpf_rbtree_owner *owner,
			     void (*free)(void *obj), u64 *bytes)
{
	bool listed = false;
	unsigned long flags;
	u32 count = 0;

	if (raw_res_spin_lock_irqsave(&rb->lock, flags))
		return 0;
	if (READ_ONCE(rb->owner) == owner) {
		count = rbtree_count(rb);
		if (count) {
			WRITE_ONCE(rb->free_obj, free);
			/* The map is on the list, with a reference, before the claim ends:
			 * the next owner's flush waits for this tree, too.
			 */
			if (llist_add(&node_elem(rb->root.rb_node)->detached, &rb->detached)) {
				refcount_inc(&rb->refs);
				listed = llist_add(&rb->detached_node, &rbtree_detached);
			}
			rb->root = RB_ROOT;
			rb->first = NULL;
			rb->last = NULL;
			if (rb->no_prealloc)	/* max_entries is for these, too */
				atomic_add(count, &rb->nr_dead);
			rb->popped = rb->pushed;
			*bytes += rb->bytes;
			rb->bytes = 0;
		}
		rbtree_unclaim(rb);
	}
	raw_res_spin_unlock_irqrestore(&rb->lock, flags);

	if (listed)
		queue_work(rbtree_wq, &rbtree_detached_work);
	return count;
}

static u32 rbtree_detach(struct bpf_rbtree_owner *owner, void (*free)(void *obj),
			 bool gone, u64 *bytes)
{
	struct bpf_rbtree *rb;
	u32 count = 0;

	while ((rb = rbtree_owner_first(owner, gone))) {
		count += rbtree_detach_one(rb, owner, free, bytes);
		rbtree_put(rb);
	}
	return count;
}

/**
 * bpf_rbtree_detach() - take all objects of an owner out of its maps, to be freed later
 * @owner: the owner, who has no claims afterwards
 * @free: frees an object, in process context; the same one in all calls for a map
 *
 * It takes a step for each map, as long for a million objects in it as for one: the map's
 * tree comes out whole, and a worker frees what is in it. Elements are free again when
 * their object is: pushes can fail with -E2BIG meanwhile.
 * bpf_rbtree_flush() waits.
 *
 * Context: any but hard interrupt and NMI. The caller sees to it that @owner does not
 * push or pop meanwhile.
 * Return: how many objects there were.
 */
u32 bpf_rbtree_detach(struct bpf_rbtree_owner *owner, void (*free)(void *obj))
{
	u64 bytes = 0;

	return rbtree_detach(owner, free, false, &bytes);
}

/**
 * bpf_rbtree_detach_gone() - take an owner's objects out of maps that nobody can reach
 * @owner: the owner
 * @free: as for bpf_rbtree_detach()
 * @bytes: the lengths of the packets are added
 *
 * An inner map that user space has deleted or replaced is gone when no program can have
 * found it before; its objects stay, and @owner->map_gone() was called.
 *
 * Context: as bpf_rbtree_detach().
 * Return: how many objects there were.
 */
u32 bpf_rbtree_detach_gone(struct bpf_rbtree_owner *owner, void (*free)(void *obj),
			   u64 *bytes)
{
	return rbtree_detach(owner, free, true, bytes);
}

/**
 * bpf_rbtree_flush() - wait until all that was detached has been freed
 *
 * Context: process, may sleep; no lock that freeing an object takes.
 */
void bpf_rbtree_flush(void)
{
	/* Whoever put a map on the list may not have queued the work yet. */
	queue_work(rbtree_wq, &rbtree_detached_work);
	flush_workqueue(rbtree_wq);
}

/**
 * bpf_rbtree_mark() - mark a map
 * @map: any map; ordered ones are marked
 * @mark: any number but 0, for bpf_rbtree_owner_unmarked()
 *
 * Context: any. The caller sees to it that nobody else marks meanwhile.
 * Return: the mark that the map had before; 0 if it had none.
 */
u64 bpf_rbtree_mark(struct bpf_map *map, u64 mark)
{
	u64 before;

	if (!rbtree_is(map))
		return 0;
	before = READ_ONCE(to_rbtree(map)->mark);
	WRITE_ONCE(to_rbtree(map)->mark, mark);
	return before;
}

/* A map that is not empty and whose last mark is another, with a reference. What is in maps
 * that are gone is about to be dropped. Walks from the tail to the head. What it finds it moves
 * to the tail, so that the next call finds it first. Maps that are gone are not moved:
 * bpf_rbtree_detach_gone() expects them at the head.
 */
static struct bpf_rbtree *rbtree_owner_unmarked(struct bpf_rbtree_owner *owner, u64 mark)
{
	struct bpf_rbtree *rb, *found = NULL;
	struct list_head here;
	unsigned long flags;
	int steps = 0;

	raw_spin_lock_irqsave(&rbtree_owner_lock, flags);
	list_add_tail(&here, &owner->maps);
	while (!found && !list_is_first(&here, &owner->maps)) {
		rb = list_entry(here.prev, struct bpf_rbtree, owner_node);
		list_move_tail(&here, &rb->owner_node);
		if (rbtree_count(rb) && READ_ONCE(rb->mark) != mark && !rb->is_gone) {
			refcount_inc(&rb->refs);
			found = rb;
			list_move_tail(&rb->owner_node, &owner->maps);
		} else if (++steps % RBTREE_STEPS == 0) {
			/* Others can move their maps off the list; nobody but @owner walks it. */
			raw_spin_unlock_irqrestore(&rbtree_owner_lock, flags);
			raw_spin_lock_irqsave(&rbtree_owner_lock, flags);
		}
	}
	list_del(&here);
	raw_spin_unlock_irqrestore(&rbtree_owner_lock, flags);
	return found;
}

/**
 * bpf_rbtree_owner_unmarked() - find a map that was not marked, with objects of an owner
 * @owner: the owner
 * @mark: the mark
 * @name: set to the map's name, BPF_OBJ_NAME_LEN bytes; or NULL
 *
 * Context: any but hard interrupt and NMI. The caller sees to it that @owner
 * does not push, pop, or look for another map meanwhile.
 * Return: true if there is a map that is not empty and whose last mark is another.
 */
bool bpf_rbtree_owner_unmarked(struct bpf_rbtree_owner *owner, u64 mark, char *name)
{
	struct bpf_rbtree *rb = rbtree_owner_unmarked(owner, mark);

	if (!rb)
		return false;
	if (name)
		memcpy(name, rb->map.name, BPF_OBJ_NAME_LEN);
	rbtree_put(rb);
	return true;
}

/**
 * bpf_rbtree_drain_unmarked() - take any object of an owner out of a map that was not marked
 * @owner: the owner
 * @mark: the mark
 *
 * Context: as bpf_rbtree_owner_unmarked().
 * Return: an object with its reference; NULL if there is none, or the lock of its map could
 * not be had.
 */
void *bpf_rbtree_drain_unmarked(struct bpf_rbtree_owner *owner, u64 mark)
{
	struct bpf_rbtree *rb = rbtree_owner_unmarked(owner, mark);
	void *obj;

	if (!rb)
		return NULL;
	obj = rbtree_drain_one(rb, owner);
	rbtree_put(rb);
	return obj;
}

/**
 * bpf_rbtree_disown() - end all claims of an owner that keeps no objects
 * @owner: the owner, which has been drained
 *
 * Context: process, may sleep; the caller sees to it that @owner does not push or pop
 * meanwhile.
 */
void bpf_rbtree_disown(struct bpf_rbtree_owner *owner)
{
	WARN_ON_ONCE(bpf_rbtree_drain(owner));
	mutex_lock(&rbtree_gone_mutex);
	mutex_unlock(&rbtree_gone_mutex);
}

static int __init rbtree_owner_init(void)
{
	/* destroy() of a qdisc waits for it with RTNL held, also where memory is short. */
	rbtree_wq = alloc_workqueue("bpf_rbtree", WQ_UNBOUND | WQ_MEM_RECLAIM, 0);
	return rbtree_wq ? 0 : -ENOMEM;
}
late_initcall(rbtree_owner_init);
