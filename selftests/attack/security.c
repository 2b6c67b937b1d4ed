// SPDX-License-Identifier: GPL-2.0
/*
 * security OBJECT: what the kernel must refuse, each with its errno: programs of a qdisc
 * on other hooks and others' in a qdisc, maps that a program was not made for, user
 * space that wants to store or to read kernel pointers, a user whose rights end at his
 * user namespace, also with file descriptors of somebody else, and BPF tokens for
 * something else. What the verifier refuses is in refused.bpf.c, what the commands refuse
 * in unprivileged.py and tc_errors.py. Prints how many cases were refused.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/mount.h>
#include <linux/perf_event.h>
#include <linux/pkt_sched.h>
#include <linux/userfaultfd.h>
#include <net/if.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../lib/expect.h"
#include "hold.skel.h"
#include "intruder.skel.h"
#include "release.skel.h"
#include "victim.skel.h"

#define DEV	"guard0"
#define PIN	"/sys/fs/bpf/security_program"
#define NOBODY	65534
#define TYPES	80		/* more than there are attach types */
#define PACKETS	3

#define INSN(op, dst, src, offset, number) \
	((struct bpf_insn){ .code = op, .dst_reg = dst, .src_reg = src, .off = offset, .imm = number })

static int ifindex;
static struct hold *hold;
static int enqueue, dequeue;	/* its programs */
static int drop_id;		/* of bpf_qdisc_drop_skb() */
static int refusals;
static char attach_command[PATH_MAX + 100];	/* of tc, with the same policy on a namespace's own device */
static char *last_warning;	/* of libbpf, with what the kernel said */

/* One more case: @call must fail with this error. */
#define refuses(call, error)								\
	do {										\
		expect_equal(call, -(error));						\
		refusals++;								\
	} while (0)

/* The same, and somebody says these words. */
#define refuses_with(words, call, error)						\
	do {										\
		free(last_warning);							\
		last_warning = NULL;							\
		refuses(call, error);							\
		if (!last_warning || !strstr(last_warning, words)) {			\
			printf("# line %d: '%s' is not said, but: %s\n", __LINE__, words,	\
			       last_warning ?: "nothing");				\
			return false;							\
		}									\
	} while (0)

/* A system call, which gives -1 */
#define SYSTEM(call) ((call) < 0 ? -errno : 0)

static int keep_warning(enum libbpf_print_level level, const char *fmt, va_list args)
{
	char *text;

	if (level == LIBBPF_WARN && vasprintf(&text, fmt, args) >= 0) {
		free(last_warning);
		last_warning = text;
	}
	return 0;
}

static int close_fd(int fd)
{
	if (fd >= 0)
		close(fd);
	return fd < 0 ? fd : 0;
}

/* A program that returns 0; one to enqueue has to give its packet away before. */
static int load(enum bpf_prog_type type, __u32 attach_type, struct bpf_prog_load_opts *opts)
{
	const struct bpf_insn insns[] = {
		INSN(BPF_ALU64 | BPF_MOV | BPF_X, BPF_REG_2, BPF_REG_1, 0, 0),
		INSN(BPF_LDX | BPF_MEM | BPF_DW, BPF_REG_1, BPF_REG_2, 0, 0),
		INSN(BPF_ALU64 | BPF_MOV | BPF_K, BPF_REG_3, 0, 0, 0),
		INSN(BPF_JMP | BPF_CALL, 0, BPF_PSEUDO_KFUNC_CALL, 0, drop_id),
		INSN(BPF_ALU64 | BPF_MOV | BPF_K, BPF_REG_0, 0, 0, 0),
		INSN(BPF_JMP | BPF_EXIT, 0, 0, 0, 0),
	};
	int first = type == BPF_PROG_TYPE_QDISC && attach_type == BPF_QDISC_ENQUEUE ? 0 : 4;
	LIBBPF_OPTS(bpf_prog_load_opts, none);

	opts = opts ?: &none;
	opts->expected_attach_type = attach_type;
	return bpf_prog_load(type, "guard", "GPL", insns + first, 6 - first, opts);
}

static int attach(int enqueue_fd, int dequeue_fd)
{
	return bpf_qdisc_attach(ifindex, enqueue_fd, dequeue_fd, NULL);
}

static int send_packets(int count)
{
	struct sockaddr_ll to = { .sll_family = AF_PACKET, .sll_ifindex = ifindex };
	char frame[100] = { [12] = 0x88, [13] = 0xb5 };
	int fd = socket(AF_PACKET, SOCK_RAW, 0), sent = 0;

	while (fd >= 0 && sent < count &&
	       sendto(fd, frame, sizeof(frame), 0, (void *)&to, sizeof(to)) == sizeof(frame))
		sent++;
	close(fd);
	return sent;
}

static unsigned int queued(void)
{
	LIBBPF_OPTS(bpf_qdisc_info, info);

	return bpf_qdisc_query(ifindex, NULL, &info) ? UINT_MAX : info.qlen;
}

/* ---- programs of a qdisc that are loaded as something else, or somewhere else ---- */

static bool attach_types_at_load(void)
{
	for (__u32 type = 0; type < TYPES; type++) {
		if (type == BPF_QDISC_ENQUEUE || type == BPF_QDISC_DEQUEUE)
			continue;
		refuses(close_fd(load(BPF_PROG_TYPE_QDISC, type, NULL)), EINVAL);
	}
	expect_equal(close_fd(load(BPF_PROG_TYPE_QDISC, BPF_QDISC_ENQUEUE, NULL)), 0);
	expect_equal(close_fd(load(BPF_PROG_TYPE_QDISC, BPF_QDISC_DEQUEUE, NULL)), 0);
	return true;
}

