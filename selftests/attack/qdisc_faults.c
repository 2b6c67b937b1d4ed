// SPDX-License-Identifier: GPL-2.0
/*
 * qdisc_faults: no memory, at every point of what is done to a qdisc. An
 * operation is done again and again: first its first request for memory fails, then
 * its second one, and so on until all are had; then the same with all requests from the
 * first, second, ... on. Each time it fails with an error and nothing has changed, or it
 * has done all that it should; then packets pass, and the counters are exact. In the end the
 * device can be deleted, and programs and maps are gone. (What is leaked nevertheless,
 * kmemleak tells.)
 *
 * The kernel may carry a request out and then lack the memory to say so: the answer is
 * then ENOBUFS.
 */
#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/ip.h>
#include <linux/pkt_cls.h>
#include <linux/pkt_sched.h>
#include <linux/rtnetlink.h>
#include <linux/sockios.h>
#include <linux/udp.h>
#include <linux/virtio_net.h>
#include <malloc.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>

#include "../lib/expect.h"
#include "faults.h"
#include "victim.skel.h"

#define DEV		"faults0"
#define PEER		"faults1"
#define QUEUES		"4"
#define PROTOCOL	ETH_P_IP	/* which can be cut into segments */
#define LENGTH		100		/* bytes of a packet, or of a segment */
#define SEGMENTS	2
#ifndef VIRTIO_NET_HDR_GSO_UDP_L4
#define VIRTIO_NET_HDR_GSO_UDP_L4	5
#endif
#define ROOT		0x10000		/* handle of the qdisc under test */
#define CLASS		0x10001
#define CHILD		0x20000		/* handle of a qdisc below the class */
#define ENOTSUPP	524		/* the kernel's own */
#define LARGE_ELEM	2048		/* bytes in which an element of `large_queues` fits */

enum { PLAIN, LARGE, CLONE, CLASSIFY, PASS, SEGMENT };	/* as victim.bpf.c has them */

static struct victim *victim;
static struct bpf_object *opened;	/* and not loaded */
static int ifindex, netlink, sender, receiver;
static int all_points, all_errors;

static void must(int error, const char *what)
{
	if (error) {
		errno = -error;
		err(1, "%s", what);
	}
}

/* ---- netlink ---- */

static struct {
	struct nlmsghdr n;
	struct tcmsg t;
	char attributes[512];
} message;

static void begin(int type, int flags, uint32_t parent, uint32_t handle)
{
	memset(&message, 0, sizeof(message));
	message.n.nlmsg_len = NLMSG_LENGTH(sizeof(message.t));
	message.n.nlmsg_type = type;
	message.n.nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK | flags;
	message.t.tcm_ifindex = ifindex;
	message.t.tcm_parent = parent;
	message.t.tcm_handle = handle;
}

static void *attribute(int type, const void *data, size_t size)
{
	struct nlattr *attr = (void *)&message + message.n.nlmsg_len;

	attr->nla_type = type;
	attr->nla_len = NLA_HDRLEN + size;
	memcpy((char *)attr + NLA_HDRLEN, data, size);
	message.n.nlmsg_len += NLA_ALIGN(attr->nla_len);
	return attr;
}

/* What was put in since is part of it. */
static void end_nest(struct nlattr *nest)
{
	nest->nla_len = (char *)&message + message.n.nlmsg_len - (char *)nest;
}

static void kind(const char *name)
{
	attribute(TCA_KIND, name, strlen(name) + 1);
}

/* The answer to a request that was sent */
static int answer(void)
{
	static struct {
		struct nlmsghdr n;
		struct nlmsgerr e;
		char rest[4096];
	} reply;

	do {
		if (recv(netlink, &reply, sizeof(reply), 0) < 0)
			return -errno;
	} while (reply.n.nlmsg_seq != message.n.nlmsg_seq || reply.n.nlmsg_type != NLMSG_ERROR);
	return reply.e.error;
}

/* Send what has been put together; all of it is done when send() returns. */
static int request(void)
{
	static uint32_t seq;
	int sent;

	message.n.nlmsg_seq = ++seq;
	faults_begin();
	sent = send(netlink, &message, message.n.nlmsg_len, 0);
	faults_end();
	return sent < 0 ? -errno : answer();
}

