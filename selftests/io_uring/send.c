// SPDX-License-Identifier: GPL-2.0
/*
 * send: datagrams that io_uring sends through a qdisc bpf; what a completion and a notification
 * mean while the qdisc has the packet.
 */
#define _GNU_SOURCE
#include "send.h"
#include <linux/errqueue.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/net_tstamp.h>
#include <net/if.h>
#include <netinet/udp.h>
#include <sys/wait.h>

#define N		8
#define AT_MOST		(100 * 1000)	/* ns that a buffer is back after its packet left */
#define LATE_BY		(50 * 1000)	/* ns that a packet is late, at most */
#define STAMP_BY	(100 * 1000)	/* ns between a stamp and what it is of */

static const struct form sendmsg_form = { "sendmsg", IORING_OP_SENDMSG, 0 };
static const struct form sendmsg_zc = { "sendmsg zero copy", IORING_OP_SENDMSG_ZC, 0 };
static const struct form sendmsg_zc_fixed = {
	"sendmsg zero copy, registered", IORING_OP_SENDMSG_ZC, IORING_RECVSEND_FIXED_BUF
};

static const struct form *const forms[] = {
	&SEND, &ZC, &ZC_FIXED, &sendmsg_form, &sendmsg_zc, &sendmsg_zc_fixed,
	&(const struct form){ "send, registered", IORING_OP_SEND, IORING_RECVSEND_FIXED_BUF },
	&(const struct form){ "send, vectored", IORING_OP_SEND, IORING_SEND_VECTORIZED },
	&(const struct form){ "zero copy, vectored", IORING_OP_SEND_ZC, IORING_SEND_VECTORIZED },
	&(const struct form){ "zero copy, registered, vectored", IORING_OP_SEND_ZC,
			      IORING_RECVSEND_FIXED_BUF | IORING_SEND_VECTORIZED },
};

/* Submit so many in one call. */
static bool submit(struct ring *r, const struct form *f, int fd, int count, int size)
{
	for (int i = 0; i < count; i++)
		prepare(r, f, fd, i, size);
	expect_equal(ring_enter(r, 0), count);
	return true;
}

/* ---- what a completion means ---- */

/* The request is done as soon as the qdisc has the packet; the buffer is the packet's until that
 * has left: what is written into it meanwhile is what arrives.
 */
static bool held_in_this_form(const struct form *f)
{
	int from = sender(4000, HOLD), at = receiver(4000);
	struct arrival a[N];
	struct done d = {};
	struct ring r;

	fill(N, SIZE);
	expect(send_ring(&r, 4 * MOST, 0));
	expect(submit(&r, f, from, N, SIZE));
	expect(reap_until(&r, &d, N, 0));
	expect(ring_enter(&r, 0) >= 0);
	reap(&r, &d);
	expect_equal(d.back, 0);
	data[1][SIZE - 1]++;
	expect(let_go());
	expect(reap_until(&r, &d, N, is_zc(f) ? N : 0));
	expect(collect(at, a, N));
	for (int i = 0; i < N; i++) {
		expect_equal(a[i].number, i);
		expect_equal(a[i].size, SIZE);
		expect_equal(a[i].same, !(is_zc(f) && i == 1));
	}
	expect(each_once(&r, &d, N, SIZE));
	expect_equal(d.back, is_zc(f) ? N : 0);
	expect_equal(d.copied, 0);
	ring_close(&r);
	close(from);
	close(at);
	return true;
}

static bool held(void)
{
	expect(attach("selftests/io_uring/send.bpf.o", ""));
	for (size_t i = 0; i < sizeof(forms) / sizeof(*forms); i++) {
		if (!held_in_this_form(forms[i])) {
			printf("# %s\n", forms[i]->name);
			return false;
		}
	}
	return true;
}

