// SPDX-License-Identifier: GPL-2.0
/*
 * The server of a block device that ublk makes: what is written to the device is sent to some
 * sockets, out of the pages that the writer gave. A write is a group of requests with a leased
 * buffer:
 *
 *	FETCH, which leases the buffer -> a SEND_ZC to each socket, at once -> COMMIT
 *
 * Groups that wait are in an ordered map, in the order in which they came; one is sent at a time, or
 * what two send to one socket would be mixed. The buffer is the writer's again when it is committed
 * and each notification has come: the kernel sees to that.
 */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_rbtree.h>
#include <bpf/bpf_uring.h>
#include "group.h"

/* Of headers of the kernel: vmlinux.h has no macros */
#define UBLK_U_IO_FETCH_REQ		0xc0107520
#define UBLK_U_IO_COMMIT_AND_FETCH_REQ	0xc0107521
#define UBLK_IO_OP_WRITE		1
#define IORING_RECVSEND_FIXED_BUF	(1U << 2)
#define IORING_SEND_ZC_REPORT_USAGE	(1U << 3)
#define MSG_WAITALL			0x100
#define EIO				5

enum { FETCH = 1, MEMBER };			/* in user_data */

struct group {
	__u32 len;			/* bytes */
	__u32 pending;			/* sends that are not done */
	__s32 result;
};

/* The number of each group that waits -> its tag */
struct {
	__uint(type, BPF_MAP_TYPE_RBTREE);
	__type(key, __u64);
	__type(value, __u32);
	__uint(max_entries, TAGS);
} group_waiting SEC(".maps");

/* What the server has */
__s32 device;				/* the file /dev/ublkcN */
__u64 descriptors;			/* where it is mapped */
__s32 sockets[PEERS];
__u32 peers;

static struct group groups[TAGS];
static __u32 running;			/* groups whose sends are not all done */

/* What has happened */
bool started;
__u32 fetching;				/* tags whose command the device has, or a group */
__u32 gone;				/* bits of peers whose connection has ended */
__u64 came, sends, done, notifs;
__u64 copied;				/* notifications of bytes that the kernel has copied */
__u64 order[64];			/* sectors at which the first groups begin, as they came */
int error;

/* The next SQE. A run needs 2 * TAGS commands and PEERS sends at most. */
static struct io_uring_sqe *next_sqe(struct bpf_uring *r, __u32 what, __u32 more, __u32 tag)
{
	struct io_uring_sqe *sqe = bpf_uring_sqe(r);

	if (sqe)
		sqe->user_data = (__u64)what << 32 | more << 16 | tag;
	else
		error = -EBUSY;
	return sqe;
}

static void command(struct bpf_uring *r, __u32 op, __u32 tag, __s32 result)
{
	struct io_uring_sqe *sqe = next_sqe(r, FETCH, 0, tag);
	struct ublksrv_io_cmd *cmd;

	if (!sqe)
		return;
	cmd = (void *)&sqe->cmd;
	sqe->opcode = IORING_OP_URING_CMD;
	sqe->fd = device;
	sqe->cmd_op = op;
	sqe->addr = tag;		/* the slot for the buffer that is leased */
	cmd->tag = tag;
	cmd->result = result;
}

/* Sends to all peers. Without any, the group is done. */
static void start(struct bpf_uring *r, __u32 tag)
{
	struct group *g = &groups[tag & (TAGS - 1)];
	struct io_uring_sqe *sqe;
	__u32 i;

	bpf_for(i, 0, peers) {
		if (i >= PEERS || gone & 1U << i)
			continue;
		sqe = next_sqe(r, MEMBER, i, tag);
		if (!sqe)
			return;
		sqe->opcode = IORING_OP_SEND_ZC;
		sqe->fd = sockets[i];
		sqe->len = g->len;
		sqe->msg_flags = MSG_WAITALL;
		sqe->ioprio = IORING_RECVSEND_FIXED_BUF | IORING_SEND_ZC_REPORT_USAGE;
		sqe->buf_index = tag;
		g->pending++;
		sends++;
	}
	if (g->pending)
		running++;
	else
		command(r, UBLK_U_IO_COMMIT_AND_FETCH_REQ, tag, -EIO);
}

/* A request for the device */
static void fetched(struct bpf_uring *r, __u32 tag)
{
	struct group *g = &groups[tag & (TAGS - 1)];
	struct ublksrv_io_desc d = {};

	if (bpf_copy_from_user(&d, sizeof(d), (void *)(descriptors + tag * sizeof(d)))) {
		error = -EIO;
		return;
	}
	g->len = d.nr_sectors << 9;
	g->pending = 0;
	g->result = g->len;
	if ((d.op_flags & 0xff) != UBLK_IO_OP_WRITE) {
		command(r, UBLK_U_IO_COMMIT_AND_FETCH_REQ, tag, -EIO);
		return;
	}
	if (came < 64)
		order[came & 63] = d.start_sector;
	if (bpf_rbtree_map_push(&group_waiting, &came, &tag))
		error = -E2BIG;
	came++;
}

static void sent(struct bpf_uring *r, __u32 tag, __u32 peer, __s32 result)
{
	struct group *g = &groups[tag & (TAGS - 1)];

	done++;
	if (result != g->len) {
		g->result = -EIO;
		gone |= 1U << (peer & (PEERS - 1));
	}
	if (--g->pending)
		return;
	running--;
	command(r, UBLK_U_IO_COMMIT_AND_FETCH_REQ, tag, g->result);
}

static void completion(struct bpf_uring *r, const struct io_uring_cqe *cqe)
{
	__u32 tag = cqe->user_data & 0xffff;

	if (cqe->user_data >> 32 == FETCH) {
		if (!cqe->res)
			fetched(r, tag);
		else
			fetching--;	/* the device ends */
	} else if (cqe->flags & IORING_CQE_F_NOTIF) {
		notifs++;
		copied += !!cqe->res;
	} else {
		sent(r, tag, cqe->user_data >> 16 & 0xffff, cqe->res);
	}
}

SEC("struct_ops.s/step")
int BPF_PROG(step, struct iou_ctx *loop, struct iou_loop_params *params)
{
	struct io_uring_cqe *cqe;
	struct bpf_uring ring;
	__u32 i, tag;
	__u64 key;

	if (!bpf_uring_begin(&ring, loop))
		return IOU_LOOP_STOP;
	if (!started) {
		bpf_for(i, 0, TAGS)
			command(&ring, UBLK_U_IO_FETCH_REQ, i, 0);
		fetching = TAGS;
		started = true;
	}
	bpf_for(i, 0, BPF_URING_CQ) {
		cqe = bpf_uring_cqe(&ring);
		if (!cqe)
			break;
		completion(&ring, cqe);
		bpf_uring_seen(&ring);
	}
	bpf_for(i, 0, TAGS) {
		if (running || bpf_rbtree_map_pop(&group_waiting, &key, &tag))
			break;
		start(&ring, tag);
	}
	if (ring.queued && bpf_uring_submit(&ring) < 0)
		error = -EIO;
	if (error || !fetching)
		return IOU_LOOP_STOP;
	bpf_uring_wait(&ring, params, 1);
	return IOU_LOOP_CONTINUE;
}

SEC(".struct_ops.link")
struct io_uring_bpf_ops group_ops = {
	.loop_step = (void *)step,
};

char LICENSE[] SEC("license") = "GPL";