static bool ways_to_load(void)
{
	LIBBPF_OPTS(bpf_prog_load_opts, offload, .prog_ifindex = ifindex);
	LIBBPF_OPTS(bpf_prog_load_opts, bound, .prog_ifindex = ifindex,
		    .prog_flags = BPF_F_XDP_DEV_BOUND_ONLY);
	LIBBPF_OPTS(bpf_prog_load_opts, sleepable, .prog_flags = BPF_F_SLEEPABLE);
	LIBBPF_OPTS(bpf_prog_load_opts, unknown, .prog_flags = 1U << 31);
	LIBBPF_OPTS(bpf_prog_load_opts, type_id, .attach_btf_id = 1);
	LIBBPF_OPTS(bpf_prog_load_opts, other, .attach_prog_fd = enqueue);
	struct bpf_prog_load_opts *wrong[] = { &offload, &bound, &sleepable, &unknown,
					       &type_id, &other };
	LIBBPF_OPTS(bpf_prog_load_opts, opts, .expected_attach_type = BPF_QDISC_ENQUEUE);
	struct bpf_program *prog = hold->progs.hold_enqueue;
	char log[4096] = "";

	for (unsigned int i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
		refuses(close_fd(load(BPF_PROG_TYPE_QDISC, BPF_QDISC_ENQUEUE, wrong[i])),
			EINVAL);

	/* What it calls is for GPL programs */
	opts.log_buf = log;
	opts.log_size = sizeof(log);
	opts.log_level = 1;
	expect_equal(close_fd(bpf_prog_load(BPF_PROG_TYPE_QDISC, "guard", "GPL", bpf_program__insns(prog),
					    bpf_program__insn_cnt(prog), &opts)), 0);
	refuses(close_fd(bpf_prog_load(BPF_PROG_TYPE_QDISC, "guard", "Proprietary", bpf_program__insns(prog),
				       bpf_program__insn_cnt(prog), &opts)), EINVAL);
	expect(strstr(log, "non-GPL compatible"));
	return true;
}

static bool other_hooks(void)
{
	LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = ifindex, .attach_point = BPF_TC_EGRESS);
	LIBBPF_OPTS(bpf_tc_opts, filter, .prog_fd = enqueue);
	LIBBPF_OPTS(bpf_raw_tp_opts, tracepoint, .tp_name = "sys_enter");
	struct perf_event_attr attr = {
		.type = PERF_TYPE_SOFTWARE,
		.size = sizeof(attr),
		.config = PERF_COUNT_SW_CPU_CLOCK,
	};
	int cgroup = open("/sys/fs/cgroup", O_RDONLY | O_DIRECTORY), udp, event;
	LIBBPF_OPTS(bpf_prog_attach_opts, nowhere);

	expect(cgroup >= 0);
	for (int type = 0; type < TYPES; type++) {
		refuses(bpf_prog_attach(enqueue, cgroup, type, 0), EINVAL);
		refuses(bpf_prog_attach_opts(enqueue, ifindex, type, &nowhere), EINVAL);
		refuses(close_fd(bpf_link_create(enqueue, cgroup, type, NULL)), EINVAL);
		refuses(close_fd(bpf_link_create(enqueue, ifindex, type, NULL)), EINVAL);
	}
	close(cgroup);

	refuses(bpf_xdp_attach(ifindex, enqueue, 0, NULL), EINVAL);
	expect_equal(bpf_tc_hook_create(&hook), 0);
	refuses(bpf_tc_attach(&hook, &filter), EINVAL);
	hook.attach_point |= BPF_TC_INGRESS;
	bpf_tc_hook_destroy(&hook);
	refuses(close_fd(bpf_raw_tracepoint_open_opts(enqueue, &tracepoint)), EINVAL);
	refuses(close_fd(bpf_raw_tracepoint_open(NULL, enqueue)), EINVAL);
	refuses(close_fd(bpf_iter_create(enqueue)), EINVAL);

	udp = socket(AF_INET, SOCK_DGRAM, 0);
	refuses(SYSTEM(setsockopt(udp, SOL_SOCKET, SO_ATTACH_BPF, &enqueue, sizeof(enqueue))), EINVAL);
	expect(!setsockopt(udp, SOL_SOCKET, SO_REUSEPORT, &(int){ 1 }, sizeof(int)));
	refuses(SYSTEM(setsockopt(udp, SOL_SOCKET, SO_ATTACH_REUSEPORT_EBPF, &enqueue, sizeof(enqueue))),
		EINVAL);
	close(udp);

	event = syscall(SYS_perf_event_open, &attr, 0, -1, -1, 0);
	expect(event >= 0);
	refuses(SYSTEM(ioctl(event, PERF_EVENT_IOC_SET_BPF, enqueue)), EINVAL);
	close(event);
	return true;
}

/* Maps that run programs */
static bool maps_of_programs(void)
{
	static const enum bpf_map_type types[] = { BPF_MAP_TYPE_DEVMAP, BPF_MAP_TYPE_CPUMAP };
	struct bpf_devmap_val dev = { .ifindex = ifindex, .bpf_prog.fd = enqueue };
	struct bpf_cpumap_val cpu = { .qsize = 64, .bpf_prog.fd = enqueue };
	int map, tc = load(BPF_PROG_TYPE_SCHED_CLS, 0, NULL);
	__u32 key = 0;

	for (int i = 0; i < 2; i++) {
		map = bpf_map_create(types[i], "guard", 4, 8, 2, NULL);
		expect(map >= 0);
		refuses(bpf_map_update_elem(map, &key, i ? (void *)&cpu : (void *)&dev, 0), EINVAL);
		close(map);
	}
	map = bpf_map_create(BPF_MAP_TYPE_PROG_ARRAY, "guard", 4, 4, 2, NULL);
	expect(tc >= 0 && map >= 0);
	expect_equal(bpf_map_update_elem(map, &key, &tc, 0), 0);
	refuses(bpf_map_update_elem(map, &key, &enqueue, 0), EINVAL);
	close(map);
	close(tc);
	return true;
}

static bool replaced_by_another(void)
{
	static const char *const names[] = { "hold_enqueue", "hold_dequeue" };
	struct intruder *skel;
	char log[8192];

	for (int i = 0; i < 2; i++) {
		skel = intruder__open();
		expect(skel);
		bpf_program__set_autoload(skel->progs.intruder_dump, false);
		bpf_program__set_log_buf(skel->progs.intruder_replace, log, sizeof(log));
		log[0] = '\0';
		expect_equal(bpf_program__set_attach_target(skel->progs.intruder_replace,
							    i ? dequeue : enqueue, names[i]), 0);
		refuses(intruder__load(skel), EINVAL);
		expect(strstr(log, "Cannot replace a qdisc program"));
		intruder__destroy(skel);
	}
	return true;
}

