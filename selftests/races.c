// SPDX-License-Identifier: GPL-2.0
/*
 * races [OBJECT]: what happens between two steps of the kernel, where a program stops it.
 *
 * A change of bpf_mq fails when some queues are changed already, as packets come meanwhile
 * that the new programs do not reach. All queues have the old programs then, and every packet
 * leaves: also one that only the new programs reach.
 *
 * A qdisc is deleted before user space was told that its policy is stuck. It is gone then:
 * another one can have its handle.
 */
#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <err.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "expect.h"
#include "races.skel.h"

#define DEV	"races0"
#define PEER	"races1"
#define QUEUES	4
#define HANDLE	0x10000
#define BAND	0x20002		/* of prio, for packets without a priority */
#define LENGTH	100		/* bytes of a packet */

static struct races *skel;
static int ifindex, sender, receiver;

static __u32 prog_id(const struct bpf_program *prog)
{
	struct bpf_prog_info info = {};
	__u32 len = sizeof(info);

	return bpf_prog_get_info_by_fd(bpf_program__fd(prog), &info, &len) ? 0 : info.id;
}

/* The instance of a queue, from 1 */
static struct bpf_qdisc_info instance(__u32 number)
{
	LIBBPF_OPTS(bpf_qdisc_opts, child, .parent = HANDLE | number);
	LIBBPF_OPTS(bpf_qdisc_info, info);

	if (bpf_qdisc_query(ifindex, &child, &info))
		err(1, "instance %u", number);
	return info;
}

/* A filter sends it to the queue that its mark says. */
static bool send_packet(unsigned int queue)
{
	char frame[LENGTH] = { [12] = 0x88, [13] = 0xb5, [14] = queue };
	unsigned int mark = queue + 1;

	return !setsockopt(sender, SOL_SOCKET, SO_MARK, &mark, sizeof(mark)) &&
	       send(sender, frame, sizeof(frame), 0) == sizeof(frame);
}

static void wait_until_stopped(void)
{
	while (!__atomic_load_n(&skel->bss->stopped, __ATOMIC_SEQ_CST))
		;
}

static void go_on(__u32 value)
{
	__atomic_store_n(&skel->bss->go_on, value, __ATOMIC_SEQ_CST);
}

/* Two queues are changed: packets for the first, which is, and for the last, which is not yet */
static void *send_meanwhile(void *sent)
{
	wait_until_stopped();
	*(bool *)sent = send_packet(0) && send_packet(QUEUES - 1);
	go_on(1);
	return NULL;
}

static bool change_fails(void)
{
	LIBBPF_OPTS(bpf_qdisc_opts, mq, .kind = "bpf_mq");
	bool sent = false;
	pthread_t thread;
	int error;

	skel->bss->closed = true;
	skel->bss->stop_at = HANDLE | 2;
	if (pthread_create(&thread, NULL, send_meanwhile, &sent))
		err(1, "thread");
	error = bpf_qdisc_change(ifindex, bpf_program__fd(skel->progs.new_enqueue),
				 bpf_program__fd(skel->progs.new_dequeue), &mq);
	__atomic_store_n(&skel->bss->stopped, 1, __ATOMIC_SEQ_CST);	/* in any case */
	pthread_join(thread, NULL);
	expect(sent);
	expect_equal(error, -EBUSY);
	return true;
}

static bool old_programs_everywhere(void)
{
	for (__u32 number = 1; number <= QUEUES; number++) {
		expect_equal(instance(number).enqueue_prog_id, prog_id(skel->progs.old_enqueue));
		expect_equal(instance(number).dequeue_prog_id, prog_id(skel->progs.old_dequeue));
	}
	return true;
}

static bool arrives(unsigned int queue)
{
	char frame[2 * LENGTH];

	expect_equal(recv(receiver, frame, sizeof(frame), 0), LENGTH);
	expect_equal(frame[14], queue);
	return true;
}

/* The old programs do not reach the first packet: it leaves at once. The last waits for them. */
static bool every_packet_leaves(void)
{
	LIBBPF_OPTS(bpf_qdisc_opts, mq, .kind = "bpf_mq");

	expect(arrives(0));
	expect_equal(instance(QUEUES).qlen, 1);
	skel->bss->closed = false;
	/* Asked again, at once */
	expect(!bpf_qdisc_change(ifindex, -1, -1, &mq));
	expect(arrives(QUEUES - 1));
	for (__u32 number = 1; number <= QUEUES; number++) {
		struct bpf_qdisc_info info = instance(number);

		expect_equal(info.qlen, 0);
		expect_equal(info.backlog, 0);
		expect_equal(info.drops, 0);
		expect_equal(info.packets, number == 1 || number == QUEUES);
	}
	return true;
}

