/* SPDX-License-Identifier: GPL-2.0 */
/* The ordered map, BPF_MAP_TYPE_RBTREE
 *
 * Elements are sorted by key. Those with equal keys form a FIFO that hangs off
 * one tree node, so that a constant key is a queue, a handful of keys are
 * priorities, and a time is a calendar:
 *
 *     map->root          first                         last
 *        |                 |                             |
 *        '-- tree: [key 1: a]       [key 5: d]      [key 9: e]
 *                      |                                |
 *                      b  next                          f  next, e->last
 *                      |
 *                      c  next, a->last
 *
 * Only the oldest element of a key is in the tree; it knows the youngest, the
 * others only the next younger one. When the oldest leaves, the next one takes
 * over its place in the tree without rebalancing. The first and the last node
 * are cached: taking the first element and appending behind the last need no
 * descent.
 *
 * Every element has a number, in the order of arrival. A walk remembers key, number and
 * address of the last element that it has seen (rbtree_next()). Elements of a key leave
 * oldest first, so that element is still there if the oldest of its key has a number that
 * is not higher; else the walk goes on with the oldest. It comes to an end because it skips
 * numbers above the one that was the highest when it began. A qdisc breaks the order when it
 * puts a packet back at the front of a key, or takes the youngest of one: that increments
 * map->jumps, and the walk then skips to the next key.
 *
 * Order is what the key's BTF type says: integers by value, with their sign and
 * width, structs member by member. Without BTF, or for other types, it is the
 * order of memcmp().
 *
 * Elements come in chunks, the first one with the map, each next one as large as
 * all before it and ahead of need: when one goes into use, a worker allocates
 * another to be spare. A push that finds no spare allocates a small one itself, as
 * its context permits. Or elements are allocated by bpf_mem_alloc as they come
 * (BPF_F_NO_PREALLOC). Either way the memory of one that has left is used again
 * at once, but stays an element of this map as long as a program may look at it.
 *
 * Objects: a value may hold kptrs, which bpf_kptr_xchg() moves; one task_struct
 * may also come and go with its element (bpf_rbtree_map_push_task()). An update
 * of an existing element leaves them alone; when an element is deleted, or popped
 * as plain bytes, they are released. A map whose value holds one
 * sk_buff is a map of packets. Packets enter and leave by bpf_rbtree_push() and
 * bpf_rbtree_pop() alone, on behalf of an owner, which counts them. The first
 * push claims the map for its owner; while the claim lasts and the map is not
 * empty, nobody else can change it. A claim on an empty map gives way to
 * whoever comes next. It keeps no map alive: the packets of one that is gone wait
 * for their owner, who is told to take them out (bpf_rbtree_detach_gone()). An owner
 * that wants to be rid of all its packets detaches whole trees, each in one step,
 * which a worker frees (bpf_rbtree_detach()).
 *
 * Maps: created with an inner map, this one holds maps, each with a reference.
 * User space sees their ids, programs the maps. The reference is dropped when a
 * program pops a map, but the map's memory stays for a grace period, for that
 * program to use. If there was no other reference the map cannot be pushed again
 * then: bpf_rbtree_map_move() gives it another key without dropping any.
 *
 * Locking: one lock a map. No destructor runs and nothing is allocated under
 * it. Who takes it disables interrupts and holds it for one O(log n) step, so that the
 * owner, in a softirq, never finds the lock taken on its own CPU. Tracing programs, which
 * can run anywhere, are refused for maps of packets by the verifier; should one get through
 * by another way (fentry), the lock answers the second locker on the same CPU with an error
 * instead of a hang.
 *
 * While map->alone is set, nobody but that owner touches the tree, and it pushes and pops
 * without the map's lock: whatever protects the owner, a qdisc's root lock, protects the map.
 * That begins with a claim, if nobody but the owner's programs names the map
 * (bpf_rbtree_use()). It ends with the claim, and for good when the map is shared. Whoever
 * else wants to look shares the map first (bpf_rbtree_share()), where it may sleep: a system
 * call before it looks, a program of another type, of another owner, or with a timer before it
 * can run, an inner map before it is one. Sharing clears map->alone and waits for a grace
 * period: each step of an owner is in an RCU read side, so the last one without the lock is
 * over then.
 *
 * rbtree_owner_lock protects the owners' lists, and who is alone with a map. It nests inside a
 * map's lock.
 *
 * Each file calls only those above it:
 *
 *     rbtree.h		structures; what the usual push and pop inline
 *     rbtree_types.c	BTF: the parts of keys, what values hold
 *     rbtree_tree.c	the order of keys; find, insert, remove
 *     rbtree_elem.c	memory for elements; elements that are values
 *     rbtree_owner.c	claims, who is alone with a map, all packets of an owner
 *     rbtree_packets.c	push and pop of packets
 *     rbtree_walk.c	walks: callbacks, batches, the iterator
 *     rbtree_maps.c	maps of maps
 *     rbtree_kfuncs.c	looks, and all that programs call
 *     rbtree_map.c	the operations of the map type
 */
