/* SPDX-License-Identifier: GPL-2.0 */
/* A ring of io_uring by bare system calls, for the tests of this room. Calls return what the
 * kernel does, with a negative errno.
 */
#ifndef SELFTESTS_RING_H
#define SELFTESTS_RING_H

/* The header of the kernel that is tested: the system's is older. It takes what is in these two
 * for granted.
 */
#include <linux/posix_types.h>
#include <linux/stddef.h>
#include "../../build/linux/include/uapi/linux/io_uring.h"
#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

/* A ring whose SQEs begin at the first one in every call */
#define RING_PLAIN	(IORING_SETUP_NO_SQARRAY | IORING_SETUP_SQ_REWIND)
/* One that a BPF program can drive, and that belongs to one task */
#define RING_LOOP	(RING_PLAIN | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN)

struct ring {
	int fd;
	struct io_uring_params p;	/* the kernel filled it in */
	void *mem;			/* head, tail, CQEs, ... */
	size_t mem_size, sqes_size;
	struct io_uring_sqe *sqes;
	struct io_uring_cqe *cqes;
	uint32_t *head, *tail;		/* of the CQ */
	unsigned int queued;		/* SQEs for the next call */
};

static inline int ring_register(struct ring *r, unsigned int op, void *arg, unsigned int nr)
{
	return syscall(__NR_io_uring_register, r->fd, op, arg, nr) < 0 ? -errno : 0;
}

static inline void ring_close(struct ring *r)
{
	munmap(r->sqes, r->sqes_size);
	munmap(r->mem, r->mem_size);
	close(r->fd);
}

/* @sq and @cq entries, powers of two; @flags has at least those of RING_PLAIN, may have
 * IORING_SETUP_SQE128 and IORING_SETUP_CQE32. Children have the memory, too.
 */
static inline int ring_setup(struct ring *r, unsigned int sq, unsigned int cq, unsigned int flags)
{
	int error;

	memset(r, 0, sizeof(*r));
	r->p.flags = flags | IORING_SETUP_CQSIZE;
	r->p.cq_entries = cq;
	r->fd = syscall(__NR_io_uring_setup, sq, &r->p);
	if (r->fd < 0)
		return -errno;
	r->mem_size = r->p.cq_off.cqes +
		      (r->p.cq_entries * sizeof(*r->cqes) << !!(flags & IORING_SETUP_CQE32));
	r->sqes_size = r->p.sq_entries * sizeof(*r->sqes) << !!(flags & IORING_SETUP_SQE128);
	r->mem = mmap(NULL, r->mem_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE,
		      r->fd, IORING_OFF_SQ_RING);
	r->sqes = mmap(NULL, r->sqes_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE,
		       r->fd, IORING_OFF_SQES);
	if (r->mem == MAP_FAILED || (void *)r->sqes == MAP_FAILED) {
		error = -errno;
		close(r->fd);
		return error;
	}
	r->cqes = r->mem + r->p.cq_off.cqes;
	r->head = r->mem + r->p.cq_off.head;
	r->tail = r->mem + r->p.cq_off.tail;
	return 0;
}

/* The next SQE, all zero; NULL if there is none before a call */
static inline struct io_uring_sqe *ring_sqe(struct ring *r)
{
	unsigned int shift = !!(r->p.flags & IORING_SETUP_SQE128);
	struct io_uring_sqe *sqe = &r->sqes[r->queued << shift];

	if (r->queued >= r->p.sq_entries)
		return NULL;
	r->queued++;
	memset(sqe, 0, sizeof(*sqe) << shift);
	return sqe;
}

/* Submit all SQEs and wait for so many CQEs; how many were submitted. On a ring with a loop program
 * the program runs instead, and 0 says that it has ended.
 */
static inline int ring_enter(struct ring *r, unsigned int wait)
{
	unsigned int queued = r->queued;
	int ret;

	r->queued = 0;
	ret = syscall(__NR_io_uring_enter, r->fd, queued, wait, IORING_ENTER_GETEVENTS, NULL, 0);
	return ret < 0 ? -errno : ret;
}

/* The first CQE, or NULL; ring_seen() takes it away. */
static inline struct io_uring_cqe *ring_peek(struct ring *r)
{
	unsigned int at = *r->head & (r->p.cq_entries - 1);

	if (*r->head == __atomic_load_n(r->tail, __ATOMIC_ACQUIRE))
		return NULL;
	return &r->cqes[at << !!(r->p.flags & IORING_SETUP_CQE32)];
}

static inline void ring_seen(struct ring *r)
{
	__atomic_store_n(r->head, *r->head + 1, __ATOMIC_RELEASE);
}

#endif /* SELFTESTS_RING_H */
