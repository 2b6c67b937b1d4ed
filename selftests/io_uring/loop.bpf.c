// SPDX-License-Identifier: GPL-2.0
/* Programs that drive a ring: the run queue of a graph of requests, and simpler ones. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_rbtree.h>
#include <bpf/bpf_uring.h>
#include "loop.h"

#define ECANCELED	125
#define EINVAL		22

#define TIMER		(1ULL << 63)	/* user_data of what is no request: it wakes the program */

/* Of these passes a program makes at most so many in one run: the kernel looks for signals
 * between two runs.
 */
#define PASSES		4096

/* User space maps this, and fills it in. */
struct job jobs[JOBS];
__u32 edges[EDGES];
__u32 depth = 1;		/* so many run at once */

/* What the program knows while it waits */
bool started;
__u32 running, issued;
__u32 later_len;		/* how many wait for their time */
__u64 alarm;			/* when the earliest timer ends; 0: there is none */
__u64 steps, timers;
int error;

struct {				/* key -> job that can be issued */
	__uint(type, BPF_MAP_TYPE_RBTREE);
	__type(key, __u64);
	__type(value, __u32);
	__uint(max_entries, JOBS);
} ready SEC(".maps");

struct {				/* time -> job that can be issued then */
	__uint(type, BPF_MAP_TYPE_RBTREE);
	__type(key, __u64);
	__type(value, __u32);
	__uint(max_entries, JOBS);
} later SEC(".maps");

static __always_inline void set_error(int number)
{
	if (!error)
		error = number;
}

/* It can be issued, or, under key 0 before all others, is to be cancelled. */
static __always_inline void push_ready(__u32 nr, __u64 key)
{
	if (bpf_rbtree_map_push(&ready, &key, &nr))
		set_error(-E2BIG);
}

static __always_inline void push_later(__u32 nr, __u64 when)
{
	if (bpf_rbtree_map_push(&later, &when, &nr))
		set_error(-E2BIG);
	else
		later_len++;
}

/* The result of one is in the request of another. */
static __always_inline void pass(struct job *job, __u32 edge, __s32 result)
{
	if (edge & EDGE_PASS)
		job->sqe.len = result;
	if (edge & EDGE_ADD)
		job->sqe.len += result;
	if (edge & EDGE_FD)
		job->sqe.fd = result;
}

/* What waits for a job that is over is ready, if it waits for nothing else, or is cancelled
 * with it.
 */
static __always_inline void tell(__u32 edge, __s32 result, bool failed)
{
	__u32 nr = edge & EDGE_JOB;
	struct job *job;

	if (nr >= JOBS) {
		set_error(-EINVAL);
		return;
	}
	job = &jobs[nr];
	if (job->state != JOB_WAITS)
		return;
	if (!failed) {
		if (edge & (EDGE_PASS | EDGE_ADD | EDGE_FD))
			pass(job, edge, result);
	} else if (edge & EDGE_HARD) {
		job->state = JOB_CANCELLED;
		push_ready(nr, 0);
		return;
	}
	if (--job->waits)
		return;
	job->state = JOB_READY;
	if (job->when)
		push_later(nr, job->when);
	else
		push_ready(nr, job->key);
}

static __noinline int tell_others(__u32 first, __u32 nr, __s32 result, bool failed)
{
	__u32 i;

	bpf_for(i, 0, nr) {
		if (first + i >= EDGES) {
			set_error(-EINVAL);
			break;
		}
		tell(edges[first + i], result, failed);
	}
	return 0;
}

static __always_inline void end(struct job *job, __s32 result)
{
	bool failed = result < job->least;

	job->state = JOB_OVER;
	job->result = result;
	if (job->edge)
		tell(job->edge, result, failed);
	if (job->edges)
		tell_others(job->first_edge, job->edges, result, failed);
}

/* What a program counts, while it runs, in registers */
struct run {
	struct bpf_uring ring;
	__u32 running, issued, depth;
};

