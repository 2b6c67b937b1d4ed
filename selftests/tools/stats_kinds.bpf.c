// SPDX-License-Identifier: GPL-2.0
/* More statistics, of more kinds: numbers that are counted, and some that are none. */
#include "../../policies/policy.h"

#define STATS SEC(".data.stats")

enum stats_state { STATS_IDLE = -1, STATS_BUSY };

enum stats_state state STATS = STATS_IDLE;
__u16 many[100] STATS = { [0 ... 99] = 1 };
__u32 falling[3] STATS = { 7, 8 };
bpf_ifindex where STATS = 1;
__be32 gateway STATS = 1;

BPF_QDISC_QUEUE(kinds_pkts, __u64, 100);

SEC("qdisc/enqueue")
int kinds_enqueue(struct sch_bpf_ctx *ctx)
{
	__u64 key = 0;

	many[99] += 7;
	falling[0] = 0;
	state = STATS_BUSY;
	where = 2;
	gateway = 2;
	return bpf_qdisc_push(ctx, &kinds_pkts, &key, ctx->skb);
}

SEC("qdisc/dequeue")
int kinds_dequeue(struct sch_bpf_ctx *ctx)
{
	return bpf_qdisc_pop(ctx, &kinds_pkts);
}

char LICENSE[] SEC("license") = "GPL";
