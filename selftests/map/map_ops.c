// SPDX-License-Identifier: GPL-2.0
/*
 * map_ops OBJECT: each operation on an ordered map, above all with equal keys.
 */
#include "../lib/map.h"
#include <unistd.h>

#define ENTRIES	64

struct args {
	uint64_t key;
	uint64_t value;
};

struct walk {
	uint64_t count;
	uint64_t wrong;
	uint64_t last_key;
	uint64_t last_value;
};

static int call(const char *program, uint64_t key, uint64_t value)
{
	struct args args = { key, value };

	return run_args(program, &args, sizeof(args));
}

static void empty(int fd)
{
	uint64_t key;

	while (!bpf_map_get_next_key(fd, NULL, &key))
		bpf_map_delete_elem(fd, &key);
}

/* Three elements each of the keys 10, 20, 30; values 100 to 102, 200 ... */
static int fill(const char *name, const char *push)
{
	int fd = map(name);

	empty(fd);
	for (int i = 0; i < 9; i++)
		if (call(push, 10 * (i % 3 + 1), 100 * (i % 3 + 1) + i / 3))
			errx(1, "cannot fill %s", name);
	return fd;
}

static int numbers(void)
{
	return fill("numbers", "push");
}

static bool pop_is(uint64_t key, uint64_t value)
{
	struct args args = {};

	expect_equal(run_args("pop", &args, sizeof(args)), 0);
	expect_equal(args.key, key);
	expect_equal(args.value, value);
	return true;
}

static bool pop_in_order(void)
{
	numbers();
	for (uint64_t key = 10; key <= 30; key += 10)
		for (int i = 0; i < 3; i++)
			expect(pop_is(key, 10 * key + i));
	expect_equal(call("pop", 0, 0), -ENOENT);
	return true;
}

/* What is left at the bound stays, and its key is told. */
static bool pop_until_a_bound(void)
{
	struct {
		uint64_t bound;
		struct args first;
	} args = { .bound = 9 };

	numbers();
	expect_equal(run_args("pop_until", &args, sizeof(args)), -EAGAIN);
	expect_equal(args.first.key, 10);
	args.bound = 29;
	for (int i = 0; i < 6; i++) {
		expect_equal(run_args("pop_until", &args, sizeof(args)), 0);
		expect_equal(args.first.key, i < 3 ? 10 : 20);
		expect_equal(args.first.value, 10 * args.first.key + i % 3);
	}
	expect_equal(run_args("pop_until", &args, sizeof(args)), -EAGAIN);
	expect_equal(args.first.key, 30);
	expect(pop_is(30, 300));
	empty(map("numbers"));
	expect_equal(run_args("pop_until", &args, sizeof(args)), -ENOENT);
	return true;
}

static bool pop_one_key(void)
{
	struct args args = { .key = 20 };

	numbers();
	for (int i = 0; i < 3; i++) {
		expect_equal(run_args("pop_key", &args, sizeof(args)), 0);
		expect_equal(args.value, 200 + i);
	}
	expect_equal(run_args("pop_key", &args, sizeof(args)), -ENOENT);
	args.key = 15;
	expect_equal(run_args("pop_key", &args, sizeof(args)), -ENOENT);
	expect(pop_is(10, 100));
	return true;
}

static bool first_and_lower_bound(void)
{
	struct args args = {};
	uint64_t key = 20, value;
	int fd = numbers();

	expect_equal(run_args("first", &args, sizeof(args)), 0);
	expect_equal(args.key, 10);
	expect_equal(args.value, 100);
	args.key = 11;
	expect_equal(run_args("lower_bound", &args, sizeof(args)), 0);
	expect_equal(args.key, 20);
	expect_equal(args.value, 200);
	/* The program has added one, in the map. */
	expect(!bpf_map_lookup_elem(fd, &key, &value));
	expect_equal(value, 201);
	args.key = 30;
	expect_equal(run_args("lower_bound", &args, sizeof(args)), 0);
	expect_equal(args.key, 30);
	expect_equal(call("lower_bound", 31, 0), -ENOENT);
	empty(fd);
	expect_equal(call("first", 0, 0), -ENOENT);
	return true;
}

