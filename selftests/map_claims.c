// SPDX-License-Identifier: GPL-2.0
/*
 * map_claims OBJECT: a qdisc claims the maps that its packets are in. User space replaces
 * such a map again and again: those that are not in use any more go away.
 */
#include "map.h"
#include <arpa/inet.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <sys/socket.h>
#include <unistd.h>

#define DEV	"claims0"
#define INNER	"claims_inner"
#define ROUNDS	1000

static int ifindex, sender;

static int create_inner(void)
{
	const struct bpf_map *inner = bpf_map__inner_map(bpf_object__find_map_by_name(obj, "queues"));
	LIBBPF_OPTS(bpf_map_create_opts, opts, .btf_fd = bpf_object__btf_fd(obj),
		    .btf_key_type_id = bpf_map__btf_key_type_id(inner),
		    .btf_value_type_id = bpf_map__btf_value_type_id(inner));
	int fd = bpf_map_create(BPF_MAP_TYPE_RBTREE, INNER, 8, 8, 100, &opts);

	if (fd < 0)
		err(1, "cannot create an inner map");
	return fd;
}

/* How many there are that create_inner() made */
static int inner_alive(void)
{
	struct bpf_map_info info;
	uint32_t id = 0, size;
	int fd, n = 0;

	while (!bpf_map_get_next_id(id, &id)) {
		fd = bpf_map_get_fd_by_id(id);
		if (fd < 0)
			continue;
		size = sizeof(info);
		memset(&info, 0, size);
		if (!bpf_map_get_info_by_fd(fd, &info, &size) && !strcmp(info.name, INNER))
			n++;
		close(fd);
	}
	return n;
}

static bool at_most_are_alive(int most)
{
	for (int i = 0; i < 300 && inner_alive() > most; i++)
		usleep(50000);
	printf("# %d maps\n", inner_alive());
	expect(inner_alive() <= most);
	return true;
}

static bool attach(void)
{
	return !bpf_qdisc_attach(ifindex,
		bpf_program__fd(bpf_object__find_program_by_name(obj, "claims_enqueue")),
		bpf_program__fd(bpf_object__find_program_by_name(obj, "claims_dequeue")), NULL);
}

/* How many packets have left */
static uint64_t left(void)
{
	LIBBPF_OPTS(bpf_qdisc_info, info);

	return bpf_qdisc_query(ifindex, NULL, &info) ? 0 : info.packets;
}

static bool send_packet(void)
{
	char frame[100] = { [12] = 0x88, [13] = 0xb5 };

	return send(sender, frame, sizeof(frame), 0) == sizeof(frame);
}

static bool replace(void)
{
	uint32_t first = 0;
	int inner = create_inner();

	expect_equal(bpf_map_update_elem(map("queues"), &first, &inner, BPF_ANY), 0);
	close(inner);
	return true;
}

/* One packet through each map */
static bool maps_are_replaced(void)
{
	expect(attach());
	for (int i = 1; i <= ROUNDS; i++) {
		expect(replace());
		expect(send_packet());
		for (int n = 0; n < 10000 && left() < (uint64_t)i; n++)
			usleep(1000);
		expect_equal(left(), i);
	}
	expect(at_most_are_alive(8));
	expect(!bpf_qdisc_detach(ifindex, NULL));
	/* The last is still in the array. */
	expect(at_most_are_alive(1));
	return true;
}

static void set_up(void)
{
	struct sockaddr_ll address = { .sll_family = AF_PACKET };

	if (system("ip link add " DEV " type dummy && "
		   "sysctl -qw net.ipv6.conf." DEV ".disable_ipv6=1 && ip link set " DEV " up"))
		errx(1, "no device");
	ifindex = if_nametoindex(DEV);
	sender = socket(AF_PACKET, SOCK_RAW, 0);
	address.sll_ifindex = ifindex;
	if (sender < 0 || bind(sender, (void *)&address, sizeof(address)))
		err(1, "sender");
}

int main(int argc, char **argv)
{
	load(argc, argv);
	set_up();
	printf("1..1\n");
	result(maps_are_replaced(), "inner maps that are replaced 1000 times go away");
	if (system("ip link del " DEV))
		errx(1, "cannot delete the device");
	return failed ? 1 : 0;
}
