// SPDX-License-Identifier: GPL-2.0
/*
 * capture in|out IFACE FILE: note every IPv4 frame that IFACE receives, or sends.
 *
 * Runs until SIGTERM. FILE is made when frames are being taken, and holds a
 * struct frame for each, in native byte order. Frames go through a ring that
 * is shared with the kernel, because a VM without hardware support has no time
 * for a system call a frame; the kernel stamps the time before any queue of its
 * own. Fails if a frame was lost.
 */
#include <arpa/inet.h>
#include <err.h>
#include <linux/filter.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <netinet/ip.h>
#include <netinet/tcp.h>
#include <netinet/udp.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>

#define BLOCK_SIZE	(1 << 20)
#define BLOCKS		32
#define HEADERS		128	/* bytes of a frame that go into the ring */

struct frame {
	uint64_t ns;		/* CLOCK_REALTIME */
	uint32_t len;		/* of the frame, without FCS */
	uint32_t payload;	/* of its TCP segment or UDP datagram */
	uint32_t port;		/* it comes from */
	uint32_t protocol;	/* IPPROTO_ */
};

static volatile sig_atomic_t stop;

static void on_term(int sig)
{
	(void)sig;
	stop = 1;
}

static int open_ring(const char *ifname, int received, uint8_t **ring)
{
	struct tpacket_req3 req = {
		.tp_block_size = BLOCK_SIZE, .tp_block_nr = BLOCKS,
		.tp_frame_size = 2048, .tp_frame_nr = BLOCKS * (BLOCK_SIZE / 2048),
		.tp_retire_blk_tov = 20,
	};
	struct sockaddr_ll addr = {
		.sll_family = AF_PACKET,
		.sll_protocol = htons(ETH_P_ALL),	/* else none that is sent */
		.sll_ifindex = (int)if_nametoindex(ifname),
	};
	struct sock_filter ipv4[] = {
		BPF_STMT(BPF_LD | BPF_H | BPF_ABS, SKF_AD_OFF + SKF_AD_PROTOCOL),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ETH_P_IP, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, HEADERS),
		BPF_STMT(BPF_RET | BPF_K, 0),
	};
	struct sock_fprog filter = { .len = 4, .filter = ipv4 };
	int version = TPACKET_V3;
	int fd = socket(AF_PACKET, SOCK_RAW, 0);

	if (fd < 0 || !addr.sll_ifindex)
		err(1, "%s", ifname);
	if (setsockopt(fd, SOL_PACKET, PACKET_VERSION, &version, sizeof(version)) ||
	    setsockopt(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &received, sizeof(received)) ||
	    setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &filter, sizeof(filter)) ||
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
	const void *transport = (const uint8_t *)ip + ip->ihl * 4;
	const struct tcphdr *tcp = transport;
	const struct udphdr *udp = transport;
	struct frame f = {
		.ns = frame->tp_sec * 1000000000ULL + frame->tp_nsec,
		.len = frame->tp_len,
		.payload = ntohs(ip->tot_len) - ip->ihl * 4U,
		.protocol = ip->protocol,
	};

	if (ip->protocol == IPPROTO_TCP) {
		f.payload -= tcp->doff * 4U;
		f.port = ntohs(tcp->source);
	} else if (ip->protocol == IPPROTO_UDP) {
		f.payload -= sizeof(*udp);
		f.port = ntohs(udp->source);
	} else {
		return;
	}
	fwrite(&f, sizeof(f), 1, out);
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

	if (argc != 4 || (strcmp(argv[1], "in") && strcmp(argv[1], "out")))
		errx(2, "usage: capture in|out IFACE FILE");
	sigaction(SIGTERM, &term, NULL);
	fd = open_ring(argv[2], !strcmp(argv[1], "in"), &ring);
	out = fopen(argv[3], "w");
	if (!out)
		err(1, "%s", argv[3]);
	capture(fd, ring, out);
	if (fclose(out))
		err(1, "%s", argv[3]);
	if (getsockopt(fd, SOL_PACKET, PACKET_STATISTICS, &stats, &len))
		err(1, "statistics");
	if (stats.tp_drops)
		errx(1, "%u of %u frames were lost", stats.tp_drops, stats.tp_packets);
	return 0;
}