/* ---- what there is ---- */

struct state {
	uint32_t handle, limit, enqueue, dequeue, qlen, backlog, drops;
	uint64_t packets, bytes;
	struct {
		int count;
		uint64_t hash;
	} dumps[3];		/* qdiscs, classes, filters */
	bool has_class;		/* CLASS */
};

static uint64_t hash(uint64_t sum, const void *data, size_t size)
{
	for (const unsigned char *byte = data; size--; byte++)
		sum = (sum ^ *byte) * 0x100000001b3;
	return sum;
}

static uint64_t hash_message(const struct nlmsghdr *n, bool *is_bpf)
{
	const struct tcmsg *t = NLMSG_DATA(n);
	int left = n->nlmsg_len - NLMSG_LENGTH(sizeof(*t));
	const struct nlattr *attr = (const void *)(t + 1);
	/* An instance of bpf_mq has a handle that the kernel chooses, another one each time. */
	uint32_t where[] = { t->tcm_handle < 1U << 31 ? t->tcm_handle : 1U << 31, t->tcm_parent };
	uint64_t sum = hash(0xcbf29ce484222325, where, sizeof(where));

	*is_bpf = false;
	for (; left > 0; left -= NLA_ALIGN(attr->nla_len), attr = (void *)attr + NLA_ALIGN(attr->nla_len)) {
		if (attr->nla_type == TCA_KIND || attr->nla_type == TCA_OPTIONS)
			sum = hash(sum, attr, attr->nla_len);
		if (attr->nla_type == TCA_KIND)
			*is_bpf = !strcmp((char *)(attr + 1), "bpf");
	}
	return sum;
}

static void dump(int type, int index, struct state *now)
{
	static char buffer[1 << 16];
	struct nlmsghdr *n;
	unsigned int len;
	ssize_t got;
	bool is_bpf;

	begin(type, NLM_F_DUMP, 0, 0);
	if (type == RTM_GETTFILTER)
		message.t.tcm_parent = ROOT;
	send(netlink, &message, message.n.nlmsg_len, 0);
	for (;;) {
		got = recv(netlink, buffer, sizeof(buffer), 0);
		if (got < 0)
			err(1, "no dump of type %d", type);
		len = got;
		for (n = (void *)buffer; NLMSG_OK(n, len); n = NLMSG_NEXT(n, len)) {
			struct tcmsg *t = NLMSG_DATA(n);

			if (n->nlmsg_type == NLMSG_DONE)
				return;
			if (n->nlmsg_type == NLMSG_ERROR)
				must(((struct nlmsgerr *)t)->error, "dump");
			if (t->tcm_ifindex != ifindex)
				continue;
			now->dumps[index].count++;
			now->dumps[index].hash += hash_message(n, &is_bpf);
			if (type == RTM_GETTCLASS && t->tcm_handle == CLASS && is_bpf)
				now->has_class = true;
		}
	}
}

static bool query(struct bpf_qdisc_info *info)
{
	LIBBPF_OPTS(bpf_qdisc_opts, mq, .kind = "bpf_mq");

	memset(info, 0, sizeof(*info));
	info->sz = sizeof(*info);
	return !bpf_qdisc_query(ifindex, NULL, info) || !bpf_qdisc_query(ifindex, &mq, info);
}

static struct state look(void)
{
	struct bpf_qdisc_info info;
	struct state now;

	memset(&now, 0, sizeof(now));
	if (query(&info)) {
		now.handle = info.handle;
		now.limit = info.limit;
		now.enqueue = info.enqueue_prog_id;
		now.dequeue = info.dequeue_prog_id;
		now.qlen = info.qlen;
		now.backlog = info.backlog;
		now.drops = info.drops;
		now.packets = info.packets;
		now.bytes = info.bytes;
	}
	dump(RTM_GETQDISC, 0, &now);
	dump(RTM_GETTCLASS, 1, &now);
	if (now.handle)
		dump(RTM_GETTFILTER, 2, &now);
	return now;
}

