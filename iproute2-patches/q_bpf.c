// SPDX-License-Identifier: GPL-2.0
/*
 * q_bpf.c	The qdiscs "bpf" and "bpf_mq": enqueue and dequeue are BPF programs.
 *
 * One source for two builds: a part of iproute2, and, with TC_PLUGIN defined, a
 * plug-in for a tc that was built without it.
 */

#include <ctype.h>
#include <dirent.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <arpa/inet.h>
#include <net/if.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include <linux/bpf.h>
#include <linux/magic.h>
#include <linux/pkt_sched.h>

#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <bpf/libbpf.h>

#ifdef TC_PLUGIN
#include "tc_plugin.h"
#define EXPORTED __attribute__((visibility("default")))
#else
#include "utils.h"
#include "tc_util.h"
#define EXPORTED
#endif

/* The verifier's log of one program. It is only touched as far as it is filled. */
#define LOG_SIZE	(16 << 20)

/* tc's loader of classifiers pins there too, and so they find each other's maps */
#define BPFFS		"/sys/fs/bpf"
#define BPFFS_ENV	"TC_BPF_MNT"
#define PIN_DIR		"tc"
#define PIN_SUBDIR	"globals"

/* Global variables in this section can be set and are shown */
#define PARAM_SECTION	".data.param"
#define MAX_SETTINGS	64

/* Global variables in this section are shown with -s */
#define STATS_SECTION	".data.stats"

/* Declaration tags: of a map that can be set and is shown, from BPF_QDISC_TABLE; of a
 * parameter, with MIN:MAX behind it, from BPF_QDISC_RANGE()
 */
#define TABLE_TAG	"table"
#define RANGE_TAG	"range:"

/* Names of types: the index of a device, and an address */
#define DEVICE_TYPE	"bpf_ifindex"
#define ADDRESS_TYPE	"__be32"

/* Of a type: as many names and arrays as libbpf and the kernel follow */
#define MAX_DEPTH	32

/* Bytes of a key or a value of a table */
#define MAX_ELEMENT	256

/* As much as tc has room for */
#define MSG_ROOM	(64 * 1024)

/* More than any device has */
#define MAX_QUEUES	4096

/* The kernel's range of the horizon and the patience, in ns */
#define MIN_TIME	10000000ULL
#define MAX_TIME	86400000000000ULL

enum { ENQUEUE, DEQUEUE, OPS };

static const struct {
	const char *name;
	const char *section;
	int attach;	/* expected_attach_type */
	int attr;
} ops[OPS] = {
	[ENQUEUE] = { "enqueue", "qdisc/enqueue", BPF_QDISC_ENQUEUE, TCA_SCH_BPF_ENQUEUE },
	[DEQUEUE] = { "dequeue", "qdisc/dequeue", BPF_QDISC_DEQUEUE, TCA_SCH_BPF_DEQUEUE },
};

/* When a setting is stored. All of them are checked before the kernel is asked for the change. */
enum when {
	AT_ONCE,	/* into what runs, or into a variable of an object that is not loaded yet */
	WHEN_LOADED,	/* into a table that is new with the object */
	WHEN_ATTACHED,	/* into a table that is there before; it stays if the change is refused */
};

/* NAME=VALUE or NAME[KEY]=VALUE */
struct setting {
	const char *name;
	const char *key;	/* or NULL */
	const char *value;
	enum when when;
};

/* What the command line asks for */
struct bpf_request {
	const char *object;
	const char *program[OPS];	/* program or section in the object */
	const char *pinned[OPS];	/* path of a pinned program, instead */
	struct setting setting[MAX_SETTINGS];
	int settings;
	const char *pin_dir;
	__u32 limit;	/* 0: not given */
	__u64 horizon;	/* ns; 0: not given */
	__u64 patience;	/* ns; 0: not given */
	bool flush;
	bool verbose;
};

/* Which qdisc the programs are for */
struct target {
	const char *dev;
	int ifindex;			/* 0: no such device, as tc is about to find out */
	bool add;			/* there must be no qdisc yet */
	struct bpf_qdisc_opts opts;
};

/* An object that is being loaded */
struct loader {
	const char *path;
	bool verbose;
	int queue;			/* for which tx queue of bpf_mq, or for all: 0 */
	bool same;			/* old and new object are both loaded for each queue, or both once */
	int old_queues;			/* with programs of their own; -1: there is no old object */
	struct bpf_object *obj;
	struct bpf_program *prog[OPS];
	char *log[OPS];
};

/* What the command in hand has loaded: the kernel is given the programs when
 * parse_qopt() has returned.
 */
static struct {
	int pairs;			/* of programs */
	int fds[OPS][MAX_QUEUES];
	struct bpf_object *obj[MAX_QUEUES];	/* the file descriptors are its; or NULL */
	bool for_each;			/* tx queue, even if that is one */
	char *pin_dir;			/* where to pin it when the qdisc has it; or NULL */
	struct setting setting[MAX_SETTINGS];	/* to store when the qdisc has it */
	int settings;
	struct target target;
	char *origin;			/* "dev DEV obj FILE", for messages; or NULL */
} loaded;

/* What libbpf has to say, kept back until it is known whether it is of use */
static FILE *said;
static char *said_text;
static size_t said_len;

static void explain(void)
{
	fprintf(stderr,
		"Usage: ... { bpf | bpf_mq } { obj | object-file } FILE\n"
		"               [ enqueue NAME ] [ dequeue NAME ] [ set SETTING ]...\n"
		"               [ COMMON ]... [ pin DIR ] [ verbose ]\n"
		"       ... { bpf | bpf_mq }\n"
		"               enqueue object-pinned PATH dequeue object-pinned PATH\n"
		"               [ COMMON ]...\n"
		"       ... { bpf | bpf_mq } [ set SETTING ]... [ COMMON ]...\n"
		"COMMON := { limit PACKETS | horizon TIME | patience TIME | flush }\n"
		"SETTING := { NAME=VALUE[,VALUE]... | NAME[KEY]=VALUE }\n"
		"\n"
		"FILE is a BPF object with a program in section \"qdisc/enqueue\" and one in\n"
		"\"qdisc/dequeue\", or the name of an installed policy. Where it has several,\n"
		"NAME is the name of a program or of a section such as \"qdisc/enqueue/NAME\".\n"
		"Global variables in its section\n"
		"\"" PARAM_SECTION "\" can be set, and the maps that are declared as tables.\n");
}

static void __attribute__((format(printf, 1, 2))) complain(const char *fmt, ...)
{
	va_list args;

	fputs("qdisc bpf: ", stderr);
	va_start(args, fmt);
	vfprintf(stderr, fmt, args);
	va_end(args);
	fputc('\n', stderr);
}

#ifdef TC_PLUGIN
/*
 * A tc of another version may lack a function, or may have moved the members of
 * struct qdisc_util. Of its own qdisc prio both the structure and a function
 * that the structure points to can be seen from here.
 */
static bool tc_fits(void)
{
	const struct {
		const void *function;
		const char *name;
	} needed[] = {
		{ addattr_l, "addattr_l" },
		{ addattr_nest, "addattr_nest" },
		{ addattr_nest_end, "addattr_nest_end" },
		{ parse_rtattr_flags, "parse_rtattr_flags" },
		{ open_json_object, "open_json_object" },
		{ close_json_object, "close_json_object" },
		{ open_json_array, "open_json_array" },
		{ close_json_array, "close_json_array" },
		{ print_color_string, "print_color_string" },
		{ print_color_uint, "print_color_uint" },
		{ print_color_u64, "print_color_u64" },
		{ print_color_bool, "print_color_bool" },
		{ print_color_s64, "print_color_s64" },
		{ &prio_qdisc_util, "prio_qdisc_util" },
		{ prio_print_opt, "prio_print_opt" },
	};
	size_t i;

	for (i = 0; i < sizeof(needed) / sizeof(needed[0]); i++) {
		if (needed[i].function)
			continue;
		complain("this tc has no %s() for its plug-ins; iproute2 5.15 or newer is needed",
			 needed[i].name);
		return false;
	}
	if (prio_qdisc_util.print_qopt != prio_print_opt) {
		complain("this tc has another struct qdisc_util than the plug-in was built for");
		return false;
	}
	return true;
}
#else
static bool tc_fits(void)
{
	return true;
}
#endif

static int keep_what_is_said(void)
{
	said = open_memstream(&said_text, &said_len);
	if (said)
		return 0;
	complain("out of memory");
	return -1;
}

static void forget_what_is_said(void)
{
	fclose(said);
	free(said_text);
	said = NULL;
}

static void print_said(void)
{
	fflush(said);
	fputs(said_text, stderr);
}

static int print_kept(enum libbpf_print_level level, const char *fmt, va_list args)
{
	if (level > LIBBPF_WARN || !said)
		return 0;
	return vfprintf(said, fmt, args);
}

static int print_warnings(enum libbpf_print_level level, const char *fmt, va_list args)
{
	if (level > LIBBPF_WARN)
		return 0;
	return vfprintf(stderr, fmt, args);
}

static int print_all(enum libbpf_print_level level, const char *fmt, va_list args)
{
	return vfprintf(stderr, fmt, args);
}

/* Is it a BPF object? libbpf says "Invalid argument" to all that is not. */
static int check_file(const char *path)
{
	const int order = __BYTE_ORDER == __LITTLE_ENDIAN ? ELFDATA2LSB : ELFDATA2MSB;
	Elf64_Ehdr head = {};
	struct stat st;
	ssize_t len;
	int fd;

	fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);	/* a FIFO would wait */
	if (fd < 0) {
		complain("%s: %s", path, strerror(errno));
		return -1;
	}
	if (fstat(fd, &st) || !S_ISREG(st.st_mode)) {
		complain("%s: not a regular file", path);
		close(fd);
		return -1;
	}
	len = read(fd, &head, sizeof(head));
	close(fd);

	if (len < EI_NIDENT || memcmp(head.e_ident, ELFMAG, SELFMAG)) {
		complain("%s: not an ELF object", path);
		return -1;
	}
	if (len < sizeof(head) || head.e_ident[EI_CLASS] != ELFCLASS64 ||
	    head.e_ident[EI_DATA] != order || head.e_machine != EM_BPF) {
		complain("%s: not for BPF, or of the other byte order; compile with clang -target bpf",
			 path);
		return -1;
	}
	return 0;
}

/* Is the program in "qdisc/enqueue" or in "qdisc/enqueue/anything"? */
static bool is_for(const struct bpf_program *prog, int op)
{
	const char *section = bpf_program__section_name(prog);
	size_t len = strlen(ops[op].section);

	return !strncmp(section, ops[op].section, len) &&
	       (section[len] == '\0' || section[len] == '/');
}

static bool is_named(const struct bpf_program *prog, const char *name)
{
	return !name || !strcmp(bpf_program__name(prog), name) ||
	       !strcmp(bpf_program__section_name(prog), name);
}

static void list_programs(struct bpf_object *obj, int op, const char *name)
{
	struct bpf_program *prog;

	bpf_object__for_each_program(prog, obj) {
		if (is_for(prog, op) && is_named(prog, name))
			fprintf(stderr, "  %s (section %s)\n", bpf_program__name(prog),
				bpf_program__section_name(prog));
	}
}

static int pick_program(struct loader *ld, int op, const char *name)
{
	struct bpf_program *prog;
	int candidates = 0, found = 0;

	bpf_object__for_each_program(prog, ld->obj) {
		if (!is_for(prog, op))
			continue;
		candidates++;
		if (!is_named(prog, name))
			continue;
		found++;
		ld->prog[op] = prog;
	}
	if (found == 1)
		return 0;

	if (!candidates) {
		complain("%s: no %s program: section \"%s\" is not there", ld->path,
			 ops[op].name, ops[op].section);
	} else if (!found) {
		complain("%s: no %s program or section is named \"%s\"; there are", ld->path,
			 ops[op].name, name);
		list_programs(ld->obj, op, NULL);
	} else {
		complain("%s: %d %s programs; say with \"%s NAME\" which one", ld->path, found,
			 ops[op].name, ops[op].name);
		list_programs(ld->obj, op, name);
	}
	return -1;
}