static __always_inline void reap(struct run *run, struct io_uring_cqe *cqe)
{
	__u64 nr = cqe->user_data;

	if (nr & TIMER) {
		if (nr == (alarm | TIMER))
			alarm = 0;
		return;
	}
	/* A zero-copy send has its result in the first completion, and ends with the second. */
	if (nr >= JOBS || cqe->flags & IORING_CQE_F_MORE)
		return;
	run->running--;
	end(&jobs[nr], cqe->res);
}

/* One whose time has come is ready. Otherwise a timer is set for the first time, unless an
 * earlier one is.
 */
static __always_inline bool is_due(struct bpf_uring *ring)
{
	__u64 now = bpf_ktime_get_ns(), when = 0;
	struct io_uring_sqe *sqe;
	__u32 nr = 0;

	if (!bpf_rbtree_map_pop_until(&later, &now, &when, &nr)) {
		later_len--;
		if (nr < JOBS)
			push_ready(nr, jobs[nr].key);
		return true;
	}
	if (alarm && alarm <= when)
		return false;
	sqe = bpf_uring_sqe(ring);
	if (!sqe)
		return false;
	sqe->opcode = IORING_OP_TIMEOUT;
	sqe->fd = -1;
	sqe->addr = when;
	sqe->len = 1;
	sqe->timeout_flags = IORING_TIMEOUT_ABS | IORING_TIMEOUT_IMMEDIATE_ARG;
	sqe->user_data = when | TIMER;
	alarm = when;
	timers++;
	return false;
}

/* The first that is ready; false if there is none. */
static __always_inline bool issue(struct run *run)
{
	struct io_uring_sqe *sqe;
	struct job *job;
	__u32 nr = 0;
	__u64 key;

	if (run->ring.queued >= BPF_URING_SQ ||
	    bpf_rbtree_map_pop(&ready, &key, &nr) || nr >= JOBS)
		return false;
	job = &jobs[nr];
	if (job->state == JOB_CANCELLED) {
		end(job, -ECANCELED);
		return true;
	}
	sqe = &run->ring.sqes[run->ring.queued++];
	*sqe = job->sqe;
	sqe->user_data = nr;
	job->state = JOB_RUNS;
	job->rank = run->issued++;
	if (job->when)
		job->issued = bpf_ktime_get_ns();
	run->running++;
	return true;
}

/* A ring that takes fewer has no memory, or no IORING_SETUP_SUBMIT_ALL. */
static __always_inline bool submit(struct bpf_uring *ring)
{
	__u32 queued = ring->queued;

	if (bpf_uring_submit(ring) == queued)
		return true;
	set_error(-EAGAIN);
	return false;
}

/* It takes what has ended, issues what can be, and so on until nothing more happens at once. */
static __always_inline int step(struct run *run, struct iou_loop_params *params)
{
	struct io_uring_cqe *cqe;
	bool idle = false;
	__u32 i;

	bpf_for(i, 0, PASSES) {
		cqe = bpf_uring_cqe(&run->ring);
		if (cqe) {
			reap(run, cqe);
			bpf_uring_seen(&run->ring);
			if (bpf_uring_cqe(&run->ring))
				continue;
		}
		if (later_len && is_due(&run->ring))
			continue;
		if (run->running < run->depth && issue(run) && run->running < run->depth)
			continue;
		idle = !run->ring.queued;
		if (idle)
			break;
		if (!submit(&run->ring))
			return IOU_LOOP_STOP;
	}
	if (run->ring.queued && !submit(&run->ring))
		return IOU_LOOP_STOP;
	if (idle && !run->running && !later_len)
		return IOU_LOOP_STOP;
	bpf_uring_wait(&run->ring, params, idle);
	return IOU_LOOP_CONTINUE;
}

