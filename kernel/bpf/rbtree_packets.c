// SPDX-License-Identifier: GPL-2.0
/* The ordered map: push and pop of packets, by their owner */
#include "rbtree.h"

/* A step of an owner takes the map's lock, unless the owner is alone with the map. Interrupts are
 * off then, as for all who take it: else a tracing program (fentry) in an interrupt could wait here
 * for another map's lock, whose holder on another CPU waits for this one.
 */
static __always_inline int rbtree_step_begin(struct bpf_rbtree *rb,
					     const struct bpf_rbtree_owner *owner, bool *locked,
					     unsigned long *flags)
{
	*locked = READ_ONCE(rb->alone) != owner;
	return unlikely(*locked) ? raw_res_spin_lock_irqsave(&rb->lock, *flags) : 0;
}

static __always_inline void rbtree_step_end(struct bpf_rbtree *rb, bool locked,
					    unsigned long flags)
{
	if (unlikely(locked))
		raw_res_spin_unlock_irqrestore(&rb->lock, flags);
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
	unsigned long flags;
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
	err = rbtree_step_begin(rb, owner, &locked, &flags);
	if (unlikely(err))
		goto out;

	if (unlikely(locked && rb->owner != owner)) {
		err = rbtree_claim(rb, owner);
		if (unlikely(err)) {
			raw_res_spin_unlock_irqrestore(&rb->lock, flags);
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
			rbtree_step_end(rb, locked, flags);
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
	rbtree_step_end(rb, locked, flags);
out:
	rbtree_spare_put(rb, spare);
	return err;
}

/* Fast path: @owner is alone with the map, and the map is plain (rb->is_plain). What follows calls
 * nothing except as a tail call, so it saves no registers.
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

static __always_inline void *rbtree_pop(struct bpf_map *map, struct bpf_rbtree_owner *owner,
					const void *key, u64 *first, enum rbtree_which which)
{
	struct rbtree_elem *elem, *spare = NULL;
	struct bpf_rbtree *rb = to_rbtree(map);
	unsigned long flags;
	void *obj = NULL;
	bool locked;

	if (unlikely(rbtree_step_begin(rb, owner, &locked, &flags)))
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
	rbtree_step_end(rb, locked, flags);

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

/**
 * bpf_rbtree_peek() - look at the object of an element
 * @map: an ordered map of packets
 * @owner: who looks
 * @value: the value of one of its elements, which may have been taken out, and be in use again
 *
 * What the owner has pushed stays until it takes it out itself. An element may be one of an owner
 * before, whose tree was detached: a worker frees its object at any time.
 *
 * Context: bottom halves off, not in hard interrupt or NMI.
 * Return: the object, still the map's; NULL if the element holds none of @owner's any more;
 * ERR_PTR(-EBUSY) if another owner keeps objects in @map, or if its lock could not be had.
 */
void *bpf_rbtree_peek(struct bpf_map *map, struct bpf_rbtree_owner *owner, void *value)
{
	struct bpf_rbtree *rb = to_rbtree(map);
	struct rbtree_elem *elem = value_elem(rb, value);
	unsigned long flags;
	void *obj = NULL;
	bool locked;

	if (unlikely(rbtree_step_begin(rb, owner, &locked, &flags)))
		return ERR_PTR(-EBUSY);
	if (unlikely(locked && rb->owner != owner))
		obj = rbtree_count(rb) ? ERR_PTR(-EBUSY) : NULL;
	else if (likely(elem->number > rb->claimed))
		obj = *elem_obj(rb, elem);
	rbtree_step_end(rb, locked, flags);
	return obj;
}