/* Load the two programs of the qdisc and leave classifiers and the like alone */
static int prepare_programs(struct loader *ld, const struct bpf_request *req)
{
	struct bpf_program *prog;
	int op;

	bpf_object__for_each_program(prog, ld->obj)
		bpf_program__set_autoload(prog, false);

	for (op = 0; op < OPS; op++) {
		if (pick_program(ld, op, req->program[op]))
			return -1;
		prog = ld->prog[op];
		ld->log[op] = calloc(1, LOG_SIZE);
		if (!ld->log[op]) {
			complain("out of memory");
			return -1;
		}
		bpf_program__set_autoload(prog, true);
		/* the section says it; spelled out for a libbpf that does not know it */
		bpf_program__set_type(prog, BPF_PROG_TYPE_QDISC);
		bpf_program__set_expected_attach_type(prog,
						      (enum bpf_attach_type)ops[op].attach);
		bpf_program__set_log_buf(prog, ld->log[op], LOG_SIZE);
		bpf_program__set_log_level(prog, req->verbose);
	}
	return 0;
}

static const char *bpffs_path(void)
{
	const char *path = getenv(BPFFS_ENV);

	return path ? path : BPFFS;
}

static int make_dir(const char *path)
{
	if (!mkdir(path, 0700) || errno == EEXIST)
		return 0;
	complain("%s: %s", path, strerror(errno));
	return -1;
}

/*
 * "tc -n" and "ip netns exec" work in a mount namespace of their own, whose /sys is new
 * and has no bpffs. What is pinned in one that is mounted there nobody else sees, and it
 * is gone with the last process in the namespace. The first process is asked what the
 * system's bpffs is, or if that is not allowed, the one that has called us.
 */
static void warn_of_private_bpffs(const char *bpffs)
{
	const pid_t pids[] = { 1, getppid() };
	struct stat here, there;
	static bool warned;
	char path[PATH_MAX];
	int i;

	for (i = 0; i < 2; i++) {
		snprintf(path, sizeof(path), "/proc/%d/root%s", pids[i], bpffs);
		if (!stat(path, &there))
			break;
	}
	if (i == 2 || warned || stat(bpffs, &here) || here.st_dev == there.st_dev)
		return;
	warned = true;
	complain("warning: %s is not that of the system, but of \"tc -n\" or \"ip netns exec\" alone:\n"
		 "pins of others are not there, and pins made there are gone when the command ends.\n"
		 "Mount a bpffs outside of /sys, and say where in " BPFFS_ENV ":\n"
		 "  mkdir -p /run/bpf && mount -t bpf bpf /run/bpf && export " BPFFS_ENV "=/run/bpf",
		 bpffs);
}

static int mount_bpffs(void)
{
	const char *bpffs = bpffs_path();
	struct statfs st;

	if (statfs(bpffs, &st)) {
		complain("%s, for pinning: %s", bpffs, strerror(errno));
		return -1;
	}
	if (st.f_type != BPF_FS_MAGIC && mount("bpf", bpffs, "bpf", 0, "mode=0700")) {
		complain("cannot mount bpffs on %s, for pinning: %s", bpffs, strerror(errno));
		return -1;
	}
	warn_of_private_bpffs(bpffs);
	return 0;
}

/* The folder of maps that are pinned by name */
static int make_globals_dir(void)
{
	char path[PATH_MAX];

	if (mount_bpffs())
		return -1;
	snprintf(path, sizeof(path), "%s/%s", bpffs_path(), PIN_DIR);
	if (make_dir(path))
		return -1;
	snprintf(path, sizeof(path), "%s/%s/%s", bpffs_path(), PIN_DIR, PIN_SUBDIR);
	return make_dir(path);
}

/* The folder of "pin", looked at before anything is done that would be hard to undo */
static int make_pin_dir(const char *path)
{
	bool is_new = access(path, F_OK);
	struct statfs st;

	if (mount_bpffs() || make_dir(path))
		return -1;
	if (!statfs(path, &st) && st.f_type == BPF_FS_MAGIC)
		return 0;
	complain("pin %s: not a folder in a bpffs, such as %s", path, bpffs_path());
	if (is_new)
		rmdir(path);
	return -1;
}

static int open_object(struct loader *ld)
{
	char pin_root[PATH_MAX];
	LIBBPF_OPTS(bpf_object_open_opts, opts, .pin_root_path = pin_root);

	if (check_file(ld->path))
		return -1;
	snprintf(pin_root, sizeof(pin_root), "%s/%s/%s", bpffs_path(), PIN_DIR, PIN_SUBDIR);
	ld->obj = bpf_object__open_file(ld->path, &opts);
	/* What is not found is BTF, of maps or of kernel functions: the file has been seen. */
	if (ld->obj ? !bpf_object__btf(ld->obj) : errno == ENOENT || errno == ESRCH) {
		print_said();
		complain("%s: has no BTF; compile it with clang -g", ld->path);
		return -1;
	}
	if (!ld->obj) {
		print_said();
		complain("%s: cannot be opened as a BPF object: %s", ld->path, strerror(errno));
		return -1;
	}
	return 0;
}

/*
 * Packets that are queued are in the maps of the programs that are there: a new
 * object goes on with these maps, each queue's with those of that queue. replace makes
 * a new qdisc of an old one if another handle is asked for, and that has maps of its own.
 */
static int take_maps_over(struct loader *ld, const struct target *target)
{
	struct bpf_qdisc_opts opts = target->opts;
	LIBBPF_OPTS(bpf_qdisc_info, info);
	int ret;

	ld->old_queues = -1;
	if (target->add || bpf_qdisc_query(target->ifindex, &target->opts, &info) ||
	    (target->opts.handle && target->opts.handle != info.handle))
		return 0;

	ld->old_queues = info.queues;
	if (ld->queue) {
		opts.kind = NULL;
		opts.parent = info.handle + ld->queue + 1;
		opts.handle = 0;
	}
	/* Neither is the state of all queues that of one, nor that of one that of all. */
	if (!ld->same)
		opts.flags = BPF_QDISC_F_SHARED;
	if (!ld->verbose && !ld->queue)		/* of all queues it would be the same */
		libbpf_set_print(print_warnings);
	ret = bpf_object__reuse_qdisc_maps(ld->obj, target->ifindex, &opts);
	if (ret >= 0 || ret == -ENOENT)
		return 0;
	complain("cannot take over the maps of the qdisc: %s",
		 ret == -EPERM ? "that needs CAP_SYS_ADMIN" : strerror(-ret));
	return -1;
}

/* Arrays of maps without a size get an entry for each tx queue */
static int size_arrays(struct loader *ld, const struct target *target)
{
	int ret;

	if (!target->ifindex)
		return 0;
	ret = bpf_object__set_tx_queues(ld->obj, target->ifindex);
	if (ret >= 0)
		return 0;
	complain("%s: cannot count its tx queues: %s", target->dev, strerror(-ret));
	return -1;
}

static int prepare_maps(struct loader *ld, const struct target *target)
{
	struct bpf_map *map;
	int ret;

	if (size_arrays(ld, target))
		return -1;
	if (ld->queue) {
		ret = bpf_object__share_qdisc_maps(ld->obj, loaded.obj[0]);
		if (ret < 0) {
			complain("cannot share the maps of the first tx queue: %s", strerror(-ret));
			return -1;
		}
	}

	bpf_object__for_each_map(map, ld->obj) {
		if (bpf_map__pin_path(map) && make_globals_dir())
			return -1;
	}
	return take_maps_over(ld, target);
}

/*
 * Values that user space and the programs share: the variables of one data section,
 * which are in memory here, and, of parameters, maps that are declared as tables. Their
 * types are in the BTF of the object.
 */
struct values {
	struct btf *btf;
	const struct btf_type *section;	/* of the variables */
	const struct btf_type *maps;	/* section of the maps; NULL: no tables are wanted */
	char *data;			/* NULL: no variables */
	size_t size;
	struct bpf_object *obj;		/* that is being loaded; or */
	__u32 prog_id[OPS];		/* programs that run; 0: none */
	bool loading;			/* the object has no maps of its own yet */
	struct trial *trial;		/* store nothing in tables, but try it; or NULL */
};

/* A setting of a hash that has been tried, and not stored */
struct tried {
	__u64 key[MAX_ELEMENT / sizeof(__u64)];
	const char *table;
	long long room;	/* of the table as it is now; -1: not counted */
	int added;	/* elements: 1, 0 or -1 */
	bool there;	/* would the key be, behind this setting? */
};

struct trial {
	struct tried at[MAX_SETTINGS];
	int count;
	bool alone;	/* the setting is the only one, and stored next: that tells if there is room */
};

enum kind { OTHER, NUMBER, BOOL, DEVICE, ADDRESS, TEXT, ARRAY };

/* A variable, or an element of one; a table's key, or the value behind it */
struct value {
	const char *name;
	const char *range;		/* MIN:MAX, as the policy has it; or NULL */
	enum kind kind;
	bool is_signed;
	const struct btf_type *type;
	__u32 size;
	char *data;
	const struct btf_type *table;	/* definition of the map; or NULL */
};

/* What units measure. Numbers are shown in a unit of the kind of their range's. */
enum measure { BITS_A_SECOND, BYTES_A_SECOND, TIME, SIZE };

static const struct {
	const char *name;
	double factor;
	enum measure of;
} units[] = {
	/* a rate becomes bytes a second */
	{ "bit", 1.0 / 8, BITS_A_SECOND },	{ "bps", 1, BYTES_A_SECOND },
	{ "kbit", 1e3 / 8, BITS_A_SECOND },	{ "kbps", 1e3, BYTES_A_SECOND },
	{ "mbit", 1e6 / 8, BITS_A_SECOND },	{ "mbps", 1e6, BYTES_A_SECOND },
	{ "gbit", 1e9 / 8, BITS_A_SECOND },	{ "gbps", 1e9, BYTES_A_SECOND },
	{ "tbit", 1e12 / 8, BITS_A_SECOND },	{ "tbps", 1e12, BYTES_A_SECOND },
	/* a time becomes ns */
	{ "ns", 1, TIME },			{ "us", 1e3, TIME },
	{ "ms", 1e6, TIME },			{ "s", 1e9, TIME },
	/* a size becomes bytes; of two names the first is shown */
	{ "b", 1, SIZE },
	{ "kb", 1024, SIZE },			{ "k", 1024, SIZE },
	{ "mb", 1024 * 1024, SIZE },		{ "m", 1024 * 1024, SIZE },
	{ "gb", 1024 * 1024 * 1024, SIZE },	{ "g", 1024 * 1024 * 1024, SIZE },
};

static int find_unit(const char *name)
{
	int i;

	for (i = 0; i < (int)(sizeof(units) / sizeof(units[0])); i++) {
		if (!strcasecmp(name, units[i].name))
			return i;
	}
	return -1;
}

/* The unit in which a policy declares the range of a number, or -1 */
static int declared_unit(const char *range)
{
	const char *max = range ? strchr(range, ':') : NULL;

	return max ? find_unit(max + 1 + strspn(max + 1, "0123456789.")) : -1;
}

static bool is_rate(int unit)
{
	return units[unit].of == BITS_A_SECOND || units[unit].of == BYTES_A_SECOND;
}

/* Does it measure what the range does? One that is declared without a unit takes all. */
static bool is_unit_for(const char *range, const char *name)
{
	int declared = declared_unit(range), unit = find_unit(name);

	return declared < 0 || (unit >= 0 && (units[unit].of == units[declared].of ||
					      (is_rate(unit) && is_rate(declared))));
}