SEC("struct_ops.s/graph")
int BPF_PROG(graph, struct iou_ctx *iou, struct iou_loop_params *params)
{
	struct run run = { .running = running, .issued = issued, .depth = depth };
	int ret;

	steps++;
	if (!bpf_uring_begin(&run.ring, iou)) {
		set_error(-EINVAL);
		return IOU_LOOP_STOP;
	}
	if (!started) {
		started = true;
		end(&jobs[0], 0);
	}
	ret = step(&run, params);
	running = run.running;
	issued = run.issued;
	return ret;
}

/* ---- what a request costs: NOPs ---- */

__u64 left;			/* NOPs that have not ended */
__u32 batch = 1;		/* so many at once */

/* Take all completions; are there more requests to come? */
static __always_inline bool take_all(struct bpf_uring *ring)
{
	__u32 n = ring->rings->cq.tail - ring->rings->cq.head;

	ring->rings->cq.head += n;
	left -= n;
	return left;
}

SEC("struct_ops.s/one")
int BPF_PROG(one, struct iou_ctx *iou, struct iou_loop_params *params)
{
	struct bpf_uring ring;

	if (!bpf_uring_begin(&ring, iou) || !take_all(&ring) || !bpf_uring_sqe(&ring))
		return IOU_LOOP_STOP;
	submit(&ring);
	bpf_uring_wait(&ring, params, 1);
	return error ? IOU_LOOP_STOP : IOU_LOOP_CONTINUE;
}

/* Links of two, `batch` of them at once */
SEC("struct_ops.s/links")
int BPF_PROG(links, struct iou_ctx *iou, struct iou_loop_params *params)
{
	struct bpf_uring ring;
	__u32 i;

	if (!bpf_uring_begin(&ring, iou) || !take_all(&ring))
		return IOU_LOOP_STOP;
	bpf_for(i, 0, batch) {
		struct io_uring_sqe *sqe = &ring.sqes[2 * i];

		if (i >= BPF_URING_SQ / 2)
			break;
		__builtin_memset(sqe, 0, 2 * sizeof(*sqe));
		sqe->flags = 1 << IOSQE_IO_LINK_BIT;
		ring.queued += 2;
	}
	submit(&ring);
	bpf_uring_wait(&ring, params, 2 * batch);
	return error ? IOU_LOOP_STOP : IOU_LOOP_CONTINUE;
}

/* `batch` at once */
SEC("struct_ops.s/many")
int BPF_PROG(many, struct iou_ctx *iou, struct iou_loop_params *params)
{
	struct bpf_uring ring;
	__u32 i;

	if (!bpf_uring_begin(&ring, iou) || !take_all(&ring))
		return IOU_LOOP_STOP;
	bpf_for(i, 0, batch)
		bpf_uring_sqe(&ring);
	submit(&ring);
	bpf_uring_wait(&ring, params, batch);
	return error ? IOU_LOOP_STOP : IOU_LOOP_CONTINUE;
}

/* ---- min-wait: user space is told of many datagrams at once, or of few that are old ---- */

__u32 sock, teller;		/* where datagrams come; the ring that user space waits on */
__u32 window;			/* so many receives wait */
__u32 enough;			/* tell of so many, */
__u64 patience;			/* or of fewer after so many ns, which double when they end */
__u64 patience_max;
__u64 buffer;			/* of user space, for all */

__u64 expected, got, told, wakes;
__u64 timer;			/* number of the one that counts */

enum { DATAGRAM = 1, MESSAGE };

static __always_inline void receive(struct bpf_uring *ring)
{
	struct io_uring_sqe *sqe = bpf_uring_sqe(ring);

	if (!sqe)
		return;
	sqe->opcode = IORING_OP_RECV;
	sqe->fd = sock;
	sqe->addr = buffer;
	sqe->len = 8;
	sqe->user_data = DATAGRAM;
}

static __always_inline void start_timer(struct bpf_uring *ring)
{
	struct io_uring_sqe *sqe = bpf_uring_sqe(ring);

	if (!sqe)
		return;
	sqe->opcode = IORING_OP_TIMEOUT;
	sqe->fd = -1;
	sqe->addr = patience;
	sqe->len = 1;
	sqe->timeout_flags = IORING_TIMEOUT_IMMEDIATE_ARG;
	sqe->user_data = ++timer | TIMER;
}

