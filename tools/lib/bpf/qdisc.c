// SPDX-License-Identifier: (LGPL-2.1 OR BSD-2-Clause)
/*
 * The maps of an object whose programs are for a qdisc: those that are one for each tx
 * queue, and those that are one for all; and the maps of the programs that a qdisc has,
 * where the packets are that are queued.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <linux/bpf.h>

#include "bpf.h"
#include "btf.h"
#include "libbpf.h"
#include "libbpf_internal.h"

/* Deeper than any type of a key or value that makes sense */
#define MAX_TYPE_DEPTH 32

/* A map of the programs that the qdisc has now */
struct old_map {
	int fd;
	struct bpf_map_info info;
};

struct old_maps {
	struct old_map *map;
	__u32 cnt;
};

static bool types_equal(const struct btf *btf1, __u32 id1, const struct btf *btf2, __u32 id2,
			int depth);

static const char *type_name(const struct btf *btf, const struct btf_type *t)
{
	return btf__str_by_offset(btf, t->name_off) ?: "";
}

/* Typedefs and qualifiers do not change what is in memory. NULL if there are too many: BTF of an
 * object that the kernel has not seen yet may lead back to where it began.
 */
static const struct btf_type *skip_mods(const struct btf *btf, __u32 id)
{
	const struct btf_type *t = btf__type_by_id(btf, id);

	int depth = MAX_TYPE_DEPTH;

	while (t && (btf_is_mod(t) || btf_is_typedef(t)) && !btf_is_type_tag(t))
		t = depth-- ? btf__type_by_id(btf, t->type) : NULL;
	return t;
}

/* Follow a pointer through its tags (kptr and the like), which have to be the same */
static bool pointers_equal(const struct btf *btf1, const struct btf_type *t1,
			   const struct btf *btf2, const struct btf_type *t2)
{
	int depth = MAX_TYPE_DEPTH;

	while (depth--) {
		t1 = skip_mods(btf1, t1->type);
		t2 = skip_mods(btf2, t2->type);
		if (!t1 || !t2)
			return t1 == t2;
		if (btf_is_type_tag(t1) != btf_is_type_tag(t2))
			return false;
		if (strcmp(type_name(btf1, t1), type_name(btf2, t2)))
			return false;
		if (!btf_is_type_tag(t1))
			return true;
	}
	return false;
}

static bool members_equal(const struct btf *btf1, const struct btf_type *t1,
			  const struct btf *btf2, const struct btf_type *t2, int depth)
{
	const struct btf_member *m1 = btf_members(t1), *m2 = btf_members(t2);
	int i;

	for (i = 0; i < btf_vlen(t1); i++, m1++, m2++) {
		if (btf_member_bit_offset(t1, i) != btf_member_bit_offset(t2, i) ||
		    btf_member_bitfield_size(t1, i) != btf_member_bitfield_size(t2, i) ||
		    strcmp(btf__str_by_offset(btf1, m1->name_off),
			   btf__str_by_offset(btf2, m2->name_off)) ||
		    !types_equal(btf1, m1->type, btf2, m2->type, depth))
			return false;
	}
	return true;
}

static bool types_equal(const struct btf *btf1, __u32 id1, const struct btf *btf2, __u32 id2,
			int depth)
{
	const struct btf_type *t1, *t2;

	if (!id1 || !id2)
		return id1 == id2;
	t1 = skip_mods(btf1, id1);
	t2 = skip_mods(btf2, id2);
	if (!t1 || !t2 || !depth--)
		return false;
	if (btf_kind(t1) != btf_kind(t2) || btf_vlen(t1) != btf_vlen(t2))
		return false;

	switch (btf_kind(t1)) {
	case BTF_KIND_INT:
		return t1->size == t2->size && btf_int_encoding(t1) == btf_int_encoding(t2);
	case BTF_KIND_ENUM:
	case BTF_KIND_ENUM64:
		return t1->size == t2->size && btf_kflag(t1) == btf_kflag(t2);
	case BTF_KIND_FLOAT:
		return t1->size == t2->size;
	case BTF_KIND_ARRAY:
		return btf_array(t1)->nelems == btf_array(t2)->nelems &&
		       types_equal(btf1, btf_array(t1)->type, btf2, btf_array(t2)->type, depth);
	case BTF_KIND_STRUCT:
	case BTF_KIND_UNION:
		return t1->size == t2->size && members_equal(btf1, t1, btf2, t2, depth);
	case BTF_KIND_PTR:
		return pointers_equal(btf1, t1, btf2, t2);
	default:
		return false;
	}
}

