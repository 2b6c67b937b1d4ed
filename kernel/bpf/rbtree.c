// SPDX-License-Identifier: GPL-2.0
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
 * Every element has a number, in the order of arrival. Elements of one key leave
 * from the front: as long as the oldest of a key is not younger than some
 * element of that key, this element is still there. So a walk needs to remember
 * no more than key, number and address of the last element it has seen, whatever
 * happens meanwhile, and one that is told to stop at the number that was the
 * highest when it began comes to an end (rbtree_next()). A qdisc may also put a packet
 * back at the front of a key, or take the youngest of one: map->jumps tells a walk that
 * such a thing has happened, and it then goes on with the next key.
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
 * it. The owner's path is the hot one: it runs with bottom halves off and takes
 * the lock plainly. Everybody else disables interrupts and holds it for one
 * O(log n) step, so that the owner, in a softirq, never finds the lock taken on
 * its own CPU. Tracing programs, which can run anywhere, are refused for maps of
 * packets by the verifier; should one get through by another way (fentry), the
 * lock answers the second locker on the same CPU with an error instead of a
 * hang.
 *
 * An owner that is alone with its map takes no lock: whatever protects the owner, a
 * qdisc's root lock, protects the map. It is alone from its claim on if nobody but its
 * programs names the map (bpf_rbtree_use()). Whoever else wants to look shares the map
 * first (bpf_rbtree_share()), where it may sleep: a system call before it looks, a program
 * of another type, of another owner, or with a timer before it can run, an inner map before it
 * is one. All steps of an owner are in RCU's read side: after a grace period it takes the lock.
 * A map that was shared stays so.
 *
 * rbtree_owner_lock protects the owners' lists, and who is alone with a map. It nests inside a
 * map's lock.
 */
#include <linux/bpf.h>
#include <linux/bpf_rbtree.h>
#include <linux/btf.h>
#include <linux/btf_ids.h>
#include <linux/irq_work.h>
#include <linux/llist.h>
#include <linux/bpf_mem_alloc.h>
#include <linux/bpf_verifier.h>
#include <linux/rbtree_augmented.h>
#include <linux/rcupdate_trace.h>
#include <linux/sched/task.h>
#include <linux/spinlock.h>
#include <linux/unaligned.h>
#include <linux/workqueue.h>
#include <net/sch_generic.h>
#include <asm/rqspinlock.h>
#include "map_in_map.h"

#define RBTREE_CREATE_FLAG_MASK \
	(BPF_F_NO_PREALLOC | BPF_F_NUMA_NODE | BPF_F_ACCESS_MASK)

/* Most fields in a key. */
#define RBTREE_FIELDS_MAX	16

/* Types in a key: one in another, and in all. */
#define RBTREE_TYPES_DEPTH	8
#define RBTREE_TYPES_MAX	128

/* Bytes of the first chunk of elements, and of one that a push allocates. A map of so few
 * elements, or of such large ones that few fit, has all of them in its first chunk.
 */
#define RBTREE_CHUNK		4096
#define RBTREE_CHUNK_FEW	64
#define RBTREE_CHUNK_LARGE	(RBTREE_CHUNK / 8)

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
	struct bpf_rbtree_owner *easy;	/* alone, if the map is plain */

	rqspinlock_t lock;
	u64 jumps;			/* what a walk could not tell from the numbers */
	struct llist_head returned;	/* free too; put there without the lock */
	struct bpf_rbtree_owner *alone;	/* the owner, if it needs no lock */
	struct bpf_rbtree_owner *owner;	/* whose list owner_node is on */
	struct list_head owner_node;

	/* constant after creation */
	bool key_is_u64;		/* all of it: eight bytes */
	bool rank_is_key;		/* no two keys have the same rank */
	bool no_prealloc;
	bool is_plain;			/* preallocated packets by u64, and nothing beside them */
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

	refcount_t users;		/* the map, or its owner if it is gone; who looks at it */
	bool is_gone;			/* but for what the owner keeps in it */

	struct llist_head detached;	/* trees; put there under the lock, taken without */
	void (*free_obj)(void *obj);	/* what is in these */
	struct llist_node detached_node;	/* on rbtree_detached as long as trees are there */

	struct bpf_mem_alloc ma;	/* of a map without preallocation */
	u64 mark;			/* the last */

	struct bpf_rbtree_owner *user;	/* whose programs alone name the map */
	bool shared;			/* no owner is alone with it, ever again */
};

static DEFINE_RAW_SPINLOCK(rbtree_owner_lock);

/* Held while an owner is told of a map that is gone: it does not go meanwhile. */
static DEFINE_MUTEX(rbtree_gone_mutex);

/* Protects who uses maps, and is held until a map that is to be shared is. */
static DEFINE_MUTEX(rbtree_use_mutex);

static struct workqueue_struct *rbtree_wq;

static void rbtree_free_work(struct work_struct *work);

/* Maps whose objects rbtree_free_detached() is to free */
static LLIST_HEAD(rbtree_detached);

BTF_ID_LIST(rbtree_btf_ids)
BTF_ID(struct, bpf_rbtree)
#ifdef CONFIG_NET
BTF_ID(struct, sk_buff)
#else
BTF_ID_UNUSED
#endif
BTF_ID(struct, task_struct)

static struct bpf_rbtree *to_rbtree(const struct bpf_map *map)
{
	return container_of(map, struct bpf_rbtree, map);
}

static void *elem_value(const struct bpf_rbtree *rb, struct rbtree_elem *elem)
{
	return (void *)elem + rb->value_off;
}

static struct rbtree_elem *value_elem(const struct bpf_rbtree *rb, void *value)
{
	return value - rb->value_off;
}