/* ---- what a qdisc does not take ---- */

static bool other_programs(void)
{
	static const struct {
		enum bpf_prog_type type;
		__u32 attach_type;
	} others[] = {
		{ BPF_PROG_TYPE_SOCKET_FILTER, 0 }, { BPF_PROG_TYPE_SCHED_CLS, 0 },
		{ BPF_PROG_TYPE_SCHED_ACT, 0 }, { BPF_PROG_TYPE_XDP, 0 }, { BPF_PROG_TYPE_KPROBE, 0 },
		{ BPF_PROG_TYPE_TRACEPOINT, 0 }, { BPF_PROG_TYPE_PERF_EVENT, 0 },
		{ BPF_PROG_TYPE_RAW_TRACEPOINT, 0 },
		{ BPF_PROG_TYPE_CGROUP_SKB, BPF_CGROUP_INET_EGRESS },
		{ BPF_PROG_TYPE_CGROUP_SOCK, BPF_CGROUP_INET_SOCK_CREATE },
		{ BPF_PROG_TYPE_SOCK_OPS, BPF_CGROUP_SOCK_OPS }, { BPF_PROG_TYPE_LWT_OUT, 0 },
		{ BPF_PROG_TYPE_SK_SKB, 0 }, { BPF_PROG_TYPE_SK_MSG, BPF_SK_MSG_VERDICT },
		{ BPF_PROG_TYPE_FLOW_DISSECTOR, BPF_FLOW_DISSECTOR },
		{ BPF_PROG_TYPE_SK_REUSEPORT, BPF_SK_REUSEPORT_SELECT },
	};
	LIBBPF_OPTS(bpf_prog_load_opts, sleepable, .prog_flags = BPF_F_SLEEPABLE);
	const char *type = "The file descriptor is none of a BPF program of type qdisc";
	int prog;

	for (unsigned int i = 0; i <= sizeof(others) / sizeof(others[0]); i++) {
		if (i < sizeof(others) / sizeof(others[0]))
			prog = load(others[i].type, others[i].attach_type, NULL);
		else
			prog = load(BPF_PROG_TYPE_SYSCALL, 0, &sleepable);
		if (prog < 0)
			printf("# program type %u: %d\n", others[i].type, prog);
		expect(prog >= 0);
		refuses_with(type, attach(prog, dequeue), EINVAL);
		refuses_with(type, attach(enqueue, prog), EINVAL);
		close(prog);
	}
	refuses_with("for the other direction", attach(dequeue, dequeue), EINVAL);
	refuses_with("for the other direction", attach(enqueue, enqueue), EINVAL);
	return true;
}

static bool other_descriptors(void)
{
	const char *type = "The file descriptor is none of a BPF program of type qdisc";
	int null = open("/dev/null", O_RDWR), udp = socket(AF_INET, SOCK_DGRAM, 0);
	int map = bpf_map__fd(hold->maps.hold_pkts), btf = bpf_object__btf_fd(hold->obj);

	refuses_with(type, attach(map, dequeue), EINVAL);
	refuses_with(type, attach(enqueue, map), EINVAL);
	refuses_with(type, attach(btf, dequeue), EINVAL);
	refuses_with(type, attach(null, dequeue), EINVAL);
	refuses_with(type, attach(udp, dequeue), EINVAL);
	refuses_with(type, attach(INT_MAX, dequeue), EBADF);
	close(null);
	close(udp);

	/* A qdisc that is there stays as it is. */
	expect_equal(attach(enqueue, dequeue), 0);
	expect_equal(send_packets(1), 1);
	refuses_with(type, bpf_qdisc_change(ifindex, map, dequeue, NULL), EINVAL);
	refuses_with("for the other direction", bpf_qdisc_change(ifindex, dequeue, enqueue, NULL), EINVAL);
	expect_equal(queued(), 1);
	expect_equal(bpf_qdisc_detach(ifindex, NULL), 0);
	return true;
}

/* ---- maps that a program was not made for ---- */

/* Load hold_enqueue with another map in the place of its own. */
static int load_with_map(int map, char *log, size_t size)
{
	struct bpf_program *prog = hold->progs.hold_enqueue;
	size_t count = bpf_program__insn_cnt(prog);
	LIBBPF_OPTS(bpf_prog_load_opts, opts, .expected_attach_type = BPF_QDISC_ENQUEUE,
		    .log_buf = log, .log_size = size, .log_level = 1);
	struct bpf_insn insns[256];

	memcpy(insns, bpf_program__insns(prog), count * sizeof(insns[0]));
	for (size_t i = 0; i < count; i++)
		if (insns[i].code == (BPF_LD | BPF_IMM | BPF_DW) && insns[i].src_reg == BPF_PSEUDO_MAP_FD)
			insns[i].imm = map;
	log[0] = '\0';
	return close_fd(bpf_prog_load(BPF_PROG_TYPE_QDISC, "guard", "GPL", insns, count, &opts));
}

