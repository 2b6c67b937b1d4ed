// SPDX-License-Identifier: GPL-2.0
/*
 * capture IFACE FILE: note the arrival of every IPv4 frame.
 *
 * Runs until SIGTERM. FILE is made when frames are being taken, and holds a
 * struct arrival for each, in native byte order. Frames go through a ring that
 * is shared with the kernel, because a VM without hardware support has no time
 * for a system call a frame; the kernel stamps the time before any queue of its
 * own. Fails if a frame was lost.
 */
#include <arpa/inet.h>
#include <err.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <netinet/ip.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>

#define BLOCK_SIZE	(1 << 20)
#define BLOCKS		32

struct arrival {
	uint64_t ns;		/* CLOCK_REALTIME */
	uint32_t len;		/* of the frame, without FCS */
	uint32_t protocol;	/* IPPROTO_ */
};

static volatile sig_atomic_t stop;

static void on_term(int sig)
{
	(void)sig;
	stop = 1;
}

static int open_ring(const char *ifname, uint8_t **ring)
{
	struct tpacket_req3 req = {
		.tp_block_size = BLOCK_SIZE, .tp_block_nr = BLOCKS,
		.tp_frame_size = 2048, .tp_frame_nr = BLOCKS * (BLOCK_SIZE / 2048),
		.tp_retire_blk_tov = 20,
	};
	struct sockaddr_ll addr = {
		.sll_family = AF_PACKET,
		.sll_protocol = htons(ETH_P_IP),
		.sll_ifindex = (int)if_nametoindex(ifname),
	};
	int version = TPACKET_V3, on = 1;
	int fd = socket(AF_PACKET, SOCK_RAW, 0);

	if (fd < 0 || !addr.sll_ifindex)
		err(1, "%s", ifname);
	if (setsockopt(fd, SOL_PACKET, PACKET_VERSION, &version, sizeof(version)) ||
	    setsockopt(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &on, sizeof(on)) ||
	    setsockopt(fd, SOL_PACKET, PACKET_RX_RING, &req, sizeof(req)))
		err(1, "packet ring");
	*ring = mmap(NULL, (size_t)BLOCK_SIZE * BLOCKS, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (*ring == MAP_FAILED || bind(fd, (struct sockaddr *)&addr, sizeof(addr)))
		err(1, "packet ring");
	return fd;
}

static void note(const struct tpacket3_hdr *frame, FILE *out)
{
	const struct iphdr *ip = (const void *)((const uint8_t *)frame + frame->tp_net);
	struct arrival a = {
		.ns = frame->tp_sec * 1000000000ULL + frame->tp_nsec,
		.len = frame->tp_len,
		.protocol = ip->protocol,
	};

	fwrite(&a, sizeof(a), 1, out);
}

static void note_block(struct tpacket_block_desc *block, FILE *out)
{
	uint8_t *at = (uint8_t *)block + block->hdr.bh1.offset_to_first_pkt;

	for (uint32_t i = 0; i < block->hdr.bh1.num_pkts; i++) {
		const struct tpacket3_hdr *frame = (const void *)at;

		note(frame, out);
		at += frame->tp_next_offset;
	}
	__atomic_store_n(&block->hdr.bh1.block_status, TP_STATUS_KERNEL, __ATOMIC_RELEASE);
}

static void capture(int fd, uint8_t *ring, FILE *out)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	unsigned int n = 0;

	for (;;) {
		struct tpacket_block_desc *block = (void *)(ring + (size_t)n * BLOCK_SIZE);

		if (__atomic_load_n(&block->hdr.bh1.block_status, __ATOMIC_ACQUIRE) & TP_STATUS_USER) {
			note_block(block, out);
			n = (n + 1) % BLOCKS;
		} else if (stop > 1) {
			break;
		} else if (poll(&p, 1, 100) == 0 && stop) {
			stop = 2;	/* the kernel has retired the last block by now */
		}
	}
}

int main(int argc, char **argv)
{
	struct sigaction term = { .sa_handler = on_term };
	struct tpacket_stats_v3 stats = { 0 };
	socklen_t len = sizeof(stats);
	uint8_t *ring;
	FILE *out;
	int fd;

	if (argc != 3)
		errx(2, "usage: capture IFACE FILE");
	sigaction(SIGTERM, &term, NULL);
	fd = open_ring(argv[1], &ring);
	out = fopen(argv[2], "w");
	if (!out)
		err(1, "%s", argv[2]);
	capture(fd, ring, out);
	if (fclose(out))
		err(1, "%s", argv[2]);
	if (getsockopt(fd, SOL_PACKET, PACKET_STATISTICS, &stats, &len))
		err(1, "statistics");
	if (stats.tp_drops)
		errx(1, "%u of %u frames were lost", stats.tp_drops, stats.tp_packets);
	return 0;
}
