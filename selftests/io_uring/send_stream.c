// SPDX-License-Identifier: GPL-2.0
/*
 * send_stream: what io_uring offers for the network beside a single send, with a qdisc bpf on the
 * way: bundles and buffers that are provided, receives and accepts of many, polling first, waiting
 * for all, fixed files, cancellation, receiving into an area.
 */
#define _GNU_SOURCE
#include "send.h"
#include <linux/if.h>
#include <sys/ioctl.h>

#define STREAM		(256 << 10)	/* bytes */

enum { SENDS = 1, RECEIVES, ACCEPTS, CANCELS };	/* user_data */

static unsigned char *out;		/* STREAM bytes to send, */
static unsigned char *in;		/* and room for them */

static bool streams(void)
{
	out = aligned_alloc(4096, STREAM);
	in = aligned_alloc(4096, STREAM);
	expect(out && in);
	for (int i = 0; i < STREAM; i++)
		out[i] = i * 7 + i / 4096;
	return true;
}

static int listener(int port)
{
	int fd = bound(true, SOCK_STREAM, port);

	if (listen(fd, 16))
		err(1, "listen");
	return fd;
}

static int connected(int port)
{
	int fd = bound(false, SOCK_STREAM, 0);
	struct sockaddr_in to = address(true, port);

	if (connect(fd, (void *)&to, sizeof(to)))
		err(1, "connect");
	return fd;
}

/* From eth0, to the peer */
static void connection(int *from, int *at)
{
	int fd = listener(4001);

	*from = connected(4001);
	*at = accept(fd, NULL, NULL);
	if (*at < 0)
		err(1, "accept");
	close(fd);
}

static struct io_uring_sqe *request(struct ring *r, int op, int fd, int what)
{
	struct io_uring_sqe *sqe = ring_sqe(r);

	sqe->opcode = op;
	sqe->fd = fd;
	sqe->user_data = what;
	return sqe;
}

static void cancel(struct ring *r, int what)
{
	struct io_uring_sqe *sqe = request(r, IORING_OP_ASYNC_CANCEL, -1, CANCELS);

	sqe->addr = what;
}

/* Submit, and look for completions no further. */
static int submit(struct ring *r)
{
	int count = r->queued;

	r->queued = 0;
	return syscall(__NR_io_uring_enter, r->fd, count, 0, 0, NULL, 0);
}

/* The next completion; wrong if none comes */
static struct io_uring_cqe *next(struct ring *r)
{
	struct io_uring_cqe *cqe;

	while (!(cqe = ring_peek(r)))
		if (ring_enter(r, 1) < 0)
			return NULL;
	return cqe;
}

/* Its result, of a request of this kind */
static bool done(struct ring *r, int what, int result, unsigned int flags)
{
	struct io_uring_cqe *cqe = next(r);

	expect(cqe);
	expect_equal(cqe->user_data, what);
	expect_equal(cqe->res, result);
	expect_equal(cqe->flags & (IORING_CQE_F_MORE | IORING_CQE_F_NOTIF), flags);
	ring_seen(r);
	return true;
}

/* ---- buffers that are provided ---- */

struct buffers {
	struct io_uring_buf_ring *ring;
	unsigned char *bytes;
	unsigned int count, size;
	uint16_t tail;
};

static void provide(struct buffers *b, unsigned int id)
{
	struct io_uring_buf *buf = &b->ring->bufs[b->tail & (b->count - 1)];

	buf->addr = (uintptr_t)b->bytes + id * b->size;
	buf->len = b->size;
	buf->bid = id;
	__atomic_store_n(&b->ring->tail, ++b->tail, __ATOMIC_RELEASE);
}