/* A reader on this machine could keep a buffer, so the kernel copies, and says so. */
static bool copied(void)
{
	struct sockaddr_in to = address(false, 4000);
	int from = bound(false, SOCK_DGRAM, 0), at = bound(false, SOCK_DGRAM, 4000);
	struct arrival a[N];
	struct done d = {};
	struct ring r;

	expect(shell("tc qdisc replace dev lo root bpf obj %s/policies/fifo.bpf.o", top));
	expect(!connect(from, (void *)&to, sizeof(to)));
	fill(N, SIZE);
	expect(send_ring(&r, 4 * MOST, 0));
	expect(submit(&r, &ZC_FIXED, from, N, SIZE));
	expect(reap_until(&r, &d, N, N));
	expect(each_once(&r, &d, N, SIZE));
	expect_equal(d.copied, N);
	expect(collect(at, a, N));
	for (int i = 0; i < N; i++)
		expect(a[i].number == i && a[i].same && a[i].size == SIZE);
	ring_close(&r);
	close(from);
	close(at);
	return shell("tc qdisc del dev lo root");
}

/* A request that is done cannot be cancelled, wherever its packet is. */
static bool cancelled(void)
{
	int from, at;
	struct io_uring_sqe *sqe;
	struct arrival a[N];
	struct done d = {};
	struct ring r;

	expect(attach("selftests/io_uring/send.bpf.o", ""));
	from = sender(4000, HOLD);
	at = receiver(4000);
	fill(N, SIZE);
	expect(send_ring(&r, 4 * MOST, 0));
	expect(submit(&r, &ZC_FIXED, from, N, SIZE));
	expect(reap_until(&r, &d, N, 0));
	sqe = ring_sqe(&r);
	sqe->opcode = IORING_OP_ASYNC_CANCEL;
	sqe->cancel_flags = IORING_ASYNC_CANCEL_ANY | IORING_ASYNC_CANCEL_ALL;
	sqe->user_data = MOST - 1;
	expect(reap_until(&r, &d, N + 1, 0));
	expect_equal(d.result[MOST - 1], 0);	/* so many were found */
	expect_equal(d.back, 0);
	expect(let_go());
	expect(reap_until(&r, &d, N, N));
	expect(collect(at, a, N));
	expect(each_once(&r, &d, N, SIZE));
	ring_close(&r);
	close(from);
	close(at);
	return true;
}

/* ---- times ---- */

static void timed(int fd)
{
	struct sock_txtime t = { .clockid = CLOCK_MONOTONIC };

	if (setsockopt(fd, SOL_SOCKET, SO_TXTIME, &t, sizeof(t)))
		err(1, "SO_TXTIME");
}

/* What a packet needs is there: time flies while the guest reads from the host's disk. */
static bool warm_up(int from, int at)
{
	struct arrival a;

	expect_equal(send(from, data, 4, 0), 4);
	return collect(at, &a, 1);
}

/* Buffer i was to leave then: it is back after that, and soon. */
static bool back_in_time(const struct done *d, int i, uint64_t when)
{
	int64_t after = d->back_at[i] - when;

	if (after < 0 || (icount && after > AT_MOST)) {
		printf("# buffer %d is back %lld ns after its time\n", i, (long long)after);
		return false;
	}
	return true;
}

static bool arrived_in_time(const struct arrival *a, uint64_t when)
{
	int64_t late = a->when - when;

	if (late < 0 || (icount && late > LATE_BY)) {
		printf("# packet %d is %lld ns late\n", a->number, (long long)late);
		return false;
	}
	return true;
}

