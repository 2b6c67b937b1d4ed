// SPDX-License-Identifier: GPL-2.0
/*
 * programs: enqueue programs run by hand (BPF_PROG_TEST_RUN), packets in
 * the inner maps of an ordered map of maps while the qdisc is changed, and a look at
 * packets that stay where they are. Prints TAP.
 */
#include "../lib/map.h"
#include <bpf/btf.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/pkt_sched.h>
#include <net/if.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "programs.skel.h"

#define DEV	"programs0"

/* What the kernel's enqueue functions return; the last says that an action has the packet. */
#define NET_XMIT_SUCCESS	0
#define NET_XMIT_DROP		1
#define NET_XMIT_STOLEN		0x10000

static int ifindex;

static struct bpf_qdisc_info query(void)
{
	LIBBPF_OPTS(bpf_qdisc_info, info);

	bpf_qdisc_query(ifindex, NULL, &info);
	return info;
}

static bool send_packet(uint32_t mark, size_t size)
{
	struct sockaddr_ll to = {
		.sll_family = AF_PACKET,
		.sll_ifindex = ifindex,
	};
	char frame[1000] = { [12] = 0x88, [13] = 0xb5 };
	int fd;
	bool ok;

	fd = socket(AF_PACKET, SOCK_RAW, 0);
	ok = fd >= 0 && !setsockopt(fd, SOL_SOCKET, SO_MARK, &mark, sizeof(mark)) &&
	     sendto(fd, frame, size, 0, (void *)&to, sizeof(to)) == (ssize_t)size;
	close(fd);
	return ok;
}

static bool drains(void)
{
	for (int i = 0; i < 5000 && query().qlen; i++)
		usleep(2000);
	return !query().qlen;
}

/* ---- BPF_PROG_TEST_RUN ---- */

/* What the caller of enqueue would get, or a negative errno */
static int test_run(const struct bpf_program *prog, size_t size, int repeat, struct __sk_buff *ctx)
{
	char frame[70000] = { [12] = 0x88, [13] = 0xb5 };
	LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = frame, .data_size_in = size, .repeat = repeat,
		    .ctx_in = ctx, .ctx_size_in = ctx ? sizeof(*ctx) : 0);
	int err = bpf_prog_test_run_opts(bpf_program__fd(prog), &opts);

	return err ?: (int)opts.retval;
}

static bool empty(const struct bpf_map *map)
{
	uint64_t key;

	return bpf_map_get_next_key(bpf_map__fd(map), NULL, &key) == -ENOENT;
}

static bool runs_by_hand(struct programs *skel)
{
	const struct bpf_program *prog = skel->progs.pkts_enqueue;
	struct __sk_buff ctx = { .mark = 4711 };

	expect_equal(test_run(prog, 100, 1, NULL), NET_XMIT_SUCCESS);
	expect_equal(test_run(prog, 66, 1, NULL), NET_XMIT_DROP);
	expect_equal(test_run(prog, 77, 1, NULL), NET_XMIT_DROP);
	expect_equal(test_run(prog, 88, 1, NULL), NET_XMIT_STOLEN);
	expect_equal(skel->bss->seen.runs, 4);
	expect_equal(skel->bss->seen.key, 0);
	/* more runs than the map has room for packets */
	expect_equal(test_run(prog, 60000, 1000, &ctx), NET_XMIT_SUCCESS);
	expect_equal(skel->bss->seen.runs, 1004);
	expect_equal(skel->bss->seen.key, 4711);
	expect_equal(skel->bss->seen.same, 0);
	expect(empty(skel->maps.pkts));
	return true;
}

