// SPDX-License-Identifier: GPL-2.0
/*
 * loop: requests whose run queue is an ordered map, driven by a program in io_uring's wait
 * loop: their order and their ends against a reference, their times, messages to a second
 * ring, and what a request costs.
 */
#define _GNU_SOURCE
#include "loops.h"
#include <fcntl.h>
#include <pthread.h>
#include <sys/socket.h>

#define GRAPHS		1000
#define SMALL		128	/* requests of a random graph, at most */
#define US		1000ULL
#define MS		1000000ULL

static struct driven graph;
static struct job *jobs;		/* of the program that is attached to it */
static unsigned int number, edges;

/* ---- make a graph ---- */

/* So many jobs, with job 0 */
static void begin_graph(unsigned int nr, unsigned int depth)
{
	struct loop__bss *bss = graph.loop->bss;

	jobs = bss->jobs;
	memset(jobs, 0, nr * sizeof(*jobs));
	graph.loop->data->depth = depth;
	bss->started = false;
	bss->issued = bss->steps = bss->timers = 0;
	bss->error = 0;
	number = nr;
	edges = 0;
	for (unsigned int i = 0; i < nr; i++) {
		jobs[i].key = 1;
		jobs[i].sqe.opcode = IORING_OP_NOP;
	}
}

/* A NOP that ends with this result */
static void gives(struct job *job, int result)
{
	job->sqe.nop_flags = IORING_NOP_INJECT_RESULT;
	job->sqe.len = result;
}

/* All edges of one job come one after the other, those of job 0 at last. */
static void waits(unsigned int later, unsigned int first, unsigned int kind)
{
	struct job *job = &jobs[first];

	jobs[later].waits++;
	if (!job->edge) {
		job->edge = later | kind;
		return;
	}
	if (!job->edges++)
		job->first_edge = edges;
	graph.loop->bss->edges[edges++] = later | kind;
}

/* Those that wait for no other begin. */
static void begin(void)
{
	for (unsigned int i = 1; i < number; i++)
		if (!jobs[i].waits)
			waits(i, 0, 0);
}

/* Run it until nothing more can be. */
static bool run_graph(void)
{
	struct loop__bss *bss = graph.loop->bss;

	expect_equal(ring_enter(&graph.ring, 0), 0);
	expect_equal(bss->later_len + bss->running, 0);
	expect(!ring_peek(&graph.ring));
	return true;
}

static bool run_whole_graph(void)
{
	begin();
	if (!run_graph())
		return false;
	expect_equal(graph.loop->bss->error, 0);
	for (unsigned int i = 0; i < number; i++)
		expect_equal(jobs[i].state, JOB_OVER);
	return true;
}

/* ---- the reference: who may come next is asked of all requests, each time ---- */

struct node {
	uint64_t key;
	int gives, least;		/* result by itself; a lower one is an error */
	bool wrong;			/* the kernel refuses it with -EINVAL */
	unsigned int nr;		/* of those that it waits for, by their numbers */
	struct {
		unsigned int of, kind;
	} waits[SMALL];
	/* What became of it */
	bool issued, over;
	int result;
	unsigned int rank;
	long ready;			/* when all that it waits for was over; 0: it waits */
	bool cancelled;
};

static struct node nodes[SMALL];
static long clock_of_events;

static bool is_error(const struct node *node)
{
	return node->over && node->result < node->least;
}

/* What has changed since `over` ended: by its place in the list of those that wait. */
static void look_again(unsigned int nr, unsigned int over)
{
	for (unsigned int i = 0; i < nr; i++) {
		struct node *node = &nodes[i];
		unsigned int left = 0;
		bool doomed = false, concerned = false;

		for (unsigned int j = 0; j < node->nr; j++) {
			struct node *first = &nodes[node->waits[j].of];

			concerned |= node->waits[j].of == over;
			left += !first->over;
			doomed |= is_error(first) && node->waits[j].kind & EDGE_HARD;
		}
		if (!concerned || node->ready || node->cancelled)
			continue;
		if (doomed) {
			node->cancelled = true;
			node->ready = ++clock_of_events;
		} else if (!left) {
			node->ready = ++clock_of_events;
		}
	}
}