#ifndef _KERNEL_BPF_RBTREE_H
#define _KERNEL_BPF_RBTREE_H

#include <linux/bpf.h>
#include <linux/bpf_mem_alloc.h>
#include <linux/bpf_rbtree.h>
#include <linux/irq_work.h>
#include <linux/llist.h>
#include <linux/rbtree_augmented.h>
#include <linux/unaligned.h>
#include <net/sch_generic.h>
#include <asm/rqspinlock.h>

/* Most fields in a key. */
#define RBTREE_FIELDS_MAX	16

/* Steps of a walk with the lock held, or of one call. */
#define RBTREE_STEPS		64

struct rbtree_elem {
	union {				/* first: a returned slot is its llist_node */
		struct rbtree_elem *next;	/* next younger of the same key; next free slot */
		struct llist_node returned;
	};
	union {
		struct rbtree_elem *last;	/* youngest; in the oldest only */
		struct llist_node detached;	/* in the root of a tree that was taken out whole */
	};
	union {
		struct rb_node node;		/* in the oldest element of a key only */
		struct rbtree_elem *prev;	/* next older of the same key; in all others */
	};
	u64 number;			/* of its push */
	u64 rank;			/* of the key, see rbtree_rank() */
	char key[] __aligned(8);	/* value follows, at the next multiple of 8 */
};

static_assert(offsetof(struct rbtree_elem, next) == 0);

/* Elements that were allocated together; they are the map's as long as it lives. */
struct rbtree_chunk {
	struct rbtree_chunk *next;
	u32 count;
	char elems[] __aligned(8);
};

/* A part of a key: an integer, or up to eight bytes in the order of memcmp() */
struct rbtree_field {
	u8 off;
	u8 size;
	bool is_signed;
	bool is_bytes;
};

struct bpf_rbtree {
	struct bpf_map map;

	/* One cache line: all that the usual push and pop touch */
	u64 pushed ____cacheline_aligned_in_smp;	/* number of the youngest element */
	u64 popped;
	u64 bytes;			/* of the packets */
	struct rb_root root;
	struct rbtree_elem *first;
	struct rbtree_elem *last;	/* oldest element of the highest key */
	struct rbtree_elem *free;
	struct bpf_rbtree_owner *easy;	/* alone, if is_plain; else NULL */

	rqspinlock_t lock;
	u64 jumps;			/* how often the order of numbers was broken */
	struct llist_head returned;	/* free too; put there without the lock */
	struct bpf_rbtree_owner *alone;	/* the owner, if it needs no lock */
	struct bpf_rbtree_owner *owner;	/* whose list owner_node is on */
	struct list_head owner_node;
	u64 claimed;			/* @pushed when the owner claimed the map */

	/* constant after creation */
	bool key_is_u64;		/* all of it: eight bytes */
	bool rank_is_key;		/* no two keys have the same rank */
	bool no_prealloc;
	bool is_plain;			/* preallocated packets by u64, and nothing beside them */
	bool is_bare;			/* preallocated values that hold nothing to be released */
	bool has_packets;
	bool has_objects;		/* that are not released wherever an element is removed */
	u8 nr_fields;
	u8 nr_ranked;			/* of these, the rank tells their order */
	u32 value_off;			/* from the start of an element */
	u32 elem_size;
	u32 obj_off;			/* of packet, task or map, from the start of an element */
	struct rbtree_field fields[RBTREE_FIELDS_MAX];

