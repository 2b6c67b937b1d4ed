// SPDX-License-Identifier: GPL-2.0
/*
 * foreigntc PLUGIN: has every function that the plug-in of tc looks for, but its
 * struct qdisc_util is of another version, with a member more before those that the
 * plug-in knows. Prints what the plug-in returns.
 */
#include <dlfcn.h>
#include <stdio.h>

#define STUB(name) int name(void) { return 0; }

STUB(addattr_l)
STUB(addattr_nest)
STUB(addattr_nest_end)
STUB(parse_rtattr_flags)
STUB(open_json_object)
STUB(close_json_object)
STUB(open_json_array)
STUB(close_json_array)
STUB(print_color_string)
STUB(print_color_uint)
STUB(print_color_u64)
STUB(print_color_bool)
STUB(print_color_s64)
STUB(prio_print_opt)

struct {
	void *next;
	void *news;
	const char *id;
	int (*parse_qopt)(void);
	int (*print_qopt)(void);
} prio_qdisc_util = { .id = "prio", .print_qopt = prio_print_opt };

int main(int argc, char **argv)
{
	void *plugin = argc == 2 ? dlopen(argv[1], RTLD_NOW) : NULL;
	struct {
		void *next;
		const char *id;
		int (*parse_qopt)(const void *qu, int argc, char **argv, void *n, const char *dev);
	} *util = plugin ? dlsym(plugin, "bpf_qdisc_util") : NULL;

	if (!util) {
		fprintf(stderr, "%s\n", dlerror());
		return 1;
	}
	printf("%d\n", util->parse_qopt(util, 0, NULL, NULL, NULL));
	return 0;
}
