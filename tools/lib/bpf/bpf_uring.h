/* SPDX-License-Identifier: (LGPL-2.1 OR BSD-2-Clause) */
/*
 * What a program that drives io_uring's wait loop (struct io_uring_bpf_ops) does with
 * its ring: it takes completions, fills in requests and submits them. Include it after
 * vmlinux.h, <bpf/bpf_helpers.h> and <bpf/bpf_core_read.h>. "A run queue of requests"
 * in Documentation/bpf/map_rbtree.rst is a whole program.
 *
 * The verifier has to know how large a ring is. It has BPF_URING_SQ SQEs or more, and
 * exactly BPF_URING_CQ CQEs, which a program can define before it includes this; both
 * are powers of two. The ring is set up with IORING_SETUP_DEFER_TASKRUN, _SINGLE_ISSUER,
 * _NO_SQARRAY and _SQ_REWIND, so that the SQEs of each submission begin at the first
 * one; with IORING_SETUP_SUBMIT_ALL, too, a request that is wrong ends no submission.
 * SQEs of 128 bytes and CQEs of 32 are for programs that do without this.
 */
#ifndef __BPF_URING_H
#define __BPF_URING_H

#ifndef BPF_URING_SQ
#define BPF_URING_SQ	64
#endif
#ifndef BPF_URING_CQ
#define BPF_URING_CQ	128
#endif

/* Macros of <linux/io_uring.h>: vmlinux.h has its types alone. */
#ifndef IORING_CQE_F_MORE
#define IORING_CQE_F_MORE		0x02
#endif
#ifndef IORING_CQE_F_NOTIF
#define IORING_CQE_F_NOTIF		0x08
#endif
#ifndef IORING_TIMEOUT_ABS
#define IORING_TIMEOUT_ABS		0x01
#endif
#ifndef IORING_TIMEOUT_IMMEDIATE_ARG
#define IORING_TIMEOUT_IMMEDIATE_ARG	0x80
#endif

/**
 * bpf_io_uring_submit_sqes() - submit requests
 * @ctx: the ring
 * @nr: how many, from the first SQE on
 *
 * A request that can be done at once is: its completion is there when this returns.
 * Returns how many were taken, or a negative error. A request that is wrong is
 * taken, and has a completion that says so; those behind it are not, unless the ring
 * has IORING_SETUP_SUBMIT_ALL.
 */
extern int bpf_io_uring_submit_sqes(struct iou_ctx *ctx, __u32 nr) __ksym;

/**
 * bpf_io_uring_get_region() - memory that the ring shares with user space
 * @ctx: the ring
 * @region: IOU_REGION_SQ, the SQEs; IOU_REGION_CQ, a struct io_rings with the CQEs behind
 *	    it; IOU_REGION_MEM, what user space registered by IORING_REGISTER_MEM_REGION
 * @size: how many bytes of it are used, a constant
 *
 * Returns its address, which is valid until the program returns; NULL if it is smaller.
 */
extern __u8 *bpf_io_uring_get_region(struct iou_ctx *ctx, __u32 region,
				     const size_t size) __ksym;

/* A ring in the hands of a program, for one run of it */
struct bpf_uring {
	struct iou_ctx *ctx;
	struct io_rings *rings;
	struct io_uring_sqe *sqes;
	__u32 queued;			/* SQEs that are not submitted */
};

/**
 * bpf_uring_begin() - begin to work with a ring
 * @ring: what the other functions take
 * @ctx: the ring, as the program got it
 *
 * Returns false if it is smaller, or its CQ larger, than the program was made for.
 */
static __always_inline bool bpf_uring_begin(struct bpf_uring *ring, struct iou_ctx *ctx)
{
	ring->ctx = ctx;
	ring->queued = 0;
	ring->sqes = (void *)bpf_io_uring_get_region(ctx, IOU_REGION_SQ,
						     BPF_URING_SQ * sizeof(*ring->sqes));
	ring->rings = (void *)bpf_io_uring_get_region(ctx, IOU_REGION_CQ,
						      bpf_core_field_offset(struct io_rings, cqes) +
						      BPF_URING_CQ * sizeof(struct io_uring_cqe));
	return ring->sqes && ring->rings && ring->rings->sq_ring_entries >= BPF_URING_SQ &&
	       ring->rings->cq_ring_entries == BPF_URING_CQ;
}

/**
 * bpf_uring_cqe() - look at the first completion
 * @ring: the ring
 *
 * Returns NULL if there is none. It stays the first one until bpf_uring_seen().
 */
static __always_inline struct io_uring_cqe *bpf_uring_cqe(struct bpf_uring *ring)
{
	__u32 head = ring->rings->cq.head;

	if (head == *(volatile __u32 *)&ring->rings->cq.tail)
		return NULL;
	return &ring->rings->cqes[head & (BPF_URING_CQ - 1)];
}

/**
 * bpf_uring_seen() - take the first completion away
 * @ring: the ring
 */
static __always_inline void bpf_uring_seen(struct bpf_uring *ring)
{
	ring->rings->cq.head++;
}

/**
 * bpf_uring_sqe() - an SQE for one more request
 * @ring: the ring
 *
 * Returns it, all zero; NULL if all are in use until bpf_uring_submit().
 */
static __always_inline struct io_uring_sqe *bpf_uring_sqe(struct bpf_uring *ring)
{
	struct io_uring_sqe *sqe;

	if (ring->queued >= BPF_URING_SQ)
		return NULL;
	sqe = &ring->sqes[ring->queued++];
	__builtin_memset(sqe, 0, sizeof(*sqe));
	return sqe;
}

/**
 * bpf_uring_submit() - submit the requests
 * @ring: the ring
 *
 * Returns as bpf_io_uring_submit_sqes(). All SQEs are free again.
 */
static __always_inline int bpf_uring_submit(struct bpf_uring *ring)
{
	__u32 queued = ring->queued;

	ring->queued = 0;
	return bpf_io_uring_submit_sqes(ring->ctx, queued);
}

/**
 * bpf_uring_wait() - say for how many completions the kernel waits
 * @ring: the ring
 * @params: as the program got them
 * @nr: how many, with those that are there; the program may be called before
 */
static __always_inline void bpf_uring_wait(struct bpf_uring *ring, struct iou_loop_params *params,
					   __u32 nr)
{
	params->cq_wait_idx = ring->rings->cq.head + nr;
}

#endif /* __BPF_URING_H */
