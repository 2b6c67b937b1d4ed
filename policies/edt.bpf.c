// SPDX-License-Identifier: GPL-2.0
/*
 * edt: every flow leaves at a rate, by earliest departure time.
 *
 * Two programs share the work. The clsact program gives each packet the time at
 * which its flow may send it, on all CPUs at once and without a lock: a flow is
 * no more than the time of its next packet, and a packet of n bytes moves that
 * time on by n / rate. The qdisc keeps the packets in the order of these times
 * and holds each until its own. A flow that did not use its time, because its
 * sender was woken late, say, may make up for the last CATCH_UP of it.
 *
 * A packet that the qdisc drops, because its map is full or because the packet
 * would leave more than `horizon` from now, has not used the link. Its flow gets
 * the time back; with a clsact program in front of a qdisc that does not know of
 * it, that share of the rate would be lost.
 *
 * A sender that paces itself may ask for a later time: in CLOCK_MONOTONIC (TCP does, and
 * clsact programs that write no clock), or in CLOCK_TAI. BPF programs cannot read
 * CLOCK_REALTIME: behind the clsact program a time in that is replaced by the flow's.
 *
 * With `drop_late` a packet leaves in time or not at all, as with etf: from `delta`
 * before its time until then. One that comes or stands beyond its time is dropped, and
 * one that is to leave before another that has left.
 *
 *   # tc qdisc add dev eth0 root bpf obj edt.bpf.o set edt_rate[eth0]=20mbit
 *   # tc qdisc add dev eth0 clsact
 *   # tc filter add dev eth0 egress bpf da obj edt.bpf.o sec tc
 *   # tc qdisc change dev eth0 root bpf set edt_rate[eth0]=50mbit
 *
 * The rate is one of Ethernet frames without FCS, for each flow. A device without a rate
 * is not paced.
 *
 * Packets with a mark (SO_MARK, a filter's action) are one flow for each mark: so
 * many connections can share one rate.
 *
 * Both objects find the maps edt_rate and edt_flows by their pins, and so do all
 * devices that use edt. Interface indices keep the devices apart.
 *
 * Where it does badly: flows are told apart by the packet's hash, so two flows
 * may share one rate, and a TCP connection that chooses a new hash after a time-out
 * starts anew beside what it has in the queue. A GSO packet leaves whole, its
 * segments at the speed of the link. A new rate holds for packets to come, not
 * for those that stand. Beyond 65536 flows the longest silent one is forgotten,
 * also if its packets still stand. IP is found behind up to 8 VLAN tags, and behind these up to 8
 * labels of MPLS or the header of a PPPoE session; all else is not paced, but counted.
 * With drop_late and a delta that is shorter than a timer may be late, few packets leave.
 *
 * Statistics, by `tc -s qdisc show`: packets that came without a time (`unpaced`), that
 * were dropped, and of these the late ones; and the time given back for them. What has
 * waited for its time the kernel counts: overlimits.
 */
#include "policy.h"

#define MAX_PACKETS	10000
#define VLAN_TAGS	8		/* in front of a packet, at most */
#define MPLS_LABELS	8		/* likewise */
#define PPP_IP		0x0021
#define PPP_IPV6	0x0057
#define CATCH_UP	(20 * NSEC_PER_MSEC)
#define UPTIME_MAX	(30ULL * 365 * 86400 * NSEC_PER_SEC)	/* as of TIME_UPTIME_SEC_MAX */
#define NEVER		(~0ULL)

/* Parameters; times in ns */
__u64 horizon SEC(".data.param") BPF_QDISC_RANGE(1ms, 86400s) = 2 * NSEC_PER_SEC;
__u64 delta SEC(".data.param") BPF_QDISC_RANGE(0, 10s);	/* leave so much earlier */
bool drop_late SEC(".data.param");