static bool foreign_maps(void)
{
	static const struct {
		enum bpf_map_type type;
		__u32 key, value, entries, flags;
	} maps[] = {
		{ BPF_MAP_TYPE_ARRAY, 4, 8, 8, 0 },
		{ BPF_MAP_TYPE_HASH, 8, 8, 8, 0 },
		{ BPF_MAP_TYPE_LRU_HASH, 8, 8, 8, 0 },
		{ BPF_MAP_TYPE_PERCPU_HASH, 8, 8, 8, 0 },
		{ BPF_MAP_TYPE_LPM_TRIE, 8, 8, 8, BPF_F_NO_PREALLOC },
		{ BPF_MAP_TYPE_QUEUE, 0, 8, 8, 0 },
		{ BPF_MAP_TYPE_STACK, 0, 8, 8, 0 },
		{ BPF_MAP_TYPE_RINGBUF, 0, 0, 4096, 0 },
		{ BPF_MAP_TYPE_PROG_ARRAY, 4, 4, 8, 0 },
		{ BPF_MAP_TYPE_PERF_EVENT_ARRAY, 4, 4, 8, 0 },
		{ BPF_MAP_TYPE_SOCKMAP, 4, 4, 8, 0 },
		{ BPF_MAP_TYPE_DEVMAP, 4, 4, 8, 0 },
		{ BPF_MAP_TYPE_RBTREE, 8, 8, 8, 0 },	/* without types: no packets in it */
	};
	char log[8192];
	int map;

	expect_equal(load_with_map(bpf_map__fd(hold->maps.hold_pkts), log, sizeof(log)), 0);
	for (unsigned int i = 0; i < sizeof(maps) / sizeof(maps[0]); i++) {
		LIBBPF_OPTS(bpf_map_create_opts, opts, .map_flags = maps[i].flags);

		map = bpf_map_create(maps[i].type, "guard", maps[i].key, maps[i].value, maps[i].entries, &opts);
		if (map < 0)
			printf("# map type %u: %d\n", maps[i].type, map);
		expect(map >= 0);
		refuses(load_with_map(map, log, sizeof(log)), EINVAL);
		expect(strstr(log, "expected an rbtree map whose value holds one sk_buff kptr"));
		close(map);
	}
	refuses(load_with_map(enqueue, log, sizeof(log)), EINVAL);
	refuses(load_with_map(INT_MAX, log, sizeof(log)), EBADF);
	return true;
}

/* ---- what user space reads ---- */

/* Is there a kernel address in it, at whatever place? */
static bool has_address(const void *data, size_t size)
{
	uint64_t number;

	for (size_t i = 0; i + sizeof(number) <= size; i++) {
		memcpy(&number, data + i, sizeof(number));
		if (number >= 0xffff800000000000) {
			printf("# %#llx at %zu\n", (unsigned long long)number, i);
			return true;
		}
	}
	return false;
}

/* The same in a command's or a file's text */
static bool text_has_address(const char *command)
{
	static char text[1 << 16];
	FILE *pipe = popen(command, "r");
	size_t size = fread(text, 1, sizeof(text) - 1, pipe);

	text[size] = '\0';
	if (pclose(pipe) || !size) {
		printf("# %s: status, or nothing\n", command);
		return true;
	}
	for (char *at = text; (at = strstr(at, "ffff")); at++)
		if (strspn(at, "0123456789abcdef") >= 16) {
			printf("# %s: %.16s\n", command, at);
			return true;
		}
	return false;
}

static bool iterator_shows_none(int map)
{
	union bpf_iter_link_info info = { .map.map_fd = map };
	LIBBPF_OPTS(bpf_link_create_opts, opts, .iter_info = &info, .iter_info_len = sizeof(info));
	struct intruder *skel = intruder__open();
	char bytes[16 * (PACKETS + 1)];
	int link, iterator;

	expect(skel);
	bpf_program__set_autoload(skel->progs.intruder_replace, false);
	expect(!intruder__load(skel));
	link = bpf_link_create(bpf_program__fd(skel->progs.intruder_dump), 0, BPF_TRACE_ITER, &opts);
	expect(link >= 0);
	iterator = bpf_iter_create(link);
	expect(iterator >= 0);
	expect_equal(read(iterator, bytes, sizeof(bytes)), 16 * PACKETS);
	expect(!has_address(bytes, 16 * PACKETS));
	close(iterator);
	close(link);
	intruder__destroy(skel);
	return true;
}

static bool reads_show_none(int map, size_t size)
{
	static char values[PACKETS + 1][2048];
	uint64_t key, keys[PACKETS + 1], cursor;
	__u32 count = PACKETS + 1;
	char command[128];

	expect_equal(bpf_map_get_next_key(map, NULL, &key), 0);
	expect(!has_address(&key, sizeof(key)));
	expect_equal(bpf_map_lookup_elem(map, &key, values), 0);
	expect(!has_address(values, size));
	memset(values, 0, sizeof(values));
	expect_equal(bpf_map_lookup_batch(map, NULL, &cursor, keys, values, &count, NULL), -ENOENT);
	expect_equal(count, PACKETS);
	expect(!has_address(keys, count * sizeof(keys[0])));
	expect(!has_address(values, count * size));
	expect(!has_address(&cursor, sizeof(cursor)));
	for (size_t i = 0; i < count * size; i++)
		expect_equal(((char *)values)[i], 0);
	expect(iterator_shows_none(map));
	snprintf(command, sizeof(command), "cat /proc/%d/fdinfo/%d", getpid(), map);
	expect(!text_has_address(command));
	return true;
}

/* What a packet's address could be overwritten with, by every call that writes */
static bool writes_are_refused(int map)
{
	uint64_t key = 0, keys[2] = {}, cursor;
	static uint64_t values[512] = { 0xffff888000001000, 0x4141414141414141 };
	__u32 count = 1;

	refuses(bpf_map_update_elem(map, &key, values, BPF_ANY), EOPNOTSUPP);
	refuses(bpf_map_update_elem(map, &key, values, BPF_EXIST), EOPNOTSUPP);
	refuses(bpf_map_update_elem(map, &key, values, BPF_NOEXIST), EOPNOTSUPP);
	refuses(bpf_map_update_elem(map, &key, values, BPF_F_LOCK), EINVAL);
	refuses(bpf_map_lookup_elem_flags(map, &key, values, BPF_F_LOCK), EINVAL);
	refuses(bpf_map_update_batch(map, keys, values, &count, NULL), EOPNOTSUPP);
	count = 1;
	refuses(bpf_map_delete_elem(map, &key), EBUSY);
	refuses(bpf_map_delete_batch(map, keys, &count, NULL), EBUSY);
	refuses(bpf_map_lookup_and_delete_elem(map, &key, values), EBUSY);
	count = 1;
	refuses(bpf_map_lookup_and_delete_batch(map, NULL, &cursor, keys, values, &count, NULL), EBUSY);
	refuses(bpf_map_freeze(map), 524 /* ENOTSUPP */);
	refuses(SYSTEM(mmap(NULL, 4096, PROT_READ, MAP_SHARED, map, 0) == MAP_FAILED ? -1 : 0), 524);
	return true;
}

