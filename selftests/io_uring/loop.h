/* SPDX-License-Identifier: GPL-2.0 */
/* A graph of requests: what the program that runs it and its user both see. */
#ifndef SELFTESTS_LOOP_H
#define SELFTESTS_LOOP_H

#define JOBS	65536
#define EDGES		(2 * JOBS)

enum { JOB_WAITS, JOB_READY, JOB_CANCELLED, JOB_RUNS, JOB_OVER };

/* One waits for another: what an edge has beside the number of the one that waits */
enum {
	EDGE_HARD = 1 << 28,	/* an error cancels it */
	EDGE_PASS = 1 << 29,	/* the result is its sqe.len, unless it is an error */
	EDGE_ADD = 1 << 30,	/* ... is added to it */
	EDGE_FD = 1U << 31,	/* ... is its sqe.fd */
	EDGE_JOB = EDGE_HARD - 1,
};

/* Job 0 is no request: it is over at the start, and each that waits for no other waits for it. */
struct job {
	struct io_uring_sqe sqe;	/* as it is submitted, but for user_data */
	__u64 key;			/* above 0: the lowest that is ready comes first */
	__u64 when;			/* not before, ns CLOCK_MONOTONIC; 0: whenever */
	__s32 least;			/* a result below is an error */
	__u32 waits;			/* for so many others */
	__u32 edge;			/* to one that waits for it; 0: to none */
	__u32 first_edge, edges;	/* to the others */
	/* The program writes: */
	__u32 state;
	__s32 result;
	__u32 rank;			/* the how many-th it was to be issued */
	__u64 issued;			/* when, of one that has a `when` */
};

#endif /* SELFTESTS_LOOP_H */