/* NULL for a type that has none below its names: BTF of an object that the kernel has not
 * seen yet may lead back to where it began.
 */
static const struct btf_type *resolve(const struct btf *btf, __u32 id, enum kind *kind)
{
	const struct btf_type *t;
	const char *name;
	int depth = 0;

	for (t = btf__type_by_id(btf, id); t && (btf_is_mod(t) || btf_is_typedef(t));
	     t = btf__type_by_id(btf, t->type)) {
		if (++depth > MAX_DEPTH)
			return NULL;
		name = btf__name_by_offset(btf, t->name_off);
		if (!strcmp(name, DEVICE_TYPE))
			*kind = DEVICE;
		else if (!strcmp(name, ADDRESS_TYPE))
			*kind = ADDRESS;
	}
	return t;
}

static void set_type(const struct btf *btf, struct value *v, __u32 id)
{
	enum kind named = NUMBER;
	const struct btf_type *t = resolve(btf, id, &named);
	__s64 size = btf__resolve_size(btf, id);
	struct value elem = {};

	v->type = t;
	v->kind = OTHER;
	v->size = size < 0 ? 0 : size;
	if (!t || size < 0)	/* libbpf finds no size of an array that is its own element */
		return;
	if (btf_is_array(t)) {
		set_type(btf, &elem, btf_array(t)->type);
		if (v->size && elem.kind != OTHER && elem.kind != ARRAY)
			v->kind = strcmp(btf__name_by_offset(btf, elem.type->name_off), "char") ?
				  ARRAY : TEXT;
	} else if (v->size == 1 || v->size == 2 || v->size == 4 || v->size == 8) {
		if (btf_is_int(t)) {
			v->kind = btf_int_encoding(t) & BTF_INT_BOOL ? BOOL : named;
			v->is_signed = btf_int_encoding(t) & BTF_INT_SIGNED;
		} else if (btf_is_any_enum(t)) {
			v->kind = NUMBER;
			v->is_signed = btf_kflag(t);
		}
	}
}

/* What is behind a declaration tag that begins so; or NULL */
static const char *find_tag(const struct btf *btf, __u32 var, const char *begin)
{
	const struct btf_type *t;
	const char *tag;
	__u32 id;

	for (id = 1; id < btf__type_cnt(btf); id++) {
		t = btf__type_by_id(btf, id);
		if (!btf_is_decl_tag(t) || t->type != var)
			continue;
		tag = btf__name_by_offset(btf, t->name_off);
		if (!strncmp(tag, begin, strlen(begin)))
			return tag + strlen(begin);
	}
	return NULL;
}

/* The type of a table's keys or values: a member of the map's definition points to it */
static __u32 table_type(const struct btf *btf, const struct btf_type *table, const char *member)
{
	const struct btf_type *ptr;
	int i;

	for (i = 0; i < btf_vlen(table); i++) {
		ptr = btf__type_by_id(btf, btf_members(table)[i].type);
		if (ptr && btf_is_ptr(ptr) &&
		    !strcmp(btf__name_by_offset(btf, btf_members(table)[i].name_off), member))
			return ptr->type;
	}
	return 0;
}

/* The type of the map, or its size: it is the length of an array there */
static __u32 table_number(const struct btf *btf, const struct btf_type *table, const char *member)
{
	const struct btf_type *t = btf__type_by_id(btf, table_type(btf, table, member));

	return t && btf_is_array(t) ? btf_array(t)->nelems : 0;
}

static bool get_table(const struct values *vs, __u32 var, const struct btf_type *def,
		      struct value *v)
{
	__u32 type;

	if (!def || !btf_is_struct(def) || !find_tag(vs->btf, var, TABLE_TAG))
		return false;
	v->table = def;
	set_type(vs->btf, v, table_type(vs->btf, def, "value"));
	type = table_number(vs->btf, def, "type");
	if (v->size > MAX_ELEMENT || (type != BPF_MAP_TYPE_HASH && type != BPF_MAP_TYPE_ARRAY))
		v->kind = OTHER;
	return true;
}

static bool get_value(const struct values *vs, const struct btf_var_secinfo *vsi, bool is_map,
		      struct value *v)
{
	const struct btf_type *var = btf__type_by_id(vs->btf, vsi->type);
	enum kind unused;

	if (!var || !btf_is_var(var))
		return false;
	memset(v, 0, sizeof(*v));
	v->name = btf__name_by_offset(vs->btf, var->name_off);
	v->range = find_tag(vs->btf, vsi->type, RANGE_TAG);
	if (is_map)
		return get_table(vs, vsi->type, resolve(vs->btf, var->type, &unused), v);
	set_type(vs->btf, v, var->type);
	v->data = vs->data + vsi->offset;
	return v->type && (size_t)vsi->offset + v->size <= vs->size;
}

/* The next one after index *i - 1, or false: first the variables, then the tables */
static bool next_value(const struct values *vs, int *i, struct value *v)
{
	int variables = vs->data && vs->section ? btf_vlen(vs->section) : 0;
	int maps = vs->maps ? btf_vlen(vs->maps) : 0;

	while (*i < variables + maps) {
		int n = (*i)++;
		bool is_map = n >= variables;
		const struct btf_type *section = is_map ? vs->maps : vs->section;

		if (get_value(vs, btf_var_secinfos(section) + n - (is_map ? variables : 0), is_map, v))
			return true;
	}
	return false;
}

static __u32 count_elements(const struct value *v)
{
	return btf_array(v->type)->nelems;
}

static struct value element(const struct values *vs, const struct value *v, __u32 i)
{
	struct value elem = { .name = v->name, .range = v->range };

	set_type(vs->btf, &elem, btf_array(v->type)->type);
	elem.data = v->data + i * elem.size;
	return elem;
}

static bool is_hash(const struct values *vs, const struct value *table)
{
	return table_number(vs->btf, table->table, "type") == BPF_MAP_TYPE_HASH;
}

/* How a key of an array or a table is read; data has room for MAX_ELEMENT bytes */
static struct value key_of(const struct values *vs, const struct value *v, void *data)
{
	struct value key = { .kind = NUMBER, .size = sizeof(__u32), .data = data };
	static char range[32];

	if (v->table && is_hash(vs, v)) {
		set_type(vs->btf, &key, table_type(vs->btf, v->table, "key"));
		if (key.size > MAX_ELEMENT || key.kind == ARRAY)
			key.kind = OTHER;
		return key;
	}
	snprintf(range, sizeof(range), "0:%u", (v->table ?
		 table_number(vs->btf, v->table, "max_entries") : count_elements(v)) - 1);
	key.range = range;
	return key;
}

static void describe(const struct values *vs, const struct value *v, char *text, size_t size)
{
	struct value elem;
	int len, unit;

	switch (v->kind) {
	case OTHER:
		snprintf(text, size, "of a type that cannot be set");
		break;
	case TEXT:
		snprintf(text, size, "a text of %u characters at most", v->size - 1);
		break;
	case BOOL:
		snprintf(text, size, "true or false");
		break;
	case DEVICE:
		snprintf(text, size, "the name or the index of a network device");
		break;
	case ADDRESS:
		snprintf(text, size, "an IPv4 address");
		break;
	case ARRAY:
		elem = element(vs, v, 0);
		len = snprintf(text, size, "at most %u of these, with commas between: ",
			       count_elements(v));
		describe(vs, &elem, text + len, size - len);
		break;
	case NUMBER:
		len = v->range ? strcspn(v->range, ":") : 0;
		unit = declared_unit(v->range);
		if (v->range)
			snprintf(text, size, "a %s from %.*s to %s", unit < 0 ? "number" :
				 is_rate(unit) ? "rate" : units[unit].of == TIME ? "time" : "size",
				 len, v->range, v->range[len] ? v->range + len + 1 : "?");
		else
			snprintf(text, size, "%s number of %u bits",
				 v->is_signed ? "a signed" : "an unsigned", 8 * v->size);
	}
}

/* A program may read it at any moment: no torn stores */
static void store_number(const struct value *v, __u64 value)
{
	switch (v->size) {
	case 1:
		*(volatile __u8 *)v->data = value;
		break;
	case 2:
		*(volatile __u16 *)v->data = value;
		break;
	case 4:
		*(volatile __u32 *)v->data = value;
		break;
	case 8:
		*(volatile __u64 *)v->data = value;
		break;
	}
}

static __u64 load_number(const struct value *v)
{
	int unused = 64 - 8 * v->size;
	__u64 value = 0;

	switch (v->size) {
	case 1:
		value = *(volatile __u8 *)v->data;
		break;
	case 2:
		value = *(volatile __u16 *)v->data;
		break;
	case 4:
		value = *(volatile __u32 *)v->data;
		break;
	case 8:
		value = *(volatile __u64 *)v->data;
		break;
	}
	return v->is_signed ? (__s64)(value << unused) >> unused : value;
}

static bool fits(const struct value *v, bool negative, __u64 value)
{
	int bits = 8 * v->size - v->is_signed;
	__u64 max = bits == 64 ? UINT64_MAX : (1ULL << bits) - 1;

	if (!negative)
		return value <= max;
	return v->is_signed && -value <= max + 1;
}

/* A fraction is taken only with a unit. 2^64 cannot be converted, nor can nan. */
static bool scale(const char *text, const char *unit, __u64 *value)
{
	int i = find_unit(unit);
	double number;
	char *end;

	number = strtod(text, &end);
	if (unit == text || end != unit || i < 0)
		return false;
	number *= units[i].factor;
	if (!(number >= 0 && number < 0x1p64))
		return false;
	*value = number + 0.5;
	return true;
}

/* Decimal, or hexadecimal behind 0x */
static bool parse_integer(const char *text, __u64 *value)
{
	bool negative = text[0] == '-';
	int base = strncasecmp(text + negative, "0x", 2) ? 10 : 16;
	char *end;

	if (isspace(text[0]))
		return false;
	errno = 0;
	*value = negative ? strtoll(text, &end, base) : strtoull(text, &end, base);
	return !errno && end != text && !*end;
}

static bool parse_number(const struct value *v, const char *text, __u64 *value)
{
	const char *unit = text + strspn(text, "0123456789.");

	if (!parse_integer(text, value) &&
	    (!is_unit_for(v->range, unit) || !scale(text, unit, value)))
		return false;
	return fits(v, text[0] == '-', *value);
}

static bool less(const struct value *v, __u64 a, __u64 b)
{
	return v->is_signed ? (__s64)a < (__s64)b : a < b;
}

/* A policy's author writes limits as one would set them, with units. */
static bool in_range(const struct value *v, __u64 value)
{
	char min_text[64];
	__u64 min, max;
	size_t len;

	if (!v->range)
		return true;
	len = strcspn(v->range, ":");
	if (len >= sizeof(min_text) || !v->range[len])
		return false;
	memcpy(min_text, v->range, len);
	min_text[len] = '\0';
	return parse_number(v, min_text, &min) && parse_number(v, v->range + len + 1, &max) &&
	       !less(v, value, min) && !less(v, max, value);
}

static bool parse_bool(const char *text, __u64 *value)
{
	*value = !strcmp(text, "true") || !strcmp(text, "on") || !strcmp(text, "1");
	return *value || !strcmp(text, "false") || !strcmp(text, "off") || !strcmp(text, "0");
}

static bool parse_device(const struct value *v, const char *text, __u64 *index)
{
	*index = if_nametoindex(text);
	return *index || parse_number(v, text, index);
}

static bool store_value(const struct values *vs, const struct value *v, const char *text);

/* The first elements; those that are not given stay as they are */
static bool store_elements(const struct values *vs, const struct value *v, const char *text)
{
	char *copy = strdup(text), *rest = copy, *word;
	struct value elem;
	bool ok = copy;
	__u32 i;

	for (i = 0; ok && (word = strsep(&rest, ",")); i++) {
		ok = i < count_elements(v);
		if (!ok)
			break;
		elem = element(vs, v, i);
		ok = store_value(vs, &elem, word);
	}
	free(copy);
	return ok;
}

