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
 * place of the youngest one of the lowest priority, the map's last, if its own is
 * higher.
 *
 * Where it does badly: a band that is never empty starves all bands above it,
 * for ever. Within a band it is a fifo.
 *
 * Statistics: packets dropped of each band, by `tc -s qdisc show`.
 */
#include "policy.h"
#include <bpf/bpf_rbtree.h>

#define MAX_PACKETS	10000
#define BANDS		64
#define PRIORITIES	16

/* Parameters; the table is pfifo_fast's */
char priomap[PRIORITIES + 1] SEC(".data.param") = "1222120011111111";
__u32 band_limit SEC(".data.param") BPF_QDISC_RANGE(0, 1000000) = 1000;
bool skbprio SEC(".data.param");
bool bypass SEC(".data.param");			/* an empty queue is passed by */

/* Statistics: packets of each band that were dropped */
__u64 dropped[BANDS] SEC(".data.stats");

struct band {
	__u32 qlen;
	__u32 generation;	/* qlen counts if this is the qdisc's */
};

BPF_QDISC_QUEUE(prio_pkts, __u64, MAX_PACKETS);		/* by band */

static struct band bands[BANDS];

static __u32 *note(struct sk_buff *skb)		/* on a packet in the map: its band */
{
	return bpf_qdisc_note(skb, __u32);
}

static __u32 band_of(const struct sk_buff *skb)
{
	__u32 last = BANDS - 1;

	if (skbprio)
		return last - (skb->priority < last ? skb->priority : last);
	return (priomap[skb->priority % PRIORITIES] - '0') % BANDS;
}

static struct band *find_band(struct sch_bpf_ctx *ctx, __u32 index)
{
	struct band *band = &bands[index % BANDS];

	if (bpf_qdisc_begins_anew(ctx, &band->generation))
		band->qlen = 0;
	return band;
}

static void loses(struct band *band)
{
	if (band->qlen)
		band->qlen--;
}

static int drop(struct sch_bpf_ctx *ctx, struct sk_buff *skb, __u32 index)
{
	dropped[index % BANDS]++;
	return bpf_qdisc_drop(ctx, skb, skbprio ? QDISC_DROP_OVERLIMIT : QDISC_DROP_BAND_LIMIT);
}

/* With skbprio: is there room for a packet of this band? The last packet makes it, if that
 * is of a lower one.
 */
static bool make_room(struct sch_bpf_ctx *ctx, __u32 index)
{
	struct sk_buff *last;
	__u64 highest = 0;

	if (ctx->qdisc->q.qlen < ctx->qdisc->limit)
		return true;
	if (!bpf_rbtree_map_last(&prio_pkts, &highest) || highest <= index)
		return false;
	last = bpf_qdisc_take_last(ctx, &prio_pkts);
	if (last) {
		loses(find_band(ctx, highest));
		drop(ctx, last, highest);
	}
	return true;
}

SEC("qdisc/enqueue")
int prio_enqueue(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb = ctx->skb;
	__u64 key = band_of(skb);
	struct band *band = find_band(ctx, key);

	if (bypass)
		bpf_qdisc_bypass(ctx);
	if (skbprio ? !make_room(ctx, key) : band->qlen >= band_limit)
		return drop(ctx, skb, key);
	*note(skb) = key;
	band->qlen += !bpf_qdisc_push(ctx, &prio_pkts, &key, skb);
	return 0;
}

SEC("qdisc/dequeue")
int prio_dequeue(struct sch_bpf_ctx *ctx)
{
	int err = bpf_qdisc_pop(ctx, &prio_pkts);
	struct sk_buff *skb = ctx->skb;

	if (skb)
		loses(find_band(ctx, *note(skb)));
	return err;
}

char LICENSE[] SEC("license") = "GPL";
