// SPDX-License-Identifier: GPL-2.0
/*
 * soak_traffic FROM TO: for soak.py, packets from four CPUs through a device, and what
 * became of each of them. Commands on standard input:
 *
 *	go	sends, until
 *	stop	and says "stopped"
 *	check	once nothing is queued any more: each packet was received, unchanged, or
 *		dropped by the kernel, once. Says how many, "SENT RECEIVED DROPPED", or
 *		what is wrong.
 */
#define _GNU_SOURCE
#include "../lib/map.h"
#include "soak.skel.h"
#include <arpa/inet.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <pthread.h>
#include <sched.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#define SENDERS		4
#define NUMBERS		(1 << 22)
#define SHARE		(NUMBERS / SENDERS)	/* numbers of a sender, in one go */
#define BURST		16
#define ETHERTYPE	0x88b5

enum { NOT_SENT, TAKEN, REFUSED, NO_DEVICE };

struct frame {
	uint8_t to[6], from[6];
	uint16_t type;
	uint32_t number;
	uint32_t check;
	char rest[1400];
} __attribute__((packed));

static struct soak *skel;
static int from, to;			/* devices */
static uint8_t sent[NUMBERS], received[NUMBERS];
static volatile bool sending, ending;
static volatile uint64_t strange;	/* received, and not as it was sent */

static size_t size_of(uint32_t number)
{
	return 60 + number * 7919 % 1340;
}

static int packet_socket(int device)
{
	struct sockaddr_ll address = { .sll_family = AF_PACKET, .sll_protocol = htons(ETHERTYPE),
				       .sll_ifindex = device };
	int fd = socket(AF_PACKET, SOCK_RAW, 0), size = 1 << 28;
	struct timeval patience = { .tv_usec = 100000 };

	if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) ||
	    setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof(size)) ||
	    setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size)) ||
	    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)))
		err(1, "packet socket");
	return fd;
}

static void pin(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (sched_setaffinity(0, sizeof(set), &set))
		err(1, "CPU %d", cpu);
}

static void send_burst(int fd, uint32_t first)
{
	struct frame frame = { .to = { 2 }, .from = { 2 }, .type = htons(ETHERTYPE) };
	int mark = (int)(first / BURST % 5), priority = (int)(first / BURST % 7);

	setsockopt(fd, SOL_SOCKET, SO_MARK, &mark, sizeof(mark));
	setsockopt(fd, SOL_SOCKET, SO_PRIORITY, &priority, sizeof(priority));
	for (uint32_t number = first; number < first + BURST; number++) {
		frame.number = number;
		frame.check = ~number;
		if (send(fd, &frame, size_of(number), 0) >= 0)
			sent[number] = TAKEN;
		else if (errno == ENOBUFS)
			sent[number] = REFUSED;
		else if (errno == ENETDOWN || errno == ENXIO)
			sent[number] = NO_DEVICE;
		else
			err(1, "send");
	}
}

static void *sender(void *arg)
{
	uint32_t start = (uint32_t)(long)arg * SHARE;
	int fd = packet_socket(from);

	pin((int)(long)arg % (int)sysconf(_SC_NPROCESSORS_ONLN));
	for (uint32_t done = 0; sending && done < SHARE; done += BURST) {
		send_burst(fd, start + done);
		usleep(2000);
	}
	close(fd);
	return NULL;
}

static void *receiver(void *arg)
{
	int fd = *(int *)arg;
	struct frame frame;
	ssize_t size;

	while (!ending) {
		size = recv(fd, &frame, sizeof(frame), 0);
		if (size < 0)
			continue;
		if (size < 60 || frame.number >= NUMBERS || frame.check != ~frame.number ||
		    (size_t)size != size_of(frame.number))
			strange++;
		else
			received[frame.number]++;
	}
	return NULL;
}

struct count {
	uint64_t sent, received, dropped, wrong;
};

static struct count count(bool say)
{
	struct count count = {};

	for (uint32_t i = 0; i < NUMBERS; i++) {
		int here = received[i], gone = ((volatile uint8_t *)skel->bss->dropped)[i];

		if (!sent[i] && !here && !gone)
			continue;
		count.sent += sent[i] != NO_DEVICE;
		count.received += here;
		count.dropped += gone;
		/* Without a device it may not have come so far as to be dropped. */
		if (sent[i] == TAKEN ? here + gone == 1 :
		    sent[i] == REFUSED ? !here && gone == 1 : sent[i] == NO_DEVICE && !here && gone <= 1)
			continue;
		count.wrong++;
		if (say && count.wrong <= 5)
			printf("packet %u: %s, received %d times, dropped %d times; ", i,
			       (const char *[]){ "not sent", "sent", "refused", "no device" }[sent[i]],
			       here, gone);
	}
	return count;
}

static void check(void)
{
	struct count now = count(false), before;

	/* What is on its way: the receiver may be far behind. */
	for (int tries = 0; now.wrong && tries < 200; tries++) {
		usleep(50000);
		before = now;
		now = count(false);
		if (now.received != before.received)
			tries = 0;
	}
	if (now.wrong || strange) {
		count(true);
		printf("%llu packets that are not right, %llu that are strange\n",
		       (unsigned long long)now.wrong, (unsigned long long)strange);
	} else {
		printf("%llu %llu %llu\n", (unsigned long long)now.sent, (unsigned long long)now.received,
		       (unsigned long long)now.dropped);
	}
	memset(sent, 0, sizeof(sent));
	memset(received, 0, sizeof(received));
	memset(skel->bss->dropped, 0, sizeof(skel->bss->dropped));
}

int main(int argc, char **argv)
{
	pthread_t senders[SENDERS], receives;
	char line[100];
	int fd;

	if (argc != 3)
		errx(2, "usage: %s FROM TO", argv[0]);
	from = (int)if_nametoindex(argv[1]);
	to = (int)if_nametoindex(argv[2]);
	skel = soak__open_and_load();
	if (!skel || soak__attach(skel))
		err(1, "programs");
	setvbuf(stdout, NULL, _IOLBF, 0);
	fd = packet_socket(to);
	if (pthread_create(&receives, NULL, receiver, &fd))
		errx(1, "no thread");
	while (fgets(line, sizeof(line), stdin)) {
		if (!strcmp(line, "go\n")) {
			sending = true;
			for (long i = 0; i < SENDERS; i++)
				if (pthread_create(&senders[i], NULL, sender, (void *)i))
					errx(1, "no thread");
		} else if (!strcmp(line, "stop\n")) {
			sending = false;
			for (int i = 0; i < SENDERS; i++)
				pthread_join(senders[i], NULL);
			puts("stopped");
		} else {
			check();
		}
	}
	ending = true;
	pthread_join(receives, NULL);
	return 0;
}
