// SPDX-License-Identifier: GPL-2.0
/*
 * group: what is written to a block device is sent to several peers out of the writer's pages, by
 * the server group.bpf.c in one call of io_uring_enter(), and through a qdisc bpf.
 */
#define _GNU_SOURCE
#include "send.h"
#include "../../build/linux/include/uapi/linux/ublk_cmd.h"
#include <bpf/libbpf.h>
#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include "group.h"
#include "group.skel.h"

#define SQ		64		/* as <bpf/bpf_uring.h> has it */
#define CQ		128
#define BLOCK		65536		/* bytes of a write, at most */
#define WRITES		8
#define TOTAL		(WRITES * BLOCK)

/* What is on the device: as long as a write, each is another. */
static unsigned char *content;

struct peer {
	int from, at;			/* both ends of the connection */
	pthread_t reader;
	bool reads;
	_Atomic size_t got;
	unsigned char bytes[TOTAL];
};

static struct peer *peers;

#define NO_SERVER { .control_fd = -1, .file = -1 }

static struct server {
	struct ring control;
	int control_fd, id;
	pid_t pid;
	struct group *skel;
	struct bpf_link *link;
	int file;			/* the block device */
} server = NO_SERVER;

/* ---- peers ---- */

static void *read_all(void *arg)
{
	struct peer *p = arg;
	ssize_t n;

	while ((n = read(p->at, p->bytes + p->got, TOTAL - p->got)) > 0)
		p->got += n;
	return NULL;
}

static bool let_read(struct peer *p)
{
	p->reads = true;
	return !pthread_create(&p->reader, NULL, read_all, p);
}

/* Connections from eth0, with this mark and send buffers as small as they can be or as usual */
static bool connect_peers(int count, int mark, bool small)
{
	int listener = bound(true, SOCK_STREAM, 4100);
	struct sockaddr_in to = address(true, 4100);

	expect(!listen(listener, PEERS));
	if (small)
		set(listener, SOL_SOCKET, SO_RCVBUF, 4096);
	for (struct peer *p = peers; p < peers + count; p++) {
		memset(p, 0, sizeof(*p));
		p->from = bound(false, SOCK_STREAM, 0);
		if (small)
			set(p->from, SOL_SOCKET, SO_SNDBUF, 4096);
		expect(!connect(p->from, (void *)&to, sizeof(to)));
		p->at = accept(listener, NULL, NULL);
		expect(p->at >= 0);
		set(p->from, SOL_SOCKET, SO_MARK, mark);
	}
	close(listener);
	return true;
}

/* Until so many bytes are there */
static bool has_got(struct peer *p, size_t count)
{
	while (p->got < count)
		usleep(1000);
	return p->got == count;
}

/* Readers see the end of the stream: nothing more comes. */
static bool close_peers(int count)
{
	for (struct peer *p = peers; p < peers + count; p++) {
		if (p->from >= 0)
			close(p->from);
		if (p->reads)
			pthread_join(p->reader, NULL);
		if (p->at >= 0)
			close(p->at);
	}
	return true;
}

/* ---- the server ---- */

static int control(unsigned int op, const void *arg, unsigned int len, uint64_t more)
{
	struct ublksrv_ctrl_cmd *c;
	struct io_uring_cqe *cqe;
	struct io_uring_sqe *sqe;
	int result;

	sqe = ring_sqe(&server.control);
	sqe->opcode = IORING_OP_URING_CMD;
	sqe->fd = server.control_fd;
	sqe->cmd_op = op;
	c = (void *)sqe->cmd;
	c->dev_id = server.id;
	c->queue_id = -1;
	c->addr = (uintptr_t)arg;
	c->len = len;
	c->data[0] = more;
	while (!(cqe = ring_peek(&server.control)))
		if (ring_enter(&server.control, 1) < 0)
			return -errno;
	result = cqe->res;
	ring_seen(&server.control);
	return result;
}

