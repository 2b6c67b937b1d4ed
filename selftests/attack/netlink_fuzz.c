// SPDX-License-Identifier: GPL-2.0
/*
 * netlink_fuzz: 100,000 messages about qdiscs, classes and filters of the kinds bpf and
 * bpf_mq, valid and not. After each batch a packet still goes through the device; every
 * refusal of ours says why; and at the end nothing is left of it all.
 *
 * SEED=N takes other messages, MESSAGES=N so many (make check-debug: 20,000).
 */
#define _GNU_SOURCE
#include "../lib/map.h"
#include "netlink_fuzz.skel.h"
#include <arpa/inet.h>
#include <dirent.h>
#include <fcntl.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/netlink.h>
#include <linux/pkt_cls.h>
#include <linux/pkt_sched.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <sys/socket.h>
#include <unistd.h>

#define TYPES		12
#define ERRORS		256
#define BATCH		64		/* messages in one send */
#define MESSAGE_MAX	2048
#define SOCKET_BUFFER	(1 << 26)
#define ETHERTYPE	0x88b5		/* nobody else's */

static struct netlink_fuzz *skel;
static int netlink, sender, receiver;
static int devices[4];		/* that are up, wired to each other; down, two more */
static int fds[16], fd_count;	/* to give as programs; the first four are right */
static uint32_t sequence;
static uint64_t acks, texts;	/* refusals that came back, and those with a text */

static unsigned int dice(unsigned int sides)
{
	return (unsigned int)random() % sides;
}

#define ONE_OF(...)								\
	({									\
		const uint32_t list_[] = { __VA_ARGS__ };			\
										\
		list_[dice(sizeof(list_) / sizeof(list_[0]))];			\
	})

/* ---- a message ---- */

static char batch[BATCH * MESSAGE_MAX] __attribute__((aligned(4)));
static struct nlmsghdr *message;
static unsigned int wild;	/* one attribute in so many is spoilt; 0: none */

static char *tail(void)
{
	return (char *)message + NLMSG_ALIGN(message->nlmsg_len);
}

static void *attr(int type, const void *data, unsigned int size)
{
	struct nlattr *nla = (struct nlattr *)tail();
	bool spoil = wild && !dice(wild);
	unsigned int real = size;

	if (spoil && !dice(3))
		type = ONE_OF(0, 1, 2, 9, 17, 255, 0x3fff);
	if (spoil && !dice(3))
		type |= dice(2) ? NLA_F_NESTED : NLA_F_NET_BYTEORDER;
	if (spoil && !dice(3))
		real = dice(size + 9);
	if (message->nlmsg_len + real + 64 > MESSAGE_MAX)
		return nla;
	nla->nla_type = type;
	nla->nla_len = NLA_HDRLEN + real;
	memset(nla + 1, dice(256), NLA_ALIGN(real));
	if (data)
		memcpy(nla + 1, data, real < size ? real : size);
	message->nlmsg_len = NLMSG_ALIGN(message->nlmsg_len) + NLA_ALIGN(nla->nla_len);
	if (spoil && !dice(4))
		nla->nla_len += dice(2) ? dice(64) : -dice(8);
	return nla;
}

static void attr_u32(int type, uint32_t value)
{
	attr(type, &value, sizeof(value));
}

static void attr_u64(int type, uint64_t value)
{
	attr(type, &value, sizeof(value));
}

static void attr_text(int type, const char *text)
{
	attr(type, text, strlen(text) + 1);
}

static struct nlattr *nest(int type)
{
	return attr(type, NULL, 0);
}

static void nest_end(struct nlattr *nla)
{
	if (!wild || dice(2 * wild))
		nla->nla_len = tail() - (char *)nla;
}

static void program(int type, unsigned int right)
{
	struct nlattr *nla = nest(type);
	unsigned int count = dice(6) ? 1 : 1 + dice(6);	/* for each tx queue */
	bool spoil = wild && !dice(wild);
	uint32_t programs[6];

	for (unsigned int i = 0; i < count; i++)
		programs[i] = fds[spoil ? dice(fd_count) : right];
	if (!spoil || dice(4))
		attr(TCA_SCH_BPF_PROG_FD, programs, count * sizeof(*programs));
	if (wild && !dice(wild))
		attr_u32(ONE_OF(0, 1, 2, 3, 4, 5), (uint32_t)random());
	nest_end(nla);
}