	struct rbtree_chunk *spare;	/* of which no element has been used */
	struct rbtree_chunk *chunks;	/* all, with the spare one */
	u32 slots;			/* elements in them, at most max_entries */
	u64 chunk_bytes;
	struct llist_head unused;	/* popped inner maps that nobody else had */
	struct llist_head dead;		/* elements that are out of the tree, with objects */
	atomic_t nr_dead;			/* without preallocation: also of detached trees */
	struct irq_work work_soon;
	struct work_struct work;

	refcount_t refs;		/* the map, or its owner if it is gone; who looks at it */
	bool is_gone;			/* but for what the owner keeps in it */

	struct llist_head detached;	/* trees; put there under the lock, taken without */
	void (*free_obj)(void *obj);	/* what is in these */
	struct llist_node detached_node;	/* on rbtree_detached as long as trees are there */

	struct bpf_mem_alloc ma;	/* of a map without preallocation */
	u64 mark;			/* the last */

	struct bpf_rbtree_owner *sole_user;	/* whose programs alone name the map */
	bool shared;			/* no owner is alone with it, ever again */
};

enum rbtree_which {
	RBTREE_FIRST,
	RBTREE_UNTIL,		/* the first, if its key is at most @key */
	RBTREE_KEY,		/* the oldest of @key */
	RBTREE_KEY_YOUNGEST,	/* the youngest of @key */
	RBTREE_LAST,		/* the youngest of the highest key */
	RBTREE_FROM,		/* the oldest of the first key that is not below @key */
	RBTREE_ABOVE,		/* the oldest of the first key above @key */
};

/* rbtree_types.c */
void rbtree_order_bytes(struct bpf_rbtree *rb);
bool rbtree_holds_tasks(const struct bpf_map *map);

/* rbtree_tree.c; the tree is under the map's lock */
u64 rbtree_rank_slow(const struct bpf_rbtree *rb, const void *key);
int rbtree_cmp_slow(const struct bpf_rbtree *rb, const void *a, const void *b);
struct rbtree_elem *rbtree_find(const struct bpf_rbtree *rb, const void *key);
struct rbtree_elem *rbtree_above(const struct bpf_rbtree *rb, const void *key, bool or_equal);
void rbtree_insert(struct bpf_rbtree *rb, struct rbtree_elem *elem);
void rbtree_link_front(struct bpf_rbtree *rb, struct rbtree_elem *elem);
void rbtree_remove_node(struct bpf_rbtree *rb, struct rbtree_elem *elem);
struct rbtree_elem *rbtree_unlink_youngest(struct bpf_rbtree *rb,
					   struct rbtree_elem *oldest);

/* rbtree_elem.c */
int rbtree_alloc_elems(struct bpf_rbtree *rb);
void rbtree_free(struct bpf_rbtree *rb);
void rbtree_free_work(struct work_struct *work);
void rbtree_grow(struct bpf_rbtree *rb);
int rbtree_grow_now(struct bpf_rbtree *rb, u32 slots);
struct rbtree_elem *rbtree_slots_more(struct bpf_rbtree *rb);
void rbtree_free_dead(struct bpf_rbtree *rb);
void rbtree_copy_fields(struct bpf_rbtree *rb, struct rbtree_elem *elem, void *value);
int rbtree_remove(struct bpf_rbtree *rb, enum rbtree_which which, const void *key,
		  void *key_out, void *value_out);

/* rbtree_owner.c */
bool rbtree_leave_to_owner(struct bpf_rbtree *rb);
int rbtree_claim(struct bpf_rbtree *rb, struct bpf_rbtree_owner *owner);

/* rbtree_walk.c */
long rbtree_for_each(struct bpf_map *map, bpf_callback_t callback_fn,
		     void *callback_ctx, u64 flags);
int rbtree_lookup_batch(struct bpf_map *map, const union bpf_attr *attr,
			union bpf_attr __user *uattr);