/* Statistics */
__u64 unpaced SEC(".data.stats");	/* packets without a time: of no rate, not IP */
__u64 dropped SEC(".data.stats");
__u64 dropped_bytes SEC(".data.stats");
__u64 given_back SEC(".data.stats");	/* ns, for packets dropped */
__u64 late SEC(".data.stats");		/* packets dropped because they were */

struct edt_flow {
	__u32 ifindex;
	__u32 mark;		/* of packets with a mark */
	__u32 hash;		/* of those without */
};

struct note {			/* on a packet, between the two programs, too */
	__u64 when;		/* its time, as in skb->tstamp; NEVER: it has none */
	__u64 cost;		/* what its flow has paid for it, ns */
};

/* Departure time, ns CLOCK_MONOTONIC -> packet */
BPF_QDISC_QUEUE(edt_pkts, __u64, MAX_PACKETS);

struct {				/* device -> bytes a second */
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, bpf_ifindex);
	__type(value, __u64);
	__uint(max_entries, 256);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} edt_rate SEC(".maps") BPF_QDISC_TABLE BPF_QDISC_RANGE(0, 10tbit);

struct {				/* flow -> when its next packet may leave */
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__type(key, struct edt_flow);
	__type(value, __u64);
	__uint(max_entries, 65536);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} edt_flows SEC(".maps");

/* When the flow's next packet may leave; a flow that is new starts @now. */
static __u64 *find_flow(struct edt_flow *flow, __u64 now)
{
	__u64 *next = bpf_map_lookup_elem(&edt_flows, flow);

	if (next)
		return next;
	bpf_map_update_elem(&edt_flows, flow, &now, BPF_NOEXIST);
	return bpf_map_lookup_elem(&edt_flows, flow);
}

/* The earliest time for a packet, which its sender may have paced already. A sender that
 * asks for one beyond the horizon does not hold up the packets that share its flow. No
 * CLOCK_REALTIME is as early as UPTIME_MAX: what is, has no clock, and is monotonic.
 */
static __u64 earliest(struct __sk_buff *skb, __u64 now)
{
	__u8 clock = skb->tstamp_type;
	__s64 ahead = skb->tstamp - (clock == BPF_SKB_CLOCK_TAI ? bpf_ktime_get_tai_ns() : now);

	if (ahead <= 0 || (clock == BPF_SKB_CLOCK_REALTIME && skb->tstamp > UPTIME_MAX))
		return now - CATCH_UP;
	return now + (ahead < horizon ? ahead : horizon);
}

/* Where the IP header is behind a header of this protocol, or 0. MPLS does not say what is behind
 * its labels: it is taken for IP by its version, as routers do.
 */
static __noinline __u32 find_ip_behind(struct __sk_buff *skb, __be16 protocol, __u32 offset)
{
	__u8 label[5];			/* the last byte is the next one's */
	__be16 ppp;
	__u32 i;

	if (protocol == bpf_htons(ETH_P_PPP_SES)) {
		if (bpf_skb_load_bytes(skb, offset + 6, &ppp, sizeof(ppp)) ||
		    (ppp != bpf_htons(PPP_IP) && ppp != bpf_htons(PPP_IPV6)))
			return 0;
		return offset + 8;
	}
	if (protocol != bpf_htons(ETH_P_MPLS_UC) && protocol != bpf_htons(ETH_P_MPLS_MC))
		return 0;
	for (i = 0; i < MPLS_LABELS; i++) {
		if (bpf_skb_load_bytes(skb, offset, label, sizeof(label)))
			return 0;
		offset += 4;
		if (label[2] & 1)	/* the last one */
			return label[4] >> 4 == 4 || label[4] >> 4 == 6 ? offset : 0;
	}
	return 0;
}

/* Where the IP header is, or 0. One VLAN tag may be in skb->vlan_tci; all others are in
 * the frame.
 */
