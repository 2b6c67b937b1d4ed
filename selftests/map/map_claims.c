// SPDX-License-Identifier: GPL-2.0
/*
 * map_claims OBJECT: a qdisc claims the maps that its packets are in. User space replaces
 * such a map again and again, or deletes it: it goes away, and what was in it is dropped, also
 * when the qdisc is changed before that. A qdisc that goes leaves all its packets at once,
 * whoever looks at them; a map that allocates each element has no room before they are freed.
 */
#include "../lib/map.h"
#include <arpa/inet.h>
#include <linux/if_packet.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <pthread.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define DEV	"claims0"
#define INNER	"claims_inner"
#define ROUNDS	1000
#define MANY	10000		/* packets, which fit into a map */
#define FEW	100		/* as many as `few` has */

static int ifindex, sender;

static int first_inner(void)
{
	uint32_t first = 0, id = 0;

	if (bpf_map_lookup_elem(map("queues"), &first, &id))
		err(1, "no inner map");
	return bpf_map_get_fd_by_id(id);
}

/* Like the one that is there, but for the name */
static int create_inner(void)
{
	LIBBPF_OPTS(bpf_map_create_opts, opts);
	struct bpf_map_info info = {};
	uint32_t size = sizeof(info);
	int fd = first_inner();

	if (bpf_map_get_info_by_fd(fd, &info, &size))
		err(1, "no information on the inner map");
	close(fd);
	opts.btf_fd = bpf_btf_get_fd_by_id(info.btf_id);
	opts.btf_key_type_id = info.btf_key_type_id;
	opts.btf_value_type_id = info.btf_value_type_id;
	fd = bpf_map_create(info.type, INNER, info.key_size, info.value_size, info.max_entries, &opts);
	if (fd < 0)
		err(1, "cannot create an inner map");
	close(opts.btf_fd);
	return fd;
}

static bool at_most_are_alive(int most)
{
	for (int i = 0; i < 300 && maps_alive(INNER) > most; i++)
		usleep(50000);
	printf("# %d maps\n", maps_alive(INNER));
	expect(maps_alive(INNER) <= most);
	return true;
}

static int program(const char *name)
{
	return bpf_program__fd(bpf_object__find_program_by_name(obj, name));
}

