/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What every policy here includes, and what some have in common.
 */
#ifndef __POLICY_H
#define __POLICY_H

#include "vmlinux.h"
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_qdisc.h>
#include <bpf/bpf_qdisc_aqm.h>

/* The class of a minor number, and the other way round: of another qdisc's class that is above 0xffff. */
#define CLASS(ctx, minor)	((ctx)->qdisc->handle | (minor))
#define MINOR(ctx, class)	((ctx)->qdisc->handle ^ (class))

/* An ordered map that holds no packets */
#define ORDERED(name, key_type, value_type, entries)	\
	struct {					\
		__uint(type, BPF_MAP_TYPE_RBTREE);	\
		__type(key, key_type);			\
		__type(value, value_type);		\
		__uint(max_entries, entries);		\
	} name SEC(".maps")

#endif /* __POLICY_H */
