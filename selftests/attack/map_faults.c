// SPDX-License-Identifier: GPL-2.0
#define _GNU_SOURCE
/*
 * map_faults OBJECT: no memory, at every point. An operation is done again and again:
 * first its first request for memory fails, then its second one, and so on until
 * all are had; then the same with all requests from the first, second, ... on. Each
 * time it either fails with ENOMEM, and nothing has changed, or it does what it
 * should. (What is leaked nevertheless, kmemleak tells.)
 */
#include "../lib/map.h"
#include "faults.h"
#include <bpf/btf.h>
#include <sched.h>
#include <unistd.h>

#define FILLED	8		/* elements: keys 10, 20, ... 80, values a hundred times that */
#define LARGE	2048		/* bytes in which an element of `large` fits */

struct args {
	uint64_t key;
	uint64_t value;
};

static struct args *seen;
static const char *name;	/* of the map under test */
static int fd, iterator;	/* the map, and a link to it */

static void *variable(const char *of, const char *what)
{
	struct bpf_map *section = bpf_object__find_map_by_name(obj, of);
	struct btf *btf = bpf_object__btf(obj);
	int id = btf__find_by_name_kind(btf, of, BTF_KIND_DATASEC);
	const struct btf_var_secinfo *var;
	size_t size;

	if (!section || id < 0)
		errx(1, "no section %s", of);
	var = btf_var_secinfos(btf__type_by_id(btf, id));
	for (int i = btf_vlen(btf__type_by_id(btf, id)); i--; var++)
		if (!strcmp(btf__name_by_offset(btf, btf__type_by_id(btf, var->type)->name_off), what))
			return (char *)bpf_map__initial_value(section, &size) + var->offset;
	errx(1, "no variable %s", what);
}

/* ---- creation ---- */

static struct bpf_map_info info_of(int map_fd)
{
	struct bpf_map_info info = {};
	uint32_t size = sizeof(info);

	if (bpf_map_get_info_by_fd(map_fd, &info, &size))
		err(1, "no information on map %s", name);
	return info;
}

static int count_maps(void)
{
	uint32_t id = 0;
	int n = 0;

	while (!bpf_map_get_next_id(id, &id))
		n++;
	return n;
}

/* What the map under test holds */
static const char *inner_name(void)
{
	return !strcmp(name, "outer") ? "numbers" : !strcmp(name, "outer_of_tasks") ? "tasks" : NULL;
}

/* One like the map under test, if memory is there */
static int create(void)
{
	struct bpf_map_info info = info_of(fd);
	int btf_fd = bpf_btf_get_fd_by_id(info.btf_id), made;
	LIBBPF_OPTS(bpf_map_create_opts, opts, .btf_fd = btf_fd,
		    .btf_key_type_id = info.btf_key_type_id,
		    .btf_value_type_id = info.btf_value_type_id, .map_flags = info.map_flags,
		    .inner_map_fd = inner_name() ? map(inner_name()) : 0);

	faults_begin();
	made = bpf_map_create(info.type, "made", info.key_size, info.value_size, info.max_entries,
			      &opts);
	faults_end();
	close(btf_fd);
	return made;
}

static bool creation(void)
{
	int before = count_maps(), points = 0, errors = 0, made;

	for (int all = 0; all < 2; all++) {
		for (int n = 1;; n++, points++) {
			faults_set(n, all ? FOREVER : (uint64_t)n);
			made = create();
			if (made < 0) {
				expect_equal(made, -ENOMEM);
				expect(faults_hit());
				errors++;
			} else {
				close(made);
			}
			if (!faults_hit()) {
				expect(made >= 0);
				break;
			}
		}
	}
	printf("# %s: %d points, %d times no map\n", name, points, errors);
	expect(errors >= 5);
	for (int i = 0; i < 300 && count_maps() != before; i++)
		usleep(50000);
	expect_equal(count_maps(), before);
	return true;
}

/* ---- operations on a map of numbers, or of maps ---- */

static uint32_t value_size(void)
{
	return bpf_map__value_size(bpf_object__find_map_by_name(obj, name));
}

/* What to store for a number: the file descriptor of one map, or of the other */
static uint64_t stored(uint64_t number)
{
	if (!inner_name())
		return number;
	return map(number % 1000 ? "others" : "numbers");
}

struct content {
	int count;
	struct args elem[2 * FILLED + 1];
};

static struct content content(void)
{
	struct content now = { };
	uint64_t key, *at = NULL;

	for (; !bpf_map_get_next_key(fd, at, &key); at = &key) {
		now.elem[now.count].key = key;
		if (bpf_map_lookup_elem(fd, &key, &now.elem[now.count++].value))
			err(1, "an element that is not there");
	}
	return now;
}

static void fill(void)
{
	uint64_t key, value;

	while (!bpf_map_get_next_key(fd, NULL, &key))
		bpf_map_delete_elem(fd, &key);
	for (int i = 1; i <= FILLED; i++) {
		key = 10 * i;
		value = stored(1000 * i);
		/* What was freed comes back in a while */
		while (bpf_map_update_elem(fd, &key, &value, BPF_ANY))
			usleep(1000);
	}
}

