// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
#include <vmlinux.h>
#include <bpf/bpf_helpers.h>
#include "packet_iter.h"

/* The kernel whose vmlinux.h this is built with may lack both */
struct bpf_qdisc_packet___local {
	__u64 tstamp;
	__u32 tstamp_type;
	__u32 len;
	__u32 wire_len;
	__u32 gso_segs;
	__u32 mark;
	__u32 priority;
	__u32 hash;
	__u32 protocol;
	__u32 queue_mapping;
	__u32 ifindex;
} __attribute__((preserve_access_index));

struct bpf_iter__bpf_qdisc_packet___local {
	struct bpf_iter_meta *meta;
	struct bpf_map *map;
	void *key;
	void *value;
	struct bpf_qdisc_packet___local *skb;
};

const volatile __u32 key_size = 1;
const volatile __u32 value_size = 1;

SEC("iter/bpf_qdisc_packet")
int iter(struct bpf_iter__bpf_qdisc_packet___local *ctx)
{
	struct seq_file *seq = ctx->meta->seq;
	struct bpf_qdisc_packet___local *skb = ctx->skb;
	void *value = ctx->value;
	void *key = ctx->key;
	struct packet_entry e;

	if (!key || !value)
		return 0;

	e.tstamp = skb->tstamp;
	e.tstamp_type = skb->tstamp_type;
	e.len = skb->len;
	e.wire_len = skb->wire_len;
	e.gso_segs = skb->gso_segs;
	e.protocol = skb->protocol;
	e.mark = skb->mark;
	e.priority = skb->priority;
	e.hash = skb->hash;
	e.ifindex = skb->ifindex;
	e.queue_mapping = skb->queue_mapping;

	bpf_seq_write(seq, &e, sizeof(e));
	bpf_seq_write(seq, key, key_size);
	bpf_seq_write(seq, value, value_size);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