static bool store_value(const struct values *vs, const struct value *v, const char *text)
{
	size_t len = strlen(text);
	__u64 number = 0;

	switch (v->kind) {
	case TEXT:
		if (len >= v->size)
			return false;
		memset(v->data + len, 0, v->size - len);
		memcpy(v->data, text, len);
		return true;
	case ADDRESS:
		return inet_pton(AF_INET, text, v->data) == 1;
	case ARRAY:
		return store_elements(vs, v, text);
	case BOOL:
		if (!parse_bool(text, &number))
			return false;
		break;
	case DEVICE:
		if (!parse_device(v, text, &number))
			return false;
		break;
	case NUMBER:
		if (!parse_number(v, text, &number) || !in_range(v, number))
			return false;
		break;
	default:
		return false;
	}
	store_number(v, number);
	return true;
}

#define MAX_MAP_IDS 256

/* Of the maps that a program uses: how many, or -1 */
static int get_map_ids(int prog_fd, __u32 *ids)
{
	__u32 len = sizeof(struct bpf_prog_info);
	struct bpf_prog_info prog = {
		.nr_map_ids = MAX_MAP_IDS,
		.map_ids = (__u64)(unsigned long)ids,
	};

	if (bpf_prog_get_info_by_fd(prog_fd, &prog, &len))
		return -1;
	return prog.nr_map_ids < MAX_MAP_IDS ? prog.nr_map_ids : MAX_MAP_IDS;
}

/* A map of this name among those that a program uses: a file descriptor. The kernel's
 * names are shorter than those of BTF; see find_namesake().
 */
static int find_map(__u32 prog_id, const char *name, struct bpf_map_info *info)
{
	int prog_fd = bpf_prog_get_fd_by_id(prog_id), fd, i, n;
	__u32 ids[MAX_MAP_IDS], len;

	if (prog_fd < 0)
		return -1;
	n = get_map_ids(prog_fd, ids);
	close(prog_fd);
	if (n < 0)
		return -1;
	for (i = 0; i < n; i++) {
		fd = bpf_map_get_fd_by_id(ids[i]);
		if (fd < 0)
			return -1;
		len = sizeof(*info);
		memset(info, 0, len);
		if (!bpf_map_get_info_by_fd(fd, info, &len) &&
		    !strncmp(info->name, name, sizeof(info->name) - 1))
			return fd;
		close(fd);
	}
	errno = ENOENT;
	return -1;
}

/* In the object that is being loaded, or in one of the programs that run */
static int open_map(const struct values *vs, const char *name, struct bpf_map_info *info)
{
	__u32 len = sizeof(*info);
	int op, fd = -1;

	if (vs->obj) {
		fd = dup(bpf_object__find_map_fd_by_name(vs->obj, name));
		memset(info, 0, len);
		if (fd >= 0)
			bpf_map_get_info_by_fd(fd, info, &len);
		return fd;
	}
	for (op = 0; op < OPS && fd < 0; op++) {
		if (vs->prog_id[op])
			fd = find_map(vs->prog_id[op], name, info);
	}
	return fd;
}

/* Another map of the object, whose name is the same to the kernel; or NULL. Which of the
 * two a program has can only be guessed.
 */
static const char *find_namesake(const struct values *vs, const char *name)
{
	const struct btf_var_secinfo *vsi = btf_var_secinfos(vs->maps);
	const struct btf_type *var;
	const char *other;
	int i;

	for (i = 0; i < btf_vlen(vs->maps); i++) {
		var = btf__type_by_id(vs->btf, vsi[i].type);
		other = var ? btf__name_by_offset(vs->btf, var->name_off) : name;
		if (strcmp(other, name) && !strncmp(other, name, BPF_OBJ_NAME_LEN - 1))
			return other;
	}
	return NULL;
}

static int complain_of_namesake(const char *name, const char *other)
{
	complain("table \"%s\": the kernel cannot tell it from the map \"%s\": of names it keeps %d characters",
		 name, other, BPF_OBJ_NAME_LEN - 1);
	return -1;
}

/* The map of a table, if it is as the policy has it: its elements have room here then */
static int open_table(const struct values *vs, const struct value *v)
{
	struct value key = key_of(vs, v, NULL);
	struct bpf_map_info info;
	int fd;

	if (!vs->obj && find_namesake(vs, v->name)) {
		errno = ENOTUNIQ;
		return -1;
	}
	fd = open_map(vs, v->name, &info);
	if (fd < 0 || (info.key_size == key.size && info.value_size == v->size &&
		       info.type == table_number(vs->btf, v->table, "type")))
		return fd;
	close(fd);
	errno = EINVAL;
	return -1;
}

/* For how many more elements a hash has room; -1: errno says why that is not known */
static long long count_room(int fd)
{
	struct bpf_map_info info = {};
	__u32 len = sizeof(info), count, next;
	void *keys, *data;
	int err;

	if (bpf_map_get_info_by_fd(fd, &info, &len))
		return -1;
	count = info.max_entries;
	keys = calloc(count, info.key_size);
	data = calloc(count, info.value_size);
	err = keys && data ? bpf_map_lookup_batch(fd, NULL, &next, keys, data, &count, NULL) : -ENOMEM;
	free(keys);
	free(data);
	if (!err || err == -ENOENT)	/* that is the end of the table */
		return (long long)info.max_entries - count;
	errno = -err;
	return -1;
}

static int complain_of(const struct values *vs, const struct value *v, const char *what,
		       const struct setting *s, const char *text)
{
	char kind[256];

	describe(vs, v, kind, sizeof(kind));
	complain("%s \"%s%s%s%s\" cannot be \"%s\": it is %s%s", what, s->name,
		 v->name && s->key ? "[" : "", v->name && s->key ? s->key : "",
		 v->name && s->key ? "]" : "", text, kind,
		 v->table && !*text ? "; elements of an array are not removed" : "");
	return -1;
}

/* A setting without a value removes the element of a hash */
static bool removes(const struct values *vs, const struct value *v, const struct setting *s)
{
	return !*s->value && is_hash(vs, v);
}

/* Returns an errno */
static int store_element(const struct values *vs, const struct value *v, int fd, const void *key,
			 const struct setting *s)
{
	if (!removes(vs, v, s))
		return bpf_map_update_elem(fd, key, v->data, BPF_ANY) ? errno : 0;
	return !bpf_map_delete_elem(fd, key) || errno == ENOENT ? 0 : errno;
}

/* Is there room for the element of a hash, behind those that have been tried? Returns an errno.
 * A table can be long: it is counted once, and only if it would get more elements than it has.
 */
static int try_element(const struct values *vs, const struct value *v, int fd, const void *key,
		       bool there, const struct setting *s)
{
	struct trial *trial = vs->trial;
	struct tried *t = &trial->at[trial->count++], *before;
	int more = 0;

	t->room = -1;
	for (before = trial->at; before < t; before++) {
		if (strcmp(before->table, v->name))
			continue;
		if (!memcmp(before->key, key, MAX_ELEMENT))
			there = before->there;
		if (before->room >= 0)
			t->room = before->room;
		more += before->added;
	}
	memcpy(t->key, key, MAX_ELEMENT);
	t->table = v->name;
	t->there = !removes(vs, v, s);
	t->added = t->there - there;
	more += t->added;
	if (t->added <= 0 || more <= 0 || trial->alone)
		return 0;
	if (t->room < 0)
		t->room = count_room(fd);
	if (t->room < 0)
		return errno;
	return more > t->room ? E2BIG : 0;
}

/* Would the kernel let us write to a map? One that is frozen it does not. Nothing is written. */
static int try_to_write(int fd)
{
	__u32 none = 0;

	return bpf_map_update_batch(fd, NULL, NULL, &none, NULL) ? errno : 0;
}

/* Of an object that is not loaded yet: does anybody else have the table? */
static bool is_there_before(const struct values *vs, const char *name)
{
	const struct bpf_map *map = bpf_object__find_map_by_name(vs->obj, name);

	return map && (bpf_map__pin_path(map) || bpf_map__fd(map) >= 0);
}

static int open_to_set(const struct values *vs, const struct value *v)
{
	int fd = open_table(vs, v);

	if (fd >= 0)
		return fd;
	if (errno == ENOTUNIQ)
		return complain_of_namesake(v->name, find_namesake(vs, v->name));
	complain("table \"%s\": %s", v->name, errno == ENOENT ?
		 "no program of the qdisc uses it" : strerror(errno));
	return -1;
}

static int set_table(const struct values *vs, struct value *v, const void *key,
		     struct setting *s)
{
	__u64 data[MAX_ELEMENT / sizeof(__u64)] = {};
	bool there = false;
	int fd = -1, err = 0;

	if (vs->loading) {
		s->when = is_there_before(vs, v->name) ? WHEN_ATTACHED : WHEN_LOADED;
	} else {
		fd = open_to_set(vs, v);
		if (fd < 0)
			return -1;
		there = !bpf_map_lookup_elem(fd, key, data);
	}
	v->data = (char *)data;
	if (!removes(vs, v, s) && !store_value(vs, v, s->value)) {
		close(fd);
		return complain_of(vs, v, "parameter", s, s->value);
	}
	if (vs->trial) {
		err = try_to_write(fd);
		if (!err && is_hash(vs, v))
			err = try_element(vs, v, fd, key, there, s);
	} else if (!vs->loading) {
		err = store_element(vs, v, fd, key, s);
	}
	close(fd);
	if (!err)
		return 0;
	complain("parameter \"%s[%s]\": %s", s->name, s->key,
		 err == E2BIG ? "the table is full" : strerror(err));
	return -1;
}

static int set_value(const struct values *vs, struct value *v, struct setting *s)
{
	__u64 data[MAX_ELEMENT / sizeof(__u64)] = {};
	struct value key;

	if (v->kind == OTHER)
		return complain_of(vs, v, "parameter", s, s->value);
	if (v->table && !s->key) {
		complain("parameter \"%s\" is a table: %s[KEY]=VALUE is needed", v->name, v->name);
		return -1;
	}
	if (s->key && !v->table && v->kind != ARRAY) {
		complain("parameter \"%s\" is not a table: %s=VALUE is needed", v->name, v->name);
		return -1;
	}
	if (s->key) {
		key = key_of(vs, v, data);
		if (!store_value(vs, &key, s->key))
			return complain_of(vs, &key, "key of", s, s->key);
		if (v->table)
			return set_table(vs, v, data, s);
		*v = element(vs, v, load_number(&key));
	}
	if (store_value(vs, v, s->value))
		return 0;
	return complain_of(vs, v, "parameter", s, s->value);
}

static void list_values(const struct values *vs)
{
	char kind[256], key_kind[256];
	struct value v, key;
	int i = 0;

	while (next_value(vs, &i, &v)) {
		describe(vs, &v, kind, sizeof(kind));
		if (v.table) {
			key = key_of(vs, &v, NULL);
			describe(vs, &key, key_kind, sizeof(key_kind));
			fprintf(stderr, "  %s[KEY] (%s; KEY is %s)\n", v.name, kind, key_kind);
		} else {
			fprintf(stderr, "  %s (%s)\n", v.name, kind);
		}
	}
}

static bool find_value(const struct values *vs, const char *name, struct value *v)
{
	int i = 0;

	while (next_value(vs, &i, v)) {
		if (!strcmp(v->name, name))
			return true;
	}
	return false;
}

static int set_by_name(const struct values *vs, struct setting *s)
{
	struct value v;

	if (find_value(vs, s->name, &v))
		return set_value(vs, &v, s);
	complain("unknown parameter \"%s\"; there are", s->name);
	list_values(vs);
	return -1;
}

/* Those whose time it is, in their order */
static int set_all(const struct values *vs, struct setting *setting, int settings,
		   enum when when)
{
	int i;