/* What the kernel gives, with what was passed to it, in the order in which the others ended */
static int result_of(const struct node *node)
{
	int result = node->gives;

	if (node->wrong)
		return -EINVAL;
	for (unsigned int j = 0; j < node->nr; j++) {
		const struct node *first = &nodes[node->waits[j].of];

		if (is_error(first))
			continue;
		if (node->waits[j].kind & EDGE_PASS)
			result = first->result;
		if (node->waits[j].kind & EDGE_ADD)
			result += first->result;
	}
	return result;
}

static struct node *next_of(unsigned int nr)
{
	struct node *best = NULL;

	for (unsigned int i = 0; i < nr; i++) {
		struct node *node = &nodes[i];

		if (!node->ready || node->issued || node->over)
			continue;
		if (!best || node->cancelled > best->cancelled ||
		    (node->cancelled == best->cancelled &&
		     ((!node->cancelled && node->key < best->key) ||
		      ((node->cancelled || node->key == best->key) && node->ready < best->ready))))
			best = node;
	}
	return best;
}

static void reference(unsigned int nr, unsigned int depth)
{
	unsigned int rank = 0, left = nr;

	clock_of_events = 0;
	for (unsigned int i = 0; i < nr; i++)
		if (!nodes[i].nr)
			nodes[i].ready = ++clock_of_events;
	while (left) {
		struct node *running[SQ], *node;
		unsigned int n = 0;

		while (n < depth && (node = next_of(nr))) {
			if (node->cancelled) {
				node->over = true;
				node->result = -ECANCELED;
				left--;
				look_again(nr, node - nodes);
				continue;
			}
			node->issued = true;
			node->rank = rank++;
			running[n++] = node;
		}
		for (unsigned int i = 0; i < n; i++) {
			running[i]->result = result_of(running[i]);
			running[i]->over = true;
			left--;
			look_again(nr, running[i] - nodes);
		}
	}
}

/* ---- random graphs ---- */

static uint64_t seed;

static unsigned int below(unsigned int limit)
{
	seed = seed * 6364136223846793005ULL + 1442695040888963407ULL;
	return (seed >> 33) % limit;
}

/* What one request waits for is added up, or the first of it is passed on alone. */
static void add_edges(unsigned int nr)
{
	for (unsigned int i = 0; i < nr; i++) {
		unsigned int reach = 1 + below(12);

		for (unsigned int later = i + 1; later < nr && later < i + 1 + reach; later++) {
			struct node *node = &nodes[later];
			unsigned int kind = below(2) ? EDGE_HARD : 0;

			if (below(4))
				continue;
			if (!node->nr && !below(3))
				kind |= EDGE_PASS;
			else if (node->nr && !(node->waits[0].kind & EDGE_PASS) && below(2))
				kind |= EDGE_ADD;
			node->waits[node->nr].of = i;
			node->waits[node->nr++].kind = kind;
			waits(1 + later, 1 + i, kind);
		}
	}
}

static void random_node(unsigned int i)
{
	struct node *node = &nodes[i];

	node->key = 1 + below(8);
	node->gives = below(1000);
	if (!below(6))
		node->gives = -1 - (int)below(30);
	if (!below(12))
		node->least = below(1000);
	node->wrong = !below(20);
	jobs[1 + i].key = node->key;
	jobs[1 + i].least = node->least;
	gives(&jobs[1 + i], node->gives);
	if (node->wrong)
		jobs[1 + i].sqe.nop_flags = 1U << 31;
}

/* One graph: in order of issue, too, where that can be told */
static bool as_the_reference(unsigned int *errors, unsigned int *cancelled)
{
	static const unsigned int depths[] = { 1, 1, 2, 8, 64 };
	unsigned int nr = 1 + below(SMALL), depth = depths[below(5)];
	bool tell_order;

	memset(nodes, 0, sizeof(nodes));
	begin_graph(1 + nr, depth);
	for (unsigned int i = 0; i < nr; i++)
		random_node(i);
	add_edges(nr);
	/* Some end later than they are issued: in what order, only depth 1 tells. */
	tell_order = depth == 1 || below(2);
	for (unsigned int i = 0; i < nr; i++)
		if (!nodes[i].wrong && (depth == 1 || !tell_order) && !below(3))
			jobs[1 + i].sqe.nop_flags |= IORING_NOP_TW;
	reference(nr, depth);
	if (!run_whole_graph())
		return false;
	for (unsigned int i = 0; i < nr; i++) {
		struct node *node = &nodes[i];
		struct job *job = &jobs[1 + i];

		expect_equal(job->result, node->result);
		*errors += is_error(node);
		*cancelled += node->cancelled;
		if (tell_order && !node->cancelled)
			expect_equal(job->rank, node->rank);
		for (unsigned int j = 0; !node->cancelled && j < node->nr; j++)
			if (!nodes[node->waits[j].of].cancelled)
				expect(jobs[1 + node->waits[j].of].rank < job->rank);
	}
	return true;
}