/* In a process of its own: the only call of io_uring_enter() lasts as long as the device. */
static int serve(struct ring *r)
{
	struct group__bss *v = server.skel->bss;
	char path[32];
	void *map;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (unsigned int i = 0; i < v->peers; i++)
		close(peers[i].at);
	snprintf(path, sizeof(path), "/dev/ublkc%d", server.id);
	v->device = open(path, O_RDWR | O_CLOEXEC);
	if (v->device < 0)
		return 2;
	map = mmap(NULL, 4096, PROT_READ, MAP_SHARED | MAP_POPULATE, v->device,
		   UBLKSRV_CMD_BUF_OFFSET);
	if (map == MAP_FAILED)
		return 3;
	v->descriptors = (uintptr_t)map;
	if (ring_register(r, IORING_REGISTER_ENABLE_RINGS, NULL, 0))
		return 4;
	return ring_enter(r, 0) || v->error ? 5 : 0;
}

/* What a test has left that failed */
static void clear(void)
{
	if (server.pid) {
		kill(server.pid, SIGKILL);
		let_go();
		waitpid(server.pid, NULL, 0);
	}
	if (server.file >= 0)
		close(server.file);
	if (server.control.mem)
		control(UBLK_U_CMD_DEL_DEV, NULL, 0, 0);
	if (server.control_fd >= 0)
		close(server.control_fd);
	server = (struct server)NO_SERVER;
}

/* The device, whose requests @count peers get */
static bool start(int count)
{
	struct ublksrv_ctrl_dev_info info = {
		.nr_hw_queues = 1,
		.queue_depth = TAGS,
		.max_io_buf_bytes = BLOCK,
		.dev_id = 0,
		.flags = UBLK_F_AUTO_BUF_REG | UBLK_F_SUPPORT_ZERO_COPY | UBLK_F_CMD_IOCTL_ENCODE |
			 UBLK_F_NO_AUTO_PART_SCAN,
	};
	struct ublk_params params = {
		.len = sizeof(params),
		.types = UBLK_PARAM_TYPE_BASIC,
		.basic = {
			.logical_bs_shift = 9,
			.physical_bs_shift = 12,
			.io_opt_shift = 12,
			.io_min_shift = 9,
			.max_sectors = BLOCK / 512,
			.dev_sectors = TOTAL / 512,
		},
	};
	struct io_uring_rsrc_register none = { .nr = TAGS, .flags = IORING_RSRC_REGISTER_SPARSE };
	struct ring r;

	clear();
	server.control_fd = open("/dev/ublk-control", O_RDWR | O_CLOEXEC);
	expect(server.control_fd >= 0);
	expect_equal(ring_setup(&server.control, 4, 8, RING_LOOP | IORING_SETUP_SQE128), 0);
	control(UBLK_U_CMD_DEL_DEV, NULL, 0, 0);	/* of a test that was killed */
	expect_equal(control(UBLK_U_CMD_ADD_DEV, &info, sizeof(info), 0), 0);
	expect_equal(control(UBLK_U_CMD_SET_PARAMS, &params, sizeof(params), 0), 0);

	expect_equal(ring_setup(&r, SQ, CQ, RING_LOOP | IORING_SETUP_SUBMIT_ALL |
				IORING_SETUP_R_DISABLED), 0);
	expect_equal(ring_register(&r, IORING_REGISTER_BUFFERS2, &none, sizeof(none)), 0);
	server.skel = group__open();
	expect(server.skel);
	server.skel->struct_ops.group_ops->ring_fd = r.fd;
	expect(!group__load(server.skel));
	server.skel->bss->peers = count;
	for (int i = 0; i < count; i++)
		server.skel->bss->sockets[i] = peers[i].from;
	server.link = bpf_map__attach_struct_ops(server.skel->maps.group_ops);
	expect(server.link);
	server.pid = fork();
	if (!server.pid)
		_exit(serve(&r));
	ring_close(&r);			/* it is the server's alone */
	expect_equal(control(UBLK_U_CMD_START_DEV, NULL, 0, server.pid), 0);
	server.file = open("/dev/ublkb0", O_RDWR | O_DIRECT | O_CLOEXEC);
	expect(server.file >= 0);
	return true;
}

/* Its server ends, so. */
static bool end(int status)
{
	int is;

	expect_equal(control(UBLK_U_CMD_STOP_DEV, NULL, 0, 0), 0);
	expect_equal(waitpid(server.pid, &is, 0), server.pid);
	server.pid = 0;
	expect_equal(is, status);
	return true;
}