static __u32 find_ip(struct __sk_buff *skb)
{
	__be16 protocol = skb->protocol;
	__u32 i, offset = ETH_HLEN;

	for (i = 0; i < VLAN_TAGS; i++, offset += VLAN_HLEN)
		if ((protocol != bpf_htons(ETH_P_8021Q) && protocol != bpf_htons(ETH_P_8021AD)) ||
		    bpf_skb_load_bytes(skb, offset + 2, &protocol, sizeof(protocol)))
			break;
	if (protocol == bpf_htons(ETH_P_IP) || protocol == bpf_htons(ETH_P_IPV6))
		return offset;
	return find_ip_behind(skb, protocol, offset);
}

/* The kernel's flow dissector takes a tag in the frame for the protocol behind it, so that
 * its hash tells nothing there: this one is of addresses and ports.
 */
static __u32 hash_of(struct __sk_buff *skb, __u32 ip)
{
	__u32 i, words[9] = {}, ports = ip + 40, hash = 0;
	__u8 version = 0, protocol = 0;
	__be16 fragment = 0;

	if (ip <= ETH_HLEN)
		return bpf_get_hash_recalc(skb);
	bpf_skb_load_bytes(skb, ip, &version, sizeof(version));
	if (version >> 4 == 6) {
		bpf_skb_load_bytes(skb, ip + 6, &protocol, sizeof(protocol));
		bpf_skb_load_bytes(skb, ip + 8, words, 32);
	} else {
		ports = ip + (version & 15) * 4;
		bpf_skb_load_bytes(skb, ip + 6, &fragment, sizeof(fragment));
		bpf_skb_load_bytes(skb, ip + 9, &protocol, sizeof(protocol));
		bpf_skb_load_bytes(skb, ip + 12, words, 8);
	}
	if ((protocol == IPPROTO_TCP || protocol == IPPROTO_UDP) && !(fragment & bpf_htons(0x3fff)))
		bpf_skb_load_bytes(skb, ports, &words[8], 4);
	for (i = 0; i < 9; i++)
		hash = (hash ^ words[i]) * 0x9e3779b1 + (hash >> 15) + 1;
	bpf_set_hash(skb, hash);
	return hash;
}

/* bpf_skb_set_tstamp() refuses a packet with a tag in the frame. A time that is written as
 * it is keeps its clock; without one it is read as monotonic.
 */
static void set_departure(struct __sk_buff *skb, __u64 when)
{
	if (!bpf_skb_set_tstamp(skb, when, BPF_SKB_CLOCK_MONOTONIC))
		return;
	if (skb->tstamp_type == BPF_SKB_CLOCK_TAI)
		when += bpf_ktime_get_tai_ns() - bpf_ktime_get_ns();
	skb->tstamp = when;
}

SEC("tc")
int edt_stamp(struct __sk_buff *skb)
{
	struct edt_flow flow = { .ifindex = skb->ifindex, .mark = skb->mark };
	__u64 *rate = bpf_map_lookup_elem(&edt_rate, &flow.ifindex);
	__u64 cost = rate ? bpf_qdisc_tx_time(skb->wire_len, *rate) : 0;
	__u64 now = bpf_ktime_get_ns(), *next;
	__u32 ip = find_ip(skb);

	if (!cost)
		return TC_ACT_UNSPEC;
	if (!flow.mark)
		flow.hash = hash_of(skb, ip);
	next = ip ? find_flow(&flow, now) : NULL;
	if (next) {
		set_departure(skb, bpf_qdisc_link_reserve(next, earliest(skb, now), cost));
		*(__u64 *)&skb->cb[0] = skb->tstamp;	/* the struct note */
		*(__u64 *)&skb->cb[2] = cost;
	}
	return TC_ACT_UNSPEC;
}

/* ---- the qdisc ---- */

/* The clock is read when it must be: a packet whose time is not later than one that
 * was read before has no need of it.
 */
static __u64 past;		/* what the clock said when it was read last */
static __u64 next;		/* no packet that waits has an earlier time, in this generation: */
static __u32 generation;	/* other programs may have stored some */
static __u64 last_left;		/* time of the last packet that left, with drop_late */

static __u64 read_clock(void)
{
	past = bpf_ktime_get_ns();
	return past;
}

