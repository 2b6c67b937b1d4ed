// SPDX-License-Identifier: GPL-2.0
#define _GNU_SOURCE
/*
 * map_stress OBJECT: programs on each CPU, system calls and iterators work on
 * ordered maps at once, for 90 s in all, or $MAP_STRESS seconds a map. What
 * was stored less what was removed is what is left; of inner maps, only what is
 * stored is still there.
 */
#include "../lib/map.h"
#include <pthread.h>
#include <sched.h>
#include <time.h>
#include <unistd.h>

#define KEYS	64

struct books {
	uint64_t pushed;
	uint64_t removed;
	uint64_t full;
	uint64_t failed;
	uint64_t wrong;
};

struct thread {
	pthread_t id;
	int cpu;
	void (*work)(struct books *books);
	struct books books;
};

static int seconds;
static const char *name;	/* of the map under test */
static struct timespec end;
static bool has_objects;	/* tasks or maps */

static uint64_t value_of(uint64_t key)
{
	return key * 0x9e3779b97f4a7c15 + 1;
}

static bool time_is_up(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec > end.tv_sec || (now.tv_sec == end.tv_sec && now.tv_nsec > end.tv_nsec);
}

static void add(struct books *to, const struct books *books)
{
	to->pushed += books->pushed;
	to->removed += books->removed;
	to->full += books->full;
	to->failed += books->failed;
	to->wrong += books->wrong;
}

static void programs(struct books *books)
{
	char program[64];

	snprintf(program, sizeof(program), "churn_%s", name);
	run_args(program, books, sizeof(*books));
}

static void note(int err, uint64_t *done, struct books *books)
{
	if (!err)
		(*done)++;
	else if (err == -E2BIG)
		books->full++;
	else if (err != -ENOENT && err != -EEXIST)
		books->failed++;
}

static void system_calls(struct books *books)
{
	uint64_t key = rand() % KEYS, value = has_objects ? 0 : value_of(key), next;
	int fd = map(name);

	/* A new element of a map of tasks would have none. */
	if (!has_objects)
		note(bpf_map_update_elem(fd, &key, &value, BPF_NOEXIST), &books->pushed, books);
	bpf_map_lookup_elem(fd, &key, &value);
	if (!bpf_map_get_next_key(fd, &key, &next) && next <= key)
		books->wrong++;
	key = rand() % KEYS;
	note(bpf_map_delete_elem(fd, &key), &books->removed, books);
	key = rand() % KEYS;
	note(bpf_map_lookup_and_delete_elem(fd, &key, &value), &books->removed, books);
}

static void check(const uint64_t *keys, const uint64_t *values, uint32_t count,
		  struct books *books)
{
	for (uint32_t i = 0; i < count; i++)
		if ((i && keys[i] < keys[i - 1]) || (!has_objects && values[i] != value_of(keys[i])))
			books->wrong++;
}

static void batches(struct books *books)
{
	uint64_t keys[600], values[600], cursor;
	uint32_t count = 600, few = bpf_map__max_entries(bpf_object__find_map_by_name(obj, name)) / 32;
	int fd = map(name);

	bpf_map_lookup_batch(fd, NULL, &cursor, keys, values, &count, NULL);
	check(keys, values, count, books);
	usleep(1000);
	count = few;
	bpf_map_lookup_and_delete_batch(fd, NULL, &cursor, keys, values, &count, NULL);
	check(keys, values, count, books);
	books->removed += count;
}

static void iterators(struct books *books)
{
	union bpf_iter_link_info info = { .map.map_fd = map(name) };
	LIBBPF_OPTS(bpf_iter_attach_opts, opts, .link_info = &info, .link_info_len = sizeof(info));
	struct bpf_program *prog = bpf_object__find_program_by_name(obj, "show");
	struct bpf_link *link = bpf_program__attach_iter(prog, &opts);
	uint64_t values[1000], key;
	ssize_t n;
	int fd;

	if (!link || (fd = bpf_iter_create(bpf_link__fd(link))) < 0)
		err(1, "no iterator");
	while ((n = read(fd, values, sizeof(values))) > 0) {
		for (size_t i = 0; i < n / sizeof(values[0]); i++) {
			for (key = 0; key < KEYS && values[i] != value_of(key); key++)
				;
			if (key == KEYS && !has_objects)
				books->wrong++;
		}
	}
	close(fd);
	bpf_link__destroy(link);
}

#define INNER	"stress_inner"

static void inner_maps(struct books *books)
{
	int fd = map(name), inner = bpf_map_create(BPF_MAP_TYPE_RBTREE, INNER, 8, 8, 16, NULL);
	uint64_t rank = rand() % KEYS;
	uint32_t id;

	if (inner < 0)
		err(1, "no inner map");
	note(bpf_map_update_elem(fd, &rank, &inner, BPF_NOEXIST), &books->pushed, books);
	rank = rand() % KEYS;
	/* Replaces another one, or does nothing */
	bpf_map_update_elem(fd, &rank, &inner, BPF_EXIST);
	close(inner);
	rank = rand() % KEYS;
	note(bpf_map_delete_elem(fd, &rank), &books->removed, books);
	rank = rand() % KEYS;
	note(bpf_map_lookup_and_delete_elem(fd, &rank, &id), &books->removed, books);
}

