// SPDX-License-Identifier: GPL-2.0
/* qdisctop: what the qdiscs of a device do now
 *
 * What a qdisc has sent, dropped and keeps are its own statistics, read as tc
 * reads them. What it takes, why it drops, and how long packets wait in it is
 * counted by BPF programs at tracepoints (qdisctop.bpf.c). What a policy counts
 * itself is in variables of its programs, whose names BTF tells.
 *
 * For Prometheus, which subtracts itself, it prints once what the qdiscs have
 * counted since they were made, and traces nothing.
 */
#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <getopt.h>
#include <linux/gen_stats.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "../../include/uapi/linux/pkt_sched.h"	/* that of the system may not know bpf */
#include "qdisctop.h"
#include "qdisctop.skel.h"

#define MAX_REASONS	64
#define MAX_MAPS	256
#define STATS_SECTION	".data.stats"
#define BAR_WIDTH	40

/* What a policy has counted; an element of an array is one */
struct stat_value {
	char name[64];
	__s64 total;
	__s64 value;			/* since the sample before */
	bool of_array;
};

/* Of one qdisc, since it was made or since this program was started */
struct sample {
	int ifindex;
	char dev[IF_NAMESIZE];
	struct qdisc_key key;
	char kind[16];
	__u64 packets, bytes;		/* sent */
	__u32 drops, overlimits, requeues;
	__u32 qlen, backlog;		/* kept now */
	struct tc_sch_bpf_xstats bpf;
	char object[SCH_BPF_OBJECT_LEN];	/* of bpf and bpf_mq; else empty */
	bool traced;
	struct qdisc_counts taken;
	__u64 reasons[MAX_REASONS];
	__u32 stats_map;		/* the map that these are in */
	int stats_count;
	struct stat_value *stats;
};

struct samples {
	struct sample *at;
	int count;
	double time;
};

static struct {
	const char *dev;
	int ifindex;			/* 0: all devices */
	double interval;
	long count;			/* 0: until it is interrupted */
	bool json;
	bool prometheus;
} options = { .interval = 1 };

static struct qdisctop_bpf *skel;
static char *reason_names[MAX_REASONS];	/* by the low half of the number */
static volatile sig_atomic_t stopped;

static void __attribute__((noreturn, format(printf, 1, 2))) die(const char *fmt, ...)
{
	va_list args;

	fputs("qdisctop: ", stderr);
	va_start(args, fmt);
	vfprintf(stderr, fmt, args);
	va_end(args);
	fputc('\n', stderr);
	exit(1);
}

