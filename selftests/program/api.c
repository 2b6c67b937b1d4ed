// SPDX-License-Identifier: GPL-2.0
/*
 * api: what libbpf offers for qdiscs, used as an application would: with
 * skeletons and without tc. Prints TAP.
 */
#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/pkt_sched.h>
#include <net/if.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../lib/expect.h"
#include "hold.skel.h"
#include "nothing.skel.h"
#include "queues.skel.h"
#include "release.skel.h"

#define DEV	"api0"
#define QUEUES	4

static int ifindex;

static __u32 prog_id(const struct bpf_program *prog)
{
	struct bpf_prog_info info = {};
	__u32 len = sizeof(info);

	return bpf_prog_get_info_by_fd(bpf_program__fd(prog), &info, &len) ? 0 : info.id;
}

static __u32 map_id(const struct bpf_map *map)
{
	struct bpf_map_info info = {};
	__u32 len = sizeof(info);

	return bpf_map_get_info_by_fd(bpf_map__fd(map), &info, &len) ? 0 : info.id;
}

static int attach(const struct hold *skel, const struct bpf_qdisc_opts *opts)
{
	return bpf_qdisc_attach(ifindex, bpf_program__fd(skel->progs.hold_enqueue),
				bpf_program__fd(skel->progs.hold_dequeue), opts);
}

static int change(const struct release *skel, const struct bpf_qdisc_opts *opts)
{
	return bpf_qdisc_change(ifindex, bpf_program__fd(skel->progs.release_enqueue),
				bpf_program__fd(skel->progs.release_dequeue), opts);
}

/* The qdisc and its counters, or zeros */
static struct bpf_qdisc_info query(const struct bpf_qdisc_opts *opts)
{
	LIBBPF_OPTS(bpf_qdisc_info, info);

	bpf_qdisc_query(ifindex, opts, &info);
	return info;
}

static bool send_packets(int count)
{
	struct sockaddr_ll to = {
		.sll_family = AF_PACKET,
		.sll_ifindex = ifindex,
	};
	char frame[100] = { [12] = 0x88, [13] = 0xb5 };
	int fd, sent = 0;

	fd = socket(AF_PACKET, SOCK_RAW, 0);
	while (fd >= 0 && sent < count &&
	       sendto(fd, frame, sizeof(frame), 0, (void *)&to, sizeof(to)) == sizeof(frame))
		sent++;
	close(fd);
	return sent == count;
}

/* ---- the tests; each begins and ends without a qdisc ---- */

static bool names_and_probes(void)
{
	const char *name;

	name = libbpf_bpf_map_type_str(BPF_MAP_TYPE_RBTREE);
	expect(name && !strcmp(name, "rbtree"));
	name = libbpf_bpf_prog_type_str(BPF_PROG_TYPE_QDISC);
	expect(name && !strcmp(name, "qdisc"));
	expect(libbpf_probe_bpf_map_type(BPF_MAP_TYPE_RBTREE, NULL) == 1);
	expect(libbpf_probe_bpf_prog_type(BPF_PROG_TYPE_QDISC, NULL) == 1);
	expect(libbpf_probe_bpf_helper(BPF_PROG_TYPE_QDISC, BPF_FUNC_ktime_get_ns, NULL) == 1);
	expect(libbpf_probe_bpf_helper(BPF_PROG_TYPE_QDISC, BPF_FUNC_tail_call, NULL) == 0);
	return true;
}