static void *thread(void *arg)
{
	struct thread *t = arg;
	cpu_set_t cpus;

	CPU_ZERO(&cpus);
	CPU_SET(t->cpu, &cpus);
	sched_setaffinity(0, sizeof(cpus), &cpus);
	while (!time_is_up())
		t->work(&t->books);
	return NULL;
}

static uint64_t left_in_map(void)
{
	uint64_t key, left = 0;
	int fd = map(name);

	while (!bpf_map_get_next_key(fd, NULL, &key) && !bpf_map_delete_elem(fd, &key))
		left++;
	return left;
}

/* Of keys that were written to while they were stored: they are in the order that they have now. */
static bool wide_ones_are_in_order(uint64_t stored)
{
	uint64_t key[2], value, last = 0, left = 0;
	int fd = map(name);

	for (; !bpf_map_get_next_key(fd, NULL, key); left++, last = key[0]) {
		expect(left < stored && key[0] >= last);
		expect(!bpf_map_lookup_and_delete_elem(fd, key, &value));
	}
	expect_equal(left, stored);
	return true;
}

static bool inner_alive_are(int expected)
{
	for (int i = 0; i < 300 && maps_alive(INNER) != expected; i++)
		usleep(50000);
	expect_equal(maps_alive(INNER), expected);
	return true;
}

static int compare_ids(const void *a, const void *b)
{
	const uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

/* Those that are stored are there, once or more often, and no others. */
static bool inner_maps_are_stored(uint64_t stored)
{
	uint64_t ranks[KEYS], cursor, key;
	uint32_t ids[KEYS], id, mine, count = KEYS;
	struct bpf_map_info info = {};
	uint32_t size = sizeof(info);
	int fd, different = 0;

	expect(!bpf_map_get_info_by_fd(map("mine"), &info, &size));
	mine = info.id;
	bpf_map_lookup_batch(map(name), NULL, &cursor, ranks, ids, &count, NULL);
	expect_equal(count, stored);
	qsort(ids, count, sizeof(ids[0]), compare_ids);
	for (uint32_t i = 0; i < count; i++) {
		fd = bpf_map_get_fd_by_id(ids[i]);
		expect(fd >= 0);
		expect(!bpf_map_get_next_key(fd, NULL, &key) || errno == ENOENT);
		close(fd);
		different += ids[i] != mine && (!i || ids[i] != ids[i - 1]);
	}
	printf("# maps: %d of user space's and others in %u elements\n", different, count);
	expect(inner_alive_are(different));
	for (uint32_t i = 0; i < count; i++)
		expect(!bpf_map_lookup_and_delete_elem(map(name), &ranks[i], &id));
	expect(inner_alive_are(0));
	return true;
}

static bool books_balance(const char *of)
{
	static void (*const work[])(struct books *books) = {
		programs, programs, programs, programs, system_calls, batches, iterators,
	}, (*const work_on_maps[])(struct books *books) = {
		programs, programs, programs, programs, inner_maps, batches, inner_maps,
	}, (*const work_of_programs[])(struct books *books) = {
		programs, programs, programs, programs, programs, programs, programs,
	};
	enum { THREADS = sizeof(work) / sizeof(work[0]) };
	struct thread threads[THREADS] = {};
	struct books total = {};
	int cpus = sysconf(_SC_NPROCESSORS_ONLN);

	name = of;
	has_objects = !strcmp(name, "tasks") || !strcmp(name, "maps");
	clock_gettime(CLOCK_MONOTONIC, &end);
	end.tv_sec += seconds;
	for (int i = 0; i < THREADS; i++) {
		threads[i].cpu = i % cpus;
		threads[i].work = !strcmp(name, "maps") ? work_on_maps[i] :
				  !strcmp(name, "few") || !strcmp(name, "wide") ? work_of_programs[i] : work[i];
		if (pthread_create(&threads[i].id, NULL, thread, &threads[i]))
			err(1, "cannot start a thread");
	}
	for (int i = 0; i < THREADS; i++) {
		pthread_join(threads[i].id, NULL);
		add(&total, &threads[i].books);
	}
	printf("# %s: %lu pushed, %lu removed, %lu times full, %lu times no lock\n", name,
	       total.pushed, total.removed, total.full, total.failed);
	expect_equal(total.wrong, 0);
	expect(total.pushed > 1000 && total.removed > 1000);
	if (!strcmp(name, "maps"))
		return inner_maps_are_stored(total.pushed - total.removed);
	if (!strcmp(name, "wide"))
		return wide_ones_are_in_order(total.pushed - total.removed);
	expect_equal(left_in_map(), total.pushed - total.removed);
	return true;
}

int main(int argc, char **argv)
{
	load(argc, argv);
	/* A kernel that looks for faults takes its time anyway. */
	seconds = setting("MAP_STRESS", setting("SELFTESTS_DEBUG", 0) ? 2 : 15);
	printf("1..6\n");
	result(books_balance("numbers"), "values");
	result(books_balance("few"), "a few values, counted");
	result(books_balance("wide"), "keys that are written to meanwhile");
	result(books_balance("allocated"), "values, not preallocated");
	result(books_balance("tasks"), "tasks");
	result(books_balance("maps"), "maps");
	return failed ? 1 : 0;
}