static bool random_graphs(void)
{
	unsigned int errors = 0, cancelled = 0;

	seed = getenv("SEED") ? strtoull(getenv("SEED"), NULL, 0) : now_ns();
	for (unsigned int i = 0; i < GRAPHS; i++) {
		uint64_t before = seed;

		if (!as_the_reference(&errors, &cancelled)) {
			printf("# graph %u; SEED=%llu is it alone\n", i, (unsigned long long)before);
			return false;
		}
	}
	printf("# %u graphs, %u errors, %u cancelled\n", GRAPHS, errors, cancelled);
	expect(errors > GRAPHS && cancelled > GRAPHS);
	return true;
}

/* ---- requests of other kinds ---- */

static struct ring second;	/* of user space */

static void fill(struct job *job, int opcode, int fd, void *buffer, unsigned int len)
{
	job->sqe.opcode = opcode;
	job->sqe.fd = fd;
	job->sqe.addr = (uintptr_t)buffer;
	job->sqe.len = len;
}

static void message(struct job *job, uint64_t what)
{
	fill(job, IORING_OP_MSG_RING, second.fd, NULL, 0);
	job->sqe.off = what;
}

/* A request that waits 1 ms is cancelled by another; bytes that were read are written and
 * their number goes to the second ring.
 */
static bool read_write_and_cancel(void)
{
	enum { START, READ, WRITE, TELL, ENDLESS, DEADLINE, CANCEL, SOFT, HARD, NR };
	static const int results[NR] = { 0, 100, 100, 0, -ECANCELED, -ETIME, 0, 0, -ECANCELED };
	char in[4096], out[4096] = "";
	struct io_uring_cqe *cqe;
	int from[2], to[2];

	expect(!pipe(from) && !pipe(to));
	memset(in, 0, sizeof(in));
	memset(out, 'x', 100);
	expect_equal(write(from[1], out, 100), 100);
	begin_graph(NR, 8);
	fill(&jobs[READ], IORING_OP_READ, from[0], in, sizeof(in));
	fill(&jobs[WRITE], IORING_OP_WRITE, to[1], in, sizeof(in));
	message(&jobs[TELL], 77);
	fill(&jobs[ENDLESS], IORING_OP_READ, from[0], out, sizeof(out));
	fill(&jobs[DEADLINE], IORING_OP_TIMEOUT, -1, NULL, 1);
	jobs[DEADLINE].sqe.timeout_flags = IORING_TIMEOUT_IMMEDIATE_ARG;
	jobs[DEADLINE].sqe.addr = MS;
	jobs[DEADLINE].least = -ETIME;
	fill(&jobs[CANCEL], IORING_OP_ASYNC_CANCEL, -1, NULL, 0);
	jobs[CANCEL].sqe.addr = ENDLESS;
	waits(WRITE, READ, EDGE_HARD | EDGE_PASS);
	waits(ENDLESS, READ, EDGE_HARD);
	waits(TELL, WRITE, EDGE_PASS);
	waits(SOFT, ENDLESS, 0);
	waits(HARD, ENDLESS, EDGE_HARD);
	waits(CANCEL, DEADLINE, EDGE_HARD);
	if (!run_whole_graph())
		return false;
	for (int i = 0; i < NR; i++)
		expect_equal(jobs[i].result, results[i]);
	expect_equal(read(to[0], out, sizeof(out)), 100);
	expect(!memcmp(in, out, 100));
	cqe = ring_peek(&second);
	expect(cqe);
	expect_equal(cqe->user_data, 77);
	expect_equal(cqe->res, 100);
	ring_seen(&second);
	expect(!ring_peek(&second));
	for (int i = 0; i < 2; i++)
		expect(!close(from[i]) && !close(to[i]));
	return true;
}

