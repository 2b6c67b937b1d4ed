/* SPDX-License-Identifier: GPL-2.0 */
/* What the tests share that send by io_uring through the qdisc of eth0: sockets at both ends of
 * the wire, requests to send, their completions, and what arrives.
 */
#ifndef SELFTESTS_SEND_H
#define SELFTESTS_SEND_H

#include "ring.h"
#include <arpa/inet.h>
#include <err.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <sched.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include "../lib/expect.h"
#include "send_marks.h"

#define MS		1000000ull	/* ns */
#define MOST		64		/* datagrams of one test */
#define SIZE		1200		/* bytes of each */

static char top[PATH_MAX];		/* of the repository */
static bool icount;			/* times are exact */

static inline uint64_t clock_ns(clockid_t clock)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	return ts.tv_sec * 1000000000ull + ts.tv_nsec;
}

static inline uint64_t now_ns(void)
{
	return clock_ns(CLOCK_MONOTONIC);
}

/* What CLOCK_REALTIME is ahead: the largest of several, as less has happened between the two */
static inline uint64_t realtime_offset(void)
{
	uint64_t offset, most = 0;

	for (int i = 0; i < 10; i++) {
		offset = clock_ns(CLOCK_REALTIME) - now_ns();
		if (offset > most)
			most = offset;
	}
	return most;
}

__attribute__((format(printf, 1, 2)))
static inline bool shell(const char *format, ...)
{
	char command[3 * PATH_MAX];
	va_list list;

	va_start(list, format);
	vsnprintf(command, sizeof(command), format, list);
	va_end(list);
	return !system(command);
}

/* ---- the wire ---- */

static inline void enter_namespace(bool peer)
{
	static int files[2] = { -1, -1 };

	if (files[0] < 0) {
		files[0] = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
		files[1] = open("/run/netns/peer", O_RDONLY | O_CLOEXEC);
	}
	if (setns(files[peer], CLONE_NEWNET))
		err(1, "setns");
}

static inline struct sockaddr_in address(bool peer, int port)
{
	return (struct sockaddr_in) {
		.sin_family = AF_INET,
		.sin_port = htons(port),
		.sin_addr.s_addr = inet_addr(peer ? "10.0.0.2" : "10.0.0.1"),
	};
}

/* A socket that is bound to a port; 0 is any */
static inline int bound(bool peer, int type, int port)
{
	struct sockaddr_in at = address(peer, port);
	int fd, one = 1;

	enter_namespace(peer);
	fd = socket(AF_INET, type | SOCK_CLOEXEC, 0);
	enter_namespace(false);
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) ||
	    bind(fd, (void *)&at, sizeof(at)))
		err(1, "socket");
	return fd;
}

static inline void set(int fd, int level, int option, int value)
{
	if (setsockopt(fd, level, option, &value, sizeof(value)))
		err(1, "setsockopt %d", option);
}

/* Datagrams from eth0 with this mark, to the peer */
static inline int sender(int port, int mark)
{
	struct sockaddr_in to = address(true, port);
	int fd = bound(false, SOCK_DGRAM, 0);

	if (connect(fd, (void *)&to, sizeof(to)))
		err(1, "connect");
	set(fd, SOL_SOCKET, SO_MARK, mark);
	set(fd, SOL_SOCKET, SO_SNDBUFFORCE, 1 << 22);
	return fd;
}

static inline int receiver(int port)
{
	int fd = bound(true, SOCK_DGRAM, port);

	set(fd, SOL_SOCKET, SO_TIMESTAMPNS, 1);
	set(fd, SOL_SOCKET, SO_RCVBUFFORCE, 1 << 22);
	return fd;
}

/* What send.bpf.c holds leaves. */
static inline bool let_go(void)
{
	int fd = sender(9, GO);
	bool done = send(fd, "go", 2, 0) == 2;

	close(fd);
	return done;
}

static inline bool detach(void)
{
	return shell("tc qdisc del dev eth0 root 2>/dev/null");
}

