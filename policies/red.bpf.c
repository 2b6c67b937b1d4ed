// SPDX-License-Identifier: GPL-2.0
/*
 * red: packets are dropped at random before the queue is full (Floyd and Jacobson, 1993).
 *
 * With each packet that comes an average goes 2^-weight_log of the way to the backlog. Below
 * `min` bytes of it nothing is dropped, and from `max` on each packet is; in between the
 * probability rises with it to `max_p`, and drops are spread evenly. With `ecn` packets are
 * marked instead; those that take no part in ECN are dropped, or with `nodrop` let be. With
 * `harddrop` from `max` on marks are drops, too. `adaptive` is for who does not know max_p: each
 * half second it rises by up to 1 % while the average is above the middle fifth between min and
 * max, and falls by a tenth while it is below.
 *
 * With `choke` (Pan, Prabhakar and Psounis, 2000) a packet that comes while the average is min or
 * more is compared with one at random of those that wait: if both are of one flow, both are
 * dropped. So who has most in the queue loses most, and no flow has a state.
 *
 * The queue is a FIFO of `limit_bytes`, unless the class 1 of the qdisc is added: then it is the
 * qdisc of that class, a pfifo or another one, and packets that came before leave first:
 *
 *	tc class add dev eth0 parent 1: classid 1:1 bpf
 *	tc qdisc add dev eth0 parent 1:1 fq
 *
 * Each packet that RED drops or marks is reported in the ring buffer red_events, as a struct
 * red_event with its first `capture` bytes, for libbpf's ring_buffer__new(): one for all tx queues.
 * What finds it full, as soon nobody reads it, is counted as `unreported`. policies/mirror sends
 * what is reported to a device.
 *
 * Where it does badly: min, max, weight_log and packet_time have to suit the link and what it
 * carries; the same ones are a queue of 48 ms at 10 Mbit/s and of 0.5 ms at 1 Gbit/s (fq_codel
 * asks for none). Who sends little loses at the same rate as who fills the queue, but with choke,
 * which sees no packets in a class. A GSO packet is dropped or marked as one. A new parameter leaves the average as it is; new programs and a
 * reset begin with an empty one. It does not pace.
 *
 * Statistics, by `tc -s qdisc show`, of packets: marked; dropped by RED (early), and because the
 * queue, or the class, was full (pdrop); dropped as those of the same flow, two each time
 * (matched); unreported. And max_p as it is now.
 */
#include "policy.h"
#include <bpf/bpf_rbtree.h>

#define MAX_PACKETS	10000
#define PERIOD		(NSEC_PER_SEC / 2)
#define PERCENT		10000		/* of parts of a million */

/* Parameters; sizes in bytes, of packets on the wire */
__u32 min SEC(".data.param") BPF_QDISC_RANGE(0, 2gb) = 30000;
__u32 max SEC(".data.param") BPF_QDISC_RANGE(0, 2gb) = 90000;
__u32 max_p SEC(".data.param") BPF_QDISC_RANGE(0, 1000000) = 20000;	/* parts of a million */
__u8 weight_log SEC(".data.param") BPF_QDISC_RANGE(0, 24) = 5;
__u64 packet_time SEC(".data.param") BPF_QDISC_RANGE(0, 10s) = 800000;	/* of the link, in ns */
__u32 limit_bytes SEC(".data.param") BPF_QDISC_RANGE(0, 2gb) = 360000;	/* 0: no limit */
bool ecn SEC(".data.param");
bool harddrop SEC(".data.param");
bool nodrop SEC(".data.param");
bool adaptive SEC(".data.param");
bool choke SEC(".data.param");
__u32 capture SEC(".data.param") BPF_QDISC_RANGE(0, 65535) = 64;	/* bytes of a packet in an event */

/* Statistics: packets, and parts of a million */
__u64 marked SEC(".data.stats");
__u64 early SEC(".data.stats");
__u64 pdrop SEC(".data.stats");
__u64 matched SEC(".data.stats");
__u64 unreported SEC(".data.stats");
__u32 probability SEC(".data.stats");

struct red_event {
	__u64 time;		/* ns CLOCK_MONOTONIC */
	__u32 len;		/* on the wire */
	__u16 captured;		/* how much of it is in bytes */
	bool dropped;		/* else marked */
	bool forced;		/* the average is beyond max */
	__u8 bytes[];
};

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 18);
} red_events SEC(".maps") BPF_QDISC_SHARED;

BPF_QDISC_QUEUE(red_pkts, __u64, MAX_PACKETS);	/* by number */

struct bpf_red red;
static __u64 number;		/* of the youngest packet; all have one without choke */
static __u64 adapted;		/* until when max_p is adapted */
static __u32 generation;	/* of which these are */

/* There is no timer: what comes next makes up for the periods that are over. */
static void adapt(__u64 now)
{
	__u32 avg = red.avg >> 24, fifth = (max - min) / 5;
	__u64 periods = (now - adapted) / PERIOD;
	int i;

	if (!adaptive) {
		probability = max_p;
		adapted = now;
		return;
	}
	adapted += periods * PERIOD;
	bpf_for(i, 0, periods < 64 ? periods : 64) {
		if (avg > min + 3 * fifth && probability <= 50 * PERCENT)
			probability += probability < 4 * PERCENT ? probability / 4 : PERCENT;
		else if (avg < min + 2 * fifth && probability >= PERCENT)
			probability -= probability / 10;
	}
}