static void qdisc_options(void)
{
	struct nlattr *nla = nest(TCA_OPTIONS);
	char name[100];

	if (dice(8)) {
		program(TCA_SCH_BPF_ENQUEUE, dice(2));
		if (!wild || dice(wild))
			program(TCA_SCH_BPF_DEQUEUE, 2 + dice(2));
	}
	if (!dice(3))
		attr_u32(TCA_SCH_BPF_LIMIT, wild ? ONE_OF(0, 1, 100, INT32_MAX, UINT32_MAX) : 1 + dice(5000));
	if (!dice(4)) {
		memset(name, 'x', sizeof(name));
		name[wild ? dice(99) : dice(64)] = 0;
		attr_text(TCA_SCH_BPF_OBJECT, name);
	}
	if (!dice(4))
		attr_u32(TCA_SCH_BPF_FLAGS, wild ? ONE_OF(0, 1, 2, 3, UINT32_MAX) : dice(2));
	for (int type = TCA_SCH_BPF_HORIZON; type <= TCA_SCH_BPF_PATIENCE; type++)
		if (!dice(4))
			attr_u64(type, wild && !dice(2) ? ONE_OF(0, 1, 9999999, UINT32_MAX) * 65537ULL :
				       10000000ULL + random());
	if (wild && !dice(wild))
		attr(TCA_SCH_BPF_PATIENCE + dice(4), NULL, dice(32));
	nest_end(nla);
}

static void filter_options(void)
{
	static const struct { uint16_t code; uint8_t jt, jf; uint32_t k; } accept = { 6, 0, 0, 1 };
	struct nlattr *nla = nest(TCA_OPTIONS);
	uint16_t length = wild ? dice(3) : 1;

	if (dice(2)) {
		attr_u32(TCA_BPF_FD, wild && !dice(3) ? fds[dice(fd_count)] : fds[4]);
		attr_text(TCA_BPF_NAME, "fuzz");
	} else {
		attr(TCA_BPF_OPS_LEN, &length, sizeof(length));
		attr(TCA_BPF_OPS, &accept, sizeof(accept));
	}
	if (dice(2))
		attr_u32(TCA_BPF_CLASSID, ONE_OF(0x10001, 0x10002, 0x10003, 0x20001));
	if (!dice(4))
		attr_u32(TCA_BPF_FLAGS, wild ? dice(4) : 1);
	nest_end(nla);
}

static void size_table(void)
{
	struct tc_sizespec spec = { .cell_log = dice(40), .size_log = dice(40), .overhead = dice(100) - 50,
				    .linklayer = dice(4), .mpu = dice(2000), .tsize = dice(4) };
	struct nlattr *nla = nest(TCA_STAB);
	uint16_t data[4] = { 1, 100, 1000, 65535 };

	attr(TCA_STAB_BASE, &spec, sizeof(spec));
	attr(TCA_STAB_DATA, data, 2 * spec.tsize);
	nest_end(nla);
}

static void rate(void)
{
	struct tc_estimator estimator = { .interval = wild ? dice(256) : 0, .ewma_log = dice(wild ? 256 : 30) };

	attr(TCA_RATE, &estimator, sizeof(estimator));
}

static const char *kind(void)
{
	static const char *const odd[] = { "pfifo", "bp", "bpf_", "bpf_mqueue", "", "bpf_qdisc_long_name" };

	if (wild && !dice(wild))
		return odd[dice(sizeof(odd) / sizeof(odd[0]))];
	return dice(4) ? "bpf" : "bpf_mq";
}