static bool same(const struct state *a, const struct state *b)
{
	return !memcmp(a, b, sizeof(*a));
}

static void show(const char *what, const struct state *s)
{
	printf("# %s: handle %x limit %u programs %u %u qlen %u backlog %u drops %u sent %llu; %d qdiscs %d classes %d filters\n",
	       what, s->handle, s->limit, s->enqueue, s->dequeue, s->qlen, s->backlog, s->drops,
	       (unsigned long long)s->packets, s->dumps[0].count, s->dumps[1].count,
	       s->dumps[2].count);
}

/* ---- packets ---- */

static int send_frame(const void *frame, size_t size)
{
	struct sockaddr_ll to = {
		.sll_family = AF_PACKET,
		.sll_protocol = htons(PROTOCOL),
		.sll_ifindex = ifindex,
	};
	int sent;

	faults_begin();
	sent = sendto(sender, frame, size, 0, (void *)&to, sizeof(to));
	faults_end();
	return sent < 0 ? -errno : 0;
}

static int send_packet(void)
{
	static const char frame[LENGTH] = { [12] = PROTOCOL >> 8, [13] = PROTOCOL & 0xff };

	return send_frame(frame, sizeof(frame));
}

static void with_offload_header(int on)
{
	must(setsockopt(sender, SOL_PACKET, PACKET_VNET_HDR, &on, sizeof(on)) ? -errno : 0, "offload header");
}

/* A packet that is to be cut into SEGMENTS */
static int send_gso(void)
{
	struct {
		struct virtio_net_hdr offload;
		struct headers {
			struct ethhdr eth;
			struct iphdr ip;
			struct udphdr udp;
		} __attribute__((packed)) headers;
		char payload[SEGMENTS * (LENGTH - sizeof(struct headers))];
	} __attribute__((packed)) frame = {
		.offload = {
			.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
			.gso_type = VIRTIO_NET_HDR_GSO_UDP_L4,
			.hdr_len = sizeof(struct headers),
			.gso_size = LENGTH - sizeof(struct headers),
			.csum_start = offsetof(struct headers, udp),
			.csum_offset = offsetof(struct udphdr, check),
		},
		.headers = {
			.eth.h_proto = htons(PROTOCOL),
			.ip = {
				.version = 4,
				.ihl = sizeof(struct iphdr) / 4,
				.ttl = 64,
				.protocol = IPPROTO_UDP,
				.tot_len = htons(sizeof(frame) - offsetof(typeof(frame), headers.ip)),
			},
			.udp.len = htons(sizeof(frame) - offsetof(typeof(frame), headers.udp)),
		},
	};
	int error;

	with_offload_header(1);
	error = send_frame(&frame, sizeof(frame));
	with_offload_header(0);
	return error;
}

static bool receive(int count)
{
	char frame[2 * LENGTH];

	while (count--)
		expect_equal(recv(receiver, frame, sizeof(frame), 0), LENGTH);
	expect(recv(receiver, frame, sizeof(frame), MSG_DONTWAIT) < 0);
	return true;
}

/* Packets pass, what is queued before them, and every counter is right. */
static bool packets_pass(struct state before)
{
	struct bpf_qdisc_info after;
	int fresh = 2, memory = -1;

	victim->bss->closed = false;
	victim->bss->how = PLAIN;
	for (int i = 0; i < 2; i++)
		expect_equal(send_packet(), 0);
	if (before.has_class) {
		victim->bss->how = PASS;
		expect_equal(send_packet(), 0);
		fresh++;
	}
	expect(receive(before.qlen + fresh));
	victim->bss->how = PLAIN;
	victim->bss->closed = true;
	if (before.handle) {
		expect(query(&after));
		expect_equal(after.qlen, 0);
		expect_equal(after.backlog, 0);
		expect_equal(after.drops, before.drops);
		expect_equal(after.packets, before.packets + before.qlen + fresh);
		expect_equal(after.bytes, before.bytes + before.backlog + fresh * LENGTH);
	}
	/* What has been received is a clone: IP may have the packet for a moment more. */
	for (int i = 0; i < 20000 && !ioctl(sender, SIOCOUTQ, &memory) && memory; i++)
		usleep(1000);
	expect_equal(memory, 0);
	return true;
}