int rbtree_lookup_and_delete_batch(struct bpf_map *map, const union bpf_attr *attr,
				   union bpf_attr __user *uattr);
extern const struct bpf_iter_seq_info rbtree_seq_info;

/* rbtree_maps.c */
void rbtree_set_inner(struct bpf_rbtree *rb, struct rbtree_elem *elem,
		      struct bpf_map *inner);
void rbtree_free_unused(struct bpf_rbtree *rb);
int rbtree_alloc_outer(struct bpf_rbtree *rb, int inner_map_fd);
void rbtree_free_outer(struct bpf_rbtree *rb);

static inline struct bpf_rbtree *to_rbtree(const struct bpf_map *map)
{
	return container_of(map, struct bpf_rbtree, map);
}

static inline void *elem_value(const struct bpf_rbtree *rb, struct rbtree_elem *elem)
{
	return (void *)elem + rb->value_off;
}

static inline struct rbtree_elem *value_elem(const struct bpf_rbtree *rb, void *value)
{
	return value - rb->value_off;
}

static inline void **elem_obj(const struct bpf_rbtree *rb, struct rbtree_elem *elem)
{
	return (void *)elem + rb->obj_off;
}

static inline struct rbtree_elem *node_elem(struct rb_node *node)
{
	return rb_entry_safe(node, struct rbtree_elem, node);
}

static inline u64 rbtree_count(const struct bpf_rbtree *rb)
{
	return READ_ONCE(rb->pushed) - READ_ONCE(rb->popped);
}

/* Without the lock the two numbers may be of different times, and their difference below
 * zero, or too large.
 */
static inline u32 rbtree_count_unlocked(const struct bpf_rbtree *rb)
{
	return clamp_t(s64, rbtree_count(rb), 0, rb->map.max_entries);
}

static inline bool rbtree_is(const struct bpf_map *map)
{
	return map->map_type == BPF_MAP_TYPE_RBTREE;
}

static inline bool rbtree_holds_maps(const struct bpf_map *map)
{
	return rbtree_is(map) && map->inner_map_meta;
}

static inline bool rbtree_is_shared(const struct bpf_rbtree *rb)
{
	return smp_load_acquire(&rb->shared);	/* pairs with rbtree_share() */
}

/* The template of an inner map is only a struct bpf_map, and has no id. */
static inline bool rbtree_can_be_shared(const struct bpf_map *map)
{
	return bpf_rbtree_holds_packets(map) && map->id;
}

/* Keys and values of these sizes are frequent, and the call of memcpy() costs more than their
 * copy.
 */
static __always_inline void rbtree_copy(void *to, const void *from, u32 size)
{
	switch (size) {
	case 4:
		put_unaligned(get_unaligned((const u32 *)from), (u32 *)to);
		break;
	case 8:
		put_unaligned(get_unaligned((const u64 *)from), (u64 *)to);
		break;
	default:
		memcpy(to, from, size);
	}
}

/* ---- order ---- */

/* The order of keys is that of their ranks, except where these are equal. */
static __always_inline u64 rbtree_rank(const struct bpf_rbtree *rb, const void *key)
{
	if (likely(rb->key_is_u64))
		return get_unaligned((const u64 *)key);
	return rbtree_rank_slow(rb, key);
}

/* Where @key, whose rank is @rank, stands to the key of @elem. */
static __always_inline int rbtree_cmp(const struct bpf_rbtree *rb, u64 rank, const void *key,
				      const struct rbtree_elem *elem)
{
	if (rank != elem->rank)
		return rank < elem->rank ? -1 : 1;
	return likely(rb->rank_is_key) ? 0 : rbtree_cmp_slow(rb, key, elem->key);
}

static __always_inline void rbtree_set_key(const struct bpf_rbtree *rb, struct rbtree_elem *elem,
					   const void *key)
{
	if (likely(rb->key_is_u64)) {
		elem->rank = get_unaligned((const u64 *)key);
		*(u64 *)elem->key = elem->rank;
	} else {
		/* Others may write to @key meanwhile: the rank is that of what is stored. */
		memcpy(elem->key, key, rb->map.key_size);
		elem->rank = rbtree_rank_slow(rb, elem->key);
	}
}

