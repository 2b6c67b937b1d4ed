// SPDX-License-Identifier: GPL-2.0
/* Parameters of every kind that tc can set, and one that it cannot. */
#include "../../policies/policy.h"

enum params_mode { MODE_DROP, MODE_KEEP };

struct params_pair {
	int a, b;
};

#define PARAM SEC(".data.param")
#define LEVELS 20

volatile __u64 rate PARAM = 1000;
volatile __s32 offset PARAM = -5;
volatile __u8 small PARAM = 7;
volatile bool on PARAM = true;
volatile enum params_mode mode PARAM = MODE_KEEP;
volatile char label[16] PARAM = "first";
volatile struct params_pair pair PARAM = { 1, 2 };
volatile __u64 delay PARAM BPF_QDISC_RANGE(1ms, 10s) = 5 * NSEC_PER_MSEC;
volatile __u64 speed PARAM BPF_QDISC_RANGE(8kbit, 1gbit) = 1000000;
volatile __s16 level PARAM BPF_QDISC_RANGE(-10, LEVELS);
volatile __u32 twisted PARAM BPF_QDISC_RANGE(many, few) = 3;

struct {
	__uint(type, BPF_MAP_TYPE_RBTREE);
	__type(key, __u64);
	__type(value, struct pkt);
	__uint(max_entries, 100);
} params_pkts SEC(".maps");

SEC("qdisc/enqueue")
int params_enqueue(struct sch_bpf_ctx *ctx)
{
	__u64 key = 0;

	if (!on || mode == MODE_DROP)
		return bpf_qdisc_drop(ctx, ctx->skb, 0);
	return bpf_qdisc_push(ctx, &params_pkts, &key, ctx->skb);
}

SEC("qdisc/dequeue")
int params_dequeue(struct sch_bpf_ctx *ctx)
{
	return bpf_qdisc_pop(ctx, &params_pkts);
}

char LICENSE[] SEC("license") = "GPL";
