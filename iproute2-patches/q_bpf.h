/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The qdiscs "bpf" and "bpf_mq": what the files of q_bpf share.
 *
 *	q_bpf.c		the command line and what is shown
 *	q_bpf_object.c	objects and their programs, and what remains to be done after a command
 *	q_bpf_pins.c	folders in a bpffs, pins
 *	q_bpf_params.c	parameters and statistics: maps, settings, what is shown of them
 *	q_bpf_values.c	types by BTF, values as text
 */
#ifndef Q_BPF_H
#define Q_BPF_H

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <net/if.h>

#include <linux/bpf.h>
#include <linux/pkt_sched.h>

#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <bpf/libbpf.h>

#ifdef TC_PLUGIN
#include "tc_plugin.h"
#else
#include "utils.h"
#include "tc_util.h"
#endif

/* As much as tc has room for */
#define MSG_ROOM	(64 * 1024)

#define MAX_SETTINGS	64

/* Global variables in this section can be set and are shown */
#define PARAM_SECTION	".data.param"

/* Global variables in this section are shown with -s */
#define STATS_SECTION	".data.stats"

/* tc's loader of classifiers pins there too, and so they find each other's maps */
#define BPFFS		"/sys/fs/bpf"
#define BPFFS_ENV	"TC_BPF_MNT"
#define PIN_DIR		"tc"
#define PIN_SUBDIR	"globals"

/* Bytes of a key or a value of a table */
#define MAX_ELEMENT	256

/* More maps than a program can use */
#define MAX_MAP_IDS	256

enum { ENQUEUE, DEQUEUE, OPS };

struct op {
	const char *name;
	const char *section;
	int attach;	/* expected_attach_type */
	int attr;
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

/* Not for plug-ins that tc loads */
#pragma GCC visibility push(hidden)

extern const struct op ops[OPS];

/* q_bpf.c */
void complain(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* q_bpf_object.c */
int get_map_ids(int prog_fd, __u32 *ids);
void finish_command(void);
int get_programs(struct bpf_request *req, const struct target *target);
void put_programs(struct nlmsghdr *n);

/* q_bpf_pins.c */
const char *bpffs_path(void);
int make_dir(const char *path);
void warn_of_private_bpffs(const char *bpffs);
int make_globals_dir(void);
int make_pin_dir(const char *path, bool *is_new);
int pin_object(const struct bpf_object *obj, const char *dir);

/* q_bpf_params.c */
int set_object_variables(struct bpf_object *obj, struct bpf_request *req);
int set_object_tables(struct bpf_object *obj, struct bpf_request *req);
int set_shared_tables(struct bpf_object *obj, struct setting *setting, int settings);
int set_live_params(struct bpf_request *req, const struct target *target);
void tell_what_begins_anew(struct bpf_object *obj, struct bpf_request *req,
			   const struct target *target);
void print_values(const char *name, const char *text, const char *format, const char *section,
		  const __u32 *prog_id);

/* q_bpf_values.c */
const struct btf_type *resolve(const struct btf *btf, __u32 id, enum kind *kind);
__u32 table_number(const struct btf *btf, const struct btf_type *table, const char *member);
bool next_value(const struct values *vs, int *i, struct value *v);
bool find_value(const struct values *vs, const char *name, struct value *v);
const struct btf_type *find_section(const struct btf *btf, const char *name);
bool has_values(const struct values *vs);
__u32 count_elements(const struct value *v);
struct value element(const struct values *vs, const struct value *v, __u32 i);
bool is_hash(const struct values *vs, const struct value *table);
struct value key_of(const struct values *vs, const struct value *v, void *data);
void describe(const struct values *vs, const struct value *v, char *text, size_t size);
void list_values(const struct values *vs);
__u64 load_number(const struct value *v);
bool scale(const char *text, const char *unit, __u64 *value);
bool parse_integer(const char *text, __u64 *value);
bool store_value(const struct values *vs, const struct value *v, const char *text);
void text_of(const struct value *v, char *text, size_t size);

#pragma GCC visibility pop

#endif /* Q_BPF_H */