static bool attach(void)
{
	return !bpf_qdisc_attach(ifindex, program("claims_enqueue"), program("claims_dequeue"), NULL);
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

static bool put(int inner)
{
	uint32_t first = 0;

	expect_equal(bpf_map_update_elem(map("queues"), &first, &inner, BPF_ANY), 0);
	close(inner);
	return true;
}

static bool replace(void)
{
	return put(create_inner());
}

/* The only one that is left is the next. */
static bool delete_the_last(void)
{
	int inner = create_inner();
	uint32_t first = 0;

	expect_equal(bpf_map_delete_elem(map("queues"), &first), 0);
	expect(at_most_are_alive(1));
	return put(inner);
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
	expect(at_most_are_alive(1));
	expect(delete_the_last());
	expect(!bpf_qdisc_detach(ifindex, NULL));
	return true;
}

static struct {
	uint32_t closed;
	uint32_t generation;
	uint32_t hold;
	uint32_t held;
	uint32_t over;
} *bss;

static struct {
	uint64_t keys;
} *data;

static void *section(const char *name)
{
	size_t size;

	return bpf_map__initial_value(bpf_object__find_map_by_name(obj, name), &size);
}

/* All packets of the sender have been freed. */
static bool all_freed(void)
{
	int bytes = 1;

	for (int i = 0; i < 300 && !ioctl(sender, SIOCOUTQ, &bytes) && bytes; i++)
		usleep(50000);
	expect_equal(bytes, 0);
	return true;
}

static bool fill(int packets)
{
	for (int i = 0; i < packets; i++)
		expect(send_packet());
	return true;
}

/* Those that were not deleted, with one that is sent: so many. Then the qdisc is deleted. */
static bool others_leave(uint64_t count)
{
	bss->closed = false;
	expect(fill(1));
	for (int n = 0; n < 10000 && left() < count; n++)
		usleep(1000);
	expect_equal(left(), count);
	expect(!bpf_qdisc_detach(ifindex, NULL));
	expect(all_freed());
	return true;
}

/* Some packets are in a map that is deleted, some in one that stays. */
static bool what_is_deleted_is_dropped(void)
{
	LIBBPF_OPTS(bpf_qdisc_info, info);
	uint32_t generation;

	expect(replace());
	bss->closed = true;
	expect(attach());
	expect(fill(100));
	generation = bss->generation;
	expect(delete_the_last());
	expect(fill(10));
	for (int n = 0; n < 10000 && !info.drops; n++) {
		usleep(1000);
		expect(!bpf_qdisc_query(ifindex, NULL, &info));
	}
	expect_equal(info.drops, 100);
	expect_equal(info.qlen, 10);
	expect_equal(info.backlog, 1000);
	expect(fill(1));
	expect(bss->generation != generation);
	expect(others_leave(12));
	return true;
}

/* From now on a worker of the kernel's is held up, until go_on(). */
static struct bpf_link *hold_up(const char *name)
{
	struct bpf_link *link = bpf_program__attach(bpf_object__find_program_by_name(obj, name));

	if (!link)
		err(1, "%s", name);
	bss->held = 0;
	bss->over = 0;
	bss->hold = true;
	return link;
}

static bool is_held_up(void)
{
	for (int i = 0; i < 30000 && !__atomic_load_n(&bss->held, __ATOMIC_RELAXED); i++)
		usleep(1000);
	expect(bss->held);
	return true;
}

/* Was it held up all the time? */
static bool go_on(struct bpf_link *link)
{
	bool over = __atomic_load_n(&bss->over, __ATOMIC_RELAXED);

	bss->hold = false;
	bpf_link__destroy(link);
	return !over;
}

#define TRIES 20	/* a worker cannot be held up for as long as a busy host may take */

/* As it is before the worker, and what a change says of it; false if it took too long. */
static bool change_before_the_worker(struct bpf_qdisc_info *info, int *error)
{
	struct bpf_link *link;
	bool held;

	expect(replace());
	bss->closed = true;
	expect(attach());
	expect(fill(100));
	link = hold_up("before_packets_are_dropped");
	held = delete_the_last() && fill(10) && is_held_up();
	*error = bpf_qdisc_change(ifindex, program("claims_enqueue"), program("claims_dequeue"), NULL);
	expect(!bpf_qdisc_query(ifindex, NULL, info));
	return go_on(link) && held;
}

/* The change is not refused for the sake of packets that nobody can reach, and loses no other. */
static bool changed_while_a_map_is_gone(void)
{
	LIBBPF_OPTS(bpf_qdisc_info, info);
	int error, tries = 0;

	while (!change_before_the_worker(&info, &error)) {
		expect(++tries < TRIES);
		expect(!bpf_qdisc_detach(ifindex, NULL));
		expect(all_freed());
	}
	expect_equal(error, 0);
	expect_equal(info.qlen, 110);
	expect_equal(info.drops, 0);
	for (int n = 0; n < 10000 && !info.drops; n++) {
		usleep(1000);
		expect(!bpf_qdisc_query(ifindex, NULL, &info));
	}
	expect_equal(info.drops, 100);
	expect_equal(info.qlen, 10);
	expect_equal(info.backlog, 1000);
	expect(others_leave(11));
	return true;
}

/* A map that is full is flushed, and filled again before the worker; false if it took too long. */
static bool flush_and_fill(struct bpf_qdisc_info *info, int *error, int *taken)
{
	LIBBPF_OPTS(bpf_qdisc_opts, opts, .flags = BPF_QDISC_F_FLUSH);
	struct bpf_link *link;
	bool held;

	bss->closed = true;
	expect(!bpf_qdisc_attach(ifindex, program("few_enqueue"), program("few_dequeue"), NULL));
	expect(fill(FEW));
	link = hold_up("before_a_packet_is_freed");
	*error = bpf_qdisc_change(ifindex, program("few_enqueue"), program("few_dequeue"), &opts);
	held = is_held_up();
	*taken = 0;
	for (int i = 0; i < FEW; i++)
		*taken += send_packet();
	expect(!bpf_qdisc_query(ifindex, NULL, info));
	return go_on(link) && held;
}

/* Their elements are the map's until they are. */
static bool no_room_before_packets_are_freed(void)
{
	LIBBPF_OPTS(bpf_qdisc_info, info);
	int error, taken, tries = 0, stored = 0;

	while (!flush_and_fill(&info, &error, &taken)) {
		expect(++tries < TRIES);
		expect(!bpf_qdisc_detach(ifindex, NULL));
		expect(all_freed());
	}
	expect_equal(error, 0);
	expect_equal(taken, 0);
	expect_equal(info.qlen, 0);
	expect_equal(info.drops, 2 * FEW);
	expect(all_freed());
	/* Each is so a moment after its packet. */
	for (int n = 0; n < 10000 && stored < FEW; n++) {
		if (send_packet())
			stored++;
		else
			usleep(1000);
	}
	expect_equal(stored, FEW);
	expect(!send_packet());
	expect(!bpf_qdisc_detach(ifindex, NULL));
	expect(all_freed());
	return true;
}

static bool packets_are_freed(void)
{
	uint64_t key;
	int inner;

	expect(replace());
	inner = first_inner();
	data->keys = 100;
	for (int round = 0; round < 2; round++) {
		bss->closed = true;
		expect(attach());
		expect(fill(MANY));
		expect(!bpf_map_get_next_key(inner, NULL, &key));
		expect_equal(bpf_map_delete_elem(inner, &key), -EBUSY);
		expect(!bpf_qdisc_detach(ifindex, NULL));
		expect_equal(bpf_map_get_next_key(inner, NULL, &key), -ENOENT);
		expect(all_freed());
	}
	/* The map is as good as new, and nobody's. */
	bss->closed = false;
	expect(attach());
	expect(fill(1));
	for (int n = 0; n < 10000 && left() < 1; n++)
		usleep(1000);
	expect_equal(left(), 1);
	expect(!bpf_qdisc_detach(ifindex, NULL));
	close(inner);
	expect(at_most_are_alive(1));
	return true;
}

static bool finished;

/* Is everything in order that is there while it comes and goes? */
static void *look(void *walks)
{
	static uint64_t keys[MANY], values[MANY];
	int fd = first_inner();

	while (!__atomic_load_n(&finished, __ATOMIC_RELAXED)) {
		uint64_t cursor, *in = NULL, last = 0;
		uint32_t count;
		int error;

		do {
			count = 1000;
			error = bpf_map_lookup_batch(fd, in, &cursor, keys, values, &count, NULL);
			if (error && error != -ENOENT && error != -ENOSPC)
				return "an error";
			for (uint32_t i = 0; i < count; i++) {
				if (keys[i] < last || keys[i] >= data->keys || values[i])
					return "out of order";
				last = keys[i];
			}
			in = &cursor;
		} while (!error);
		++*(int *)walks;
	}
	close(fd);
	return NULL;
}

static bool while_others_look(void)
{
	pthread_t thread;
	bool all = true;
	void *wrong;
	int walks = 0;

	expect(replace());
	data->keys = 1000;
	bss->closed = true;
	finished = false;
	if (pthread_create(&thread, NULL, look, &walks))
		err(1, "thread");
	for (int round = 0; round < 30 && all; round++)
		all = attach() && fill(MANY / 30) && !bpf_qdisc_detach(ifindex, NULL);
	__atomic_store_n(&finished, true, __ATOMIC_RELAXED);
	pthread_join(thread, &wrong);
	printf("# %d walks%s%s\n", walks, wrong ? ": " : "", wrong ? (char *)wrong : "");
	expect(all);
	expect(!wrong);
	expect(all_freed());
	return true;
}

static void set_up(void)
{
	const int size = 1 << 28;
	struct sockaddr_ll address = { .sll_family = AF_PACKET };

	if (system("ip link add " DEV " type dummy && "
		   "sysctl -qw net.ipv6.conf." DEV ".disable_ipv6=1 && ip link set " DEV " up"))
		errx(1, "no device");
	ifindex = if_nametoindex(DEV);
	sender = socket(AF_PACKET, SOCK_RAW, 0);
	address.sll_ifindex = ifindex;
	if (sender < 0 || bind(sender, (void *)&address, sizeof(address)) ||
	    setsockopt(sender, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof(size)))
		err(1, "sender");
	bss = section(".bss");
	data = section(".data");
	if (!bss || !data)
		errx(1, "no variables");
}

int main(int argc, char **argv)
{
	load(argc, argv);
	set_up();
	printf("1..6\n");
	result(maps_are_replaced(), "inner maps that are replaced 1000 times, or deleted, go away");
	result(what_is_deleted_is_dropped(), "the packets of an inner map that is deleted are dropped and counted");
	result(changed_while_a_map_is_gone(), "also when the qdisc is changed before that");
	result(packets_are_freed(), "the packets of a qdisc are out of the map with it, and freed");
	result(while_others_look(), "also while others walk over the map");
	result(no_room_before_packets_are_freed(), "elements that are allocated count until their packets are freed");
	if (system("ip link del " DEV))
		errx(1, "cannot delete the device");
	return failed ? 1 : 0;
}