	for (i = 0; i < settings; i++) {
		if (setting[i].when == when && set_by_name(vs, &setting[i]))
			return -1;
	}
	return 0;
}

/* Would all of them be stored? */
static int try_all(const struct values *vs, struct setting *setting, int settings,
		   enum when when)
{
	struct trial trial = {};
	struct values copy = *vs;
	int ret;

	trial.alone = when == AT_ONCE && settings == 1;
	copy.trial = &trial;
	copy.data = vs->data ? malloc(vs->size) : NULL;
	if (vs->data && !copy.data) {
		complain("out of memory");
		return -1;
	}
	if (vs->data)
		memcpy(copy.data, vs->data, vs->size);
	ret = set_all(&copy, setting, settings, when);
	free(copy.data);
	return ret;
}

static const struct btf_type *find_section(const struct btf *btf, const char *name)
{
	int id = btf__find_by_name_kind(btf, name, BTF_KIND_DATASEC);

	return id < 0 ? NULL : btf__type_by_id(btf, id);
}

static bool has_values(const struct values *vs)
{
	struct value v;
	int i = 0;

	return next_value(vs, &i, &v);
}

/* The parameters of an object, with the values that it begins with */
static struct values object_params(struct bpf_object *obj)
{
	struct bpf_map *map = bpf_object__find_map_by_name(obj, PARAM_SECTION);
	struct values vs = { .obj = obj, .btf = bpf_object__btf(obj) };

	if (map)
		vs.data = bpf_map__initial_value(map, &vs.size);
	vs.section = find_section(vs.btf, PARAM_SECTION);
	vs.maps = find_section(vs.btf, ".maps");
	return vs;
}

/* A table that could not be set or shown later is refused at once */
static int refuse_namesakes(const struct values *vs)
{
	const char *other;
	struct value v;
	int i = 0;

	while (next_value(vs, &i, &v)) {
		other = v.table ? find_namesake(vs, v.name) : NULL;
		if (other)
			return complain_of_namesake(v.name, other);
	}
	return 0;
}

/* Before the object is loaded: store in its variables, and say when the rest is stored */
static int set_object_variables(const struct loader *ld, struct bpf_request *req)
{
	struct values vs = object_params(ld->obj);

	if (refuse_namesakes(&vs))
		return -1;
	if (!req->settings)
		return 0;
	vs.loading = true;
	if (has_values(&vs))
		return set_all(&vs, req->setting, req->settings, AT_ONCE);
	complain("%s: no parameters: section \"" PARAM_SECTION "\" is not there", ld->path);
	return -1;
}

/* Before the kernel is given the programs: what it refuses then changes nothing for others */
static int set_object_tables(const struct loader *ld, struct bpf_request *req)
{
	const struct values vs = object_params(ld->obj);

	if (set_all(&vs, req->setting, req->settings, WHEN_LOADED))
		return -1;
	return try_all(&vs, req->setting, req->settings, WHEN_ATTACHED);
}

static void close_values(struct values *vs)
{
	if (vs->data)
		munmap(vs->data, vs->size);
	btf__free(vs->btf);
}

static int map_variables(struct values *vs, const char *section, bool write)
{
	struct bpf_map_info info;
	int fd = open_map(vs, section, &info);

	if (fd < 0)
		return errno == ENOENT ? 0 : -1;
	vs->size = info.value_size;
	vs->data = mmap(NULL, vs->size, PROT_READ | (write ? PROT_WRITE : 0), MAP_SHARED, fd, 0);
	close(fd);
	if (vs->data != MAP_FAILED)
		return 0;
	vs->data = NULL;
	return -1;
}

static __u32 btf_id_of(__u32 prog_id)
{
	struct bpf_prog_info prog = {};
	__u32 len = sizeof(prog);
	int fd = bpf_prog_get_fd_by_id(prog_id);

	if (fd < 0)
		return 0;
	bpf_prog_get_info_by_fd(fd, &prog, &len);
	close(fd);
	return prog.btf_id;
}

/* What the programs of a qdisc have in a section, and their tables; errno says why there
 * is nothing. Programs of two objects have different BTF, and the first one's counts
 * that has some.
 */
static int open_values(struct values *vs, const char *section, const __u32 *prog_id, bool write)
{
	bool params = !strcmp(section, PARAM_SECTION);
	__u32 btf_id;
	int op;

	for (op = 0; op < OPS; op++) {
		memset(vs, 0, sizeof(*vs));
		btf_id = btf_id_of(prog_id[op]);
		vs->prog_id[ENQUEUE] = prog_id[op];
		if (btf_id_of(prog_id[!op]) == btf_id)
			vs->prog_id[DEQUEUE] = prog_id[!op];
		vs->btf = btf_id ? btf__load_from_kernel_by_id(btf_id) : NULL;
		if (!vs->btf)
			return -1;
		vs->section = find_section(vs->btf, section);
		vs->maps = params ? find_section(vs->btf, ".maps") : NULL;
		if (map_variables(vs, section, write)) {
			close_values(vs);
			return -1;
		}
		if (has_values(vs))
			return 0;
		close_values(vs);
	}
	errno = ENOENT;
	return -1;
}

static bool is_bpf_mq(int ifindex, __u32 handle)
{
	LIBBPF_OPTS(bpf_qdisc_opts, opts, .kind = "bpf_mq", .handle = handle);
	LIBBPF_OPTS(bpf_qdisc_info, info);

	return !bpf_qdisc_query(ifindex, &opts, &info);
}

/* Which programs run in the qdisc that the kernel would change? It changes none with another
 * handle than the one that is given, and no instance of bpf_mq.
 */
static int query_programs(const struct target *target, __u32 *prog_id)
{
	LIBBPF_OPTS(bpf_qdisc_info, info);
	int ret = bpf_qdisc_query(target->ifindex, &target->opts, &info);

	if (ret)
		return ret;
	if (target->opts.handle && target->opts.handle != info.handle)
		return -ENOENT;
	if (is_bpf_mq(target->ifindex, TC_H_MAJ(info.parent)))
		return -EOPNOTSUPP;
	prog_id[ENQUEUE] = info.enqueue_prog_id;
	prog_id[DEQUEUE] = info.dequeue_prog_id;
	return 0;
}

static const char *why_not_set(int err)
{
	switch (err) {
	case -ENOENT:
		return "no such qdisc";
	case -EOPNOTSUPP:
		return "the instances of bpf_mq are changed together, by \"root bpf_mq\"";
	default:
		return strerror(-err);
	}
}

/* Settings are stored before the kernel is asked for the change, which ends the bypass of an
 * empty queue: programs that run again see them. So what the kernel would refuse is refused
 * by tc, before this.
 */
static int set_live_params(struct bpf_request *req, const struct target *target)
{
	__u32 prog_id[OPS];
	struct values vs;
	int ret;

	ret = target->ifindex ? query_programs(target, prog_id) : -ENODEV;
	if (ret) {
		if (ret == -ENOENT && !strcmp(target->opts.kind, "bpf") && !target->opts.handle &&
		    is_bpf_mq(target->ifindex, 0))
			ret = -EOPNOTSUPP;
		complain("no parameters to set on \"%s\": %s", target->dev, why_not_set(ret));
		return -1;
	}
	if (open_values(&vs, PARAM_SECTION, prog_id, true)) {
		/* whoever may not find programs by id gets no BTF of them */
		complain("cannot set parameters: %s", errno == ENOENT ? "the programs have none" :
			 errno == EPERM && !vs.btf ? "that needs CAP_SYS_ADMIN" : strerror(errno));
		return -1;
	}
	/* all of the settings or none */
	ret = try_all(&vs, req->setting, req->settings, AT_ONCE);
	if (!ret)
		ret = set_all(&vs, req->setting, req->settings, AT_ONCE);
	close_values(&vs);
	return ret;
}

/* In the largest unit in which it is whole, of those that the range is declared in; what
 * is shown can be set again.
 */
static void text_of_number(const struct value *v, char *text, size_t size)
{
	__u64 value = load_number(v), again;
	double largest = 0;
	char in_unit[32];
	int i, declared = declared_unit(v->range);

	snprintf(text, size, v->is_signed ? "%" PRId64 : "%" PRIu64, (uint64_t)value);
	if (declared < 0 || !value || text[0] == '-')
		return;
	for (i = 0; i < (int)(sizeof(units) / sizeof(units[0])); i++) {
		if (units[i].of != units[declared].of || units[i].factor <= largest)
			continue;
		snprintf(in_unit, sizeof(in_unit), "%.0f%s", value / units[i].factor,
			 units[i].name);
		if (!parse_number(v, in_unit, &again) || again != value)
			continue;
		largest = units[i].factor;
		snprintf(text, size, "%s", in_unit);
	}
}

static void text_of(const struct value *v, char *text, size_t size)
{
	switch (v->kind) {
	case TEXT:
		snprintf(text, size, "%.*s", (int)v->size, v->data);
		break;
	case ADDRESS:
		inet_ntop(AF_INET, v->data, text, size);
		break;
	case BOOL:
		snprintf(text, size, "%s", load_number(v) ? "true" : "false");
		break;
	default:
		if (v->kind != DEVICE || !if_indextoname(load_number(v), text))
			text_of_number(v, text, size);
	}
}

/* Store the settings of the command, which have been checked, in a copy of a variable */
static void set_again(const struct values *vs, const struct value *v, struct bpf_request *req)
{
	struct value copy;
	int i;

	for (i = 0; i < req->settings; i++) {
		copy = *v;
		if (!strcmp(req->setting[i].name, v->name))
			set_value(vs, &copy, &req->setting[i]);
	}
}

static void tell_of(const struct values *vs, struct value *is, const struct value *was,
		    struct bpf_request *req)
{
	char before[256], now[256];
	struct value kept = *is;

	kept.data = malloc(is->size);
	if (!kept.data)
		return;
	memcpy(kept.data, was->data, is->size);
	set_again(vs, &kept, req);
	if (memcmp(kept.data, is->data, is->size)) {
		if (is->kind == ARRAY || is->kind == OTHER) {
			complain("parameter \"%s\" begins anew, as in the object", is->name);
		} else {
			text_of(was, before, sizeof(before));
			text_of(is, now, sizeof(now));
			complain("parameter \"%s\" begins anew with %s, as in the object; it was %s",
				 is->name, now, before);
		}
	}
	free(kept.data);
}

/* A new object has variables of its own, so a parameter that is not set again loses its value.
 * Each is named whose value would be another one if the settings were of the old object.
 */
static void tell_what_begins_anew(const struct loader *ld, struct bpf_request *req,
				  const struct target *target)
{
	struct values old, new;
	struct value was, is;
	__u32 prog_id[OPS];
	int i = 0;

	if (target->add || query_programs(target, prog_id) ||
	    open_values(&old, PARAM_SECTION, prog_id, false))
		return;
	new = object_params(ld->obj);
	while (next_value(&new, &i, &is)) {
		if (is.table || !find_value(&old, is.name, &was) || was.table ||
		    was.size != is.size || was.kind != is.kind)
			continue;
		tell_of(&new, &is, &was, req);
	}
	close_values(&old);
}

static void print_log(const struct loader *ld, int op)
{
	const char *log = ld->log[op];
	size_t len = strlen(log);

	fprintf(stderr, "verifier log of program '%s':\n%s%s", bpf_program__name(ld->prog[op]),
		log, len && log[len - 1] != '\n' ? "\n" : "");
}

/* The program that loads last is the last in the object with a log */
static int refused_op(const struct loader *ld)
{
	struct bpf_program *prog;
	int op, last = -1;

	bpf_object__for_each_program(prog, ld->obj) {
		for (op = 0; op < OPS; op++) {
			if (prog == ld->prog[op] && ld->log[op][0])
				last = op;
		}
	}
	return last;
}

