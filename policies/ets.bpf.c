// SPDX-License-Identifier: GPL-2.0
/*
 * ets: bands of strict priority, then bands that share what these leave.
 *
 * The first `strict` of 16 bands leave first, the lowest before all others. The others take turns
 * by deficit round robin, as the native ets does: in its turn a band sends what its element of
 * `quanta`, and what was left of it in the turns before, allow. A packet's priority
 * (skb->priority) chooses its band by `priomap`, unless it is the handle of a class, or a filter
 * of the qdisc chooses a class: the class 1 of the qdisc is band 0, and so on.
 *
 * A band is a FIFO of `band_limit` packets, unless its class is added: then it is the qdisc of
 * that class, a pfifo or another one, and packets that came before leave first:
 *
 *	tc class add dev eth0 parent 1: classid 1:3 bpf
 *	tc qdisc add dev eth0 parent 1:3 fq_codel
 *
 * Where it does badly: a strict band that is never empty starves all bands above it, for ever;
 * give it a class with a tbf. The qdisc's limit is for the packets of all bands that have no
 * class, so one that is less than their band limits lets a band shut others out. Each turn that
 * a packet waits for costs a step: with the lowest quantum a GSO packet of 64 kB waits for 256,
 * as it is not cut. New programs begin the turns anew. It does not pace.
 *
 * Statistics, by `tc -s qdisc show`: of each band, the bytes that it has sent, and packets that
 * were dropped when they came (`tc -s class show` has what a class drops later).
 */
#include "policy.h"

#define BANDS		16
#define PRIORITIES	16
#define MAX_PACKETS	10000
#define MAX_TURNS	(BANDS * 4096)		/* a packet of 1 MB, with the lowest quantum */

/* Parameters; the table is pfifo_fast's */
__u32 strict SEC(".data.param") BPF_QDISC_RANGE(0, 16) = 1;
__u32 quanta[BANDS] SEC(".data.param") BPF_QDISC_RANGE(256b, 1mb) = { [0 ... BANDS - 1] = 1514 };
__u32 priomap[PRIORITIES] SEC(".data.param") BPF_QDISC_RANGE(0, 15) = {
	1, 2, 2, 2, 1, 2, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1
};

__u32 band_limit SEC(".data.param") BPF_QDISC_RANGE(0, 1000000) = 1000;

/* Statistics */
__u64 sent[BANDS] SEC(".data.stats");		/* bytes */
__u64 dropped[BANDS] SEC(".data.stats");	/* packets */

struct band {
	__u32 qlen;		/* in the map */
	__s32 deficit;		/* bytes that it may send in this turn */
	bool listed;
};

BPF_QDISC_QUEUE(ets_pkts, __u32, MAX_PACKETS);	/* by band */

static struct band bands[BANDS];
static __u32 turns[BANDS];	/* a ring: the bands that have packets, whose turn it is first */
static __u32 first, waiting;	/* where it begins, and its length */
static __u32 generation;	/* of which all these are */

static struct band *band_at(__u32 number)
{
	return &bands[number % BANDS];
}

static bool has_packets(struct sch_bpf_ctx *ctx, __u32 number)
{
	return band_at(number)->qlen || bpf_qdisc_class_len(ctx, CLASSID(ctx, number + 1)) > 0;
}

static void put_last(__u32 number)
{
	band_at(number)->listed = true;
	turns[(first + waiting++) % BANDS] = number;
}

static void remove_first(void)
{
	band_at(turns[first++ % BANDS])->listed = false;
	waiting--;
}

/* A strict band has a place, too, for when it is strict no longer. */
static void list(__u32 number)
{
	if (band_at(number)->listed)
		return;
	band_at(number)->deficit = quanta[number % BANDS];
	put_last(number);
}

static long count(struct bpf_map *map, const __u32 *key, struct pkt *pkt, void *unused)
{
	band_at(*key)->qlen++;
	return 0;
}