/* What needs a qdisc, a device, a clock or the packet's bytes works. */
static bool functions_by_hand(struct programs *skel)
{
	struct __sk_buff ctx = { .tstamp = 1234567890 };
	struct timespec now;

	expect_equal(test_run(skel->progs.all_enqueue, 90, 10, &ctx), NET_XMIT_SUCCESS);
	expect_equal(skel->bss->seen.runs, 10);
	expect_equal(skel->bss->seen.key, 1234567890);
	expect_equal(skel->bss->seen.len, 90);
	expect_equal(skel->bss->seen.after, 0xb5);
	expect(skel->bss->seen.len_after);
	expect(empty(skel->maps.pkts));

	/* within the horizon of a qdisc that was attached without one */
	clock_gettime(CLOCK_MONOTONIC, &now);
	ctx.tstamp = now.tv_sec * 1000000000ULL + 5000000000ULL;
	expect_equal(test_run(skel->progs.all_enqueue, 90, 1, &ctx), NET_XMIT_SUCCESS);
	expect_equal(skel->bss->seen.key, ctx.tstamp);
	return true;
}

static bool wrong_runs_by_hand(struct programs *skel)
{
	struct __sk_buff ctx = { .len = 5 };

	expect_equal(test_run(skel->progs.pkts_enqueue, 13, 1, NULL), -EINVAL);
	expect_equal(test_run(skel->progs.pkts_enqueue, 65537, 1, NULL), -EINVAL);
	expect_equal(test_run(skel->progs.pkts_enqueue, 100, 1, &ctx), -EINVAL);
	expect_equal(test_run(skel->progs.pkts_dequeue, 100, 1, NULL), -EOPNOTSUPP);
	expect_equal(skel->bss->seen.runs, 0);
	return true;
}

static int attach(const struct bpf_program *enqueue, const struct bpf_program *dequeue)
{
	return bpf_qdisc_attach(ifindex, bpf_program__fd(enqueue), bpf_program__fd(dequeue), NULL);
}

/* Packets of a qdisc are not touched: for a run its map is another's. */
static bool runs_beside_a_qdisc(struct programs *skel)
{
	expect(!attach(skel->progs.pkts_enqueue, skel->progs.pkts_dequeue));
	expect(send_packet(1, 100) && send_packet(2, 100));
	expect_equal(test_run(skel->progs.pkts_enqueue, 100, 50, NULL), NET_XMIT_DROP);
	expect_equal(query().qlen, 2);
	expect_equal(query().drops, 0);
	skel->data->closed = false;
	expect(send_packet(3, 100));
	expect(drains());
	expect_equal(query().packets, 3);
	expect_equal(test_run(skel->progs.pkts_enqueue, 100, 50, NULL), NET_XMIT_SUCCESS);
	expect(send_packet(4, 100));
	expect(drains());
	expect_equal(query().packets, 4);
	expect(!bpf_qdisc_detach(ifindex, NULL));
	return true;
}

/* ---- a look ---- */

static bool look_at_packets(struct programs *skel)
{
	volatile __typeof__(skel->bss->seen) *seen = &skel->bss->seen;

	expect(!attach(skel->progs.pkts_enqueue, skel->progs.pkts_dequeue));
	expect(send_packet(200, 110));
	expect_equal(seen->key, 200);
	expect_equal(seen->len, 110);
	expect(send_packet(100, 120) && send_packet(160, 130));
	expect_equal(seen->key, 100);
	expect_equal(seen->len, 120);
	expect_equal(seen->after, 160);
	expect_equal(seen->len_after, 130);
	expect_equal(query().qlen, 3);
	expect(!bpf_qdisc_detach(ifindex, NULL));
	return true;
}

/* ---- inner maps of an ordered map of maps ---- */

static struct programs *open_ranks(int ranks)
{
	struct programs *skel = programs__open();

	if (skel && !bpf_program__set_autoload(skel->progs.ranks_enqueue, true) &&
	    !bpf_program__set_autoload(skel->progs.ranks_dequeue, true) &&
	    !bpf_map__reuse_fd(skel->maps.ranks, ranks) && !programs__load(skel))
		return skel;
	programs__destroy(skel);
	return NULL;
}

static int change(const struct programs *skel, bool ranks)
{
	return bpf_qdisc_change(ifindex,
				bpf_program__fd(ranks ? skel->progs.ranks_enqueue : skel->progs.pkts_enqueue),
				bpf_program__fd(ranks ? skel->progs.ranks_dequeue : skel->progs.pkts_dequeue),
				NULL);
}

