// SPDX-License-Identifier: GPL-2.0
/* Ordered maps for order.c, one for each kind of key. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>

struct pair {
	__u16 high;
	__s32 low;		/* after two bytes of padding */
};

#define ORDERED(name, key_type)				\
	struct {					\
		__uint(type, BPF_MAP_TYPE_RBTREE);	\
		__type(key, key_type);			\
		__type(value, __u64);			\
		__uint(max_entries, 500);		\
	} name SEC(".maps")

ORDERED(by_u64, __u64);
ORDERED(by_s64, __s64);
ORDERED(by_u32, __u32);
ORDERED(by_s32, __s32);
ORDERED(by_s16, __s16);
ORDERED(by_u8, __u8);
ORDERED(by_pair, struct pair);

char LICENSE[] SEC("license") = "GPL";