static bool upper_bound_and_last(void)
{
	struct args args = { .key = 9 };
	int fd = numbers();

	for (uint64_t key = 10; key <= 30; key += 10) {
		expect_equal(run_args("upper_bound", &args, sizeof(args)), 0);
		expect_equal(args.key, key);
		expect_equal(args.value, 10 * key);
	}
	expect_equal(call("upper_bound", 30, 0), -ENOENT);
	expect_equal(call("upper_bound", UINT64_MAX, 0), -ENOENT);
	/* The youngest of the highest key, which leaves as the third of it */
	expect_equal(run_args("last", &args, sizeof(args)), 0);
	expect_equal(args.key, 30);
	expect_equal(args.value, 302);
	empty(fd);
	expect_equal(call("last", 0, 0), -ENOENT);
	expect_equal(call("upper_bound", 0, 0), -ENOENT);
	expect_equal(call("push", 7, 70), 0);
	expect_equal(run_args("last", &args, sizeof(args)), 0);
	expect_equal(args.value, 70);
	return true;
}

static bool length(void)
{
	uint64_t key = 10, value;
	int fd = numbers();

	expect_equal(run("len"), 9);
	expect(pop_is(10, 100));
	expect(!bpf_map_lookup_and_delete_elem(fd, &key, &value));
	expect_equal(run("len"), 7);
	empty(fd);
	expect_equal(run("len"), 0);
	for (int i = 0; i < ENTRIES; i++)
		expect_equal(call("push", i, i), 0);
	expect_equal(call("push", 0, 0), -E2BIG);
	expect_equal(run("len"), ENTRIES);
	return true;
}

static bool the_oldest_of_a_key(void)
{
	uint64_t key = 10, value = 7, found;
	int fd = numbers();

	expect_equal(bpf_map_update_elem(fd, &key, &value, BPF_NOEXIST), -EEXIST);
	expect(!bpf_map_lookup_elem(fd, &key, &found) && found == 100);
	expect(!bpf_map_update_elem(fd, &key, &value, BPF_EXIST));
	expect(!bpf_map_lookup_elem(fd, &key, &found) && found == 7);
	value = 8;
	expect(!bpf_map_update_elem(fd, &key, &value, BPF_ANY));
	expect(!bpf_map_lookup_elem(fd, &key, &found) && found == 8);
	expect(!bpf_map_delete_elem(fd, &key));
	expect(!bpf_map_lookup_elem(fd, &key, &found) && found == 101);
	expect(!bpf_map_lookup_and_delete_elem(fd, &key, &found) && found == 101);
	expect(!bpf_map_lookup_and_delete_elem(fd, &key, &found) && found == 102);
	expect_equal(bpf_map_lookup_and_delete_elem(fd, &key, &found), -ENOENT);
	expect_equal(bpf_map_delete_elem(fd, &key), -ENOENT);
	expect_equal(bpf_map_update_elem(fd, &key, &value, BPF_EXIST), -ENOENT);
	expect(!bpf_map_update_elem(fd, &key, &value, BPF_ANY));
	expect(pop_is(10, 8));
	expect(pop_is(20, 200));
	return true;
}

static bool next_key_is_a_different_one(void)
{
	uint64_t key;
	int fd = numbers();

	expect(!bpf_map_get_next_key(fd, NULL, &key) && key == 10);
	expect(!bpf_map_get_next_key(fd, &key, &key) && key == 20);
	expect(!bpf_map_get_next_key(fd, &key, &key) && key == 30);
	expect_equal(bpf_map_get_next_key(fd, &key, &key), -ENOENT);
	return true;
}

static bool full(const char *name, const char *push)
{
	uint64_t key = 1000;
	int fd = map(name);

	empty(fd);
	for (int round = 0; round < 3; round++) {
		for (int i = 0; i < ENTRIES; i++)
			expect_equal(call(push, i / 4, i), 0);
		expect_equal(call(push, 5, 0), -E2BIG);
		expect_equal(bpf_map_update_elem(fd, &key, &key, BPF_ANY), -E2BIG);
		empty(fd);
	}
	return true;
}

/* ---- walks ---- */