/* Submitted at once, in another order than that of their times */
static bool leave_in_this_form(const struct form *f)
{
	static const int order[N] = { 5, 2, 7, 0, 3, 6, 1, 4 };
	int from = sender(4000, 0), at = receiver(4000);
	int64_t late, latest = 0, after, last_back = 0;
	uint64_t when[N], start;
	struct arrival a[N];
	struct done d = {};
	struct ring r;

	timed(from);
	fill(N, SIZE);
	expect(send_ring(&r, 4 * MOST, 0));
	expect(warm_up(from, at));
	start = now_ns() + 200 * MS;
	for (int i = 0; i < N; i++) {
		when[i] = start + order[i] * 20 * MS;
		stamp(i, when[i]);
	}
	expect(submit(&r, f, from, N, SIZE));
	expect(reap_until(&r, &d, N, is_zc(f) ? N : 0));
	expect(collect(at, a, N));
	expect(each_once(&r, &d, N, SIZE));
	for (int i = 0; i < N; i++) {
		int number = a[i].number;

		expect(!icount || order[number] == i);
		expect(a[i].same && a[i].size == SIZE);
		expect(arrived_in_time(&a[i], when[number]));
		expect(!icount || d.sent_at[number] < start);
		late = a[i].when - when[number];
		latest = late > latest ? late : latest;
		if (is_zc(f)) {
			expect(back_in_time(&d, number, when[number]));
			after = d.back_at[number] - when[number];
			last_back = after > last_back ? after : last_back;
		}
	}
	expect_equal(d.copied, 0);
	printf("# %s: at most %.1f us late, buffers back at most %.1f us after\n", f->name,
	       latest / 1e3, last_back / 1e3);
	ring_close(&r);
	close(from);
	close(at);
	return true;
}

static bool leave_at_their_times(void)
{
	expect(attach("policies/edt.bpf.o", ""));
	expect(leave_in_this_form(&sendmsg_form));
	expect(leave_in_this_form(&sendmsg_zc));
	expect(leave_in_this_form(&sendmsg_zc_fixed));
	return true;
}

/* When packets entered the qdisc, and when they left, as completions. vmxnet3 makes no stamps. */
static bool stamps(void)
{
	enum { LEFT, CAME, KINDS };		/* SCM_TSTAMP_SND, SCM_TSTAMP_SCHED */
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(4000),
				  .sin_addr.s_addr = inet_addr("10.9.0.2") };
	unsigned int flags = SOF_TIMESTAMPING_TX_SCHED | SOF_TIMESTAMPING_TX_SOFTWARE |
			     SOF_TIMESTAMPING_SOFTWARE | SOF_TIMESTAMPING_OPT_ID |
			     SOF_TIMESTAMPING_OPT_TSONLY;
	int got = 0, count[KINDS][N] = {}, from = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	uint64_t at[KINDS][N] = {}, when[N], before, behind, offset, ns;
	int64_t most = 0, after;
	struct io_uring_sqe *sqe;
	struct io_uring_cqe *cqe;
	struct ring r, stamped;
	struct done d = {};

	expect(shell("ip link add send0 type dummy && ip link set send0 up && "
		     "ip addr add 10.9.0.1/24 dev send0 && "
		     "ip neigh add 10.9.0.2 lladdr 02:00:00:00:00:02 dev send0 && "
		     "tc qdisc add dev send0 root bpf obj %s/policies/edt.bpf.o", top));
	expect(!connect(from, (void *)&to, sizeof(to)));
	timed(from);
	fill(N, SIZE);
	expect_equal(send(from, data, 4, 0), 4);
	set(from, SOL_SOCKET, SO_TIMESTAMPING, flags);
	expect(send_ring(&r, 4 * MOST, 0));
	expect(send_ring(&stamped, 4 * MOST, IORING_SETUP_CQE32));
	sqe = ring_sqe(&stamped);
	sqe->opcode = IORING_OP_URING_CMD;
	sqe->fd = from;
	sqe->cmd_op = SOCKET_URING_OP_TX_TIMESTAMP;
	expect_equal(ring_enter(&stamped, 0), 1);
	for (int i = 0; i < N; i++) {
		when[i] = now_ns() + (100 + (i * 5) % N * 20) * MS;
		stamp(i, when[i]);
	}
	before = now_ns();
	expect(submit(&r, &sendmsg_form, from, N, SIZE));
	behind = now_ns();
	offset = realtime_offset();
	while (got < KINDS * N) {
		while ((cqe = ring_peek(&stamped))) {
			struct io_timespec *ts = (void *)(cqe + 1);
			unsigned int kind = cqe->flags >> IORING_TIMESTAMP_TYPE_SHIFT;

			expect(cqe->flags & IORING_CQE_F_MORE);
			expect(cqe->res >= 0 && cqe->res < N && kind < KINDS);
			ns = ts->tv_sec * 1000000000ull + ts->tv_nsec - offset;
			at[kind][cqe->res] = ns;
			count[kind][cqe->res]++;
			got++;
			ring_seen(&stamped);
		}
		if (got < KINDS * N)
			expect(ring_enter(&stamped, 1) >= 0);
	}
	for (int i = 0; i < N; i++) {
		expect_equal(count[CAME][i], 1);
		expect_equal(count[LEFT][i], 1);
		/* as exact as the offset of the clocks is known */
		expect(at[CAME][i] + STAMP_BY >= before && at[CAME][i] <= behind + STAMP_BY);
		after = at[LEFT][i] - when[i];
		expect(after >= -(int64_t)STAMP_BY);
		expect(!icount || after <= STAMP_BY);
		most = after > most ? after : most;
	}
	printf("# stamps: at most %.1f us after the time\n", most / 1e3);
	expect(reap_until(&r, &d, N, 0));
	ring_close(&r);
	ring_close(&stamped);
	close(from);
	return shell("ip link del send0");
}

