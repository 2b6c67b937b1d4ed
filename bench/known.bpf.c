// SPDX-License-Identifier: GPL-2.0
/*
 * A FIFO whose lines and atomic instructions are known (KNOWN in bench/run): for each packet it
 * adds to so many lines, one after the other, in so many rounds, and so often to the first one by
 * an atomic instruction.
 */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_qdisc.h>

#define LINES	32768

__u32 lines SEC(".data.param");
__u32 rounds SEC(".data.param") = 1;
__u32 atomics SEC(".data.param");

struct line {
	__u64 value;
	__u64 rest[7];
} area[LINES] __attribute__((aligned(64)));

BPF_QDISC_QUEUE(pkts, __u64, 1000);

SEC("qdisc/enqueue")
int enqueue(struct sch_bpf_ctx *ctx)
{
	__u64 key = 0;
	int i;

	bpf_for(i, 0, lines * rounds)
		area[i % lines % LINES].value++;
	bpf_for(i, 0, atomics)
		__sync_fetch_and_add(&area[0].value, 1);
	return bpf_qdisc_push(ctx, &pkts, &key, ctx->skb);
}

SEC("qdisc/dequeue")
int dequeue(struct sch_bpf_ctx *ctx)
{
	return bpf_qdisc_pop(ctx, &pkts);
}

char LICENSE[] SEC("license") = "GPL";
