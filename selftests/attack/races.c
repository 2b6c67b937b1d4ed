// SPDX-License-Identifier: GPL-2.0
/*
 * races: what happens between two steps of the kernel, where a program stops it.
 *
 * A change of bpf_mq fails when some queues are changed already, as packets come meanwhile
 * that the new programs do not reach. All queues have the old programs then, and every packet
 * leaves: also one that only the new programs reach, in a map or in a class. A policy that was
 * stuck before is so again.
 *
 * A policy gets stuck while somebody holds RTNL: user space is told when that is free. And the
 * qdisc is deleted before: it is gone then, and another one can have its handle.
 */
#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <err.h>
#include <linux/if_packet.h>
#include <linux/pkt_sched.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "../lib/expect.h"
#include "races.skel.h"

#define DEV	"races0"
#define PEER	"races1"
#define QUEUES	4
#define HANDLE	0x10000
#define BAND	0x20002		/* of prio, for packets without a priority */
#define LIMIT	50
#define LENGTH	100		/* bytes of a packet */

static struct races *skel;
static int ifindex, sender, receiver;
static bool own;		/* bpf_mq is given a pair of programs for each queue */

static __u32 prog_id(const struct bpf_program *prog)
{
	struct bpf_prog_info info = {};
	__u32 len = sizeof(info);

	return bpf_prog_get_info_by_fd(bpf_program__fd(prog), &info, &len) ? 0 : info.id;
}

/* bpf_qdisc_attach() or bpf_qdisc_change() of a pair */
static int give(int (*call)(int, int, int, const struct bpf_qdisc_opts *),
		struct bpf_qdisc_opts *opts, const struct bpf_program *enqueue,
		const struct bpf_program *dequeue)
{
	int enqueue_fds[QUEUES], dequeue_fds[QUEUES];

	if (!own)
		return call(ifindex, bpf_program__fd(enqueue), bpf_program__fd(dequeue), opts);
	for (int i = 0; i < QUEUES; i++) {
		enqueue_fds[i] = bpf_program__fd(enqueue);
		dequeue_fds[i] = bpf_program__fd(dequeue);
	}
	opts->queues = QUEUES;
	opts->enqueue_fds = enqueue_fds;
	opts->dequeue_fds = dequeue_fds;
	return call(ifindex, -1, -1, opts);
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
	char frame[LENGTH] = { [12] = 0x88, [13] = 0xb5, [14] = queue, [15] = skel->bss->to_both };
	unsigned int mark = queue + 1;

	return !setsockopt(sender, SOL_SOCKET, SO_MARK, &mark, sizeof(mark)) &&
	       send(sender, frame, sizeof(frame), 0) == sizeof(frame);
}

/* Until a variable of the program has reached that; half a minute */
static bool wait_for(volatile __u32 *variable, __u32 value)
{
	for (int i = 0; i < 30000 && *variable < value; i++)
		usleep(1000);
	return *variable >= value;
}

static void go_on(__u32 value)
{
	__atomic_store_n(&skel->bss->go_on, value, __ATOMIC_SEQ_CST);
}

/* Two queues are changed: packets for the first, which is, and for the last, which is not yet */
static void *send_meanwhile(void *sent)
{
	*(bool *)sent = wait_for(&skel->bss->stopped, 1) && send_packet(0) && send_packet(QUEUES - 1);
	go_on(1);
	return NULL;
}

static bool change_fails(void)
{
	LIBBPF_OPTS(bpf_qdisc_opts, mq, .kind = "bpf_mq", .limit = 77);
	bool sent = false;
	pthread_t thread;
	int error;

	skel->bss->closed = true;
	skel->bss->to_both = true;
	expect(send_packet(0));
	skel->bss->to_both = false;
	skel->bss->stop_at = HANDLE | 2;
	if (pthread_create(&thread, NULL, send_meanwhile, &sent))
		err(1, "thread");
	error = give(bpf_qdisc_change, &mq, skel->progs.new_enqueue, skel->progs.new_dequeue);
	pthread_join(thread, NULL);
	expect(sent);
	expect_equal(error, -EBUSY);
	return true;
}

static bool is_as_before(const struct bpf_qdisc_info *info)
{
	expect_equal(info->enqueue_prog_id, prog_id(skel->progs.old_enqueue));
	expect_equal(info->dequeue_prog_id, prog_id(skel->progs.old_dequeue));
	expect_equal(info->limit, LIMIT);
	return true;
}

static bool old_programs_everywhere(void)
{
	LIBBPF_OPTS(bpf_qdisc_opts, mq, .kind = "bpf_mq");
	LIBBPF_OPTS(bpf_qdisc_info, root);

	expect(!bpf_qdisc_query(ifindex, &mq, &root));
	expect(is_as_before(&root));
	expect_equal(root.queues, own ? QUEUES : 0);
	for (__u32 number = 1; number <= QUEUES; number++) {
		struct bpf_qdisc_info info = instance(number);

		expect(is_as_before(&info));
	}
	return true;
}