/* What tc sends */
static void usual(struct tcmsg *tc)
{
	switch (message->nlmsg_type) {
	case RTM_NEWQDISC:
		tc->tcm_parent = dice(6) ? TC_H_ROOT : 0x10001 + dice(3);
		tc->tcm_handle = tc->tcm_parent == TC_H_ROOT ? 0x10000 : 0x20000 + 0x10000 * dice(4);
		message->nlmsg_flags |= ONE_OF(0, NLM_F_CREATE | NLM_F_EXCL, NLM_F_CREATE | NLM_F_REPLACE,
					       NLM_F_CREATE, NLM_F_REPLACE);
		break;
	case RTM_DELQDISC:
	case RTM_GETQDISC:
		tc->tcm_parent = dice(2) ? TC_H_ROOT : 0x10001 + dice(3);
		break;
	case RTM_NEWTCLASS:
		tc->tcm_parent = 0x10000;
		message->nlmsg_flags |= NLM_F_CREATE | (dice(2) ? NLM_F_EXCL : 0);
		/* fall through */
	case RTM_DELTCLASS:
	case RTM_GETTCLASS:
		tc->tcm_handle = 0x10001 + dice(5);
		break;
	default:
		tc->tcm_parent = 0x10000;
		tc->tcm_info = TC_H_MAKE((1 + dice(3)) << 16, htons(ETH_P_ALL));
		if (message->nlmsg_type == RTM_NEWTFILTER)
			message->nlmsg_flags |= NLM_F_CREATE | (dice(2) ? NLM_F_EXCL : 0);
		else if (dice(4))
			tc->tcm_handle = 1 + dice(2);
		else
			tc->tcm_info = 0;
	}
}

static const uint16_t usual_types[] = {
	RTM_NEWQDISC, RTM_NEWQDISC, RTM_NEWQDISC, RTM_NEWQDISC, RTM_NEWQDISC, RTM_NEWQDISC,
	RTM_DELQDISC, RTM_GETQDISC, RTM_NEWTCLASS, RTM_NEWTCLASS, RTM_NEWTCLASS, RTM_DELTCLASS,
	RTM_GETTCLASS, RTM_NEWTFILTER, RTM_NEWTFILTER, RTM_NEWTFILTER, RTM_DELTFILTER, RTM_GETTFILTER,
};

static void generate(void)
{
	struct tcmsg *tc = NLMSG_DATA(message);
	const char *name;

	wild = ONE_OF(0, 0, 0, 24, 8, 3);
	memset(message, 0, NLMSG_SPACE(sizeof(*tc)));
	message->nlmsg_len = NLMSG_LENGTH(sizeof(*tc));
	message->nlmsg_type = usual_types[dice(sizeof(usual_types) / sizeof(usual_types[0]))];
	message->nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK;
	message->nlmsg_seq = ++sequence;
	/* Few are for the device that is up: to change its qdisc takes a while */
	tc->tcm_ifindex = devices[dice(24) ? 2 + dice(2) : 0];
	usual(tc);
	if (wild && !dice(wild)) {
		message->nlmsg_flags = NLM_F_REQUEST | (dice(4096) & ~NLM_F_DUMP);
		if (!dice(4))
			message->nlmsg_flags |= dice(2) ? NLM_F_DUMP : dice(4) << 8;
	}
	if (wild && !dice(wild))
		tc->tcm_ifindex = ONE_OF(0, 1, -1, 77, INT32_MAX, INT32_MIN);
	if (wild && !dice(wild))
		tc->tcm_handle = ONE_OF(0, 1, 0x10000, 0x10001, 0x20000, 0xffff0000, UINT32_MAX, (uint32_t)random());
	if (wild && !dice(wild))
		tc->tcm_parent = ONE_OF(0, TC_H_ROOT, TC_H_INGRESS, 0x10000, 0x10001, 0x20000, 0x20001,
					(uint32_t)random());
	if (wild && !dice(wild))
		tc->tcm_info = (uint32_t)random();

	name = kind();
	if (!wild || dice(2 * wild))
		attr(TCA_KIND, name, strlen(name) + (wild && !dice(wild) ? 0 : 1));
	if (message->nlmsg_type >= RTM_NEWTFILTER)
		filter_options();
	else if (message->nlmsg_type == RTM_NEWQDISC || (wild && !dice(wild)))
		qdisc_options();
	if (!dice(8))
		rate();
	if (!dice(wild ? 8 : 64))
		size_table();
	if (wild && !dice(wild))
		attr_u32(ONE_OF(TCA_CHAIN, TCA_INGRESS_BLOCK, TCA_EGRESS_BLOCK, TCA_HW_OFFLOAD, TCA_DUMP_FLAGS,
				TCA_DUMP_INVISIBLE, TCA_MAX + 1), dice(3));

	/* Bytes of attributes that are neither here nor there */
	if (wild == 3 && message->nlmsg_len > NLMSG_SPACE(sizeof(*tc))) {
		unsigned int start = NLMSG_SPACE(sizeof(*tc));

		for (unsigned int n = dice(4); n--;)
			((uint8_t *)message)[start + dice(message->nlmsg_len - start)] ^= 1 << dice(8);
		if (!dice(4))
			message->nlmsg_len = start + dice(message->nlmsg_len - start);
	}
}

