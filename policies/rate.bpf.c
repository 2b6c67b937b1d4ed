// SPDX-License-Identifier: GPL-2.0
/*
 * rate: all tx queues of a device share one rate, but no lock.
 *
 *   # tc qdisc add dev eth0 root bpf_mq obj rate.bpf.o set rate=2gbit
 *   # tc qdisc change dev eth0 root bpf_mq set rate=3gbit
 *
 * Each tx queue has an instance with a lock and a map of its own. What they share
 * is a number: when a link as slow as `rate` would be free. Each packet that comes
 * adds to it the time that the link would be busy with it, in one atomic step, and
 * leaves at the time that it found there. So packets leave at the rate, in the
 * order in which they came, whatever the queue. After a pause, what would have left
 * in the last `burst` of it leaves at once. A packet that would have to wait for
 * longer than `horizon` is dropped, unless its queue is empty: of each queue something
 * leaves in that time, however long those of the others are. GSO packets longer than
 * `split_gso` bytes are cut before: at 5 Mbit/s one of 64 kB is a burst of 0.1 s.
 *
 * As `bpf` at the root it does the same under one lock.
 *
 * Where it does badly: it is a FIFO, fair to nobody. The rate is one of Ethernet frames
 * without preamble and FCS. A new rate holds for packets to come, not for those that
 * wait. Packets that are freed where they wait (the link goes down, ethtool -L takes the
 * queue away) have used their time. The limit is one for each queue.
 *
 * Statistics: the kernel's own. What has waited for its time are the overlimits.
 */
#include "policy.h"

#define MAX_PACKETS	10000

/* Parameters; times in ns */
__u64 rate SEC(".data.param") BPF_QDISC_RANGE(0, 10tbit);	/* bytes a second; 0: no rate */
__u64 burst SEC(".data.param") BPF_QDISC_RANGE(0, 10s) = 5 * NSEC_PER_MSEC;
__u64 horizon SEC(".data.param") BPF_QDISC_RANGE(1ms, 86400s) = 2 * NSEC_PER_SEC;
__u32 split_gso SEC(".data.param") BPF_QDISC_RANGE(0, 1mb);	/* bytes; 0: cut none */

/* Departure time -> packet, for each tx queue */
BPF_QDISC_QUEUES(rate_queues, __u64, MAX_PACKETS, 0);

struct {				/* when the link will be free, for all queues */
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, __u64);
	__uint(max_entries, 1);
} rate_link SEC(".maps");

static void *packets_of(struct sch_bpf_ctx *ctx)
{
	__u32 queue = ctx->queue;

	return bpf_map_lookup_elem(&rate_queues, &queue);
}

SEC("qdisc/enqueue")
int rate_enqueue(struct sch_bpf_ctx *ctx)
{
	__u64 *link = bpf_map_lookup_elem(&rate_link, &(__u32){ 0 });
	__u64 now = bpf_ktime_get_ns(), last = bpf_qdisc_time_add(now, horizon), cost, when;
	void *packets = packets_of(ctx);
	struct sk_buff *skb = ctx->skb;

	if (bpf_qdisc_cut(ctx, skb, split_gso))
		return 0;
	/* Before it takes time that others could use */
	if (!link || !packets || bpf_qdisc_is_full(ctx->qdisc, MAX_PACKETS))
		return bpf_qdisc_drop(ctx, skb, QDISC_DROP_OVERLIMIT);
	if (*link > last)
		return ctx->qdisc->q.qlen ? bpf_qdisc_drop(ctx, skb, QDISC_DROP_HORIZON_LIMIT) :
					    bpf_qdisc_push(ctx, packets, &last, skb);

	/* With a rate that is a mistake not so long that another one comes too late */
	cost = bpf_qdisc_tx_time_most(bpf_qdisc_pkt_len(skb), rate, horizon);
	when = bpf_qdisc_link_reserve(link, bpf_qdisc_time_sub(now, burst), cost);
	if (bpf_qdisc_push(ctx, packets, &when, skb))
		bpf_qdisc_link_give_back(link, cost);
	return 0;
}

SEC("qdisc/dequeue")
int rate_dequeue(struct sch_bpf_ctx *ctx)
{
	void *packets = packets_of(ctx);
	__u64 now = bpf_ktime_get_ns();

	return packets ? bpf_qdisc_pop_until(ctx, packets, &now) : 0;
}

char LICENSE[] SEC("license") = "GPL";
