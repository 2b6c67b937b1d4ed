// SPDX-License-Identifier: GPL-2.0
/* The ordered map: what its BTF says of the order of keys, and of what values hold. */
#include <linux/btf.h>
#include <linux/btf_ids.h>
#include <linux/bpf_verifier.h>
#include "rbtree.h"

/* Types in a key: one in another, and in all. */
#define RBTREE_TYPES_DEPTH	8
#define RBTREE_TYPES_MAX	128

BTF_ID_LIST(rbtree_obj_btf_ids)
#ifdef CONFIG_NET
BTF_ID(struct, sk_buff)
#else
BTF_ID_UNUSED
#endif
BTF_ID(struct, task_struct)

/* ---- the parts of a key ---- */

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

/* Without a type a key is bytes. */
void rbtree_order_bytes(struct bpf_rbtree *rb)
{
	rbtree_key_add_bytes(rb, 0, rb->map.key_size);
	rbtree_set_rank(rb);
}

/* ---- what values hold ---- */

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
	return rbtree_holds(map, rbtree_obj_btf_ids[0]);
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

bool rbtree_holds_tasks(const struct bpf_map *map)
{
	return rbtree_holds(map, rbtree_obj_btf_ids[1]);
}

/* ---- the types of a map ---- */

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
		    rec->fields[i].kptr.btf_id == rbtree_obj_btf_ids[0])
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
	if (!IS_ERR_OR_NULL(map->record))
		rb->is_bare = false;
	rb->has_objects = btf_record_has_nmi_unsafe_fields(map->record);
	rb->has_packets = bpf_rbtree_holds_packets(map);
	if (rb->has_packets || rbtree_holds_tasks(map))
		rb->obj_off = rb->value_off + map->record->fields[0].offset;
	rb->is_plain = rb->has_packets && rb->key_is_u64 && !rb->no_prealloc &&
		       map->value_size == sizeof(void *) &&
		       rb->obj_off == offsetof(struct rbtree_elem, key) + sizeof(u64);
	return 0;
}
