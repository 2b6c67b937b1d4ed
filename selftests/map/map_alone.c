// SPDX-License-Identifier: GPL-2.0
/*
 * map_alone: a qdisc takes no lock of a map that it is alone with, and is alone with it as long
 * as nobody else can look: whoever begins to, while packets pass, waits until it takes the lock.
 */
#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <err.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "../lib/expect.h"
#include "map_alone.skel.h"

#define STAND	20		/* packets that are not let go */

static const char *const devices[] = { "alone0", "alone1" };

static struct map_alone *skel;
static struct map_alone *beside;	/* another object with the same map */
static int ifindex[2], sender;
static volatile bool sending;
static pthread_t sending_thread;

static int fd_of(const struct bpf_program *prog)
{
	return bpf_program__fd(prog);
}

static int pkts(void)
{
	return bpf_map__fd(skel->maps.pkts);
}

/* ---- the qdisc, and packets that pass ---- */

static void *send_packets(void *unused)
{
	char frame[100] = { [12] = 0x88, [13] = 0xb5 };

	while (sending)
		send(sender, frame, sizeof(frame), 0);
	return unused;
}

static bool start_sending(void)
{
	sending = true;
	return !pthread_create(&sending_thread, NULL, send_packets, NULL);
}

static void stop_sending(void)
{
	if (!sending)
		return;
	sending = false;
	pthread_join(sending_thread, NULL);
}

static bool attach(int device)
{
	return !bpf_qdisc_attach(ifindex[device], fd_of(skel->progs.alone_enqueue),
				 fd_of(skel->progs.alone_dequeue), NULL);
}

static bool detach(int device)
{
	return !bpf_qdisc_detach(ifindex[device], NULL);
}

static struct bpf_qdisc_info query(void)
{
	LIBBPF_OPTS(bpf_qdisc_info, info);

	if (bpf_qdisc_query(ifindex[0], NULL, &info))
		err(1, "query");
	return info;
}

/* What the map says of itself now */
static bool see(void)
{
	struct bpf_map_info info = {};
	uint32_t size = sizeof(info);
	struct bpf_link *link;
	char byte;
	int fd;

	expect(!bpf_map_get_info_by_fd(pkts(), &info, &size));
	skel->bss->id = info.id;
	skel->bss->is_alone = skel->bss->is_shared = 2;
	link = bpf_program__attach_iter(skel->progs.look, NULL);
	expect(link);
	fd = bpf_iter_create(bpf_link__fd(link));
	expect(fd >= 0);
	while (read(fd, &byte, 1) > 0)
		;
	close(fd);
	bpf_link__destroy(link);
	expect(skel->bss->is_alone != 2);
	return true;
}

static bool is_alone(bool alone)
{
	expect(see());
	expect_equal(skel->bss->is_alone, alone);
	expect_equal(skel->bss->is_shared, !alone);
	return true;
}

/* Until so many more have left; half a minute */
static bool packets_pass(void)
{
	uint64_t packets = query().packets;

	for (int i = 0; i < 30000 && query().packets < packets + 100; i++)
		usleep(1000);
	expect(query().packets >= packets + 100);
	return true;
}

/* ---- who else looks ---- */

/* This program alone, in an object of its own, with the map that the qdisc has */
static struct bpf_program *load(const char *name)
{
	struct bpf_program *prog, *wanted;

	beside = map_alone__open();
	if (!beside)
		return NULL;
	bpf_object__for_each_program(prog, beside->obj)
		bpf_program__set_autoload(prog, false);
	wanted = bpf_object__find_program_by_name(beside->obj, name);
	bpf_program__set_autoload(wanted, true);
	if (bpf_map__reuse_fd(beside->maps.pkts, pkts()) ||
	    bpf_map__reuse_fd(beside->maps.in_order, bpf_map__fd(skel->maps.in_order)) ||
	    map_alone__load(beside))
		return NULL;
	return wanted;
}

static bool lookup(void)
{
	uint64_t value;

	for (uint64_t key = 0; key < 64; key++)
		bpf_map_lookup_elem(pkts(), &key, &value);
	return true;
}