/* 1 if the types of key or value differ, and what of them; or an error. */
int libbpf_map_types_differ(const struct bpf_map_info *old, const struct btf *btf,
			    const struct bpf_map *map, const char **what)
{
	__u32 key_id = bpf_map__btf_key_type_id(map), value_id = bpf_map__btf_value_type_id(map);
	struct btf *old_btf;

	*what = NULL;
	/* libbpf makes maps of some types without BTF; for them the sizes are all */
	if (!old->btf_id) {
		if (old->type == BPF_MAP_TYPE_RBTREE && key_id)
			*what = "key type";
		return !!*what;
	}
	old_btf = btf__load_from_kernel_by_id(old->btf_id);
	if (!old_btf)
		return -errno;
	if (!types_equal(old_btf, old->btf_key_type_id, btf, key_id, MAX_TYPE_DEPTH))
		*what = "key type";
	else if (!types_equal(old_btf, old->btf_value_type_id, btf, value_id, MAX_TYPE_DEPTH))
		*what = "value type";
	btf__free(old_btf);
	return !!*what;
}

/* The first map that a map of maps holds: its file descriptor; -ENOENT: it holds none. */
static int first_inner_map(int fd, const struct bpf_map_info *outer)
{
	__u32 id;
	void *key;
	int err;

	key = calloc(1, outer->key_size);
	if (!key)
		return -ENOMEM;
	for (err = bpf_map_get_next_key(fd, NULL, key); !err;
	     err = bpf_map_get_next_key(fd, key, key)) {
		err = bpf_map_lookup_elem(fd, key, &id);
		if (err != -ENOENT)
			break;
	}
	free(key);
	if (err)
		return err;
	fd = bpf_map_get_fd_by_id(id);
	return fd < 0 ? -errno : fd;
}

/* 1 if one of the maps cannot stand for the other, and what differs; or an error. The maps in
 * a map of maps are alike in all but their number of entries: the first tells of all.
 */
static int maps_differ(int fd, const struct bpf_map_info *old, const struct bpf_object *obj,
		       const struct bpf_map *map, bool is_inner, const char **what)
{
	const struct bpf_map *inner = bpf_map__inner_map((struct bpf_map *)map);
	__u32 len = sizeof(struct bpf_map_info);
	struct bpf_map_info info = {};
	int inner_fd, err;

	*what = NULL;
	if (old->type != bpf_map__type(map))
		*what = "type";
	else if (old->key_size != bpf_map__key_size(map) ||
		 old->value_size != bpf_map__value_size(map))
		*what = "key or value size";
	else if (!is_inner && old->max_entries != bpf_map__max_entries(map))
		*what = "max_entries";
	else if (old->map_flags != bpf_map__map_flags(map))
		*what = "flags";
	if (*what)
		return 1;
	err = libbpf_map_types_differ(old, bpf_object__btf(obj), map, what);
	if (err || !inner)
		return err;
	inner_fd = first_inner_map(fd, old);
	if (inner_fd < 0)
		return inner_fd == -ENOENT ? 0 : inner_fd;
	err = bpf_map_get_info_by_fd(inner_fd, &info, &len);
	if (!err)
		err = maps_differ(inner_fd, &info, obj, inner, true, what);
	if (err > 0)
		*what = "inner map";
	close(inner_fd);
	return err;
}

