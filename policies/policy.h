/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What every policy here includes.
 */
#ifndef __POLICY_H
#define __POLICY_H

#include "vmlinux.h"
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_qdisc.h>
#include <bpf/bpf_qdisc_aqm.h>

#endif /* __POLICY_H */