/* ---- what comes back ---- */

static void read_ack(const struct nlmsghdr *reply)
{
	const struct nlmsgerr *error = NLMSG_DATA(reply);

	if (!error->error)
		return;
	acks++;
	if (!(reply->nlmsg_flags & NLM_F_ACK_TLVS))
		return;
	for (const char *at = (const char *)(error + 1); at < (const char *)reply + reply->nlmsg_len;
	     at += NLA_ALIGN(((const struct nlattr *)at)->nla_len))
		texts += ((const struct nlattr *)at)->nla_type == NLMSGERR_ATTR_MSG;
}

static bool read_replies(void)
{
	static char buffer[1 << 17] __attribute__((aligned(4)));
	int size;

	while ((size = recv(netlink, buffer, sizeof(buffer), MSG_DONTWAIT)) > 0)
		for (struct nlmsghdr *reply = (void *)buffer; NLMSG_OK(reply, (unsigned int)size);
		     reply = NLMSG_NEXT(reply, size))
			if (reply->nlmsg_type == NLMSG_ERROR)
				read_ack(reply);
	expect_equal(size < 0 ? errno : 0, EAGAIN);
	return true;
}

/* A packet goes through the qdisc that is there now. */
static bool forwards(void)
{
	struct { uint8_t to[6], from[6]; uint16_t type; uint32_t number; char rest[40]; } frame = {
		.to = { 2 }, .from = { 2 }, .type = htons(ETHERTYPE), .number = sequence,
	};
	struct pollfd waiting = { .fd = receiver, .events = POLLIN };
	char got[2048];

	expect_equal(send(sender, &frame, sizeof(frame), 0), sizeof(frame));
	expect_equal(poll(&waiting, 1, 10000), 1);
	expect_equal(recv(receiver, got, sizeof(got), 0), sizeof(frame));
	expect(!memcmp(got, &frame, sizeof(frame)));
	return true;
}

static bool one_batch(unsigned int count)
{
	unsigned int size = 0;
	uint64_t before = skel->bss->messages;

	for (unsigned int i = 0; i < count; i++) {
		message = (struct nlmsghdr *)(batch + size);
		generate();
		size += NLMSG_ALIGN(message->nlmsg_len);
	}
	expect_equal(send(netlink, batch, size, 0), size);
	expect(read_replies());
	expect_equal(skel->bss->messages - before, count);
	/* Every refusal reaches the sender, with what the kernel has said of it. */
	expect_equal(acks, skel->bss->refused);
	expect_equal(texts, skel->bss->said);
	return forwards();
}

/* A header that lies about the length: the rest of what is sent with it is not read. */
static bool wrong_length(void)
{
	unsigned int size;

	message = (struct nlmsghdr *)batch;
	generate();
	size = message->nlmsg_len;
	message->nlmsg_len = dice(2) ? dice(NLMSG_HDRLEN + sizeof(struct tcmsg)) : size + dice(1000);
	expect_equal(send(netlink, batch, size, 0), size);
	return read_replies();
}