/* ---- operations ---- */

static int enqueue_fd(bool is_new)
{
	return bpf_program__fd(is_new ? victim->progs.new_enqueue : victim->progs.old_enqueue);
}

static int dequeue_fd(bool is_new)
{
	return bpf_program__fd(is_new ? victim->progs.new_dequeue : victim->progs.old_dequeue);
}

#define PROGRAMS(is_new) enqueue_fd(is_new), dequeue_fd(is_new)

/* What libbpf does, with faults */
#define FAULTY(call) ({ int error_; faults_begin(); error_ = call; faults_end(); error_; })

static int attach(const char *name, uint32_t parent, uint32_t handle, bool is_new, uint32_t flags)
{
	LIBBPF_OPTS(bpf_qdisc_opts, opts, .parent = parent, .handle = handle, .kind = name,
		    .flags = flags, .limit = 500, .object = "victim");

	return FAULTY(bpf_qdisc_attach(ifindex, PROGRAMS(is_new), &opts));
}

/* pfifo below @parent */
static int attach_pfifo(uint32_t parent, uint32_t handle, int flags)
{
	begin(RTM_NEWQDISC, NLM_F_CREATE | flags, parent, handle);
	kind("pfifo");
	return request();
}

static int change(const char *name, bool programs, uint32_t limit, uint32_t flags)
{
	LIBBPF_OPTS(bpf_qdisc_opts, opts, .kind = name, .limit = limit, .flags = flags);

	if (programs)
		return FAULTY(bpf_qdisc_change(ifindex, PROGRAMS(true), &opts));
	return FAULTY(bpf_qdisc_change(ifindex, -1, -1, &opts));
}

static int class_request(int type, int flags, uint32_t id, bool estimator)
{
	const struct tc_estimator rate = { .interval = 0, .ewma_log = 3 };

	begin(type, flags, ROOT, id);
	kind("bpf");
	if (estimator)
		attribute(TCA_RATE, &rate, sizeof(rate));
	return request();
}

static int filter_request(int type, int flags)
{
	uint32_t id = CLASS;
	struct nlattr *options;

	begin(type, flags, ROOT, type == RTM_DELTFILTER ? 1 : 0);
	message.t.tcm_info = TC_H_MAKE(1 << 16, htons(ETH_P_ALL));
	kind("matchall");
	if (type == RTM_NEWTFILTER) {
		options = attribute(TCA_OPTIONS, NULL, 0);
		attribute(TCA_MATCHALL_CLASSID, &id, sizeof(id));
		end_nest(options);
	}
	return request();
}

static void nothing(void)
{
	int error;

	begin(RTM_DELQDISC, 0, TC_H_ROOT, 0);
	error = request();
	must(error == -ENOENT ? 0 : error, "delete the qdisc");
	victim->bss->closed = true;
	victim->bss->how = PLAIN;
}

static void with_pfifo(void)
{
	nothing();
	must(attach_pfifo(TC_H_ROOT, ROOT, NLM_F_REPLACE), "pfifo");
}

static void with_qdisc(void)
{
	nothing();
	must(attach(NULL, 0, ROOT, false, BPF_QDISC_F_REPLACE), "attach");
}

static void with_packets(void)
{
	with_qdisc();
	for (int i = 0; i < 3; i++)
		must(send_packet(), "send");
}

static void with_mq(void)
{
	nothing();
	must(attach("bpf_mq", 0, ROOT, false, BPF_QDISC_F_REPLACE), "attach");
	for (int i = 0; i < 3; i++)
		must(send_packet(), "send");
}

/* The fourth class will make the table grow. */
static void with_classes(void)
{
	with_packets();
	for (int i = 1; i <= 3; i++)
		must(class_request(RTM_NEWTCLASS, NLM_F_CREATE, CLASS + i, false), "class");
}

static void with_class(void)
{
	with_packets();
	must(class_request(RTM_NEWTCLASS, NLM_F_CREATE, CLASS, false), "class");
}

static void with_child(void)
{
	with_class();
	must(attach_pfifo(CLASS, CHILD, 0), "pfifo");
}