/* ---- the example of Documentation/networking/sch_bpf.rst ---- */

/* A request to send a message at that time, ns CLOCK_MONOTONIC, out of its own memory. The socket
 * has SO_TXTIME, the message room for a control message.
 */
static void send_at(struct io_uring_sqe *sqe, int socket, struct msghdr *message, uint64_t when)
{
	struct cmsghdr *control = CMSG_FIRSTHDR(message);

	control->cmsg_level = SOL_SOCKET;
	control->cmsg_type = SCM_TXTIME;
	control->cmsg_len = CMSG_LEN(sizeof(when));
	memcpy(CMSG_DATA(control), &when, sizeof(when));
	sqe->opcode = IORING_OP_SENDMSG_ZC;
	sqe->fd = socket;
	sqe->addr = (uintptr_t)message;
	sqe->len = 1;
	sqe->user_data = (uintptr_t)message;
}

/* The message whose memory may be written again, by this completion; NULL: none */
static struct msghdr *free_again(const struct io_uring_cqe *cqe)
{
	bool later = cqe->flags & IORING_CQE_F_MORE;	/* by a notification */

	return later ? NULL : (struct msghdr *)(uintptr_t)cqe->user_data;
}

/* The second leaves first, and its memory is free first. */
static bool example(void)
{
	int from, at;
	struct io_uring_cqe *cqe;
	struct msghdr *message;
	struct arrival a[2];
	uint64_t start;
	struct ring r;

	expect(attach("policies/edt.bpf.o", ""));
	from = sender(4000, 0);
	at = receiver(4000);
	timed(from);
	fill(2, SIZE);
	expect(send_ring(&r, MOST, 0));
	start = now_ns() + 1000 * MS;
	for (int i = 0; i < 2; i++) {
		headers[i].msg_control = controls[i];
		headers[i].msg_controllen = sizeof(controls[i]);
		send_at(ring_sqe(&r), from, &headers[i], start + (1 - i) * 50 * MS);
	}
	expect_equal(ring_enter(&r, 0), 2);
	for (int i = 1; i >= 0; ring_seen(&r)) {
		while (!(cqe = ring_peek(&r)))
			expect(ring_enter(&r, 1) >= 0);
		message = free_again(cqe);
		if (!message)
			continue;
		expect_equal(message - headers, i);
		expect(now_ns() >= start + (1 - i) * 50 * MS);
		i--;
	}
	expect(collect(at, a, 2));
	expect(a[0].number == 1 && a[1].number == 0 && a[0].same && a[1].same);
	ring_close(&r);
	close(from);
	close(at);
	return true;
}

/* ---- packets that do not leave ---- */