static struct note *note(struct sk_buff *skb)
{
	return bpf_qdisc_note(skb, struct note);
}

/* A dropped packet has not used its time: what its flow sends next may. A device that is
 * not in edt_rate has no flows; and for tc a table is the qdisc's if its programs look at it.
 */
static int drop(struct sch_bpf_ctx *ctx, struct sk_buff *skb, int reason)
{
	struct edt_flow flow = { .ifindex = skb->dev->ifindex, .mark = skb->mark };
	__u64 *next;

	if (!flow.mark)
		flow.hash = skb->hash;
	next = bpf_map_lookup_elem(&edt_rate, &flow.ifindex) ?
	       bpf_map_lookup_elem(&edt_flows, &flow) : NULL;
	if (next) {
		bpf_qdisc_link_give_back(next, note(skb)->cost);
		given_back += note(skb)->cost;
	}
	dropped++;
	dropped_bytes += bpf_qdisc_pkt_len(skb);
	return bpf_qdisc_drop(ctx, skb, reason);
}

/* A packet without a time is to leave after those that are due. The note is the clsact
 * program's if it tells the same time.
 */
static __u64 time_of_departure(struct sch_bpf_ctx *ctx, struct sk_buff *skb)
{
	struct note *its = note(skb);

	if (!skb->tstamp) {
		*its = (struct note) { .when = NEVER };
		unpaced++;
		return ctx->qdisc->q.qlen ? read_clock() : past;
	}
	if (its->when != skb->tstamp)
		its->cost = 0;
	its->when = bpf_qdisc_departure(ctx, skb);
	return its->when;
}

/* No sum, which a large parameter could make wrap */
static bool is_ahead(__u64 when, __u64 now)
{
	return when > now && when - now > horizon;
}

SEC("qdisc/enqueue")
int edt_enqueue(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb = ctx->skb;
	__u64 when = time_of_departure(ctx, skb);

	if (drop_late && (note(skb)->when < read_clock() || note(skb)->when < last_left)) {
		late++;
		return drop(ctx, skb, 0);
	}
	if (bpf_qdisc_is_full(ctx->qdisc, MAX_PACKETS))
		return drop(ctx, skb, QDISC_DROP_OVERLIMIT);
	if (is_ahead(when, past) && is_ahead(when, read_clock()))
		return drop(ctx, skb, QDISC_DROP_HORIZON_LIMIT);
	if (when < next)
		next = when;
	return bpf_qdisc_push(ctx, &edt_pkts, &when, skb);
}

static int pop_in_time(struct sch_bpf_ctx *ctx)
{
	__u64 now = read_clock(), due = bpf_qdisc_time_add(now, delta);
	struct sk_buff *skb;
	int i;

	bpf_for(i, 0, MAX_PACKETS) {
		skb = bpf_qdisc_take_until(ctx, &edt_pkts, &due);
		if (!skb) {
			if (ctx->expire)
				ctx->expire -= delta;
			return 0;
		}
		if (note(skb)->when >= now) {
			if (note(skb)->when != NEVER)
				last_left = note(skb)->when;
			return bpf_qdisc_deliver(ctx, skb);
		}
		late++;
		drop(ctx, skb, 0);
	}
	return 0;
}

static bool pop_due(struct sch_bpf_ctx *ctx, __u64 due)
{
	if (next > due && generation == ctx->generation)
		return false;
	if (bpf_qdisc_pop_until(ctx, &edt_pkts, &due) != -EAGAIN)
		return true;
	next = ctx->expire;
	generation = ctx->generation;
	return false;
}

SEC("qdisc/dequeue")
int edt_dequeue(struct sch_bpf_ctx *ctx)
{
	if (drop_late)
		return pop_in_time(ctx);
	if (!pop_due(ctx, bpf_qdisc_time_add(past, delta)) &&
	    !pop_due(ctx, bpf_qdisc_time_add(read_clock(), delta)))
		ctx->expire = next - delta;
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