static bool kernel_addresses(void)
{
	int map = bpf_map__fd(hold->maps.hold_pkts);

	expect_equal(attach(enqueue, dequeue), 0);
	expect_equal(send_packets(PACKETS), PACKETS);
	expect(reads_show_none(map, 8));
	expect(writes_are_refused(map));
	expect(!text_has_address("bpftool map dump name hold_pkts"));
	expect(!text_has_address("bpftool -j map show name hold_pkts"));
	expect(!text_has_address("tc -s -d -j qdisc show dev " DEV));
	expect_equal(queued(), PACKETS);
	expect_equal(bpf_qdisc_detach(ifindex, NULL), 0);
	return true;
}

/* Elements of memory that somebody else had before */
static bool memory_of_others(void)
{
	struct victim *victim = victim__open();
	__u32 queue = 0, id;
	int map;

	expect(victim && bpf_object__set_tx_queues(victim->obj, ifindex) > 0);
	expect(!victim__load(victim));
	victim->bss->closed = true;
	victim->bss->how = 1;		/* a map that allocates large elements */
	victim->data_param->number = 0;
	expect(!bpf_map_lookup_elem(bpf_map__fd(victim->maps.large_queues), &queue, &id));
	map = bpf_map_get_fd_by_id(id);
	expect(map >= 0);
	expect_equal(attach(bpf_program__fd(victim->progs.old_enqueue),
			    bpf_program__fd(victim->progs.old_dequeue)), 0);
	expect_equal(send_packets(PACKETS), PACKETS);
	expect(reads_show_none(map, 1608));
	expect(writes_are_refused(map));
	expect_equal(queued(), PACKETS);
	expect_equal(bpf_qdisc_detach(ifindex, NULL), 0);
	close(map);
	victim__destroy(victim);
	return true;
}

/* ---- rights that end at a user namespace ---- */

/* What is tried there, and what came of it */
static struct {
	int done;
	struct {
		const char *what;
		int line, error, want;
	} tried[64];
} *report;

static void tried(const char *what, int line, int error, int want)
{
	report->tried[report->done].what = what;
	report->tried[report->done].line = line;
	report->tried[report->done].error = error;
	report->tried[report->done++].want = want;
}

#define try(call, error) tried(#call, __LINE__, call, -(error))

static bool all_refused(void)
{
	expect(report->done > 0);
	for (int i = 0; i < report->done; i++) {
		if (report->tried[i].error != report->tried[i].want) {
			printf("# line %d: %s is %d, not %d\n", report->tried[i].line, report->tried[i].what,
			       report->tried[i].error, report->tried[i].want);
			return false;
		}
		refusals += !!report->tried[i].want;
	}
	return true;
}

/* Nobody, then root of a user namespace of his own, who has nevertheless got these file
 * descriptors. With @net he has a network namespace too.
 */
static bool as_root_of_a_namespace(void (*act)(void), bool net)
{
	int status;
	pid_t pid;

	report->done = 0;
	pid = fork();
	if (!pid) {
		if (setgroups(0, NULL) || setresgid(NOBODY, NOBODY, NOBODY) ||
		    setresuid(NOBODY, NOBODY, NOBODY) ||
		    unshare(CLONE_NEWUSER | (net ? CLONE_NEWNET : 0)))
			_exit(2);
		act();
		_exit(0);
	}
	expect(pid > 0 && waitpid(pid, &status, 0) == pid);
	expect_equal(status, 0);
	return all_refused();
}

static __u32 program_id(int fd)
{
	struct bpf_prog_info info = {};
	__u32 size = sizeof(info);

	return bpf_prog_get_info_by_fd(fd, &info, &size) ? 0 : info.id;
}

static __u32 map_id(int fd)
{
	struct bpf_map_info info = {};
	__u32 size = sizeof(info);

	return bpf_map_get_info_by_fd(fd, &info, &size) ? 0 : info.id;
}

static __u32 enqueue_id, pkts_id;

static void load_and_look(void)
{
	__u32 id = 0;

	try(load(BPF_PROG_TYPE_QDISC, BPF_QDISC_ENQUEUE, NULL), EPERM);
	try(load(BPF_PROG_TYPE_QDISC, BPF_QDISC_DEQUEUE, NULL), EPERM);
	try(bpf_map_create(BPF_MAP_TYPE_RBTREE, "guard", 8, 8, 8, NULL), EPERM);
	try(bpf_prog_get_fd_by_id(enqueue_id), EPERM);
	try(bpf_map_get_fd_by_id(pkts_id), EPERM);
	try(bpf_prog_get_next_id(0, &id), EPERM);
	try(bpf_map_get_next_id(0, &id), EPERM);
	try(bpf_obj_get(PIN), EACCES);
}

/* The device is not in his network namespace's user namespace. */
static void touch_the_device(void)
{
	LIBBPF_OPTS(bpf_qdisc_opts, limit, .limit = 5);

	try(attach(enqueue, dequeue), EPERM);
	try(bpf_qdisc_change(ifindex, -1, -1, &limit), EPERM);
	try(bpf_qdisc_change(ifindex, enqueue, dequeue, NULL), EPERM);
	try(bpf_qdisc_detach(ifindex, NULL), EPERM);
	load_and_look();
}

/* There is no such device in his own one. */
static void touch_from_elsewhere(void)
{
	LIBBPF_OPTS(bpf_qdisc_opts, limit, .limit = 5);

	try(attach(enqueue, dequeue), ENODEV);
	try(bpf_qdisc_change(ifindex, -1, -1, &limit), ENOENT);
	try(bpf_qdisc_detach(ifindex, NULL), ENODEV);
	load_and_look();
}