static bool next_key(void)
{
	uint64_t key;

	expect(!bpf_map_get_next_key(pkts(), NULL, &key));
	return true;
}

static bool batch(void)
{
	uint64_t cursor, keys[1000], values[1000];
	uint32_t count = 1000;
	int error = bpf_map_lookup_batch(pkts(), NULL, &cursor, keys, values, &count, NULL);

	expect(!error || error == -ENOENT);
	expect(count >= STAND / 2);
	return true;
}

static bool iterate(const char *name)
{
	union bpf_iter_link_info info = { .map.map_fd = pkts() };
	LIBBPF_OPTS(bpf_iter_attach_opts, opts, .link_info = &info, .link_info_len = sizeof(info));
	struct bpf_program *prog = load(name);
	struct bpf_link *link;
	char byte;
	int fd;

	expect(prog);
	link = bpf_program__attach_iter(prog, &opts);
	expect(link);
	fd = bpf_iter_create(bpf_link__fd(link));
	expect(fd >= 0);
	expect_equal(read(fd, &byte, 1), 0);
	close(fd);
	bpf_link__destroy(link);
	return true;
}

static bool elements(void)
{
	return iterate("elements");
}

static bool packets(void)
{
	return iterate("packets");
}

static bool put_into(struct bpf_map *outer)
{
	uint32_t key = 0, fd = pkts();

	expect(!bpf_map_update_elem(bpf_map__fd(outer), &key, &fd, BPF_ANY));
	return true;
}

static bool in_array(void)
{
	return put_into(skel->maps.in_array);
}

static bool in_hash(void)
{
	return put_into(skel->maps.in_hash);
}

static bool in_order(void)
{
	return put_into(skel->maps.in_order);
}

static bool pushed(void)
{
	expect(load("puts_inside"));
	return true;
}

static bool other_type(void)
{
	expect(load("at_clsact"));
	return true;
}

static bool timer(void)
{
	expect(load("looks_later"));
	return true;
}

static bool second_qdisc(void)
{
	expect(attach(1));
	expect(detach(1));
	return true;
}

static bool change_to_others(void)
{
	struct bpf_program *enqueue = load("other_enqueue");

	expect(enqueue);
	expect(!bpf_qdisc_attach(ifindex[1], fd_of(enqueue), fd_of(skel->progs.alone_dequeue), NULL));
	expect(detach(1));
	return true;
}

static bool test_run(void)
{
	char frame[100] = { [12] = 0x88, [13] = 0xb5 };
	LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = frame, .data_size_in = sizeof(frame));

	expect(!bpf_prog_test_run_opts(fd_of(skel->progs.alone_enqueue), &opts));
	return true;
}

/* ---- what leaves it alone ---- */

static bool nothing(void)
{
	return true;
}

static bool loaded_only(void)
{
	expect(load("other_enqueue"));
	return true;
}

static bool changed(void)
{
	expect(load("other_enqueue"));
	expect(!bpf_qdisc_change(ifindex[0], fd_of(beside->progs.other_enqueue),
				 fd_of(skel->progs.alone_dequeue), NULL));
	return packets_pass();
}

static bool refused(void)
{
	uint64_t key = 1, value = 0;

	expect_equal(bpf_map_update_elem(pkts(), &key, &value, BPF_ANY), -EOPNOTSUPP);
	expect_equal(bpf_map_delete_elem(pkts(), &key), -EBUSY);
	expect_equal(bpf_map_lookup_and_delete_elem(pkts(), &key, &value), -EBUSY);
	return true;
}

static bool set_up(bool up)
{
	char command[64];

	snprintf(command, sizeof(command), "ip link set %s %s", devices[0], up ? "up" : "down");
	return !system(command);
}

/* The claim ends, and the next one is as good. */
static bool reset(void)
{
	expect(set_up(false) && set_up(true));
	return packets_pass();
}

static bool attached_again(void)
{
	expect(detach(0) && attach(0));
	return packets_pass();
}