/* One line that says why, after the verifier's log or libbpf's words if they help */
static void explain_refusal(const struct loader *ld, int err)
{
	int op = refused_op(ld);

	if (op >= 0) {
		print_log(ld, op);
		if (bpf_object__btf_fd(ld->obj) < 0)
			complain("%s: the kernel refused its BTF, without which no map holds packets: is a variable that is a structure static?",
				 ld->path);
		else
			complain("%s: the verifier refused the %s program '%s': %s", ld->path,
				 ops[op].name, bpf_program__name(ld->prog[op]), strerror(-err));
	} else if (err == -EPERM) {
		complain("%s: no permission to load it: CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN are needed",
			 ld->path);
	} else if (libbpf_probe_bpf_prog_type(BPF_PROG_TYPE_QDISC, NULL) == 0) {
		complain("this kernel has no bpf qdisc: it has to be built with CONFIG_NET_SCH_EBPF");
	} else {
		print_said();
		complain("%s: cannot be loaded: %s", ld->path, strerror(-err));
	}
}

static int load_object(struct loader *ld)
{
	int op, err;

	libbpf_set_print(ld->verbose ? print_all : print_kept);
	err = bpf_object__load(ld->obj);
	if (err)
		explain_refusal(ld, err);

	for (op = 0; !err && ld->verbose && op < OPS; op++)
		print_log(ld, op);
	return err;
}

/* Load the object, for all tx queues or for one. The first one's parameters are those of all. */
static int load_for(struct loader *ld, int queue, struct bpf_request *req,
		    const struct target *target)
{
	int op, ret = -1;

	ld->queue = queue;
	ld->obj = NULL;
	libbpf_set_print(req->verbose ? print_all : print_kept);
	if (!open_object(ld) && !prepare_programs(ld, req) && !prepare_maps(ld, target) &&
	    (queue || !set_object_variables(ld, req)))
		ret = load_object(ld);

	bpf_object__close(loaded.obj[queue]);
	loaded.obj[queue] = ld->obj;
	loaded.pairs = queue + 1;
	for (op = 0; op < OPS; op++) {
		loaded.fds[op][queue] = ret ? -1 : bpf_program__fd(ld->prog[op]);
		free(ld->log[op]);
		ld->log[op] = NULL;
	}
	return ret;
}

/* Has a value of this type a packet? */
static bool has_packet(const struct btf *btf, __u32 type)
{
	enum kind unused = OTHER;
	const struct btf_type *t = resolve(btf, type, &unused);
	int i;

	if (!t)
		return false;
	if (btf_is_array(t))
		return has_packet(btf, btf_array(t)->type);
	if (btf_is_ptr(t)) {
		t = resolve(btf, t->type, &unused);
		return t && !strcmp(btf__name_by_offset(btf, t->name_off), "sk_buff");
	}
	for (i = 0; btf_is_struct(t) && i < btf_vlen(t); i++) {
		if (has_packet(btf, btf_members(t)[i].type))
			return true;
	}
	return false;
}

/* Does a program of an object name a map of packets? Then it is for one tx queue. Without BTF
 * that the kernel has taken no map is one; and in BTF that it has taken no type has itself.
 */
static bool names_packets(const struct bpf_object *obj, int prog_fd)
{
	__u32 ids[MAX_MAP_IDS], len = sizeof(struct bpf_map_info);
	int i, n = get_map_ids(prog_fd, ids);
	struct bpf_map *map;

	if (bpf_object__btf_fd(obj) < 0)
		return false;
	bpf_object__for_each_map(map, obj) {
		struct bpf_map_info info = {};

		if (bpf_map__type(map) != BPF_MAP_TYPE_RBTREE ||
		    !has_packet(bpf_object__btf(obj), bpf_map__btf_value_type_id(map)) ||
		    bpf_map_get_info_by_fd(bpf_map__fd(map), &info, &len))
			continue;
		for (i = 0; i < n; i++) {
			if (ids[i] == info.id)
				return true;
		}
	}
	return false;
}

/* Has an object an array of maps? In that its programs find those of each tx queue. */
static bool has_array_of_maps(const struct bpf_object *obj)
{
	struct bpf_map *map;

	bpf_object__for_each_map(map, obj) {
		if (bpf_map__type(map) == BPF_MAP_TYPE_ARRAY_OF_MAPS)
			return true;
	}
	return false;
}

/* The tx queues in use, which may be fewer than those that netlink tells of */
static int count_queues(const struct target *target)
{
	char dev[IF_NAMESIZE] = "", path[PATH_MAX];
	struct dirent *entry;
	int count = 0;
	DIR *dir;

	snprintf(path, sizeof(path), "/sys/class/net/%s/queues",
		 if_indextoname(target->ifindex, dev) ?: target->dev);
	dir = opendir(path);
	if (!dir) {
		complain("cannot count the tx queues in use: %s: %s", path, strerror(errno));
		return -1;
	}
	while ((entry = readdir(dir)))
		count += !strncmp(entry->d_name, "tx-", 3);
	closedir(dir);
	if (count >= 1 && count <= MAX_QUEUES)
		return count;
	complain("%s: %d tx queues", path, count);
	return -1;
}

/* Each object has some ten file descriptors */
static void allow_many_files(void)
{
	struct rlimit files;

	if (getrlimit(RLIMIT_NOFILE, &files))
		return;
	files.rlim_cur = files.rlim_max;
	setrlimit(RLIMIT_NOFILE, &files);
}

/* Whether an object is for all tx queues or to be loaded for each is known when it has been
 * loaded.
 */
static int load_for_queues(struct loader *ld, struct bpf_request *req,
			   const struct target *target)
{
	struct loader other = { .path = ld->path, .verbose = ld->verbose, .same = true };
	int i, queues;

	ld->same = true;
	if (load_for(ld, 0, req, target))
		return -1;
	if (strcmp(target->opts.kind, "bpf_mq"))
		return 0;
	loaded.for_each = !has_array_of_maps(loaded.obj[0]) ||
			  names_packets(loaded.obj[0], loaded.fds[ENQUEUE][0]) ||
			  names_packets(loaded.obj[0], loaded.fds[DEQUEUE][0]);
	if (ld->old_queues >= 0 && loaded.for_each != (ld->old_queues > 0)) {
		ld->same = other.same = false;
		if (load_for(ld, 0, req, target))
			return -1;
	}
	if (!loaded.for_each)
		return 0;
	queues = count_queues(target);
	allow_many_files();
	for (i = 1; i < queues; i++) {
		if (load_for(&other, i, req, target))
			return -1;
	}
	return queues < 0 ? -1 : 0;
}

static int get_pinned(const struct bpf_request *req)
{
	struct statfs st;
	int op, err;

	loaded.pairs = 1;
	loaded.fds[DEQUEUE][0] = -1;	/* the first may fail */
	for (op = 0; op < OPS; op++) {
		loaded.fds[op][0] = bpf_obj_get(req->pinned[op]);
		if (loaded.fds[op][0] >= 0)
			continue;
		err = errno;
		complain("%s: %s", req->pinned[op],
			 !statfs(req->pinned[op], &st) && st.f_type != BPF_FS_MAGIC ?
			 "not in a bpffs" : strerror(err));
		warn_of_private_bpffs(bpffs_path());
		return -1;
	}
	return 0;
}

/* A pin of the same name belongs to what the qdisc had before */
static int pin(int fd, const char *dir, const char *name)
{
	char path[PATH_MAX];
	char *c;

	if (snprintf(path, sizeof(path), "%s/%s", dir, name) >= (int)sizeof(path)) {
		complain("pin %s: too long", dir);
		return -1;
	}
	/* a bpffs has no names with dots, as .data.param */
	for (c = path + strlen(dir); *c; c++) {
		if (*c == '.')
			*c = '_';
	}
	unlink(path);
	if (!bpf_obj_pin(fd, path))
		return 0;
	complain("pin %s: %s", path, strerror(errno));
	return -1;
}

static int pin_object(const struct bpf_object *obj, const char *dir)
{
	struct bpf_program *prog;
	struct bpf_map *map;
	int ret = 0;

	bpf_object__for_each_program(prog, obj) {
		if (bpf_program__fd(prog) >= 0)
			ret |= pin(bpf_program__fd(prog), dir, bpf_program__name(prog));
	}
	bpf_object__for_each_map(map, obj) {
		if (bpf_map__fd(map) >= 0)
			ret |= pin(bpf_map__fd(map), dir, bpf_map__name(map));
	}
	return ret;
}

/* What is loaded for each tx queue, each in a folder of its own */
static int pin_all(void)
{
	char dir[PATH_MAX];
	int i, ret = 0;

	if (!loaded.for_each)
		return pin_object(loaded.obj[0], loaded.pin_dir);
	for (i = 0; !ret && i < loaded.pairs; i++) {
		snprintf(dir, sizeof(dir), "%s/tx-%d", loaded.pin_dir, i);
		ret = make_dir(dir) ?: pin_object(loaded.obj[i], dir);
	}
	return ret;
}

/* Has the kernel taken the programs? */
static bool is_attached(void)
{
	struct bpf_prog_info prog = {};
	LIBBPF_OPTS(bpf_qdisc_info, info);
	__u32 len = sizeof(prog);

	return !bpf_prog_get_info_by_fd(loaded.fds[ENQUEUE][0], &prog, &len) &&
	       !bpf_qdisc_query(loaded.target.ifindex, &loaded.target.opts, &info) &&
	       info.enqueue_prog_id == prog.id;
}

static int store_kept_settings(void)
{
	const struct values vs = object_params(loaded.obj[0]);

	if (!set_all(&vs, loaded.setting, loaded.settings, WHEN_ATTACHED))
		return 0;
	complain("%s: the qdisc has the programs, but this setting of a table and those behind it are not stored",
		 loaded.origin);
	return -1;
}

/* Pins and tables that others have too are for what the kernel has taken */
static int do_what_is_kept(void)
{
	int ret = 0;

	if (!loaded.pin_dir && !loaded.settings)
		return 0;
	if (is_attached()) {
		if (loaded.pin_dir && pin_all()) {
			complain("%s: the qdisc has the programs, but not all pins are made",
				 loaded.origin);
			ret = -1;
		}
		if (loaded.settings)
			ret |= store_kept_settings();
	} else if (loaded.settings) {
		complain("%s: tables stay as they are: the qdisc has not got the programs",
			 loaded.origin);
	}
	return ret;
}

static void forget_settings(void)
{
	struct setting *s;

	while (loaded.settings) {
		s = &loaded.setting[--loaded.settings];
		free((char *)s->name);
		free((char *)s->key);
		free((char *)s->value);
	}
}

/* The command in hand is done: do what was kept for then, and let go of what it has loaded */
static int finish(void)
{
	int i, op, ret = do_what_is_kept();

	forget_settings();
	free(loaded.pin_dir);
	loaded.pin_dir = NULL;
	free(loaded.origin);
	loaded.origin = NULL;

	for (i = 0; i < loaded.pairs; i++) {
		for (op = 0; op < OPS; op++) {
			if (!loaded.obj[i] && loaded.fds[op][i] >= 0)
				close(loaded.fds[op][i]);
		}
		bpf_object__close(loaded.obj[i]);
		loaded.obj[i] = NULL;
	}
	loaded.pairs = 0;
	loaded.for_each = false;
	return ret;
}

/* Did it fail when there was no other way to say so than the exit status? */
static bool failed;

/* tc does not call again after the last command, and has no other way to fail then */
static void finish_at_exit(void)
{
	if (!finish() && !failed)
		return;
	fflush(NULL);
	_exit(EXIT_FAILURE);
}

static int finish_later(const struct bpf_request *req, const struct target *target)
{
	static bool registered;

	loaded.target = *target;
	if (!loaded.origin &&
	    asprintf(&loaded.origin, "dev %s obj %s", target->dev, req->object) < 0)
		loaded.origin = NULL;
	if (!loaded.origin || (!registered && atexit(finish_at_exit))) {
		complain("out of memory");
		return -1;
	}
	registered = true;
	return 0;
}