/* The device goes, and nothing is left. */
static bool stop(void)
{
	close(server.file);
	expect_equal(control(UBLK_U_CMD_DEL_DEV, NULL, 0, 0), 0);
	bpf_link__destroy(server.link);
	group__destroy(server.skel);
	ring_close(&server.control);
	close(server.control_fd);
	server = (struct server)NO_SERVER;
	expect(access("/dev/ublkb0", F_OK) && access("/dev/ublkc0", F_OK));
	return true;
}

static bool write_block(int i, int size)
{
	return pwrite(server.file, content + i * BLOCK, size, (off_t)i * BLOCK) == size;
}

/* ---- the tests ---- */

/* Each peer gets all of it out of the writer's pages, which are the writer's again when the write is
 * done: he writes something else there.
 */
static bool to_each_of(int count)
{
	static unsigned char pages[BLOCK] __attribute__((aligned(4096)));
	struct group__bss *v;

	expect(attach("policies/fifo.bpf.o", ""));
	expect(connect_peers(count, 0, false));
	for (int i = 0; i < count; i++)
		expect(let_read(&peers[i]));
	expect(start(count));
	v = server.skel->bss;
	for (int i = 0; i < WRITES; i++) {
		memcpy(pages, content + i * BLOCK, BLOCK);
		expect_equal(pwrite(server.file, pages, BLOCK, (off_t)i * BLOCK), BLOCK);
		memset(pages, 0, BLOCK);
	}
	for (int i = 0; i < count; i++) {
		expect(has_got(&peers[i], TOTAL));
		expect(!memcmp(peers[i].bytes, content, TOTAL));
	}
	expect(end(0));
	expect_equal(v->came, WRITES);
	expect_equal(v->done, WRITES * count);
	expect_equal(v->notifs, WRITES * count);
	expect_equal(v->copied, 0);
	expect(stop());
	return close_peers(count);
}

static bool fan_out(void)
{
	expect(to_each_of(1));
	expect(to_each_of(3));
	expect(to_each_of(8));
	return true;
}

/* Writes without waiting for each other */
static bool submit_writes(struct ring *r, int count, int size)
{
	expect_equal(ring_setup(r, 16, 32, RING_LOOP), 0);
	for (int i = 0; i < count; i++) {
		struct io_uring_sqe *sqe = ring_sqe(r);

		sqe->opcode = IORING_OP_WRITE;
		sqe->fd = server.file;
		sqe->addr = (uintptr_t)content + i * BLOCK;
		sqe->len = size;
		sqe->off = (uint64_t)i * BLOCK;
		sqe->user_data = i;
	}
	expect_equal(ring_enter(r, 0), count);
	return true;
}

/* That so many writes end so */
static bool written(struct ring *r, int count, int result)
{
	struct io_uring_cqe *cqe;

	while (count--) {
		while (!(cqe = ring_peek(r)))
			expect(ring_enter(r, 1) >= 0);
		expect_equal(cqe->res, result);
		ring_seen(r);
	}
	return true;
}

/* The sends are done, and the write is not: the qdisc has its pages. */
static bool lease(void)
{
	struct group__bss *v;
	struct ring r;

	expect(attach("selftests/io_uring/send.bpf.o", ""));
	expect(connect_peers(3, HOLD, false));
	for (int i = 0; i < 3; i++)
		expect(let_read(&peers[i]));
	expect(start(3));
	v = server.skel->bss;
	expect(submit_writes(&r, 1, 8192));
	while (*(volatile __u64 *)&v->done < 3)
		usleep(1000);
	expect(ring_enter(&r, 0) >= 0);
	expect(!ring_peek(&r));
	expect_equal(v->notifs, 0);
	for (int i = 0; i < 3; i++)
		set(peers[i].from, SOL_SOCKET, SO_MARK, 0);
	expect(let_go());
	expect(written(&r, 1, 8192));
	for (int i = 0; i < 3; i++) {
		expect(has_got(&peers[i], 8192));
		expect(!memcmp(peers[i].bytes, content, 8192));
	}
	ring_close(&r);
	expect(end(0));
	expect_equal(v->notifs, 3);
	expect_equal(v->copied, 0);
	expect(stop());
	return close_peers(3);
}

/* Eight groups at once, each larger than a send buffer: each peer has one behind the other, as they
 * came.
 */