static void with_filter(void)
{
	with_class();
	must(filter_request(RTM_NEWTFILTER, NLM_F_CREATE | NLM_F_EXCL), "filter");
}

static void with_opened(void)
{
	with_qdisc();
	bpf_object__close(opened);
	opened = bpf_object__open_mem(victim->skeleton->data, victim->skeleton->data_sz, NULL);
	if (!opened || bpf_object__set_tx_queues(opened, ifindex) < 0)
		err(1, "open");
}

static int add(void) { return attach(NULL, 0, ROOT, false, 0); }
static int replace(void) { return attach(NULL, 0, CHILD, true, BPF_QDISC_F_REPLACE); }
static int change_programs(void) { return change(NULL, true, 0, 0); }
static int change_limit(void) { return change(NULL, false, 77, 0); }
static int change_flush(void) { return change(NULL, true, 0, BPF_QDISC_F_FLUSH); }
static int add_mq(void) { return attach("bpf_mq", 0, ROOT, false, 0); }
static int change_mq(void) { return change("bpf_mq", true, 77, 0); }

/* A pair of programs for each tx queue, no two dequeue programs of neighbours the same */
static int flush_mq(void)
{
	const uint32_t flags = SCH_BPF_FLUSH;
	struct nlattr *options, *programs;
	uint32_t fds[2][4];

	for (int i = 0; i < 4; i++) {
		fds[0][i] = (uint32_t)enqueue_fd(i % 2);
		fds[1][i] = (uint32_t)dequeue_fd(i % 2);
	}
	begin(RTM_NEWQDISC, 0, TC_H_ROOT, ROOT);
	kind("bpf_mq");
	options = attribute(TCA_OPTIONS | NLA_F_NESTED, NULL, 0);
	for (int i = 0; i < 2; i++) {
		programs = attribute((i ? TCA_SCH_BPF_DEQUEUE : TCA_SCH_BPF_ENQUEUE) | NLA_F_NESTED, NULL, 0);
		attribute(TCA_SCH_BPF_PROG_FD, fds[i], sizeof(fds[i]));
		end_nest(programs);
	}
	attribute(TCA_SCH_BPF_FLAGS, &flags, sizeof(flags));
	end_nest(options);
	return request();
}

static int add_child(void) { return attach(NULL, CLASS, CHILD, false, 0); }
static int add_pfifo(void) { return attach_pfifo(CLASS, CHILD, 0); }

static int delete_qdisc(void)
{
	begin(RTM_DELQDISC, 0, TC_H_ROOT, ROOT);
	return request();
}

static int delete_child(void)
{
	begin(RTM_DELQDISC, 0, CLASS, CHILD);
	return request();
}

static int add_class(void) { return class_request(RTM_NEWTCLASS, NLM_F_CREATE | NLM_F_EXCL, CLASS, false); }
static int add_class_rate(void) { return class_request(RTM_NEWTCLASS, NLM_F_CREATE | NLM_F_EXCL, CLASS, true); }
static int change_class(void) { return class_request(RTM_NEWTCLASS, 0, CLASS, true); }
static int delete_class(void) { return class_request(RTM_DELTCLASS, 0, CLASS, false); }
static int add_filter(void) { return filter_request(RTM_NEWTFILTER, NLM_F_CREATE | NLM_F_EXCL); }
static int delete_filter(void) { return filter_request(RTM_DELTFILTER, 0); }

static int reuse(void)
{
	int maps = FAULTY(bpf_object__reuse_qdisc_maps(opened, ifindex, NULL));

	if (maps < 0)
		return maps;
	return maps == 2 ? 0 : -EILSEQ;
}