static bool dropped_with(int mark, bool asks, int result)
{
	int from = sender(4000, mark), at = receiver(4000);
	struct done d = {};
	struct ring r;

	set(from, SOL_IP, IP_RECVERR, asks);
	expect(send_ring(&r, 4 * MOST, 0));
	expect(submit(&r, &ZC_FIXED, from, MOST, SIZE));
	expect(reap_until(&r, &d, MOST, MOST));
	expect(each_once(&r, &d, MOST, result));
	expect_equal(d.back, MOST);
	expect(none_arrives(from, at));
	ring_close(&r);
	close(from);
	close(at);
	return true;
}

/* A packet socket is told without asking. */
static bool dropped_of_a_packet_socket(void)
{
	struct sockaddr_ll eth0 = { .sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_IP),
				    .sll_ifindex = if_nametoindex("eth0") };
	int from = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
	struct done d = {};
	struct ring r;

	expect(!bind(from, (void *)&eth0, sizeof(eth0)));
	set(from, SOL_SOCKET, SO_MARK, REFUSE);
	expect(send_ring(&r, 4 * MOST, 0));
	expect(submit(&r, &SEND, from, N, SIZE));
	expect(reap_until(&r, &d, N, 0));
	expect(each_once(&r, &d, N, -ENOBUFS));
	ring_close(&r);
	close(from);
	return true;
}

static bool dropped(void)
{
	expect(attach("selftests/io_uring/send.bpf.o", ""));
	fill(MOST, SIZE);
	expect(dropped_with(REFUSE, false, SIZE));
	expect(dropped_with(REFUSE, true, -ENOBUFS));
	expect(dropped_with(LOSE, true, SIZE));
	expect(dropped_with(LATE, true, SIZE));
	return dropped_of_a_packet_socket();
}

/* The policy cuts packets into four segments and holds the last one of each: with that the buffer is
 * back.
 */
static bool cut(void)
{
	int from, at;
	struct arrival a[3 * N];
	struct done d = {};
	struct ring r;

	expect(attach("selftests/io_uring/send.bpf.o", ""));
	from = sender(4000, CUT);
	at = receiver(4000);
	set(from, SOL_UDP, UDP_SEGMENT, 1000);
	fill(N, 3500);
	expect(send_ring(&r, 4 * MOST, 0));
	expect(submit(&r, &ZC_FIXED, from, N, 3500));
	expect(reap_until(&r, &d, N, 0));
	expect(collect(at, a, 3 * N));
	for (int i = 0; i < 3 * N; i++)
		expect_equal(a[i].size, 1000);
	expect(ring_enter(&r, 0) >= 0);
	reap(&r, &d);
	expect_equal(d.back, 0);
	expect(let_go());
	expect(reap_until(&r, &d, N, N));
	expect(collect(at, a, N));
	for (int i = 0; i < N; i++)
		expect_equal(a[i].size, 500);
	expect(each_once(&r, &d, N, 3500));
	expect_equal(d.back, N);
	ring_close(&r);
	close(from);
	close(at);
	return true;
}

/* ---- the qdisc is changed ---- */

static bool change(void)
{
	return shell("tc qdisc change dev eth0 root bpf obj %s/policies/edt.bpf.o set horizon=9s", top);
}

/* A change in place before they leave: each leaves at its time, and so its buffer is back. */
static bool changed(void)
{
	int from, at;
	struct arrival a[MOST];
	uint64_t start, when[MOST];
	struct done d = {};
	struct ring r;

	expect(attach("policies/edt.bpf.o", "set horizon=9s"));
	from = sender(4000, 0);
	at = receiver(4000);
	timed(from);
	fill(MOST, SIZE);
	expect(send_ring(&r, 4 * MOST, 0));
	expect(warm_up(from, at));
	/* tc may have to wait for the host's disk */
	start = now_ns() + 8000 * MS;
	for (int i = 0; i < MOST; i++) {
		when[i] = start + (i * 5) % MOST * 2 * MS;
		stamp(i, when[i]);
	}
	expect(submit(&r, &sendmsg_zc_fixed, from, MOST, SIZE));
	expect(change());
	expect(now_ns() < start);
	expect(reap_until(&r, &d, MOST, MOST));
	expect(collect(at, a, MOST));
	for (int i = 0; i < MOST; i++) {
		expect(!icount || a[i].number * 5 % MOST == i);
		expect(arrived_in_time(&a[i], when[a[i].number]));
		expect(back_in_time(&d, i, when[i]));
	}
	expect(each_once(&r, &d, MOST, SIZE));
	expect_equal(d.back, MOST);
	ring_close(&r);
	close(from);
	close(at);
	return true;
}

