// SPDX-License-Identifier: GPL-2.0
/*
 * loop_life: rings that take no loop program, programs that do wrong, and what becomes of both
 * when one goes away: detached while it waits, ended by a signal, closed, forked, executed.
 */
#define _GNU_SOURCE
#include "loops.h"
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/time.h>
#include <sys/wait.h>

#define NOBODY	65534
#define MS	1000000ULL

static int quiet(enum libbpf_print_level level, const char *format, va_list args)
{
	(void)level, (void)format, (void)args;
	return 0;
}

static bool gone(const char *name)
{
	uint64_t end = now_ns() + 20000 * MS;

	while (maps_named(name, NULL))
		if (now_ns() > end || sched_yield())
			return false;
	return true;
}

/* ---- who takes a program ---- */

/* The errno with which a program is not attached to a descriptor; 0 if it is */
static int attach_error(int fd)
{
	struct loop *loop = loop_load("odd_ops", fd);
	struct bpf_link *link = loop_attach(loop, "odd_ops");
	int error = link ? 0 : errno;

	bpf_link__destroy(link);
	loop__destroy(loop);
	return error;
}

static int attach_error_of(unsigned int flags)
{
	struct ring ring;
	int error = ring_setup(&ring, SQ, CQ, flags);

	if (error)
		errx(1, "flags %#x: %s", flags, strerror(-error));
	error = attach_error(ring.fd);
	ring_close(&ring);
	return error;
}

static bool rings(void)
{
	expect_equal(attach_error_of(RING_LOOP), 0);
	expect_equal(attach_error_of(RING_PLAIN), EOPNOTSUPP);
	expect_equal(attach_error_of(RING_PLAIN | IORING_SETUP_SINGLE_ISSUER), EOPNOTSUPP);
	expect_equal(attach_error_of(IORING_SETUP_NO_SQARRAY | IORING_SETUP_SQPOLL), EOPNOTSUPP);
	expect_equal(attach_error_of(RING_LOOP | IORING_SETUP_IOPOLL), EOPNOTSUPP);
	expect_equal(attach_error(0), EOPNOTSUPP);
	expect_equal(attach_error(-1), EBADF);
	return true;
}

/* A NOP by user space: the ring is as any other. */
static bool plain(struct ring *ring)
{
	ring_sqe(ring);
	expect_equal(ring_enter(ring, 1), 1);
	expect(ring_peek(ring) && !ring_peek(ring)->res);
	ring_seen(ring);
	expect(!ring_peek(ring));
	return true;
}

static bool one_program(void)
{
	struct driven d;

	drive(&d, "odd_ops");
	expect_equal(attach_error(d.ring.fd), EBUSY);
	/* nor the same once more */
	expect(!loop_attach(d.loop, "odd_ops"));
	expect_equal(ring_enter(&d.ring, 0), -EINVAL);
	bpf_link__destroy(d.link);
	d.link = NULL;
	expect(plain(&d.ring));
	expect_equal(attach_error(d.ring.fd), 0);
	expect(plain(&d.ring));
	undrive(&d);
	return true;
}

static bool regions(void)
{
	struct driven d;

	drive(&d, "beyond_ops");
	expect_equal(ring_enter(&d.ring, 0), 0);
	expect_equal(d.loop->bss->steps, 1);
	expect_equal(d.loop->bss->left, 0);
	undrive(&d);
	return true;
}

/* The memory that user space has registered is there for both, and is no larger than it is. */
static bool memory(void)
{
	static __u64 numbers[4096 / sizeof(__u64)] __attribute__((aligned(4096)));
	struct io_uring_region_desc region = {
		.user_addr = (uintptr_t)numbers,
		.size = sizeof(numbers),
		.flags = IORING_MEM_REGION_TYPE_USER,
	};
	struct io_uring_mem_region_reg reg = { .region_uptr = (uintptr_t)&region };
	struct driven d;

	numbers[1] = 40;
	numbers[sizeof(numbers) / sizeof(*numbers) - 1] = 2;
	drive(&d, "memory_ops");
	expect_equal(ring_register(&d.ring, IORING_REGISTER_MEM_REGION, &reg, 1), 0);
	expect_equal(ring_enter(&d.ring, 0), 0);
	expect_equal(d.loop->bss->steps, 1);
	expect_equal(d.loop->bss->left, 0);
	expect_equal(numbers[0], 42);
	undrive(&d);
	return true;
}

/* A ring of fewer SQEs than the program was made for, and of more CQEs */
static bool other_sizes(void)
{
	static const unsigned int sizes[][2] = { { SQ / 2, CQ }, { SQ, 2 * CQ }, { SQ / 2, CQ / 2 } };

	for (unsigned int i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
		struct driven d;

		expect_equal(ring_setup(&d.ring, sizes[i][0], sizes[i][1], RING_LOOP), 0);
		d.loop = loop_load("graph_ops", d.ring.fd);
		d.link = loop_attach(d.loop, "graph_ops");
		expect(d.link);
		expect_equal(ring_enter(&d.ring, 0), 0);
		expect_equal(d.loop->bss->error, -EINVAL);
		undrive(&d);
	}
	return true;
}