static __always_inline void tell_user(struct bpf_uring *ring, __u64 waited)
{
	struct io_uring_sqe *sqe = bpf_uring_sqe(ring);

	if (!sqe)
		return;
	sqe->opcode = IORING_OP_MSG_RING;
	sqe->flags = 1 << IOSQE_CQE_SKIP_SUCCESS_BIT;
	sqe->fd = teller;
	sqe->len = got - told;
	sqe->off = waited;
	sqe->user_data = MESSAGE;
	told = got;
}

SEC("struct_ops.s/min_wait")
int BPF_PROG(min_wait, struct iou_ctx *iou, struct iou_loop_params *params)
{
	static __u64 first_patience;
	struct io_uring_cqe *cqe;
	struct bpf_uring ring;
	__u32 i, more = 0;
	__u64 ended = 0;

	if (!bpf_uring_begin(&ring, iou))
		return IOU_LOOP_STOP;
	if (!wakes++) {
		first_patience = patience;
		more = window;
	}
	bpf_for(i, 0, BPF_URING_CQ) {
		cqe = bpf_uring_cqe(&ring);
		if (!cqe)
			break;
		if (cqe->user_data == DATAGRAM && cqe->res == 8) {
			got++;
			more++;
		} else if (cqe->user_data & TIMER) {
			if (cqe->user_data == (timer | TIMER))
				ended = patience;
		} else {
			set_error(cqe->res ?: -EINVAL);
		}
		bpf_uring_seen(&ring);
	}
	bpf_for(i, 0, more)
		receive(&ring);
	if (got - told >= enough) {
		tell_user(&ring, 0);
		patience = first_patience;
		start_timer(&ring);
	} else if (ended || !timer) {
		if (got != told)
			tell_user(&ring, ended);
		if (ended)
			patience = patience * 2 < patience_max ? patience * 2 : patience_max;
		start_timer(&ring);
	}
	if (ring.queued)
		submit(&ring);
	if (error || told >= expected)
		return IOU_LOOP_STOP;
	bpf_uring_wait(&ring, params, enough - (got - told));
	return IOU_LOOP_CONTINUE;
}

/* ---- beside a qdisc: datagrams are sent while it has room for them ---- */

struct pkt {
	struct sk_buff __kptr *skb;
};

/* That of policies/edt.bpf.c, whose keys are the times at which packets leave */
struct {
	__uint(type, BPF_MAP_TYPE_RBTREE);
	__type(key, __u64);
	__type(value, struct pkt);
	__uint(max_entries, 10000);
} edt_pkts SEC(".maps");

__u32 room;			/* so many packets may wait there */
__u32 most, full;		/* so many did; how often there was no room */

static __always_inline void send(struct bpf_uring *ring)
{
	struct io_uring_sqe *sqe = bpf_uring_sqe(ring);

	if (!sqe)
		return;
	sqe->opcode = IORING_OP_SEND;
	sqe->fd = sock;
	sqe->addr = buffer;
	sqe->len = 1000;
	sqe->user_data = DATAGRAM;
}

/* Wake up when the first packet has left. */
static __always_inline void wake_at(struct bpf_uring *ring, __u64 when)
{
	struct io_uring_sqe *sqe = bpf_uring_sqe(ring);

	if (!sqe)
		return;
	sqe->opcode = IORING_OP_TIMEOUT;
	sqe->fd = -1;
	sqe->addr = when;
	sqe->len = 1;
	sqe->timeout_flags = IORING_TIMEOUT_ABS | IORING_TIMEOUT_IMMEDIATE_ARG;
	sqe->user_data = TIMER;
}