static bool user_namespaces(void)
{
	enqueue_id = program_id(enqueue);
	pkts_id = map_id(bpf_map__fd(hold->maps.hold_pkts));
	expect(enqueue_id && pkts_id);
	expect_equal(bpf_obj_pin(enqueue, PIN), 0);
	expect_equal(attach(enqueue, dequeue), 0);
	expect_equal(send_packets(PACKETS), PACKETS);
	expect(as_root_of_a_namespace(touch_the_device, false));
	expect(as_root_of_a_namespace(touch_from_elsewhere, true));
	expect_equal(queued(), PACKETS);
	expect_equal(bpf_qdisc_detach(ifindex, NULL), 0);
	unlink(PIN);
	return true;
}

/* A descriptor to read with does not write, and cannot be made one that does. */
static bool descriptors_to_read_with(void)
{
	LIBBPF_OPTS(bpf_get_fd_by_id_opts, readonly, .open_flags = BPF_F_RDONLY);
	struct victim *victim = victim__open();
	char path[64];
	__u32 key = 0;
	int fd;

	expect(victim && bpf_object__set_tx_queues(victim->obj, ifindex) > 0 && !victim__load(victim));
	fd = bpf_map_get_fd_by_id_opts(map_id(bpf_map__fd(victim->maps.data_param)), &readonly);
	expect(fd >= 0);
	refuses(bpf_map_update_elem(fd, &key, victim->data_param, 0), EPERM);
	refuses(SYSTEM(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) == MAP_FAILED ? -1 : 0),
		EACCES);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	refuses(SYSTEM(open(path, O_RDWR)), ENXIO);
	close(fd);

	fd = bpf_map_get_fd_by_id_opts(map_id(bpf_map__fd(victim->maps.queues)), &readonly);
	expect(fd >= 0);
	refuses(bpf_map_update_elem(fd, &key, &fd, 0), EPERM);
	close(fd);
	victim__destroy(victim);
	return true;
}

/* ---- a descriptor of a program, without any right ---- */

static struct release *next_policy;

/* Ask for the maps' ids where user space does not let the kernel write yet. */
static void *ask_for_maps(void *ids)
{
	struct bpf_prog_info info = { .nr_map_ids = 8, .map_ids = (uint64_t)(unsigned long)ids };
	int fd = bpf_program__fd(next_policy->progs.release_dequeue);
	__u32 size = sizeof(info);

	return (void *)(long)bpf_prog_get_info_by_fd(fd, &info, &size);
}

/* Memory whose first use waits for us */
static void *slow_memory(int *fault)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register range = { .range.len = 4096, .mode = UFFDIO_REGISTER_MODE_MISSING };
	void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	*fault = syscall(SYS_userfaultfd, O_CLOEXEC);
	range.range.start = (unsigned long)page;
	if (*fault < 0 || ioctl(*fault, UFFDIO_API, &api) || ioctl(*fault, UFFDIO_REGISTER, &range))
		return NULL;
	return page;
}

/* The qdisc is given the next policy, by a process that can be killed if it is held up. */
static bool changes_within(int seconds)
{
	int next_enqueue = bpf_program__fd(next_policy->progs.release_enqueue);
	int next_dequeue = bpf_program__fd(next_policy->progs.release_dequeue);
	struct pollfd done = { .events = POLLIN };
	int status;
	pid_t pid;

	pid = fork();
	if (!pid)
		_exit(bpf_qdisc_change(ifindex, next_enqueue, next_dequeue, NULL) ? 1 : 0);
	done.fd = syscall(SYS_pidfd_open, pid, 0);
	expect(pid > 0 && done.fd >= 0);
	if (poll(&done, 1, 1000 * seconds) != 1)
		kill(pid, SIGKILL);
	close(done.fd);
	expect(waitpid(pid, &status, 0) == pid);
	expect_equal(status, 0);
	return true;
}

static bool descriptor_does_not_stop_rtnl(void)
{
	struct uffdio_zeropage give = { .range.len = 4096 };
	struct pollfd waits = { .events = POLLIN };
	__u32 *ids = slow_memory(&waits.fd);
	pthread_t asker;
	void *error;
	bool ok;

	next_policy = release__open_and_load();
	expect(ids && next_policy);
	expect_equal(attach(enqueue, dequeue), 0);
	expect(!pthread_create(&asker, NULL, ask_for_maps, ids));
	expect_equal(poll(&waits, 1, 60000), 1);
	ok = changes_within(20);
	give.range.start = (unsigned long)ids;
	expect(!ioctl(waits.fd, UFFDIO_ZEROPAGE, &give));
	expect(!pthread_join(asker, &error) && !error);
	expect_equal(ids[0], map_id(bpf_map__fd(next_policy->maps.hold_pkts)));
	close(waits.fd);
	munmap(ids, 4096);
	release__destroy(next_policy);
	return ok && !bpf_qdisc_detach(ifindex, NULL);
}

/* ---- BPF tokens ---- */

/* In a user namespace: a bpffs that has been delegated by the parent, who is privileged
 * and configures it through the descriptor; then a token of it.
 */
struct delegation {
	uint64_t commands, maps, programs, attachs;
};

static void set_mask(int fs, const char *name, uint64_t mask)
{
	char text[32];

	snprintf(text, sizeof(text), "%#llx", (unsigned long long)mask);
	if (syscall(SYS_fsconfig, fs, FSCONFIG_SET_STRING, name, text, 0))
		_exit(10);
}

static void pass(int sock, int fd)
{
	char control[CMSG_SPACE(sizeof(fd))] = "", byte = 0;
	struct iovec iov = { &byte, 1 };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control,
			      .msg_controllen = sizeof(control) };
	struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg);

	cmsg->cmsg_level = SOL_SOCKET;
	cmsg->cmsg_type = SCM_RIGHTS;
	cmsg->cmsg_len = CMSG_LEN(sizeof(fd));
	memcpy(CMSG_DATA(cmsg), &fd, sizeof(fd));
	if (sendmsg(sock, &msg, 0) < 0)
		_exit(11);
}