static int create_ranks(const struct programs *skel)
{
	struct bpf_map_info info = {};
	uint32_t size = sizeof(info);
	int inner = bpf_map__fd(skel->maps.rank1);
	LIBBPF_OPTS(bpf_map_create_opts, opts, .btf_fd = bpf_object__btf_fd(skel->obj),
		    .btf_key_type_id = bpf_map__btf_key_type_id(skel->maps.ranks),
		    .btf_value_type_id = bpf_map__btf_value_type_id(skel->maps.ranks),
		    .inner_map_fd = inner);

	if (bpf_map_get_info_by_fd(inner, &info, &size))
		return -1;
	return bpf_map_create(BPF_MAP_TYPE_RBTREE, "ranks", 8, 4, 4, &opts);
}

static int put(int ranks, uint64_t rank, const struct bpf_map *inner)
{
	uint32_t fd = bpf_map__fd(inner);

	return bpf_map_update_elem(ranks, &rank, &fd, BPF_NOEXIST);
}

static bool change_with(struct programs *maps, struct programs *first, struct programs *second,
			struct programs *other, int ranks)
{
	uint64_t rank = 7;

	expect(!put(ranks, 5, maps->maps.rank1) && !put(ranks, 7, maps->maps.rank2));
	expect(!attach(first->progs.ranks_enqueue, first->progs.ranks_dequeue));
	expect(!send_packet(6, 100));
	for (int i = 0; i < 10; i++)
		expect(send_packet(i % 2 ? 5 : 7, 100));
	expect_equal(query().qlen, 10);

	/* out of reach: another map of maps; none; one of the two maps taken out */
	expect_equal(change(other, true), -EBUSY);
	expect_equal(change(second, false), -EBUSY);
	expect(!bpf_map_delete_elem(ranks, &rank));
	expect_equal(change(second, true), -EBUSY);
	expect(!put(ranks, 7, maps->maps.rank2));

	expect_equal(change(second, true), 0);
	expect_equal(query().qlen, 10);
	second->data->closed = false;
	expect(send_packet(5, 100));
	expect(drains());
	expect_equal(query().packets, 11);
	expect_equal(query().drops, 1);
	expect(!bpf_qdisc_detach(ifindex, NULL));
	return true;
}

static bool change_in_place(struct programs *maps)
{
	int ranks = create_ranks(maps), ranks2 = create_ranks(maps);
	struct programs *first = open_ranks(ranks), *second = open_ranks(ranks);
	struct programs *other = open_ranks(ranks2);
	bool ok = first && second && other && change_with(maps, first, second, other, ranks);

	programs__destroy(first);
	programs__destroy(second);
	programs__destroy(other);
	close(ranks);
	close(ranks2);
	return ok;
}

static const struct {
	const char *name;
	bool (*run)(struct programs *skel);
} all[] = {
	{ "an enqueue program runs by hand", runs_by_hand },
	{ "what it calls works", functions_by_hand },
	{ "wrong packets and programs are refused", wrong_runs_by_hand },
	{ "packets of a qdisc are not touched", runs_beside_a_qdisc },
	{ "first and lower bound show packets that stay", look_at_packets },
	{ "a change keeps packets in an ordered map of maps", change_in_place },
};

int main(void)
{
	struct programs *skel;
	size_t i;

	libbpf_set_print(NULL);	/* what the kernel says to what it is right to refuse */
	printf("1..%zu\n", sizeof(all) / sizeof(all[0]));
	for (i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
		if (system("ip link add " DEV " type veth peer name programs1 && "
			   "sysctl -qw net.ipv6.conf." DEV ".disable_ipv6=1 && "
			   "ip link set " DEV " up && ip link set programs1 up"))
			printf("# no devices\n");
		ifindex = if_nametoindex(DEV);
		skel = programs__open_and_load();
		result(skel && all[i].run(skel), all[i].name);
		if (system("ip link del " DEV))
			printf("# cannot delete the devices\n");
		programs__destroy(skel);
	}
	return failed ? 1 : 0;
}
