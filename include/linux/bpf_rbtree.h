/* SPDX-License-Identifier: GPL-2.0 */
/* The ordered map, BPF_MAP_TYPE_RBTREE, as kernel code sees that keeps kernel
 * objects in it on behalf of programs.
 */
#ifndef _LINUX_BPF_RBTREE_H
#define _LINUX_BPF_RBTREE_H

#include <linux/list.h>
#include <linux/types.h>

struct bpf_map;
struct bpf_verifier_log;
struct btf;
struct btf_type;
struct rbtree_elem;

/* The longest key. */
#define BPF_RBTREE_KEY_MAX	64

/**
 * struct bpf_rbtree_owner - who keeps objects in ordered maps
 * @maps: the maps this owner holds, protected by rbtree_owner_lock
 * @map_gone: called in process context when a map is gone in which the owner keeps objects:
 *	      bpf_rbtree_detach_gone() has them
 *
 * Embedded in the owner, a qdisc for instance. It lives until bpf_rbtree_disown() has
 * returned. An owner pushes and pops under one lock of its own and in an RCU read side. Both are
 * required: nothing else protects a map that is its alone (bpf_rbtree_use()).
 */
struct bpf_rbtree_owner {
	struct list_head maps;
	void (*map_gone)(struct bpf_rbtree_owner *owner);
};

/**
 * struct bpf_rbtree_cursor - where a walk is; all zero: before the first element
 * @elem: seen last; NULL: everything up to @key has been
 * @number: of @elem
 * @jumps: of the map, when @elem was seen
 * @end: elements younger than this one are not visited
 * @started: has the walk begun?
 * @key: of the element
 */
struct bpf_rbtree_cursor {
	struct rbtree_elem *elem;
	u64 number;
	u64 jumps;
	u64 end;
	bool started;
	u8 key[BPF_RBTREE_KEY_MAX] __aligned(8);
};

/**
 * struct bpf_rbtree_arg - an argument of a kfunc that takes some ordered maps
 * @suffix: how its name ends
 * @expected: which maps, for messages
 * @takes: is the map one of them? NULL: those that the map before it can hold
 */
struct bpf_rbtree_arg {
	const char *suffix;
	const char *expected;
	bool (*takes)(const struct bpf_map *map);
};

static inline void bpf_rbtree_owner_init(struct bpf_rbtree_owner *owner,
					 void (*map_gone)(struct bpf_rbtree_owner *owner))
{
	INIT_LIST_HEAD(&owner->maps);
	owner->map_gone = map_gone;
}

bool bpf_rbtree_holds_packets(const struct bpf_map *map);
bool bpf_rbtree_leads_to_packets(const struct bpf_map *map);
const struct bpf_rbtree_arg *bpf_rbtree_arg(const char *name);
bool bpf_rbtree_arg_takes(const struct bpf_rbtree_arg *arg, struct bpf_map *map,
			  const struct bpf_map *outer);
int bpf_rbtree_check_btf(struct bpf_map *map, const struct btf *btf,
			 const struct btf_type *key_type, const struct btf_type *value_type,
			 struct bpf_verifier_log *log);

void bpf_rbtree_use(struct bpf_map *map, struct bpf_rbtree_owner *owner);
void bpf_rbtree_unuse(struct bpf_map *map, struct bpf_rbtree_owner *owner);
void bpf_rbtree_share(struct bpf_map *map);
void bpf_rbtree_share_fd(u32 ufd);
int bpf_rbtree_push(struct bpf_map *map, struct bpf_rbtree_owner *owner,
		    const void *key, void *obj);
int bpf_rbtree_push_front(struct bpf_map *map, struct bpf_rbtree_owner *owner,
			  const void *key, void *obj);
void *bpf_rbtree_pop(struct bpf_map *map, struct bpf_rbtree_owner *owner);
void *bpf_rbtree_pop_until(struct bpf_map *map, struct bpf_rbtree_owner *owner,
			   const void *bound, u64 *first);
void *bpf_rbtree_pop_key(struct bpf_map *map, struct bpf_rbtree_owner *owner,
			 const void *key);
void *bpf_rbtree_pop_key_youngest(struct bpf_map *map, struct bpf_rbtree_owner *owner,
				  const void *key);
void *bpf_rbtree_pop_last(struct bpf_map *map, struct bpf_rbtree_owner *owner);
void *bpf_rbtree_pop_from(struct bpf_map *map, struct bpf_rbtree_owner *owner,
			  const void *key);
void *bpf_rbtree_peek(struct bpf_map *map, struct bpf_rbtree_owner *owner, void *value);
void *bpf_rbtree_drain(struct bpf_rbtree_owner *owner);
u32 bpf_rbtree_detach(struct bpf_rbtree_owner *owner, void (*free)(void *obj));
u32 bpf_rbtree_detach_gone(struct bpf_rbtree_owner *owner, void (*free)(void *obj),
			   u64 *bytes);
void bpf_rbtree_flush(void);
u64 bpf_rbtree_mark(struct bpf_map *map, u64 mark);
void bpf_rbtree_mark_inner(struct bpf_map *outer, u64 mark);
bool bpf_rbtree_owner_unmarked(struct bpf_rbtree_owner *owner, u64 mark, char *name);
void *bpf_rbtree_drain_unmarked(struct bpf_rbtree_owner *owner, u64 mark);
int bpf_rbtree_look(struct bpf_map *map, struct bpf_rbtree_cursor *c, void *value,
		    void (*look)(const void *obj, void *arg), void *arg);
void bpf_rbtree_disown(struct bpf_rbtree_owner *owner);

#endif /* _LINUX_BPF_RBTREE_H */
