// SPDX-License-Identifier: GPL-2.0
/* A policy that goes wrong in the way the last packet's mark says. */
#include "../../policies/policy.h"

enum {				/* also in stuck.py; only the first is being stuck */
	SAY_NOTHING = 1,
	THROTTLE_A_YEAR,
	DROP_AT_DEQUEUE,
	DROP_AT_ENQUEUE,
	THROTTLE_TWO_SECONDS,	/* for seven, then they leave */
};

#define YEAR (365ULL * 24 * 3600 * NSEC_PER_SEC)

struct {
	__uint(type, BPF_MAP_TYPE_RBTREE);
	__type(key, __u32);
	__type(value, struct pkt);
	__uint(max_entries, 10000);
} stuck_pkts SEC(".maps");

__u32 generation SEC(".data.stats");	/* in the last run of enqueue */

static __u32 wrong;

/* The key is descending: what leaves in key order leaves newest first. */
static __u32 key = 1000000;

SEC("qdisc/enqueue")
int stuck_enqueue(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb = ctx->skb;
	__u32 mine = key--;

	wrong = skb->mark;
	generation = ctx->generation;
	if (wrong == DROP_AT_ENQUEUE)
		return bpf_qdisc_drop(ctx, skb, 0);
	return bpf_qdisc_push(ctx, &stuck_pkts, &mine, skb);
}

static int drop_first(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb = bpf_qdisc_take(ctx, &stuck_pkts);

	if (skb)
		bpf_qdisc_drop(ctx, skb, 0);
	return 0;
}

SEC("qdisc/dequeue")
int stuck_dequeue(struct sch_bpf_ctx *ctx)
{
	static __u64 began;
	__u64 now = bpf_ktime_get_ns();

	switch (wrong) {
	case SAY_NOTHING:
		return 0;
	case DROP_AT_DEQUEUE:
		return drop_first(ctx);
	case THROTTLE_A_YEAR:
		ctx->expire = now + YEAR;
		return 0;
	case THROTTLE_TWO_SECONDS:
		began = began ?: now;
		ctx->expire = now + 2 * NSEC_PER_SEC;
		if (now - began <= 7 * NSEC_PER_SEC)
			return 0;
	}
	return bpf_qdisc_pop(ctx, &stuck_pkts);
}

char LICENSE[] SEC("license") = "GPL";
