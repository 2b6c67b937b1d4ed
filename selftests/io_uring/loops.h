/* SPDX-License-Identifier: GPL-2.0 */
/* Programs of loop.bpf.c on rings */
#ifndef SELFTESTS_LOOPS_H
#define SELFTESTS_LOOPS_H

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <err.h>
#include <stdlib.h>
#include <time.h>
#include "../lib/expect.h"
#include "ring.h"
#include "loop.h"
#include "loop.skel.h"

#define SQ	64		/* as bpf_uring.h has it */
#define CQ	128

/* As the kernel's struct io_uring_bpf_ops */
struct ops {
	void *loop_step;
	__u32 ring_fd;
	void *priv;
};

static inline uint64_t now_ns(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000000000ULL + time.tv_nsec;
}

static inline struct bpf_map *loop_map(struct loop *loop, const char *name)
{
	struct bpf_map *map = bpf_object__find_map_by_name(loop->obj, name);

	if (!map)
		errx(1, "no map %s", name);
	return map;
}

/* How many maps of this name anybody has; and, if wanted, a descriptor of the youngest, or -1 */
static inline unsigned int maps_named(const char *name, int *youngest)
{
	struct bpf_map_info info;
	int fd, found = -1;
	unsigned int n = 0;
	__u32 id = 0, size;

	while (!bpf_map_get_next_id(id, &id)) {
		fd = bpf_map_get_fd_by_id(id);
		size = sizeof(info);
		memset(&info, 0, size);
		if (fd < 0)
			continue;
		if (bpf_map_get_info_by_fd(fd, &info, &size) || strcmp(info.name, name)) {
			close(fd);
			continue;
		}
		n++;
		close(found);
		found = fd;
	}
	if (youngest)
		*youngest = found;
	else
		close(found);
	return n;
}

/* The program of this name alone, not loaded, for a ring */
static inline struct loop *loop_open(const char *ops, int ring_fd)
{
	struct loop *loop = loop__open();
	struct bpf_map *map;
	size_t size;

	if (!loop)
		err(1, "loop.bpf.o");
	bpf_object__for_each_map(map, loop->obj) {
		bool mine = !strcmp(bpf_map__name(map), ops);

		if (bpf_map__type(map) != BPF_MAP_TYPE_STRUCT_OPS)
			continue;
		bpf_map__set_autocreate(map, mine);
		if (mine)
			((struct ops *)bpf_map__initial_value(map, &size))->ring_fd = ring_fd;
	}
	/* It is another's, see loop_beside.c. */
	bpf_map__set_autocreate(loop->maps.edt_pkts, !strcmp(ops, "beside_ops"));
	return loop;
}

static inline struct loop *loop_load(const char *ops, int ring_fd)
{
	struct loop *loop = loop_open(ops, ring_fd);

	if (loop__load(loop))
		err(1, "cannot load %s", ops);
	return loop;
}

/* NULL, with errno, if it cannot be attached */
static inline struct bpf_link *loop_attach(struct loop *loop, const char *ops)
{
	return bpf_map__attach_struct_ops(loop_map(loop, ops));
}

/* A ring, and a program that drives it */
struct driven {
	struct ring ring;
	struct loop *loop;
	struct bpf_link *link;
};

static inline void drive(struct driven *d, const char *ops)
{
	int error = ring_setup(&d->ring, SQ, CQ, RING_LOOP | IORING_SETUP_SUBMIT_ALL);

	if (error)
		errx(1, "a ring: %s", strerror(-error));
	d->loop = loop_load(ops, d->ring.fd);
	d->link = loop_attach(d->loop, ops);
	if (!d->link)
		err(1, "cannot attach %s", ops);
}

static inline void undrive(struct driven *d)
{
	bpf_link__destroy(d->link);
	loop__destroy(d->loop);
	ring_close(&d->ring);
}

#endif /* SELFTESTS_LOOPS_H */
