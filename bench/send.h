/* SPDX-License-Identifier: GPL-2.0 */
/* What bench/send.c tells the program of bench/send.bpf.c, and is told */
#ifndef BENCH_SEND_H
#define BENCH_SEND_H

struct source {
	unsigned long long left;	/* datagrams that are to be sent */
	unsigned long long address;	/* of their bytes */
	unsigned int length;
	unsigned int batch;		/* so many at a time */
	unsigned int op, flags;		/* of the requests */
	unsigned int waiting;		/* completions that have not come */
	int error;
};

#endif /* BENCH_SEND_H */