static bool walk_is(const char *program, int count)
{
	struct walk walk = {};

	expect_equal(run_args(program, &walk, sizeof(walk)), count);
	expect_equal(walk.count, count);
	expect_equal(walk.wrong, 0);
	return true;
}

static bool walks(void)
{
	int fd = numbers();

	expect(walk_is("walk", 9));
	expect(walk_is("walk_beside", 9));
	expect(walk_is("walk_three", 3));
	empty(fd);
	expect(walk_is("walk", 0));
	return true;
}

static bool delete_what_is_visited(void)
{
	uint64_t key;
	int fd = numbers();

	expect(walk_is("walk_and_delete", 9));
	expect_equal(bpf_map_get_next_key(fd, NULL, &key), -ENOENT);
	fd = fill("allocated", "push_allocated");
	expect(walk_is("walk_and_delete_allocated", 9));
	expect_equal(bpf_map_get_next_key(fd, NULL, &key), -ENOENT);
	return true;
}

/* Those that come while it walks are not visited: it ends. */
static bool push_while_walking(void)
{
	int fd = numbers();

	expect(walk_is("walk_and_renew", 9));
	expect(walk_is("walk", 9));
	expect(pop_is(10, 1100));

	fd = map("big");
	for (uint64_t key = 0; key < 1000; key += 10)
		expect(!bpf_map_update_elem(fd, &key, &key, BPF_NOEXIST));
	expect(walk_is("walk_and_push_ahead", 100));
	return true;
}

/* Two go for each that is visited: of ten, those with values 0, 2, 4, 6, 8 are met. */
static bool pop_while_walking(void)
{
	int fd = map("numbers");

	empty(fd);
	for (int i = 0; i < 10; i++)
		expect_equal(call("push", i / 5, i), 0);
	expect(walk_is("walk_and_pop", 5));
	expect(walk_is("walk", 0));
	return true;
}

/* ---- batches ---- */

typedef int (*batch_fn)(int fd, void *in, void *out, void *keys, void *values, __u32 *count,
			const struct bpf_map_batch_opts *opts);

/* 10 10 10 20 20 20 30 30 30 in steps of up to four: never a part of a key. */
static bool batch_in_steps(batch_fn batch, int fd)
{
	uint64_t keys[16], values[16], cursor;
	uint32_t count;

	for (uint64_t key = 10; key <= 30; key += 10) {
		count = 4;
		expect_equal(batch(fd, key == 10 ? NULL : &cursor, &cursor, keys, values, &count, NULL),
			     key == 30 ? -ENOENT : 0);
		expect_equal(count, 3);
		expect_equal(cursor, key);
		for (int i = 0; i < 3; i++) {
			expect_equal(keys[i], key);
			expect_equal(values[i], 10 * key + i);
		}
	}
	count = 4;
	expect_equal(batch(fd, &cursor, &cursor, keys, values, &count, NULL), -ENOENT);
	expect_equal(count, 0);
	return true;
}

static bool batch_of_many(batch_fn batch, int fd)
{
	uint64_t keys[16], values[16], cursor;
	uint32_t count = 2;

	expect_equal(batch(fd, NULL, &cursor, keys, values, &count, NULL), -ENOSPC);
	expect_equal(count, 0);
	count = 3;
	expect_equal(batch(fd, NULL, &cursor, keys, values, &count, NULL), 0);
	expect_equal(count, 3);
	count = 16;
	expect_equal(batch(fd, &cursor, &cursor, keys, values, &count, NULL), -ENOENT);
	expect_equal(count, 6);
	expect_equal(values[5], 302);
	return true;
}

static bool lookup_batch(void)
{
	int fd = numbers();

	expect(batch_in_steps(bpf_map_lookup_batch, fd));
	expect(batch_of_many(bpf_map_lookup_batch, fd));
	return true;
}

static bool lookup_and_delete_batch(void)
{
	uint64_t key;
	int fd = numbers();

	expect(batch_in_steps(bpf_map_lookup_and_delete_batch, fd));
	expect_equal(bpf_map_get_next_key(fd, NULL, &key), -ENOENT);
	fd = fill("allocated", "push_allocated");
	expect(batch_of_many(bpf_map_lookup_and_delete_batch, fd));
	expect_equal(bpf_map_get_next_key(fd, NULL, &key), -ENOENT);
	return true;
}

