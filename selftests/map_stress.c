// SPDX-License-Identifier: GPL-2.0
#define _GNU_SOURCE
/*
 * map_stress OBJECT: programs on each CPU, system calls and iterators work on
 * ordered maps at once, for 2 seconds a map or $MAP_STRESS. What was stored less
 * what was removed is what is left.
 */
#include "map.h"
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

static int seconds = 2;
static const char *name;	/* of the map under test */
static struct timespec end;
static bool has_tasks;

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
	uint64_t key = rand() % KEYS, value = has_tasks ? 0 : value_of(key), next;
	int fd = map(name);

	/* A new element of a map of tasks would have none. */
	if (!has_tasks)
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
		if ((i && keys[i] < keys[i - 1]) || (!has_tasks && values[i] != value_of(keys[i])))
			books->wrong++;
}

static void batches(struct books *books)
{
	uint64_t keys[600], values[600], cursor;
	uint32_t count = 600;
	int fd = map(name);

	bpf_map_lookup_batch(fd, NULL, &cursor, keys, values, &count, NULL);
	check(keys, values, count, books);
	usleep(1000);
	count = 20;
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
			if (key == KEYS && !has_tasks)
				books->wrong++;
		}
	}
	close(fd);
	bpf_link__destroy(link);
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

static bool books_balance(const char *of)
{
	static void (*const work[])(struct books *books) = {
		programs, programs, programs, programs, system_calls, batches, iterators,
	};
	enum { THREADS = sizeof(work) / sizeof(work[0]) };
	struct thread threads[THREADS] = {};
	struct books total = {};
	int cpus = sysconf(_SC_NPROCESSORS_ONLN);

	name = of;
	has_tasks = !strcmp(name, "tasks");
	clock_gettime(CLOCK_MONOTONIC, &end);
	end.tv_sec += seconds;
	for (int i = 0; i < THREADS; i++) {
		threads[i].cpu = i % cpus;
		threads[i].work = work[i];
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
	expect_equal(left_in_map(), total.pushed - total.removed);
	return true;
}

int main(int argc, char **argv)
{
	load(argc, argv);
	if (getenv("MAP_STRESS"))
		seconds = atoi(getenv("MAP_STRESS"));
	printf("1..3\n");
	result(books_balance("numbers"), "values");
	result(books_balance("allocated"), "values, not preallocated");
	result(books_balance("tasks"), "tasks");
	return failed ? 1 : 0;
}