/* ---- the tree, under the map's lock ---- */

/* @elem is the only node: what rb_link_node() and rb_insert_color() would do. */
static __always_inline void rbtree_set_only(struct bpf_rbtree *rb, struct rbtree_elem *elem)
{
	elem->node = (struct rb_node){ .__rb_parent_color = RB_BLACK };
	rb->root.rb_node = &elem->node;
	rb->first = elem;
	rb->last = elem;
}

/* The caller has set elem->key and elem->rank. */
static __always_inline void rbtree_link(struct bpf_rbtree *rb, struct rbtree_elem *elem)
{
	elem->next = NULL;
	elem->number = ++rb->pushed;
	if (rb->first) {
		rbtree_insert(rb, elem);
	} else {
		elem->last = elem;
		rbtree_set_only(rb, elem);
	}
}

/* The oldest of a key leaves before @heir. A walk that has seen it takes it for still there
 * if both have one number, as rbtree_link_front() gives it.
 */
static __always_inline void rbtree_heir_follows(struct bpf_rbtree *rb,
						const struct rbtree_elem *elem,
						const struct rbtree_elem *heir)
{
	if (unlikely(heir->number == elem->number))
		rb->jumps++;
}

/* Take the oldest element out where all have one key. */
static __always_inline void rbtree_unlink_only(struct bpf_rbtree *rb, struct rbtree_elem *elem)
{
	struct rbtree_elem *heir = elem->next;

	rb->popped++;
	if (heir) {	/* a FIFO */
		rbtree_heir_follows(rb, elem, heir);
		heir->last = elem->last;
		rbtree_set_only(rb, heir);
	} else {
		rb->root.rb_node = NULL;
		rb->first = NULL;
		rb->last = NULL;
	}
}

/* Take the oldest element of a key out. */
static __always_inline void rbtree_unlink(struct bpf_rbtree *rb, struct rbtree_elem *elem)
{
	if (rb->first == rb->last) {
		rbtree_unlink_only(rb, elem);
	} else {
		rb->popped++;
		rbtree_remove_node(rb, elem);
	}
}

/* The oldest element of the key that is meant, or NULL. */
static __always_inline struct rbtree_elem *
rbtree_which(struct bpf_rbtree *rb, enum rbtree_which which, const void *key)
{
	switch (which) {
	case RBTREE_KEY:
	case RBTREE_KEY_YOUNGEST:
		return rbtree_find(rb, key);
	case RBTREE_LAST:
		return rb->last;
	case RBTREE_FROM:
	case RBTREE_ABOVE:
		return rbtree_above(rb, key, which == RBTREE_FROM);
	default:
		return rb->first;
	}
}

/* Is the key of the first element, @elem, higher than @key? */
static __always_inline bool rbtree_beyond(const struct bpf_rbtree *rb,
					  const struct rbtree_elem *elem, const void *key)
{
	return rbtree_cmp(rb, rbtree_rank(rb, key), key, elem) < 0;
}

static __always_inline void rbtree_copy_out(struct bpf_rbtree *rb, struct rbtree_elem *elem,
					    void *key, void *value)
{
	if (key)
		rbtree_copy(key, elem->key, rb->map.key_size);
	if (!value)
		return;
	if (likely(rb->is_bare))
		rbtree_copy(value, elem_value(rb, elem), rb->map.value_size);
	else
		rbtree_copy_fields(rb, elem, value);
}

/* ---- memory for elements ---- */

static inline struct rbtree_elem *rbtree_slot_get(struct bpf_rbtree *rb)
{
	struct rbtree_elem *elem = rb->free;

	if (unlikely(!elem)) {
		elem = rbtree_slots_more(rb);
		if (!elem)
			return NULL;
	}
	rb->free = elem->next;
	return elem;
}

static inline void rbtree_slot_put(struct bpf_rbtree *rb, struct rbtree_elem *elem)
{
	elem->next = rb->free;
	rb->free = elem;
}

