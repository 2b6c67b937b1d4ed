// SPDX-License-Identifier: GPL-2.0
/* lib/queues.bpf.c, whose inner maps have keys of the same size and another type. */
#define GROUP_TYPE	__s32
#include "../lib/queues.bpf.c"