static bool attach_query_detach_with(const struct hold *skel)
{
	LIBBPF_OPTS(bpf_qdisc_opts, opts, .limit = 77, .object = "api.bpf.o");
	struct bpf_qdisc_info info;

	expect(query(NULL).handle == 0);
	expect(!attach(skel, &opts));
	info = query(NULL);
	expect(info.handle && info.parent == TC_H_ROOT && info.limit == 77);
	expect(info.enqueue_prog_id == prog_id(skel->progs.hold_enqueue));
	expect(info.dequeue_prog_id == prog_id(skel->progs.hold_dequeue));
	expect(!strcmp(info.object, "api.bpf.o"));

	expect(attach(skel, NULL) == -EEXIST);
	opts.flags = BPF_QDISC_F_REPLACE;
	opts.limit = 78;
	expect(!attach(skel, &opts));
	expect(query(NULL).limit == 78 && query(NULL).handle == info.handle);

	expect(send_packets(3));
	info = query(NULL);
	expect(info.qlen == 3 && info.backlog == 300 && !info.drops && !info.packets);

	expect(!bpf_qdisc_detach(ifindex, NULL));
	expect(query(NULL).handle == 0);
	expect(bpf_qdisc_detach(ifindex, NULL) < 0);
	return true;
}

static bool attach_query_detach(void)
{
	struct hold *skel = hold__open_and_load();
	bool ok = skel && attach_query_detach_with(skel);

	hold__destroy(skel);
	return ok;
}

static bool wrong_arguments_with(const struct hold *skel)
{
	LIBBPF_OPTS(bpf_qdisc_info, of_another, .queues = 7, .packets = 8);
	LIBBPF_OPTS(bpf_qdisc_opts, opts, .flags = 1 << 20);
	int enqueue = bpf_program__fd(skel->progs.hold_enqueue);
	int dequeue = bpf_program__fd(skel->progs.hold_dequeue);

	expect(bpf_qdisc_attach(0, enqueue, dequeue, NULL) == -EINVAL);
	expect(bpf_qdisc_attach(ifindex, enqueue, -1, NULL) == -EINVAL);
	expect(bpf_qdisc_attach(ifindex, enqueue, dequeue, &opts) == -EINVAL);
	expect(bpf_qdisc_attach(ifindex, dequeue, enqueue, NULL) == -EINVAL);
	expect(bpf_qdisc_attach(1 << 20, enqueue, dequeue, NULL) == -ENODEV);
	expect(bpf_qdisc_query(ifindex, NULL, NULL) == -EINVAL);
	expect(bpf_qdisc_change(ifindex, enqueue, dequeue, NULL) == -ENOENT);

	expect(!attach(skel, NULL));
	expect(bpf_qdisc_change(ifindex, enqueue, -1, NULL) == -EINVAL);
	expect(bpf_qdisc_change(ifindex, dequeue, enqueue, NULL) == -EINVAL);
	expect(bpf_qdisc_change(ifindex, enqueue, dequeue, &opts) == -EINVAL);
	expect(query(NULL).enqueue_prog_id == prog_id(skel->progs.hold_enqueue));
	/* Nothing of what was asked before is left where this qdisc has nothing. */
	expect(!bpf_qdisc_query(ifindex, NULL, &of_another));
	expect(of_another.queues == 0 && of_another.packets == 0);
	expect(!bpf_qdisc_detach(ifindex, NULL));
	return true;
}

static bool wrong_arguments(void)
{
	struct hold *skel = hold__open_and_load();
	bool ok = skel && wrong_arguments_with(skel);

	hold__destroy(skel);
	return ok;
}

