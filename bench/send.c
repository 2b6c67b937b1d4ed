// SPDX-License-Identifier: GPL-2.0
/*
 * send OBJECT: in a VM that counts instructions for time, what a datagram costs by the call that
 * sends it, in the kernel and in user space: a line for each call with its name, instructions a
 * datagram and how often the kernel is entered for one. It leaves by whatever qdisc d0 has.
 */
#define _GNU_SOURCE
#include "../selftests/io_uring/ring.h"
#include <arpa/inet.h>
#include <bpf/libbpf.h>
#include <err.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include "send.h"

#define COUNT		6400
#define BATCH		32
#define LENGTH		22		/* with its headers and FCS a datagram of 68 bytes */
#define SQ		64		/* as <bpf/bpf_uring.h> has it */
#define CQ		128

static unsigned char data[4096] __attribute__((aligned(4096)));
static int fd;
static uint64_t entries;

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000ull + ts.tv_nsec;
}

static void must(bool done, const char *what)
{
	if (!done)
		err(1, "%s", what);
}

static void a_ring(struct ring *r)
{
	struct iovec all = { data, sizeof(data) };

	must(!ring_setup(r, SQ, CQ, RING_LOOP | IORING_SETUP_SUBMIT_ALL), "ring");
	must(!ring_register(r, IORING_REGISTER_FILES, &fd, 1), "file");
	must(!ring_register(r, IORING_REGISTER_BUFFERS, &all, 1), "buffer");
}

struct how {
	const char *name;
	void (*send)(const struct how *how, int count);
	unsigned int batch, op, flags;
};

static void by_send(const struct how *how, int count)
{
	(void)how;
	while (count--) {
		must(send(fd, data, LENGTH, 0) == LENGTH, "send");
		entries++;
	}
}

static void by_sendmmsg(const struct how *how, int count)
{
	static struct mmsghdr m[BATCH];
	static struct iovec iov = { data, LENGTH };

	for (unsigned int i = 0; i < how->batch; i++)
		m[i].msg_hdr = (struct msghdr){ .msg_iov = &iov, .msg_iovlen = 1 };
	for (; count > 0; count -= how->batch) {
		must(sendmmsg(fd, m, how->batch, 0) == (int)how->batch, "sendmmsg");
		entries++;
	}
}

static void by_ring(const struct how *how, int count)
{
	static struct ring r;
	int each = how->op == IORING_OP_SEND_ZC ? 2 : 1;
	struct io_uring_cqe *cqe;

	if (!r.mem)
		a_ring(&r);
	for (; count > 0; count -= how->batch) {
		unsigned int left = how->batch * each;

		for (unsigned int i = 0; i < how->batch; i++) {
			struct io_uring_sqe *sqe = ring_sqe(&r);

			sqe->opcode = how->op;
			sqe->flags = IOSQE_FIXED_FILE;
			sqe->ioprio = how->flags;
			sqe->addr = (uintptr_t)data;
			sqe->len = LENGTH;
		}
		while (left) {
			must(ring_enter(&r, left) >= 0, "io_uring_enter");
			entries++;
			for (; (cqe = ring_peek(&r)); left--) {
				must(cqe->res >= 0, "request");
				ring_seen(&r);
			}
		}
	}
}

static struct bpf_map *ops;
static struct source *source;
static struct ring driven;

static void load(const char *path)
{
	struct bpf_object *o = bpf_object__open_file(path, NULL);
	struct bpf_map *map;
	size_t size;

	must(o, path);
	a_ring(&driven);
	bpf_object__for_each_map(map, o) {
		if (bpf_map__type(map) == BPF_MAP_TYPE_STRUCT_OPS)
			ops = map;
		else
			source = bpf_map__initial_value(map, &size);
	}
	/* behind the pointer to the program, as in the kernel's struct io_uring_bpf_ops */
	*(uint32_t *)((char *)bpf_map__initial_value(ops, &size) + 8) = driven.fd;
	must(!bpf_object__load(o), "load");
	/* where it is now */
	bpf_object__for_each_map(map, o)
		if (map != ops)
			source = bpf_map__initial_value(map, &size);
	must(bpf_map__attach_struct_ops(ops), "attach");
}

static void by_loop(const struct how *how, int count)
{
	*source = (struct source){
		.left = count, .address = (uintptr_t)data, .length = LENGTH,
		.batch = how->batch, .op = how->op, .flags = how->flags,
	};
	must(!ring_enter(&driven, 0) && !source->left && !source->error, "loop");
	entries++;
}

static const struct how hows[] = {
	{ "send(2)", by_send, 1, 0, 0 },
	{ "sendmmsg(2), 32 a call", by_sendmmsg, BATCH, 0, 0 },
	{ "io_uring, 1 a call", by_ring, 1, IORING_OP_SEND, 0 },
	{ "io_uring, 32 a call", by_ring, BATCH, IORING_OP_SEND, 0 },
	{ "io_uring, zero copy, 32 a call", by_ring, BATCH, IORING_OP_SEND_ZC, 0 },
	{ "io_uring, zero copy, registered, 32 a call", by_ring, BATCH, IORING_OP_SEND_ZC,
	  IORING_RECVSEND_FIXED_BUF },
	{ "loop, 1 at a time", by_loop, 1, IORING_OP_SEND, 0 },
	{ "loop, 32 at a time", by_loop, BATCH, IORING_OP_SEND, 0 },
	{ "loop, zero copy, registered, 32 at a time", by_loop, BATCH, IORING_OP_SEND_ZC,
	  IORING_RECVSEND_FIXED_BUF },
};

int main(int argc, char **argv)
{
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(9),
				  .sin_addr.s_addr = inet_addr("10.9.0.2") };
	uint64_t start, least, ns;

	if (argc != 2)
		errx(2, "usage: %s OBJECT", argv[0]);
	fd = socket(AF_INET, SOCK_DGRAM, 0);
	must(!connect(fd, (void *)&to, sizeof(to)), "connect");
	load(argv[1]);
	for (size_t i = 0; i < sizeof(hows) / sizeof(*hows); i++) {
		const struct how *how = &hows[i];

		how->send(how, COUNT);
		least = ~0ull;
		for (int round = 0; round < 3; round++) {
			entries = 0;
			start = now_ns();
			how->send(how, COUNT);
			ns = now_ns() - start;
			least = ns < least ? ns : least;
		}
		printf("%s\t%.1f\t%.4f\n", how->name, (double)least / COUNT,
		       (double)entries / COUNT);
	}
	return 0;
}