/* As tc does: the variables are in memory that the program and its user share. */
static int set(void)
{
	int error = 0, fd = bpf_map__fd(victim->maps.data_param);
	__u32 *param, number = victim->data_param->number;

	faults_begin();
	param = mmap(NULL, sysconf(_SC_PAGESIZE), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (param != MAP_FAILED)
		(*param)++;
	else
		error = -errno;
	faults_end();
	/* Without memory it may fail, and the map would stay. */
	if (!error)
		must(munmap(param, sysconf(_SC_PAGESIZE)) ? -errno : 0, "munmap");
	if (!error && victim->data_param->number != number + 1)
		return -EILSEQ;
	return error;
}

static int load_program(struct bpf_program *prog)
{
	LIBBPF_OPTS(bpf_prog_load_opts, opts,
		    .expected_attach_type = bpf_program__expected_attach_type(prog));
	int fd = FAULTY(bpf_prog_load(BPF_PROG_TYPE_QDISC, "made", "GPL", bpf_program__insns(prog),
				      bpf_program__insn_cnt(prog), &opts));

	if (fd < 0)
		return fd;
	close(fd);
	return 0;
}

static int load_enqueue(void) { return load_program(victim->progs.old_enqueue); }
static int load_dequeue(void) { return load_program(victim->progs.old_dequeue); }

static int test_run(void)
{
	char frame[LENGTH] = "";
	LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = frame, .data_size_in = sizeof(frame));
	int error;

	victim->bss->how = CLONE;
	error = FAULTY(bpf_prog_test_run_opts(enqueue_fd(false), &opts));
	victim->bss->how = PLAIN;
	return error ?: opts.retval ? -EILSEQ : 0;
}

static const struct operation {
	const char *name;
	void (*prepare)(void);
	int (*run)(void);
} operations[] = {
	{ "add a qdisc", nothing, add },
	{ "add a qdisc where another kind is", with_pfifo, replace },
	{ "replace a qdisc by another", with_packets, replace },
	{ "change programs", with_packets, change_programs },
	{ "change programs and drop", with_packets, change_flush },
	{ "change the limit", with_packets, change_limit },
	{ "set a parameter", with_packets, set },
	{ "take over maps", with_opened, reuse },
	{ "delete a qdisc", with_packets, delete_qdisc },
	{ "add bpf_mq", nothing, add_mq },
	{ "change bpf_mq", with_mq, change_mq },
	{ "change bpf_mq and drop", with_mq, flush_mq },
	{ "delete bpf_mq", with_mq, delete_qdisc },
	{ "add a class", with_classes, add_class },
	{ "add a class with an estimator", with_classes, add_class_rate },
	{ "change a class", with_class, change_class },
	{ "delete a class", with_class, delete_class },
	{ "graft bpf to a class", with_class, add_child },
	{ "graft pfifo to a class", with_class, add_pfifo },
	{ "delete a class's qdisc", with_child, delete_child },
	{ "add a filter", with_class, add_filter },
	{ "delete a filter", with_filter, delete_filter },
	{ "load an enqueue program", nothing, load_enqueue },
	{ "load a dequeue program", nothing, load_dequeue },
	{ "run a program by hand", nothing, test_run },
};

static bool attempt(const struct operation *op, const struct state *before,
		    const struct state *want, int *errors, int *unanswered, bool *hit)
{
	/* The device gets a default qdisc, or none if there is no memory for one. */
	bool is_the_end = op->run == delete_qdisc, done;
	struct state now;
	int error;

	error = op->run();
	*hit = faults_hit();
	faults_set(1, 0);
	now = look();
	if (error) {
		expect(*hit);
		/* There are no sockets without memory; a dump ends before a qdisc
		 * whose statistics could not be copied (gnet_stats_copy_app()), so that
		 * libbpf does not find it; and bpf_prog_load() says EINVAL when it has
		 * none for the program, and ENOTSUPP when it has none for its code.
		 */
		if (error != -ENOMEM && error != -ENOBUFS && error != -ENFILE && error != -ENOENT &&
		    ((error != -EINVAL && error != -ENOTSUPP) ||
		     (op->run != load_enqueue && op->run != load_dequeue))) {
			printf("# error %d\n", error);
			return false;
		}
		(*errors)++;
	}
	done = is_the_end ? !now.handle : same(&now, want);
	if (error == -ENOBUFS && !same(before, want) && done) {
		(*unanswered)++;
	} else if (error ? !same(&now, before) : !done) {
		show(error ? "was" : "expected", error ? before : want);
		show("is", &now);
		return false;
	}
	if (is_the_end && !now.handle)
		return true;
	return packets_pass(now);
}

