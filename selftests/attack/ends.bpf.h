/* SPDX-License-Identifier: GPL-2.0 */
/* Where packets end that are not sent: each is dropped, or stolen by a policy, which is no drop
 * to the kernel's tracepoints. Who includes this defines ended(), which is told of each.
 */
#ifndef SELFTESTS_ENDS_BPF_H
#define SELFTESTS_ENDS_BPF_H

#include <bpf/bpf_tracing.h>

static void ended(const struct sk_buff *skb);

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, __u64);		/* address of a packet */
	__type(value, __u32);
	__uint(max_entries, 65536);
} stolen SEC(".maps");

SEC("tp_btf/kfree_skb")
int BPF_PROG(on_drop, struct sk_buff *skb)
{
	ended(skb);
	return 0;
}

SEC("fentry/bpf_qdisc_steal_skb")
int BPF_PROG(before_stealing, struct sk_buff *skb)
{
	__u64 address = (__u64)skb;

	bpf_map_update_elem(&stolen, &address, &(__u32){ 0 }, BPF_ANY);
	return 0;
}

/* Packets that were sent and received come here, too. */
SEC("tp_btf/consume_skb")
int BPF_PROG(on_end, struct sk_buff *skb)
{
	__u64 address = (__u64)skb;

	if (!bpf_map_delete_elem(&stolen, &address))
		ended(skb);
	return 0;
}

#endif /* SELFTESTS_ENDS_BPF_H */
