// SPDX-License-Identifier: GPL-2.0
/*
 * reorder: segments of TCP that come out of order leave in order.
 *
 * A segment that leaves a hole in the bytes of its connection waits until the hole is filled, but
 * for no longer than `wait`; then it leaves, with all that stood before it. What fills a hole
 * leaves at once, and behind it all that has no hole before it any more. Whatever else comes leaves
 * at once: other packets, ACKs without data, and segments that repeat what has left.
 *
 * It is for the end of a path that reorders, by several links or queues, say: there on what leaves
 * for the receiver, or on what arrives, by an ifb. To a sender a segment that others overtake
 * looks lost: it sends again, and slower.
 *
 *	# ip link add ifb0 up type ifb
 *	# tc qdisc add dev eth0 clsact
 *	# tc filter add dev eth0 ingress matchall action mirred egress redirect dev ifb0
 *	# tc qdisc add dev ifb0 root bpf obj reorder.bpf.o set wait=5ms
 *
 * Where it does badly: what is lost fills no hole, so the receiver tells of a loss by `wait` later,
 * and what came behind it leaves in one burst; with `wait` near the round trip that costs more than
 * it gains. It sees one direction, and no tunnels. Connections are told apart by the packet's
 * hash: of two that have one, each holds up the other's segments for `wait`. Of more than 16384 the
 * one that was silent for longest begins anew. The queue has to have room for what comes within
 * `wait`: who finds it full is dropped, though it may be what others wait for.
 *
 * Statistics, by `tc -s qdisc show`, of segments: `held`, and of these those that left in their
 * order (`in_order`), or when their time was over (`given_up`).
 */
#include "policy.h"
#include <bpf/bpf_rbtree.h>

#define MAX_PACKETS	10000
#define CONNECTIONS	16384

/* Parameter, in ns */
__u64 wait SEC(".data.param") BPF_QDISC_RANGE(0, 10s) = 10 * NSEC_PER_MSEC;

/* Statistics: segments */
__u64 held SEC(".data.stats");
__u64 in_order SEC(".data.stats");
__u64 given_up SEC(".data.stats");

struct segment {
	__u64 connection;
	__u64 at;		/* its sequence number, which does not wrap around here */
};

BPF_QDISC_QUEUE(reorder_ready, __u64, MAX_PACKETS);		/* all have one key */
BPF_QDISC_QUEUE(reorder_held, struct segment, MAX_PACKETS);
ORDERED_MAP(reorder_ends, __u64, struct segment, MAX_PACKETS);	/* until when each is held */

struct {			/* connection -> the byte that comes next, as in a segment */
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__type(key, __u64);
	__type(value, __u64);
	__uint(max_entries, CONNECTIONS);
} reorder_next SEC(".maps");

static const __u64 key;

static int leave(struct sch_bpf_ctx *ctx, struct sk_buff *skb)
{
	return bpf_qdisc_push(ctx, &reorder_ready, &key, skb);
}

/* The bytes that a packet carries of its connection, which begins anew with a SYN */
static __u32 payload(struct sk_buff *skb, __u64 connection, __u32 *seq)
{
	struct bpf_dynptr bytes;
	struct tcphdr tcp;
	struct ip ip;

	if (!read_ip(skb, &ip) || ip.protocol != IPPROTO_TCP ||
	    bpf_dynptr_from_skb((struct __sk_buff *)skb, 0, &bytes) ||
	    bpf_dynptr_read(&tcp, sizeof(tcp), &bytes, ip.payload, 0))
		return 0;
	if (tcp.syn) {
		bpf_map_delete_elem(&reorder_next, &connection);
		return 0;
	}
	*seq = bpf_ntohl(tcp.seq);
	return ip.length > 4 * tcp.doff ? ip.length - 4 * tcp.doff : 0;
}

static __u32 *length_of(struct sk_buff *skb)
{
	return bpf_qdisc_note(skb, __u32);
}

/* What is held of a connection leaves, up to the first hole behind `next`; which then is the byte
 * that comes next.
 */
static __u64 release(struct sch_bpf_ctx *ctx, __u64 connection, __u64 next, __u64 *count)
{
	struct segment first;
	struct sk_buff *skb;
	int i;

	bpf_for(i, 0, MAX_PACKETS) {
		first = (struct segment){ .connection = connection };
		if (!bpf_rbtree_map_lower_bound(&reorder_held, &first) ||
		    first.connection != connection || first.at > next)
			break;
		skb = bpf_qdisc_take_key(ctx, &reorder_held, &first);
		if (!skb)
			break;
		if (first.at + *length_of(skb) > next)
			next = first.at + *length_of(skb);
		++*count;
		leave(ctx, skb);
	}
	return next;
}

static bool may_be_held(struct segment *segment)
{
	__u64 end = bpf_qdisc_time_add(bpf_ktime_get_ns(), wait);

	return !bpf_rbtree_map_push(&reorder_ends, &end, segment);
}

SEC("qdisc/enqueue")
int reorder_enqueue(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb = ctx->skb;
	struct segment segment = { .connection = bpf_skb_get_hash(skb) };
	__u32 seq = 0, len = payload(skb, segment.connection, &seq);
	__u64 *next, end;
	int err;

	if (!len)
		return leave(ctx, skb);
	next = bpf_map_lookup_elem(&reorder_next, &segment.connection);
	if (!next) {
		end = (1ULL << 32 | seq) + len;
		bpf_map_update_elem(&reorder_next, &segment.connection, &end, BPF_ANY);
		return leave(ctx, skb);
	}
	segment.at = *next + (__s32)(seq - (__u32)*next);
	if (segment.at > *next && may_be_held(&segment)) {
		*length_of(skb) = len;
		err = bpf_qdisc_push(ctx, &reorder_held, &segment, skb);
		held += !err;
		return err;
	}
	end = segment.at + len;
	err = leave(ctx, skb);
	if (end > *next)
		*next = release(ctx, segment.connection, end, &in_order);
	return err;
}

SEC("qdisc/dequeue")
int reorder_dequeue(struct sch_bpf_ctx *ctx)
{
	__u64 now = bpf_ktime_get_ns(), end = 0, next, *known;
	struct segment segment;
	int i, err = -ENOENT;

	bpf_for(i, 0, MAX_PACKETS) {
		err = bpf_rbtree_map_pop_until(&reorder_ends, &now, &end, &segment);
		if (err)
			break;
		if (!bpf_map_lookup_elem(&reorder_held, &segment))
			continue;
		next = release(ctx, segment.connection, segment.at, &given_up);
		known = bpf_map_lookup_elem(&reorder_next, &segment.connection);
		if (known && next > *known)
			*known = next;
	}
	if (bpf_qdisc_pop(ctx, &reorder_ready) && err == -EAGAIN)
		ctx->expire = end;
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