static bool operation(const struct operation *op)
{
	int points = 0, errors = 0, unanswered = 0;
	struct state before, want;
	bool hit;

	faults_set(1, 0);
	op->prepare();
	before = look();
	expect_equal(op->run(), 0);
	want = look();
	expect(packets_pass(want));

	for (int all = 0; all < 2; all++) {
		for (int n = 1;; n++, points++) {
			op->prepare();
			faults_set(n, all ? FOREVER : (uint64_t)n);
			if (!attempt(op, &before, &want, &errors, &unanswered, &hit)) {
				printf("# %s: request %d%s\n", op->name, n, all ? " and all after" : "");
				return false;
			}
			if (!hit)
				break;
		}
	}
	nothing();
	printf("# %s: %d points, %d errors, %d of them after it was done\n", op->name, points,
	       errors, unanswered);
	expect(errors >= 4);
	all_points += points;
	all_errors += errors;
	return true;
}

/* ---- packets without memory ---- */

static int undone;		/* packets that were dropped as a function had no memory */

/* One packet is sent; what has become of it the kernel says. */
static bool one_packet(int how, bool *hit)
{
	struct state before = look(), after;
	int error, came;

	victim->bss->how = how;
	victim->bss->verdict = 0;
	error = how == SEGMENT ? send_gso() : send_packet();
	victim->bss->how = PLAIN;
	*hit = faults_hit();
	faults_set(1, 0);
	after = look();
	came = after.qlen - before.qlen;
	if (error) {
		expect(*hit);
		expect_equal(error, -ENOBUFS);
		expect_equal(came, 0);
		expect(after.drops - before.drops <= 1);
	} else {
		expect_equal(after.drops, before.drops);
		expect(came == (how == SEGMENT ? SEGMENTS : 1) || (how == CLONE && came == 2));
		if (how == CLONE && !*hit)
			expect_equal(came, 2);
	}
	if ((how == CLASSIFY || how == SEGMENT) && after.drops != before.drops) {
		expect_equal(victim->bss->verdict, -ENOMEM);
		undone++;
	}
	expect_equal(after.backlog - before.backlog, came * LENGTH);
	return packets_pass(after);
}

static bool packets(int how, void (*prepare)(void))
{
	int points = 0;
	bool hit;

	undone = 0;
	for (int all = 0; all < 2; all++) {
		for (int n = 1;; n++, points++) {
			faults_set(1, 0);
			prepare();
			faults_set(n, all ? FOREVER : (uint64_t)n);
			expect(one_packet(how, &hit));
			if (!hit)
				break;
		}
	}
	nothing();
	printf("# %d points, %d packets dropped\n", points, undone);
	expect(points >= 4);
	expect(undone || how == CLONE);
	all_points += points;
	return true;
}

static bool clones(void) { return packets(CLONE, with_qdisc); }
static bool classified(void) { return packets(CLASSIFY, with_filter); }
static bool segments(void) { return packets(SEGMENT, with_qdisc); }

/* A push finds memory that was had before, until there is none. */
static bool elements(void)
{
	uint32_t stored = 0, refused = 0;
	struct state now;
	int error;

	faults_set(1, 0);
	with_qdisc();
	victim->bss->how = LARGE;
	for (int memory = 0; memory < 2; memory++) {
		faults->bss->fail_size = memory ? 0 : LARGE_ELEM;
		for (int tries = 0; tries < 20000 && (memory ? stored < 200 : refused < 5); tries++) {
			error = send_packet();
			stored += !error;
			refused += !!error;
			expect(!error || error == -ENOBUFS);
		}
		now = look();
		printf("# %u stored, %u dropped\n", stored, refused);
		expect_equal(now.drops, refused);
		expect_equal(now.qlen, stored);
		expect_equal(now.backlog, stored * LENGTH);
		expect(stored && refused >= 5);
	}
	expect(stored >= 200);
	expect(packets_pass(now));
	nothing();
	all_points += refused;
	return true;
}

/* ---- a device, and programs, that can go when all is done ---- */

