// SPDX-License-Identifier: GPL-2.0
/*
 * q_bpf_object.c	Objects and their programs, and what remains to be done after a command
 */

#include <dirent.h>
#include <elf.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include <linux/magic.h>

#include "q_bpf.h"

/* The verifier's log of one program. It is only touched as far as it is filled. */
#define LOG_SIZE	(16 << 20)

/* More than any device has */
#define MAX_QUEUES	4096

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
	bool pin_dir_is_new;		/* made for this command */
	struct setting setting[MAX_SETTINGS];	/* to store when the qdisc has it */
	int settings;
	struct target target;
	char *origin;			/* "dev DEV obj FILE", for messages; or NULL */
} loaded;

/* What libbpf has to say, kept back until it is known whether it is of use */
static FILE *said;
static char *said_text;
static size_t said_len;

/* Of the maps that a program uses: how many, or -1 */
int get_map_ids(int prog_fd, __u32 *ids)
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

static int open_object(struct loader *ld)
{
	char pin_root[PATH_MAX];
	LIBBPF_OPTS(bpf_object_open_opts, opts, .pin_root_path = pin_root);

	if (check_file(ld->path))
		return -1;
	snprintf(pin_root, sizeof(pin_root), "%s/%s/%s", bpffs_path(), PIN_DIR, PIN_SUBDIR);
	ld->obj = bpf_object__open_file(ld->path, &opts);
	/* What is not found is BTF, of maps or of kernel functions, or symbols: the file has been
	 * seen.
	 */
	if (ld->obj ? !bpf_object__btf(ld->obj) : errno == ENOENT || errno == ESRCH) {
		print_said();
		complain("%s: has no BTF, or is stripped; compile it with clang -g", ld->path);
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
	    (queue || !set_object_variables(ld->obj, req)))
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
 * that the kernel has taken no map is one; and in BTF that it has taken no type contains itself.
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
	if (!set_shared_tables(loaded.obj[0], loaded.setting, loaded.settings))
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
		return ret;
	}
	if (loaded.pin_dir && loaded.pin_dir_is_new)
		rmdir(loaded.pin_dir);
	if (loaded.settings)
		complain("%s: tables stay as they are: the qdisc has not got the programs",
			 loaded.origin);
	return 0;
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

/* What the command before did wrong does not stop the one in hand */
void finish_command(void)
{
	if (finish())
		failed = true;
}

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
	if (make_pin_dir(req->pin_dir, &loaded.pin_dir_is_new))
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
		ret = set_object_tables(loaded.obj[0], req);
	if (!ret)
		tell_what_begins_anew(loaded.obj[0], req, target);
	forget_what_is_said();
	return ret ? ret : keep_settings(req, target);
}

int get_programs(struct bpf_request *req, const struct target *target)
{
	finish_command();
	if (req->pin_dir && prepare_pins(req, target))
		return -1;
	if (req->object)
		return get_from_object(req, target);
	if (req->pinned[ENQUEUE])
		return get_pinned(req);
	return req->settings ? set_live_params(req, target) : 0;
}

void put_programs(struct nlmsghdr *n)
{
	struct rtattr *program;
	int op;

	for (op = 0; loaded.pairs && op < OPS; op++) {
		program = addattr_nest(n, MSG_ROOM, ops[op].attr | NLA_F_NESTED);
		addattr_l(n, MSG_ROOM, TCA_SCH_BPF_PROG_FD, loaded.fds[op],
			  loaded.pairs * sizeof(__u32));
		addattr_nest_end(n, program);
	}
}
