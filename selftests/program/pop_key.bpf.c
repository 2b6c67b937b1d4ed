// SPDX-License-Identifier: GPL-2.0
/* A packet is kept under its mark. Nothing leaves before one with OPEN in its mark has
 * come; then the keys are asked for one after the other, round and round.
 */
#include "../../policies/policy.h"

#define OPEN	0x100		/* also in accounting.py, and so are these */
static const __u32 asked[] = { 3, 1, 2, 2, 9, 0, 1, 3 };

#define ASKED	(sizeof(asked) / sizeof(asked[0]))

struct {
	__uint(type, BPF_MAP_TYPE_RBTREE);
	__type(key, __u32);
	__type(value, struct pkt);
	__uint(max_entries, 100);
} pop_key_pkts SEC(".maps");

struct {			/* key -> how often it had no packet */
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, __u32);
	__uint(max_entries, 10);
} pop_key_empty SEC(".maps");

static bool open;
static __u32 turn;

SEC("qdisc/enqueue")
int pop_key_enqueue(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb = ctx->skb;
	__u32 key = skb->mark & 0xff;

	if (skb->mark & OPEN)
		open = true;
	return bpf_qdisc_push(ctx, &pop_key_pkts, &key, skb);
}

SEC("qdisc/dequeue")
int pop_key_dequeue(struct sch_bpf_ctx *ctx)
{
	__u32 i, key, *empty;

	if (!open) {
		ctx->expire = bpf_ktime_get_ns() + 5 * NSEC_PER_SEC;
		return 0;
	}
	bpf_for(i, 0, ASKED) {
		key = asked[turn++ % ASKED];
		if (!bpf_qdisc_pop_key(ctx, &pop_key_pkts, &key))
			return 0;
		empty = bpf_map_lookup_elem(&pop_key_empty, &key);
		if (empty)
			(*empty)++;
	}
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