/* Changes in place while they leave */
static bool changed_meanwhile(void)
{
	int from, at, changes = 0, status;
	struct arrival a[MOST];
	uint64_t when[MOST];
	struct done d = {};
	struct ring r;
	pid_t child;

	expect(attach("policies/edt.bpf.o", "set horizon=9s"));
	from = sender(4000, 0);
	at = receiver(4000);
	timed(from);
	fill(MOST, SIZE);
	expect(send_ring(&r, 4 * MOST, 0));
	for (int i = 0; i < MOST; i++) {
		when[i] = now_ns() + (i * 5) % MOST * 10 * MS;
		stamp(i, when[i]);
	}
	expect(submit(&r, &sendmsg_zc_fixed, from, MOST, SIZE));
	child = fork();
	if (!child) {
		do
			changes += change();
		while (now_ns() < when[MOST - 1] && changes < 255);
		_exit(changes);
	}
	expect(reap_until(&r, &d, MOST, MOST));
	expect_equal(waitpid(child, &status, 0), child);
	expect(WIFEXITED(status) && WEXITSTATUS(status) >= 1);
	expect(collect(at, a, MOST));
	for (int i = 0; i < MOST; i++) {
		expect(a[i].when >= when[a[i].number]);
		expect(d.back_at[i] >= when[i]);
	}
	expect(each_once(&r, &d, MOST, SIZE));
	expect_equal(d.back, MOST);
	ring_close(&r);
	close(from);
	close(at);
	return true;
}

/* It is deleted, or replaced: no packet leaves, and all buffers are back. */
static bool ended_by(const char *command)
{
	int from, at;
	struct done d = {};
	struct ring r;

	expect(attach("selftests/io_uring/send.bpf.o", ""));
	from = sender(4000, HOLD);
	at = receiver(4000);
	fill(MOST, SIZE);
	expect(send_ring(&r, 4 * MOST, 0));
	expect(submit(&r, &ZC_FIXED, from, MOST, SIZE));
	expect(reap_until(&r, &d, MOST, 0));
	expect_equal(d.back, 0);
	expect(shell("%s", command));
	expect(reap_until(&r, &d, MOST, MOST));
	expect(each_once(&r, &d, MOST, SIZE));
	expect_equal(d.back, MOST);
	expect(none_arrives(from, at));
	ring_close(&r);
	close(from);
	close(at);
	return true;
}

static bool deleted(void)
{
	expect(ended_by("tc qdisc del dev eth0 root"));
	expect(ended_by("tc qdisc replace dev eth0 root pfifo"));
	return true;
}

/* ---- the sender ends ---- */

/* A ring that is closed, and a process that is gone, with packets in the qdisc: these leave, and
 * nothing has been written over what they carry.
 */