/* The second object goes on with the packets of the first; the third has maps of its own. */
static bool change_with(const struct hold *first, struct release *second,
			const struct release *third)
{
	LIBBPF_OPTS(bpf_qdisc_opts, flush, .flags = BPF_QDISC_F_FLUSH);
	LIBBPF_OPTS(bpf_qdisc_opts, limit, .limit = 55);

	expect(bpf_object__reuse_qdisc_maps(second->obj, ifindex, NULL) == -ENOENT);
	expect(!attach(first, NULL));
	expect(send_packets(5));

	expect(!bpf_qdisc_change(ifindex, -1, -1, &limit));
	expect(query(NULL).limit == 55 && query(NULL).qlen == 5);
	expect(query(NULL).enqueue_prog_id == prog_id(first->progs.hold_enqueue));

	expect(change(third, NULL) == -EBUSY);
	expect(query(NULL).qlen == 5);

	expect(bpf_object__reuse_qdisc_maps(second->obj, ifindex, NULL) == 1);
	expect(!release__load(second));
	expect(map_id(second->maps.hold_pkts) == map_id(first->maps.hold_pkts));
	expect(!change(second, NULL));
	expect(query(NULL).enqueue_prog_id == prog_id(second->progs.release_enqueue));
	while (query(NULL).qlen)
		usleep(1000);
	expect(query(NULL).packets == 5 && query(NULL).drops == 0);
	expect(!bpf_qdisc_detach(ifindex, NULL));

	expect(!attach(first, NULL));
	expect(send_packets(4));
	expect(!change(third, &flush));
	expect(query(NULL).qlen == 0 && query(NULL).drops == 4);
	expect(!bpf_qdisc_detach(ifindex, NULL));
	return true;
}

static bool change_in_place(void)
{
	struct release *second = release__open(), *third = release__open_and_load();
	struct hold *first = hold__open_and_load();
	bool ok = first && second && third && change_with(first, second, third);

	hold__destroy(first);
	release__destroy(third);
	release__destroy(second);
	return ok;
}

static bool other_kinds_with(const struct hold *skel, const struct release *other)
{
	LIBBPF_OPTS(bpf_tc_hook, hook,
		.ifindex = ifindex,
		.attach_point = BPF_TC_QDISC,
		.parent = TC_H_ROOT,
		.handle = TC_H_MAKE(1 << 16, 0),
		.qdisc = "mq",
	);
	LIBBPF_OPTS(bpf_qdisc_opts, child, .parent = TC_H_MAKE(1 << 16, 2));
	LIBBPF_OPTS(bpf_qdisc_opts, by_handle, .limit = 44);

	/* as for the qdiscs of struct_ops */
	expect(!bpf_tc_hook_create(&hook));
	expect(query(NULL).handle == 0);
	expect(change(other, NULL) == -ENOENT);
	expect(bpf_qdisc_detach(ifindex, NULL) == -EINVAL);

	expect(!attach(skel, &child));
	expect(query(&child).parent == child.parent && query(NULL).handle == 0);
	by_handle.handle = query(&child).handle;
	expect(!bpf_qdisc_change(ifindex, -1, -1, &by_handle));
	expect(query(&by_handle).parent == child.parent && query(&child).limit == 44);
	expect(!bpf_qdisc_detach(ifindex, &child));
	expect(query(&child).handle == 0);
	expect(!bpf_tc_hook_destroy(&hook));
	return true;
}

static bool below_other_kinds(void)
{
	struct release *other = release__open_and_load();
	struct hold *skel = hold__open_and_load();
	bool ok = skel && other && other_kinds_with(skel, other);

	hold__destroy(skel);
	release__destroy(other);
	return ok;
}

static bool tx_queues_with(struct queues *skel)
{
	LIBBPF_OPTS(bpf_qdisc_opts, mq, .kind = "bpf_mq");
	__u32 queue, ids[QUEUES + 1] = {};

	expect(bpf_object__set_tx_queues(skel->obj, 1 << 20) < 0);
	expect(bpf_object__set_tx_queues(skel->obj, ifindex) == QUEUES);
	expect(!queues__load(skel));
	expect(bpf_map__max_entries(skel->maps.queues) == QUEUES);
	for (queue = 0; queue < QUEUES; queue++) {
		expect(!bpf_map_lookup_elem(bpf_map__fd(skel->maps.queues), &queue, &ids[queue]));
		expect(ids[queue] && (!queue || ids[queue] != ids[queue - 1]));
	}

	expect(!bpf_qdisc_attach(ifindex, bpf_program__fd(skel->progs.queues_enqueue),
				 bpf_program__fd(skel->progs.queues_dequeue), &mq));
	expect(query(&mq).enqueue_prog_id == prog_id(skel->progs.queues_enqueue));
	expect(query(NULL).handle == 0);
	expect(!bpf_qdisc_detach(ifindex, &mq));
	return true;
}

