// SPDX-License-Identifier: GPL-2.0
/*
 * map_kptr OBJECT: an ordered map of tasks releases as many references as were
 * stored in it, whichever way they leave. The task is this one; its reference
 * count is the ledger. Each test is done with elements that are preallocated and
 * with ones that are not.
 */
#include "map.h"
#include <unistd.h>

#define ENTRIES	16

struct held {
	uint64_t extra;
	uint64_t task;
};

struct args {
	uint64_t key;
	uint64_t value;
};

static const char *path;
static struct bpf_object *ledger;
static const char *name;	/* of the map under test */

static int references(void)
{
	struct bpf_object *here = obj;
	int n;

	obj = ledger;
	n = run("references");
	obj = here;
	return n;
}

static int call(const char *what, struct args *args)
{
	char program[64];

	snprintf(program, sizeof(program), "%s_%s", what, name);
	return run_args(program, args, sizeof(*args));
}

static bool push(uint64_t from, uint64_t to)
{
	for (; from < to; from++)
		expect_equal(call("push", &(struct args){ .key = from }), 0);
	return true;
}

/* What is freed by RCU or a worker is freed soon. */
static bool settles_at(int expected)
{
	for (int i = 0; i < 300 && references() != expected; i++)
		usleep(50000);
	expect_equal(references(), expected);
	return true;
}

static bool pop(void)
{
	int before = references();
	struct args args = {};

	expect(push(0, ENTRIES));
	expect_equal(references(), before + ENTRIES);
	for (uint64_t key = 0; key < ENTRIES; key++) {
		expect_equal(call("pop", &args), 0);
		expect_equal(args.key, key);
		expect_equal(args.value, getpid());
	}
	expect_equal(call("pop", &args), -ENOENT);
	expect_equal(references(), before);
	return true;
}

static bool full(void)
{
	int before = references();
	struct args args = {};

	expect(push(0, ENTRIES));
	expect_equal(call("push", &args), -E2BIG);
	expect_equal(references(), before + ENTRIES);
	while (!call("pop", &args))
		;
	expect_equal(references(), before);
	return true;
}

static bool delete(void)
{
	uint64_t keys[ENTRIES], cursor, key = 0;
	struct held values[ENTRIES];
	uint32_t count = ENTRIES;
	int before = references(), fd = map(name);

	expect(push(0, ENTRIES));
	expect(!bpf_map_delete_elem(fd, &key));
	expect_equal(references(), before + ENTRIES - 1);
	key = 1;
	expect(!bpf_map_lookup_and_delete_elem(fd, &key, &values[0]));
	expect_equal(values[0].task, 0);
	expect_equal(references(), before + ENTRIES - 2);
	expect_equal(call("pop_plain", &(struct args){}), 0);
	expect_equal(references(), before + ENTRIES - 3);
	expect_equal(bpf_map_lookup_and_delete_batch(fd, NULL, &cursor, keys, values, &count, NULL),
		     -ENOENT);
	expect_equal(count, ENTRIES - 3);
	expect_equal(references(), before);
	return true;
}

/* User space writes what is beside the task, and sees no pointer. */
static bool update(void)
{
	struct held held = { .extra = 7, .task = 0x123 };
	int before = references(), fd = map(name);
	struct args args = {};
	uint64_t key = 1;

	expect(push(1, 2));
	expect(!bpf_map_update_elem(fd, &key, &held, BPF_EXIST));
	expect_equal(references(), before + 1);
	expect(!bpf_map_lookup_elem(fd, &key, &held));
	expect_equal(held.task, 0);
	expect_equal(held.extra, 7);
	/* An element that user space made has no task: pop passes it by. */
	key = 0;
	expect(!bpf_map_update_elem(fd, &key, &held, BPF_NOEXIST));
	expect_equal(call("pop", &args), 0);
	expect_equal(args.key, 1);
	expect_equal(bpf_map_lookup_elem(fd, &key, &held), -ENOENT);
	expect_equal(references(), before);
	return true;
}

static bool exchange(void)
{
	struct args one = { .key = 1 }, two = { .key = 2 }, out = {};
	struct held held = {};
	int before = references(), fd = map(name);

	expect(!bpf_map_update_elem(fd, &one.key, &held, BPF_NOEXIST));
	expect_equal(call("put", &one), 0);
	expect_equal(call("put", &one), 1);
	expect_equal(references(), before + 1);
	expect(push(2, 3));
	expect_equal(call("take", &two), 1);
	expect_equal(call("take", &two), 0);
	expect_equal(call("pop", &out), 0);
	expect_equal(out.key, 1);
	expect_equal(call("pop", &out), -ENOENT);
	expect_equal(references(), before);
	return true;
}

/* A program may store into a value that has left: that reference goes at the
 * latest with the map.
 */
static bool late(void)
{
	int before = references();
	struct args args = { .key = 1 };

	for (int i = 0; i < ENTRIES; i++) {
		expect(push(1, 2));
		expect_equal(call("put_late", &args), 0);
		/* The slot is used again. */
		expect(push(3, 8));
		while (!call("pop", &args))
			;
		args.key = 1;
	}
	bpf_object__close(obj);
	expect(settles_at(before));
	obj = bpf_object__open(path);
	expect(obj && !bpf_object__load(obj));
	return true;
}

static bool map_goes(void)
{
	int before = references();

	expect(push(0, 5));
	expect(push(0, 5));
	bpf_object__close(obj);
	expect(settles_at(before));
	obj = bpf_object__open(path);
	expect(obj && !bpf_object__load(obj));
	return true;
}

int main(int argc, char **argv)
{
	static const char *const names[] = { "tasks", "allocated" };

	load(argc, argv);
	path = argv[1];
	ledger = obj;
	obj = bpf_object__open(path);
	if (!obj || bpf_object__load(obj))
		err(1, "%s", path);

	printf("1..14\n");
	for (int i = 0; i < 2; i++) {
		name = names[i];
		printf("# map %s\n", name);
		result(pop(), "push and pop");
		result(full(), "a full map");
		result(delete(), "delete");
		result(update(), "update leaves the task alone");
		result(exchange(), "bpf_kptr_xchg");
		result(late(), "bpf_kptr_xchg after the element has left");
		result(map_goes(), "the map goes away with tasks in it");
	}
	return failed ? 1 : 0;
}
