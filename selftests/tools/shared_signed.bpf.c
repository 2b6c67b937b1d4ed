// SPDX-License-Identifier: GPL-2.0
/* As shared.bpf.c, but for the sign of the key: the order is another. */
#define KEY	__s64
#include "../lib/shared.bpf.c"