static bool sends(unsigned int seed, unsigned int count)
{
	bool ok = true;

	srandom(seed);
	for (unsigned int done = 0; ok && done < count; done += BATCH)
		ok = one_batch(count - done < BATCH ? count - done : BATCH) && (dice(4) || wrong_length());
	if (!ok)
		printf("# SEED=%u, up to message %u\n", seed, sequence);
	return ok;
}

/* ---- what is left ---- */

struct left {
	int programs, maps;
	long objects;		/* of the kernel's memory */
};

static int count_ids(int (*next)(uint32_t, uint32_t *))
{
	uint32_t id = 0;
	int n = 0;

	while (!next(id, &id))
		n++;
	return n;
}

static long count_objects(void)
{
	char line[512], name[300], path[400];
	struct dirent *entry;
	long sum = 0, active;
	FILE *file;
	DIR *dir;

	dir = opendir("/sys/kernel/slab");
	while (dir && (entry = readdir(dir))) {
		if (strncmp(entry->d_name, "kmalloc-", 8) && strcmp(entry->d_name, "skbuff_head_cache"))
			continue;
		snprintf(path, sizeof(path), "/sys/kernel/slab/%s/shrink", entry->d_name);
		file = fopen(path, "w");
		if (!file || fputs("1", file) < 0 || fclose(file))
			err(1, "%s", path);
	}
	if (!dir || closedir(dir))
		err(1, "/sys/kernel/slab");
	file = fopen("/proc/slabinfo", "r");
	if (!file)
		err(1, "/proc/slabinfo");
	while (fgets(line, sizeof(line), file))
		if (sscanf(line, "%299s %ld", name, &active) == 2 &&
		    (!strncmp(name, "kmalloc-", 8) || !strcmp(name, "skbuff_head_cache")))
			sum += active;
	fclose(file);
	return sum;
}

static struct left count_left(void)
{
	return (struct left){
		.programs = count_ids(bpf_prog_get_next_id),
		.maps = count_ids(bpf_map_get_next_id),
		.objects = count_objects(),
	};
}

/* Programs and maps to the last one; of the memory, what CPUs keep for later aside */
static bool returns_to(const struct left *before, unsigned int count)
{
	struct left now;

	for (int tries = 0; tries < 100; tries++) {
		now = count_left();
		if (now.programs == before->programs && now.maps == before->maps &&
		    now.objects < before->objects + count / 100)
			break;
		usleep(100000);
	}
	printf("# left: %d programs, %d maps, %ld objects of the kernel's memory\n",
	       now.programs - before->programs, now.maps - before->maps, now.objects - before->objects);
	expect_equal(now.programs, before->programs);
	expect_equal(now.maps, before->maps);
	expect(now.objects < before->objects + count / 100);
	return true;
}

/* ---- the devices ---- */

static void shell(const char *command)
{
	if (system(command))
		errx(1, "failed: %s", command);
}

static int packet_socket(int device)
{
	struct sockaddr_ll address = { .sll_family = AF_PACKET, .sll_protocol = htons(ETHERTYPE),
				       .sll_ifindex = device };
	int fd = socket(AF_PACKET, SOCK_RAW, 0);

	if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)))
		err(1, "packet socket");
	return fd;
}

static void make_devices(void)
{
	static const char *const names[] = { "a", "b", "queues", "single" };

	shell("ip link add name a numtxqueues 4 type veth peer name b && ip link set dev a up && ip link set dev b up &&"
	      "ip link add name queues numtxqueues 4 type dummy && ip link add name single type dummy");
	for (int i = 0; i < 4; i++)
		devices[i] = if_nametoindex(names[i]);
	sender = packet_socket(devices[0]);
	receiver = packet_socket(devices[1]);
}

/* A qdisc that is not freed would hold its device: this would never end. */
static void delete_devices(void)
{
	close(sender);
	close(receiver);
	shell("ip link del dev a && ip link del dev queues && ip link del dev single");
}

