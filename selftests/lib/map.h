/* SPDX-License-Identifier: GPL-2.0 */
/* What the map_*.c tests share: programs that are run by hand. */
#ifndef SELFTESTS_MAP_H
#define SELFTESTS_MAP_H

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <err.h>
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "expect.h"

static struct bpf_object *obj;

/* The object is the argument, or lies beside the test, as kselftest has it. */
static inline void load(int argc, char **argv)
{
	static char beside[4096];

	if (argc == 1) {
		snprintf(beside, sizeof(beside), "%s.bpf.o", argv[0]);
		argv[argc++] = beside;
	}
	if (argc != 2)
		errx(2, "usage: %s OBJECT", argv[0]);
	obj = bpf_object__open(argv[1]);
	if (!obj || bpf_object__load(obj))
		err(1, "%s", argv[1]);
}

static inline int map(const char *name)
{
	int fd = bpf_object__find_map_fd_by_name(obj, name);

	if (fd < 0)
		errx(1, "no map %s", name);
	return fd;
}

/* Run a program of type syscall; what it returns. @args goes in and comes out. */
static inline int run_args(const char *name, void *args, size_t size)
{
	LIBBPF_OPTS(bpf_test_run_opts, opts, .ctx_in = args, .ctx_size_in = size);
	struct bpf_program *prog = bpf_object__find_program_by_name(obj, name);

	if (!prog)
		errx(1, "no program %s", name);
	if (bpf_prog_test_run_opts(bpf_program__fd(prog), &opts))
		err(1, "cannot run %s", name);
	return (int)opts.retval;
}

static inline int run(const char *name)
{
	return run_args(name, NULL, 0);
}

/* How many maps of that name there are, whoever has them */
static inline int maps_alive(const char *name)
{
	struct bpf_map_info info;
	uint32_t id = 0, size;
	int fd, n = 0;

	while (!bpf_map_get_next_id(id, &id)) {
		fd = bpf_map_get_fd_by_id(id);
		if (fd < 0)
			continue;
		size = sizeof(info);
		memset(&info, 0, size);
		if (!bpf_map_get_info_by_fd(fd, &info, &size) && !strcmp(info.name, name))
			n++;
		close(fd);
	}
	return n;
}

#endif /* SELFTESTS_MAP_H */