static bool buffers(struct ring *r, struct buffers *b, int group, unsigned char *bytes,
		    unsigned int count, unsigned int size)
{
	struct io_uring_buf_reg reg = { .ring_entries = count, .bgid = group };

	*b = (struct buffers){ .bytes = bytes, .count = count, .size = size };
	b->ring = mmap(NULL, count * sizeof(struct io_uring_buf), PROT_READ | PROT_WRITE,
		       MAP_ANONYMOUS | MAP_PRIVATE, -1, 0);
	expect(b->ring != MAP_FAILED);
	reg.ring_addr = (uintptr_t)b->ring;
	expect_equal(ring_register(r, IORING_REGISTER_PBUF_RING, &reg, 1), 0);
	for (unsigned int i = 0; i < count; i++)
		provide(b, i);
	return true;
}

static void select_from(struct io_uring_sqe *sqe, int group, unsigned int flags)
{
	sqe->flags |= IOSQE_BUFFER_SELECT;
	sqe->buf_group = group;
	sqe->ioprio = flags;
}

static void send_bundle(struct ring *r, int fd)
{
	select_from(request(r, IORING_OP_SEND, fd, SENDS), 1, IORING_RECVSEND_BUNDLE);
}

static void receive_bundles(struct ring *r, int fd)
{
	select_from(request(r, IORING_OP_RECV, fd, RECEIVES), 2,
		    IORING_RECV_MULTISHOT | IORING_RECVSEND_BUNDLE);
}

/* A stream in 64 buffers, which few requests send and one receives, at the rate of the policy */
static bool bundles(void)
{
	int from, at, sent = 0, got = 0, sends = 0, receives = 0, of_several = 0;
	struct buffers full, empty;
	struct io_uring_cqe *cqe;
	uint64_t start, ns;
	struct ring r;

	expect(attach("policies/rate.bpf.o", "set rate=100mbit"));
	connection(&from, &at);
	expect_equal(ring_setup(&r, 16, 1024, RING_LOOP), 0);
	expect(buffers(&r, &full, 1, out, 64, STREAM / 64));
	expect(buffers(&r, &empty, 2, in, 512, STREAM / 512));
	start = now_ns();
	receive_bundles(&r, at);
	send_bundle(&r, from);
	while (got < STREAM) {
		cqe = next(&r);
		expect(cqe && (cqe->res > 0 || cqe->res == -ENOBUFS));
		if (cqe->user_data == SENDS) {
			sends++;
			sent += cqe->res;
			if (!(cqe->flags & IORING_CQE_F_MORE) && sent < STREAM)
				send_bundle(&r, from);
		} else {
			unsigned int id = cqe->flags >> IORING_CQE_BUFFER_SHIFT;

			receives++;
			of_several += cqe->res > (int)empty.size;
			/* all buffers were in use */
			if (!(cqe->flags & IORING_CQE_F_MORE))
				receive_bundles(&r, at);
			for (int left = cqe->res; left > 0; id = (id + 1) % empty.count) {
				int len = left < (int)empty.size ? left : (int)empty.size;

				expect(!memcmp(in + id * empty.size, out + got, len));
				provide(&empty, id);
				got += len;
				left -= len;
			}
		}
		ring_seen(&r);
	}
	ns = now_ns() - start;
	while (sent < STREAM) {
		cqe = next(&r);
		expect(cqe && cqe->user_data == SENDS && cqe->res > 0);
		sends++;
		sent += cqe->res;
		ring_seen(&r);
	}
	expect_equal(sent, STREAM);
	expect_equal(got, STREAM);
	expect(sends < 64);
	expect(of_several > 0);
	/* 100 Mbit/s are 80 ns a byte; what would leave in the policy's burst of 5 ms leaves at once,
	 * and a packet that finds the queue empty.
	 */
	expect(ns >= STREAM * 80ull - 10 * MS);
	printf("# bundles: %d sends of 64 buffers, %d receives, %d of several buffers; %.1f ms\n",
	       sends, receives, of_several, ns / 1e6);
	ring_close(&r);
	close(from);
	close(at);
	return true;
}

static void receive_many(struct ring *r, int fd)
{
	select_from(request(r, IORING_OP_RECV, fd, MOST), 1, IORING_RECV_MULTISHOT);
}