/* A packet of that queue, of the map that is said */
static bool arrives(unsigned int queue, bool of_both)
{
	char frame[2 * LENGTH];

	expect_equal(recv(receiver, frame, sizeof(frame), 0), LENGTH);
	expect_equal(frame[14], queue);
	expect_equal(frame[15], of_both);
	return true;
}

/* One packet of the first queue the old programs do not reach: it leaves at once. The other one,
 * and that of the last queue, wait for them.
 */
static bool every_packet_leaves(void)
{
	LIBBPF_OPTS(bpf_qdisc_opts, mq, .kind = "bpf_mq");

	expect(arrives(0, false));
	expect_equal(instance(1).qlen, 1);
	expect_equal(instance(QUEUES).qlen, 1);
	skel->bss->closed = false;
	/* Asked again, one after the other */
	expect(!bpf_qdisc_change(ifindex, -1, -1, &mq));
	expect(arrives(0, true));
	expect(arrives(QUEUES - 1, false));
	for (__u32 number = 1; number <= QUEUES; number++) {
		struct bpf_qdisc_info info = instance(number);

		expect_equal(info.qlen, 0);
		expect_equal(info.backlog, 0);
		expect_equal(info.drops, 0);
		expect_equal(info.packets, number == 1 ? 2 : number == QUEUES);
	}
	return true;
}

static bool new_programs_when_nothing_is_in_the_way(void)
{
	LIBBPF_OPTS(bpf_qdisc_opts, mq, .kind = "bpf_mq");

	expect(!give(bpf_qdisc_change, &mq, skel->progs.new_enqueue, skel->progs.new_dequeue));
	for (__u32 number = 1; number <= QUEUES; number++) {
		expect_equal(instance(number).enqueue_prog_id, prog_id(skel->progs.new_enqueue));
		expect(send_packet(number - 1));
		expect(arrives(number - 1, false));
	}
	return true;
}

static int attach(const char *kind, __u32 parent)
{
	LIBBPF_OPTS(bpf_qdisc_opts, opts, .kind = kind, .parent = parent, .handle = HANDLE,
		    .limit = LIMIT);

	return give(bpf_qdisc_attach, &opts, skel->progs.old_enqueue, skel->progs.old_dequeue);
}

/* All of this again, with a pair of programs for each queue */
static bool with_a_pair_for_each_queue(void)
{
	LIBBPF_OPTS(bpf_qdisc_opts, mq, .kind = "bpf_mq");
	bool ok;

	go_on(0);
	skel->bss->stopped = 0;
	expect_equal(bpf_qdisc_detach(ifindex, &mq), 0);
	own = true;
	ok = !attach("bpf_mq", 0) && change_fails() && old_programs_everywhere() &&
	     every_packet_leaves() && new_programs_when_nothing_is_in_the_way();
	own = false;
	return ok;
}

/* The new programs pass the packet to a class, which the old ones do not ask. */
static bool with_a_class(void)
{
	LIBBPF_OPTS(bpf_qdisc_opts, mq, .kind = "bpf_mq");
	char command[100];
	bool ok;

	go_on(0);
	skel->bss->stopped = 0;
	expect_equal(bpf_qdisc_detach(ifindex, &mq), 0);
	expect_equal(attach("bpf_mq", 0), 0);
	snprintf(command, sizeof(command), "tc class add dev " DEV " parent %1$x: classid %1$x:1 bpf",
		 instance(1).handle >> 16);
	expect(!system(command));
	skel->bss->to_class = true;
	ok = change_fails() && old_programs_everywhere() && every_packet_leaves();
	skel->bss->to_class = false;
	return ok;
}

static bool stuck_instances(int count)
{
	char command[100];

	snprintf(command, sizeof(command), "test `tc -s -j qdisc show dev " DEV " | grep -o '\"is_stuck\":true' | wc -l` = %d",
		 count);
	expect(!system(command));
	return true;
}

/* The policy of the first queue is stuck before the change that fails. What the new programs have
 * stored there the kernel's FIFO serves, and each packet is counted once.
 */
static bool stuck_again(void)
{
	LIBBPF_OPTS(bpf_qdisc_opts, mq, .kind = "bpf_mq");
	struct bpf_qdisc_info info;

	go_on(0);
	skel->bss->stopped = 0;
	expect_equal(bpf_qdisc_detach(ifindex, &mq), 0);
	expect_equal(attach("bpf_mq", 0), 0);
	expect(!system("tc qdisc change dev " DEV " root bpf_mq patience 10ms"));
	skel->bss->closed = false;
	skel->bss->silent = true;
	expect(send_packet(0));
	expect(arrives(0, false));
	expect(stuck_instances(1));
	skel->bss->silent = false;
	expect(change_fails());
	expect(old_programs_everywhere());
	expect(stuck_instances(1));
	/* That of both the FIFO had before the change. */
	expect(arrives(0, true));
	expect(arrives(0, false));
	info = instance(1);
	expect_equal(info.packets, 3);
	expect_equal(info.bytes, 3 * LENGTH);
	expect_equal(info.qlen, 0);
	expect_equal(info.backlog, 0);
	expect_equal(info.drops, 0);
	expect_equal(instance(QUEUES).qlen, 1);
	skel->bss->closed = false;
	expect(!bpf_qdisc_change(ifindex, -1, -1, &mq));
	expect(arrives(QUEUES - 1, false));
	expect(new_programs_when_nothing_is_in_the_way());
	expect(stuck_instances(0));
	return true;
}

