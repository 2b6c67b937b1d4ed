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
 * Order is what the key's BTF type says: integers by value, with their sign and
 * width, structs member by member. Without BTF, or for other types, it is the
 * order of memcmp().
 *
 * Objects: a value may hold referenced kptrs. A map whose value holds one
 * sk_buff is a map of packets. Packets enter and leave by bpf_rbtree_push() and
 * bpf_rbtree_pop() alone, on behalf of an owner, which counts them. The first
 * push claims the map for its owner; while the claim lasts and the map is not
 * empty, nobody else can change it. A claim on an empty map gives way to
 * whoever comes next.
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
 * rbtree_owner_lock protects the owners' lists. It nests inside a map's lock.
 */
#include <linux/bpf.h>
#include <linux/bpf_rbtree.h>
#include <linux/btf.h>
#include <linux/btf_ids.h>
#include <linux/llist.h>
#include <linux/rbtree.h>
#include <linux/spinlock.h>
#include <linux/unaligned.h>
#include <asm/rqspinlock.h>

#define RBTREE_CREATE_FLAG_MASK \
	(BPF_F_NUMA_NODE | BPF_F_ACCESS_MASK)

/* Longest key, and most integers in one. */
#define RBTREE_KEY_MAX		64
#define RBTREE_FIELDS_MAX	16

struct rbtree_elem {
	union {				/* first: a returned slot is its llist_node */
		struct rbtree_elem *next;	/* next younger of the same key; next free slot */
		struct llist_node returned;
	};
	struct rbtree_elem *last;	/* youngest; in the oldest only */
	struct rb_node node;		/* in the oldest element of a key only */
	char key[] __aligned(8);	/* value follows, at the next multiple of 8 */
};
static_assert(offsetof(struct rbtree_elem, next) == 0);

/* An integer of a key. */
struct rbtree_field {
	u8 off;
	u8 size;
	bool is_signed;
};

struct bpf_rbtree {
	struct bpf_map map;

	rqspinlock_t lock ____cacheline_aligned_in_smp;
	u32 count;
	struct rb_root root;
	struct rbtree_elem *first;
	struct rbtree_elem *last;	/* oldest element of the highest key */
	struct rbtree_elem *free;
	struct llist_head returned;	/* free too; put there without the lock */
	struct bpf_rbtree_owner *owner;	/* whose list owner_node is on */
	struct list_head owner_node;

	/* constant after creation */
	bool key_is_u64;
	bool has_packets;
	u8 nr_fields;			/* 0: memcmp order */
	u32 value_off;			/* from the start of an element */
	u32 elem_size;
	u32 obj_off;			/* of the packet, from the start of an element */
	void *elems;
	struct rbtree_field fields[RBTREE_FIELDS_MAX];
};

static DEFINE_RAW_SPINLOCK(rbtree_owner_lock);

BTF_ID_LIST(rbtree_btf_ids)
BTF_ID(struct, bpf_rbtree)
#ifdef CONFIG_NET
BTF_ID(struct, sk_buff)
#else
BTF_ID_UNUSED
#endif

static struct bpf_rbtree *to_rbtree(const struct bpf_map *map)
{
	return container_of(map, struct bpf_rbtree, map);
}

static void *elem_value(const struct bpf_rbtree *rb, struct rbtree_elem *elem)
{
	return (void *)elem + rb->value_off;
}

static void **elem_obj(const struct bpf_rbtree *rb, struct rbtree_elem *elem)
{
	return (void *)elem + rb->obj_off;
}

static struct rbtree_elem *node_elem(struct rb_node *node)
{
	return rb_entry_safe(node, struct rbtree_elem, node);
}

/* ---- order ---- */