static int prepare_pins(const struct bpf_request *req, const struct target *target)
{
	if (make_pin_dir(req->pin_dir))
		return -1;
	loaded.pin_dir = strdup(req->pin_dir);
	if (loaded.pin_dir)
		return finish_later(req, target);
	complain("out of memory");
	return -1;
}

/* The command line may be gone by then: that of a batch is */
static int keep_settings(const struct bpf_request *req, const struct target *target)
{
	const struct setting *s;
	struct setting *kept;

	for (s = req->setting; s < req->setting + req->settings; s++) {
		if (s->when != WHEN_ATTACHED)
			continue;
		kept = &loaded.setting[loaded.settings++];
		kept->name = strdup(s->name);
		kept->key = strdup(s->key);
		kept->value = strdup(s->value);
		kept->when = s->when;
		if (!kept->name || !kept->key || !kept->value) {
			complain("out of memory");
			forget_settings();
			return -1;
		}
	}
	return loaded.settings ? finish_later(req, target) : 0;
}

static int get_from_object(struct bpf_request *req, const struct target *target)
{
	struct loader ld = { .path = req->object, .verbose = req->verbose };
	int ret;

	if (keep_what_is_said())
		return -1;
	ret = load_for_queues(&ld, req, target);
	if (!ret)
		ret = set_object_tables(&ld, req);
	if (!ret)
		tell_what_begins_anew(&ld, req, target);
	forget_what_is_said();
	return ret ? ret : keep_settings(req, target);
}

static int get_programs(struct bpf_request *req, const struct target *target)
{
	/* what the command before it did wrong does not stop this one */
	if (finish())
		failed = true;
	if (req->pin_dir && prepare_pins(req, target))
		return -1;
	if (req->object)
		return get_from_object(req, target);
	if (req->pinned[ENQUEUE])
		return get_pinned(req);
	return req->settings ? set_live_params(req, target) : 0;
}

static int missing_value(const char *arg)
{
	complain("\"%s\" needs a value; try \"bpf help\"", arg);
	return -1;
}

static int complain_of_second(const char *arg)
{
	complain("\"%s\" twice", arg);
	return -1;
}

/* enqueue [ section ] NAME | enqueue object-pinned PATH; returns arguments used */
static int parse_program(struct bpf_request *req, int op, int argc, char **argv)
{
	bool pinned;

	if (argc < 2)
		return missing_value(argv[0]);
	if (req->program[op] || req->pinned[op])
		return complain_of_second(argv[0]);
	pinned = !strcmp(argv[1], "object-pinned");
	if (!pinned && strcmp(argv[1], "section")) {
		req->program[op] = argv[1];
		return 2;
	}
	if (argc < 3)
		return missing_value(argv[1]);
	if (pinned)
		req->pinned[op] = argv[2];
	else
		req->program[op] = argv[2];
	return 3;
}

static int parse_limit(struct bpf_request *req, int argc, char **argv)
{
	__u64 limit;

	if (argc < 2)
		return missing_value(argv[0]);
	if (req->limit)
		return complain_of_second(argv[0]);
	if (!parse_integer(argv[1], &limit) || !limit || limit > UINT32_MAX) {
		complain("limit \"%s\" is not a number of packets, 1 at least", argv[1]);
		return -1;
	}
	req->limit = limit;
	return 2;
}

static int parse_time(__u64 *ns, int argc, char **argv)
{
	const char *unit;
	size_t len;

	if (argc < 2)
		return missing_value(argv[0]);
	if (*ns)
		return complain_of_second(argv[0]);
	unit = argv[1] + strspn(argv[1], "0123456789.");
	len = strlen(unit);
	if (len < 1 || len > 2 || unit[len - 1] != 's' ||
	    !scale(argv[1], unit, ns)) {
		complain("%s \"%s\" is not a time such as 5s or 200ms", argv[0], argv[1]);
		return -1;
	}
	if (*ns < MIN_TIME || *ns > MAX_TIME) {
		complain("%s \"%s\" is out of range: it is a time from 10ms to 86400s", argv[0],
			 argv[1]);
		return -1;
	}
	return 2;
}

static int parse_text(const char **text, int argc, char **argv)
{
	if (argc < 2)
		return missing_value(argv[0]);
	if (*text) {
		complain("\"%s\" twice, with %s and %s", argv[0], *text, argv[1]);
		return -1;
	}
	*text = argv[1];
	return 2;
}

static bool split_setting(char *text, struct setting *s)
{
	char *key = text + strcspn(text, "[=");
	bool has_key = *key == '[';
	char *end = has_key ? strstr(key, "]=") : key;

	if (!end || !*end)
		return false;
	s->name = text;
	s->key = has_key ? key + 1 : NULL;
	s->value = end + 1 + has_key;
	*key = '\0';
	*end = '\0';
	return true;
}

static int parse_setting(struct bpf_request *req, int argc, char **argv)
{
	if (argc < 2)
		return missing_value(argv[0]);
	if (req->settings == MAX_SETTINGS) {
		complain("more than %d settings", MAX_SETTINGS);
		return -1;
	}
	if (!split_setting(argv[1], &req->setting[req->settings++])) {
		complain("set \"%s\": NAME=VALUE or NAME[KEY]=VALUE is needed", argv[1]);
		return -1;
	}
	return 2;
}

/* A keyword has no "=" behind it; a parameter of the same name is set like any other. */
static int complain_of_equals(const char *arg)
{
	static const char * const keywords[] = {
		"obj", "object-file", "enqueue", "dequeue", "limit", "horizon", "patience", "set",
		"pin", "flush", "verbose",
	};
	const char *value = strchr(arg, '=') + 1;
	size_t i, len = strcspn(arg, "=");

	for (i = 0; i < sizeof(keywords) / sizeof(keywords[0]); i++) {
		if (strlen(keywords[i]) != len || strncmp(arg, keywords[i], len))
			continue;
		/* the last two have no value */
		value = i < sizeof(keywords) / sizeof(keywords[0]) - 2 ? value : "";
		complain("\"%s\": say \"%s%s%s\", or, for a parameter, \"set %s\"", arg, keywords[i],
			 *value ? " " : "", value, arg);
		return -1;
	}
	complain("\"%s\": each setting needs its own \"set\": set %s", arg, arg);
	return -1;
}

/* A name that is no file here, and has no slash, may be that of an installed policy; the
 * administrator's own come first
 */
static const char *find_object(const char *name)
{
	static const char * const dirs[] = { "/usr/local/lib/sch-bpf", "/usr/lib/sch-bpf" };
	static char path[PATH_MAX];
	struct stat st;
	size_t i;

	if (strchr(name, '/') || (!stat(name, &st) && S_ISREG(st.st_mode)))
		return name;
	for (i = 0; i < sizeof(dirs) / sizeof(*dirs); i++) {
		snprintf(path, sizeof(path), "%s/%s.bpf.o", dirs[i], name);
		if (!access(path, F_OK))
			return path;
	}
	return name;
}

/* Returns how many arguments were used */
static int parse_arg(struct bpf_request *req, int argc, char **argv)
{
	if (!strcmp(*argv, "obj") || !strcmp(*argv, "object-file"))
		return parse_text(&req->object, argc, argv);
	if (!strcmp(*argv, "enqueue"))
		return parse_program(req, ENQUEUE, argc, argv);
	if (!strcmp(*argv, "dequeue"))
		return parse_program(req, DEQUEUE, argc, argv);
	if (!strcmp(*argv, "limit"))
		return parse_limit(req, argc, argv);
	if (!strcmp(*argv, "horizon"))
		return parse_time(&req->horizon, argc, argv);
	if (!strcmp(*argv, "patience"))
		return parse_time(&req->patience, argc, argv);
	if (!strcmp(*argv, "set"))
		return parse_setting(req, argc, argv);
	if (!strcmp(*argv, "pin"))
		return parse_text(&req->pin_dir, argc, argv);
	if (!strcmp(*argv, "flush")) {
		req->flush = true;
		return 1;
	}
	if (!strcmp(*argv, "verbose")) {
		req->verbose = true;
		return 1;
	}
	if (strchr(*argv, '='))
		return complain_of_equals(*argv);
	if (!strcmp(*argv, "help"))
		explain();
	else
		complain("what is \"%s\"? Try \"bpf help\"", *argv);
	return -1;
}

/* What is wrong with the arguments taken together? NULL if nothing is. */
static const char *contradiction(const struct bpf_request *req, bool add)
{
	bool pinned = req->pinned[ENQUEUE] || req->pinned[DEQUEUE];

	if (pinned && req->object)
		return "either \"obj\" or \"object-pinned\", not both";
	if (pinned && req->settings)
		return "\"set\" needs an object, or a qdisc that is there";
	if (pinned && !(req->pinned[ENQUEUE] && req->pinned[DEQUEUE]))
		return "\"object-pinned\" is needed for both enqueue and dequeue";
	if (!req->object && req->pin_dir)
		return "\"pin\" needs \"obj FILE\": what is not loaded here is not pinned here";
	if (!req->object && (req->program[ENQUEUE] || req->program[DEQUEUE]))
		return "programs of which object? \"obj FILE\" is missing";
	if (add && !req->object && !pinned)
		return "\"obj FILE\" is missing; try \"bpf help\"";
	return NULL;
}

static void put_options(struct nlmsghdr *n, const struct bpf_request *req)
{
	const __u32 flags = SCH_BPF_FLUSH;
	struct rtattr *options, *program;
	const char *base;
	size_t len;
	int op;

	options = addattr_nest(n, MSG_ROOM, TCA_OPTIONS | NLA_F_NESTED);
	if (req->limit)
		addattr_l(n, MSG_ROOM, TCA_SCH_BPF_LIMIT, &req->limit, sizeof(req->limit));
	if (req->horizon)
		addattr_l(n, MSG_ROOM, TCA_SCH_BPF_HORIZON, &req->horizon, sizeof(req->horizon));
	if (req->patience)
		addattr_l(n, MSG_ROOM, TCA_SCH_BPF_PATIENCE, &req->patience, sizeof(req->patience));
	if (req->flush)
		addattr_l(n, MSG_ROOM, TCA_SCH_BPF_FLAGS, &flags, sizeof(flags));
	if (req->object) {
		char name[SCH_BPF_OBJECT_LEN] = {};

		base = strrchr(req->object, '/');
		base = base ? base + 1 : req->object;
		len = strnlen(base, sizeof(name) - 1);
		memcpy(name, base, len);
		addattr_l(n, MSG_ROOM, TCA_SCH_BPF_OBJECT, name, len + 1);
	}
	for (op = 0; loaded.pairs && op < OPS; op++) {
		program = addattr_nest(n, MSG_ROOM, ops[op].attr | NLA_F_NESTED);
		addattr_l(n, MSG_ROOM, TCA_SCH_BPF_PROG_FD, loaded.fds[op],
			  loaded.pairs * sizeof(__u32));
		addattr_nest_end(n, program);
	}
	addattr_nest_end(n, options);
}

/* As tc itself finds the device */
static int find_device(const char *dev)
{
	unsigned int index = if_nametoindex(dev);

	return index || sscanf(dev, "if%u", &index) == 1 ? index : 0;
}

static int bpf_parse_opt(const struct qdisc_util *qu, int argc, char **argv,
			 struct nlmsghdr *n, const char *dev)
{
	const struct tcmsg *t = NLMSG_DATA(n);
	struct bpf_request req = {};
	struct target target = {};
	const char *wrong;
	int used;

	if (!tc_fits())
		return -1;
	target.dev = dev;
	target.ifindex = find_device(dev);
	target.add = n->nlmsg_flags & NLM_F_EXCL;
	target.opts.sz = sizeof(target.opts);
	target.opts.kind = qu->id;
	target.opts.parent = t->tcm_parent;
	target.opts.handle = t->tcm_handle;

