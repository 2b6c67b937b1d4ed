// SPDX-License-Identifier: GPL-2.0
/*
 * loop_beside: a program that drives a ring looks at a live qdisc's packets, and sends when there
 * is room for more. The qdisc drops none, though many more are sent than it holds.
 */
#define _GNU_SOURCE
#include "loops.h"
#include <arpa/inet.h>
#include <libgen.h>
#include <net/if.h>
#include <sys/socket.h>

#define ROOM		4
#define DATAGRAMS	100
#define MS		1000000ULL

static char *top;		/* of the repository */

static int shell(const char *format, ...)
{
	char command[4096];
	va_list args;

	va_start(args, format);
	vsnprintf(command, sizeof(command), format, args);
	va_end(args);
	return system(command);
}

static int udp(void)
{
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(9) };
	int fd = socket(AF_INET, SOCK_DGRAM, 0), on = 1;

	/* What the qdisc drops is an error. */
	if (!inet_pton(AF_INET, "10.77.0.2", &to.sin_addr) || connect(fd, (void *)&to, sizeof(to)) ||
	    setsockopt(fd, IPPROTO_IP, IP_RECVERR, &on, sizeof(on)))
		err(1, "a socket");
	return fd;
}

/* 1000 bytes and headers at 8 Mbit/s: about 1 ms each. Nobody else sends. */
static bool add_qdisc(void)
{
	expect(!shell("ip link add beside0 type dummy && "
		      "sysctl -qw net.ipv6.conf.beside0.disable_ipv6=1 && ip link set beside0 up && "
		      "ip addr add 10.77.0.1/24 dev beside0 && "
		      "ip neigh add 10.77.0.2 lladdr 02:00:00:00:00:02 dev beside0 nud permanent && "
		      "tc qdisc add dev beside0 root bpf obj %s/policies/edt.bpf.o limit %d set edt_rate[beside0]=8mbit && "
		      "tc qdisc add dev beside0 clsact && "
		      "tc filter add dev beside0 egress bpf da obj %s/policies/edt.bpf.o sec tc", top, ROOM, top));
	return true;
}

static bool sends_when_there_is_room(void)
{
	LIBBPF_OPTS(bpf_qdisc_info, info);
	char data[1000] = "";
	struct driven d;
	uint64_t start;
	int map;

	expect(!ring_setup(&d.ring, SQ, CQ, RING_LOOP | IORING_SETUP_SUBMIT_ALL));
	d.loop = loop_open("beside_ops", d.ring.fd);
	expect(maps_named("edt_pkts", &map));
	expect(!bpf_map__reuse_fd(d.loop->maps.edt_pkts, map));
	expect(!loop__load(d.loop));
	d.link = loop_attach(d.loop, "beside_ops");
	expect(d.link);
	d.loop->bss->room = ROOM;
	d.loop->bss->left = DATAGRAMS;
	d.loop->bss->sock = udp();
	d.loop->bss->buffer = (uintptr_t)data;
	start = now_ns();
	expect_equal(ring_enter(&d.ring, 0), 0);
	start = now_ns() - start;
	expect(!bpf_qdisc_query(if_nametoindex("beside0"), NULL, &info));
	printf("# %u sent, %u dropped, %u waited at most, %.1f ms, no room %u times, the program ran %u times\n",
	       (unsigned int)d.loop->bss->got, info.drops, d.loop->bss->most, start / 1e6, d.loop->bss->full,
	       (unsigned int)d.loop->bss->wakes);
	expect_equal(d.loop->bss->error, 0);
	expect_equal(d.loop->bss->got, DATAGRAMS);
	expect_equal(d.loop->bss->most, ROOM);
	expect_equal(info.drops, 0);
	expect_equal(info.packets + info.qlen, DATAGRAMS);
	/* It waited for room, and not by asking all the time. */
	expect(start > (DATAGRAMS / 2) * MS);
	expect(d.loop->bss->wakes < 10 * DATAGRAMS || !setting("SELFTESTS_ICOUNT", 0));
	undrive(&d);
	return true;
}

int main(int argc, char **argv)
{
	if (argc != 2)
		errx(2, "usage: loop_beside OBJECT");
	top = dirname(dirname(dirname(argv[1])));
	printf("1..1\n");
	result(add_qdisc() && sends_when_there_is_room(), "it sends when the qdisc has room");
	shell("ip link del beside0");
	return failed ? 1 : 0;
}