static bool one_map_for_each_tx_queue(void)
{
	struct queues *skel = queues__open();
	bool ok = skel && tx_queues_with(skel);

	queues__destroy(skel);
	return ok;
}

/* BPF_QDISC_QUEUES(..., 0), where nobody says of which device */
static bool no_map_without_a_device(void)
{
	struct queues *skel = queues__open();
	bool ok = skel && queues__load(skel) == -EINVAL;

	queues__destroy(skel);
	return ok;
}

static char said[4096];		/* by libbpf, last */

/* BPF_QDISC_QUEUES(name, type, 0, ...), or with a type that has no bytes. libbpf names the map. */
static bool no_map_without(bool packets)
{
	struct nothing *skel = nothing__open();
	int error;

	if (!skel)
		return false;
	bpf_map__set_autocreate(skel->maps.no_packets, packets);
	bpf_map__set_autocreate(skel->maps.no_key, !packets);
	said[0] = '\0';
	error = nothing__load(skel);
	nothing__destroy(skel);
	expect(error == -EINVAL);
	expect(strstr(said, packets ? "map 'no_packets': failed to create inner map: -EINVAL" :
				      "map 'no_key': failed to create inner map: -EINVAL"));
	return true;
}

static bool no_map_without_packets(void)
{
	return no_map_without(true);
}

static bool no_map_without_a_key(void)
{
	return no_map_without(false);
}

/* Programs of their own for the first queues */
static int give(int (*call)(int, int, int, const struct bpf_qdisc_opts *), __u32 queues,
		const struct bpf_program *const *enqueue, const struct bpf_program *const *dequeue)
{
	int enqueue_fds[QUEUES], dequeue_fds[QUEUES];
	LIBBPF_OPTS(bpf_qdisc_opts, mq, .kind = "bpf_mq", .queues = queues,
		    .enqueue_fds = enqueue_fds, .dequeue_fds = dequeue_fds);

	for (int i = 0; i < QUEUES; i++) {
		enqueue_fds[i] = bpf_program__fd(enqueue[i]);
		dequeue_fds[i] = bpf_program__fd(dequeue[i]);
	}
	said[0] = '\0';
	return call(ifindex, -1, -1, &mq);
}

static bool each_has(__u32 handle, const struct bpf_program *const *enqueue)
{
	for (int i = 0; i < QUEUES; i++) {
		LIBBPF_OPTS(bpf_qdisc_opts, child, .parent = handle + i + 1);

		expect(query(&child).enqueue_prog_id == prog_id(enqueue[i]));
	}
	return true;
}

