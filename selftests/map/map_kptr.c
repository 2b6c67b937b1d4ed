// SPDX-License-Identifier: GPL-2.0
/*
 * map_kptr OBJECT: an ordered map releases as many references as were stored in it,
 * whichever way they leave. In a map of tasks the task is this one; its reference
 * count is the ledger. In a map of objects each element holds all other kinds: a
 * reference on a mask, whose count is the ledger, again one in a local object, and
 * percpu numbers, whose drops are traced. Each test is done with elements that are
 * preallocated and with ones that are not.
 */
#include "../lib/map.h"
#include <unistd.h>

#define ENTRIES	16

struct held {
	uint64_t extra;
	uint64_t object[4];		/* of a map of tasks one */
};

struct args {
	uint64_t key;
	uint64_t value;
};

static const char *path;
static struct bpf_object *ledger;
static const char *name;	/* of the map under test */
static uint32_t *released;	/* how many objects, by this process */

static int call(const char *what, struct args *args)
{
	char program[64];

	snprintf(program, sizeof(program), "%s_%s", what, name);
	return run_args(program, args, sizeof(*args));
}

/* Asked of the other object, because maps come and go with this one */
static int references(void)
{
	struct bpf_object *here = obj;
	int n;

	obj = ledger;
	n = call("references", &(struct args){});
	obj = here;
	return n;
}

/* One object, the books are those of the other. */
static bool open_object(void)
{
	struct bpf_map *books = bpf_object__find_map_by_name(ledger, "ledger");

	obj = bpf_object__open(path);
	return obj && !bpf_map__reuse_fd(bpf_object__find_map_by_name(obj, "ledger"),
					 bpf_map__fd(books)) && !bpf_object__load(obj);
}

static bool push(uint64_t from, uint64_t to)
{
	int status;

	for (; from < to; from++) {
		/* Elements that have left take room until a worker has released their objects. */
		for (int i = 0; i < 3000; i++) {
			status = call("push", &(struct args){ .key = from });
			if (status != -E2BIG)
				break;
			usleep(1000);
		}
		expect_equal(status, 0);
	}
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
	expect(settles_at(before));
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
	expect(settles_at(before));
	return true;
}

static bool empty(const struct held *held)
{
	static const uint64_t none[4];

	return !memcmp(held->object, none, bpf_map__value_size(bpf_object__find_map_by_name(obj, name)) -
		       sizeof(held->extra));
}

static bool delete(void)
{
	uint64_t keys[ENTRIES], cursor, key = 0;
	struct held values[ENTRIES];
	uint32_t count = ENTRIES;
	int before = references(), fd = map(name);

	expect(push(0, ENTRIES));
	released[0] = 0;
	expect(!bpf_map_delete_elem(fd, &key));
	expect(settles_at(before + ENTRIES - 1));
	key = 1;
	expect(!bpf_map_lookup_and_delete_elem(fd, &key, &values[0]));
	expect(empty(&values[0]));
	expect(settles_at(before + ENTRIES - 2));
	expect_equal(call("pop_plain", &(struct args){}), 0);
	expect(settles_at(before + ENTRIES - 3));
	expect_equal(bpf_map_lookup_and_delete_batch(fd, NULL, &cursor, keys, values, &count, NULL),
		     -ENOENT);
	expect_equal(count, ENTRIES - 3);
	expect(settles_at(before));
	/* None of them in the context of who has deleted or popped */
	expect_equal(released[0], 0);
	return true;
}

/* User space writes what is beside the task, and sees no pointer. */
static bool update(void)
{
	struct held held = { .extra = 7, .object = { 0x123, 0x123, 0x123, 0x123 } };
	int before = references(), fd = map(name);
	struct args args = {};
	uint64_t key = 1;

	expect(push(1, 2));
	expect(!bpf_map_update_elem(fd, &key, &held, BPF_EXIST));
	expect_equal(references(), before + 1);
	expect(!bpf_map_lookup_elem(fd, &key, &held));
	expect(empty(&held));
	expect_equal(held.extra, 7);
	/* An element that user space made has no task: pop passes it by. */
	key = 0;
	expect(!bpf_map_update_elem(fd, &key, &held, BPF_NOEXIST));
	expect_equal(call("pop", &args), 0);
	expect_equal(args.key, 1);
	expect_equal(bpf_map_lookup_elem(fd, &key, &held), -ENOENT);
	expect(settles_at(before));
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
	expect(settles_at(before));
	return true;
}

