// SPDX-License-Identifier: GPL-2.0
#define _GNU_SOURCE
/*
 * map_sched OBJECT: run everything in the machine under a scheduler whose run queue
 * is an ordered map. Processes that want all they can get share the CPUs by their
 * weights, and ordinary commands get their work done.
 */
#include "../lib/map.h"
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define EACH	4		/* processes of each kind, for 4 CPUs */
#define SECONDS	4

static bool state_is(const char *expected)
{
	char state[32] = "";
	FILE *file = fopen("/sys/kernel/sched_ext/state", "r");

	if (file && !fscanf(file, "%31s", state))
		state[0] = '\0';
	if (file)
		fclose(file);
	if (strcmp(state, expected))
		printf("# state %s, not %s\n", state, expected);
	return !strcmp(state, expected);
}

struct counters {
	uint64_t pushed, popped, overflows;
};

static struct counters *counters(void)
{
	size_t size;

	return bpf_map__initial_value(bpf_object__find_map_by_name(obj, "map_sche.bss"), &size);
}

/* CPU time in ms that a process got in SECONDS, by its nice value. */
static bool shares(int nice_a, int nice_b, double least, double most)
{
	struct rusage usage;
	double got[2] = {};
	pid_t pids[2 * EACH];

	for (int i = 0; i < 2 * EACH; i++) {
		pids[i] = fork();
		if (pids[i] < 0)
			err(1, "fork");
		if (pids[i])
			continue;
		setpriority(PRIO_PROCESS, 0, i % 2 ? nice_b : nice_a);
		for (;;)
			;
	}
	sleep(SECONDS);
	for (int i = 0; i < 2 * EACH; i++)
		kill(pids[i], SIGKILL);
	for (int i = 0; i < 2 * EACH; i++) {
		if (wait4(pids[i], NULL, 0, &usage) < 0)
			err(1, "wait4");
		got[i % 2] += usage.ru_utime.tv_sec + usage.ru_utime.tv_usec / 1e6 +
			      usage.ru_stime.tv_sec + usage.ru_stime.tv_usec / 1e6;
	}
	printf("# nice %d: %.2f s, nice %d: %.2f s of CPU time\n", nice_a, got[0], nice_b, got[1]);
	expect(got[1] > 0);
	expect(got[0] / got[1] >= least && got[0] / got[1] <= most);
	expect(state_is("enabled"));
	return true;
}

static bool commands(void)
{
	for (int i = 0; i < 20; i++)
		expect_equal(system("test $(seq 1000 | sort -rn | tail -n 1) = 1"), 0);
	expect(state_is("enabled"));
	return true;
}

static bool went_through_the_map(void)
{
	uint64_t pushed = counters()->pushed, popped = counters()->popped;

	printf("# %lu pushed, %lu popped\n", pushed, popped);
	expect(pushed > 300);
	/* Others are still going on. */
	expect(popped <= counters()->pushed && popped + 1000 > pushed);
	expect_equal(counters()->overflows, 0);
	return true;
}

int main(int argc, char **argv)
{
	struct bpf_link *link;

	load(argc, argv);
	printf("1..5\n");
	link = bpf_map__attach_struct_ops(bpf_object__find_map_by_name(obj, "map_sched"));
	result(link && state_is("enabled"), "the scheduler starts");
	result(commands(), "commands run");
	result(shares(0, 0, 0.8, 1.25), "equal weights, equal shares");
	result(shares(0, 5, 1.5, 4.5), "nice 5 gets about a third");
	result(went_through_the_map(), "tasks go through the map");
	bpf_link__destroy(link);
	return failed || !state_is("disabled") ? 1 : 0;
}