/* After a reset no band has packets; after a change those have that had. */
static void look_at_the_bands(struct sch_bpf_ctx *ctx)
{
	int i;

	if (!bpf_qdisc_begins_anew(ctx, &generation))
		return;
	waiting = 0;
	__builtin_memset(bands, 0, sizeof(bands));
	bpf_for_each_map_elem(&ets_pkts, count, NULL, 0);
	bpf_for(i, 0, BANDS)
		if (has_packets(ctx, i))
			list(i);
}

/* ---- enqueue ---- */

static __u32 band_of(const struct sch_bpf_ctx *ctx, __u32 classid)	/* BANDS or more: of none */
{
	return CLASS_MINOR(ctx, classid) - 1;
}

static int store(struct sch_bpf_ctx *ctx, struct sk_buff *skb, __u32 number)
{
	struct band *band = band_at(number);
	int err;

	if (bpf_qdisc_class_len(ctx, CLASSID(ctx, number + 1)) >= 0)
		return bpf_qdisc_pass(ctx, skb, CLASSID(ctx, number + 1));
	if (band->qlen >= band_limit) {
		bpf_qdisc_drop(ctx, skb, QDISC_DROP_BAND_LIMIT);
		return -ENOSPC;
	}
	err = bpf_qdisc_push(ctx, &ets_pkts, &number, skb);
	band->qlen += !err;
	return err;
}

SEC("qdisc/enqueue")
int ets_enqueue(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb = ctx->skb;
	__u32 number = band_of(ctx, skb->priority);

	if ((skb->priority ^ ctx->qdisc->handle) >> 16) {
		if (bpf_qdisc_filter(ctx, skb))
			return 0;
		number = band_of(ctx, ctx->classid);
	}
	if (number >= BANDS)
		number = priomap[skb->priority >> 16 ? 0 : skb->priority % PRIORITIES] % BANDS;
	look_at_the_bands(ctx);
	if (store(ctx, skb, number))
		dropped[number % BANDS]++;
	else
		list(number);
	return 0;
}

/* ---- dequeue ---- */

/* The length of a band's next packet; -ENOENT: it has none; -EAGAIN: its class holds it back. */
static int head(struct sch_bpf_ctx *ctx, __u32 number)
{
	struct pkt *pkt = bpf_map_lookup_elem(&ets_pkts, &number);
	struct sk_buff *skb = pkt ? pkt->skb : NULL;

	return skb ? bpf_qdisc_pkt_len(skb) : bpf_qdisc_class_head(ctx, CLASSID(ctx, number + 1));
}

static bool send(struct sch_bpf_ctx *ctx, __u32 number)
{
	struct band *band = band_at(number);
	struct sk_buff *skb;

	if (band->qlen) {
		bpf_qdisc_pop_key(ctx, &ets_pkts, &number);
		band->qlen--;
	} else {
		bpf_qdisc_pop_class(ctx, CLASSID(ctx, number + 1));
	}
	skb = ctx->skb;
	if (!skb)
		return false;
	sent[number % BANDS] += bpf_qdisc_pkt_len(skb);
	return true;
}

SEC("qdisc/dequeue")
int ets_dequeue(struct sch_bpf_ctx *ctx)
{
	__u32 number, held = 0;
	struct band *band;
	int i, len;

	look_at_the_bands(ctx);
	bpf_for(i, 0, strict)
		if (send(ctx, i))
			return 0;
	bpf_for(i, 0, MAX_TURNS) {
		if (held >= waiting)		/* of those that wait nobody may send */
			break;
		number = turns[first % BANDS];
		band = band_at(number);
		len = head(ctx, number);
		if (len >= 0 && len <= band->deficit && send(ctx, number)) {
			band->deficit -= len;
			if (!has_packets(ctx, number))
				remove_first();
			break;
		}
		remove_first();
		if (len == -ENOENT)
			continue;
		put_last(number);
		held = len < 0 ? held + 1 : 0;
		if (len >= 0)
			band->deficit += quanta[number % BANDS];
	}
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