	for (; argc > 0; argc -= used, argv += used) {
		used = parse_arg(&req, argc, argv);
		if (used < 0)
			return -1;
	}
	wrong = contradiction(&req, target.add);
	if (wrong) {
		complain("%s", wrong);
		return -1;
	}
	if (req.object)
		req.object = find_object(req.object);
	if (get_programs(&req, &target))
		return -1;
	put_options(n, &req);
	return 0;
}

static void print_text(const char *key, const char *fmt, const struct rtattr *attr)
{
	char text[256];

	if (!attr)
		return;
	snprintf(text, sizeof(text), "%.*s", (int)RTA_PAYLOAD(attr),
		 (const char *)RTA_DATA(attr));
	print_string(PRINT_ANY, key, fmt, text);
}

static void print_number(const char *key, const char *fmt, const struct rtattr *attr)
{
	__u32 value;

	if (!attr || RTA_PAYLOAD(attr) < sizeof(value))
		return;
	memcpy(&value, RTA_DATA(attr), sizeof(value));
	print_uint(PRINT_ANY, key, fmt, value);
}

static void print_tag(const struct rtattr *attr)
{
	char text[2 * BPF_TAG_SIZE + 1];
	const unsigned char *tag;
	int i;

	if (!attr || RTA_PAYLOAD(attr) < BPF_TAG_SIZE)
		return;
	tag = RTA_DATA(attr);
	for (i = 0; i < BPF_TAG_SIZE; i++)
		sprintf(text + 2 * i, "%02x", tag[i]);
	print_string(PRINT_ANY, "tag", "tag %s ", text);
}

/* Of the maps that a program uses. Whoever may not look at programs sees the rest. */
static void print_map_ids(__u32 prog_id)
{
	int i, n, fd = bpf_prog_get_fd_by_id(prog_id);
	__u32 ids[MAX_MAP_IDS];

	if (fd < 0)
		return;
	n = get_map_ids(fd, ids);
	close(fd);
	if (n <= 0)
		return;
	open_json_array(PRINT_JSON, "map_ids");
	for (i = 0; i < n; i++) {
		print_string(PRINT_FP, NULL, "%s", i ? "," : "map_ids ");
		print_uint(PRINT_ANY, NULL, "%u", ids[i]);
	}
	close_json_array(PRINT_JSON, NULL);
	print_string(PRINT_FP, NULL, "%s", " ");
}

static __u32 program_id(struct rtattr *attr)
{
	struct rtattr *tb[TCA_SCH_BPF_PROG_MAX + 1];
	__u32 id = 0;

	if (!attr)
		return 0;
	parse_rtattr_nested(tb, TCA_SCH_BPF_PROG_MAX, attr);
	if (tb[TCA_SCH_BPF_PROG_ID] && RTA_PAYLOAD(tb[TCA_SCH_BPF_PROG_ID]) >= sizeof(id))
		memcpy(&id, RTA_DATA(tb[TCA_SCH_BPF_PROG_ID]), sizeof(id));
	return id;
}

static void print_program(int op, struct rtattr *attr)
{
	struct rtattr *tb[TCA_SCH_BPF_PROG_MAX + 1];

	if (!attr)
		return;
	parse_rtattr_nested(tb, TCA_SCH_BPF_PROG_MAX, attr);
	open_json_object(ops[op].name);
	print_string(PRINT_FP, NULL, "%s ", ops[op].name);
	print_text("name", "%s ", tb[TCA_SCH_BPF_PROG_NAME]);
	print_number("id", "id %u ", tb[TCA_SCH_BPF_PROG_ID]);
	print_tag(tb[TCA_SCH_BPF_PROG_TAG]);
	print_map_ids(program_id(attr));
	close_json_object();
}

static bool is_zero(const char *data, size_t size)
{
	while (size && !data[size - 1])
		size--;
	return !size;
}

static void print_value(const struct values *vs, const char *key, const struct value *v)
{
	struct value elem;
	char text[256];
	__u32 i;

	if (v->kind == ARRAY) {
		open_json_array(PRINT_JSON, key);
		for (i = 0; i < count_elements(v); i++) {
			elem = element(vs, v, i);
			print_string(PRINT_FP, NULL, "%s", i ? "," : "");
			print_value(vs, NULL, &elem);
		}
		close_json_array(PRINT_JSON, NULL);
		return;
	}
	text_of(v, text, sizeof(text));
	print_string(PRINT_FP, NULL, "%s", text);
	if (v->kind == BOOL)
		print_bool(PRINT_JSON, key, NULL, load_number(v));
	else if (v->kind != NUMBER)
		print_string(PRINT_JSON, key, NULL, text);
	else if (v->is_signed)
		print_s64(PRINT_JSON, key, NULL, load_number(v));
	else
		print_u64(PRINT_JSON, key, NULL, load_number(v));
}

/* A table that the programs change meanwhile may be walked twice: not more elements than
 * it can have.
 */
static void print_table(const struct values *vs, struct value *v)
{
	__u64 key_data[MAX_ELEMENT / sizeof(__u64)], data[MAX_ELEMENT / sizeof(__u64)];
	struct value key = key_of(vs, v, key_data);
	bool hash = is_hash(vs, v);
	int fd = key.kind == OTHER ? -1 : open_table(vs, v);
	__u32 left = table_number(vs->btf, v->table, "max_entries");
	char text[256];
	int err;

	if (fd < 0)
		return;
	v->data = (char *)data;
	open_json_object(v->name);
	for (err = bpf_map_get_next_key(fd, NULL, key_data); !err && left; left--) {
		if (!bpf_map_lookup_elem(fd, key_data, data) &&
		    (hash || !is_zero(v->data, v->size))) {
			text_of(&key, text, sizeof(text));
			print_string(PRINT_FP, NULL, "%s", v->name);
			print_string(PRINT_FP, NULL, "[%s] ", text);
			print_value(vs, text, v);
			print_string(PRINT_FP, NULL, "%s", " ");
		}
		err = bpf_map_get_next_key(fd, key_data, key_data);
	}
	close_json_object();
	close(fd);
}

/* Whoever may not look into maps sees the rest */
static void print_values(const char *name, const char *text, const char *section,
			 const __u32 *prog_id)
{
	struct values vs;
	struct value v;
	int i = 0;

	libbpf_set_print(NULL);
	if (open_values(&vs, section, prog_id, false))
		return;
	open_json_object(name);
	print_string(PRINT_FP, NULL, "%s", text);
	while (next_value(&vs, &i, &v)) {
		if (v.kind == OTHER) {
			print_string(PRINT_FP, NULL, "%s (of a type that tc does not show) ", v.name);
			continue;
		}
		if (v.table) {
			print_table(&vs, &v);
			continue;
		}
		print_string(PRINT_FP, NULL, "%s ", v.name);
		print_value(&vs, v.name, &v);
		print_string(PRINT_FP, NULL, "%s", " ");
	}
	close_json_object();
	close_values(&vs);
}

/* As it would be given; JSON has ns */
static void print_time(const char *key, const struct rtattr *attr)
{
	static const char * const unit[] = { "ns", "us", "ms", "s" };
	__u64 ns, number;
	char text[64];
	size_t i = 0;

	if (!attr || RTA_PAYLOAD(attr) < sizeof(ns))
		return;
	memcpy(&ns, RTA_DATA(attr), sizeof(ns));
	for (number = ns; number && number % 1000 == 0 && i < 3; i++)
		number /= 1000;
	snprintf(text, sizeof(text), "%s %" PRIu64 "%s ", key, (uint64_t)number, unit[i]);
	print_string(PRINT_FP, NULL, "%s", text);
	print_u64(PRINT_JSON, key, NULL, ns);
}

/* Programs of the qdisc whose options were printed last: its statistics come next */
static __u32 shown[OPS];

static int bpf_print_opt(const struct qdisc_util *qu, FILE *f, struct rtattr *opt)
{
	struct rtattr *tb[TCA_SCH_BPF_MAX + 1];
	int op;

	if (!opt)
		return 0;
	if (!tc_fits())
		return -1;
	/* of a batch, what is shown is what the command before it has set */
	if (finish())
		failed = true;
	parse_rtattr_nested(tb, TCA_SCH_BPF_MAX, opt);
	print_number("limit", "limit %up ", tb[TCA_SCH_BPF_LIMIT]);
	print_time("horizon", tb[TCA_SCH_BPF_HORIZON]);
	print_time("patience", tb[TCA_SCH_BPF_PATIENCE]);
	print_number("queues", "queues %u ", tb[TCA_SCH_BPF_QUEUES]);
	print_text("obj", "obj %s ", tb[TCA_SCH_BPF_OBJECT]);
	if (!tb[TCA_SCH_BPF_ENQUEUE])
		print_string(PRINT_FP, NULL, "%s", "no programs ");
	for (op = 0; op < OPS; op++) {
		print_program(op, tb[ops[op].attr]);
		shown[op] = program_id(tb[ops[op].attr]);
	}
	print_values("set", "set ", PARAM_SECTION, shown);
	return 0;
}

/* A kernel may know fewer or more of the numbers than this was built with */
static int bpf_print_xstats(const struct qdisc_util *qu, FILE *f, struct rtattr *xstats)
{
	struct tc_sch_bpf_xstats st = {};
	size_t len;

	if (!xstats)
		return 0;
	if (!tc_fits())
		return -1;
	len = RTA_PAYLOAD(xstats);
	memcpy(&st, RTA_DATA(xstats), len < sizeof(st) ? len : sizeof(st));

	print_uint(PRINT_ANY, "stored", "  stored %up", st.stored);
	print_u64(PRINT_ANY, "stolen", " stolen %" PRIu64 "p", st.stolen);
	print_uint(PRINT_ANY, "stuck", " stuck %u", st.stuck);
	if (st.is_stuck || st.fifo || !shown[ENQUEUE])
		print_uint(PRINT_ANY, "fifo", " fifo %up", st.fifo);
	print_bool(PRINT_JSON, "is_stuck", NULL, st.is_stuck);
	if (st.is_stuck)
		print_string(PRINT_FP, NULL, "%s", " POLICY STUCK, served in order of arrival");
	if (!shown[ENQUEUE])
		print_string(PRINT_FP, NULL, "%s",
			     " NO PROGRAMS, served in order of arrival: \"tc qdisc change dev DEV root bpf_mq obj FILE\" gives each tx queue its own");
	print_values("stats", "\n  ", STATS_SECTION, shown);
	return 0;
}

/* A class is a child qdisc with a handle, and has no options */
static int bpf_parse_class_opt(const struct qdisc_util *qu, int argc, char **argv,
			       struct nlmsghdr *n, const char *dev)
{
	if (argc <= 0)
		return 0;
	if (!strcmp(*argv, "help"))
		fprintf(stderr, "Usage: ... bpf\nA class of the qdisc bpf has no options.\n");
	else
		complain("what is \"%s\"? A class of the qdisc bpf has no options", *argv);
	return -1;
}

static int bpf_print_class_opt(const struct qdisc_util *qu, FILE *f, struct rtattr *opt)
{
	return 0;
}

struct qdisc_util EXPORTED bpf_qdisc_util = {
	.id		= "bpf",
	.parse_qopt	= bpf_parse_opt,
	.print_qopt	= bpf_print_opt,
	.print_xstats	= bpf_print_xstats,
	.parse_copt	= bpf_parse_class_opt,
	.print_copt	= bpf_print_class_opt,
};

/* One instance for each tx queue. It has no classes of its own. */
struct qdisc_util EXPORTED bpf_mq_qdisc_util = {
	.id		= "bpf_mq",
	.parse_qopt	= bpf_parse_opt,
	.print_qopt	= bpf_print_opt,
	.print_xstats	= bpf_print_xstats,
};
