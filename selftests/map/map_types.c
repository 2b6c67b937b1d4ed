// SPDX-License-Identifier: GPL-2.0
/*
 * map_types OBJECT: keys and values that an ordered map cannot have are refused,
 * and the log says why. What user space cannot do to a map of packets.
 */
#include "../lib/map.h"
#include <bpf/btf.h>
#include <unistd.h>

static struct btf *btf;
static int u64, u16, s8;
static char text[4096];

static int open_of(const struct btf *types, int key_type, int value_type, uint32_t flags,
		   int inner)
{
	LIBBPF_OPTS(bpf_log_opts, log, .buf = text, .size = sizeof(text), .level = 1);
	LIBBPF_OPTS(bpf_map_create_opts, opts, .btf_fd = btf__fd(types), .log_opts = &log,
		    .btf_key_type_id = key_type, .btf_value_type_id = value_type,
		    .map_flags = flags, .inner_map_fd = inner);

	text[0] = '\0';
	return bpf_map_create(BPF_MAP_TYPE_RBTREE, "types",
			      key_type ? btf__resolve_size(types, key_type) : 8,
			      btf__resolve_size(types, value_type), 4, &opts);
}

static int create_of(const struct btf *types, int key_type, int value_type, uint32_t flags,
		     int inner)
{
	int fd = open_of(types, key_type, value_type, flags, inner);

	if (fd >= 0)
		close(fd);
	return fd;
}

static int create(int key_type, int value_type)
{
	if (btf__fd(btf) < 0 && btf__load_into_kernel(btf))
		err(1, "BTF");
	return create_of(btf, key_type, value_type, 0, 0);
}

/* With a value of a type of the object's */
static int create_value(const char *type, uint32_t flags, int inner)
{
	const struct btf *types = bpf_object__btf(obj);
	int id = btf__find_by_name_kind(types, type, BTF_KIND_STRUCT);

	if (id < 0)
		errx(1, "no type %s", type);
	return create_of(types, 0, id, flags, inner);
}

static bool accepted(int key_type)
{
	int fd = create(key_type, u64);

	if (fd < 0)
		printf("# %s\n", text);
	expect(fd >= 0);
	return true;
}

static bool log_has(const char *words)
{
	if (!strstr(text, words))
		printf("# log: %s\n", text);
	expect(strstr(text, words));
	return true;
}

static bool refused(int key_type, int value_type, int error, const char *words)
{
	expect_equal(create(key_type, value_type), error);
	return log_has(words);
}

/* The one integer of a key is not at its beginning: the order is that of the integer. */
static bool in_order_of(int key_type)
{
	uint64_t key[2], value;
	int fd = open_of(btf, key_type, u64, 0, 0);

	expect(fd >= 0);
	for (uint64_t i = 0; i < 4; i++) {
		key[0] = i;
		key[1] = value = 4 - i;
		expect_equal(bpf_map_update_elem(fd, key, &value, BPF_NOEXIST), 0);
	}
	for (uint64_t i = 0; i < 4; i++) {
		expect_equal(bpf_map_get_next_key(fd, i ? key : NULL, key), 0);
		expect_equal(key[1], i + 1);
		/* Nothing but the integer is compared. */
		key[0] = 9;
		expect_equal(bpf_map_lookup_elem(fd, key, &value), 0);
		expect_equal(value, i + 1);
	}
	expect_equal(bpf_map_get_next_key(fd, key, key), -ENOENT);
	close(fd);
	return true;
}

static bool unsupported(void)
{
	static const uint32_t flags[] = { 0, BPF_F_NO_PREALLOC };
	static const char *const types[] = {
		"has_lock", "has_res_lock", "has_timer", "has_wq", "has_task_work", "has_list",
		"has_tree", "has_uptr",
	};

	for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
		printf("# %s\n", types[i]);
		for (int j = 0; j < 2; j++) {
			expect_equal(create_value(types[i], flags[j], 0), -EOPNOTSUPP);
			expect(log_has("does not support a special field of the value"));
		}
	}
	expect_equal(create_value("has_timers", 0, 0), -EINVAL);
	expect(log_has("Bad special field in the value"));
	return true;
}

