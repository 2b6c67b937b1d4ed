// SPDX-License-Identifier: GPL-2.0
/* The ordered map: the order of keys, and the tree, which is under the map's lock */
#include "rbtree.h"

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

u64 rbtree_rank_slow(const struct bpf_rbtree *rb, const void *key)
{
	int i, left = 64;
	u64 rank = 0;

	for (i = 0; i < rb->nr_ranked; i++) {
		left -= rb->fields[i].size * 8;
		rank |= field_load(&rb->fields[i], key) << left;
	}
	return rank;
}

int rbtree_cmp_slow(const struct bpf_rbtree *rb, const void *a, const void *b)
{
	int i;

	for (i = rb->nr_ranked; i < rb->nr_fields; i++) {
		u64 x = field_load(&rb->fields[i], a), y = field_load(&rb->fields[i], b);

		if (x != y)
			return x < y ? -1 : 1;
	}
	return 0;
}

/* Oldest element of @key, or NULL. */
struct rbtree_elem *rbtree_find(const struct bpf_rbtree *rb, const void *key)
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
struct rbtree_elem *rbtree_above(const struct bpf_rbtree *rb, const void *key, bool or_equal)
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

void rbtree_insert(struct bpf_rbtree *rb, struct rbtree_elem *elem)
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

/* Put an element before all others of its key. */
void rbtree_link_front(struct bpf_rbtree *rb, struct rbtree_elem *elem)
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

void rbtree_remove_node(struct bpf_rbtree *rb, struct rbtree_elem *elem)
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

/* Take the youngest element of the key out whose oldest one is @oldest. */
struct rbtree_elem *rbtree_unlink_youngest(struct bpf_rbtree *rb,
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