static const struct {
	const char *name;
	bool (*act)(void);
	bool alone;
} cases[] = {
	{ "nobody else", nothing, true },
	{ "a program that is loaded and does not run", loaded_only, true },
	{ "a change in place", changed, true },
	{ "what is refused", refused, true },
	{ "a reset", reset, true },
	{ "another attach", attached_again, true },
	{ "a lookup", lookup, false },
	{ "a next key", next_key, false },
	{ "a batch", batch, false },
	{ "the iterator of elements", elements, false },
	{ "the iterator of packets", packets, false },
	{ "an array of maps", in_array, false },
	{ "a hash of maps", in_hash, false },
	{ "an ordered map of maps", in_order, false },
	{ "a program that puts it into one", pushed, false },
	{ "a program of another type", other_type, false },
	{ "a timer of a program", timer, false },
	{ "a second qdisc", second_qdisc, false },
	{ "a second qdisc with other programs", change_to_others, false },
	{ "a test run", test_run, false },
};

/* With a map of its own. Nothing is lost, whoever looks. */
static bool with_a_map(bool (*act)(void), bool alone)
{
	bool ok, acted;

	skel = map_alone__open_and_load();
	expect(skel);
	expect(attach(0));
	expect(start_sending());
	ok = packets_pass() && is_alone(true);
	acted = ok && act();
	ok = acted && is_alone(alone) && lookup() && packets_pass() && is_alone(false);
	stop_sending();
	map_alone__destroy(beside);
	beside = NULL;
	ok = ok && (act == reset || !query().drops);
	ok = detach(0) && ok;
	map_alone__destroy(skel);
	return ok;
}

/* ---- whoever looks waits for the step that the owner is in ---- */

static volatile bool has_looked;

static void *look(void *unused)
{
	skel->bss->tid = syscall(SYS_gettid);
	lookup();
	has_looked = true;
	return unused;
}

static bool wait_for(volatile uint32_t *variable, volatile bool *or_this)
{
	for (int i = 0; i < 30000 && !*variable && !(or_this && *or_this); i++)
		usleep(1000);
	return *variable;
}

/*
 * Code is patched while nobody runs it: an emulated CPU in a loop may see the breakpoint by which
 * the kernel does that after it is gone.
 */
static bool a_step_is_waited_for(void)
{
	struct bpf_link *step, *waiting;
	pthread_t thread;
	bool waits;

	stop_sending();
	step = bpf_program__attach(skel->progs.in_a_step);
	waiting = bpf_program__attach(skel->progs.on_waiting);
	expect(step && waiting);
	expect(start_sending());
	has_looked = false;
	skel->bss->hold = 1;
	expect(wait_for(&skel->bss->held, NULL));
	expect(!pthread_create(&thread, NULL, look, NULL));
	/* It is about to wait, and does so as long as the step takes. */
	waits = wait_for(&skel->bss->waits, &has_looked) && !has_looked;
	skel->bss->hold = 0;
	pthread_join(thread, NULL);
	stop_sending();
	bpf_link__destroy(step);
	bpf_link__destroy(waiting);
	expect(start_sending());
	expect(waits);
	return true;
}

int main(void)
{
	struct sockaddr_ll address = { .sll_family = AF_PACKET };

	if (system("ip link add alone0 type dummy && ip link add alone1 type dummy && "
		   "sysctl -qw net.ipv6.conf.alone0.disable_ipv6=1 net.ipv6.conf.alone1.disable_ipv6=1 && "
		   "ip link set alone0 up && ip link set alone1 up"))
		errx(1, "no devices");
	for (int i = 0; i < 2; i++)
		ifindex[i] = if_nametoindex(devices[i]);
	sender = socket(AF_PACKET, SOCK_RAW, 0);
	address.sll_ifindex = ifindex[0];
	if (bind(sender, (void *)&address, sizeof(address)))
		err(1, "no socket");

	printf("1..%zu\n", sizeof(cases) / sizeof(*cases) + 1);
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
		result(with_a_map(cases[i].act, cases[i].alone), cases[i].name);
	result(with_a_map(a_step_is_waited_for, false), "a step that the owner is in is waited for");
	return failed ? 1 : 0;
}