static u64 field_load(const struct rbtree_field *f, const void *key)
{
	const void *p = key + f->off;
	u64 v;

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

static noinline int rbtree_cmp_slow(const struct bpf_rbtree *rb, const void *a, const void *b)
{
	int i;

	if (!rb->nr_fields)
		return memcmp(a, b, rb->map.key_size);

	for (i = 0; i < rb->nr_fields; i++) {
		u64 x = field_load(&rb->fields[i], a);
		u64 y = field_load(&rb->fields[i], b);

		if (x != y)
			return x < y ? -1 : 1;
	}
	return 0;
}

static __always_inline int rbtree_cmp(const struct bpf_rbtree *rb, const void *a, const void *b)
{
	u64 x, y;

	if (unlikely(!rb->key_is_u64))
		return rbtree_cmp_slow(rb, a, b);

	x = get_unaligned((const u64 *)a);
	y = get_unaligned((const u64 *)b);
	return x < y ? -1 : x > y;
}

/* ---- the tree; all of it under the map's lock ---- */

/* Oldest element of @key, or NULL. */
static struct rbtree_elem *rbtree_find(const struct bpf_rbtree *rb, const void *key)
{
	struct rb_node *node = rb->root.rb_node;

	while (node) {
		struct rbtree_elem *elem = node_elem(node);
		int c = rbtree_cmp(rb, key, elem->key);

		if (!c)
			return elem;
		node = c < 0 ? node->rb_left : node->rb_right;
	}
	return NULL;
}

/* First element with a key above @key, or NULL. */
static struct rbtree_elem *rbtree_above(const struct bpf_rbtree *rb, const void *key)
{
	struct rb_node *node = rb->root.rb_node;
	struct rbtree_elem *above = NULL;

	while (node) {
		struct rbtree_elem *elem = node_elem(node);

		if (rbtree_cmp(rb, key, elem->key) < 0) {
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
	oldest->last->next = elem;
	oldest->last = elem;
}

/* The caller has set elem->key. */
static void rbtree_link(struct bpf_rbtree *rb, struct rbtree_elem *elem)
{
	struct rb_node **link = &rb->root.rb_node, *parent = NULL;
	bool leftmost = true;
	int c;

	elem->next = NULL;
	rb->count++;

	if (rb->last) {
		c = rbtree_cmp(rb, elem->key, rb->last->key);
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
	} else {
		rb->last = elem;
	}

	while (*link) {
		struct rbtree_elem *e = node_elem(*link);

		c = rbtree_cmp(rb, elem->key, e->key);
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

/* Take the oldest element of a key out. */
static void rbtree_unlink(struct bpf_rbtree *rb, struct rbtree_elem *elem)
{
	struct rbtree_elem *heir = elem->next;

	rb->count--;
	if (heir) {
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

static struct rbtree_elem *rbtree_slot_get(struct bpf_rbtree *rb)
{
	struct rbtree_elem *elem = rb->free;

	if (unlikely(!elem)) {
		struct llist_node *list = llist_del_all(&rb->returned);

		if (!list)
			return NULL;
		elem = llist_entry(list, struct rbtree_elem, returned);
	}
	rb->free = elem->next;
	return elem;
}

static void rbtree_slot_put(struct bpf_rbtree *rb, struct rbtree_elem *elem)
{
	elem->next = rb->free;
	rb->free = elem;
}

/* ---- maps of packets: claims, push and pop ---- */

/**
 * bpf_rbtree_holds_packets() - is this an ordered map of packets?
 * @map: any map, also the template of an inner map
 *
 * Context: any.
 * Return: true for a BPF_MAP_TYPE_RBTREE whose value holds one sk_buff kptr.
 */
bool bpf_rbtree_holds_packets(const struct bpf_map *map)
{
	const struct btf_record *rec = map->record;

	return map->map_type == BPF_MAP_TYPE_RBTREE && !IS_ERR_OR_NULL(rec) &&
	       rec->cnt == 1 && rec->fields[0].type == BPF_KPTR_REF &&
	       btf_is_kernel(rec->fields[0].kptr.btf) &&
	       rec->fields[0].kptr.btf_id == rbtree_btf_ids[1];
}

/* Called with the map's lock held, by somebody else than the owner. */
static noinline int rbtree_claim(struct bpf_rbtree *rb, struct bpf_rbtree_owner *owner)
{
	unsigned long flags;

	if (rb->owner && rb->count)
		return -EBUSY;

	raw_spin_lock_irqsave(&rbtree_owner_lock, flags);
	if (!rb->owner)
		bpf_map_inc(&rb->map);
	list_move_tail(&rb->owner_node, &owner->maps);
	rb->owner = owner;
	raw_spin_unlock_irqrestore(&rbtree_owner_lock, flags);
	return 0;
}

/**
 * bpf_rbtree_push() - store an object behind all others with an equal key
 * @map: an ordered map of packets
 * @owner: who stores it; the map is claimed for it if nobody else holds it
 * @key: key, map->key_size bytes
 * @obj: the object; the map takes over the reference on success
 *
 * Context: bottom halves off, not in hard interrupt or NMI.
 * Return: 0; -E2BIG if the map is full; -EBUSY if another owner keeps objects
 * in it; -EDEADLK or -ETIMEDOUT if its lock could not be had.
 */
int bpf_rbtree_push(struct bpf_map *map, struct bpf_rbtree_owner *owner,
		    const void *key, void *obj)
{
	struct bpf_rbtree *rb = to_rbtree(map);
	struct rbtree_elem *elem;
	int err;

	err = raw_res_spin_lock(&rb->lock);
	if (unlikely(err))
		return err;

	if (unlikely(rb->owner != owner)) {
		err = rbtree_claim(rb, owner);
		if (err)
			goto unlock;
	}

	elem = rbtree_slot_get(rb);
	if (unlikely(!elem)) {
		err = -E2BIG;
		goto unlock;
	}
	if (likely(rb->key_is_u64))
		*(u64 *)elem->key = get_unaligned((const u64 *)key);
	else
		memcpy(elem->key, key, map->key_size);
	if (unlikely(map->value_size != sizeof(obj)))
		memset(elem_value(rb, elem), 0, map->value_size);
	*elem_obj(rb, elem) = obj;
	rbtree_link(rb, elem);
unlock:
	raw_res_spin_unlock(&rb->lock);
	return err;
}

static void *rbtree_take(struct bpf_rbtree *rb, struct rbtree_elem *elem)
{
	void **slot = elem_obj(rb, elem);
	void *obj = *slot;

	*slot = NULL;
	rbtree_unlink(rb, elem);
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
 * @owner keeps none in @map, or if the map's lock could not be had.
 */
void *bpf_rbtree_pop(struct bpf_map *map, struct bpf_rbtree_owner *owner)
{
	struct bpf_rbtree *rb = to_rbtree(map);
	void *obj = NULL;

	if (unlikely(raw_res_spin_lock(&rb->lock)))
		return NULL;
	if (likely(rb->owner == owner && rb->first))
		obj = rbtree_take(rb, rb->first);
	raw_res_spin_unlock(&rb->lock);
	return obj;
}

/**
 * bpf_rbtree_pop_until() - take the first object out, if its key is at most a bound
 * @map: an ordered map of packets
 * @owner: who takes it
 * @bound: key, map->key_size bytes
 * @first: set to the first key if that is above @bound; 0 if the key is no u64
 *
 * Context: bottom halves off, not in hard interrupt or NMI.
 * Return: the object, with its reference; ERR_PTR(-EAGAIN) if the first key is
 * above @bound; NULL as bpf_rbtree_pop().
 */
void *bpf_rbtree_pop_until(struct bpf_map *map, struct bpf_rbtree_owner *owner,
			   const void *bound, u64 *first)
{
	struct bpf_rbtree *rb = to_rbtree(map);
	void *obj = NULL;

	if (unlikely(raw_res_spin_lock(&rb->lock)))
		return NULL;
	if (likely(rb->owner == owner && rb->first)) {
		if (rbtree_cmp(rb, rb->first->key, bound) <= 0) {
			obj = rbtree_take(rb, rb->first);
		} else {
			*first = rb->key_is_u64 ? *(u64 *)rb->first->key : 0;
			obj = ERR_PTR(-EAGAIN);
		}
	}
	raw_res_spin_unlock(&rb->lock);
	return obj;
}

/**
 * bpf_rbtree_pop_key() - take the oldest object of one key out
 * @map: an ordered map of packets
 * @owner: who takes it
 * @key: key, map->key_size bytes
 *
 * Context: bottom halves off, not in hard interrupt or NMI.
 * Return: the object, with its reference; NULL if @owner keeps none under @key,
 * or if the map's lock could not be had.
 */
void *bpf_rbtree_pop_key(struct bpf_map *map, struct bpf_rbtree_owner *owner, const void *key)
{
	struct bpf_rbtree *rb = to_rbtree(map);
	struct rbtree_elem *elem;
	void *obj = NULL;

	if (unlikely(raw_res_spin_lock(&rb->lock)))
		return NULL;
	if (likely(rb->owner == owner)) {
		elem = rbtree_find(rb, key);
		if (elem)
			obj = rbtree_take(rb, elem);
	}
	raw_res_spin_unlock(&rb->lock);
	return obj;
}

/* Under both locks: the claim ends, the caller drops the reference. */
static void rbtree_unclaim(struct bpf_rbtree *rb)
{
	list_del_init(&rb->owner_node);
	rb->owner = NULL;
}

/* The first map of @owner, with a reference of the caller's. */
static struct bpf_rbtree *rbtree_owner_first(struct bpf_rbtree_owner *owner)
{
	struct bpf_rbtree *rb;
	unsigned long flags;

	raw_spin_lock_irqsave(&rbtree_owner_lock, flags);
	rb = list_first_entry_or_null(&owner->maps, struct bpf_rbtree, owner_node);
	if (rb)
		bpf_map_inc(&rb->map);
	raw_spin_unlock_irqrestore(&rbtree_owner_lock, flags);
	return rb;
}

/* Take an object of @owner out of @rb, or end the claim if there is none. */
static void *rbtree_drain_one(struct bpf_rbtree *rb, struct bpf_rbtree_owner *owner)
{
	bool unclaimed = false;
	unsigned long flags;
	void *obj = NULL;

	if (raw_res_spin_lock_irqsave(&rb->lock, flags))
		return NULL;
	if (rb->owner == owner) {
		if (rb->first) {
			obj = rbtree_take(rb, rb->first);
		} else {
			raw_spin_lock(&rbtree_owner_lock);
			rbtree_unclaim(rb);
			raw_spin_unlock(&rbtree_owner_lock);
			unclaimed = true;
		}
	}
	raw_res_spin_unlock_irqrestore(&rb->lock, flags);
	if (unclaimed)
		bpf_map_put(&rb->map);
	return obj;
}

/**
 * bpf_rbtree_drain() - take any object of an owner out of its maps
 * @owner: the owner
 *
 * Objects come in key order, map by map. A map that is found empty is no longer
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

	while ((rb = rbtree_owner_first(owner))) {
		obj = rbtree_drain_one(rb, owner);
		bpf_map_put(&rb->map);
		if (obj)
			return obj;
	}
	return NULL;
}

/**
 * bpf_rbtree_owner_find() - find a map in which an owner keeps objects
 * @owner: the owner
 * @match: is this the map wanted? Called with interrupts off, must not sleep
 * @arg: argument of @match
 *
 * Context: any but hard interrupt and NMI. The caller sees to it that @owner
 * does not push or pop meanwhile.
 * Return: the first map that is not empty and that @match wants, alive as long
 * as objects are in it; NULL if there is none.
 */
struct bpf_map *bpf_rbtree_owner_find(struct bpf_rbtree_owner *owner,
				      bool (*match)(struct bpf_map *map, void *arg), void *arg)
{
	struct bpf_map *found = NULL;
	struct bpf_rbtree *rb;
	unsigned long flags;

	raw_spin_lock_irqsave(&rbtree_owner_lock, flags);
	list_for_each_entry(rb, &owner->maps, owner_node) {
		if (READ_ONCE(rb->count) && match(&rb->map, arg)) {
			found = &rb->map;
			break;
		}
	}
	raw_spin_unlock_irqrestore(&rbtree_owner_lock, flags);
	return found;
}

/**
 * bpf_rbtree_disown() - end all claims of an owner that keeps no objects
 * @owner: the owner, which has been drained
 *
 * Context: as bpf_rbtree_drain().
 */
void bpf_rbtree_disown(struct bpf_rbtree_owner *owner)
{
	WARN_ON_ONCE(bpf_rbtree_drain(owner));
}

/* ---- map operations ---- */

static int rbtree_map_alloc_check(union bpf_attr *attr)
{
	if (!attr->max_entries || !attr->key_size || !attr->value_size ||
	    attr->map_flags & ~RBTREE_CREATE_FLAG_MASK ||
	    !bpf_map_flags_access_ok(attr->map_flags))
		return -EINVAL;

	if (attr->key_size > RBTREE_KEY_MAX ||
	    attr->value_size > KMALLOC_MAX_SIZE - RBTREE_KEY_MAX - sizeof(struct rbtree_elem))
		return -E2BIG;

	return 0;
}

static struct bpf_map *rbtree_map_alloc(union bpf_attr *attr)
{
	int node = bpf_map_attr_numa_node(attr);
	struct bpf_rbtree *rb;
	u32 i;

	rb = bpf_map_area_alloc(sizeof(*rb), node);
	if (!rb)
		return ERR_PTR(-ENOMEM);

	bpf_map_init_from_attr(&rb->map, attr);
	rb->value_off = offsetof(struct rbtree_elem, key) + round_up(attr->key_size, 8);
	rb->elem_size = rb->value_off + round_up(attr->value_size, 8);
	rb->elems = bpf_map_area_alloc((u64)rb->elem_size * attr->max_entries, node);
	if (!rb->elems) {
		bpf_map_area_free(rb);
		return ERR_PTR(-ENOMEM);
	}
	for (i = attr->max_entries; i--; )
		rbtree_slot_put(rb, rb->elems + (u64)i * rb->elem_size);

	raw_res_spin_lock_init(&rb->lock);
	rb->root = RB_ROOT;
	init_llist_head(&rb->returned);
	INIT_LIST_HEAD(&rb->owner_node);
	return &rb->map;
}

static void rbtree_map_free(struct bpf_map *map)
{
	struct bpf_rbtree *rb = to_rbtree(map);
	u32 i;

	/* Free slots too: bpf_kptr_xchg() may have stored into a value that had
	 * already been deleted.
	 */
	if (!IS_ERR_OR_NULL(map->record)) {
		for (i = 0; i < map->max_entries; i++) {
			bpf_obj_free_fields(map->record,
					    elem_value(rb, rb->elems + (u64)i * rb->elem_size));
			cond_resched();
		}
	}
	bpf_map_area_free(rb->elems);
	bpf_map_area_free(rb);
}

static void *rbtree_map_lookup_elem(struct bpf_map *map, void *key)
{
	struct bpf_rbtree *rb = to_rbtree(map);
	struct rbtree_elem *elem;
	unsigned long flags;

	if (raw_res_spin_lock_irqsave(&rb->lock, flags))
		return NULL;
	elem = rbtree_find(rb, key);
	raw_res_spin_unlock_irqrestore(&rb->lock, flags);

	/* Slots live as long as the map: a value whose element goes away while
	 * it is in use is stale, never gone.
	 */
	return elem ? elem_value(rb, elem) : NULL;
}

static long rbtree_map_update_elem(struct bpf_map *map, void *key, void *value, u64 flags)
{
	struct bpf_rbtree *rb = to_rbtree(map);
	struct rbtree_elem *elem;
	unsigned long irq;
	long err = 0;

	if (flags > BPF_EXIST)
		return -EINVAL;
	/* An element without a packet must never be seen. */
	if (rb->has_packets)
		return -EOPNOTSUPP;

	if (raw_res_spin_lock_irqsave(&rb->lock, irq))
		return -EBUSY;
	elem = rbtree_find(rb, key);
	if (elem && flags == BPF_NOEXIST) {
		err = -EEXIST;
	} else if (elem) {
		copy_map_value(map, elem_value(rb, elem), value);
	} else if (flags == BPF_EXIST) {
		err = -ENOENT;
	} else {
		elem = rbtree_slot_get(rb);
		if (!elem) {
			err = -E2BIG;
			goto unlock;
		}
		memcpy(elem->key, key, map->key_size);
		copy_map_value(map, elem_value(rb, elem), value);
		rbtree_link(rb, elem);
	}
unlock:
	raw_res_spin_unlock_irqrestore(&rb->lock, irq);
	return err;
}

static long rbtree_map_delete_elem(struct bpf_map *map, void *key)
{
	struct bpf_rbtree *rb = to_rbtree(map);
	struct rbtree_elem *elem;
	unsigned long flags;
	long err = 0;

	if (raw_res_spin_lock_irqsave(&rb->lock, flags))
		return -EBUSY;
	elem = rbtree_find(rb, key);
	if (!elem)
		err = -ENOENT;
	else if (rb->has_packets)
		err = -EBUSY;
	else
		rbtree_unlink(rb, elem);
	raw_res_spin_unlock_irqrestore(&rb->lock, flags);
	if (err)
		return err;

	/* Destructors run without the lock; only then may the slot be used again. */
	bpf_obj_free_fields(map->record, elem_value(rb, elem));
	llist_add(&elem->returned, &rb->returned);
	return 0;
}

static int rbtree_map_get_next_key(struct bpf_map *map, void *key, void *next_key)
{
	struct bpf_rbtree *rb = to_rbtree(map);
	struct rbtree_elem *elem;
	unsigned long flags;

	if (raw_res_spin_lock_irqsave(&rb->lock, flags))
		return -EBUSY;
	elem = key ? rbtree_above(rb, key) : rb->first;
	if (elem)
		memcpy(next_key, elem->key, map->key_size);
	raw_res_spin_unlock_irqrestore(&rb->lock, flags);
	return elem ? 0 : -ENOENT;
}

/* Append the integers of type @t, which is at @off in the key. */
static int rbtree_key_fields(struct bpf_rbtree *rb, const struct btf *btf,
			     const struct btf_type *t, u32 off)
{
	const struct btf_member *m;
	struct rbtree_field *f;
	u32 i;

	if (__btf_type_is_struct(t)) {
		for_each_member(i, t, m) {
			int err;

			if (__btf_member_bitfield_size(t, m))
				return -EINVAL;
			err = rbtree_key_fields(rb, btf, btf_type_skip_modifiers(btf, m->type, NULL),
						off + __btf_member_bit_offset(t, m) / 8);
			if (err)
				return err;
		}
		return 0;
	}

	if (!btf_type_is_int(t) && !btf_is_any_enum(t))
		return -EINVAL;
	if (!is_power_of_2(t->size) || t->size > 8 || rb->nr_fields == RBTREE_FIELDS_MAX)
		return -EINVAL;

	f = &rb->fields[rb->nr_fields++];
	f->off = off;
	f->size = t->size;
	f->is_signed = btf_type_is_int(t) ? btf_int_encoding(t) & BTF_INT_SIGNED :
					    btf_type_kflag(t);
	return 0;
}

static int rbtree_map_check_btf(struct bpf_map *map, const struct btf *btf,
				const struct btf_type *key_type,
				const struct btf_type *value_type)
{
	struct bpf_rbtree *rb = to_rbtree(map);
	const struct btf_field *field;

	if (key_type && BTF_INFO_KIND(key_type->info) == BTF_KIND_FLOAT)
		return -EINVAL;
	/* A key of another kind, an array of bytes say, is compared as bytes. */
	if (!key_type || btf_type_is_void(key_type) ||
	    rbtree_key_fields(rb, btf, key_type, 0))
		rb->nr_fields = 0;
	rb->key_is_u64 = rb->nr_fields == 1 && rb->fields[0].size == 8 &&
			 !rb->fields[0].is_signed && map->key_size == 8;

	if (IS_ERR_OR_NULL(map->record))
		return 0;
	rb->has_packets = bpf_rbtree_holds_packets(map);
	if (rb->has_packets) {
		field = &map->record->fields[0];
		rb->obj_off = rb->value_off + field->offset;
		return 0;
	}
	/* A packet beside other special fields could be moved uncounted. */
	for (field = map->record->fields;
	     field < map->record->fields + map->record->cnt; field++) {
		if (field->type == BPF_KPTR_REF && btf_is_kernel(field->kptr.btf) &&
		    field->kptr.btf_id == rbtree_btf_ids[1])
			return -EINVAL;
	}
	return 0;
}

static bool rbtree_map_meta_equal(const struct bpf_map *meta0, const struct bpf_map *meta1)
{
	return bpf_map_meta_equal(meta0, meta1);
}

static u64 rbtree_map_mem_usage(const struct bpf_map *map)
{
	const struct bpf_rbtree *rb = to_rbtree(map);

	return sizeof(*rb) + (u64)rb->elem_size * map->max_entries;
}

const struct bpf_map_ops rbtree_map_ops = {
	.map_meta_equal = rbtree_map_meta_equal,
	.map_alloc_check = rbtree_map_alloc_check,
	.map_alloc = rbtree_map_alloc,
	.map_free = rbtree_map_free,
	.map_get_next_key = rbtree_map_get_next_key,
	.map_lookup_elem = rbtree_map_lookup_elem,
	.map_update_elem = rbtree_map_update_elem,
	.map_delete_elem = rbtree_map_delete_elem,
	.map_check_btf = rbtree_map_check_btf,
	.map_mem_usage = rbtree_map_mem_usage,
	.map_lookup_batch = generic_map_lookup_batch,
	.map_update_batch = generic_map_update_batch,
	.map_delete_batch = generic_map_delete_batch,
	.map_btf_id = &rbtree_btf_ids[0],
};