static void report(struct sk_buff *skb, __u64 now, bool dropped, bool forced)
{
	struct red_event event = {
		.time = now, .len = bpf_qdisc_pkt_len(skb), .dropped = dropped, .forced = forced,
	};
	struct bpf_dynptr packet, record;

	event.captured = skb->len < capture ? skb->len : capture;
	if (bpf_ringbuf_reserve_dynptr(&red_events, sizeof(event) + event.captured, 0, &record)) {
		unreported++;
		bpf_ringbuf_discard_dynptr(&record, 0);
		return;
	}
	bpf_dynptr_from_skb((struct __sk_buff *)skb, 0, &packet);
	bpf_dynptr_copy(&record, sizeof(event), &packet, 0, event.captured);
	bpf_dynptr_write(&record, 0, &event, sizeof(event), 0);
	bpf_ringbuf_submit_dynptr(&record, 0);
}

/* One of the packets that wait, if it is of this flow. Where some have left from the middle the
 * one behind is meant.
 */
static struct sk_buff *take_match(struct sch_bpf_ctx *ctx, __u32 flow)
{
	struct sk_buff *waits = NULL;
	__u64 at = 0;
	struct pkt *pkt;

	if (bpf_rbtree_map_first(&red_pkts, &at)) {
		at += bpf_get_prandom_u32() % (number - at + 1);
		bpf_rbtree_map_lower_bound(&red_pkts, &at);
	}
	pkt = bpf_map_lookup_elem(&red_pkts, &at);
	if (pkt)
		waits = pkt->skb;
	if (!waits || *bpf_qdisc_note(waits, __u32) != flow)
		return NULL;
	return bpf_qdisc_take_key(ctx, &red_pkts, &at);
}

static int drop_both(struct sch_bpf_ctx *ctx, struct sk_buff *skb, struct sk_buff *match, __u64 now)
{
	matched++;
	report(match, now, true, false);
	report(skb, now, true, false);
	bpf_qdisc_drop(ctx, match, QDISC_DROP_CONGESTED);
	return bpf_qdisc_drop(ctx, skb, QDISC_DROP_CONGESTED);
}

static int store(struct sch_bpf_ctx *ctx, struct sk_buff *skb)
{
	const struct Qdisc *sch = ctx->qdisc;
	int err = -ENOSPC;

	if (bpf_qdisc_class_len(ctx, CLASSID(ctx, 1)) >= 0)
		err = bpf_qdisc_pass(ctx, skb, CLASSID(ctx, 1));
	else if (bpf_qdisc_exceeds(sch, bpf_qdisc_pkt_len(skb), limit_bytes))
		bpf_qdisc_drop(ctx, skb, QDISC_DROP_OVERLIMIT);
	else
		err = bpf_qdisc_push(ctx, &red_pkts, &number, skb);
	pdrop += !!err;
	return 0;
}

SEC("qdisc/enqueue")
int red_enqueue(struct sch_bpf_ctx *ctx)
{
	struct bpf_red_params params = {
		.min = min, .max = max, .weight_log = weight_log, .ecn = ecn,
		.packet_time = packet_time,
	};
	struct sk_buff *skb = ctx->skb, *match;
	__u64 now = bpf_ktime_get_ns();
	enum bpf_aqm_verdict verdict;
	bool drop, forced;
	__u32 flow = 0;

	if (bpf_qdisc_begins_anew(ctx, &generation)) {
		__builtin_memset(&red, 0, sizeof(red));
		probability = max_p;
		adapted = now;
		number = 0;
		bpf_rbtree_map_last(&red_pkts, &number);
	}
	params.max_p = (__u64)probability * ~0U / (100 * PERCENT);
	verdict = bpf_red_enqueue(&red, &params, now, ctx->qdisc->qstats.backlog);
	adapt(now);
	if (choke) {
		number++;
		flow = bpf_skb_get_hash(skb);
		match = red.avg >> 24 < min ? NULL : take_match(ctx, flow);
		if (match)
			return drop_both(ctx, skb, match, now);
	}
	*bpf_qdisc_note(skb, __u32) = flow;
	forced = verdict && !red.count;		/* there are no rounds beyond max */
	if (forced && harddrop)
		verdict = BPF_AQM_DROP;
	drop = bpf_aqm_drops(ctx, skb, verdict);
	if (verdict == BPF_AQM_DELIVER || (verdict == BPF_AQM_MARK && drop && nodrop))
		return store(ctx, skb);
	report(skb, now, drop, forced);
	if (drop) {
		early++;
		return bpf_qdisc_drop(ctx, skb, forced ? QDISC_DROP_OVERLIMIT :
							 QDISC_DROP_CONGESTED);
	}
	marked++;
	return store(ctx, skb);
}

SEC("qdisc/dequeue")
int red_dequeue(struct sch_bpf_ctx *ctx)
{
	if (bpf_qdisc_pop(ctx, &red_pkts))
		bpf_qdisc_pop_class(ctx, CLASSID(ctx, 1));
	bpf_red_dequeue(&red, bpf_ktime_get_ns(), ctx->qdisc->qstats.backlog);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