static bool beside_a_packet(void)
{
	static const char *const types[] = {
		"has_packet_and_task", "has_packet_and_number", "has_packets",
	};

	for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
		printf("# %s\n", types[i]);
		expect_equal(create_value(types[i], 0, 0), -EINVAL);
		expect(log_has("no other special field beside an sk_buff kptr"));
	}
	return true;
}

/* What the kernel looks for in no value of a map is plain data. */
static bool plain_data(void)
{
	expect(create_value("in_list", 0, 0) >= 0);
	expect(create_value("in_tree", 0, 0) >= 0);
	expect(create_value("has_dynptr", 0, 0) >= 0);
	return true;
}

static bool special_or_not(void)
{
	int inner = bpf_map_create(BPF_MAP_TYPE_RBTREE, "inner", 8, 8, 1, NULL);

	expect(inner >= 0);
	expect(create_value("has_refcount", 0, 0) >= 0);
	expect_equal(create_value("has_refcount", BPF_F_RDONLY_PROG, 0), -EACCES);
	expect_equal(create_value("has_refcount", BPF_F_WRONLY_PROG, 0), -EACCES);
	expect_equal(create_value("has_refcount", 0, inner), -EINVAL);
	expect(log_has("the values of a map of maps have no special fields"));
	close(inner);
	return true;
}

static int structure(const char *name, int type, int size)
{
	int id = btf__add_struct(btf, name, size + 8);

	btf__add_field(btf, "before", u64, 0, 0);
	btf__add_field(btf, "member", type, 64, 0);
	return id;
}

/* User space can make types that are all that another one is made of, or no part of it at all. */
static bool types_in_one_another(void)
{
	static const struct {
		int levels, size, members;
	} towers[] = { { 7, 8, 1 }, { 10000, 8, 1 }, { 40, 0, 2 } };

	for (size_t i = 0; i < sizeof(towers) / sizeof(towers[0]); i++) {
		struct btf *types = btf__new_empty();
		int number = btf__add_int(types, "number", 8, 0), level = number, top, fd;

		if (!towers[i].size)
			level = btf__add_struct(types, "nothing", 0);
		for (int j = 1; j <= towers[i].levels; j++) {
			int below = level;

			level = btf__add_struct(types, "level", towers[i].size);
			for (int k = 0; k < towers[i].members; k++)
				btf__add_field(types, "below", below, 0, 0);
		}
		top = btf__add_struct(types, "top", 8);
		btf__add_field(types, "level", level, 0, 0);
		btf__add_field(types, "number", number, 0, 0);
		if (btf__load_into_kernel(types))
			err(1, "BTF of %d levels", towers[i].levels);
		fd = create_of(types, towers[i].levels == 7 ? level : top, number, 0, 0);
		btf__free(types);
		if (towers[i].levels == 7) {
			expect(fd >= 0);
			continue;
		}
		expect_equal(fd, -EINVAL);
		expect(log_has("cannot have too many types in one another"));
	}
	return true;
}

static int create_raw(uint32_t key_size, uint32_t value_size, uint32_t entries, uint32_t flags)
{
	LIBBPF_OPTS(bpf_map_create_opts, opts, .map_flags = flags);
	int fd = bpf_map_create(BPF_MAP_TYPE_RBTREE, "raw", key_size, value_size, entries, &opts);

	if (fd >= 0)
		close(fd);
	return fd;
}

static bool sizes_and_flags(void)
{
	expect_equal(create_raw(8, 8, 0, 0), -EINVAL);
	expect_equal(create_raw(0, 8, 1, 0), -EINVAL);
	expect_equal(create_raw(8, 0, 1, 0), -EINVAL);
	expect_equal(create_raw(65, 8, 1, 0), -E2BIG);
	expect_equal(create_raw(8, 8, 1, BPF_F_MMAPABLE), -EINVAL);
	expect(create_raw(64, 8, 1, 0) >= 0);
	return true;
}