/* Before the lock is taken: memory for an element that may be needed. */
static __always_inline int rbtree_spare_get(struct bpf_rbtree *rb, struct rbtree_elem **spare)
{
	*spare = NULL;
	if (likely(!rb->no_prealloc))
		return 0;
	*spare = bpf_mem_cache_alloc(&rb->ma);
	return *spare ? 0 : -ENOMEM;
}

/* Under the lock: a new element, or NULL if there is none: see rbtree_grow_now(). */
static __always_inline struct rbtree_elem *
rbtree_elem_get(struct bpf_rbtree *rb, struct rbtree_elem **spare)
{
	struct rbtree_elem *elem = *spare;

	if (likely(!elem))
		return rbtree_slot_get(rb);
	if (rbtree_count(rb) + atomic_read(&rb->nr_dead) >= rb->map.max_entries)
		return NULL;
	*spare = NULL;
	return elem;
}

/* Without the lock: an element that was allocated and is not used any more, or NULL. */
static __always_inline void rbtree_spare_put(struct bpf_rbtree *rb, struct rbtree_elem *spare)
{
	if (unlikely(spare))
		bpf_mem_cache_free(&rb->ma, spare);
}

/* ---- packets ---- */

/* Bytes of a packet, as the qdisc layer counts them */
static __always_inline u32 rbtree_packet_len(const void *obj)
{
#ifdef CONFIG_NET
	return qdisc_pkt_len(obj);
#else
	return 0;
#endif
}

/* Take an element out, the oldest of a key or the youngest, as @which says; its object
 * becomes the caller's. Returns it for rbtree_spare_put() if the map allocates each.
 */
static __always_inline struct rbtree_elem *
rbtree_take(struct bpf_rbtree *rb, struct rbtree_elem *elem, enum rbtree_which which, void **obj)
{
	void **slot;

	if (which == RBTREE_LAST || which == RBTREE_KEY_YOUNGEST)
		elem = rbtree_unlink_youngest(rb, elem);
	else
		rbtree_unlink(rb, elem);
	slot = elem_obj(rb, elem);
	*obj = *slot;
	*slot = NULL;
	if (unlikely(rb->no_prealloc))
		return elem;
	rbtree_slot_put(rb, elem);
	return NULL;
}

/* ---- maps of maps ---- */

/* The memory of an inner map that leaves stays for a grace period of both kinds, so that
 * programs can use it: one that cannot sleep may have found it in a callback that can.
 */
static inline void rbtree_inner_leaves(struct bpf_map *inner)
{
	WRITE_ONCE(inner->free_after_mult_rcu_gp, true);
}

static inline void rbtree_inner_put(struct bpf_map *inner)
{
	rbtree_inner_leaves(inner);
	bpf_map_put(inner);
}

/* ---- looks ---- */

/* What a program gets: the value, or the map that it stands for. */
static inline void *rbtree_result(struct bpf_rbtree *rb, struct rbtree_elem *elem)
{
	return rb->map.inner_map_meta ? *elem_obj(rb, elem) : elem_value(rb, elem);
}

/* Find an element; copy its key, and what a program gets, to where they are wanted.
 * NULL if there is none, ERR_PTR(-EBUSY) without the lock.
 */
static __always_inline struct rbtree_elem *
rbtree_look_elem(struct bpf_rbtree *rb, enum rbtree_which which, const void *key, void *key_out,
		 void **result)
{
	struct rbtree_elem *elem;
	unsigned long flags;

	if (raw_res_spin_lock_irqsave(&rb->lock, flags))
		return ERR_PTR(-EBUSY);
	elem = rbtree_which(rb, which, key);
	if (which == RBTREE_LAST && elem)
		elem = elem->last;
	if (elem && key_out)
		memcpy(key_out, elem->key, rb->map.key_size);
	if (elem && result)
		*result = rbtree_result(rb, elem);
	raw_res_spin_unlock_irqrestore(&rb->lock, flags);
	return elem;
}

static __always_inline void *rbtree_look(struct bpf_rbtree *rb, enum rbtree_which which,
					 const void *key, void *key_out)
{
	void *result = NULL;

	rbtree_look_elem(rb, which, key, key_out, &result);
	return result;
}

#endif /* _KERNEL_BPF_RBTREE_H */
