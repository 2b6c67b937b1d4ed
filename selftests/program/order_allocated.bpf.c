// SPDX-License-Identifier: GPL-2.0
/* The same as order.bpf.c with elements that are allocated as they come. */
#define ORDER_FLAGS BPF_F_NO_PREALLOC
#include "order.bpf.c"