/* What one opens another reads and a third closes; if it is not opened, neither is done. */
static bool open_read_and_close(void)
{
	enum { START, OPEN, READ, CLOSE, NONE, READ_NONE, CLOSE_NONE, NR };
	char bytes[100];

	memset(bytes, 'x', sizeof(bytes));
	begin_graph(NR, 8);
	for (int i = OPEN; i <= NONE; i += NONE - OPEN) {
		fill(&jobs[i], IORING_OP_OPENAT, AT_FDCWD, i == OPEN ? "/dev/zero" : "/dev/none", 0);
		jobs[i].sqe.open_flags = O_RDONLY | O_CLOEXEC;
		fill(&jobs[i + 1], IORING_OP_READ, -1, bytes, sizeof(bytes));
		fill(&jobs[i + 2], IORING_OP_CLOSE, -1, NULL, 0);
		waits(i + 1, i, EDGE_HARD | EDGE_FD);
		waits(i + 2, i, EDGE_HARD | EDGE_FD);
		waits(i + 2, i + 1, 0);
	}
	if (!run_whole_graph())
		return false;
	expect(jobs[OPEN].result > 2);
	expect_equal(jobs[READ].result, sizeof(bytes));
	expect(!bytes[0] && !memcmp(bytes, bytes + 1, sizeof(bytes) - 1));
	expect_equal(jobs[CLOSE].result, 0);
	expect_equal(fcntl(jobs[OPEN].result, F_GETFD), -1);
	expect_equal(jobs[NONE].result, -ENOENT);
	expect_equal(jobs[READ_NONE].result, -ECANCELED);
	expect_equal(jobs[CLOSE_NONE].result, -ECANCELED);
	return true;
}

/* The program links requests that it submits together: to the kernel they are a chain, which an
 * error cuts. Those that are not linked know nothing of each other.
 */
static bool links_of_the_kernel(void)
{
	enum { START, FAILS, CUT, FIRST, SECOND, FAILS_ALONE, ALONE, NR };
	static const int results[NR] = { 0, -EIO, -ECANCELED, 3, 4, -EIO, 6 };

	begin_graph(NR, 8);
	for (int i = FAILS; i < NR; i++) {
		jobs[i].key = i;
		gives(&jobs[i], i == CUT ? 2 : results[i]);
	}
	jobs[FAILS].sqe.flags = jobs[FIRST].sqe.flags = IOSQE_IO_LINK;
	if (!run_whole_graph())
		return false;
	for (int i = 0; i < NR; i++)
		expect_equal(jobs[i].result, results[i]);
	return true;
}

/* Those that wait for each other are never issued; edges that lead nowhere are an error. */
static bool what_cannot_end(void)
{
	begin_graph(4, 8);
	waits(2, 3, 0);
	waits(3, 2, 0);
	begin();
	expect(run_graph());
	expect_equal(graph.loop->bss->error, 0);
	expect_equal(jobs[1].state, JOB_OVER);
	expect(jobs[2].state == JOB_WAITS && jobs[3].state == JOB_WAITS);

	begin_graph(2, 8);
	jobs[1].edge = JOBS;
	begin();
	expect(run_graph());
	expect_equal(graph.loop->bss->error, -EINVAL);
	expect_equal(jobs[1].state, JOB_OVER);

	begin_graph(2, 8);
	jobs[1].first_edge = EDGES - 1;
	jobs[1].edges = 2;
	graph.loop->bss->edges[EDGES - 1] = 0;
	begin();
	expect(run_graph());
	expect_equal(graph.loop->bss->error, -EINVAL);
	return true;
}

/* ---- times ---- */

#define TIMED		200

static bool judged;		/* instructions are counted for time */
static uint64_t arrived[TIMED];

static void *take_bytes(void *fd)
{
	unsigned char index;

	for (int i = 0; i < TIMED; i++) {
		if (read(*(int *)fd, &index, 1) != 1)
			err(1, "read");
		arrived[index] = now_ns();
	}
	return NULL;
}

