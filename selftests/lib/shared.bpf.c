// SPDX-License-Identifier: GPL-2.0
/* Every qdisc of this object finds the same map of packets; nothing leaves. */
#include "../../policies/policy.h"

#ifndef KEY
#define KEY	__u64
#endif

struct {
	__uint(type, BPF_MAP_TYPE_RBTREE);
	__type(key, KEY);
	__type(value, struct pkt);
	__uint(max_entries, 8);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} shared_pkts SEC(".maps");

SEC("qdisc/enqueue")
int shared_enqueue(struct sch_bpf_ctx *ctx)
{
	KEY key = 0;

	return bpf_qdisc_push(ctx, &shared_pkts, &key, ctx->skb);
}

SEC("qdisc/dequeue")
int shared_dequeue(struct sch_bpf_ctx *ctx)
{
	ctx->expire = bpf_ktime_get_ns() + 5 * NSEC_PER_SEC;
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
