// SPDX-License-Identifier: GPL-2.0
/*
 * prio: strict priorities, the same as pfifo_fast and prio, or skbprio.
 *
 * A packet's priority (skb->priority, from the TOS field or a socket option)
 * chooses its band: `priomap` has a digit for each priority ('0' to '9', and on in
 * the order of ASCII to 'o', which is band 63). The band is the key: a packet leaves
 * when no lower band holds one, and those of one band in the order they came. A
 * band has room for `band_limit` packets.
 *
 * With `skbprio` there are 64 bands, one for each priority, the highest first, and
 * the qdisc's limit is for all of them: a packet that finds it reached takes the
 * place of the last one of the lowest priority, if its own is higher. A key has the
 * number of the packet then, so that the youngest of a band is the map's last.
 *
 * Where it does badly: a band that is never empty starves all bands above it,
 * for ever. Within a band it is a fifo.
 *
 * Statistics: map prio_stats, packets dropped of each band.
 */
#include "policy.h"

#define MAX_PACKETS	10000
#define BANDS		64
#define PRIORITIES	16
#define BAND_SHIFT	48		/* of a key; the rest is the number */

/* Parameters; the table is pfifo_fast's */
char priomap[PRIORITIES + 1] SEC(".data.param") = "1222120011111111";
__u32 band_limit SEC(".data.param") BPF_QDISC_RANGE(0, 1000000) = 1000;
bool skbprio SEC(".data.param");
bool bypass SEC(".data.param");			/* an empty queue is passed by */

struct band {
	__u32 qlen;
	__u32 epoch;		/* qlen counts if this is the present one */
};

struct {			/* band << BAND_SHIFT -> packet */
	__uint(type, BPF_MAP_TYPE_RBTREE);
	__type(key, __u64);
	__type(value, struct pkt);
	__uint(max_entries, MAX_PACKETS);
} prio_pkts SEC(".maps");

struct {			/* band -> packets of it that were dropped */
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, __u64);
	__uint(max_entries, BANDS);
} prio_stats SEC(".maps");

static __u64 *note(struct sk_buff *skb)		/* on a packet in the map: its key */
{
	return bpf_qdisc_cb(skb);
}

static struct band bands[BANDS];
static __u32 epoch;		/* changes when the queue is found empty */
static __u64 number;		/* of the last packet, with skbprio */

static __u32 band_of(const struct sk_buff *skb)
{
	__u32 last = BANDS - 1;

	if (skbprio)
		return last - (skb->priority < last ? skb->priority : last);
	return (priomap[skb->priority % PRIORITIES] - '0') % BANDS;
}

static struct band *find_band(__u32 index)
{
	struct band *band = &bands[index % BANDS];

	/* The queue may have been reset, behind this program's back. */
	if (band->epoch != epoch) {
		band->epoch = epoch;
		band->qlen = 0;
	}
	return band;
}

static int drop(struct sch_bpf_ctx *ctx, struct sk_buff *skb, __u32 index)
{
	__u64 *dropped = bpf_map_lookup_elem(&prio_stats, &index);

	if (dropped)
		++*dropped;
	return bpf_qdisc_drop(ctx, skb, skbprio ? QDISC_DROP_OVERLIMIT : QDISC_DROP_BAND_LIMIT);
}

/* Drop the last packet, or this one if that is not of a higher band. */
static int replace_last(struct sch_bpf_ctx *ctx, struct sk_buff *skb, __u32 index, __u64 key)
{
	struct sk_buff *last = bpf_qdisc_take_last(ctx, &prio_pkts);
	__u64 its_key;

	if (!last)
		return drop(ctx, skb, index);
	its_key = *note(last);
	if (its_key >> BAND_SHIFT > index) {
		drop(ctx, last, its_key >> BAND_SHIFT);
		return bpf_qdisc_push(ctx, &prio_pkts, &key, skb);
	}
	bpf_qdisc_push(ctx, &prio_pkts, &its_key, last);
	return drop(ctx, skb, index);
}

static int enqueue_skbprio(struct sch_bpf_ctx *ctx, struct sk_buff *skb, __u32 index)
{
	__u64 key = ((__u64)index << BAND_SHIFT) + ++number;

	*note(skb) = key;
	if (ctx->qdisc->q.qlen >= ctx->qdisc->limit)
		return replace_last(ctx, skb, index, key);
	return bpf_qdisc_push(ctx, &prio_pkts, &key, skb);
}

SEC("qdisc/enqueue")
int prio_enqueue(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb = ctx->skb;
	__u32 index = band_of(skb);
	struct band *band;
	__u64 key;

	if (bypass)
		bpf_qdisc_bypass(ctx);
	if (skbprio)
		return enqueue_skbprio(ctx, skb, index);
	if (!ctx->qdisc->q.qlen)
		epoch++;
	band = find_band(index);
	if (band->qlen >= band_limit)
		return drop(ctx, skb, index);
	key = (__u64)index << BAND_SHIFT;
	*note(skb) = key;
	band->qlen += !bpf_qdisc_push(ctx, &prio_pkts, &key, skb);
	return 0;
}

SEC("qdisc/dequeue")
int prio_dequeue(struct sch_bpf_ctx *ctx)
{
	int err = bpf_qdisc_pop(ctx, &prio_pkts);
	struct sk_buff *skb = ctx->skb;
	struct band *band;

	if (skb && !skbprio) {
		band = find_band(*note(skb) >> BAND_SHIFT);
		if (band->qlen)
			band->qlen--;
	}
	return err;
}

char LICENSE[] SEC("license") = "GPL";