/* A receive of many datagrams ends when no buffer is left, and loses none. */
static bool many_receives(void)
{
	int from, at;
	struct buffers four;
	struct io_uring_cqe *cqe;
	struct pollfd p;
	struct ring r;

	expect(attach("policies/fifo.bpf.o", ""));
	from = sender(4000, 0);
	at = receiver(4000);
	fill(8, SIZE);
	expect(send_ring(&r, 64, 0));
	expect(buffers(&r, &four, 1, in, 4, 2048));
	for (int i = 0; i < 8; i++)
		prepare(&r, &ZC, from, i, SIZE);
	receive_many(&r, at);
	expect_equal(ring_enter(&r, 0), 9);
	for (int i = 0, sends = 0; i < 8;) {
		cqe = next(&r);
		expect(cqe);
		if (cqe->user_data != MOST) {
			expect(cqe->res == SIZE || cqe->flags & IORING_CQE_F_NOTIF);
			sends++;
		} else if (cqe->res == -ENOBUFS) {
			expect(!(cqe->flags & IORING_CQE_F_MORE));
			expect_equal(i, 4);
			for (int id = 0; id < 4; id++)
				provide(&four, id);
			receive_many(&r, at);
		} else {
			expect_equal(cqe->res, SIZE);
			expect_equal(cqe->flags >> IORING_CQE_BUFFER_SHIFT, i % 4);
			expect(!memcmp(in + i % 4 * 2048, data[i], SIZE));
			i++;
		}
		ring_seen(&r);
	}
	p = (struct pollfd){ at, POLLIN, 0 };
	expect_equal(poll(&p, 1, 0), 0);
	ring_close(&r);
	close(from);
	close(at);
	return true;
}

/* ---- when a request is tried ---- */

/* At once, or when the socket says that it is ready, which is asked when completions are. */
static bool poll_first(void)
{
	int from, at;
	struct io_uring_sqe *sqe;
	struct pollfd p;
	struct ring r;

	expect(attach("policies/fifo.bpf.o", ""));
	connection(&from, &at);
	expect_equal(ring_setup(&r, 16, 32, RING_LOOP), 0);
	for (int first = 0; first < 2; first++) {
		sqe = request(&r, IORING_OP_SEND, from, SENDS);
		sqe->addr = (uintptr_t)out;
		sqe->len = 100;
		sqe->ioprio = first ? IORING_RECVSEND_POLL_FIRST : 0;
		expect_equal(submit(&r), 1);
		expect_equal(!ring_peek(&r), first);
		expect(done(&r, SENDS, 100, 0));
		p = (struct pollfd){ at, POLLIN, 0 };
		expect_equal(poll(&p, 1, 20000), 1);
		sqe = request(&r, IORING_OP_RECV, at, RECEIVES);
		sqe->addr = (uintptr_t)in;
		sqe->len = 100;
		sqe->ioprio = first ? IORING_RECVSEND_POLL_FIRST : 0;
		expect_equal(submit(&r), 1);
		expect_equal(!ring_peek(&r), first);
		expect(done(&r, RECEIVES, 100, 0));
	}
	ring_close(&r);
	close(from);
	close(at);
	return true;
}

/* A request waits while the packets that the qdisc has fill the socket's buffer. One that is cancelled
 * then never comes to the qdisc.
 */