static int add_old_map(struct old_maps *old, __u32 id)
{
	__u32 len = sizeof(struct bpf_map_info), i;
	struct old_map *m;
	int err;

	for (i = 0; i < old->cnt; i++) {
		if (old->map[i].info.id == id)
			return 0;
	}
	m = libbpf_reallocarray(old->map, old->cnt + 1, sizeof(*m));
	if (!m)
		return -ENOMEM;
	old->map = m;

	m += old->cnt;
	memset(m, 0, sizeof(*m));
	m->fd = bpf_map_get_fd_by_id(id);
	if (m->fd < 0)
		return -errno;
	err = bpf_map_get_info_by_fd(m->fd, &m->info, &len);
	if (err) {
		close(m->fd);
		return err;
	}
	old->cnt++;
	return 0;
}

/* How many maps a program has is not known before it is asked */
static int get_map_ids(int prog_fd, __u32 **ids, __u32 *cnt)
{
	struct bpf_prog_info info = {};
	__u32 len = sizeof(info);
	int err;

	err = bpf_prog_get_info_by_fd(prog_fd, &info, &len);
	if (err)
		return err;
	*cnt = info.nr_map_ids;
	*ids = calloc(*cnt + 1, sizeof(**ids));
	if (!*ids)
		return -ENOMEM;

	memset(&info, 0, sizeof(info));
	info.nr_map_ids = *cnt;
	info.map_ids = (__u64)(unsigned long)*ids;
	len = sizeof(info);
	return bpf_prog_get_info_by_fd(prog_fd, &info, &len);
}

static int add_old_maps(struct old_maps *old, __u32 prog_id)
{
	__u32 *ids = NULL, cnt = 0, i;
	int fd, err;

	if (!prog_id)
		return 0;
	fd = bpf_prog_get_fd_by_id(prog_id);
	if (fd < 0)
		return -errno;
	err = get_map_ids(fd, &ids, &cnt);
	for (i = 0; !err && i < cnt; i++)
		err = add_old_map(old, ids[i]);
	free(ids);
	close(fd);
	return err;
}

/* 1 if @map may be the one that @old was: by the name, of which the kernel keeps the first
 * characters, and by all else; 0 if not, and what differs if that is not the name; or an error.
 */
static int may_be(const struct old_map *old, const struct bpf_object *obj,
		  const struct bpf_map *map, const char **differs)
{
	int err;

	if (!old->info.name[0] ||
	    strncmp(old->info.name, bpf_map__name(map), sizeof(old->info.name) - 1))
		return 0;
	err = maps_differ(old->fd, &old->info, obj, map, false, differs);
	return err < 0 ? err : !err;
}

/* How many other maps of the qdisc could be @map, and how many other maps of the object could be
 * @found. Those that are reused already are decided.
 */
static int count_namesakes(const struct old_maps *old, const struct old_map *found,
			   const struct bpf_object *obj, const struct bpf_map *map)
{
	const struct bpf_map *other = NULL;
	const struct old_map *m;
	const char *differs;
	int ret, count = 0;

	for (m = old->map; m < old->map + old->cnt; m++) {
		ret = m == found ? 0 : may_be(m, obj, map, &differs);
		if (ret < 0)
			return ret;
		count += ret;
	}
	while ((other = bpf_object__next_map(obj, other))) {
		if (other == map || bpf_map__is_internal(other) || bpf_map__pin_path(other) ||
		    bpf_map__fd(other) >= 0)
			continue;
		ret = may_be(found, obj, other, &differs);
		if (ret < 0)
			return ret;
		count += ret;
	}
	return count;
}

/* Packets of two maps must not be exchanged: a map that may be either is not taken over. */
static int reuse_map(const struct old_maps *old, const struct bpf_object *obj, struct bpf_map *map)
{
	const char *differs = NULL;
	const struct old_map *m;
	int ret = 0;

	for (m = old->map; m < old->map + old->cnt; m++) {
		ret = may_be(m, obj, map, &differs);
		if (ret)
			break;
	}
	if (ret > 0) {
		ret = count_namesakes(old, m, obj, map);
		if (!ret) {
			/* Not to take it over would be to lose what is in it. */
			ret = bpf_map__reuse_fd(map, m->fd);
			return ret ?: 1;
		}
		differs = "map has the same first 15 characters in its name";
	}
	if (ret < 0)
		return ret;
	if (differs)
		pr_warn("map '%s': is not taken over from the qdisc: another %s\n",
			bpf_map__name(map), differs);
	return 0;
}

