// SPDX-License-Identifier: GPL-2.0
/*
 * fifo: first in, first out.
 *
 * All packets have the same key. An ordered map keeps equal keys in the order of
 * their arrival under one node of the tree, so that storing a packet and taking
 * one costs the same whether one packet stands or ten thousand.
 *
 * The queue is bounded by the qdisc's limit in packets and, if it is set, by
 * limit_bytes. A packet that finds it full is dropped, as by pfifo and bfifo, or
 * with head_drop the oldest ones are, as by pfifo_head_drop: then the sender
 * learns of the loss earlier, and what leaves is fresh.
 *
 * Where it does badly: one flow that sends more than the link takes fills the
 * queue, and every other flow waits behind its packets and loses some of its
 * own. A device with several tx queues is served through one lock; give each
 * queue its own fifo below mq to avoid that.
 *
 * Statistics: packets and bytes dropped, by `tc -s qdisc show`.
 */
#include "policy.h"

#define MAX_PACKETS	10000

/* Parameters */
__u32 limit_bytes SEC(".data.param") BPF_QDISC_RANGE(0, 2gb);	/* 0: bounded in packets only */
bool head_drop SEC(".data.param");		/* drop the oldest, not the newest */
bool bypass SEC(".data.param");			/* an empty queue is passed by */

/* Statistics */
__u64 dropped SEC(".data.stats");
__u64 dropped_bytes SEC(".data.stats");

BPF_QDISC_QUEUE(fifo_pkts, __u64, MAX_PACKETS);

static const __u64 key;		/* of all packets */

static void count_dropped(__u32 len)
{
	dropped++;
	dropped_bytes += len;
}

static void make_room(struct sch_bpf_ctx *ctx, __u32 len)
{
	const struct Qdisc *sch;
	struct sk_buff *oldest;
	int i;

	bpf_for(i, 0, MAX_PACKETS) {
		sch = ctx->qdisc;
		if (!bpf_qdisc_is_full(sch, MAX_PACKETS) &&
		    !bpf_qdisc_exceeds(sch, len, limit_bytes))
			return;
		oldest = bpf_qdisc_take(ctx, &fifo_pkts);
		if (!oldest)
			return;
		count_dropped(bpf_qdisc_pkt_len(oldest));
		bpf_qdisc_drop(ctx, oldest, QDISC_DROP_OVERLIMIT);
	}
}

SEC("qdisc/enqueue")
int fifo_enqueue(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb = ctx->skb;
	__u32 len = bpf_qdisc_pkt_len(skb);

	if (bypass)
		bpf_qdisc_bypass(ctx);
	if (head_drop)
		make_room(ctx, len);
	if (bpf_qdisc_exceeds(ctx->qdisc, len, limit_bytes)) {
		count_dropped(len);
		return bpf_qdisc_drop(ctx, skb, QDISC_DROP_OVERLIMIT);
	}
	if (bpf_qdisc_push(ctx, &fifo_pkts, &key, skb))
		count_dropped(len);
	return 0;
}

SEC("qdisc/dequeue")
int fifo_dequeue(struct sch_bpf_ctx *ctx)
{
	return bpf_qdisc_pop(ctx, &fifo_pkts);
}

char LICENSE[] SEC("license") = "GPL";
