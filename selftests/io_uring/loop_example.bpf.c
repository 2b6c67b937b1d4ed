// SPDX-License-Identifier: GPL-2.0
/* The run queue of Documentation/bpf/map_rbtree.rst, word for word from the line below on;
 * loop_example.c runs it and compares the texts.
 */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_rbtree.h>
#include <bpf/bpf_uring.h>

#define JOBS	1024
#define DEPTH	8			/* so many run at once */

struct job {
	struct io_uring_sqe sqe;	/* the request */
	__u64 priority;			/* the lowest comes first */
	__u32 next;			/* the job that waits for this one, or 0 */
	__s32 result;			/* of a job that is over */
} jobs[JOBS];				/* user space maps it, and fills it in */

struct {
	__uint(type, BPF_MAP_TYPE_RBTREE);
	__type(key, __u64);		/* priority */
	__type(value, __u32);		/* of which job */
	__uint(max_entries, JOBS);
} run_queue SEC(".maps");		/* user space puts in the jobs that wait for none */

__u32 running;

static void end_job(__u32 job, __s32 result)
{
	__u32 next;

	if (job >= JOBS)
		return;
	running--;
	jobs[job].result = result;
	next = jobs[job].next;
	if (result >= 0 && next && next < JOBS)	/* after an error it never runs */
		bpf_rbtree_map_push(&run_queue, &jobs[next].priority, &next);
}

SEC("struct_ops.s/run_jobs")
int BPF_PROG(run_jobs, struct iou_ctx *iou, struct iou_loop_params *params)
{
	struct io_uring_sqe *sqe;
	struct io_uring_cqe *cqe;
	struct bpf_uring ring;
	__u32 i, job = 0;
	__u64 priority;

	if (!bpf_uring_begin(&ring, iou))
		return IOU_LOOP_STOP;
	bpf_for(i, 0, BPF_URING_CQ) {
		cqe = bpf_uring_cqe(&ring);
		if (!cqe)
			break;
		if (!(cqe->flags & IORING_CQE_F_MORE))
			end_job(cqe->user_data, cqe->res);
		bpf_uring_seen(&ring);
	}
	bpf_for(i, running, DEPTH) {
		if (bpf_rbtree_map_pop(&run_queue, &priority, &job) || job >= JOBS)
			break;
		sqe = bpf_uring_sqe(&ring);
		if (!sqe)
			break;
		*sqe = jobs[job].sqe;
		sqe->user_data = job;
		running++;
	}
	if (!running || (ring.queued && bpf_uring_submit(&ring) < 0))
		return IOU_LOOP_STOP;
	bpf_uring_wait(&ring, params, 1);	/* until one more has ended */
	return IOU_LOOP_CONTINUE;
}

SEC(".struct_ops.link")
struct io_uring_bpf_ops job_ops = { .loop_step = (void *)run_jobs };

char LICENSE[] SEC("license") = "GPL";