static bool new_programs_when_nothing_is_in_the_way(void)
{
	LIBBPF_OPTS(bpf_qdisc_opts, mq, .kind = "bpf_mq");

	expect(!bpf_qdisc_change(ifindex, bpf_program__fd(skel->progs.new_enqueue),
				 bpf_program__fd(skel->progs.new_dequeue), &mq));
	for (__u32 number = 1; number <= QUEUES; number++) {
		expect_equal(instance(number).enqueue_prog_id, prog_id(skel->progs.new_enqueue));
		expect(send_packet(number - 1));
		expect(arrives(number - 1));
	}
	return true;
}

static int attach(const char *kind, __u32 parent)
{
	LIBBPF_OPTS(bpf_qdisc_opts, opts, .kind = kind, .parent = parent, .handle = HANDLE);

	return bpf_qdisc_attach(ifindex, bpf_program__fd(skel->progs.old_enqueue),
				bpf_program__fd(skel->progs.old_dequeue), &opts);
}

/* Stopped is what would tell; it goes on, after seconds, when it is not told to. Below another
 * qdisc, as the root is only deleted when no program runs.
 */
static bool deleted_before_it_is_told(void)
{
	LIBBPF_OPTS(bpf_qdisc_opts, child, .parent = BAND);

	expect(!system("tc qdisc replace dev " DEV " root handle 2: prio"));
	expect_equal(attach(NULL, BAND), 0);
	expect(!system("tc qdisc change dev " DEV " parent 2:2 handle 1: bpf patience 10ms"));
	go_on(0);
	skel->bss->stopped = 0;
	skel->bss->closed = true;
	skel->bss->silent = true;
	skel->bss->stop_report = 1;
	expect(send_packet(0));
	wait_until_stopped();
	expect_equal(bpf_qdisc_detach(ifindex, &child), 0);
	expect_equal(attach(NULL, BAND), 0);
	go_on(1);
	return true;
}

static void set_up(void)
{
	struct timeval patience = { .tv_sec = 20 };
	struct sockaddr_ll address = { .sll_family = AF_PACKET };

	if (system("ip link add " DEV " numtxqueues 4 type veth peer name " PEER " && "
		   "sysctl -qw net.ipv6.conf." DEV ".disable_ipv6=1 net.ipv6.conf." PEER ".disable_ipv6=1 && "
		   "ip link set " DEV " up && ip link set " PEER " up && tc qdisc add dev " DEV " clsact && "
		   "for mark in 1 2 3 4; do tc filter add dev " DEV " egress protocol all handle $mark fw "
		   "action skbedit queue_mapping $((mark - 1)) || exit; done"))
		errx(1, "no devices");
	ifindex = if_nametoindex(DEV);
	sender = socket(AF_PACKET, SOCK_RAW, 0);
	receiver = socket(AF_PACKET, SOCK_RAW, 0);
	address.sll_ifindex = ifindex;
	if (sender < 0 || bind(sender, (void *)&address, sizeof(address)))
		err(1, "sender");
	address.sll_ifindex = if_nametoindex(PEER);
	address.sll_protocol = htons(0x88b5);
	if (receiver < 0 || bind(receiver, (void *)&address, sizeof(address)) ||
	    setsockopt(receiver, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)))
		err(1, "receiver");
	skel = races__open();
	if (!skel || bpf_object__set_tx_queues(skel->obj, ifindex) < 0 || races__load(skel) ||
	    races__attach(skel) || attach("bpf_mq", 0))
		err(1, "programs");
}

static const struct {
	const char *name;
	bool (*run)(void);
} tests[] = {
	{ "a change fails in its middle", change_fails },
	{ "the old programs are in force", old_programs_everywhere },
	{ "every packet leaves", every_packet_leaves },
	{ "the next change does not fail", new_programs_when_nothing_is_in_the_way },
	{ "a qdisc is deleted before user space is told that it is stuck", deleted_before_it_is_told },
};

int main(void)
{
	const int count = sizeof(tests) / sizeof(tests[0]);
	int failed = 0;
	bool ok;

	set_up();
	printf("1..%d\n", count);
	for (int i = 0; i < count; i++) {
		ok = tests[i].run();
		printf("%sok %d %s\n", ok ? "" : "not ", i + 1, tests[i].name);
		fflush(stdout);
		failed += !ok;
	}
	races__destroy(skel);
	if (system("ip link del " DEV))
		errx(1, "cannot delete the devices");
	return failed ? 1 : 0;
}