/* A new one, whatever there was */
static inline bool attach(const char *object, const char *words)
{
	detach();
	return shell("tc qdisc add dev eth0 root bpf obj %s/%s %s", top, object, words);
}

/* ---- what is sent ---- */

static unsigned char data[MOST][4096] __attribute__((aligned(4096)));
static struct iovec parts[MOST][2];
static struct msghdr headers[MOST];
static char controls[MOST][CMSG_SPACE(sizeof(uint64_t))];

static inline unsigned char byte_of(int number, int at)
{
	return at < 4 ? number >> 8 * at : at * 7 + at / 256 + number;
}

/* Each has another content, and two parts. */
static inline void fill(int count, int size)
{
	for (int i = 0; i < count; i++) {
		for (int at = 0; at < size; at++)
			data[i][at] = byte_of(i, at);
		parts[i][0] = (struct iovec){ data[i], 100 };
		parts[i][1] = (struct iovec){ data[i] + 100, size - 100 };
		headers[i] = (struct msghdr){ .msg_iov = parts[i], .msg_iovlen = 2 };
	}
}

/* By sendmsg it is to leave then, ns CLOCK_MONOTONIC */
static inline void stamp(int i, uint64_t when)
{
	struct cmsghdr *h = (void *)controls[i];

	h->cmsg_len = CMSG_LEN(sizeof(when));
	h->cmsg_level = SOL_SOCKET;
	h->cmsg_type = SCM_TXTIME;
	memcpy(CMSG_DATA(h), &when, sizeof(when));
	headers[i].msg_control = h;
	headers[i].msg_controllen = sizeof(controls[i]);
}

struct form {
	const char *name;
	uint8_t op;
	uint16_t flags;
};

static const struct form SEND = { "send", IORING_OP_SEND, 0 };
static const struct form ZC = { "send zero copy", IORING_OP_SEND_ZC, 0 };
static const struct form ZC_FIXED = {
	"send zero copy, registered", IORING_OP_SEND_ZC, IORING_RECVSEND_FIXED_BUF
};

static inline bool is_zc(const struct form *f)
{
	return f->op == IORING_OP_SEND_ZC || f->op == IORING_OP_SENDMSG_ZC;
}

/* A ring, whose registered buffer 0 is all data */
static inline bool send_ring(struct ring *r, unsigned int cq, unsigned int more_flags)
{
	struct iovec all = { data, sizeof(data) };

	expect_equal(ring_setup(r, MOST, cq, RING_LOOP | more_flags), 0);
	expect_equal(ring_register(r, IORING_REGISTER_BUFFERS, &all, 1), 0);
	return true;
}

/* The request to send datagram i, of so many bytes. It knows which one it is. */
static inline void prepare(struct ring *r, const struct form *f, int fd, int i, int size)
{
	struct io_uring_sqe *sqe = ring_sqe(r);

	sqe->opcode = f->op;
	sqe->ioprio = f->flags | (is_zc(f) ? IORING_SEND_ZC_REPORT_USAGE : 0);
	sqe->fd = fd;
	sqe->user_data = i;
	if (f->op == IORING_OP_SENDMSG || f->op == IORING_OP_SENDMSG_ZC) {
		sqe->addr = (uintptr_t)&headers[i];
		sqe->len = 1;
	} else if (f->flags & IORING_SEND_VECTORIZED) {
		sqe->addr = (uintptr_t)parts[i];
		sqe->len = 2;
	} else {
		sqe->addr = (uintptr_t)data[i];
		sqe->len = size;
	}
}

/* ---- completions ---- */

struct done {
	int sent, back, copied;			/* how many in all */
	int sends[MOST], notifs[MOST];		/* of each */
	int result[MOST];
	uint64_t sent_at[MOST], back_at[MOST];
};

/* Those that are there */
static inline void reap(struct ring *r, struct done *d)
{
	struct io_uring_cqe *cqe;

	while ((cqe = ring_peek(r))) {
		int i = cqe->user_data;

		if (cqe->flags & IORING_CQE_F_NOTIF) {
			d->back++;
			d->notifs[i]++;
			d->back_at[i] = now_ns();
			d->copied += !!(cqe->res & IORING_NOTIF_USAGE_ZC_COPIED);
		} else {
			d->sent++;
			d->sends[i]++;
			d->sent_at[i] = now_ns();
			d->result[i] = cqe->res;
			/* of zero copy: a notification follows */
			d->notifs[i] -= !!(cqe->flags & IORING_CQE_F_MORE);
		}
		ring_seen(r);
	}
}