SEC("struct_ops.s/beside")
int BPF_PROG(beside, struct iou_ctx *iou, struct iou_loop_params *params)
{
	struct io_uring_cqe *cqe;
	struct bpf_uring ring;
	__u32 i, waiting;
	__u64 first = 0;

	if (!bpf_uring_begin(&ring, iou))
		return IOU_LOOP_STOP;
	wakes++;
	bpf_for(i, 0, BPF_URING_CQ) {
		cqe = bpf_uring_cqe(&ring);
		if (!cqe)
			break;
		if (cqe->user_data == DATAGRAM) {
			got++;
			if (cqe->res != 1000)
				set_error(cqe->res ?: -EINVAL);
		}
		bpf_uring_seen(&ring);
	}
	waiting = bpf_rbtree_map_len(&edt_pkts);
	if (waiting > most)
		most = waiting;
	bpf_for(i, waiting, room) {
		if (!left)
			break;
		send(&ring);
		left--;
	}
	if (!ring.queued) {
		if (!left || error)
			return IOU_LOOP_STOP;
		full++;
		if (bpf_rbtree_map_first(&edt_pkts, &first))
			wake_at(&ring, first);
	}
	waiting = ring.queued;		/* none if the last packet has left meanwhile: look again */
	submit(&ring);
	bpf_uring_wait(&ring, params, waiting ? 1 : 0);
	return IOU_LOOP_CONTINUE;
}

/* ---- misuse ---- */

/* Never ends, never waits */
SEC("struct_ops.s/runaway")
int BPF_PROG(runaway, struct iou_ctx *iou, struct iou_loop_params *params)
{
	steps++;
	return IOU_LOOP_CONTINUE;
}

/* Waits for what does not come, until user space says that it is enough */
SEC("struct_ops.s/idle")
int BPF_PROG(idle, struct iou_ctx *iou, struct iou_loop_params *params)
{
	struct bpf_uring ring;

	steps++;
	if (left || !bpf_uring_begin(&ring, iou))
		return IOU_LOOP_STOP;
	bpf_uring_wait(&ring, params, 1);
	return IOU_LOOP_CONTINUE;
}

/* What is neither to go on nor to stop */
SEC("struct_ops.s/odd")
int BPF_PROG(odd, struct iou_ctx *iou, struct iou_loop_params *params)
{
	return IOU_LOOP_STOP + 1;
}

/* Adds up what user space has put into memory that it has registered, and puts the sum there. */
SEC("struct_ops.s/memory")
int BPF_PROG(memory, struct iou_ctx *iou, struct iou_loop_params *params)
{
	__u64 *numbers = (void *)bpf_io_uring_get_region(iou, IOU_REGION_MEM, 4096), sum = 0;
	__u32 i;

	steps++;
	if (!numbers)
		return IOU_LOOP_STOP;
	bpf_for(i, 0, 4096 / sizeof(*numbers))
		sum += numbers[i];
	numbers[0] = sum;
	if (bpf_io_uring_get_region(iou, IOU_REGION_MEM, 4097))
		left++;
	return IOU_LOOP_STOP;
}

/* More than the ring has: is it refused? */
SEC("struct_ops.s/beyond")
int BPF_PROG(beyond, struct iou_ctx *iou, struct iou_loop_params *params)
{
	if (bpf_io_uring_get_region(iou, IOU_REGION_SQ, 1 << 20))
		left++;
	if (bpf_io_uring_get_region(iou, IOU_REGION_CQ, 1 << 20))
		left++;
	if (bpf_io_uring_get_region(iou, IOU_REGION_MEM, 1))	/* there is none */
		left++;
	if (bpf_io_uring_get_region(iou, IOU_REGION_SQ + 1, 1))
		left++;
	steps++;
	return IOU_LOOP_STOP;
}

#define OPS(name)				\
	SEC(".struct_ops.link")			\
	struct io_uring_bpf_ops name##_ops = { .loop_step = (void *)name }

OPS(graph);
OPS(one);
OPS(links);
OPS(many);
OPS(min_wait);
OPS(beside);
OPS(runaway);
OPS(idle);
OPS(odd);
OPS(memory);
OPS(beyond);

char LICENSE[] SEC("license") = "GPL";