static bool has_tag(const struct btf *btf, __u32 id, const char *tag)
{
	const struct btf_type *t;
	__u32 i;

	for (i = 1; i < btf__type_cnt(btf); i++) {
		t = btf__type_by_id(btf, i);
		if (btf_is_decl_tag(t) && t->type == id && !strcmp(type_name(btf, t), tag))
			return true;
	}
	return false;
}

/* Is the map one for all tx queues, also of an object that is loaded for each? */
static bool is_shared(const struct bpf_object *obj, const struct bpf_map *map)
{
	const char *name = bpf_map__name(map);
	const struct btf *btf = bpf_object__btf(obj);
	__u32 id;

	if (bpf_map__is_internal(map))
		return !strcmp(name, ".data.param") || !strcmp(name, ".data.shared");
	for (id = 1; id < btf__type_cnt(btf); id++) {
		const struct btf_type *t = btf__type_by_id(btf, id);

		if (btf_is_var(t) && !strcmp(type_name(btf, t), name))
			return has_tag(btf, id, "table") || has_tag(btf, id, "shared");
	}
	return false;
}

static int reuse_maps(const struct old_maps *old, struct bpf_object *obj, bool shared)
{
	struct bpf_map *map;
	int ret, reused = 0;

	bpf_object__for_each_map(map, obj) {
		/* data of the old programs is not for the new ones; a pin decides itself */
		if (bpf_map__is_internal(map) || bpf_map__pin_path(map) || bpf_map__fd(map) >= 0 ||
		    (shared && !is_shared(obj, map)))
			continue;
		ret = reuse_map(old, obj, map);
		if (ret < 0)
			return ret;
		reused += ret;
	}
	return reused;
}

int bpf_object__reuse_qdisc_maps(struct bpf_object *obj, int ifindex,
				 const struct bpf_qdisc_opts *opts)
{
	LIBBPF_OPTS(bpf_qdisc_info, info);
	struct old_maps old = {};
	__u32 i;
	int ret;

	ret = bpf_qdisc_query(ifindex, opts, &info);
	if (ret)
		return libbpf_err(ret);

	ret = add_old_maps(&old, info.enqueue_prog_id);
	if (!ret)
		ret = add_old_maps(&old, info.dequeue_prog_id);
	if (!ret)
		ret = reuse_maps(&old, obj, OPTS_GET(opts, flags, 0) & BPF_QDISC_F_SHARED);

	for (i = 0; i < old.cnt; i++)
		close(old.map[i].fd);
	free(old.map);
	return libbpf_err(ret);
}

int bpf_object__share_qdisc_maps(struct bpf_object *obj, const struct bpf_object *first)
{
	struct bpf_map *map;
	int err, fd, shared = 0;

	bpf_object__for_each_map(map, obj) {
		if (bpf_map__pin_path(map) || !is_shared(obj, map))
			continue;
		fd = bpf_object__find_map_fd_by_name(first, bpf_map__name(map));
		if (fd < 0)
			return libbpf_err(-ENOENT);
		err = bpf_map__reuse_fd(map, fd);
		if (err)
			return err;
		shared++;
	}
	return shared;
}

int bpf_object__set_tx_queues(struct bpf_object *obj, int ifindex)
{
	struct bpf_map *map;
	int queues, err;

	queues = libbpf_get_tx_queues(ifindex);
	if (queues < 0)
		return libbpf_err(queues);

	bpf_object__for_each_map(map, obj) {
		if (bpf_map__type(map) != BPF_MAP_TYPE_ARRAY_OF_MAPS || bpf_map__max_entries(map))
			continue;
		err = bpf_map__set_max_entries(map, queues);
		if (err)
			return libbpf_err(err);
	}
	return queues;
}