/* ---- signals ---- */

static void alarmed(int number)
{
	(void)number;
}

static bool ends_by_a_signal(const char *ops)
{
	struct sigaction action = { .sa_handler = alarmed };
	/* Again and again: the first may come before the program runs. */
	struct itimerval soon = { { .tv_usec = 20000 }, { .tv_usec = 20000 } }, none = {};
	struct driven d;

	drive(&d, ops);
	expect(!sigaction(SIGALRM, &action, NULL) && !setitimer(ITIMER_REAL, &soon, NULL));
	expect_equal(ring_enter(&d.ring, 0), -EINTR);
	expect(d.loop->bss->steps > 0);
	/* And again: it had not ended. */
	expect_equal(ring_enter(&d.ring, 0), -EINTR);
	expect(!setitimer(ITIMER_REAL, &none, NULL));
	undrive(&d);
	return true;
}

struct told {
	const struct loop *loop;
	int fd;
};

/* The program has run. */
static void *tell(void *argument)
{
	const struct told *told = argument;

	while (!*(volatile __u64 *)&told->loop->bss->steps)
		sched_yield();
	if (write(told->fd, "", 1) != 1)
		_exit(1);
	return NULL;
}

static bool is_killed(const char *ops)
{
	struct driven d;
	int status, fds[2];
	struct told told;
	pthread_t thread;
	char byte;
	pid_t pid;

	expect(!pipe(fds));
	pid = fork();
	if (!pid) {
		drive(&d, ops);
		told = (struct told){ d.loop, fds[1] };
		if (pthread_create(&thread, NULL, tell, &told))
			_exit(1);
		ring_enter(&d.ring, 0);
		_exit(2);
	}
	expect_equal(read(fds[0], &byte, 1), 1);
	close(fds[0]);
	close(fds[1]);
	expect(!kill(pid, SIGKILL));
	expect_equal(waitpid(pid, &status, 0), pid);
	expect(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	expect(gone(ops));
	return true;
}

static bool signals(void)
{
	return ends_by_a_signal("runaway_ops") && ends_by_a_signal("idle_ops") &&
	       is_killed("runaway_ops") && is_killed("idle_ops");
}

/* ---- detached while it waits ---- */

struct waiter {
	struct driven d;
	pthread_t thread;
	pthread_barrier_t begun;
	volatile pid_t tid;
	int ret;
	bool is_plain;
};

static void *wait_in_loop(void *argument)
{
	struct waiter *w = argument;

	drive(&w->d, "idle_ops");
	w->tid = gettid();
	pthread_barrier_wait(&w->begun);
	w->ret = ring_enter(&w->d.ring, 0);
	/* The message that ended it */
	if (ring_peek(&w->d.ring))
		ring_seen(&w->d.ring);
	if (w->ret == -EFAULT)
		w->is_plain = plain(&w->d.ring);
	return NULL;
}

/* Its program has run so often, and it sleeps. */
static bool sleeps(struct waiter *w, unsigned int steps)
{
	uint64_t end = now_ns() + 20000 * MS;
	char path[64], state = '?';
	FILE *file;

	snprintf(path, sizeof(path), "/proc/self/task/%d/stat", w->tid);
	while (now_ns() < end) {
		file = fopen(path, "r");
		if (!file || fscanf(file, "%*d (%*[^)]) %c", &state) != 1)
			return false;
		fclose(file);
		if (state == 'S' && w->d.loop->bss->steps >= steps)
			return true;
		sched_yield();
	}
	return false;
}

static bool begin_to_wait(struct waiter *w)
{
	pthread_barrier_init(&w->begun, NULL, 2);
	expect(!pthread_create(&w->thread, NULL, wait_in_loop, w));
	pthread_barrier_wait(&w->begun);
	expect(sleeps(w, 1));
	return true;
}

/* A completion on its ring, by a message from another one */
static bool wake(struct waiter *w)
{
	struct io_uring_sqe *sqe;
	struct ring ring;

	expect_equal(ring_setup(&ring, 8, 16, RING_PLAIN), 0);
	sqe = ring_sqe(&ring);
	sqe->opcode = IORING_OP_MSG_RING;
	sqe->fd = w->d.ring.fd;
	expect_equal(ring_enter(&ring, 1), 1);
	expect(ring_peek(&ring) && !ring_peek(&ring)->res);
	ring_close(&ring);
	return true;
}

static bool detached_while_it_waits(void)
{
	struct waiter w = {};

	expect(begin_to_wait(&w));
	bpf_link__destroy(w.d.link);
	w.d.link = NULL;
	/* Its next completion ends it. */
	expect(wake(&w));
	expect(!pthread_join(w.thread, NULL));
	expect_equal(w.ret, -EFAULT);
	expect(w.is_plain);
	undrive(&w.d);
	return true;
}

/* The next one goes on where the other waits. */
static bool replaced_while_it_waits(void)
{
	struct waiter w = {};
	struct bpf_link *link;
	struct loop *next;

	expect(begin_to_wait(&w));
	bpf_link__destroy(w.d.link);
	w.d.link = NULL;
	next = loop_load("beyond_ops", w.d.ring.fd);
	link = loop_attach(next, "beyond_ops");
	expect(link);
	expect(wake(&w));
	expect(!pthread_join(w.thread, NULL));
	expect_equal(w.ret, 0);
	expect_equal(next->bss->steps, 1);
	bpf_link__destroy(link);
	loop__destroy(next);
	undrive(&w.d);
	return true;
}

/* The ring first, then the program */
static bool closed_before_it_is_detached(void)
{
	struct driven d;
	int other;

	drive(&d, "odd_ops");
	other = dup(d.ring.fd);
	ring_close(&d.ring);
	/* somebody else has it */
	d.ring.fd = other;
	expect_equal(ring_enter(&d.ring, 0), -EINVAL);
	close(other);
	bpf_link__destroy(d.link);
	loop__destroy(d.loop);
	expect(gone("odd_ops"));
	return true;
}

/* ---- other processes, other users ---- */

static int status_of(pid_t pid)
{
	int status;

	return waitpid(pid, &status, 0) == pid && WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static bool forked(void)
{
	struct driven d;
	pid_t pid;

	drive(&d, "beyond_ops");
	pid = fork();
	if (!pid)
		_exit(ring_enter(&d.ring, 0) == -EEXIST ? 0 : 1);
	expect_equal(status_of(pid), 0);
	expect_equal(d.loop->bss->steps, 0);
	expect_equal(ring_enter(&d.ring, 0), 0);
	expect_equal(d.loop->bss->steps, 1);
	undrive(&d);
	return true;
}

/* With a request that nobody will end */
static bool executed(void)
{
	struct driven d;
	int fds[2];
	pid_t pid;

	expect(!pipe(fds));
	pid = fork();
	if (!pid) {
		struct io_uring_sqe *sqe;

		drive(&d, "idle_ops");
		bpf_link__destroy(d.link);
		sqe = ring_sqe(&d.ring);
		sqe->opcode = IORING_OP_POLL_ADD;
		sqe->fd = fds[0];
		sqe->poll32_events = POLLIN;
		if (ring_enter(&d.ring, 0) != 1)
			_exit(3);
		d.link = loop_attach(d.loop, "idle_ops");
		if (!d.link)
			_exit(4);
		execl("/bin/true", "true", NULL);
		_exit(5);
	}
	expect_equal(status_of(pid), 0);
	expect(gone("idle_ops"));
	close(fds[0]);
	close(fds[1]);
	return true;
}

/* What loop__load() gives to a user; as root of a user namespace of his own, too */
static int load_error_of(uid_t uid, bool own_namespace)
{
	struct ring ring;
	struct loop *loop;
	pid_t pid = fork();

	if (pid)
		return status_of(pid);
	libbpf_set_print(quiet);
	if (setgroups(0, NULL) || setresuid(uid, uid, uid) || (own_namespace && unshare(CLONE_NEWUSER)))
		_exit(255);
	/* The ring he may have. */
	if (ring_setup(&ring, SQ, CQ, RING_LOOP))
		_exit(254);
	loop = loop_open("odd_ops", ring.fd);
	_exit(-loop__load(loop));
}

static bool unprivileged(void)
{
	expect_equal(load_error_of(0, false), 0);
	expect_equal(load_error_of(NOBODY, false), EPERM);
	expect_equal(load_error_of(NOBODY, true), EPERM);
	return true;
}

int main(void)
{
	printf("1..12\n");
	result(rings(), "a ring without DEFER_TASKRUN, one that polls, and what is none, take no program");
	result(one_program(), "a ring has one program; a verdict that makes no sense ends it");
	result(regions(), "no region is larger than it is");
	result(memory(), "memory that is registered is the program's and user space's");
	result(other_sizes(), "a ring of another size is told from the program's");
	result(signals(), "a program that never ends and one that waits end by a signal");
	result(detached_while_it_waits(), "detached while it waits");
	result(replaced_while_it_waits(), "replaced while it waits");
	result(closed_before_it_is_detached(), "the ring is closed before the program is detached");
	result(forked(), "a child does not drive its parent's ring");
	result(executed(), "another program is executed");
	result(unprivileged(), "who has no right to it loads no program");
	return failed ? 1 : 0;
}