static void **elem_obj(const struct bpf_rbtree *rb, struct rbtree_elem *elem)
{
	return (void *)elem + rb->obj_off;
}

static struct rbtree_elem *node_elem(struct rb_node *node)
{
	return rb_entry_safe(node, struct rbtree_elem, node);
}

static u64 rbtree_count(const struct bpf_rbtree *rb)
{
	return READ_ONCE(rb->pushed) - READ_ONCE(rb->popped);
}

/* Without the lock the two numbers may be of different times, and their difference below
 * zero, or too large.
 */
static u32 rbtree_count_unlocked(const struct bpf_rbtree *rb)
{
	return clamp_t(s64, rbtree_count(rb), 0, rb->map.max_entries);
}

/* ---- order ---- */

static noinline u64 field_load_bytes(const struct rbtree_field *f, const void *key)
{
	const u8 *p = key + f->off;
	u64 v = 0;
	int i;

	if (f->size == sizeof(v))
		return get_unaligned_be64(p);
	for (i = 0; i < f->size; i++)
		v = v << 8 | p[i];
	return v;
}

static u64 field_load(const struct rbtree_field *f, const void *key)
{
	const void *p = key + f->off;
	u64 v;

	if (unlikely(f->is_bytes))
		return field_load_bytes(f, key);
	switch (f->size) {
	case 1:
		v = *(const u8 *)p;
		break;
	case 2:
		v = get_unaligned((const u16 *)p);
		break;
	case 4:
		v = get_unaligned((const u32 *)p);
		break;
	default:
		v = get_unaligned((const u64 *)p);
		break;
	}
	if (!f->is_signed)
		return v;
	/* Flip the sign bit: the signed order is then the unsigned one. */
	return v ^ (1ULL << (f->size * 8 - 1));
}

static noinline u64 rbtree_rank_slow(const struct bpf_rbtree *rb, const void *key)
{
	int i, left = 64;
	u64 rank = 0;

	for (i = 0; i < rb->nr_ranked; i++) {
		left -= rb->fields[i].size * 8;
		rank |= field_load(&rb->fields[i], key) << left;
	}
	return rank;
}

/* The order of keys is that of their ranks, except where these are equal. */
static __always_inline u64 rbtree_rank(const struct bpf_rbtree *rb, const void *key)
{
	if (likely(rb->key_is_u64))
		return get_unaligned((const u64 *)key);
	return rbtree_rank_slow(rb, key);
}

static noinline int rbtree_cmp_slow(const struct bpf_rbtree *rb, const void *a, const void *b)
{
	int i;

	for (i = rb->nr_ranked; i < rb->nr_fields; i++) {
		u64 x = field_load(&rb->fields[i], a), y = field_load(&rb->fields[i], b);

		if (x != y)
			return x < y ? -1 : 1;
	}
	return 0;
}

/* Where @key, whose rank is @rank, stands to the key of @elem. */
static __always_inline int rbtree_cmp(const struct bpf_rbtree *rb, u64 rank, const void *key,
				      const struct rbtree_elem *elem)
{
	if (rank != elem->rank)
		return rank < elem->rank ? -1 : 1;
	return likely(rb->rank_is_key) ? 0 : rbtree_cmp_slow(rb, key, elem->key);
}

static bool rbtree_same_key(const struct bpf_rbtree *rb, const void *a, const void *b)
{
	return rbtree_rank(rb, a) == rbtree_rank(rb, b) &&
	       (rb->rank_is_key || !rbtree_cmp_slow(rb, a, b));
}

/* The rank is made of as many fields as fit. */
static void rbtree_set_rank(struct bpf_rbtree *rb)
{
	int left = 64;

	rb->nr_ranked = 0;
	while (rb->nr_ranked < rb->nr_fields) {
		left -= rb->fields[rb->nr_ranked].size * 8;
		if (left < 0)
			break;
		rb->nr_ranked++;
	}
	rb->rank_is_key = rb->nr_ranked == rb->nr_fields;
	/* A key may be longer than its only integer. */
	rb->key_is_u64 = rb->map.key_size == sizeof(u64) && rb->nr_fields == 1 &&
			 rb->fields[0].size == sizeof(u64) && !rb->fields[0].is_signed &&
			 !rb->fields[0].is_bytes;
}

static const char *rbtree_key_add(struct bpf_rbtree *rb, u32 off, u32 size, bool is_signed,
				  bool is_bytes)
{
	if (rb->nr_fields == RBTREE_FIELDS_MAX)
		return "more than 16 parts";
	rb->fields[rb->nr_fields++] = (struct rbtree_field) {
		.off = off, .size = size, .is_signed = is_signed, .is_bytes = is_bytes,
	};
	return NULL;
}

static const char *rbtree_key_add_bytes(struct bpf_rbtree *rb, u32 off, u32 size)
{
	const char *reason = NULL;
	u32 n;

	for (; size && !reason; size -= n, off += n) {
		n = min_t(u32, size, sizeof(u64));
		reason = rbtree_key_add(rb, off, n, false, true);
	}
	return reason;
}

/* ---- the tree; all of it under the map's lock ---- */

/* Oldest element of @key, or NULL. */
static struct rbtree_elem *rbtree_find(const struct bpf_rbtree *rb, const void *key)
{
	struct rb_node *node = rb->root.rb_node;
	u64 rank = rbtree_rank(rb, key);

	while (node) {
		struct rbtree_elem *elem = node_elem(node);
		int c = rbtree_cmp(rb, rank, key, elem);

		if (!c)
			return elem;
		node = c < 0 ? node->rb_left : node->rb_right;
	}
	return NULL;
}