/* A program may store into a value that has left: that reference goes at the
 * latest with the map.
 */
static bool late(void)
{
	int before = references(), status;
	struct args args = { .key = 1 };

	for (int i = 0; i < ENTRIES; i++) {
		expect(push(1, 2));
		/* What was there is released by then, or in part, or not yet. */
		status = call("put_late", &args);
		expect(status >= 0 && status <= 2);
		/* The slot is used again. */
		expect(push(3, 8));
		while (!call("pop", &args))
			;
		args.key = 1;
	}
	bpf_object__close(obj);
	expect(settles_at(before));
	expect(open_object());
	return true;
}

static bool map_goes(void)
{
	int before = references();

	expect(push(0, 5));
	expect(push(0, 5));
	bpf_object__close(obj);
	expect(settles_at(before));
	expect(open_object());
	return true;
}

/* Of what was in an element, in the one that is next in its place */
static bool nothing_remains(void)
{
	struct { uint64_t count, task; } value = { 0x123, 0x123 };
	struct args args = { .key = 1 };
	int fd = map(name);

	for (int way = 0; way < 4; way++) {
		expect_equal(call("push", &args), 0);
		expect_equal(call("put", &args), 0);
		expect_equal(call("put", &args), 1);
		expect_equal(args.value, getpid());
		expect(!bpf_map_update_elem(fd, &args.key, &value, BPF_EXIST));
		expect_equal(call("put", &args), 1);
		expect(!bpf_map_lookup_elem(fd, &args.key, &value));
		expect_equal(value.task, 0);
		if (way == 0)
			expect_equal(call("pop_plain", &args), 0);
		else if (way == 1)
			expect(!bpf_map_delete_elem(fd, &args.key));
		else if (way == 2)
			expect(!bpf_map_lookup_and_delete_elem(fd, &args.key, &value));
		expect_equal(value.task, 0);
	}
	return true;
}

/* One call does not remove more of them than it has time for. */
static bool many_without_tasks(void)
{
	int fd = map("without_tasks"), left = 0;
	struct held held = {};
	struct args args = {};
	uint64_t key;

	for (key = 0; key < 100; key++)
		expect(!bpf_map_update_elem(fd, &key, &held, BPF_NOEXIST));
	expect_equal(run_args("pop_without_tasks", &args, sizeof(args)), 0);
	while (!bpf_map_get_next_key(fd, NULL, &key) && !bpf_map_delete_elem(fd, &key))
		left++;
	expect_equal(left, 100 - 64);
	return true;
}

int main(int argc, char **argv)
{
	static const char *const names[] = { "tasks", "allocated", "objects", "allocated_objects" };
	struct bpf_link *drops;
	size_t size;

	load(argc, argv);
	path = argv[1];
	ledger = obj;
	if (!open_object())
		err(1, "%s", path);
	released = bpf_map__initial_value(bpf_object__find_map_by_name(ledger, ".data.released"), &size);
	if (!released || size < 2 * sizeof(*released))
		err(1, "cannot read who releases objects");
	released[1] = getpid();
	drops = bpf_program__attach(bpf_object__find_program_by_name(ledger, "drop"));
	if (!drops)
		err(1, "cannot trace drops");

	printf("1..31\n");
	for (int i = 0; i < 4; i++) {
		name = names[i];
		printf("# map %s\n", name);
		result(pop(), "push and pop");
		result(full(), "a full map");
		result(delete(), "delete");
		result(update(), "update leaves the task alone");
		result(exchange(), "bpf_kptr_xchg");
		result(late(), "bpf_kptr_xchg after the element has left");
		result(map_goes(), "the map goes away with objects in it");
	}
	result(many_without_tasks(), "many elements without a task");
	name = "plain";
	result(nothing_remains(), "an unreferenced kptr, a refcount");
	name = "allocated_plain";
	result(nothing_remains(), "an unreferenced kptr, a refcount, not preallocated");
	return failed ? 1 : 0;
}
