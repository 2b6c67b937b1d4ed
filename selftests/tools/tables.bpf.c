// SPDX-License-Identifier: GPL-2.0
/* Parameters that are arrays and tables, with keys and values of every kind that tc can set,
 * and some that it cannot.
 */
#include "../../policies/policy.h"

struct tables_pair {
	__u32 a, b;
};

#define PARAM SEC(".data.param")

volatile __u64 rates[4] PARAM BPF_QDISC_RANGE(0, 1gbit) = { 1000, 2000 };
volatile __s8 levels[3] PARAM;
volatile bool ports[2] PARAM = { true };
volatile char names[2][6] PARAM = { "first" };
volatile __u32 grid[2][2] PARAM;
volatile struct tables_pair some[2] PARAM;
volatile bpf_ifindex where PARAM;
volatile __be32 gateway PARAM;
volatile __u32 number PARAM = 5;

#define TABLE(map, map_type, key_type, value_type, entries)	\
	struct {						\
		__uint(type, map_type);				\
		__type(key, key_type);				\
		__type(value, value_type);			\
		__uint(max_entries, entries);			\
	} map SEC(".maps") BPF_QDISC_TABLE

typedef char tables_text[8];
typedef __u16 tables_list[3];

TABLE(of_number, BPF_MAP_TYPE_HASH, __u16, __s32, 2) BPF_QDISC_RANGE(-10, 1mb);
TABLE(of_address, BPF_MAP_TYPE_HASH, __be32, tables_list, 10);
TABLE(of_text, BPF_MAP_TYPE_HASH, tables_text, tables_text, 10);
TABLE(of_index, BPF_MAP_TYPE_ARRAY, __u32, __u32, 8) BPF_QDISC_RANGE(0, 100);
TABLE(of_pairs, BPF_MAP_TYPE_HASH, __u32, struct tables_pair, 10);
TABLE(by_pairs, BPF_MAP_TYPE_HASH, struct tables_pair, __u32, 10);
TABLE(of_cpus, BPF_MAP_TYPE_PERCPU_ARRAY, __u32, __u32, 8);
TABLE(of_nobody, BPF_MAP_TYPE_ARRAY, __u32, __u32, 8);

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, bpf_ifindex);
	__type(value, __u64);
	__uint(max_entries, 10);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} tables_long_name_of_device SEC(".maps") BPF_QDISC_TABLE;

BPF_QDISC_QUEUE(tables_pkts, __u64, 100);

/* A packet is dropped if it is larger than of_index[0], unless that is 0 */
SEC("qdisc/enqueue")
int tables_enqueue(struct sch_bpf_ctx *ctx)
{
	struct tables_pair pair = { 1, 2 };
	struct sk_buff *skb = ctx->skb;
	__u32 zero = 0, *most;
	__u64 key = 0;

	bpf_map_lookup_elem(&of_number, &zero);
	bpf_map_lookup_elem(&of_address, &zero);
	bpf_map_lookup_elem(&of_pairs, &zero);
	bpf_map_lookup_elem(&by_pairs, &pair);
	bpf_map_lookup_elem(&of_cpus, &zero);
	bpf_map_lookup_elem(&tables_long_name_of_device, &zero);
	most = bpf_map_lookup_elem(&of_index, &zero);
	if (most && *most && skb->len > *most)
		return bpf_qdisc_drop(ctx, skb, 0);
	return bpf_qdisc_push(ctx, &tables_pkts, &key, skb);
}

SEC("qdisc/dequeue")
int tables_dequeue(struct sch_bpf_ctx *ctx)
{
	tables_text text = "";

	bpf_map_lookup_elem(&of_text, &text);
	if (rates[0] == number)
		return 0;
	return bpf_qdisc_pop(ctx, &tables_pkts);
}

char LICENSE[] SEC("license") = "GPL";