static bool full_socket(void)
{
	int from, at, waiting, seen = 0, last = MOST - 1;
	struct io_uring_cqe *cqe;
	struct arrival a[MOST];
	struct done d = {};
	struct ring r;

	expect(attach("selftests/io_uring/send.bpf.o", ""));
	from = sender(4000, HOLD);
	at = receiver(4000);
	set(from, SOL_SOCKET, SO_SNDBUF, 16384);
	fill(MOST, SIZE);
	expect(send_ring(&r, 4 * MOST, 0));
	for (int i = 0; i < MOST; i++)
		prepare(&r, &SEND, from, i, SIZE);
	expect_equal(ring_enter(&r, 0), MOST);
	reap(&r, &d);
	waiting = MOST - d.sent;
	expect(waiting > 0 && d.sends[CANCELS] && !d.sends[last]);
	cancel(&r, last);
	for (int i = 0; i < 2; i++) {
		cqe = next(&r);
		expect(cqe);
		expect_equal(cqe->res, (int)cqe->user_data == last ? -ECANCELED : 0);
		seen += cqe->user_data;
		ring_seen(&r);
	}
	expect_equal(seen, last + CANCELS);
	set(from, SOL_SOCKET, SO_MARK, 0);
	expect(let_go());
	expect(reap_until(&r, &d, last, 0));
	expect(each_once(&r, &d, last, SIZE));
	expect(collect(at, a, last));
	for (int i = 0; i < last; i++)
		expect(a[i].number != last);
	expect(none_arrives(from, at));
	printf("# %d of %d requests waited\n", waiting, MOST);
	ring_close(&r);
	close(from);
	close(at);
	return true;
}

/* All that was asked for, in one completion, however many packets it is. */
static bool wait_all(void)
{
	static const struct form *const forms[] = { &SEND, &ZC, &ZC_FIXED };
	int from, at, seen;
	struct io_uring_sqe *sqe;
	struct io_uring_cqe *cqe;
	struct iovec all = { out, STREAM };
	struct ring r;

	expect(attach("policies/rate.bpf.o", "set rate=100mbit"));
	connection(&from, &at);
	set(from, SOL_SOCKET, SO_SNDBUF, 32768);
	expect_equal(ring_setup(&r, 16, 32, RING_LOOP), 0);
	expect_equal(ring_register(&r, IORING_REGISTER_BUFFERS, &all, 1), 0);
	for (int i = 0; i < 3; i++) {
		memset(in, 0, STREAM);
		sqe = request(&r, forms[i]->op, from, SENDS);
		sqe->addr = (uintptr_t)out;
		sqe->len = STREAM;
		sqe->ioprio = forms[i]->flags;
		sqe->msg_flags = MSG_WAITALL;
		sqe = request(&r, IORING_OP_RECV, at, RECEIVES);
		sqe->addr = (uintptr_t)in;
		sqe->len = STREAM;
		sqe->msg_flags = MSG_WAITALL;
		expect_equal(ring_enter(&r, 2 + is_zc(forms[i])), 2);
		for (seen = 0; seen < 2 + is_zc(forms[i]); seen++) {
			cqe = next(&r);
			expect(cqe);
			if (!(cqe->flags & IORING_CQE_F_NOTIF))
				expect_equal(cqe->res, STREAM);
			ring_seen(&r);
		}
		expect(!memcmp(in, out, STREAM));
	}
	/* and without it, what is there */
	sqe = request(&r, IORING_OP_SEND, from, SENDS);
	sqe->addr = (uintptr_t)out;
	sqe->len = STREAM;
	expect_equal(ring_enter(&r, 1), 1);
	cqe = next(&r);
	expect(cqe && cqe->res > 0 && cqe->res < STREAM);
	ring_close(&r);
	close(from);
	close(at);
	return true;
}

/* ---- files that the ring has, accept, cancellation ---- */

static struct io_uring_sqe *fixed(struct ring *r, int op, int slot, int what)
{
	struct io_uring_sqe *sqe = request(r, op, slot, what);

	sqe->flags |= IOSQE_FIXED_FILE;
	return sqe;
}

