// SPDX-License-Identifier: GPL-2.0
/*
 * loop_example OBJECT: the run queue of Documentation/bpf/map_rbtree.rst does what is said there,
 * and is what is printed there.
 */
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <err.h>
#include <stdlib.h>
#include "../lib/document.h"
#include "../lib/expect.h"
#include "ring.h"

struct job {
	struct io_uring_sqe sqe;
	__u64 priority;
	__u32 next;
	__s32 result;
};

#include "loop_example.skel.h"

#define NEVER	12345

static struct loop_example *example;

/* A job that writes a letter; it is put into the queue only if @queued. */
static bool add_job(unsigned int nr, uint64_t priority, int fd, const char *letter, bool queued)
{
	struct io_uring_sqe *sqe = &example->bss->jobs[nr].sqe;
	int map = bpf_map__fd(example->maps.run_queue);

	sqe->opcode = IORING_OP_WRITE;
	sqe->fd = fd;
	sqe->addr = (uintptr_t)letter;
	sqe->len = 1;
	example->bss->jobs[nr].priority = priority;
	example->bss->jobs[nr].result = NEVER;
	if (queued)
		expect(!bpf_map_update_elem(map, &priority, &nr, BPF_NOEXIST));
	return true;
}

static bool works(void)
{
	static const char letters[] = "abcdefghijklmnop";
	char written[32] = "";
	struct ring ring;
	int fds[2];

	expect(!pipe(fds));
	expect(!ring_setup(&ring, 64, 128, RING_LOOP | IORING_SETUP_SUBMIT_ALL));
	example = loop_example__open();
	expect(example);
	example->struct_ops.job_ops->ring_fd = ring.fd;
	expect(!loop_example__load(example));
	/* Ten wait in the queue, the last in the alphabet first. */
	for (unsigned int i = 0; i < 10; i++)
		expect(add_job(1 + i, 100 - i, fds[1], &letters[i], true));
	/* k waits for j; m waits for what fails */
	expect(add_job(11, 50, fds[1], &letters[10], false));
	example->bss->jobs[10].next = 11;
	expect(add_job(13, 1, fds[1], &letters[12], false));
	expect(add_job(14, 2, -1, &letters[13], true));
	example->bss->jobs[14].next = 13;
	example->links.job_ops = bpf_map__attach_struct_ops(example->maps.job_ops);
	expect(example->links.job_ops);
	expect_equal(ring_enter(&ring, 0), 0);
	expect_equal(read(fds[0], written, sizeof(written) - 1), 11);
	expect(!strcmp(written, "jihgfedkcba"));
	for (unsigned int i = 1; i <= 11; i++)
		expect_equal(example->bss->jobs[i].result, 1);
	expect_equal(example->bss->jobs[14].result, -EBADF);
	expect_equal(example->bss->jobs[13].result, NEVER);
	loop_example__destroy(example);
	ring_close(&ring);
	return true;
}

int main(int argc, char **argv)
{
	if (argc != 2)
		errx(2, "usage: loop_example OBJECT");
	printf("1..2\n");
	result(works(), "the example works");
	result(is_in_the_document(argv[1], "loop_example.bpf.c", "\t#define JOBS"),
	       "the document prints it");
	return failed ? 1 : 0;
}
