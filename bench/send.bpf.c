// SPDX-License-Identifier: GPL-2.0
/* Sends datagrams in batches, each when the one before is done and its buffers are back. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_uring.h>
#include "send.h"

struct source source;

SEC("struct_ops.s/send_step")
int BPF_PROG(send_step, struct iou_ctx *loop, struct iou_loop_params *params)
{
	struct io_uring_cqe *cqe;
	struct io_uring_sqe *sqe;
	struct bpf_uring ring;
	__u32 i;

	if (!bpf_uring_begin(&ring, loop))
		return IOU_LOOP_STOP;
	bpf_for(i, 0, BPF_URING_CQ) {
		cqe = bpf_uring_cqe(&ring);
		if (!cqe)
			break;
		if (cqe->res < 0)
			source.error = cqe->res;
		if (!(cqe->flags & IORING_CQE_F_MORE))
			source.waiting--;
		bpf_uring_seen(&ring);
	}
	if (source.error || (!source.left && !source.waiting))
		return IOU_LOOP_STOP;
	if (!source.waiting) {
		bpf_for(i, 0, source.batch) {
			sqe = bpf_uring_sqe(&ring);
			if (!sqe || !source.left)
				break;
			sqe->opcode = source.op;
			sqe->flags = 1;		/* IOSQE_FIXED_FILE */
			sqe->ioprio = source.flags;
			sqe->addr = source.address;
			sqe->len = source.length;
			source.left--;
			source.waiting++;
		}
		if (bpf_uring_submit(&ring) < 0) {
			source.error = -1;
			return IOU_LOOP_STOP;
		}
	}
	bpf_uring_wait(&ring, params, 1);
	return IOU_LOOP_CONTINUE;
}

SEC(".struct_ops.link")
struct io_uring_bpf_ops send_ops = {
	.loop_step = (void *)send_step,
};

char LICENSE[] SEC("license") = "GPL";