static bool update_and_delete_batch(void)
{
	uint64_t keys[] = { 3, 1, 2, 1 }, values[] = { 30, 10, 20, 11 }, value;
	uint32_t count = 4;
	int fd = map("numbers");

	empty(fd);
	expect(!bpf_map_update_batch(fd, keys, values, &count, NULL));
	expect_equal(count, 4);
	expect(!bpf_map_lookup_elem(fd, &keys[1], &value) && value == 11);
	count = 3;
	expect(!bpf_map_delete_batch(fd, keys, &count, NULL));
	expect_equal(bpf_map_get_next_key(fd, NULL, &value), -ENOENT);
	return true;
}

/* ---- the iterator ---- */

/* All that the iterator prints of a map, in a static buffer. */
static char *shown(int fd)
{
	struct bpf_program *prog = bpf_object__find_program_by_name(obj, "show");
	union bpf_iter_link_info info = { .map.map_fd = fd };
	LIBBPF_OPTS(bpf_iter_attach_opts, opts, .link_info = &info, .link_info_len = sizeof(info));
	struct bpf_link *link = bpf_program__attach_iter(prog, &opts);
	static char text[1 << 17];
	size_t length = 0;
	ssize_t n;
	int iter;

	if (!link)
		err(1, "cannot attach an iterator");
	iter = bpf_iter_create(bpf_link__fd(link));
	if (iter < 0)
		err(1, "cannot create an iterator");
	while ((n = read(iter, text + length, sizeof(text) - 1 - length)) > 0)
		length += n;
	text[length] = '\0';
	close(iter);
	bpf_link__destroy(link);
	return text;
}

static bool iterator(void)
{
	uint64_t number = 0;
	char *text;
	int fd, end;

	text = shown(numbers());
	expect(!strcmp(text, "10 100\n10 101\n10 102\n20 200\n20 201\n20 202\n"
		       "30 300\n30 301\n30 302\nend\n"));

	/* More than one buffer full. */
	fd = map("big");
	empty(fd);
	for (uint64_t key = 0; key < 5000; key++)
		expect(!bpf_map_update_elem(fd, &key, &key, BPF_NOEXIST));
	text = shown(fd);
	for (uint64_t key, value; sscanf(text, "%lu %lu\n%n", &key, &value, &end) == 2; text += end) {
		expect_equal(key, number);
		expect_equal(value, number);
		number++;
	}
	expect_equal(number, 5000);
	expect(!strcmp(text, "end\n"));
	empty(fd);
	expect(!strcmp(shown(fd), "end\n"));
	return true;
}

/* ---- rights and flags ---- */

static int create(uint32_t key_size, uint32_t flags)
{
	LIBBPF_OPTS(bpf_map_create_opts, opts, .map_flags = flags);

	return bpf_map_create(BPF_MAP_TYPE_RBTREE, "bytes", key_size, 8, 4, &opts);
}

static bool access_flags(void)
{
	uint64_t key = 1, value = 2;
	int fd;

	expect((fd = create(8, BPF_F_RDONLY)) >= 0);
	expect_equal(bpf_map_update_elem(fd, &key, &value, BPF_ANY), -EPERM);
	expect_equal(bpf_map_lookup_elem(fd, &key, &value), -ENOENT);
	close(fd);
	expect((fd = create(8, BPF_F_WRONLY)) >= 0);
	expect(!bpf_map_update_elem(fd, &key, &value, BPF_ANY));
	expect_equal(bpf_map_lookup_elem(fd, &key, &value), -EPERM);
	close(fd);
	expect_equal(create(8, BPF_F_RDONLY | BPF_F_WRONLY), -EINVAL);

	fd = map("read_only");
	expect(!bpf_map_update_elem(fd, &key, &value, BPF_ANY));
	expect_equal(call("push_read_only", 1, 1), -EPERM);
	expect_equal(call("pop_read_only", 1, 1), -EPERM);
	expect_equal(call("pop_write_only", 1, 1), -EPERM);
	expect_equal(call("pop_until_read_only", 1, 1), -EPERM);
	expect_equal(call("pop_key_write_only", 1, 1), -EPERM);
	fd = map("write_only");
	expect(!bpf_map_update_elem(fd, &key, &value, BPF_ANY));
	expect_equal(call("look_write_only", 0, 0), 0);
	return true;
}