/* First element with a key above @key, or also with @key itself; or NULL. */
static struct rbtree_elem *rbtree_above(const struct bpf_rbtree *rb, const void *key, bool or_equal)
{
	struct rb_node *node = rb->root.rb_node;
	struct rbtree_elem *above = NULL;
	u64 rank = rbtree_rank(rb, key);

	while (node) {
		struct rbtree_elem *elem = node_elem(node);

		if (rbtree_cmp(rb, rank, key, elem) < or_equal) {
			above = elem;
			node = node->rb_left;
		} else {
			node = node->rb_right;
		}
	}
	return above;
}

static void rbtree_append(struct rbtree_elem *oldest, struct rbtree_elem *elem)
{
	elem->prev = oldest->last;
	oldest->last->next = elem;
	oldest->last = elem;
}

static noinline void rbtree_insert(struct bpf_rbtree *rb, struct rbtree_elem *elem)
{
	struct rb_node **link = &rb->root.rb_node, *parent = NULL;
	bool leftmost = true;
	int c;

	c = rbtree_cmp(rb, elem->rank, elem->key, rb->last);
	if (!c) {
		rbtree_append(rb->last, elem);
		return;
	}
	if (c > 0) {
		parent = &rb->last->node;
		link = &parent->rb_right;
		leftmost = false;
		rb->last = elem;
	}

	while (*link) {
		struct rbtree_elem *e = node_elem(*link);

		c = rbtree_cmp(rb, elem->rank, elem->key, e);
		if (!c) {
			rbtree_append(e, elem);
			return;
		}
		parent = *link;
		if (c < 0) {
			link = &parent->rb_left;
		} else {
			link = &parent->rb_right;
			leftmost = false;
		}
	}

	elem->last = elem;
	if (leftmost)
		rb->first = elem;
	rb_link_node(&elem->node, parent, link);
	rb_insert_color(&elem->node, &rb->root);
}

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