static bool pairs_with(struct hold **hold, struct release **release)
{
	const struct bpf_program *enqueue[QUEUES], *dequeue[QUEUES], *twice[QUEUES];
	LIBBPF_OPTS(bpf_qdisc_opts, mq, .kind = "bpf_mq");
	__u32 handle;
	int i;

	for (i = 0; i < QUEUES; i++) {
		enqueue[i] = hold[i]->progs.hold_enqueue;
		dequeue[i] = hold[i]->progs.hold_dequeue;
		twice[i] = hold[i && i < 3 ? 1 : 0]->progs.hold_enqueue;
	}
	expect(bpf_qdisc_attach(ifindex, bpf_program__fd(enqueue[0]),
				bpf_program__fd(dequeue[0]), &mq) == -EINVAL);
	expect(strstr(said, "Map 'hold_pkts' holds packets: each tx queue needs its own"));
	expect(give(bpf_qdisc_attach, QUEUES, twice, dequeue) == -EINVAL);
	expect(strstr(said, "Map 'hold_pkts' holds packets: each tx queue needs its own"));
	expect(give(bpf_qdisc_attach, 3, enqueue, dequeue) == -EINVAL);
	expect(strstr(said, "3 pairs of programs, but 4 tx queues are in use"));
	mq.queues = 5000;
	expect(bpf_qdisc_attach(ifindex, -1, -1, &mq) == -EINVAL);
	mq.queues = 0;
	expect(query(&mq).handle == 0);

	expect(!give(bpf_qdisc_attach, QUEUES, enqueue, dequeue));
	handle = query(&mq).handle;
	expect(handle && query(&mq).queues == QUEUES);
	expect(query(&mq).enqueue_prog_id == prog_id(enqueue[0]) && each_has(handle, enqueue));
	expect(send_packets(3));
	expect(query(&mq).qlen == 3);

	for (i = 0; i < QUEUES; i++) {
		LIBBPF_OPTS(bpf_qdisc_opts, child, .parent = handle + i + 1);

		expect(bpf_object__share_qdisc_maps(release[i]->obj, release[0]->obj) == 0);
		expect(bpf_object__reuse_qdisc_maps(release[i]->obj, ifindex, &child) == 1);
		expect(!release__load(release[i]));
		enqueue[i] = release[i]->progs.release_enqueue;
		dequeue[i] = release[i]->progs.release_dequeue;
	}
	expect(!give(bpf_qdisc_change, QUEUES, enqueue, dequeue));
	expect(each_has(handle, enqueue));
	for (i = 0; i < 10000 && query(&mq).qlen; i++)
		usleep(1000);
	expect(query(&mq).qlen == 0 && query(&mq).packets == 3 && query(&mq).drops == 0);
	return !bpf_qdisc_detach(ifindex, &mq);
}

static bool a_pair_for_each_tx_queue(void)
{
	struct release *release[QUEUES];
	struct hold *hold[QUEUES];
	bool ok = true;
	int i;

	for (i = 0; i < QUEUES; i++) {
		hold[i] = hold__open_and_load();
		release[i] = release__open();
		ok &= hold[i] && release[i];
	}
	ok = ok && pairs_with(hold, release);
	for (i = 0; i < QUEUES; i++) {
		hold__destroy(hold[i]);
		release__destroy(release[i]);
	}
	return ok;
}

static const struct {
	const char *name;
	bool (*run)(void);
} all[] = {
	{ "names and probes", names_and_probes },
	{ "attach, query, detach", attach_query_detach },
	{ "wrong arguments", wrong_arguments },
	{ "change in place", change_in_place },
	{ "below other kinds", below_other_kinds },
	{ "one map for each tx queue", one_map_for_each_tx_queue },
	{ "no map without a device", no_map_without_a_device },
	{ "no map without packets", no_map_without_packets },
	{ "no map without a key", no_map_without_a_key },
	{ "a pair of programs for each tx queue", a_pair_for_each_tx_queue },
};

/* What the kernel says to what it is right to refuse is no news. */
static int print_nothing(enum libbpf_print_level level, const char *fmt, va_list args)
{
	size_t len = strlen(said);

	if (level == LIBBPF_WARN)
		vsnprintf(said + len, sizeof(said) - len, fmt, args);
	return 0;
}

int main(void)
{
	const int count = sizeof(all) / sizeof(all[0]);

	libbpf_set_print(print_nothing);
	printf("1..%d\n", count);
	for (int i = 0; i < count; i++) {
		if (system("ip link add " DEV " numtxqueues 4 type veth peer name api1 && "
			   "sysctl -qw net.ipv6.conf." DEV ".disable_ipv6=1 && "
			   "ip link set " DEV " up && ip link set api1 up"))
			printf("# no devices\n");
		ifindex = if_nametoindex(DEV);
		result(all[i].run(), all[i].name);
		if (system("ip link del " DEV))
			printf("# cannot delete the devices\n");
	}
	return failed ? 1 : 0;
}