static int get(int sock)
{
	char control[CMSG_SPACE(sizeof(int))], byte;
	struct iovec iov = { &byte, 1 };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control,
			      .msg_controllen = sizeof(control) };
	int fd = -1;

	if (recvmsg(sock, &msg, 0) > 0 && CMSG_FIRSTHDR(&msg))
		memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&msg)), sizeof(fd));
	return fd;
}

static void write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY), length = strlen(text);

	if (fd < 0 || write(fd, text, length) != length)
		_exit(5);
	close(fd);
}

#define OWN	"own0"		/* a device of the user namespace's own network namespace */

/* A token of the bpffs that the parent configures; the descriptor of its mount */
static int delegated_mount(int sock)
{
	int fs, mount;

	write_file("/proc/self/uid_map", "0 0 1");
	write_file("/proc/self/setgroups", "deny");
	write_file("/proc/self/gid_map", "0 0 1");
	fs = syscall(SYS_fsopen, "bpf", 0);
	pass(sock, fs);
	mount = get(sock);
	if (fs < 0 || mount < 0)
		_exit(4);
	return mount;
}

/* What comes of loading each kind of program and of creating a map with the token */
static void load_with_token(int mount)
{
	int token = bpf_token_create(openat(mount, ".", O_RDONLY | O_DIRECTORY), NULL);

	if (token < 0)
		_exit(-token);
	LIBBPF_OPTS(bpf_prog_load_opts, prog, .prog_flags = BPF_F_TOKEN_FD, .token_fd = token);
	LIBBPF_OPTS(bpf_map_create_opts, map, .map_flags = BPF_F_TOKEN_FD, .token_fd = token);
	tried("enqueue program", __LINE__,
	      close_fd(load(BPF_PROG_TYPE_QDISC, BPF_QDISC_ENQUEUE, &prog)), 0);
	tried("dequeue program", __LINE__,
	      close_fd(load(BPF_PROG_TYPE_QDISC, BPF_QDISC_DEQUEUE, &prog)), 0);
	tried("cgroup program", __LINE__,
	      close_fd(load(BPF_PROG_TYPE_CGROUP_SKB, BPF_CGROUP_INET_EGRESS, &prog)), 0);
	tried("socket program", __LINE__,
	      close_fd(load(BPF_PROG_TYPE_CGROUP_SOCK, BPF_CGROUP_INET_SOCK_CREATE, &prog)), 0);
	tried("map", __LINE__,
	      close_fd(bpf_map_create(BPF_MAP_TYPE_RBTREE, "guard", 8, 8, 8, &map)), 0);
}

/* Load a whole policy, as an application does, with the token of what is mounted. */
static int load_policy(int mount)
{
	LIBBPF_OPTS(bpf_object_open_opts, opts);
	char path[32];
	int ret;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", mount);
	opts.bpf_token_path = path;
	hold = hold__open_opts(&opts);
	if (!hold)
		_exit(6);
	ret = hold__load(hold);
	if (!ret) {
		enqueue = bpf_program__fd(hold->progs.hold_enqueue);
		dequeue = bpf_program__fd(hold->progs.hold_dequeue);
	}
	return ret;
}

/* Not where a device of the parent's namespace is, but on a device of its own; then the
 * same with tc, which finds the token where a bpffs always is.
 */
static void attach_to_own_device(int mount)
{
	int others = ifindex;

	if (system("ip link add " OWN " index 1000 type veth peer name own1 && ip link set own1 up && "
		   "ip link set " OWN " up"))
		_exit(7);
	try(load_policy(mount), 0);
	try(attach(enqueue, dequeue), ENODEV);
	ifindex = if_nametoindex(OWN);
	try(attach(enqueue, dequeue), 0);
	try(send_packets(PACKETS) - PACKETS, 0);
	try(queued() < PACKETS, 0);
	try(bpf_qdisc_detach(ifindex, NULL), 0);
	if (syscall(SYS_move_mount, mount, "", AT_FDCWD, "/sys/fs/bpf", MOVE_MOUNT_F_EMPTY_PATH))
		_exit(8);
	try(system(attach_command), 0);
	try(send_packets(PACKETS) - PACKETS, 0);
	try(queued() < PACKETS, 0);
	ifindex = others;
}

/* He may load, but the device belongs to the namespace of his parents. */
static void attach_to_a_device_of_others(int mount)
{
	LIBBPF_OPTS(bpf_qdisc_opts, limit, .limit = 5);

	try(load_policy(mount), 0);
	try(attach(enqueue, dequeue), EPERM);
	try(bpf_qdisc_change(ifindex, enqueue, dequeue, NULL), EPERM);
	try(bpf_qdisc_change(ifindex, -1, -1, &limit), EPERM);
	try(bpf_qdisc_detach(ifindex, NULL), EPERM);
}

/* The bpffs delegates nothing that is of use. */
static void fail_to_attach(int mount)
{
	if (system("ip link add " OWN " type veth peer name own1"))
		_exit(7);
	try(load_policy(mount), EPERM);
	if (syscall(SYS_move_mount, mount, "", AT_FDCWD, "/sys/fs/bpf", MOVE_MOUNT_F_EMPTY_PATH))
		_exit(8);
	try(system(attach_command) ? -EPERM : 0, EPERM);
}

/* Let a child act as root of a user namespace to which the parent has delegated. */
static bool with_token(const struct delegation *grant, void (*act)(int mount), bool net)
{
	int sock[2], fs, mount, status;
	pid_t pid;

	report->done = 0;
	expect(!socketpair(AF_UNIX, SOCK_STREAM, 0, sock));
	pid = fork();
	if (!pid) {
		close(sock[0]);
		if (unshare(CLONE_NEWUSER | CLONE_NEWNS | (net ? CLONE_NEWNET : 0)))
			_exit(3);
		act(delegated_mount(sock[1]));
		_exit(0);
	}
	close(sock[1]);
	fs = get(sock[0]);
	expect(fs >= 0);
	set_mask(fs, "delegate_cmds", grant->commands);
	set_mask(fs, "delegate_maps", grant->maps);
	set_mask(fs, "delegate_progs", grant->programs);
	set_mask(fs, "delegate_attachs", grant->attachs);
	expect(!syscall(SYS_fsconfig, fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0));
	mount = syscall(SYS_fsmount, fs, 0, 0);
	expect(mount >= 0);
	pass(sock[0], mount);
	expect(waitpid(pid, &status, 0) == pid);
	close(mount);
	close(fs);
	close(sock[0]);
	expect_equal(status, 0);
	return true;
}

