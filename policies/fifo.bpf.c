// SPDX-License-Identifier: GPL-2.0
/*
 * fifo: first in, first out, drop at the tail.
 *
 * All packets have the same key. An ordered map keeps equal keys in the order of
 * their arrival under one node of the tree, so that storing a packet and taking
 * one costs the same whether one packet stands or ten thousand.
 *
 * Where it does badly: one flow that sends more than the link takes fills the
 * queue, and every other flow waits behind its packets and loses some of its
 * own. The bound is a number of packets, so the longest wait depends on their
 * size. A device with several tx queues is served through one lock; give each
 * queue its own fifo below mq to avoid that.
 *
 * Statistics: map fifo_stats, per CPU.
 */
#include "policy.h"

struct fifo_stats {
	__u64 packets;		/* offered */
	__u64 bytes;
	__u64 dropped;		/* of these packets */
	__u64 dropped_bytes;
};

struct {
	__uint(type, BPF_MAP_TYPE_RBTREE);
	__type(key, __u64);
	__type(value, struct pkt);
	__uint(max_entries, 10000);
} fifo_pkts SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, __u32);
	__type(value, struct fifo_stats);
	__uint(max_entries, 1);
} fifo_stats SEC(".maps");

static void count(__u32 len, int verdict)
{
	struct fifo_stats *s = bpf_map_lookup_elem(&fifo_stats, &(__u32){ 0 });

	if (!s)
		return;
	s->packets++;
	s->bytes += len;
	if (verdict == SCH_BPF_DROPPED) {
		s->dropped++;
		s->dropped_bytes += len;
	}
}

SEC("qdisc/enqueue")
int fifo_enqueue(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb = ctx->skb;
	__u32 len = pkt_len(skb);
	__u64 key = 0;
	int verdict;

	verdict = bpf_qdisc_push(ctx, &fifo_pkts, &key, skb);
	count(len, verdict);
	return verdict;
}

SEC("qdisc/dequeue")
int fifo_dequeue(struct sch_bpf_ctx *ctx)
{
	return bpf_qdisc_pop(ctx, &fifo_pkts);
}

char LICENSE[] SEC("license") = "GPL";
