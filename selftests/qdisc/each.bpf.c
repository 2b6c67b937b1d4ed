// SPDX-License-Identifier: GPL-2.0
/* For bpf_mq, with a map of packets that is named: what is an instance's own, what all share. */
#include "../../policies/policy.h"

struct entry {			/* a packet is one wherever it is in the value */
	__u64 unused;
	struct pkt pkt;
};

struct {
	__uint(type, BPF_MAP_TYPE_RBTREE);
	__type(key, __u64);
	__type(value, struct entry);
	__uint(max_entries, 100);
} each_pkts SEC(".maps");

bool hold SEC(".data.param");		/* nothing leaves */

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, __u32);
	__uint(max_entries, 4);
} each_table SEC(".maps") BPF_QDISC_TABLE;

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, __u32);
	__type(value, __u64);
	__uint(max_entries, 1);
} each_shared SEC(".maps") BPF_QDISC_SHARED;

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, __u32);
	__type(value, __u64);
	__uint(max_entries, 1);
} each_own SEC(".maps");

static __u64 count;			/* own: in .bss */
__u64 sum SEC(".data.shared");

/* Packets, as this instance knows of them */
__u64 own SEC(".data.stats");
__u64 own_map SEC(".data.stats");
__u64 shared SEC(".data.stats");
__u64 shared_map SEC(".data.stats");

static __u64 add(void *map)
{
	__u64 *value, zero = 0;
	__u32 key = 0;

	bpf_map_update_elem(map, &key, &zero, BPF_NOEXIST);
	value = bpf_map_lookup_elem(map, &key);
	return value ? __sync_add_and_fetch(value, 1) : 0;
}

SEC("qdisc/enqueue")
int each_enqueue(struct sch_bpf_ctx *ctx)
{
	__u64 key = 0;

	own = ++count;
	own_map = add(&each_own);
	shared = __sync_add_and_fetch(&sum, 1);
	shared_map = add(&each_shared);
	return bpf_qdisc_push(ctx, &each_pkts, &key, ctx->skb);
}

SEC("qdisc/dequeue")
int each_dequeue(struct sch_bpf_ctx *ctx)
{
	__u32 queue = ctx->queue, *weight = bpf_map_lookup_elem(&each_table, &queue);

	if (!hold && weight && *weight < 1000)
		return bpf_qdisc_pop(ctx, &each_pkts);
	ctx->expire = bpf_ktime_get_ns() + 5 * NSEC_PER_SEC;
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