static bool packets_are_left_alone(void)
{
	uint64_t key = 1, value[2] = {}, cursor;
	uint32_t count = 1;
	int fd = map("pkts");

	expect_equal(bpf_map_update_elem(fd, &key, value, BPF_ANY), -EOPNOTSUPP);
	expect_equal(bpf_map_update_elem(fd, &key, value, BPF_NOEXIST), -EOPNOTSUPP);
	expect_equal(bpf_map_delete_elem(fd, &key), -EBUSY);
	expect_equal(bpf_map_lookup_and_delete_elem(fd, &key, value), -EBUSY);
	expect_equal(bpf_map_lookup_and_delete_batch(fd, NULL, &cursor, &key, value, &count, NULL),
		     -EBUSY);
	count = 1;
	expect_equal(bpf_map_update_batch(fd, &key, value, &count, NULL), -EOPNOTSUPP);
	expect_equal(bpf_map_lookup_elem(fd, &key, value), -ENOENT);
	expect_equal(bpf_map_freeze(fd), -524);		/* ENOTSUPP */
	return true;
}

int main(int argc, char **argv)
{
	int real, pointer, bits, wide, numbers, bytes, many, too_long, in_struct, bytes_in, bits_in;
	int choice, unknown, behind;

	load(argc, argv);
	btf = btf__new_empty();
	u64 = btf__add_int(btf, "u64", 8, 0);
	u16 = btf__add_int(btf, "u16", 2, 0);
	s8 = btf__add_int(btf, "s8", 1, BTF_INT_SIGNED);
	real = btf__add_float(btf, "double", 8);
	pointer = btf__add_ptr(btf, u64);
	wide = btf__add_int(btf, "u128", 16, 0);
	numbers = btf__add_array(btf, u64, u16, 16);
	bytes = btf__add_array(btf, u64, s8, 64);
	many = btf__add_array(btf, u64, u16, 17);
	too_long = btf__add_array(btf, u64, s8, 65);
	in_struct = structure("with_double", real, 8);
	bytes_in = structure("with_bytes", btf__add_array(btf, u64, s8, 8), 8);
	bits = btf__add_struct(btf, "bits", 8);
	btf__add_field(btf, "some", u64, 0, 3);
	bits_in = structure("with_bits", bits, 8);
	choice = btf__add_union(btf, "choice", 8);
	btf__add_field(btf, "a", u64, 0, 0);
	btf__add_field(btf, "b", real, 0, 0);
	behind = btf__add_struct(btf, "behind", 16);
	btf__add_field(btf, "number", u64, 64, 0);
	unknown = btf__add_fwd(btf, "sk_buff", BTF_FWD_STRUCT);
	unknown = structure("with_unknown", btf__add_ptr(btf, btf__add_type_tag(btf, "kptr", unknown)), 8);

	printf("1..20\n");
	result(accepted(numbers), "16 integers are a key");
	result(accepted(bytes), "64 bytes are a key");
	result(accepted(bytes_in), "a struct with bytes in it is a key");
	result(accepted(choice), "a union is a key, compared as bytes");
	result(in_order_of(behind), "an integer that is not at the beginning of its key");
	result(refused(real, u64, -EINVAL, "cannot have a floating point number"), "floating point");
	result(refused(in_struct, u64, -EINVAL, "cannot have a floating point number"),
	       "floating point in a struct");
	result(refused(pointer, u64, -EINVAL, "cannot have a pointer"), "pointer");
	result(refused(wide, u64, -EINVAL, "not 1, 2, 4 or 8 bytes long"), "integer of 16 bytes");
	result(refused(many, u64, -EINVAL, "more than 16 parts"), "17 integers");
	result(refused(bits_in, u64, -EINVAL, "cannot have a bit field"), "bit field");
	result(refused(too_long, u64, -E2BIG, "too large"), "65 bytes");
	result(types_in_one_another(), "structs in one another");
	result(unsupported(), "locks, timers, work, lists, trees and uptrs in the value");
	result(beside_a_packet(), "special fields beside a packet");
	result(plain_data(), "nodes and dynptrs are plain data");
	result(special_or_not(), "a special field, but no flags or inner map beside it");
	result(refused(u64, unknown, -EINVAL, "a kptr to a type only declared"), "a kptr to a type without a body");
	result(sizes_and_flags(), "sizes and flags without BTF");
	result(packets_are_left_alone(), "user space cannot change a map of packets");
	return failed ? 1 : 0;
}