static void set_up(void)
{
	int on = 1, size = SOCKET_BUFFER;

	if (unshare(CLONE_NEWNET))
		err(1, "network namespace");
	shell("sysctl -qw net.ipv6.conf.default.disable_ipv6=1");
	netlink = socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE);
	if (netlink < 0 || setsockopt(netlink, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size)) ||
	    setsockopt(netlink, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof(size)) ||
	    setsockopt(netlink, SOL_NETLINK, NETLINK_EXT_ACK, &on, sizeof(on)) ||
	    setsockopt(netlink, SOL_NETLINK, NETLINK_CAP_ACK, &on, sizeof(on)))
		err(1, "netlink");
}

static void load_programs(void)
{
	const int list[] = {
		bpf_program__fd(skel->progs.one_enqueue), bpf_program__fd(skel->progs.two_enqueue),
		bpf_program__fd(skel->progs.one_dequeue), bpf_program__fd(skel->progs.two_dequeue),
		bpf_program__fd(skel->progs.classifier), bpf_program__fd(skel->progs.socket_filter),
		bpf_program__fd(skel->progs.exit_message), bpf_map__fd(skel->maps.fuzz_queues),
		netlink, 0, -1, 1000, INT32_MAX, INT32_MIN,
	};

	fd_count = sizeof(list) / sizeof(list[0]);
	memcpy(fds, list, sizeof(list));
	skel->bss->pid = getpid();
}

static void print_outcomes(void)
{
	static const char *const names[TYPES] = {
		"new qdisc", "del qdisc", "get qdisc", NULL, "new class", "del class", "get class", NULL,
		"new filter", "del filter", "get filter",
	};

	for (int type = 0; type < TYPES; type++) {
		if (!names[type])
			continue;
		printf("# %s:", names[type]);
		for (int error = 0; error < ERRORS; error++)
			if (skel->bss->outcomes[type][error])
				printf(" %s %llu", error ? strerrorname_np(error) : "done",
				       (unsigned long long)skel->bss->outcomes[type][error]);
		printf("\n");
	}
	printf("# %llu refused, %llu of them by the qdisc\n", (unsigned long long)skel->bss->refused,
	       (unsigned long long)skel->bss->ours);
}

static bool run_case(unsigned int seed, unsigned int count)
{
	bool ok;

	make_devices();
	ok = sends(seed, count);
	delete_devices();
	return ok;
}

static bool says_why(void)
{
	if (skel->bss->silent.count)
		printf("# %u in silence; the first is message %u: type %u, %s\n", skel->bss->silent.count,
		       skel->bss->silent.seq, skel->bss->silent.type,
		       strerrorname_np((int)skel->bss->silent.error));
	expect_equal(skel->bss->silent.count, 0);
	expect(skel->bss->ours > skel->bss->refused / 50);
	return true;
}

static bool much_of_each(unsigned int count)
{
	for (int type = 0; type < TYPES; type++) {
		uint64_t done = skel->bss->outcomes[type][0], not = 0;

		if (type % 4 == 3)
			continue;
		for (int error = 1; error < ERRORS; error++)
			not += skel->bss->outcomes[type][error];
		expect(done > count / 1000 && not > count / 1000);
	}
	return true;
}

int main(void)
{
	/* Under KASAN a message takes several times as long. */
	unsigned int count = setting("MESSAGES", setting("SELFTESTS_DEBUG", 0) ? 20000 : 100000);
	unsigned int first = setting("SEED", 1);
	struct left before, loaded;
	bool ok;

	printf("1..4\n# seed %u, %u messages\n", first, count);
	set_up();
	before = count_left();
	skel = netlink_fuzz__open_and_load();
	if (!skel || netlink_fuzz__attach(skel))
		err(1, "programs");
	load_programs();
	run_case(first + 1, 2000);	/* caches fill */
	loaded = count_left();
	ok = run_case(first, count);
	print_outcomes();
	result(ok, "packets pass between the messages");
	result(says_why(), "the qdisc says why it refuses");
	result(much_of_each(count), "messages of each type were taken and refused");
	ok = returns_to(&loaded, count);
	netlink_fuzz__destroy(skel);
	result(returns_to(&before, count) && ok, "nothing is left");
	return failed ? 1 : 0;
}
