// SPDX-License-Identifier: GPL-2.0
/*
 * flows DEVICE FLOWS RATE SPREAD OFFER WARM SECONDS: so many UDP sockets, each with an
 * SO_MAX_PACING_RATE of its own, send to a device; bench/published counts what that costs.
 * flows DEVICE FLOWS RATE SPREAD: print the rates of the flows, in bytes a second.
 *
 *	RATE	packets a second of all flows
 *	SPREAD	the intervals between packets of a flow lie within this part of their mean
 *	OFFER	times its pacing rate a flow offers
 *	WARM	seconds before it is measured for SECONDS
 *
 * The first two packets of a flow come at once; so with OFFER 1 one of each stands. It wakes up
 * each TICK and sends what is due. Prints numbers of packets, as JSON: refused in all, sent and left
 * in the measured time, whose ns are there, too, and those that stand at its end. It keeps its
 * sockets until its standard input ends.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>

#define PAYLOAD		100
#define FRAME		(14 + 20 + 8 + PAYLOAD)
#define NSEC		1000000000LL
#define TICK		1000000LL
#define PORTS		50000		/* of an address, from FIRST_PORT on */
#define FIRST_PORT	10000
#define SOURCE		0xc6120001	/* 198.18.0.1, and on: bench/published adds them */
#define DESTINATION	"198.18.128.1"
#define DISCARD		9
#define FIRST_CLASS	0x10002		/* a packet's priority */

#define NOPL(mark)	asm volatile(".byte 0x0f, 0x1f, 0x80, 'c', 's', 'b', " #mark)

struct event {
	int64_t when;
	uint32_t flow;
};

static const char *device;

static void die(const char *what)
{
	fprintf(stderr, "flows: %s: %s\n", what, strerror(errno));
	exit(1);
}

static int64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * NSEC + t.tv_nsec;
}

static void sleep_until(int64_t when)
{
	struct timespec t = { when / NSEC, when % NSEC };

	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL))
		;
}

/* Over [0, 1); two factors scatter pairs over the square. */
static double scatter(uint32_t n, uint32_t factor)
{
	return (uint32_t)(n * factor) / 4294967296.0;
}

/* Seconds between packets of a flow */
static double interval_of(uint32_t flow, uint32_t flows, double rate, double spread)
{
	return flows / rate * (1 + spread * (2 * scatter(flow, 0xc13fa9a9) - 1));
}

static uint64_t bytes_a_second(double interval)
{
	return FRAME / interval + 0.5;
}

static int make_socket(uint32_t flow, double interval)
{
	struct sockaddr_in from = {
		.sin_family = AF_INET,
		.sin_addr.s_addr = htonl(SOURCE + flow / PORTS),
		.sin_port = htons(FIRST_PORT + flow % PORTS),
	};
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(DISCARD) };
	uint64_t rate = bytes_a_second(interval);
	int sock = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0), priority = FIRST_CLASS + flow;

	inet_pton(AF_INET, DESTINATION, &to.sin_addr);
	if (sock < 0 || bind(sock, (void *)&from, sizeof(from)) ||
	    setsockopt(sock, SOL_SOCKET, SO_MAX_PACING_RATE, &rate, sizeof(rate)) ||
	    setsockopt(sock, SOL_SOCKET, SO_PRIORITY, &priority, sizeof(priority)) ||
	    connect(sock, (void *)&to, sizeof(to)))
		die("socket");
	return sock;
}

static int by_time(const void *a, const void *b)
{
	const struct event *x = a, *y = b;

	if (x->when != y->when)
		return x->when < y->when ? -1 : 1;
	return x->flow < y->flow ? -1 : x->flow > y->flow;
}

static unsigned long left(void)
{
	unsigned long number;
	char path[128];
	FILE *file;

	snprintf(path, sizeof(path), "/sys/class/net/%s/statistics/tx_packets", device);
	file = fopen(path, "r");
	if (!file || fscanf(file, "%lu", &number) != 1)
		die(path);
	fclose(file);
	return number;
}

int main(int argc, char **argv)
{
	uint32_t message[PAYLOAD / 4] = { 0 }, flows, flow;
	unsigned long all = 0, sent = 0, refused = 0, before = 0, after;
	double rate, spread, offer, warm, seconds;
	size_t events = 0, room, i = 0;
	struct event *event;
	int64_t start, begin, end, since = 0, until;
	bool measured = false;
	int *socks;

	if (argc != 8 && argc != 5)
		return 2;
	device = argv[1];
	flows = atoi(argv[2]);
	rate = atof(argv[3]);
	spread = atof(argv[4]);
	if (argc == 5) {
		for (flow = 0; flow < flows; flow++)
			printf("%lu\n", bytes_a_second(interval_of(flow, flows, rate, spread)));
		return 0;
	}
	offer = atof(argv[5]);
	warm = atof(argv[6]);
	seconds = atof(argv[7]);
	setrlimit(RLIMIT_NOFILE, &(struct rlimit){ flows + 64, flows + 64 });
	room = (warm + seconds) * rate * offer * 2 + 4 * flows;
	event = malloc(room * sizeof(*event));
	socks = malloc(flows * sizeof(*socks));
	if (!event || !socks)
		die("memory");
	for (flow = 0; flow < flows; flow++) {
		double interval = interval_of(flow, flows, rate, spread);
		double when = interval * scatter(flow, 0x91e10da5);

		socks[flow] = make_socket(flow, interval);
		event[events++] = (struct event){ when * NSEC, flow };
		for (; when < warm + seconds && events < room; when += interval / offer)
			event[events++] = (struct event){ when * NSEC, flow };
	}
	qsort(event, events, sizeof(*event), by_time);
	start = now() / TICK * TICK + TICK;
	begin = start + warm * NSEC;
	end = begin + seconds * NSEC;
	while (i < events) {
		sleep_until(start + event[i].when / TICK * TICK + TICK);
		if (!measured && now() >= begin) {
			measured = true;
			message[1] = 1;
			before = left();
			since = now();
			NOPL(1);
		}
		if (now() >= end)
			break;
		for (; i < events && start + event[i].when <= now(); i++) {
			message[0] = event[i].flow;
			if (send(socks[event[i].flow], message, sizeof(message), 0) < 0) {
				refused++;
				continue;
			}
			all++;
			sent += measured;
		}
	}
	sleep_until(end);
	NOPL(2);
	after = left();
	until = now();
	printf("{\"sent\": %lu, \"refused\": %lu, \"left\": %lu, \"ns\": %ld, \"stand\": %lu}\n",
	       sent, refused, after - before, until - since, all - after);
	fflush(stdout);
	getchar();
	return 0;
}