static bool gone(void)
{
	int from, at, status;
	struct arrival a[2 * N];
	struct done d = {};
	struct ring r;
	pid_t child;

	expect(attach("selftests/io_uring/send.bpf.o", ""));
	from = sender(4000, HOLD);
	at = receiver(4000);
	fill(N, SIZE);
	expect(send_ring(&r, 4 * MOST, 0));
	expect(submit(&r, &ZC_FIXED, from, N, SIZE));
	expect(reap_until(&r, &d, N, 0));
	ring_close(&r);
	child = fork();
	if (!child) {
		memset(&d, 0, sizeof(d));
		_exit(!(send_ring(&r, 4 * MOST, 0) && submit(&r, &ZC, from, N, SIZE) &&
			reap_until(&r, &d, N, 0)));
	}
	expect_equal(waitpid(child, &status, 0), child);
	expect_equal(status, 0);
	close(from);
	expect(let_go());
	expect(collect(at, a, 2 * N));
	for (int i = 0; i < 2 * N; i++) {
		expect_equal(a[i].number, i % N);
		expect(a[i].same && a[i].size == SIZE);
	}
	close(at);
	return true;
}

/* Where a process sleeps */
static bool sleeps_in(pid_t pid, const char *function)
{
	char path[64], name[64] = "";
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/wchan", pid);
	f = fopen(path, "r");
	if (!f)
		return false;
	if (!fgets(name, sizeof(name), f))
		name[0] = 0;
	fclose(f);
	return !strcmp(name, function);
}

/* One that calls execve() waits until the qdisc has none of its buffers. */
static bool executes(void)
{
	int from, status;
	struct done d = {};
	struct ring r;
	pid_t child;

	expect(attach("selftests/io_uring/send.bpf.o", ""));
	from = sender(4000, HOLD);
	fill(N, SIZE);
	child = fork();
	if (!child) {
		if (send_ring(&r, 4 * MOST, 0) && submit(&r, &ZC_FIXED, from, N, SIZE) &&
		    reap_until(&r, &d, N, 0))
			execl("/bin/true", "true", NULL);
		_exit(1);
	}
	while (!sleeps_in(child, "io_uring_cancel_generic"))
		expect_equal(waitpid(child, &status, WNOHANG), 0);
	expect(let_go());
	expect_equal(waitpid(child, &status, 0), child);
	expect_equal(status, 0);
	close(from);
	return true;
}

/* ---- more completions than there is room for ---- */

/* They are kept, and come when there is. */
static bool overflow(void)
{
	int from, at;
	struct arrival a[MOST];
	struct done d = {};
	struct ring r;

	expect(attach("selftests/io_uring/send.bpf.o", ""));
	from = sender(4000, HOLD);
	at = receiver(4000);
	fill(MOST, SIZE);
	expect(send_ring(&r, MOST, 0));
	expect(submit(&r, &ZC_FIXED, from, MOST, SIZE));
	/* All MOST are done, and the ring is full. */
	expect(let_go());
	expect(collect(at, a, MOST));
	while (!(*(volatile unsigned int *)(r.mem + r.p.sq_off.flags) & IORING_SQ_CQ_OVERFLOW))
		ring_enter(&r, 0);
	expect_equal(*r.tail - *r.head, MOST);
	expect(reap_until(&r, &d, MOST, MOST));
	expect(each_once(&r, &d, MOST, SIZE));
	expect_equal(d.back, MOST);
	ring_close(&r);
	close(from);
	close(at);
	return true;
}

static const struct test list[] = {
	{ "a request is done when the qdisc has the packet, its buffer back when that is gone", held },
	{ "a reader on this machine gets a copy, and the notification says so", copied },
	{ "a packet in the qdisc is not cancelled", cancelled },
	{ "datagrams leave at their times, in whatever order submitted", leave_at_their_times },
	{ "the example of the document", example },
	{ "time stamps are completions", stamps },
	{ "a packet that is dropped gives its buffer back once", dropped },
	{ "the buffer of a packet that is cut is back behind the last segment", cut },
	{ "a change of the qdisc gives no buffer back", changed },
	{ "changes while packets leave lose no buffer", changed_meanwhile },
	{ "a qdisc that is deleted gives all buffers back", deleted },
	{ "packets leave whose ring is closed or whose process is gone", gone },
	{ "a process that executes another waits for its buffers", executes },
	{ "notifications without room are kept", overflow },
};

int main(int argc, char **argv)
{
	(void)argc;
	return run_tests(list, sizeof(list) / sizeof(*list), argv);
}
