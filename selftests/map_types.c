// SPDX-License-Identifier: GPL-2.0
/*
 * map_types OBJECT: keys and values that an ordered map cannot have are refused,
 * and the log says why. What user space cannot do to a map of packets.
 */
#include "map.h"
#include <bpf/btf.h>
#include <unistd.h>

static struct btf *btf;
static int u64, u16, s8;
static char text[4096];

static int create(int key_type, int value_type)
{
	LIBBPF_OPTS(bpf_log_opts, log, .buf = text, .size = sizeof(text), .level = 1);
	LIBBPF_OPTS(bpf_map_create_opts, opts, .btf_key_type_id = key_type,
		    .btf_value_type_id = value_type, .log_opts = &log);
	int fd;

	text[0] = '\0';
	if (btf__fd(btf) < 0 && btf__load_into_kernel(btf))
		err(1, "BTF");
	opts.btf_fd = btf__fd(btf);
	fd = bpf_map_create(BPF_MAP_TYPE_RBTREE, "types", btf__resolve_size(btf, key_type),
			    btf__resolve_size(btf, value_type), 4, &opts);
	if (fd >= 0)
		close(fd);
	return fd;
}

static bool accepted(int key_type)
{
	int fd = create(key_type, u64);

	if (fd < 0)
		printf("# %s\n", text);
	expect(fd >= 0);
	return true;
}

static bool refused(int key_type, int value_type, int error, const char *words)
{
	expect_equal(create(key_type, value_type), error);
	if (!strstr(text, words))
		printf("# log: %s\n", text);
	expect(strstr(text, words));
	return true;
}

static int structure(const char *name, int type, int size)
{
	int id = btf__add_struct(btf, name, size + 8);

	btf__add_field(btf, "before", u64, 0, 0);
	btf__add_field(btf, "member", type, 64, 0);
	return id;
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
	expect_equal(bpf_map_delete_elem(fd, &key), -ENOENT);
	expect_equal(bpf_map_lookup_and_delete_elem(fd, &key, value), -ENOENT);
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
	int choice, unknown, timer, timed, spin, locked;

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
	unknown = btf__add_fwd(btf, "sk_buff", BTF_FWD_STRUCT);
	unknown = structure("with_unknown", btf__add_ptr(btf, btf__add_type_tag(btf, "kptr", unknown)), 8);
	timer = btf__add_struct(btf, "bpf_timer", 16);
	btf__add_field(btf, "opaque", btf__add_array(btf, u64, u64, 2), 0, 0);
	timed = structure("with_timer", timer, 16);
	spin = btf__add_struct(btf, "bpf_spin_lock", 4);
	btf__add_field(btf, "val", btf__add_int(btf, "u32", 4, 0), 0, 0);
	locked = btf__add_struct(btf, "with_lock", 8);
	btf__add_field(btf, "lock", spin, 0, 0);

	printf("1..16\n");
	result(accepted(numbers), "16 integers are a key");
	result(accepted(bytes), "64 bytes are a key");
	result(accepted(bytes_in), "a struct with bytes in it is a key");
	result(accepted(choice), "a union is a key, compared as bytes");
	result(refused(real, u64, -EINVAL, "cannot have a floating point number"), "floating point");
	result(refused(in_struct, u64, -EINVAL, "cannot have a floating point number"),
	       "floating point in a struct");
	result(refused(pointer, u64, -EINVAL, "cannot have a pointer"), "pointer");
	result(refused(wide, u64, -EINVAL, "not 1, 2, 4 or 8 bytes long"), "integer of 16 bytes");
	result(refused(many, u64, -EINVAL, "more than 16 parts"), "17 integers");
	result(refused(bits_in, u64, -EINVAL, "cannot have a bit field"), "bit field");
	result(refused(too_long, u64, -E2BIG, "too large"), "65 bytes");
	result(refused(u64, timed, -EOPNOTSUPP, "does not support a special field"),
	       "a timer in the value");
	result(refused(u64, locked, -EOPNOTSUPP, "does not support a special field"),
	       "a spin lock in the value");
	result(refused(u64, unknown, -EINVAL, "a kptr to a type only declared"), "a kptr to a type without a body");
	result(sizes_and_flags(), "sizes and flags without BTF");
	result(packets_are_left_alone(), "user space cannot change a map of packets");
	return failed ? 1 : 0;
}
