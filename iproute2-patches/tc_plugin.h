/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What q_bpf.so uses of the tc program that loads it. tc exports these to its
 * plug-ins; they are the same from iproute2 5.15 to 7.3 at least. The references
 * are weak, so that a tc without one of them still loads the plug-in and hears
 * what is missing, see tc_fits() in q_bpf.c.
 */
#ifndef TC_PLUGIN_H
#define TC_PLUGIN_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/types.h>

#define TC_WEAK __attribute__((weak, visibility("default")))

struct qdisc_util {
	struct qdisc_util *next;
	const char *id;
	int (*parse_qopt)(const struct qdisc_util *qu, int argc, char **argv,
			  struct nlmsghdr *n, const char *dev);
	int (*print_qopt)(const struct qdisc_util *qu, FILE *f, struct rtattr *opt);
	int (*print_xstats)(const struct qdisc_util *qu, FILE *f, struct rtattr *xstats);
	int (*parse_copt)(const struct qdisc_util *qu, int argc, char **argv,
			  struct nlmsghdr *n, const char *dev);
	int (*print_copt)(const struct qdisc_util *qu, FILE *f, struct rtattr *opt);
	int (*has_block)(const struct qdisc_util *qu, struct rtattr *opt, __u32 block_idx,
			 bool *p_has);
};

enum output_type {
	PRINT_FP = 1,
	PRINT_JSON = 2,
	PRINT_ANY = 4,
};

/* the last of enum color_attr */
#define COLOR_NONE 6

int TC_WEAK addattr_l(struct nlmsghdr *n, int maxlen, int type, const void *data, int alen);
struct rtattr TC_WEAK *addattr_nest(struct nlmsghdr *n, int maxlen, int type);
int TC_WEAK addattr_nest_end(struct nlmsghdr *n, struct rtattr *nest);
int TC_WEAK parse_rtattr_flags(struct rtattr *tb[], int max, struct rtattr *rta, int len,
			       unsigned short flags);
void TC_WEAK open_json_object(const char *str);
void TC_WEAK close_json_object(void);
void TC_WEAK open_json_array(enum output_type type, const char *str);
void TC_WEAK close_json_array(enum output_type type, const char *delim);
int TC_WEAK print_color_string(enum output_type t, int color, const char *key,
			       const char *fmt, const char *value);
int TC_WEAK print_color_uint(enum output_type t, int color, const char *key,
			     const char *fmt, unsigned int value);
int TC_WEAK print_color_u64(enum output_type t, int color, const char *key,
			    const char *fmt, uint64_t value);
int TC_WEAK print_color_s64(enum output_type t, int color, const char *key,
			    const char *fmt, int64_t value);
int TC_WEAK print_color_bool(enum output_type t, int color, const char *key,
			     const char *fmt, bool value);

/* not called: they tell where this tc has the members of struct qdisc_util */
extern struct qdisc_util TC_WEAK prio_qdisc_util;
int TC_WEAK prio_print_opt(const struct qdisc_util *qu, FILE *f, struct rtattr *opt);

#define print_string(t, key, fmt, value) print_color_string(t, COLOR_NONE, key, fmt, value)
#define print_uint(t, key, fmt, value) print_color_uint(t, COLOR_NONE, key, fmt, value)
#define print_u64(t, key, fmt, value) print_color_u64(t, COLOR_NONE, key, fmt, value)
#define print_s64(t, key, fmt, value) print_color_s64(t, COLOR_NONE, key, fmt, value)
#define print_bool(t, key, fmt, value) print_color_bool(t, COLOR_NONE, key, fmt, value)
#define parse_rtattr_nested(tb, max, rta) \
	parse_rtattr_flags(tb, max, RTA_DATA(rta), RTA_PAYLOAD(rta), NLA_F_NESTED)

#endif /* TC_PLUGIN_H */