static int call(const char *what)
{
	struct args args = { .key = 45, .value = 4500 };
	LIBBPF_OPTS(bpf_test_run_opts, opts, .ctx_in = &args, .ctx_size_in = sizeof(args));
	struct bpf_program *prog;
	char program[64];
	int error;

	snprintf(program, sizeof(program), "%s_%s", what, name);
	prog = bpf_object__find_program_by_name(obj, program);
	faults_begin();
	error = bpf_prog_test_run_opts(bpf_program__fd(prog), &opts);
	faults_end();
	return error ?: (int)opts.retval;
}

static int push(void) { return call("push"); }
static int pop(void) { return call("pop"); }

#define OPERATION(operation, ...)					\
static int operation(void)						\
{									\
	uint64_t key = 40, other = 45, value = stored(4500);		\
	int error;							\
									\
	(void)key, (void)other, (void)value;				\
	faults_begin();						\
	error = __VA_ARGS__;						\
	faults_end();							\
	return error;							\
}

OPERATION(add, bpf_map_update_elem(fd, &other, &value, BPF_NOEXIST))
OPERATION(change, bpf_map_update_elem(fd, &key, &value, BPF_EXIST))
OPERATION(look_up, bpf_map_lookup_elem(fd, &key, &value))
OPERATION(next, bpf_map_get_next_key(fd, &key, &other))
OPERATION(take, bpf_map_lookup_and_delete_elem(fd, &key, &value))
OPERATION(delete, bpf_map_delete_elem(fd, &key))

#define BATCH(operation, number, ...)					\
static int operation(void)						\
{									\
	uint64_t keys[2 * FILLED] = { 15, 20, 25 }, cursor, value;	\
	uint32_t count = number, size = value_size();			\
	char values[2 * FILLED * sizeof(value)];			\
	int error;							\
									\
	(void)cursor;							\
	for (int i = 0; i < 3; i++) {					\
		value = stored(i + 1);					\
		memcpy(values + i * size, &value, size);		\
	}								\
	faults_begin();						\
	error = __VA_ARGS__;						\
	faults_end();							\
	return error == -ENOENT && count == FILLED ? 0 : error;		\
}

BATCH(look_up_batch, 2 * FILLED, bpf_map_lookup_batch(fd, NULL, &cursor, keys, values, &count, NULL))
BATCH(take_batch, 2 * FILLED,
      bpf_map_lookup_and_delete_batch(fd, NULL, &cursor, keys, values, &count, NULL))
BATCH(update_batch, 3, bpf_map_update_batch(fd, keys, values, &count, NULL))
BATCH(delete_batch, 1, bpf_map_delete_batch(fd, keys + 1, &count, NULL))

static int iterate(void)
{
	uint64_t keys[2 * FILLED];
	int opened, error = 0;

	*seen = (struct args){};
	faults_begin();
	opened = bpf_iter_create(iterator);
	if (opened < 0)
		error = opened;
	else if (read(opened, keys, sizeof(keys)) < 0)
		error = -errno;
	faults_end();
	if (opened >= 0)
		close(opened);
	if (!error && (seen->key != FILLED || seen->value != 36000))
		error = -EILSEQ;
	return error;
}

static const struct operation {
	const char *name;
	int (*run)(void);
} operations[] = {
	{ "update, a new key", add },
	{ "update, an old key", change },
	{ "lookup", look_up },
	{ "get_next_key", next },
	{ "lookup_and_delete", take },
	{ "delete", delete },
	{ "lookup_batch", look_up_batch },
	{ "lookup_and_delete_batch", take_batch },
	{ "update_batch", update_batch },
	{ "delete_batch", delete_batch },
	{ "iterator", iterate },
	{ "push by a program", push },
	{ "pop by a program", pop },
};

static bool attempt(const struct operation *op, const struct content *before,
		    const struct content *after, int *errors)
{
	struct content now = content();
	int error;

	if (memcmp(&now, before, sizeof(now)))
		fill();
	error = op->run();
	now = content();
	if (error) {
		expect_equal(error, -ENOMEM);
		expect(faults_hit());
		(*errors)++;
	}
	expect(!memcmp(&now, error ? before : after, sizeof(now)));
	return true;
}

static bool operation(const struct operation *op)
{
	struct content before, after;
	int points = 0, errors = 0;

	faults_set(1, 0);
	fill();
	before = content();
	expect_equal(before.count, FILLED);
	expect_equal(op->run(), 0);
	after = content();
	fill();

	for (int all = 0; all < 2; all++) {
		for (int n = 1;; n++, points++) {
			faults_set(n, all ? FOREVER : (uint64_t)n);
			expect(attempt(op, &before, &after, &errors));
			if (!faults_hit())
				break;
		}
	}
	printf("# %s: %s: %d points, %d errors\n", name, op->name, points, errors);
	return true;
}