/* Put an element before all others of its key. */
static noinline void rbtree_link_front(struct bpf_rbtree *rb, struct rbtree_elem *elem)
{
	struct rbtree_elem *oldest = rbtree_find(rb, elem->key);

	if (!oldest) {
		rbtree_link(rb, elem);
		return;
	}
	rb->pushed++;
	rb->jumps++;
	elem->number = oldest->number;
	elem->next = oldest;
	elem->last = oldest->last;
	rb_replace_node(&oldest->node, &elem->node, &rb->root);
	oldest->prev = elem;
	if (rb->first == oldest)
		rb->first = elem;
	if (rb->last == oldest)
		rb->last = elem;
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

static noinline void rbtree_remove_node(struct bpf_rbtree *rb, struct rbtree_elem *elem)
{
	struct rbtree_elem *heir = elem->next;

	if (heir) {
		rbtree_heir_follows(rb, elem, heir);
		heir->last = elem->last;
		if (rb->first == elem)
			rb->first = heir;
		if (rb->last == elem)
			rb->last = heir;
		rb_replace_node(&elem->node, &heir->node, &rb->root);
		return;
	}
	if (rb->first == elem)
		rb->first = node_elem(rb_next(&elem->node));
	if (rb->last == elem)
		rb->last = node_elem(rb_prev(&elem->node));
	rb_erase(&elem->node, &rb->root);
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

/* Take the youngest element of the key out whose oldest one is @oldest. */
static noinline struct rbtree_elem *rbtree_unlink_youngest(struct bpf_rbtree *rb,
							   struct rbtree_elem *oldest)
{
	struct rbtree_elem *elem = oldest->last;

	if (elem == oldest) {
		rbtree_unlink(rb, elem);
	} else {
		rb->popped++;
		rb->jumps++;
		oldest->last = elem->prev;
		elem->prev->next = NULL;
	}
	return elem;
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

static void rbtree_work_soon(struct irq_work *work)
{
	struct bpf_rbtree *rb = container_of(work, struct bpf_rbtree, work_soon);

	queue_work(system_dfl_wq, &rb->work);
}

/* Allocate a spare chunk, as large as all others together. */
static void rbtree_grow(struct bpf_rbtree *rb)
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
static noinline int rbtree_grow_now(struct bpf_rbtree *rb, u32 slots)
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
static noinline struct rbtree_elem *rbtree_slots_more(struct bpf_rbtree *rb)
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

static struct rbtree_elem *rbtree_slot_get(struct bpf_rbtree *rb)
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

static void rbtree_slot_put(struct bpf_rbtree *rb, struct rbtree_elem *elem)
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

/* ---- maps of packets: claims, push and pop ---- */

static bool rbtree_is(const struct bpf_map *map)
{
	return map->map_type == BPF_MAP_TYPE_RBTREE;
}

static bool rbtree_holds_maps(const struct bpf_map *map)
{
	return rbtree_is(map) && map->inner_map_meta;
}

static bool rbtree_holds(const struct bpf_map *map, u32 btf_id)
{
	const struct btf_record *rec = map->record;

	return rbtree_is(map) && !IS_ERR_OR_NULL(rec) &&
	       rec->cnt == 1 && rec->fields[0].type == BPF_KPTR_REF &&
	       btf_is_kernel(rec->fields[0].kptr.btf) &&
	       rec->fields[0].kptr.btf_id == btf_id;
}

/**
 * bpf_rbtree_holds_packets() - is this an ordered map of packets?
 * @map: any map, also the template of an inner map
 *
 * Context: any.
 * Return: true for a BPF_MAP_TYPE_RBTREE whose value holds one sk_buff kptr.
 */
bool bpf_rbtree_holds_packets(const struct bpf_map *map)
{
	return rbtree_holds(map, rbtree_btf_ids[1]);
}

/**
 * bpf_rbtree_leads_to_packets() - can a program get at packets by this map?
 * @map: any map
 *
 * Context: any.
 * Return: true for a map of packets, and for a map of such maps.
 */
bool bpf_rbtree_leads_to_packets(const struct bpf_map *map)
{
	return bpf_rbtree_holds_packets(map) ||
	       (map->inner_map_meta && bpf_rbtree_holds_packets(map->inner_map_meta));
}

static bool rbtree_holds_tasks(const struct bpf_map *map)
{
	return rbtree_holds(map, rbtree_btf_ids[2]);
}

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

/* The memory of a map outlives the map as long as an owner keeps objects in it, which no
 * program can reach any more, or looks at it.
 */
static void rbtree_put(struct bpf_rbtree *rb)
{
	if (refcount_dec_and_test(&rb->users)) {
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
		refcount_dec(&rb->users);
	rb->is_gone = false;
	raw_spin_unlock(&rbtree_owner_lock);
}

/* Nobody can reach the map any more. If an owner keeps objects in it, its memory stays until
 * they are taken out, which the owner is told to do: returns true. An empty map has no owner
 * afterwards.
 */
static bool rbtree_leave_to_owner(struct bpf_rbtree *rb)
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

/* Called with the map's lock held, by somebody else than the owner. A claim takes no
 * reference: a map that goes away ends it, see rbtree_leave_to_owner().
 */
static noinline int rbtree_claim(struct bpf_rbtree *rb, struct bpf_rbtree_owner *owner)
{
	unsigned long flags;

	if (rb->owner && rbtree_count(rb))
		return -EBUSY;

	raw_spin_lock_irqsave(&rbtree_owner_lock, flags);
	list_move_tail(&rb->owner_node, &owner->maps);
	rb->owner = owner;
	rbtree_set_alone(rb, READ_ONCE(rb->user) == owner ? owner : NULL);
	raw_spin_unlock_irqrestore(&rbtree_owner_lock, flags);
	return 0;
}

/* Under rbtree_use_mutex: no owner is alone with the map afterwards. */
static void rbtree_share(struct bpf_rbtree *rb)
{
	unsigned long flags;
	bool alone;

	raw_spin_lock_irqsave(&rbtree_owner_lock, flags);
	alone = rb->alone;
	rb->user = NULL;
	rbtree_set_alone(rb, NULL);
	raw_spin_unlock_irqrestore(&rbtree_owner_lock, flags);
	if (alone)	/* its steps without the lock come to an end */
		synchronize_rcu_expedited();
	smp_store_release(&rb->shared, true);	/* after these steps */
}

static bool rbtree_is_shared(const struct bpf_rbtree *rb)
{
	return smp_load_acquire(&rb->shared);	/* pairs with rbtree_share() */
}

/* The template of an inner map is only a struct bpf_map, and has no id. */
static bool rbtree_can_be_shared(const struct bpf_map *map)
{
	return bpf_rbtree_holds_packets(map) && map->id;
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
	struct bpf_rbtree_owner *user;
	struct bpf_rbtree *rb = to_rbtree(map);

	if (!rbtree_can_be_shared(map))
		return;
	mutex_lock(&rbtree_use_mutex);
	user = READ_ONCE(rb->user);
	if (user && user != owner)
		rbtree_share(rb);
	else if (!user && !rb->shared)
		WRITE_ONCE(rb->user, owner);
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
	/* No mutex, which a grace period may hold: others store only where there is none. */
	cmpxchg(&rb->user, owner, NULL);
}

/* A step of an owner begins: is there need of the lock? */
static __always_inline int rbtree_step_begin(struct bpf_rbtree *rb,
					     const struct bpf_rbtree_owner *owner, bool *locked)
{
	*locked = READ_ONCE(rb->alone) != owner;
	return unlikely(*locked) ? raw_res_spin_lock(&rb->lock) : 0;
}

static __always_inline void rbtree_step_end(struct bpf_rbtree *rb, bool locked)
{
	if (unlikely(locked))
		raw_res_spin_unlock(&rb->lock);
}

/* Bytes of a packet, as the qdisc layer counts them */
static __always_inline u32 rbtree_packet_len(const void *obj)
{
#ifdef CONFIG_NET
	return qdisc_pkt_len(obj);
#else
	return 0;
#endif
}

/* An element of a map that is plain is a key of eight bytes and an object. */
static __always_inline void rbtree_plain_fill(struct rbtree_elem *elem, const void *key, void *obj)
{
	elem->rank = get_unaligned((const u64 *)key);
	((u64 *)elem->key)[0] = elem->rank;
	((void **)elem->key)[1] = obj;
}

static noinline int rbtree_push_obj(struct bpf_map *map, struct bpf_rbtree_owner *owner,
				    const void *key, void *obj, bool front)
{
	struct bpf_rbtree *rb = to_rbtree(map);
	struct rbtree_elem *elem, *spare;
	bool locked;
	u32 slots;
	int err;

	spare = NULL;
	if (unlikely(!rb->is_plain)) {
		err = rbtree_spare_get(rb, &spare);
		if (err)
			return err;
	}
again:
	err = rbtree_step_begin(rb, owner, &locked);
	if (unlikely(err))
		goto out;

	if (unlikely(locked && rb->owner != owner)) {
		err = rbtree_claim(rb, owner);
		if (unlikely(err)) {
			raw_res_spin_unlock(&rb->lock);
			goto out;
		}
	}

	elem = rb->free;
	if (likely(elem && rb->is_plain)) {
		rb->free = elem->next;
		rbtree_plain_fill(elem, key, obj);
	} else {
		elem = rbtree_elem_get(rb, &spare);
		if (unlikely(!elem)) {
			slots = READ_ONCE(rb->slots);
			rbtree_step_end(rb, locked);
			err = rbtree_grow_now(rb, slots);
			if (!err)
				goto again;
			goto out;
		}
		rbtree_set_key(rb, elem, key);
		memset(elem_value(rb, elem), 0, rb->map.value_size);
		*elem_obj(rb, elem) = obj;
	}
	if (front)
		rbtree_link_front(rb, elem);
	else
		rbtree_link(rb, elem);
	rb->bytes += rbtree_packet_len(obj);
	rbtree_step_end(rb, locked);
out:
	rbtree_spare_put(rb, spare);
	return err;
}

/* Without the lock, and of no other form than most: no call but the last thing in what follows,
 * so that no register is saved.
 */
static __always_inline bool rbtree_is_easy(const struct bpf_rbtree *rb,
					   const struct bpf_rbtree_owner *owner)
{
	return likely(READ_ONCE(rb->easy) == owner);
}

/**
 * bpf_rbtree_push() - store an object behind all others with an equal key
 * @map: an ordered map of packets
 * @owner: who stores it; the map is claimed for it if nobody else holds it
 * @key: key, map->key_size bytes
 * @obj: the object; the map takes over the reference on success
 *
 * Context: bottom halves off, not in hard interrupt or NMI.
 * Return: 0; -E2BIG if the map is full; -ENOMEM without memory for an element;
 * -EBUSY if another owner keeps objects in it; -EDEADLK or -ETIMEDOUT if its lock could
 * not be had.
 */
int bpf_rbtree_push(struct bpf_map *map, struct bpf_rbtree_owner *owner,
		    const void *key, void *obj)
{
	struct bpf_rbtree *rb = to_rbtree(map);
	struct rbtree_elem *elem;

	if (!rbtree_is_easy(rb, owner) || unlikely(!rb->free))
		return rbtree_push_obj(map, owner, key, obj, false);
	elem = rb->free;
	rb->free = elem->next;
	rbtree_plain_fill(elem, key, obj);
	rb->bytes += rbtree_packet_len(obj);
	rbtree_link(rb, elem);
	return 0;
}

/**
 * bpf_rbtree_push_front() - store an object before all others with an equal key
 * @map: an ordered map of packets
 * @owner: who stores it; the map is claimed for it if nobody else holds it
 * @key: key, map->key_size bytes
 * @obj: the object; the map takes over the reference on success
 *
 * Context: as bpf_rbtree_push().
 * Return: as bpf_rbtree_push().
 */
int bpf_rbtree_push_front(struct bpf_map *map, struct bpf_rbtree_owner *owner,
			  const void *key, void *obj)
{
	return rbtree_push_obj(map, owner, key, obj, true);
}

enum rbtree_which {
	RBTREE_FIRST,
	RBTREE_UNTIL,		/* the first, if its key is at most @key */
	RBTREE_KEY,		/* the oldest of @key */
	RBTREE_KEY_YOUNGEST,	/* the youngest of @key */
	RBTREE_LAST,		/* the youngest of the highest key */
	RBTREE_FROM,		/* the oldest of the first key that is not below @key */
	RBTREE_ABOVE,		/* the oldest of the first key above @key */
};

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

static __always_inline void *rbtree_pop(struct bpf_map *map, struct bpf_rbtree_owner *owner,
					const void *key, u64 *first, enum rbtree_which which)
{
	struct rbtree_elem *elem, *spare = NULL;
	struct bpf_rbtree *rb = to_rbtree(map);
	void *obj = NULL;
	bool locked;

	if (unlikely(rbtree_step_begin(rb, owner, &locked)))
		return ERR_PTR(-EBUSY);
	if (unlikely(locked && rb->owner != owner)) {
		if (rbtree_count(rb))
			obj = ERR_PTR(-EBUSY);
		goto unlock;
	}
	elem = rbtree_which(rb, which, key);
	if (unlikely(!elem))
		goto unlock;
	if (which == RBTREE_UNTIL && rbtree_beyond(rb, elem, key)) {
		*first = rb->key_is_u64 ? elem->rank : 0;
		obj = ERR_PTR(-EAGAIN);
		goto unlock;
	}
	spare = rbtree_take(rb, elem, which, &obj);
	rb->bytes -= rbtree_packet_len(obj);
unlock:
	rbtree_step_end(rb, locked);

	rbtree_spare_put(rb, spare);
	return obj;
}

static noinline void *rbtree_pop_slow(struct bpf_map *map, struct bpf_rbtree_owner *owner,
				      const void *key, u64 *first, enum rbtree_which which)
{
	return rbtree_pop(map, owner, key, first, which);
}

/* Several keys are there. */
static noinline void *rbtree_pop_among(struct bpf_rbtree *rb, struct rbtree_elem *elem)
{
	void *obj;

	rbtree_take(rb, elem, RBTREE_FIRST, &obj);
	rb->bytes -= rbtree_packet_len(obj);
	return obj;
}

/* rbtree_is_easy(), and @elem is the first. */
static __always_inline void *rbtree_pop_easy(struct bpf_rbtree *rb, struct rbtree_elem *elem)
{
	void **slot = (void **)elem->key + 1, *obj;

	if (rb->first != rb->last)
		return rbtree_pop_among(rb, elem);
	rbtree_unlink_only(rb, elem);
	obj = *slot;
	*slot = NULL;
	rb->bytes -= rbtree_packet_len(obj);
	rbtree_slot_put(rb, elem);
	return obj;
}

/**
 * bpf_rbtree_pop() - take the first object out
 * @map: an ordered map of packets
 * @owner: who takes it
 *
 * Context: bottom halves off, not in hard interrupt or NMI.
 * Return: the oldest object of the lowest key, with its reference; NULL if
 * @map is empty; ERR_PTR(-EBUSY) if another owner keeps objects in it, or if its
 * lock could not be had.
 */
void *bpf_rbtree_pop(struct bpf_map *map, struct bpf_rbtree_owner *owner)
{
	struct bpf_rbtree *rb = to_rbtree(map);

	if (!rbtree_is_easy(rb, owner))
		return rbtree_pop_slow(map, owner, NULL, NULL, RBTREE_FIRST);
	return rb->first ? rbtree_pop_easy(rb, rb->first) : NULL;
}

/**
 * bpf_rbtree_pop_until() - take the first object out, if its key is at most a bound
 * @map: an ordered map of packets
 * @owner: who takes it
 * @bound: key, map->key_size bytes
 * @first: set to the first key if that is above @bound; 0 if the key is no u64
 *
 * Context: bottom halves off, not in hard interrupt or NMI.
 * Return: as bpf_rbtree_pop(); ERR_PTR(-EAGAIN) if the first key is above @bound.
 */
void *bpf_rbtree_pop_until(struct bpf_map *map, struct bpf_rbtree_owner *owner,
			   const void *bound, u64 *first)
{
	struct bpf_rbtree *rb = to_rbtree(map);
	struct rbtree_elem *elem;

	if (!rbtree_is_easy(rb, owner))
		return rbtree_pop_slow(map, owner, bound, first, RBTREE_UNTIL);
	elem = rb->first;
	if (!elem)
		return NULL;
	if (elem->rank > get_unaligned((const u64 *)bound)) {
		*first = elem->rank;
		return ERR_PTR(-EAGAIN);
	}
	return rbtree_pop_easy(rb, elem);
}

/**
 * bpf_rbtree_pop_key() - take the oldest object of one key out
 * @map: an ordered map of packets
 * @owner: who takes it
 * @key: key, map->key_size bytes
 *
 * Context: bottom halves off, not in hard interrupt or NMI.
 * Return: as bpf_rbtree_pop(); NULL if there is none of @key.
 */
void *bpf_rbtree_pop_key(struct bpf_map *map, struct bpf_rbtree_owner *owner, const void *key)
{
	return rbtree_pop(map, owner, key, NULL, RBTREE_KEY);
}

/**
 * bpf_rbtree_pop_last() - take the last object out
 * @map: an ordered map of packets
 * @owner: who takes it
 *
 * Context: bottom halves off, not in hard interrupt or NMI.
 * Return: as bpf_rbtree_pop(), but the youngest object of the highest key.
 */
void *bpf_rbtree_pop_last(struct bpf_map *map, struct bpf_rbtree_owner *owner)
{
	return rbtree_pop(map, owner, NULL, NULL, RBTREE_LAST);
}

/**
 * bpf_rbtree_pop_key_youngest() - take the youngest object of one key out
 * @map: an ordered map of packets
 * @owner: who takes it
 * @key: key, map->key_size bytes
 *
 * Context: bottom halves off, not in hard interrupt or NMI.
 * Return: as bpf_rbtree_pop_key().
 */
void *bpf_rbtree_pop_key_youngest(struct bpf_map *map, struct bpf_rbtree_owner *owner,
				  const void *key)
{
	return rbtree_pop(map, owner, key, NULL, RBTREE_KEY_YOUNGEST);
}

/**
 * bpf_rbtree_pop_from() - take the first object from a key on out
 * @map: an ordered map of packets
 * @owner: who takes it
 * @key: the lowest key wanted, map->key_size bytes
 *
 * Context: bottom halves off, not in hard interrupt or NMI.
 * Return: as bpf_rbtree_pop(), but of the lowest key that is not below @key; NULL
 * if there is none.
 */
void *bpf_rbtree_pop_from(struct bpf_map *map, struct bpf_rbtree_owner *owner, const void *key)
{
	return rbtree_pop(map, owner, key, NULL, RBTREE_FROM);
}

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
		refcount_inc(&rb->users);
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

/* Free the objects of a tree that was taken out whole, and return its elements. None is
 * looked at any more after that: nodes come after all below them.
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
				refcount_inc(&rb->users);
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
 * that are gone is about to be dropped. The walk goes from the tail, where it leaves what it has
 * found, so that the next one begins with it: maps that are gone stay at the head.
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
			refcount_inc(&rb->users);
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

/* ---- elements of maps without packets ---- */

/* Store @key, with @value or with zeroes, behind all others with an equal key.
 * *@obj, if given, becomes the element's object: what was there before, or
 * *@obj itself if the push fails, is the caller's to release.
 */
static int rbtree_push(struct bpf_rbtree *rb, const void *key, const void *value, void **obj)
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
		if (value)
			copy_map_value(&rb->map, elem_value(rb, elem), (void *)value);
		else
			zero_map_value(&rb->map, elem_value(rb, elem));
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

static void rbtree_free_dead(struct bpf_rbtree *rb)
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

/* The memory of an inner map that leaves stays for a grace period of both kinds, so that
 * programs can use it: one that cannot sleep may have found it in a callback that can.
 */
static void rbtree_inner_leaves(struct bpf_map *inner)
{
	WRITE_ONCE(inner->free_after_mult_rcu_gp, true);
}

static void rbtree_inner_put(struct bpf_map *inner)
{
	rbtree_inner_leaves(inner);
	bpf_map_put(inner);
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

static void rbtree_copy_out(struct bpf_rbtree *rb, struct rbtree_elem *elem,
			    void *key, void *value)
{
	if (key)
		memcpy(key, elem->key, rb->map.key_size);
	if (value) {
		copy_map_value(&rb->map, value, elem_value(rb, elem));
		check_and_init_map_value(&rb->map, value);
	}
}

/* Take an element out: the first, the first if its key is at most @key, or the oldest
 * of @key. Copy its key, also one that is above @key, and its value without special
 * fields to where they are wanted.
 */
static int rbtree_remove(struct bpf_rbtree *rb, enum rbtree_which which, const void *key,
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
	}
	raw_res_spin_unlock_irqrestore(&rb->lock, flags);

	if (!err)
		rbtree_elem_free(rb, elem);
	return err;
}

/* ---- walks ---- */

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
	/* c->elem is still there, see the top of this file. */
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

static long rbtree_for_each(struct bpf_map *map, bpf_callback_t callback_fn,
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

static int rbtree_lookup_batch(struct bpf_map *map, const union bpf_attr *attr,
			       union bpf_attr __user *uattr)
{
	return rbtree_batch(map, attr, uattr, false);
}

static int rbtree_lookup_and_delete_batch(struct bpf_map *map, const union bpf_attr *attr,
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

static const struct bpf_iter_seq_info rbtree_seq_info = {
	.seq_ops = &rbtree_seq_ops,
	.init_seq_private = rbtree_seq_init,
	.fini_seq_private = rbtree_seq_fini,
	.seq_priv_size = sizeof(struct rbtree_seq),
};

/* ---- maps of maps ---- */

/* What a program gets: the value, or the map that it stands for. */
static void *rbtree_result(struct bpf_rbtree *rb, struct rbtree_elem *elem)
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

/* To a program: a map that it may only write shows it no key. */
static __always_inline void *rbtree_show(struct bpf_rbtree *rb, enum rbtree_which which,
					 const void *key, void *key_out)
{
	if (rb->map.map_flags & BPF_F_WRONLY_PROG)
		return NULL;
	return rbtree_look(rb, which, key, key_out);
}

static void rbtree_set_inner(struct bpf_rbtree *rb, struct rbtree_elem *elem,
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

static void rbtree_free_unused(struct bpf_rbtree *rb)
{
	struct llist_node *node, *next;

	llist_for_each_safe(node, next, llist_del_all(&rb->unused))
		bpf_map_put(container_of((struct rcu_head *)node, struct bpf_map, rcu));
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

static int rbtree_alloc_outer(struct bpf_rbtree *rb, int inner_map_fd)
{
	struct bpf_map *meta = bpf_map_meta_alloc(inner_map_fd);

	if (IS_ERR(meta))
		return PTR_ERR(meta);
	rb->map.inner_map_meta = meta;
	rb->obj_off = rb->value_off + sizeof(u64);
	return 0;
}

static void rbtree_free_outer(struct bpf_rbtree *rb)
{
	struct rbtree_elem *elem;

	while ((elem = rb->first)) {
		rbtree_unlink(rb, elem);
		rbtree_inner_put(*elem_obj(rb, elem));
	}
	bpf_map_meta_free(rb->map.inner_map_meta);
}

/* ---- map operations ---- */

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

static int rbtree_alloc_elems(struct bpf_rbtree *rb)
{
	u32 count = rb->map.max_entries;
	struct rbtree_chunk *chunk;

	if (rb->no_prealloc) {
		rb->slots = count;
		return bpf_mem_alloc_init(&rb->ma, rb->elem_size, false);
	}

	if (count > RBTREE_CHUNK_FEW && rb->elem_size <= RBTREE_CHUNK_LARGE)
		count = (RBTREE_CHUNK - sizeof(*chunk)) / rb->elem_size;
	count = min(count, rb->map.max_entries);
	chunk = rbtree_chunk_alloc(rb, count);
	if (!chunk)
		return -ENOMEM;
	rbtree_chunk_add(rb, chunk);
	rb->spare = chunk;
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
	refcount_set(&rb->users, 1);
	rb->no_prealloc = attr->map_flags & BPF_F_NO_PREALLOC;
	rb->value_off = offsetof(struct rbtree_elem, key) + round_up(attr->key_size, 8);
	rb->elem_size = rb->value_off + round_up(attr->value_size, 8);
	rbtree_key_add_bytes(rb, 0, attr->key_size);	/* without BTF */
	rbtree_set_rank(rb);

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

static void rbtree_free(struct bpf_rbtree *rb)
{
	rbtree_free_elems(rb);
	bpf_map_area_free(rb);
}

static void rbtree_free_work(struct work_struct *work)
{
	rbtree_free(container_of(work, struct bpf_rbtree, work));
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
	if (refcount_dec_and_test(&rb->users))
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

/* ---- types ---- */

/* Types of a key that are being looked at, one in another, and those looked at so far. */
struct rbtree_key_types {
	struct bpf_rbtree *rb;
	const struct btf *btf;
	u32 depth;
	u32 count;
};

static const char *rbtree_key_parts(struct rbtree_key_types *types, const struct btf_type *t,
				    u32 off);

static const char *rbtree_key_array(struct rbtree_key_types *types, const struct btf_type *t,
				    u32 off)
{
	const struct btf_array *array = btf_array(t);
	const struct btf_type *elem_type;
	const char *reason = NULL;
	u32 i, size;

	elem_type = btf_type_skip_modifiers(types->btf, array->type, NULL);
	if (btf_type_is_int(elem_type) && elem_type->size == 1)
		return rbtree_key_add_bytes(types->rb, off, array->nelems);
	if (IS_ERR(btf_resolve_size(types->btf, elem_type, &size)) || !size)
		return "an array of nothing";
	for (i = 0; i < array->nelems && !reason; i++)
		reason = rbtree_key_parts(types, elem_type, off + i * size);
	return reason;
}

static const char *rbtree_key_struct(struct rbtree_key_types *types, const struct btf_type *t,
				     u32 off)
{
	const struct btf_member *m;
	const char *reason = NULL;
	u32 i;

	for_each_member(i, t, m) {
		if (__btf_member_bitfield_size(t, m))
			return "a bit field";
		reason = rbtree_key_parts(types,
					  btf_type_skip_modifiers(types->btf, m->type, NULL),
					  off + __btf_member_bit_offset(t, m) / 8);
		if (reason)
			break;
	}
	return reason;
}

static const char *rbtree_key_part(struct rbtree_key_types *types, const struct btf_type *t,
				   u32 off)
{
	switch (BTF_INFO_KIND(t->info)) {
	case BTF_KIND_INT:
	case BTF_KIND_ENUM:
	case BTF_KIND_ENUM64:
		if (!is_power_of_2(t->size) || t->size > 8)
			return "an integer that is not 1, 2, 4 or 8 bytes long";
		return rbtree_key_add(types->rb, off, t->size,
				      btf_type_is_int(t) ? btf_int_encoding(t) & BTF_INT_SIGNED :
							   btf_type_kflag(t), false);
	case BTF_KIND_STRUCT:
		return rbtree_key_struct(types, t, off);
	case BTF_KIND_UNION:
		return rbtree_key_add_bytes(types->rb, off, t->size);
	case BTF_KIND_ARRAY:
		return rbtree_key_array(types, t, off);
	case BTF_KIND_FLOAT:
		return "a floating point number";
	case BTF_KIND_PTR:
		return "a pointer";
	default:
		return "a type that has no order";
	}
}

/* Append the parts of type @t, which is at @off in the key. Returns NULL, or what
 * it is that a key cannot have. User space makes the types: one may be all that another
 * is made of, again and again, or be no part at all.
 */
static const char *rbtree_key_parts(struct rbtree_key_types *types, const struct btf_type *t,
				    u32 off)
{
	const char *reason;

	if (types->depth == RBTREE_TYPES_DEPTH || types->count == RBTREE_TYPES_MAX)
		return "too many types in one another";
	types->count++;
	types->depth++;
	reason = rbtree_key_part(types, t, off);
	types->depth--;
	return reason;
}

/* Special fields of the value. NULL, or why not. */
static const char *rbtree_value_fields(const struct bpf_map *map)
{
	const struct btf_record *rec = map->record;
	int i;

	if (IS_ERR_OR_NULL(rec))
		return NULL;
	if (map->inner_map_meta)
		return "the values of a map of maps have no special fields";
	if (bpf_rbtree_holds_packets(map))
		return NULL;
	for (i = 0; i < rec->cnt; i++)
		if (rec->fields[i].type == BPF_KPTR_REF && btf_is_kernel(rec->fields[i].kptr.btf) &&
		    rec->fields[i].kptr.btf_id == rbtree_btf_ids[1])
			return "the value has no other special field beside an sk_buff kptr";
	return NULL;
}

/**
 * bpf_rbtree_check_btf() - find out the order of the keys, and what values hold
 * @map: an ordered map that is being created
 * @btf: its types
 * @key_type: void without a key type
 * @value_type: of the values
 * @log: where to say why the types are refused
 *
 * Return: 0, or a negative error.
 */
int bpf_rbtree_check_btf(struct bpf_map *map, const struct btf *btf,
			 const struct btf_type *key_type, const struct btf_type *value_type,
			 struct bpf_verifier_log *log)
{
	struct bpf_rbtree *rb = to_rbtree(map);
	struct rbtree_key_types types = { .rb = rb, .btf = btf };
	const char *reason;

	/* Without an error the value would have no special fields. */
	if (IS_ERR(map->record) && __btf_type_is_struct(value_type)) {
		bpf_log(log, "Bad special field in the value: a kptr to a type only declared?\n");
		return PTR_ERR(map->record);
	}

	rb->nr_fields = 0;
	if (!btf_type_is_void(key_type)) {
		reason = rbtree_key_parts(&types, key_type, 0);
		if (reason) {
			bpf_log(log, "The key of an rbtree map cannot have %s.\n", reason);
			return -EINVAL;
		}
	}
	if (!rb->nr_fields)
		rbtree_key_add_bytes(rb, 0, map->key_size);
	rbtree_set_rank(rb);

	reason = rbtree_value_fields(map);
	if (reason) {
		bpf_log(log, "rbtree map: %s.\n", reason);
		return -EINVAL;
	}
	rb->has_objects = btf_record_has_nmi_unsafe_fields(map->record);
	rb->has_packets = bpf_rbtree_holds_packets(map);
	if (rb->has_packets || rbtree_holds_tasks(map))
		rb->obj_off = rb->value_off + map->record->fields[0].offset;
	rb->is_plain = rb->has_packets && rb->key_is_u64 && !rb->no_prealloc &&
		       map->value_size == sizeof(void *) &&
		       rb->obj_off == offsetof(struct rbtree_elem, key) + sizeof(u64);
	return 0;
}

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
	.map_btf_id = &rbtree_btf_ids[0],
	.iter_seq_info = &rbtree_seq_info,
};

/* ---- what programs of all types may call ---- */

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

static int __init rbtree_init(void)
{
	/* destroy() of a qdisc waits for it with RTNL held, also where memory is short. */
	rbtree_wq = alloc_workqueue("bpf_rbtree", WQ_UNBOUND | WQ_MEM_RECLAIM, 0);
	if (!rbtree_wq)
		return -ENOMEM;
	return register_btf_kfunc_id_set(BPF_PROG_TYPE_UNSPEC, &rbtree_kfunc_set);
}
late_initcall(rbtree_init);
