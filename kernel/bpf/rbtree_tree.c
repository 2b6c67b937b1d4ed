// SPDX-License-Identifier: GPL-2.0
/* The ordered map: its tree, all of it under the map's lock */
#include "rbtree.h"

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
