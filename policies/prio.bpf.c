// SPDX-License-Identifier: GPL-2.0
/*
 * prio: strict priorities, the same as pfifo_fast and prio.
 *
 * A packet's priority (skb->priority, from the TOS field or a socket option)
 * chooses its band by the table priomap. Each band is a queue of its own with
 * room for 1000 packets; a packet leaves when no lower band holds one. As
 * prio_bands is a map of maps, there may be any number of bands: give it more.
 *
 * Where it does badly: a band that is never empty starves all bands above it,
 * for ever. Within a band it is a fifo.
 *
 * Statistics: map prio_stats, per band and CPU.
 */
#include "policy.h"

#define BANDS		3
#define PRIORITIES	16

/* Parameter: the band of each priority; pfifo_fast's table */
__u8 priomap[PRIORITIES] SEC(".data.param") = { 1, 2, 2, 2, 1, 2, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1 };

struct prio_stats {
	__u64 packets;		/* offered */
	__u64 bytes;
	__u64 dropped;		/* of these packets */
	__u64 dropped_bytes;
};

struct band {
	__uint(type, BPF_MAP_TYPE_RBTREE);
	__type(key, __u64);
	__type(value, struct pkt);
	__uint(max_entries, 1000);
} prio_band0 SEC(".maps"), prio_band1 SEC(".maps"), prio_band2 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__type(key, __u32);
	__uint(max_entries, BANDS);
	__array(values, struct band);
} prio_bands SEC(".maps") = {
	.values = { &prio_band0, &prio_band1, &prio_band2 },
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, __u32);
	__type(value, struct prio_stats);
	__uint(max_entries, BANDS);
} prio_stats SEC(".maps");

static void count(__u32 band, __u32 len, int verdict)
{
	struct prio_stats *s = bpf_map_lookup_elem(&prio_stats, &band);

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
int prio_enqueue(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb = ctx->skb;
	__u32 band = priomap[skb->priority % PRIORITIES], len = bpf_qdisc_pkt_len(skb);
	void *queue = bpf_map_lookup_elem(&prio_bands, &band);
	__u64 key = 0;
	int verdict;

	if (!queue)
		return SCH_BPF_DROP;
	verdict = bpf_qdisc_push(ctx, queue, &key, skb);
	count(band, len, verdict);
	return verdict;
}

SEC("qdisc/dequeue")
int prio_dequeue(struct sch_bpf_ctx *ctx)
{
	__u32 band;
	int i;

	bpf_for(i, 0, BANDS) {
		void *queue;

		band = i;
		queue = bpf_map_lookup_elem(&prio_bands, &band);
		if (queue && bpf_qdisc_pop(ctx, queue) == SCH_BPF_DEQUEUED)
			return SCH_BPF_DEQUEUED;
	}
	return SCH_BPF_EMPTY;
}

char LICENSE[] SEC("license") = "GPL";