static void stop(int signal)
{
	(void)signal;
	stopped = 1;
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

/* ---- the tracepoints ---- */

/* Names of the reasons are those of this kernel's enum */
static void read_reason_names(void)
{
	struct btf *btf = btf__load_vmlinux_btf();
	const struct btf_enum *e;
	const struct btf_type *t;
	__u32 i;
	int id;

	if (!btf)
		die("this kernel has no BTF");
	id = btf__find_by_name_kind(btf, "qdisc_drop_reason", BTF_KIND_ENUM);
	if (id < 0)
		die("this kernel has no reasons for drops in qdiscs");
	t = btf__type_by_id(btf, id);
	e = btf_enum(t);
	for (i = 0; i < btf_vlen(t); i++) {
		const char *name = btf__name_by_offset(btf, e[i].name_off);
		__u32 number = e[i].val & 0xffff;

		if (number < MAX_REASONS && !strncmp(name, "QDISC_DROP_", 11))
			reason_names[number] = strdup(name + 11);
	}
	btf__free(btf);
}

static void trace(void)
{
	struct stat ns;
	int err;

	if (stat("/proc/self/ns/net", &ns))
		die("/proc/self/ns/net: %s", strerror(errno));
	libbpf_set_print(NULL);
	skel = qdisctop_bpf__open();
	if (!skel)
		die("cannot open the BPF object: %s", strerror(errno));
	skel->rodata->ifindex = options.ifindex;
	skel->rodata->netns = ns.st_ino;
	err = qdisctop_bpf__load(skel);
	if (!err)
		err = qdisctop_bpf__attach(skel);
	if (err == -EPERM)
		die("no permission: CAP_BPF and CAP_PERFMON are needed");
	if (err == -ESRCH)
		die("this kernel has not the tracepoints qdisc_enqueue, qdisc_dequeue, qdisc_drop");
	if (err)
		die("cannot load the BPF programs: %s", strerror(-err));
}

static void read_traced(struct sample *s)
{
	struct drop_key key = { .qdisc = s->key };
	int i;

	s->traced = !bpf_map_lookup_elem(bpf_map__fd(skel->maps.counts), &s->key, &s->taken);
	for (i = 0; i < MAX_REASONS; i++) {
		if (!reason_names[i])
			continue;
		key.reason = i;
		bpf_map_lookup_elem(bpf_map__fd(skel->maps.drops), &key, &s->reasons[i]);
	}
}

/* ---- what a policy counts itself ---- */

/* These are the variables that tc shows, with the same limits. Its reader is part of iproute2
 * (tc/q_bpf_values.c), and shows texts and tables as well; here is what can be subtracted. The two
 * trees share no source but libbpf, whose functions are promises to everybody.
 */

static bool is_bpf(const struct sample *s)
{
	return !strcmp(s->kind, "bpf") || !strcmp(s->kind, "bpf_mq");
}

/* The map of its variables, among those that a program uses: a file descriptor, or -1 */
static int open_stats(__u32 prog_id, struct bpf_map_info *info)
{
	int fd = bpf_prog_get_fd_by_id(prog_id), err;
	__u32 ids[MAX_MAPS], len, i;
	struct bpf_prog_info prog = {
		.nr_map_ids = MAX_MAPS,
		.map_ids = (unsigned long)ids,
	};

	if (fd < 0)
		return -1;
	len = sizeof(prog);
	err = bpf_prog_get_info_by_fd(fd, &prog, &len);
	close(fd);
	for (i = 0; !err && i < prog.nr_map_ids && i < MAX_MAPS; i++) {
		fd = bpf_map_get_fd_by_id(ids[i]);
		if (fd < 0)
			continue;
		memset(info, 0, sizeof(*info));
		len = sizeof(*info);
		if (!bpf_map_get_info_by_fd(fd, info, &len) && !strcmp(info->name, STATS_SECTION))
			return fd;
		close(fd);
	}
	return -1;
}

/* NULL for a device and an address, which are no numbers */
static const struct btf_type *skip_names(const struct btf *btf, __u32 id)
{
	const struct btf_type *t = btf__type_by_id(btf, id);
	const char *name;

	while (t && (btf_is_mod(t) || btf_is_typedef(t))) {
		name = btf__name_by_offset(btf, t->name_off);
		if (!strcmp(name, "bpf_ifindex") || !strcmp(name, "__be32"))
			return NULL;
		t = btf__type_by_id(btf, t->type);
	}
	return t;
}

static bool is_number(const struct btf_type *t)
{
	return (btf_is_int(t) || btf_is_any_enum(t)) &&
	       (t->size == 1 || t->size == 2 || t->size == 4 || t->size == 8);
}

static __s64 load(const struct btf_type *t, const void *data)
{
	bool is_signed = btf_is_int(t) ? btf_int_encoding(t) & BTF_INT_SIGNED : btf_kflag(t);

	switch (t->size) {
	case 1:
		return is_signed ? *(__s8 *)data : *(__u8 *)data;
	case 2:
		return is_signed ? *(__s16 *)data : *(__u16 *)data;
	case 4:
		return is_signed ? *(__s32 *)data : (__s64)*(__u32 *)data;
	default:
		return *(__s64 *)data;
	}
}

/* A number, or an array of numbers; no texts */
static void add_stats(struct sample *s, const struct btf *btf, __u32 id, const char *data)
{
	const struct btf_type *var = btf__type_by_id(btf, id);
	const struct btf_type *t = skip_names(btf, var->type), *elem = t;
	const char *name = btf__name_by_offset(btf, var->name_off);
	struct stat_value *stat;
	__u32 i, count = 1;

	if (t && btf_is_array(t)) {
		elem = skip_names(btf, btf_array(t)->type);
		count = btf_array(t)->nelems;
	}
	if (!elem || !count || !is_number(elem) ||
	    (elem != t && !strcmp(btf__name_by_offset(btf, elem->name_off), "char")))
		return;
	s->stats = realloc(s->stats, (s->stats_count + count) * sizeof(*stat));
	if (!s->stats)
		die("out of memory");
	for (i = 0; i < count; i++) {
		stat = &s->stats[s->stats_count++];
		stat->total = load(elem, data + i * elem->size);
		stat->value = stat->total;
		stat->of_array = elem != t;
		if (elem == t)
			snprintf(stat->name, sizeof(stat->name), "%s", name);
		else
			snprintf(stat->name, sizeof(stat->name), "%s[%u]", name, i);
	}
}

static void read_section(struct sample *s, int fd, const struct bpf_map_info *info)
{
	struct btf *btf = btf__load_from_kernel_by_id(info->btf_id);
	const struct btf_type *section = btf ? btf__type_by_id(btf, info->btf_value_type_id) : NULL;
	char *data = malloc(info->value_size);
	const struct btf_var_secinfo *var;
	__u32 i, zero = 0;

	if (!data)
		die("out of memory");
	if (section && btf_is_datasec(section) && !bpf_map_lookup_elem(fd, &zero, data)) {
		s->stats_map = info->id;
		for (i = 0; i < btf_vlen(section); i++) {
			var = btf_var_secinfos(section) + i;
			if (var->offset + var->size <= info->value_size)
				add_stats(s, btf, var->type, data + var->offset);
		}
	}
	free(data);
	btf__free(btf);
}

/* Its object, and its variables, which either program may use */
static void read_policy(struct sample *s)
{
	LIBBPF_OPTS(bpf_qdisc_opts, opts);
	LIBBPF_OPTS(bpf_qdisc_info, qdisc);
	struct bpf_map_info info;
	int fd;

	opts.parent = s->key.parent;
	opts.handle = s->key.handle;
	opts.kind = s->kind;
	if (!is_bpf(s) || bpf_qdisc_query(s->ifindex, &opts, &qdisc))
		return;
	snprintf(s->object, sizeof(s->object), "%s", qdisc.object);
	if (qdisc.queues)	/* each instance counts its own */
		return;
	fd = open_stats(qdisc.enqueue_prog_id, &info);
	if (fd < 0)
		fd = open_stats(qdisc.dequeue_prog_id, &info);
	if (fd < 0)
		return;
	read_section(s, fd, &info);
	close(fd);
}

/* ---- the statistics that tc shows ---- */

static void parse_attrs(struct rtattr *tb[], int max, void *data, int len)
{
	struct rtattr *a;

	memset(tb, 0, sizeof(*tb) * (max + 1));
	for (a = data; RTA_OK(a, len); a = RTA_NEXT(a, len)) {
		if ((a->rta_type & NLA_TYPE_MASK) <= max)
			tb[a->rta_type & NLA_TYPE_MASK] = a;
	}
}

/* A kernel may send less or more than this was built with */
static void copy_attr(void *to, size_t size, const struct rtattr *a)
{
	if (a)
		memcpy(to, RTA_DATA(a), RTA_PAYLOAD(a) < size ? RTA_PAYLOAD(a) : size);
}

static void add_qdisc(struct samples *all, const struct tcmsg *t, int len)
{
	struct rtattr *tb[TCA_MAX + 1], *stats[TCA_STATS_MAX + 1];
	struct gnet_stats_basic basic = {};
	struct gnet_stats_queue queue = {};
	char dev[IF_NAMESIZE];
	struct sample *s;

	parse_attrs(tb, TCA_MAX, TCA_RTA(t), len);
	if ((options.ifindex && t->tcm_ifindex != options.ifindex) || !tb[TCA_KIND] ||
	    !tb[TCA_STATS2] || !if_indextoname(t->tcm_ifindex, dev))
		return;
	parse_attrs(stats, TCA_STATS_MAX, RTA_DATA(tb[TCA_STATS2]), RTA_PAYLOAD(tb[TCA_STATS2]));
	copy_attr(&basic, sizeof(basic), stats[TCA_STATS_BASIC]);
	copy_attr(&queue, sizeof(queue), stats[TCA_STATS_QUEUE]);

	all->at = realloc(all->at, (all->count + 1) * sizeof(*s));
	if (!all->at)
		die("out of memory");
	s = &all->at[all->count++];
	memset(s, 0, sizeof(*s));
	s->ifindex = t->tcm_ifindex;
	memcpy(s->dev, dev, sizeof(dev));
	s->key.handle = t->tcm_handle;
	s->key.parent = t->tcm_parent;
	snprintf(s->kind, sizeof(s->kind), "%s", (char *)RTA_DATA(tb[TCA_KIND]));
	s->packets = basic.packets;
	copy_attr(&s->packets, sizeof(s->packets), stats[TCA_STATS_PKT64]);
	s->bytes = basic.bytes;
	s->drops = queue.drops;
	s->overlimits = queue.overlimits;
	s->requeues = queue.requeues;
	s->qlen = queue.qlen;
	s->backlog = queue.backlog;
	if (!strcmp(s->kind, "bpf"))
		copy_attr(&s->bpf, sizeof(s->bpf), stats[TCA_STATS_APP]);
	if (skel)
		read_traced(s);
	read_policy(s);
}

/* Returns false at the end */
static bool read_message(struct samples *all, const struct nlmsghdr *h)
{
	if (h->nlmsg_type == NLMSG_DONE)
		return false;
	if (h->nlmsg_type == NLMSG_ERROR)
		die("the kernel lists no qdiscs: %s",
		    strerror(-((struct nlmsgerr *)NLMSG_DATA(h))->error));
	if (h->nlmsg_type == RTM_NEWQDISC)
		add_qdisc(all, NLMSG_DATA(h), NLMSG_PAYLOAD(h, sizeof(struct tcmsg)));
	return true;
}

static struct samples read_samples(int sock)
{
	struct {
		struct nlmsghdr h;
		struct tcmsg t;
	} request = {
		.h = {
			.nlmsg_len = sizeof(request),
			.nlmsg_type = RTM_GETQDISC,
			.nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP,
		},
		.t.tcm_ifindex = options.ifindex,
	};
	struct samples all = { .time = now() };
	static char buf[1 << 16];
	struct nlmsghdr *h;
	int len;

	if (send(sock, &request, sizeof(request), 0) < 0)
		die("netlink: %s", strerror(errno));
	for (;;) {
		do {
			len = recv(sock, buf, sizeof(buf), 0);
		} while (len < 0 && errno == EINTR);
		if (len < 0)
			die("netlink: %s", strerror(errno));
		for (h = (void *)buf; NLMSG_OK(h, (unsigned int)len); h = NLMSG_NEXT(h, len)) {
			if (!read_message(&all, h))
				return all;
		}
	}
}

/* ---- what happened between two samples ---- */

static void copy_stats(struct sample *d)
{
	size_t size = d->stats_count * sizeof(*d->stats);
	struct stat_value *copy = malloc(size + 1);

	if (!copy)
		die("out of memory");
	if (size)
		memcpy(copy, d->stats, size);
	d->stats = copy;
}

static void free_samples(struct samples *all)
{
	while (all->count)
		free(all->at[--all->count].stats);
	free(all->at);
}

/* Two samples of one map have the same numbers in the same order, of arrays also those that are
 * 0. Programs that are there since begin with another map.
 */
static void subtract_stats(struct sample *d, const struct sample *b)
{
	int i;

	if (d->stats_map != b->stats_map)
		return;
	for (i = 0; i < d->stats_count && i < b->stats_count; i++)
		d->stats[i].value -= b->stats[i].total;
}

/* A qdisc that was not there before, or was made anew, began with zeros. Its statistics are to
 * be freed.
 */
static struct sample difference(const struct sample *s, const struct samples *before)
{
	struct sample d = *s;
	const struct sample *b;
	int i;

	copy_stats(&d);
	for (b = before->at; b < before->at + before->count; b++) {
		if (memcmp(&b->key, &s->key, sizeof(s->key)))
			continue;
		if (!strcmp(b->kind, s->kind) && b->packets <= s->packets &&
		    b->bytes <= s->bytes && (__s32)(s->drops - b->drops) >= 0) {
			d.packets -= b->packets;
			d.bytes -= b->bytes;
			d.drops -= b->drops;
		}
		d.taken.packets -= b->taken.packets;
		d.taken.bytes -= b->taken.bytes;
		for (i = 0; i < DELAY_SLOTS; i++)
			d.taken.delay[i] -= b->taken.delay[i];
		for (i = 0; i < MAX_REASONS; i++)
			d.reasons[i] -= b->reasons[i];
		subtract_stats(&d, b);
	}
	return d;
}

static __u64 known_drops(const struct sample *d)
{
	__u64 sum = 0;
	int i;

	for (i = 0; i < MAX_REASONS; i++)
		sum += d->reasons[i];
	return sum;
}

static const char *handle_text(__u32 handle, char *text, size_t size)
{
	if (handle == TC_H_ROOT)
		return "root";
	if (TC_H_MIN(handle))
		snprintf(text, size, "%x:%x", TC_H_MAJ(handle) >> 16, TC_H_MIN(handle));
	else
		snprintf(text, size, "%x:", TC_H_MAJ(handle) >> 16);
	return text;
}

/* ---- output ---- */

/* With quotes; what would end the text is escaped, and a byte that is not ASCII: the name
 * of a device need not be UTF-8, as JSON is
 */
static void print_json_text(const char *text)
{
	const unsigned char *c;

	putchar('"');
	for (c = (const unsigned char *)text; *c; c++) {
		if (*c == '"' || *c == '\\')
			printf("\\%c", *c);
		else if (*c < ' ' || *c > '~')
			printf("\\u%04x", *c);
		else
			putchar(*c);
	}
	putchar('"');
}

static void print_json_drops(const struct sample *d)
{
	__u64 known = known_drops(d);
	const char *comma = "";
	int i;

	printf("\"drops\":%u,\"reasons\":{", d->drops);
	for (i = 0; i < MAX_REASONS; i++) {
		if (!d->reasons[i])
			continue;
		printf("%s\"%s\":%llu", comma, reason_names[i], d->reasons[i]);
		comma = ",";
	}
	if (d->drops > known)
		printf("%s\"other\":%llu", comma, d->drops - known);
	printf("}");
}

static void print_json_taken(const struct sample *d)
{
	const char *comma = "";
	int i;

	printf(",\"in\":{\"packets\":%llu,\"bytes\":%llu},\"delay\":[", d->taken.packets,
	       d->taken.bytes);
	for (i = 0; i < DELAY_SLOTS; i++) {
		if (!d->taken.delay[i])
			continue;
		printf("%s{\"from_ns\":%llu,\"to_ns\":%llu,\"packets\":%llu}", comma,
		       i ? 1ULL << i : 0, 1ULL << (i + 1), d->taken.delay[i]);
		comma = ",";
	}
	printf("]");
}

/* Of an array, elements that nothing has been counted in are left out */
static bool is_shown(const struct stat_value *stat)
{
	return !stat->of_array || stat->total || stat->value;
}

static void print_json_stats(const struct sample *d)
{
	const struct stat_value *stat;
	const char *comma = "";

	printf(",\"stats\":{");
	for (stat = d->stats; stat < d->stats + d->stats_count; stat++) {
		if (!is_shown(stat))
			continue;
		printf("%s\"%s\":%lld", comma, stat->name, stat->value);
		comma = ",";
	}
	printf("}");
}

static void print_json_qdisc(const struct sample *d)
{
	char handle[16], parent[16];

	printf("{\"kind\":");
	print_json_text(d->kind);
	printf(",\"handle\":\"%s\",\"parent\":\"%s\",",
	       handle_text(d->key.handle, handle, sizeof(handle)),
	       handle_text(d->key.parent, parent, sizeof(parent)));
	printf("\"out\":{\"packets\":%llu,\"bytes\":%llu},\"qlen\":%u,\"backlog\":%u,",
	       d->packets, d->bytes, d->qlen, d->backlog);
	print_json_drops(d);
	if (d->traced)
		print_json_taken(d);
	if (d->stats_map)
		print_json_stats(d);
	printf("}");
}

static void print_json(const struct samples *all, const struct samples *before)
{
	struct sample d;
	int i;

	printf("{\"dev\":");
	print_json_text(options.dev);
	printf(",\"seconds\":%.3f,\"qdiscs\":[", all->time - before->time);
	for (i = 0; i < all->count; i++) {
		d = difference(&all->at[i], before);
		printf("%s", i ? "," : "");
		print_json_qdisc(&d);
		free(d.stats);
	}
	printf("]}\n");
}

static void print_rates(const char *name, __u64 packets, __u64 bytes, double seconds)
{
	printf("  %-8s %10llu packets %14llu bytes %12.0f packets/s %12.3f Mbit/s\n", name,
	       packets, bytes, packets / seconds, bytes * 8 / 1e6 / seconds);
}

static const char *time_text(int slot, char *text, size_t size)
{
	static const char * const units[] = { "ns", "us", "ms", "s" };
	double t = slot ? 1ULL << slot : 0;
	int unit = 0;

	for (; t >= 1000 && unit < 3; unit++)
		t /= 1000;
	snprintf(text, size, "%.*f %s", t < 10 && unit ? 1 : 0, t, units[unit]);
	return text;
}

static void print_delays(const struct sample *d)
{
	int i, first = DELAY_SLOTS, last = -1;
	char from[16], to[16];
	__u64 most = 1;

	for (i = 0; i < DELAY_SLOTS; i++) {
		if (!d->taken.delay[i])
			continue;
		first = i < first ? i : first;
		last = i;
		most = d->taken.delay[i] > most ? d->taken.delay[i] : most;
	}
	if (last >= 0)
		printf("  delay in the queue\n");
	for (i = first; i <= last; i++)
		printf("  %10s .. %-8s %10llu |%-*.*s|\n", time_text(i, from, sizeof(from)),
		       time_text(i + 1, to, sizeof(to)), d->taken.delay[i], BAR_WIDTH,
		       (int)(d->taken.delay[i] * BAR_WIDTH / most),
		       "@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@");
}

static void print_drops(const struct sample *d)
{
	__u64 known = known_drops(d);
	int i;

	printf("  %-8s %10u packets", "dropped", d->drops);
	for (i = 0; i < MAX_REASONS; i++) {
		if (d->reasons[i])
			printf("  %s %llu", reason_names[i], d->reasons[i]);
	}
	if (d->drops > known && known)
		printf("  other %llu", d->drops - known);
	printf("\n");
}

static void print_stats(const struct sample *d)
{
	const struct stat_value *stat;

	printf("  %-8s", "policy");
	for (stat = d->stats; stat < d->stats + d->stats_count; stat++) {
		if (is_shown(stat))
			printf("  %s %lld", stat->name, stat->value);
	}
	printf("\n");
}

static void print_qdisc(const struct sample *d, double seconds)
{
	char handle[16], parent[16];

	printf("\nqdisc %s %s parent %s\n", d->kind,
	       handle_text(d->key.handle, handle, sizeof(handle)),
	       handle_text(d->key.parent, parent, sizeof(parent)));
	if (d->traced)
		print_rates("in", d->taken.packets, d->taken.bytes, seconds);
	print_rates("out", d->packets, d->bytes, seconds);
	print_drops(d);
	printf("  %-8s %10u packets %14u bytes\n", "queued", d->qlen, d->backlog);
	if (d->stats_map)
		print_stats(d);
	print_delays(d);
}

static void print_text(const struct samples *all, const struct samples *before)
{
	time_t t = time(NULL);
	struct sample d;
	char clock[16];
	int i;

	strftime(clock, sizeof(clock), "%T", localtime(&t));
	if (isatty(STDOUT_FILENO))
		printf("\033[H\033[J");
	printf("%s %s, the last %.1f s\n", clock, options.dev, all->time - before->time);
	for (i = 0; i < all->count; i++) {
		d = difference(&all->at[i], before);
		print_qdisc(&d, all->time - before->time);
		free(d.stats);
	}
}

/* ---- for Prometheus ---- */

static const struct metric {
	const char *name, *type, *help;
	size_t at;			/* in a sample */
	bool wide;			/* of 64 bits, else 32 */
	bool of_bpf;			/* only the kind bpf has it */
} metrics[] = {
	{ "qdisc_sent_packets_total", "counter",
	  "Packets sent, segments of GSO packets one by one.",
	  .at = offsetof(struct sample, packets), .wide = true },
	{ "qdisc_sent_bytes_total", "counter",
	  "Bytes of the packets sent.",
	  .at = offsetof(struct sample, bytes), .wide = true },
	{ "qdisc_dropped_packets_total", "counter",
	  "Packets dropped.",
	  .at = offsetof(struct sample, drops) },
	{ "qdisc_overlimits_total", "counter",
	  "Times that the qdisc had to wait or was too full.",
	  .at = offsetof(struct sample, overlimits) },
	{ "qdisc_requeues_total", "counter",
	  "Packets that the device sent back.",
	  .at = offsetof(struct sample, requeues) },
	{ "qdisc_queued_packets", "gauge",
	  "Packets in the queue.",
	  .at = offsetof(struct sample, qlen) },
	{ "qdisc_queued_bytes", "gauge",
	  "Bytes of the packets in the queue.",
	  .at = offsetof(struct sample, backlog) },
	{ "qdisc_bpf_stored_packets", "gauge",
	  "Packets in maps of the policy.",
	  .at = offsetof(struct sample, bpf.stored), .of_bpf = true },
	{ "qdisc_bpf_fifo_packets", "gauge",
	  "Packets in the FIFO that serves in place of a stuck policy, or of none.",
	  .at = offsetof(struct sample, bpf.fifo), .of_bpf = true },
	{ "qdisc_bpf_stolen_packets_total", "counter",
	  "Packets that filter actions took.",
	  .at = offsetof(struct sample, bpf.stolen), .wide = true, .of_bpf = true },
	{ "qdisc_bpf_stuck", "gauge",
	  "1 while a FIFO serves in place of the policy, which is stuck.",
	  .at = offsetof(struct sample, bpf.is_stuck), .of_bpf = true },
	{ "qdisc_bpf_stuck_events_total", "counter",
	  "Times that the policy was found stuck.",
	  .at = offsetof(struct sample, bpf.stuck), .of_bpf = true },
};

static __u64 metric_value(const struct metric *m, const struct sample *s)
{
	const void *at = (const char *)s + m->at;

	return m->wide ? *(const __u64 *)at : *(const __u32 *)at;
}

/* What would end the text is escaped. A name of bytes that are not UTF-8 would make all
 * metrics unreadable: what is not ASCII is written as its number.
 */
static void print_label_value(const char *text)
{
	for (; *text; text++) {
		if (*text == '\\' || *text == '"')
			printf("\\%c", *text);
		else if (*text == '\n')
			printf("\\n");
		else if (*text & 0x80)
			printf("\\\\x%02x", *text & 0xff);
		else
			putchar(*text);
	}
}

static void print_labels(const char *metric, const struct sample *s)
{
	char handle[16], parent[16];

	printf("%s{device=\"", metric);
	print_label_value(s->dev);
	printf("\",kind=\"");
	print_label_value(s->kind);
	printf("\",handle=\"%s\",parent=\"%s\"",
	       handle_text(s->key.handle, handle, sizeof(handle)),
	       handle_text(s->key.parent, parent, sizeof(parent)));
}

static void print_metric_head(const char *name, const char *type, const char *help)
{
	printf("# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void print_metric(const struct metric *m, const struct samples *all)
{
	const struct sample *s;

	print_metric_head(m->name, m->type, m->help);
	for (s = all->at; s < all->at + all->count; s++) {
		if (m->of_bpf && strcmp(s->kind, "bpf"))
			continue;
		print_labels(m->name, s);
		printf("} %llu\n", metric_value(m, s));
	}
}

static void print_objects(const struct samples *all)
{
	const char *name = "qdisc_bpf_info";
	const struct sample *s;

	print_metric_head(name, "gauge", "The object file of the policy; the value is 1.");
	for (s = all->at; s < all->at + all->count; s++) {
		if (!is_bpf(s))
			continue;
		print_labels(name, s);
		printf(",object=\"");
		print_label_value(s->object);
		printf("\"} 1\n");
	}
}

/* Variables that several qdiscs share are printed once, so that sums are right. */
static bool is_first_with_stats(const struct samples *all, const struct sample *s)
{
	const struct sample *other;

	for (other = all->at; other < s; other++) {
		if (other->stats_map == s->stats_map)
			return false;
	}
	return s->stats_map;
}

/* Whether a variable only grows is not known here: it has no type. */
static void print_policy_stats(const struct samples *all)
{
	const char *name = "qdisc_bpf_policy_stat";
	const struct stat_value *stat;
	const struct sample *s;

	print_metric_head(name, "untyped",
			  "What the policy counts; of an array what is not 0, by its index.");
	for (s = all->at; s < all->at + all->count; s++) {
		if (!is_first_with_stats(all, s))
			continue;
		for (stat = s->stats; stat < s->stats + s->stats_count; stat++) {
			const char *bracket = strchr(stat->name, '[');

			if (!is_shown(stat))
				continue;
			print_labels(name, s);
			printf(",name=\"%.*s\"", (int)strcspn(stat->name, "["), stat->name);
			if (bracket)
				printf(",index=\"%d\"", atoi(bracket + 1));
			printf("} %lld\n", stat->total);
		}
	}
}

static void print_prometheus(const struct samples *all)
{
	size_t i;

	for (i = 0; i < sizeof(metrics) / sizeof(*metrics); i++)
		print_metric(&metrics[i], all);
	print_objects(all);
	print_policy_stats(all);
}

/* ---- the command ---- */

static void __attribute__((noreturn)) usage(FILE *file)
{
	fprintf(file, "Usage: qdisctop [-j] [-i SECONDS] [-n COUNT] DEV\n"
		"       qdisctop -p [DEV]\n"
		"Show what the qdiscs of a network device do: packets and bytes in and out, drops by\n"
		"reason, what is queued, and how long packets wait.\n"
		"  -i SECONDS  how often, 1 if it is not given\n"
		"  -j          a line of JSON each time\n"
		"  -n COUNT    end after so many times\n"
		"  -p, --prometheus  what the qdiscs of the device, or of all, have counted since they\n"
		"              were made, once, as Prometheus reads it\n");
	exit(file == stdout ? 0 : 2);
}

static double parse_number(const char *text, double min)
{
	char *end;
	double value = strtod(text, &end);

	if (end == text || *end || !(value >= min && value <= 1e9)) {
		fprintf(stderr, "qdisctop: \"%s\" is not a number from %g on\n", text, min);
		exit(2);
	}
	return value;
}

static void parse(int argc, char **argv)
{
	static const struct option longer[] = {
		{ "help", no_argument, NULL, 'h' },
		{ "prometheus", no_argument, NULL, 'p' },
		{}
	};
	bool repeats = false;
	int c;

	while ((c = getopt_long(argc, argv, "hi:jn:p", longer, NULL)) != -1) {
		repeats |= c == 'i' || c == 'j' || c == 'n';
		switch (c) {
		case 'h':
			usage(stdout);
		case 'i':
			options.interval = parse_number(optarg, 0.01);
			break;
		case 'j':
			options.json = true;
			break;
		case 'n':
			options.count = parse_number(optarg, 1);
			break;
		case 'p':
			options.prometheus = true;
			break;
		default:
			usage(stderr);
		}
	}
	if (options.prometheus && repeats)
		usage(stderr);
	if (optind == argc && options.prometheus)
		return;
	if (optind != argc - 1)
		usage(stderr);
	options.dev = argv[optind];
	options.ifindex = if_nametoindex(options.dev);
	if (!options.ifindex)
		die("%s: %s", options.dev, strerror(errno));
}

/* Woken by a signal it returns early */
static void wait_until(double when)
{
	double left = when - now();
	struct timespec t;

	if (left <= 0)
		return;
	t.tv_sec = left;
	t.tv_nsec = (left - t.tv_sec) * 1e9;
	nanosleep(&t, NULL);
}

static void check_device(void)
{
	char name[IF_NAMESIZE];

	if (options.ifindex && !if_indextoname(options.ifindex, name))
		die("%s is gone", options.dev);
}

static void flush(void)
{
	if ((fflush(stdout) || ferror(stdout)) && !stopped)
		die("cannot write: %s", strerror(errno));
}

int main(int argc, char **argv)
{
	struct samples before, all;
	struct sigaction action = { .sa_handler = stop };
	long i;
	int sock;

	parse(argc, argv);
	sock = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
	if (sock < 0)
		die("netlink: %s", strerror(errno));
	if (options.prometheus) {
		libbpf_set_print(NULL);
		all = read_samples(sock);
		check_device();
		print_prometheus(&all);
		flush();
		free_samples(&all);
		return 0;
	}
	read_reason_names();
	trace();
	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);

	before = read_samples(sock);
	/* whoever waits for the first line knows that nothing is missed from then on */
	for (i = 0; !stopped && (!options.count || i < options.count); i++) {
		wait_until(before.time + options.interval);
		all = read_samples(sock);
		check_device();
		if (options.json)
			print_json(&all, &before);
		else
			print_text(&all, &before);
		flush();
		free_samples(&before);
		before = all;
	}
	free_samples(&before);
	qdisctop_bpf__destroy(skel);
	return 0;
}
