// SPDX-License-Identifier: GPL-2.0
/* For map_maps.c: a map of maps that do not say what their values are. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>

struct inner {
	__uint(type, BPF_MAP_TYPE_RBTREE);
	__type(key, __u64);
	__uint(value_size, 8);
	__uint(max_entries, 1);
};

struct {
	__uint(type, BPF_MAP_TYPE_RBTREE);
	__type(key, __u64);
	__type(value, __u32);
	__uint(max_entries, 1);
	__array(values, struct inner);
} outer SEC(".maps");
