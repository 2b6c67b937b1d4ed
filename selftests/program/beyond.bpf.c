// SPDX-License-Identifier: GPL-2.0
/* For host/beyond: what is far behind the qdisc is read, memory or not. struct Qdisc ends with
 * an array of unknown length, and so the verifier knows no end of it.
 */
#include "../../policies/policy.h"

#define STEP	(64 << 20)

BPF_QDISC_QUEUE(pkts, __u64, 1000);

SEC("qdisc/enqueue")
int beyond_enqueue(struct sch_bpf_ctx *ctx)
{
	volatile void *qdisc = ctx->qdisc;
	static volatile __u64 sum;
	__u64 key = 0;

	sum += *(__u64 *)(qdisc + STEP) + *(__u64 *)(qdisc + 2 * STEP) +
	       *(__u64 *)(qdisc + 3 * STEP) + *(__u64 *)(qdisc + 4 * STEP) +
	       *(__u64 *)(qdisc + 5 * STEP) + *(__u64 *)(qdisc + 6 * STEP) +
	       *(__u64 *)(qdisc + 7 * STEP) + *(__u64 *)(qdisc + 8 * STEP - 16);
	return bpf_qdisc_push(ctx, &pkts, &key, ctx->skb);
}

SEC("qdisc/dequeue")
int beyond_dequeue(struct sch_bpf_ctx *ctx)
{
	return bpf_qdisc_pop(ctx, &pkts);
}

char LICENSE[] SEC("license") = "GPL";