static int count_ids(int (*next)(__u32, __u32 *))
{
	__u32 id = 0;
	int n = 0;

	while (!next(id, &id))
		n++;
	return n;
}

static int programs, maps;	/* that were there before */

static void set_up(void)
{
	struct timeval patience = { .tv_sec = 20 };
	struct sockaddr_ll from = {
		.sll_family = AF_PACKET,
		.sll_protocol = htons(PROTOCOL),
	};

	programs = count_ids(bpf_prog_get_next_id);
	maps = count_ids(bpf_map_get_next_id);
	if (system("ip link add " DEV " numtxqueues " QUEUES " type veth peer name " PEER " && "
		   "sysctl -qw net.ipv6.conf." DEV ".disable_ipv6=1 net.ipv6.conf." PEER ".disable_ipv6=1 && "
		   "ip link set " DEV " up && ip link set " PEER " up"))
		errx(1, "no devices");
	ifindex = if_nametoindex(DEV);
	from.sll_ifindex = if_nametoindex(PEER);

	netlink = socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE);
	sender = socket(AF_PACKET, SOCK_RAW, 0);
	receiver = socket(AF_PACKET, SOCK_RAW, 0);
	if (netlink < 0 || sender < 0 || receiver < 0 || bind(receiver, (void *)&from, sizeof(from)) ||
	    setsockopt(receiver, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)))
		err(1, "sockets");
	victim = victim__open();
	if (!victim || bpf_object__set_tx_queues(victim->obj, ifindex) < 0 || victim__load(victim))
		err(1, "victim");
}

static bool all_is_gone(void)
{
	faults->bss->fail_size = 0;
	faults_set(1, 0);
	nothing();
	bpf_object__close(opened);
	victim__destroy(victim);
	/* Does not return, and the console tells, while somebody holds the device */
	expect(!system("ip link del " DEV));
	for (int i = 0; i < 600 && (count_ids(bpf_prog_get_next_id) != programs ||
				    count_ids(bpf_map_get_next_id) != maps); i++)
		usleep(50000);
	expect_equal(count_ids(bpf_prog_get_next_id), programs);
	if (count_ids(bpf_map_get_next_id) != maps && system("bpftool map show"))
		printf("# no list of maps\n");
	expect_equal(count_ids(bpf_map_get_next_id), maps);
	return true;
}

static void report(bool ok, const char *name)
{
	char frame[2 * LENGTH];

	/* What a test that failed has sent is not for the next one. */
	while (!ok && recv(receiver, frame, sizeof(frame), MSG_DONTWAIT) > 0)
		;
	result(ok, name);
}

static int print_nothing(enum libbpf_print_level level, const char *fmt, va_list args)
{
	(void)level;
	(void)fmt;
	(void)args;
	return 0;
}

/* What user space needs is here before: its pages are no request of the operation's. */
static void have_memory(void)
{
	size_t size = 64 << 20;
	char *p;

	mallopt(M_MMAP_THRESHOLD, 1 << 30);
	mallopt(M_TRIM_THRESHOLD, 1 << 30);
	mallopt(M_TOP_PAD, 64 << 20);
	p = malloc(size);
	memset(p, 1, size);
	free(p);
	if (mlockall(MCL_CURRENT | MCL_FUTURE))
		err(1, "mlockall");
}

int main(void)
{
	const int count = sizeof(operations) / sizeof(operations[0]);
	static const struct {
		const char *name;
		bool (*run)(void);
	} others[] = {
		{ "push, elements that are allocated", elements },
		{ "clones", clones },
		{ "filters", classified },
		{ "segments", segments },
	};
	const int others_count = sizeof(others) / sizeof(others[0]);

	libbpf_set_print(print_nothing);
	faults_load();
	set_up();
	have_memory();
	printf("1..%d\n", count + others_count + 1);
	for (int i = 0; i < count; i++)
		report(operation(&operations[i]), operations[i].name);
	for (int i = 0; i < others_count; i++)
		report(others[i].run(), others[i].name);
	report(all_is_gone(), "device, programs and maps are gone");
	printf("# %d points, %d errors, all survived: %s\n", all_points, all_errors, failed ? "no" : "yes");
	return failed ? 1 : 0;
}
