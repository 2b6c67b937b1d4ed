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
 * The queue is a FIFO of `limit_bytes`, unless the class 1 of the qdisc is added: then it is the
 * qdisc of that class, a pfifo or another one, and packets that came before leave first:
 *
 *	tc class add dev eth0 parent 1: classid 1:1 bpf
 *	tc qdisc add dev eth0 parent 1:1 fq
 *
 * Each packet that RED drops or marks is reported in the ring buffer red_events, as a struct
 * red_event with its first bytes, for libbpf's ring_buffer__new(): one for all tx queues. What
 * finds it full, as soon nobody reads it, is counted as `unreported`.
 *
 * Where it does badly: min, max, weight_log and packet_time have to suit the link and what it
 * carries; the same ones are a queue of 48 ms at 10 Mbit/s and of 0.5 ms at 1 Gbit/s (fq_codel
 * asks for none). Who sends little loses at the same rate as who fills the queue. A GSO packet
 * is dropped or marked as one. A new parameter leaves the average as it is; new programs and a
 * reset begin with an empty one. It does not pace.
 *
 * Statistics, by `tc -s qdisc show`, of packets: marked; dropped by RED (early), and because the
 * queue, or the class, was full (pdrop); unreported. And max_p as it is now.
 */
#include "policy.h"

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

/* Statistics: packets, and parts of a million */
__u64 marked SEC(".data.stats");
__u64 early SEC(".data.stats");
__u64 pdrop SEC(".data.stats");
__u64 unreported SEC(".data.stats");
__u32 probability SEC(".data.stats");

struct red_event {
	__u64 time;		/* ns CLOCK_MONOTONIC */
	__u32 len;		/* on the wire */
	__u16 captured;		/* how much of it is in bytes */
	bool dropped;		/* else marked */
	bool forced;		/* the average is beyond max */
	__u8 bytes[64];
};

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 18);
} red_events SEC(".maps") BPF_QDISC_SHARED;

BPF_QDISC_QUEUE(red_pkts, __u64, MAX_PACKETS);

static const __u64 key;		/* of all packets */

struct bpf_red red;
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
	struct red_event *event = bpf_ringbuf_reserve(&red_events, sizeof(*event), 0);
	__u32 captured = skb->len;
	struct bpf_dynptr packet;

	if (!event) {
		unreported++;
		return;
	}
	if (captured > sizeof(event->bytes))
		captured = sizeof(event->bytes);
	bpf_dynptr_from_skb((struct __sk_buff *)skb, 0, &packet);
	bpf_dynptr_read(event->bytes, captured, &packet, 0, 0);
	event->time = now;
	event->len = bpf_qdisc_pkt_len(skb);
	event->captured = captured;
	event->dropped = dropped;
	event->forced = forced;
	bpf_ringbuf_submit(event, 0);
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
		err = bpf_qdisc_push(ctx, &red_pkts, &key, skb);
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
	struct sk_buff *skb = ctx->skb;
	__u64 now = bpf_ktime_get_ns();
	enum bpf_aqm_verdict verdict;
	bool drop, forced;

	if (bpf_qdisc_begins_anew(ctx, &generation)) {
		__builtin_memset(&red, 0, sizeof(red));
		probability = max_p;
		adapted = now;
	}
	params.max_p = (__u64)probability * ~0U / (100 * PERCENT);
	verdict = bpf_red_enqueue(&red, &params, now, ctx->qdisc->qstats.backlog);
	adapt(now);
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