/* Until so many buffers are back, and all requests are done */
static inline bool reap_until(struct ring *r, struct done *d, int sent, int back)
{
	for (reap(r, d); d->sent < sent || d->back < back; reap(r, d))
		expect(ring_enter(r, 1) >= 0);
	return true;
}

/* One completion of each request, with this result, and each notification that was announced
 * exactly once. More do not come: all packets are gone.
 */
static inline bool each_once(struct ring *r, struct done *d, int count, int result)
{
	expect(ring_enter(r, 0) >= 0);
	reap(r, d);
	for (int i = 0; i < count; i++) {
		expect_equal(d->sends[i], 1);
		expect_equal(d->notifs[i], 0);
		expect_equal(d->result[i], result);
	}
	return true;
}

/* ---- what arrives ---- */

struct arrival {
	int number, size;
	uint64_t when;				/* ns CLOCK_MONOTONIC */
	bool same;				/* as it was filled */
};

/* The next ones; false if fewer come */
static inline bool collect(int fd, struct arrival *a, int count)
{
	uint64_t offset = realtime_offset();

	for (; count--; a++) {
		unsigned char bytes[65536], control[256];
		struct iovec iov = { bytes, sizeof(bytes) };
		struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1,
				    .msg_control = control, .msg_controllen = sizeof(control) };
		struct pollfd p = { fd, POLLIN, 0 };
		struct timespec ts = {};

		expect_equal(poll(&p, 1, 20000), 1);
		a->size = recvmsg(fd, &m, 0);
		expect(a->size >= 4);
		for (struct cmsghdr *h = CMSG_FIRSTHDR(&m); h; h = CMSG_NXTHDR(&m, h))
			if (h->cmsg_type == SCM_TIMESTAMPNS)
				memcpy(&ts, CMSG_DATA(h), sizeof(ts));
		a->when = ts.tv_sec * 1000000000ull + ts.tv_nsec - offset;
		a->number = bytes[0] | bytes[1] << 8;
		a->same = true;
		for (int at = 0; at < a->size; at++)
			a->same &= bytes[at] == byte_of(a->number, at);
	}
	return true;
}

/* The next that arrives is one that is sent now: none has come before. */
static inline bool none_arrives(int from, int at)
{
	struct arrival a;

	set(from, SOL_SOCKET, SO_MARK, 0);
	expect_equal(send(from, "zzzz", 4, 0), 4);
	expect(collect(at, &a, 1));
	expect_equal(a.size, 4);
	return true;
}

/* ---- all tests ---- */

struct test {
	const char *name;
	bool (*run)(void);
};

static inline int run_tests(const struct test *list, int count, char **argv)
{
	icount = setting("SELFTESTS_ICOUNT", 0);
	if (!argv[1] || !realpath(argv[1], top))
		errx(2, "usage: %s OBJECT", argv[0]);
	for (int i = 0; i < 3; i++)
		*strrchr(top, '/') = 0;
	/* nothing of its own from eth0 to eth1 */
	if (!shell("ip neigh replace 10.0.0.2 lladdr 52:54:00:00:00:02 dev eth0") ||
	    !shell("ip -n peer neigh replace 10.0.0.1 lladdr 52:54:00:00:00:01 dev eth1"))
		return 1;
	setlinebuf(stdout);	/* what was said is known, however it ends */
	printf("1..%d\n", count);
	for (int i = 0; i < count; i++) {
		/* who waits for ever */
		alarm(icount ? 60 : setting("SELFTESTS_DEBUG", 0) ? 3000 : 300);
		result(list[i].run(), list[i].name);
	}
	detach();
	return !!failed;
}

#endif /* SELFTESTS_SEND_H */