/* A policy that will be found stuck, below another qdisc: the root is only deleted when no
 * program runs.
 */
static bool silent_child(void)
{
	go_on(0);
	skel->bss->stopped = 0;
	skel->bss->reports = 0;
	expect(!system("tc qdisc replace dev " DEV " root handle 2: prio"));
	expect_equal(attach(NULL, BAND), 0);
	expect(!system("tc qdisc change dev " DEV " parent 2:2 handle 1: bpf patience 10ms"));
	skel->bss->silent = true;
	return true;
}

/* A change of the peer's qdisc is stopped, which holds RTNL */
static void *hold_rtnl(void *error)
{
	skel->bss->stop_at = TC_H_ROOT;
	*(int *)error = bpf_qdisc_change(if_nametoindex(PEER), -1, -1, NULL);
	return NULL;
}

static bool is_told(int netlink)
{
	struct {
		struct nlmsghdr n;
		struct tcmsg t;
		char rest[4096];
	} message;

	do {
		expect(recv(netlink, &message, sizeof(message), 0) > 0);
	} while (message.n.nlmsg_type != RTM_NEWQDISC || message.t.tcm_ifindex != ifindex ||
		 message.t.tcm_handle != HANDLE);
	return true;
}

static bool told_when_rtnl_is_free(void)
{
	struct sockaddr_nl group = { .nl_family = AF_NETLINK, .nl_groups = RTMGRP_TC };
	struct timeval patience = { .tv_sec = 20 };
	pthread_t thread;
	int netlink, error = -1;
	bool told;

	expect(silent_child());
	expect_equal(bpf_qdisc_attach(if_nametoindex(PEER), bpf_program__fd(skel->progs.old_enqueue),
				      bpf_program__fd(skel->progs.old_dequeue), NULL), 0);
	netlink = socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE);
	expect(!setsockopt(netlink, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)));
	expect(!bind(netlink, (void *)&group, sizeof(group)));
	expect(!pthread_create(&thread, NULL, hold_rtnl, &error));
	told = wait_for(&skel->bss->stopped, 1) && send_packet(0) && wait_for(&skel->bss->reports, 8);
	go_on(1);
	pthread_join(thread, NULL);
	expect_equal(error, 0);
	expect(told && is_told(netlink));
	/* each wait is twice as long as the one before: 127 ticks of at least 1 ms */
	expect(skel->bss->reported[7] - skel->bss->reported[0] >= 120000000);
	close(netlink);
	expect_equal(bpf_qdisc_detach(if_nametoindex(PEER), NULL), 0);
	return true;
}

/* Stopped is what would tell; it goes on, after a second, when it is not told to. */
static bool deleted_before_it_is_told(void)
{
	LIBBPF_OPTS(bpf_qdisc_opts, child, .parent = BAND);

	expect_equal(bpf_qdisc_detach(ifindex, &child), 0);
	expect(silent_child());
	skel->bss->patience = 1000000000;
	skel->bss->stop_report = 1;
	expect(send_packet(0));
	expect(wait_for(&skel->bss->stopped, 1));
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
	skel->bss->patience = 30000000000;
}

static const struct {
	const char *name;
	bool (*run)(void);
} all[] = {
	{ "a change fails in its middle", change_fails },
	{ "the old programs are in force", old_programs_everywhere },
	{ "every packet leaves", every_packet_leaves },
	{ "the next change does not fail", new_programs_when_nothing_is_in_the_way },
	{ "the same with a pair of programs for each queue", with_a_pair_for_each_queue },
	{ "packets in a class that the old programs do not ask leave", with_a_class },
	{ "a policy that was stuck before a change that fails is so again", stuck_again },
	{ "user space is told of a policy that is stuck when RTNL is free", told_when_rtnl_is_free },
	{ "a qdisc is deleted before user space is told that it is stuck", deleted_before_it_is_told },
};

int main(void)
{
	const int count = sizeof(all) / sizeof(all[0]);

	set_up();
	printf("1..%d\n", count);
	for (int i = 0; i < count; i++)
		result(all[i].run(), all[i].name);
	races__destroy(skel);
	if (system("ip link del " DEV))
		errx(1, "cannot delete the devices");
	return failed ? 1 : 0;
}