/* Of four with one time the key tells which comes first. */
static bool nothing_is_early(void)
{
	unsigned char index[TIMED];
	uint64_t start, late = 0;
	pthread_t thread;
	int fds[2];

	expect(!pipe(fds));
	expect(!pthread_create(&thread, NULL, take_bytes, &fds[0]));
	begin_graph(1 + TIMED, 32);
	start = now_ns() + 5 * MS;
	for (unsigned int i = 0; i < TIMED; i++) {
		index[i] = i;
		fill(&jobs[1 + i], IORING_OP_WRITE, fds[1], &index[i], 1);
		jobs[1 + i].when = start + i * 77 % TIMED / 4 * 40 * US;
		jobs[1 + i].key = 1 + i * 77 % TIMED % 4;
	}
	if (!run_whole_graph())
		return false;
	expect(!pthread_join(thread, NULL));
	for (unsigned int i = 0; i < TIMED; i++) {
		struct job *job = &jobs[1 + i];

		expect_equal(job->result, 1);
		expect(job->issued >= job->when && arrived[i] >= job->issued);
		late += job->issued - job->when;
		for (unsigned int j = 1; j <= TIMED; j++)
			if (jobs[j].when == job->when && jobs[j].key < job->key)
				expect(jobs[j].rank < job->rank);
	}
	printf("# issued late by %.1f us in the mean, %llu timers\n", late / 1e3 / TIMED,
	       (unsigned long long)graph.loop->bss->timers);
	expect(graph.loop->bss->timers >= TIMED / 4 || !judged);
	expect(late / TIMED <= 10 * US || !judged);
	expect(!close(fds[0]) && !close(fds[1]));
	return true;
}

/* ---- min-wait ---- */

#define ENOUGH		8

static int datagrams[2];

struct told {
	unsigned int count;
	uint64_t patience;	/* that ended; 0: there were enough */
};

/* Each burst is sent when user space has been told of the one before. */
static const struct told bursts[] = {
	{ ENOUGH, 0 }, { 3, MS }, { 2, 2 * MS }, { 1, 4 * MS }, { 7, 8 * MS }, { 1, 8 * MS },
	{ ENOUGH, 0 }, { 1, MS }, { ENOUGH, 0 }, { 2, MS },
};
#define BURSTS	(sizeof(bursts) / sizeof(*bursts))

static struct told told[2 * BURSTS * ENOUGH];
static unsigned int tells;

static void *send_bursts(void *ready)
{
	struct ring ring;
	unsigned int n;

	if (ring_setup(&ring, 8, 128, RING_PLAIN))
		errx(1, "no second ring");
	second = ring;
	pthread_barrier_wait(ready);
	for (unsigned int i = 0; i < BURSTS; i++) {
		for (unsigned int j = 0; j < bursts[i].count; j++)
			if (send(datagrams[1], "datagram", 8, 0) != 8)
				err(1, "send");
		for (n = 0; n < bursts[i].count;) {
			struct io_uring_cqe *cqe = ring_peek(&ring);

			if (!cqe) {
				ring_enter(&ring, 1);
				continue;
			}
			told[tells++] = (struct told) { cqe->res, cqe->user_data };
			n += cqe->res;
			ring_seen(&ring);
		}
	}
	ring_close(&ring);
	return NULL;
}

static bool min_wait(void)
{
	pthread_barrier_t ready;
	pthread_t thread;
	struct driven d;
	char buffer[8];

	expect(!socketpair(AF_UNIX, SOCK_DGRAM, 0, datagrams));
	pthread_barrier_init(&ready, NULL, 2);
	expect(!pthread_create(&thread, NULL, send_bursts, &ready));
	drive(&d, "min_wait_ops");
	pthread_barrier_wait(&ready);
	for (unsigned int i = 0; i < BURSTS; i++)
		d.loop->bss->expected += bursts[i].count;
	d.loop->bss->sock = datagrams[0];
	d.loop->bss->teller = second.fd;
	d.loop->bss->window = 16;
	d.loop->bss->enough = ENOUGH;
	d.loop->bss->patience = MS;
	d.loop->bss->patience_max = 8 * MS;
	d.loop->bss->buffer = (uintptr_t)buffer;
	expect_equal(ring_enter(&d.ring, 0), 0);
	expect_equal(d.loop->bss->error, 0);
	expect(!pthread_join(thread, NULL));
	printf("# %u datagrams, %u messages, the program ran %u times\n",
	       (unsigned int)d.loop->bss->got, tells, (unsigned int)d.loop->bss->wakes);
	for (unsigned int i = 0; i < tells; i++) {
		uint64_t patience = told[i].patience;

		expect(patience ? patience <= 8 * MS : told[i].count >= ENOUGH);
		if (!judged)
			continue;
		expect_equal(told[i].count, bursts[i].count);
		expect_equal(told[i].patience, bursts[i].patience);
	}
	expect(tells == BURSTS || !judged);
	expect(d.loop->bss->wakes <= 2 * BURSTS || !judged);
	undrive(&d);
	return true;
}