static bool all_operations(void)
{
	union bpf_iter_link_info info = { .map.map_fd = fd };
	LIBBPF_OPTS(bpf_link_create_opts, opts, .iter_info = &info, .iter_info_len = sizeof(info));
	int prog = bpf_program__fd(bpf_object__find_program_by_name(obj, "visit"));
	bool ok = true;

	iterator = bpf_link_create(prog, 0, BPF_TRACE_ITER, &opts);
	/* It sees numbers, and no ids. */
	expect(iterator >= 0 || inner_name());
	for (size_t i = 0; ok && i < sizeof(operations) / sizeof(operations[0]); i++)
		if (operations[i].run != iterate || iterator >= 0)
			ok = operation(&operations[i]);
	close(iterator);
	return ok;
}

/* ---- elements that are allocated as they come ---- */

static int push_large(uint64_t number)
{
	struct args args = { .key = number, .value = number };
	char program[64];

	snprintf(program, sizeof(program), "push_%s", name);
	return run_args(program, &args, sizeof(args));
}

struct large {
	uint64_t number;
	char rest[1600];
};

/* As many as were pushed, in order */
static bool large_has(uint64_t count)
{
	uint64_t key, *at = NULL, n = 0;
	static struct large value;

	for (; !bpf_map_get_next_key(fd, at, &key); at = &key, n++) {
		expect_equal(key, n);
		expect(!bpf_map_lookup_elem(fd, &key, &value));
		expect(value.number == n || strcmp(name, "large"));
	}
	expect_equal(n, count);
	return true;
}

/* Push until the allocator has no more; how many there are */
static bool push_until_none(uint64_t *n)
{
	int error;

	faults->bss->fail_size = LARGE;
	while (!(error = push_large(*n)))
		++*n;
	printf("# %s: %llu elements of the allocator's own\n", name, (unsigned long long)*n);
	expect_equal(error, -ENOMEM);
	expect_equal(push_large(*n), -ENOMEM);
	return large_has(*n);
}

static bool push_all(uint64_t *n)
{
	int error;

	faults->bss->fail_size = 0;
	for (int tries = 0; *n < 4096 && tries < 100000; tries++) {
		error = push_large(*n);
		*n += !error;
		expect(!error || error == -ENOMEM);
	}
	expect_equal(*n, 4096);
	expect_equal(push_large(*n), -E2BIG);
	return large_has(*n);
}

static bool elements(void)
{
	static struct large value;
	uint64_t n = 0, key = 0;

	expect(push_until_none(&n));
	/* Nor can an update have one, even if it turns out to need none. */
	value.number = n;
	expect_equal(bpf_map_update_elem(fd, &n, &value, BPF_NOEXIST), -ENOMEM);
	expect_equal(bpf_map_update_elem(fd, &n, &value, BPF_ANY), -ENOMEM);
	expect_equal(bpf_map_update_elem(fd, &key, &value, BPF_EXIST), -ENOMEM);
	expect(large_has(n));
	/* What is there can be deleted, and makes room. */
	key = n - 1;
	expect(!bpf_map_delete_elem(fd, &key));
	expect(large_has(n - 1));
	expect_equal(push_large(n - 1), 0);
	return push_all(&n);
}

/* A task that finds no element is released. */
static bool task_elements(void)
{
	int before = run("references");
	struct args args = {};
	uint64_t n = 0;

	expect(push_until_none(&n));
	expect_equal(run("references"), before + (int)n);
	expect(push_all(&n));
	expect_equal(run("references"), before + (int)n);
	while (n--)
		expect_equal(run_args("pop_large_tasks", &args, sizeof(args)), 0);
	expect_equal(run("references"), before);
	return true;
}

int main(int argc, char **argv)
{
	static const char *const maps[] = { "numbers", "allocated", "outer", "tasks", "allocated_tasks",
					    "pkts", "allocated_pkts", "near", "read_only", "objects",
					    "allocated_objects", "many", "large", "outer_of_tasks" };
	const int count = sizeof(maps) / sizeof(maps[0]), used = 3;	/* the first ones */
	cpu_set_t cpus;
	char text[64];

	load(argc, argv);
	seen = variable(".bss", "seen");
	faults_load();

	printf("1..%d\n", count + used + 2);
	for (int i = 0; i < count; i++) {
		name = maps[i];
		fd = map(name);
		snprintf(text, sizeof(text), "creation: %s", name);
		result(creation(), text);
	}
	for (int i = 0; i < used; i++) {
		name = maps[i];
		fd = map(name);
		snprintf(text, sizeof(text), "operations: %s", name);
		result(all_operations(), text);
	}
	/* Another CPU has elements of its own. */
	CPU_ZERO(&cpus);
	CPU_SET(0, &cpus);
	sched_setaffinity(0, sizeof(cpus), &cpus);
	name = "large";
	fd = map(name);
	result(elements(), "no memory for elements");
	name = "large_tasks";
	fd = map(name);
	result(task_elements(), "no memory for elements of tasks");
	return failed ? 1 : 0;
}
