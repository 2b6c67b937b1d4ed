// SPDX-License-Identifier: GPL-2.0
/* Packets wait in a map that allocates each element, which is large. */
#include "../../policies/policy.h"

struct costly_pkt {
	struct sk_buff __kptr *skb;
	char rest[1600];
};

struct {
	__uint(type, BPF_MAP_TYPE_RBTREE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u64);
	__type(value, struct costly_pkt);
	__uint(max_entries, 4096);
} costly_pkts SEC(".maps");

SEC("qdisc/enqueue")
int costly_enqueue(struct sch_bpf_ctx *ctx)
{
	__u64 key = 0;

	return bpf_qdisc_push(ctx, &costly_pkts, &key, ctx->skb);
}

SEC("qdisc/dequeue")
int costly_dequeue(struct sch_bpf_ctx *ctx)
{
	ctx->expire = bpf_ktime_get_ns() + 5 * NSEC_PER_SEC;
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
