// SPDX-License-Identifier: GPL-2.0
/* For ../soak_traffic.c: which packets the kernel has dropped, or a policy has stolen, by the
 * number they carry.
 */
#include "../../policies/policy.h"
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>

#define ETHERTYPE	0x88b5
#define NUMBERS		(1 << 22)	/* also in ../soak_traffic.c */

__u8 dropped[NUMBERS];

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, __u64);		/* address of a packet */
	__type(value, __u32);
	__uint(max_entries, 65536);
} stolen SEC(".maps");

static void ends(const struct sk_buff *skb)
{
	__u32 number;

	if (skb->protocol != bpf_htons(ETHERTYPE) ||
	    bpf_probe_read_kernel(&number, sizeof(number), skb->head + skb->mac_header + 14))
		return;
	if (number < NUMBERS)
		dropped[number]++;
}

SEC("tp_btf/kfree_skb")
int BPF_PROG(on_drop, struct sk_buff *skb)
{
	ends(skb);
	return 0;
}

SEC("fentry/bpf_qdisc_steal_skb")
int BPF_PROG(before_stealing, struct sk_buff *skb)
{
	__u64 address = (__u64)skb;

	bpf_map_update_elem(&stolen, &address, &(__u32){ 0 }, BPF_ANY);
	return 0;
}

/* What is stolen is no drop; most that end so have been received. */
SEC("tp_btf/consume_skb")
int BPF_PROG(on_end, struct sk_buff *skb)
{
	__u64 address = (__u64)skb;

	if (!bpf_map_delete_elem(&stolen, &address))
		ends(skb);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
