// SPDX-License-Identifier: GPL-2.0
/*
 * q_bpf.c	The qdiscs "bpf" and "bpf_mq": enqueue and dequeue are BPF programs.
 *
 * One source for two builds: a part of iproute2, and, with TC_PLUGIN defined, a
 * plug-in for a tc that was built without it.
 */

#include <sys/stat.h>

#include "q_bpf.h"

#ifdef TC_PLUGIN
#define EXPORTED __attribute__((visibility("default")))
#else
#define EXPORTED
#endif

/* The kernel's range of the horizon and the patience, in ns */
#define MIN_TIME	10000000ULL
#define MAX_TIME	86400000000000ULL

const struct op ops[OPS] = {
	[ENQUEUE] = { "enqueue", "qdisc/enqueue", BPF_QDISC_ENQUEUE, TCA_SCH_BPF_ENQUEUE },
	[DEQUEUE] = { "dequeue", "qdisc/dequeue", BPF_QDISC_DEQUEUE, TCA_SCH_BPF_DEQUEUE },
};

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

void complain(const char *fmt, ...)
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
	struct rtattr *options;
	const char *base;
	size_t len;

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
	put_programs(n);
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
	finish_command();
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
	print_values("set", "", "set %s=", PARAM_SECTION, shown);
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
	print_values("stats", "\n  ", "%s ", STATS_SECTION, shown);
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