/* Does the token let exactly these load, in the order of load_with_token()? */
static bool lets_load(const struct delegation *grant, const char *which)
{
	expect(with_token(grant, load_with_token, true));
	expect_equal(report->done, strlen(which));
	for (int i = 0; i < report->done; i++)
		report->tried[i].want = which[i] == '-' ? -EPERM : 0;
	return all_refused();
}

#define BIT(number) (1ULL << (number))

static const uint64_t all_commands = BIT(BPF_TOKEN_CREATE) | BIT(BPF_MAP_CREATE) | BIT(BPF_PROG_LOAD) |
				     BIT(BPF_BTF_LOAD);

/* enum bpf_attach_type has the same numbers for cgroups as a qdisc's programs have. */
static bool tokens(void)
{
	const uint64_t all = all_commands, maps = BIT(BPF_MAP_TYPE_RBTREE);
	const uint64_t qdisc = BIT(BPF_PROG_TYPE_QDISC);
	const uint64_t cgroup = BIT(BPF_PROG_TYPE_CGROUP_SKB) | BIT(BPF_PROG_TYPE_CGROUP_SOCK);
	const uint64_t attachs = BIT(BPF_CGROUP_INET_EGRESS) | BIT(BPF_CGROUP_INET_SOCK_CREATE);
	const struct {
		struct delegation grant;
		const char *loads;	/* enqueue, dequeue, cgroup, socket, map */
	} tokens[] = {
		{ { all, maps, qdisc, 0 }, "ed--m" },
		{ { all, maps, qdisc | cgroup, 0 }, "ed--m" },
		{ { all, maps, cgroup, attachs }, "--csm" },
		{ { all, maps, qdisc, attachs }, "ed--m" },
		{ { all, maps, qdisc | cgroup, BIT(BPF_CGROUP_INET_EGRESS) }, "edc-m" },
		{ { all, maps, BIT(BPF_PROG_TYPE_SCHED_CLS), ~0ULL }, "----m" },
		{ { all, BIT(BPF_MAP_TYPE_HASH), qdisc, 0 }, "ed---" },
		{ { all & ~BIT(BPF_PROG_LOAD), maps, qdisc | cgroup, attachs }, "----m" },
	};

	for (unsigned int i = 0; i < sizeof(tokens) / sizeof(tokens[0]); i++)
		expect(lets_load(&tokens[i].grant, tokens[i].loads));
	return true;
}

static bool policies_in_containers(void)
{
	const struct delegation granted = { all_commands, BIT(BPF_MAP_TYPE_RBTREE), BIT(BPF_PROG_TYPE_QDISC), 0 };
	const struct delegation cgroups = { all_commands, BIT(BPF_MAP_TYPE_RBTREE),
					    BIT(BPF_PROG_TYPE_CGROUP_SKB), ~0ULL };

	expect(with_token(&granted, attach_to_own_device, true));
	expect(report->done == 9 && all_refused());
	expect_equal(attach(enqueue, dequeue), 0);
	expect(with_token(&granted, attach_to_a_device_of_others, false));
	expect(report->done == 5 && all_refused());
	expect(with_token(&cgroups, fail_to_attach, true));
	expect(report->done == 2 && all_refused());
	return true;
}

static const struct {
	const char *name;
	bool (*run)(void);
} all[] = {
	{ "attach types that are not a qdisc's", attach_types_at_load },
	{ "ways to load that are not for it", ways_to_load },
	{ "other hooks", other_hooks },
	{ "maps of programs", maps_of_programs },
	{ "another program in its place", replaced_by_another },
	{ "programs of other types in a qdisc", other_programs },
	{ "descriptors of something else", other_descriptors },
	{ "maps that it was not made for", foreign_maps },
	{ "no kernel address is read or written", kernel_addresses },
	{ "nor memory of others", memory_of_others },
	{ "user namespaces, with descriptors of somebody else", user_namespaces },
	{ "descriptors to read with", descriptors_to_read_with },
	{ "who has a program's descriptor does not stop RTNL", descriptor_does_not_stop_rtnl },
	{ "BPF tokens for something else", tokens },
	{ "a policy in a user namespace, with a token and without", policies_in_containers },
};

int main(int argc, char **argv)
{
	const int count = sizeof(all) / sizeof(all[0]);
	struct btf *btf;

	if (argc != 2)
		return 2;
	snprintf(attach_command, sizeof(attach_command), "tc qdisc add dev own0 root bpf obj %s", argv[1]);
	libbpf_set_print(keep_warning);
	btf = btf__load_vmlinux_btf();
	drop_id = btf ? btf__find_by_name_kind(btf, "bpf_qdisc_drop_skb", BTF_KIND_FUNC) : -1;
	btf__free(btf);
	report = mmap(NULL, sizeof(*report), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	printf("1..%d\n", count);
	for (int i = 0; i < count; i++) {
		if (system("ip link add " DEV " type veth peer name guard1 && "
			   "sysctl -qw net.ipv6.conf." DEV ".disable_ipv6=1 && "
			   "ip link set " DEV " up && ip link set guard1 up"))
			printf("# no devices\n");
		ifindex = if_nametoindex(DEV);
		hold = hold__open_and_load();
		enqueue = hold ? bpf_program__fd(hold->progs.hold_enqueue) : -1;
		dequeue = hold ? bpf_program__fd(hold->progs.hold_dequeue) : -1;
		result(hold && all[i].run(), all[i].name);
		if (system("ip link del " DEV))
			printf("# cannot delete the devices\n");
		hold__destroy(hold);
		unlink(PIN);
	}
	printf("# %d cases refused\n", refusals);
	return failed ? 1 : 0;
}