/* ---- what a request costs ---- */

#define NOPS	256000	/* what the kernel does after it has loaded a program is little then */

/* Links of two, a system call for each */
static double user_links(void)
{
	struct ring ring;
	uint64_t start;

	if (ring_setup(&ring, SQ, CQ, RING_LOOP))
		errx(1, "no ring");
	start = now_ns();
	for (unsigned int i = 0; i < NOPS; i += 2) {
		ring_sqe(&ring)->flags = IOSQE_IO_LINK;
		ring_sqe(&ring);
		if (ring_enter(&ring, 2) != 2)
			errx(1, "links");
		while (ring_peek(&ring))
			ring_seen(&ring);
	}
	start = now_ns() - start;
	ring_close(&ring);
	return (double)start / NOPS;
}

static double program(const char *ops, unsigned int batch)
{
	struct driven d;
	uint64_t start;

	drive(&d, ops);
	d.loop->bss->left = NOPS;
	d.loop->data->batch = batch;
	start = now_ns();
	if (ring_enter(&d.ring, 0) || d.loop->bss->left || d.loop->bss->error)
		errx(1, "%s: error %d", ops, d.loop->bss->error);
	start = now_ns() - start;
	undrive(&d);
	return (double)start / NOPS;
}

/* So many chains, of which one request is ready at any time */
static double chains(unsigned int waiting)
{
	uint64_t start;

	begin_graph(JOBS, 1);
	for (unsigned int i = 1; i < JOBS; i++) {
		jobs[i].key = 1 + below(1 << 30);
		if (i + waiting < JOBS)
			waits(i + waiting, i, EDGE_HARD);
	}
	begin();
	start = now_ns();
	if (!run_graph())
		exit(1);
	start = now_ns() - start;
	for (unsigned int i = 1; i < JOBS; i++)
		if (jobs[i].state != JOB_OVER)
			errx(1, "job %u is not over", i);
	return (double)start / (JOBS - 1);
}

/* bench/send makes a table of it. */
static void print_cost(const char *what, double instructions, double entries)
{
	printf("# cost\t%s\t%.0f\t%.6f\n", what, instructions, entries);
}

static bool cost(void)
{
	double links = user_links(), one = program("one_ops", 1), many = program("many_ops", 32),
	       many_links = program("links_ops", 32), few = chains(64), lots = chains(4096);

	print_cost("links of two, a call for each", links, 0.5);
	print_cost("program, one by one", one, 1.0 / NOPS);
	print_cost("program, 32 at a time", many, 1.0 / NOPS);
	print_cost("program, 32 links of two at a time", many_links, 1.0 / NOPS);
	print_cost("graph, one by one, 64 ready", few, 1.0 / (JOBS - 1));
	print_cost("graph, one by one, 4096 ready", lots, 1.0 / (JOBS - 1));
	if (!judged)
		return true;
	expect(one <= 0.92 * links);
	expect(many_links <= 0.50 * links);
	expect(few <= 1000 && lots <= 1000);
	expect(lots <= 1.10 * few);
	return true;
}

int main(void)
{
	judged = setting("SELFTESTS_ICOUNT", 0);
	printf("1..8\n");
	drive(&graph, "graph_ops");
	if (ring_setup(&second, 8, 128, RING_PLAIN))
		errx(1, "no second ring");
	result(random_graphs(), "1000 random graphs, with errors, against a reference");
	result(read_write_and_cancel(), "results are passed on, a request is cancelled, a second ring is told");
	result(open_read_and_close(), "what one opens the next reads, and a third closes");
	result(links_of_the_kernel(), "requests are linked when they are submitted");
	result(what_cannot_end(), "a graph that cannot end, and edges that lead nowhere, are errors");
	result(nothing_is_early(), "nothing is issued before its time");
	ring_close(&second);
	result(min_wait(), "user space is told of many at once, or of few after a time that doubles");
	result(cost(), "what a request costs");
	undrive(&graph);
	return failed ? 1 : 0;
}
