// SPDX-License-Identifier: GPL-2.0
/* For map_claims.c: packets go through the map that user space has put here last; or through
 * one that allocates each element. And programs that hold up what the kernel leaves to a worker.
 */
#include "../../policies/policy.h"
#include <bpf/bpf_tracing.h>

BPF_QDISC_QUEUES(queues, __u64, 20000, 1);

struct {			/* also in map_claims.c */
	__u32 closed;
	__u32 generation;
	__u32 hold;
	__u32 held;
	__u32 over;
} state;
__u64 keys = 1;

SEC("qdisc/enqueue")
int claims_enqueue(struct sch_bpf_ctx *ctx)
{
	__u64 key = bpf_get_prandom_u32() % keys;
	__u32 first = 0;
	void *pkts;

	state.generation = ctx->generation;
	pkts = bpf_map_lookup_elem(&queues, &first);
	if (!pkts)
		return bpf_qdisc_drop(ctx, ctx->skb, QDISC_DROP_GENERIC);
	return bpf_qdisc_push(ctx, pkts, &key, ctx->skb);
}

SEC("qdisc/dequeue")
int claims_dequeue(struct sch_bpf_ctx *ctx)
{
	__u32 first = 0;
	void *pkts;

	if (state.closed) {
		ctx->expire = bpf_ktime_get_ns() + 5 * NSEC_PER_SEC;
		return 0;
	}
	pkts = bpf_map_lookup_elem(&queues, &first);
	if (!pkts)
		return 0;
	return bpf_qdisc_pop(ctx, pkts);
}

struct {
	__uint(type, BPF_MAP_TYPE_RBTREE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u64);
	__type(value, struct pkt);
	__uint(max_entries, 100);	/* also in map_claims.c */
} few SEC(".maps");

SEC("qdisc/enqueue")
int few_enqueue(struct sch_bpf_ctx *ctx)
{
	__u64 key = 0;

	return bpf_qdisc_push(ctx, &few, &key, ctx->skb);
}

SEC("qdisc/dequeue")
int few_dequeue(struct sch_bpf_ctx *ctx)
{
	if (!state.closed)
		return bpf_qdisc_pop(ctx, &few);
	ctx->expire = bpf_ktime_get_ns() + 5 * NSEC_PER_SEC;
	return 0;
}

static long wait(__u32 i, void *unused)
{
	return !*(volatile __u32 *)&state.hold;
}

static long wait_for_long(__u32 i, void *until)
{
	bpf_loop(1 << 20, wait, NULL, 0);
	return !*(volatile __u32 *)&state.hold || bpf_ktime_get_ns() > *(__u64 *)until;
}

/*
 * Not for ever: a program holds up RCU, too, and whoever waits for that with RTNL held, the device's
 * carrier for example, holds up all that the test wants to do meanwhile.
 */
static void hold_up(void)
{
	__u64 until = bpf_ktime_get_ns() + 5 * NSEC_PER_SEC;

	if (!state.hold)
		return;
	state.held++;
	bpf_loop(1 << 23, wait_for_long, &until, 0);
	if (*(volatile __u32 *)&state.hold)
		state.over = 1;
}

/* Packets of a tree that was taken out whole */
SEC("fentry/sch_bpf_free_packet")
int BPF_PROG(before_a_packet_is_freed)
{
	hold_up();
	return 0;
}

/* What is in maps that are gone is to be dropped. */
SEC("fentry/sch_bpf_work")
int BPF_PROG(before_packets_are_dropped)
{
	hold_up();
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