/* One accept for all connections, each into a free slot of the ring; no descriptor is left. */
static bool fixed_files(void)
{
	int files[8], clients[3];
	struct io_uring_cqe *cqe;
	struct io_uring_sqe *sqe;
	struct ring r;

	expect(attach("policies/fifo.bpf.o", ""));
	expect_equal(ring_setup(&r, 16, 32, RING_LOOP), 0);
	memset(files, -1, sizeof(files));
	files[0] = listener(4001);
	expect_equal(ring_register(&r, IORING_REGISTER_FILES, files, 8), 0);
	close(files[0]);
	sqe = fixed(&r, IORING_OP_ACCEPT, 0, ACCEPTS);
	sqe->ioprio = IORING_ACCEPT_MULTISHOT;
	sqe->file_index = IORING_FILE_INDEX_ALLOC;
	expect_equal(ring_enter(&r, 0), 1);
	for (int i = 0; i < 3; i++) {
		clients[i] = connected(4001);
		expect(done(&r, ACCEPTS, i + 1, IORING_CQE_F_MORE));
	}
	/* Two ends of a connection: the client's is a slot, too. */
	for (int i = 0; i < 3; i++) {
		struct io_uring_files_update u = { .offset = 4 + i, .fds = (uintptr_t)&clients[i] };

		expect_equal(ring_register(&r, IORING_REGISTER_FILES_UPDATE, &u, 1), 0);
		close(clients[i]);
		sqe = fixed(&r, IORING_OP_SEND, 4 + i, SENDS);
		sqe->addr = (uintptr_t)out + i * 1000;
		sqe->len = 1000;
		sqe = fixed(&r, IORING_OP_RECV, 1 + i, RECEIVES);
		sqe->addr = (uintptr_t)in;
		sqe->len = 1000;
		sqe->msg_flags = MSG_WAITALL;
		expect_equal(ring_enter(&r, 2), 2);
		expect(done(&r, SENDS, 1000, 0));
		expect(done(&r, RECEIVES, 1000, 0));
		expect(!memcmp(in, out + i * 1000, 1000));
	}
	/* A receive that waits, and the accept */
	sqe = fixed(&r, IORING_OP_RECV, 1, RECEIVES);
	sqe->addr = (uintptr_t)in;
	sqe->len = 1000;
	expect_equal(ring_enter(&r, 0), 1);
	for (int what = RECEIVES; what <= ACCEPTS; what++) {
		int seen = 0;

		cancel(&r, what);
		for (int i = 0; i < 2; i++) {
			cqe = next(&r);
			expect(cqe && !(cqe->flags & IORING_CQE_F_MORE));
			expect_equal(cqe->res, (int)cqe->user_data == what ? -ECANCELED : 0);
			seen += cqe->user_data;
			ring_seen(&r);
		}
		expect_equal(seen, what + CANCELS);
	}
	/* and what is not there is not cancelled */
	cancel(&r, RECEIVES);
	expect(done(&r, CANCELS, -ENOENT, 0));
	ring_close(&r);
	return true;
}

/* ---- into an area ---- */

struct refill {
	struct io_uring_zcrx_ifq_reg reg;
	struct io_uring_zcrx_area_reg area;
	unsigned char *ring;
	uint32_t tail;
};

static int area(struct ring *r, struct refill *f, unsigned int ifindex, unsigned int flags)
{
	struct io_uring_region_desc region = { .size = 8192, .flags = IORING_MEM_REGION_TYPE_USER };

	memset(f, 0, sizeof(*f));
	f->ring = aligned_alloc(4096, region.size);
	region.user_addr = (uintptr_t)f->ring;
	f->area.addr = (uintptr_t)in;
	f->area.len = 16 * 4096;
	f->reg.if_idx = ifindex;
	f->reg.rq_entries = 64;
	f->reg.flags = flags;
	f->reg.area_ptr = (uintptr_t)&f->area;
	f->reg.region_ptr = (uintptr_t)&region;
	return ring_register(r, IORING_REGISTER_ZCRX_IFQ, &f->reg, 1);
}

/* A page goes back. */
static bool give_back(struct ring *r, struct refill *f, const struct io_uring_zcrx_cqe *zc, int len)
{
	struct io_uring_zcrx_rqe *rqe = (void *)(f->ring + f->reg.offsets.rqes);
	struct zcrx_ctrl c = { .zcrx_id = f->reg.zcrx_id, .op = ZCRX_CTRL_FLUSH_RQ };

	rqe += f->tail & (f->reg.rq_entries - 1);
	rqe->off = (zc->off & ~IORING_ZCRX_AREA_MASK) | f->area.rq_area_token;
	rqe->len = len;
	__atomic_store_n((uint32_t *)(f->ring + f->reg.offsets.tail), ++f->tail, __ATOMIC_RELEASE);
	return !ring_register(r, IORING_REGISTER_ZCRX_CTRL, &c, 0);
}