static bool freeze(void)
{
	uint64_t key = 1, value = 2;
	int fd = create(8, 0);

	expect(fd >= 0);
	expect(!bpf_map_update_elem(fd, &key, &value, BPF_ANY));
	expect(!bpf_map_freeze(fd));
	expect_equal(bpf_map_update_elem(fd, &key, &value, BPF_ANY), -EPERM);
	expect_equal(bpf_map_delete_elem(fd, &key), -EPERM);
	expect(!bpf_map_lookup_elem(fd, &key, &value) && value == 2);
	close(fd);
	return true;
}

static bool numa_node(void)
{
	LIBBPF_OPTS(bpf_map_create_opts, opts, .map_flags = BPF_F_NUMA_NODE, .numa_node = 0);
	int fd = bpf_map_create(BPF_MAP_TYPE_RBTREE, "near", 8, 8, 4, &opts);

	expect(fd >= 0);
	close(fd);
	opts.map_flags |= BPF_F_NO_PREALLOC;
	expect_equal(bpf_map_create(BPF_MAP_TYPE_RBTREE, "near", 8, 8, 4, &opts), -EINVAL);
	return true;
}

/* Bytes of memory of a map, from its fdinfo. */
static long memory(int fd)
{
	char path[64], line[128];
	long bytes = -1;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
	file = fopen(path, "r");
	while (file && fgets(line, sizeof(line), file))
		sscanf(line, "memlock: %ld", &bytes);
	if (file)
		fclose(file);
	return bytes;
}

static bool memory_usage(void)
{
	long before;
	int fd;

	fd = map("allocated");
	empty(fd);
	before = memory(fd);
	expect_equal(call("push_allocated", 1, 1), 0);
	/* An element is at least its links, 40 bytes, a key and a value. */
	expect(memory(fd) - before >= 56);
	return true;
}

static bool in_a_program_of_any_type(void)
{
	char packet[100] = {};
	LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = packet, .data_size_in = sizeof(packet));
	int fd = bpf_program__fd(bpf_object__find_program_by_name(obj, "push_in_a_socket_filter"));
	uint64_t value;

	empty(map("numbers"));
	expect_equal(bpf_prog_test_run_opts(fd, &opts), 0);
	expect_equal(opts.retval, 0);
	expect_equal(bpf_map_lookup_elem(map("numbers"), &(uint64_t){ sizeof(packet) - 14 }, &value), 0);
	expect_equal(value, 7);
	return true;
}

int main(int argc, char **argv)
{
	load(argc, argv);
	printf("1..24\n");
	result(pop_in_order(), "push and pop: by key, then by age");
	result(pop_until_a_bound(), "pop up to a bound");
	result(pop_one_key(), "pop the oldest of a key");
	result(first_and_lower_bound(), "first and lower bound");
	result(upper_bound_and_last(), "upper bound and last");
	result(length(), "length");
	result(the_oldest_of_a_key(), "lookup, update and delete act on the oldest of a key");
	result(next_key_is_a_different_one(), "the next key is a different one");
	result(full("numbers", "push"), "a full map");
	result(full("allocated", "push_allocated"), "a full map, not preallocated");
	result(walks(), "for_each in order");
	result(delete_what_is_visited(), "for_each: delete what is visited");
	result(push_while_walking(), "for_each: what is pushed meanwhile is not visited");
	result(pop_while_walking(), "for_each: what is popped meanwhile is not visited");
	result(lookup_batch(), "batches never split a key");
	result(lookup_and_delete_batch(), "batches that delete");
	result(update_and_delete_batch(), "batches that update and delete by key");
	result(iterator(), "the iterator bpf_map_elem");
	result(access_flags(), "access flags");
	result(freeze(), "freeze");
	result(numa_node(), "numa node");
	result(memory_usage(), "memory usage");
	result(in_a_program_of_any_type(), "the functions of programs in a socket filter");
	result(full("numbers", "push"), "and after all that, a full map again");
	return failed ? 1 : 0;
}
