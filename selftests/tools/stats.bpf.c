// SPDX-License-Identifier: GPL-2.0
/* Statistics of every kind that tc can show, and one that it cannot; the dequeue program
 * alone uses them.
 */
#include "../../policies/policy.h"

struct stats_pair {
	__u32 a, b;
};

#define STATS SEC(".data.stats")

__u64 sent STATS;
__u32 sizes[4] STATS;		/* packets of up to 100, 200, 300 and more bytes */
__s32 balance STATS = 2;
bool seen STATS;
char last[8] STATS = "none";
struct stats_pair pair STATS;

BPF_QDISC_QUEUE(stats_pkts, __u64, 100);

SEC("qdisc/enqueue")
int stats_enqueue(struct sch_bpf_ctx *ctx)
{
	__u64 key = 0;

	return bpf_qdisc_push(ctx, &stats_pkts, &key, ctx->skb);
}

SEC("qdisc/dequeue")
int stats_dequeue(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb;
	__u32 slot;

	bpf_qdisc_pop(ctx, &stats_pkts);
	skb = ctx->skb;
	if (!skb)
		return 0;
	slot = (skb->len - 1) / 100;
	sizes[slot < 3 ? slot : 3]++;
	sent++;
	balance--;
	seen = true;
	last[0] = 'X';
	pair.a++;
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