static void receive_into(struct ring *r, int fd, const struct refill *f)
{
	struct io_uring_sqe *sqe = request(r, IORING_OP_RECV_ZC, fd, RECEIVES);

	sqe->ioprio = IORING_RECV_MULTISHOT;
	sqe->zcrx_ifq_idx = f->reg.zcrx_id;
}

/*
 * A receive into an area of pages, which go back one by one. No device here puts what arrives there
 * itself: no driver of these VMs lets its rx queues be given memory (netdevsim's pages are its own,
 * and netkit has but queues that it leases from such a device). So the kernel copies.
 */
static bool into_an_area(void)
{
	int from, at, got = 0, sent = 0, pages = 0, again = 0;
	struct io_uring_sqe *sqe;
	struct io_uring_cqe *cqe;
	struct refill f;
	struct ifreq eth0 = { .ifr_name = "eth0" };
	struct ring r;

	expect(attach("policies/rate.bpf.o", "set rate=100mbit"));
	connection(&from, &at);
	expect_equal(ring_setup(&r, 16, 256, RING_LOOP | IORING_SETUP_CQE32), 0);
	expect(!ioctl(at, SIOCGIFINDEX, &eth0) || !ioctl(from, SIOCGIFINDEX, &eth0));
	expect_equal(area(&r, &f, eth0.ifr_ifindex, 0), -EOPNOTSUPP);
	expect_equal(area(&r, &f, 0, ZCRX_REG_NODEV), 0);
	receive_into(&r, at, &f);
	sqe = request(&r, IORING_OP_SEND, from, SENDS);
	sqe->addr = (uintptr_t)out;
	sqe->len = STREAM;
	sqe->msg_flags = MSG_WAITALL;
	expect_equal(ring_enter(&r, 0), 2);
	while (got < STREAM || !sent) {
		cqe = next(&r);
		expect(cqe);
		if (cqe->user_data == SENDS) {
			expect_equal(cqe->res, STREAM);
			sent++;
		} else if (cqe->res == -ENOMEM) {	/* all pages are in use */
			expect(!(cqe->flags & IORING_CQE_F_MORE));
			receive_into(&r, at, &f);
			again++;
		} else {
			struct io_uring_zcrx_cqe *zc = (void *)(cqe + 1);
			unsigned char *bytes = in + (zc->off & ~IORING_ZCRX_AREA_MASK);

			expect(cqe->flags & IORING_CQE_F_MORE);
			expect(cqe->res > 0 && bytes + cqe->res <= in + f.area.len);
			expect(!memcmp(bytes, out + got, cqe->res));
			got += cqe->res;
			pages++;
			expect(give_back(&r, &f, zc, cqe->res));
		}
		ring_seen(&r);
	}
	expect_equal(got, STREAM);
	expect(pages > 16);
	printf("# %d pages, begun anew %d times\n", pages, again);
	ring_close(&r);
	free(f.ring);
	close(from);
	close(at);
	return true;
}

static const struct test list[] = {
	{ "a stream of bundles, at the rate of the policy", bundles },
	{ "one receive for many datagrams loses none when it has no buffer", many_receives },
	{ "a request polls first if it is told to", poll_first },
	{ "requests wait while the packets in the qdisc fill the socket", full_socket },
	{ "a request waits for all if it is told to", wait_all },
	{ "fixed files, one accept for many connections, cancellation", fixed_files },
	{ "what arrives is put into an area", into_an_area },
};

int main(int argc, char **argv)
{
	(void)argc;
	return !streams() || run_tests(list, sizeof(list) / sizeof(*list), argv);
}