static bool in_order(void)
{
	struct group__bss *v;
	struct ring r;

	expect(attach("policies/fifo.bpf.o", ""));
	expect(connect_peers(3, 0, true));
	for (int i = 0; i < 3; i++)
		expect(let_read(&peers[i]));
	expect(start(3));
	v = server.skel->bss;
	expect(submit_writes(&r, TAGS, BLOCK));
	expect(written(&r, TAGS, BLOCK));
	expect_equal(v->came, TAGS);
	for (int i = 0; i < 3; i++) {
		expect(has_got(&peers[i], TAGS * BLOCK));
		for (int j = 0; j < TAGS; j++)
			expect(!memcmp(peers[i].bytes + j * BLOCK, content + v->order[j] * 512,
				       BLOCK));
	}
	ring_close(&r);
	expect(end(0) && stop());
	return close_peers(3);
}

/* One of three resets its connection in the middle of a write: that fails, the others have all of
 * it, and the next write is theirs.
 */
static bool reset(void)
{
	struct linger now = { 1, 0 };
	struct ring r;

	expect(attach("policies/fifo.bpf.o", ""));
	expect(connect_peers(3, 0, true));
	expect(let_read(&peers[0]));
	expect(let_read(&peers[2]));
	expect(start(3));
	expect(submit_writes(&r, 1, BLOCK));
	expect(has_got(&peers[0], BLOCK));
	expect(has_got(&peers[2], BLOCK));
	expect(ring_enter(&r, 0) >= 0);
	expect(!ring_peek(&r));
	expect(!setsockopt(peers[1].at, SOL_SOCKET, SO_LINGER, &now, sizeof(now)));
	close(peers[1].at);
	peers[1].at = -1;
	expect(written(&r, 1, -EIO));
	expect_equal(server.skel->bss->gone, 1 << 1);
	expect(write_block(1, BLOCK));
	for (int i = 0; i < 3; i += 2) {
		expect(has_got(&peers[i], 2 * BLOCK));
		expect(!memcmp(peers[i].bytes, content, 2 * BLOCK));
	}
	ring_close(&r);
	expect(end(0) && stop());
	return close_peers(3);
}

/* The server is killed while the qdisc has pages of a write, and others wait: all fail, when the
 * qdisc has let go, and the device goes.
 */
static bool killed(void)
{
	int status;
	struct ring r;

	expect(attach("selftests/io_uring/send.bpf.o", ""));
	expect(connect_peers(3, HOLD, true));
	for (int i = 0; i < 3; i++)
		expect(let_read(&peers[i]));
	expect(start(3));
	expect(submit_writes(&r, TAGS, BLOCK));
	while (*(volatile __u64 *)&server.skel->bss->came < TAGS)
		usleep(1000);
	expect(!kill(server.pid, SIGKILL));
	expect_equal(waitpid(server.pid, &status, 0), server.pid);
	expect(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	server.pid = 0;
	expect(ring_enter(&r, 0) >= 0);
	expect(!ring_peek(&r));
	for (int i = 0; i < 3; i++)
		set(peers[i].from, SOL_SOCKET, SO_MARK, 0);
	expect(let_go());
	expect(written(&r, TAGS, -EIO));
	ring_close(&r);
	expect(!write_block(0, BLOCK));
	expect(stop());
	return close_peers(3);
}

static const struct test list[] = {
	{ "a write goes to 1, 3, 8 peers out of its pages, in one call", fan_out },
	{ "a write is done when the qdisc has none of its pages", lease },
	{ "groups are sent one behind the other, as they came", in_order },
	{ "a peer that resets fails the write, and the others have it", reset },
	{ "writes of a server that is killed fail, and the device goes", killed },
	{ "and a new one is as the first", fan_out },
};

int main(int argc, char **argv)
{
	int failures;

	(void)argc;
	content = aligned_alloc(4096, TOTAL);
	peers = calloc(PEERS, sizeof(*peers));
	if (!content || !peers)
		return 1;
	for (int i = 0; i < TOTAL; i++)
		content[i] = i * 31 + (i >> 12) * 7;
	failures = run_tests(list, sizeof(list) / sizeof(*list), argv);
	clear();
	return failures;
}
