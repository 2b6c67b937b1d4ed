// SPDX-License-Identifier: GPL-2.0
/* What programs of the qdisc "bpf" call
 *
 * What was done is the verdict. An enqueue program starts by owning ctx->skb, and
 * the verifier sees to it that a program gives every packet that it owns to exactly
 * one of the functions below: push, drop, lose, pass, steal, segment or deliver. They count
 * what they store, take out and drop in the qdisc's qlen, backlog and statistics, and
 * leave in q->run what the qdisc has to tell its caller and its parents. What the
 * program returns means nothing.
 */
#include <linux/bpf.h>
#include <linux/bpf_verifier.h>
#include <linux/btf.h>
#include <linux/btf_ids.h>
#include <linux/filter.h>
#include <linux/skbuff.h>
#include <linux/timekeeping.h>
#include <net/gso.h>
#include <net/inet_ecn.h>
#include <net/tcp.h>
#include "sch_bpf_priv.h"

/* The map did not take the packet, for the reason that @err says. */
static noinline int sch_bpf_push_failed(struct sch_bpf_data *q, struct sk_buff *skb, int err)
{
	switch (err) {
	case -E2BIG:
		sch_bpf_drop(q, skb, QDISC_DROP_OVERLIMIT);
		return -ENOSPC;
	case -ENOMEM:
		sch_bpf_drop(q, skb, QDISC_DROP_MAP_NOMEM);
		return -ENOMEM;
	default:
		sch_bpf_drop(q, skb, QDISC_DROP_MAP_BUSY);
		return -EBUSY;
	}
}

/* The limit is for packets that come: what a run has taken it can put back, also after the
 * limit has been lowered. At the limit a run can store only packets other than ctx->skb, and
 * only as long as fewer are stored than before it took the first.
 */
static __always_inline bool sch_bpf_is_full(struct sch_bpf_data *q, const struct sk_buff *skb)
{
	if (likely(q->stored < sch_bpf_qdisc(q)->limit))
		return false;
	return skb == q->run.ctx.skb || !(q->run.state & SCH_BPF_RUN_OTHERS) ||
	       q->stored >= q->run.stored;
}

/* The map has taken the packet, or not, as @err says. */
static __always_inline int sch_bpf_pushed(struct sch_bpf_data *q, struct sk_buff *skb, int err)
{
	if (unlikely(err))
		return sch_bpf_push_failed(q, skb, err);

	sch_bpf_count_stored(q, skb);
	if (likely(skb == q->run.ctx.skb))
		q->run.state |= SCH_BPF_RUN_QUEUED;
	else
		sch_bpf_count_others(&q->run, 1, qdisc_pkt_len(skb));
	return 0;
}

/* What a map gave, if it is a packet, is the program's now. */
static struct sk_buff *sch_bpf_taken(struct sch_bpf_data *q, struct sk_buff *skb)
{
	if (IS_ERR_OR_NULL(skb))
		return NULL;

	/* An enqueue program can take the packet that came out again. */
	if (skb == q->run.ctx.skb)
		q->run.state &= ~SCH_BPF_RUN_QUEUED;
	else
		sch_bpf_count_others(&q->run, -1, -qdisc_pkt_len(skb));
	sch_bpf_count_taken(q, skb);
	return skb;
}

/* What a map gave, if it is a packet, leaves the qdisc. */
static __always_inline int sch_bpf_popped(struct sch_bpf_data *q, struct sk_buff *skb)
{
	if (IS_ERR_OR_NULL(skb))
		return skb ? PTR_ERR(skb) : -ENOENT;

	sch_bpf_count_taken(q, skb);
	q->run.ctx.skb = skb;
	return 0;
}

__bpf_kfunc_start_defs();

/**
 * bpf_qdisc_push_skb() - store a packet behind all others with an equal key
 * @skb: an owned packet; it is given away
 * @ctx: context of the program
 * @map__packet_map: an ordered map of packets
 * @key__mapkey: the key, as long as the map's keys
 *
 * Context: qdisc programs, under the qdisc's root lock, bottom halves off.
 * Return: 0; or, with the packet dropped and counted, -ENOSPC if the map or the
 * qdisc is at its limit; -EBUSY if another qdisc keeps packets in the map; -ENOMEM if
 * there is no memory for its element.
 */
__bpf_kfunc int bpf_qdisc_push_skb(struct sk_buff *skb, struct sch_bpf_ctx *ctx,
				   void *map__packet_map, const void *key__mapkey)
{
	struct sch_bpf_data *q = sch_bpf_data(ctx);

	return sch_bpf_pushed(q, skb, sch_bpf_is_full(q, skb) ? -E2BIG :
			      bpf_rbtree_push(map__packet_map, &q->owner, key__mapkey, skb));
}

/**
 * bpf_qdisc_push_front_skb() - store a packet before all others with an equal key
 * @skb: an owned packet; it is given away
 * @ctx: context of the program
 * @map__packet_map: an ordered map of packets
 * @key__mapkey: the key, as long as the map's keys
 *
 * For a program that took a packet to look at it, and puts it back where it was.
 *
 * Context: qdisc programs, under the qdisc's root lock, bottom halves off.
 * Return: as bpf_qdisc_push_skb().
 */
__bpf_kfunc int bpf_qdisc_push_front_skb(struct sk_buff *skb, struct sch_bpf_ctx *ctx,
					 void *map__packet_map, const void *key__mapkey)
{
	struct sch_bpf_data *q = sch_bpf_data(ctx);

	return sch_bpf_pushed(q, skb, sch_bpf_is_full(q, skb) ? -E2BIG :
			      bpf_rbtree_push_front(map__packet_map, &q->owner, key__mapkey, skb));
}

/**
 * bpf_qdisc_drop_skb() - drop a packet and count it
 * @skb: an owned packet; it is given away
 * @ctx: context of the program
 * @reason: enum qdisc_drop_reason, for the tracepoint qdisc:qdisc_drop; any other
 *          value stands for QDISC_DROP_GENERIC
 *
 * Context: qdisc programs, under the qdisc's root lock, bottom halves off.
 * Return: 0.
 */
__bpf_kfunc int bpf_qdisc_drop_skb(struct sk_buff *skb, struct sch_bpf_ctx *ctx, int reason)
{
	if (reason <= __QDISC_DROP_REASON || reason >= QDISC_DROP_MAX)
		reason = QDISC_DROP_GENERIC;
	sch_bpf_drop(sch_bpf_data(ctx), skb, reason);
	return 0;
}

/**
 * bpf_qdisc_lose_skb() - drop a packet and count it, and do not tell its sender
 * @skb: an owned packet; it is given away
 * @ctx: context of the program
 *
 * For a policy that stands for a network that loses packets. The sender of ctx->skb is told
 * that it was sent, where bpf_qdisc_drop_skb() tells of a drop. The reason of the drop is
 * QDISC_DROP_GENERIC.
 *
 * Context: qdisc programs, under the qdisc's root lock, bottom halves off.
 * Return: 0.
 */
__bpf_kfunc int bpf_qdisc_lose_skb(struct sk_buff *skb, struct sch_bpf_ctx *ctx)
{
	struct sch_bpf_data *q = sch_bpf_data(ctx);

	if (skb == ctx->skb) {
		q->run.state |= SCH_BPF_RUN_RET;
		q->run.ret = NET_XMIT_SUCCESS | __NET_XMIT_BYPASS;
	}
	sch_bpf_drop(q, skb, QDISC_DROP_GENERIC);
	return 0;
}

/**
 * bpf_qdisc_pass_skb() - pass a packet to the qdisc of a class
 * @skb: an owned packet; it is given away
 * @ctx: context of the program
 * @classid: handle of the class
 *
 * Context: enqueue programs, under the qdisc's root lock, bottom halves off.
 * Return: 0; or, with the packet dropped and counted, -ENOENT if there is no such
 * class, -ENOBUFS if the qdisc of the class has dropped it.
 */
__bpf_kfunc int bpf_qdisc_pass_skb(struct sk_buff *skb, struct sch_bpf_ctx *ctx, u32 classid)
{
	return sch_bpf_class_enqueue(sch_bpf_data(ctx), skb, classid);
}

/**
 * bpf_qdisc_steal_skb() - end a packet that a filter's action has taken
 * @skb: an owned packet; it is given away
 * @ctx: context of the program
 *
 * The packet is counted as stolen, not as dropped, and the sender of ctx->skb is told
 * that it was sent.
 *
 * Context: enqueue programs, under the qdisc's root lock, bottom halves off.
 * Return: 0.
 */
__bpf_kfunc int bpf_qdisc_steal_skb(struct sk_buff *skb, struct sch_bpf_ctx *ctx)
{
	struct sch_bpf_data *q = sch_bpf_data(ctx);

	if (likely(skb == ctx->skb)) {
		q->run.state |= SCH_BPF_RUN_RET;
		q->run.ret = NET_XMIT_SUCCESS | __NET_XMIT_STOLEN;
	}
	q->xstats.stolen++;
	tcf_set_drop_reason(skb, SKB_CONSUMED);
	__qdisc_drop(skb, q->run.to_free);
	return 0;
}

/**
 * bpf_qdisc_segment_skb() - cut the packet that came into its segments
 * @skb: ctx->skb, a GSO packet; it is given away
 * @ctx: context of the program
 *
 * After this run the program runs for each segment, which is ctx->skb then, in order: up to
 * 65535 runs of one enqueue. A segment has the mark, priority, time stamp and note of the
 * packet, and its length by the size table of the root qdisc.
 *
 * Context: enqueue programs, under the qdisc's root lock, bottom halves off.
 * Return: 0; or, with the packet dropped and counted, -EINVAL if it is another packet
 * than ctx->skb, or none that can be cut; -ENOMEM without memory.
 */
__bpf_kfunc int bpf_qdisc_segment_skb(struct sk_buff *skb, struct sch_bpf_ctx *ctx)
{
	struct sk_buff *segs = ERR_PTR(-EINVAL), *seg, **last = &segs;
	struct sch_bpf_data *q = sch_bpf_data(ctx);
	struct tc_skb_cb cb = *tc_skb_cb(skb);

	/* A program that cut clones again and again would never come to an end. */
	if (skb == ctx->skb && skb_is_gso(skb))
		segs = skb_gso_segment(skb, netif_skb_features(skb) & ~NETIF_F_GSO_MASK);
	if (IS_ERR_OR_NULL(segs)) {
		sch_bpf_drop(q, skb, QDISC_DROP_SEGMENT);
		return segs == ERR_PTR(-ENOMEM) ? -ENOMEM : -EINVAL;
	}

	/* Cutting uses the end of the control block for itself. */
	for (; (seg = *last); last = &seg->next) {
		*tc_skb_cb(seg) = cb;
		qdisc_skb_cb(seg)->pkt_len = seg->len;
		qdisc_skb_cb(seg)->pkt_segs = 1;
		qdisc_calculate_pkt_len(seg, qdisc_root_bh(ctx->qdisc));
	}
	/* Before the segments of a packet that this one is a segment of. */
	*last = q->run.segments;
	q->run.segments = segs;
	q->run.state |= SCH_BPF_RUN_AGAIN;
	/* Its address may be that of another packet soon. */
	q->run.ctx.skb = NULL;
	if (segs == skb) {	/* a list of packets that came as one: it was the head */
		consume_skb(skb);
	} else {		/* the core traces it when the run is over */
		tcf_set_drop_reason(skb, SKB_CONSUMED);
		__qdisc_drop(skb, q->run.to_free);
	}
	return 0;
}

/**
 * bpf_qdisc_take() - take the first packet out of a map and own it
 * @ctx: context of the program
 * @map__packet_map: an ordered map of packets
 *
 * Context: qdisc programs, under the qdisc's root lock, bottom halves off.
 * Return: the oldest packet of the lowest key; NULL if this qdisc keeps none in
 * the map.
 */
__bpf_kfunc struct sk_buff *bpf_qdisc_take(struct sch_bpf_ctx *ctx, void *map__packet_map)
{
	struct sch_bpf_data *q = sch_bpf_data(ctx);

	return sch_bpf_taken(q, bpf_rbtree_pop(map__packet_map, &q->owner));
}

/**
 * bpf_qdisc_take_until() - take the first packet up to a key and own it
 * @ctx: context of the program; ctx->expire is set
 * @map__packet_map: an ordered map of packets
 * @key__mapkey: the highest key to take, as long as the map's keys
 *
 * Each call sets ctx->expire: to the lowest key if that is a u64 and higher, else to 0, also
 * if it returns a packet. bpf_qdisc_pop_until() sets it with -EAGAIN alone.
 *
 * Context: qdisc programs, under the qdisc's root lock, bottom halves off.
 * Return: the oldest packet of the lowest key; NULL if that key is higher, or if this
 * qdisc keeps no packet in the map.
 */
__bpf_kfunc struct sk_buff *bpf_qdisc_take_until(struct sch_bpf_ctx *ctx, void *map__packet_map,
						 const void *key__mapkey)
{
	struct sch_bpf_data *q = sch_bpf_data(ctx);

	ctx->expire = 0;
	return sch_bpf_taken(q, bpf_rbtree_pop_until(map__packet_map, &q->owner, key__mapkey,
						     &ctx->expire));
}

/**
 * bpf_qdisc_take_key() - take the oldest packet of one key and own it
 * @ctx: context of the program
 * @map__packet_map: an ordered map of packets
 * @key__mapkey: the key, as long as the map's keys
 *
 * Context: qdisc programs, under the qdisc's root lock, bottom halves off.
 * Return: the packet; NULL if this qdisc keeps none under the key.
 */
__bpf_kfunc struct sk_buff *bpf_qdisc_take_key(struct sch_bpf_ctx *ctx, void *map__packet_map,
					       const void *key__mapkey)
{
	struct sch_bpf_data *q = sch_bpf_data(ctx);

	return sch_bpf_taken(q, bpf_rbtree_pop_key(map__packet_map, &q->owner, key__mapkey));
}

/**
 * bpf_qdisc_take_youngest() - take the youngest packet of one key and own it
 * @ctx: context of the program
 * @map__packet_map: an ordered map of packets
 * @key__mapkey: the key, as long as the map's keys
 *
 * Context: qdisc programs, under the qdisc's root lock, bottom halves off.
 * Return: the packet; NULL if this qdisc keeps none under the key.
 */
__bpf_kfunc struct sk_buff *bpf_qdisc_take_youngest(struct sch_bpf_ctx *ctx,
						    void *map__packet_map,
						    const void *key__mapkey)
{
	struct sch_bpf_data *q = sch_bpf_data(ctx);

	return sch_bpf_taken(q, bpf_rbtree_pop_key_youngest(map__packet_map, &q->owner,
							    key__mapkey));
}

/**
 * bpf_qdisc_take_from() - take the first packet from a key on and own it
 * @ctx: context of the program
 * @map__packet_map: an ordered map of packets
 * @key__mapkey: the lowest key wanted, as long as the map's keys
 *
 * Context: qdisc programs, under the qdisc's root lock, bottom halves off.
 * Return: the oldest packet of the lowest key that is not below the one wanted; NULL
 * if this qdisc keeps none there.
 */
__bpf_kfunc struct sk_buff *bpf_qdisc_take_from(struct sch_bpf_ctx *ctx, void *map__packet_map,
						const void *key__mapkey)
{
	struct sch_bpf_data *q = sch_bpf_data(ctx);

	return sch_bpf_taken(q, bpf_rbtree_pop_from(map__packet_map, &q->owner, key__mapkey));
}

/**
 * bpf_qdisc_take_last() - take the last packet out of a map and own it
 * @ctx: context of the program
 * @map__packet_map: an ordered map of packets
 *
 * For a policy that makes room at the far end of its queue.
 *
 * Context: qdisc programs, under the qdisc's root lock, bottom halves off.
 * Return: the youngest packet of the highest key; NULL if this qdisc keeps none in
 * the map.
 */
__bpf_kfunc struct sk_buff *bpf_qdisc_take_last(struct sch_bpf_ctx *ctx, void *map__packet_map)
{
	struct sch_bpf_data *q = sch_bpf_data(ctx);

	return sch_bpf_taken(q, bpf_rbtree_pop_last(map__packet_map, &q->owner));
}

/**
 * bpf_qdisc_deliver_skb() - make an owned packet the one that leaves the qdisc
 * @skb: an owned packet; it is given away
 * @ctx: context of the program
 *
 * Context: dequeue programs, under the qdisc's root lock, bottom halves off.
 * Return: 0; -EALREADY, with the packet dropped and counted, if this run has
 * delivered one before.
 */
__bpf_kfunc int bpf_qdisc_deliver_skb(struct sk_buff *skb, struct sch_bpf_ctx *ctx)
{
	struct sch_bpf_data *q = sch_bpf_data(ctx);

	if (unlikely(q->run.ctx.skb)) {
		sch_bpf_drop(q, skb, QDISC_DROP_DELIVERED_TWICE);
		return -EALREADY;
	}
	sch_bpf_count_others(&q->run, 1, qdisc_pkt_len(skb));
	q->run.ctx.skb = skb;
	return 0;
}

/**
 * bpf_qdisc_pop() - take the first packet out of a map and deliver it
 * @ctx: context of the program
 * @map__packet_map: an ordered map of packets
 *
 * Context: dequeue programs, under the qdisc's root lock, bottom halves off.
 * Return: 0; -ENOENT if the map is empty; -EBUSY if another qdisc keeps packets in it;
 * -EALREADY, with nothing taken, if this run has delivered a packet before.
 */
__bpf_kfunc int bpf_qdisc_pop(struct sch_bpf_ctx *ctx, void *map__packet_map)
{
	struct sch_bpf_data *q = sch_bpf_data(ctx);

	if (unlikely(q->run.ctx.skb))
		return -EALREADY;
	return sch_bpf_popped(q, bpf_rbtree_pop(map__packet_map, &q->owner));
}

/**
 * bpf_qdisc_pop_until() - take and deliver the first packet up to a key
 * @ctx: context of the program
 * @map__packet_map: an ordered map of packets
 * @key__mapkey: the highest key to take, as long as the map's keys; ns
 *               CLOCK_MONOTONIC where the keys are departure times
 *
 * Context: dequeue programs, under the qdisc's root lock, bottom halves off.
 * Return: as bpf_qdisc_pop(); -EAGAIN if the first key is higher, which ctx->expire is
 * then set to (keys that are no u64: 0). Else ctx->expire stays as it is.
 */
__bpf_kfunc int bpf_qdisc_pop_until(struct sch_bpf_ctx *ctx, void *map__packet_map,
				    const void *key__mapkey)
{
	struct sch_bpf_data *q = sch_bpf_data(ctx);

	if (unlikely(q->run.ctx.skb))
		return -EALREADY;
	return sch_bpf_popped(q, bpf_rbtree_pop_until(map__packet_map, &q->owner, key__mapkey,
						      &ctx->expire));
}

/**
 * bpf_qdisc_pop_key() - take and deliver the oldest packet of one key
 * @ctx: context of the program
 * @map__packet_map: an ordered map of packets
 * @key__mapkey: the key, as long as the map's keys
 *
 * Context: dequeue programs, under the qdisc's root lock, bottom halves off.
 * Return: as bpf_qdisc_pop(); -ENOENT if there is no packet of the key.
 */
__bpf_kfunc int bpf_qdisc_pop_key(struct sch_bpf_ctx *ctx, void *map__packet_map,
				  const void *key__mapkey)
{
	struct sch_bpf_data *q = sch_bpf_data(ctx);

	if (unlikely(q->run.ctx.skb))
		return -EALREADY;
	return sch_bpf_popped(q, bpf_rbtree_pop_key(map__packet_map, &q->owner, key__mapkey));
}

/**
 * bpf_qdisc_pop_from() - take and deliver the first packet from a key on
 * @ctx: context of the program
 * @map__packet_map: an ordered map of packets
 * @key__mapkey: the lowest key wanted, as long as the map's keys
 *
 * Context: dequeue programs, under the qdisc's root lock, bottom halves off.
 * Return: as bpf_qdisc_pop(); -ENOENT if there is no packet of such a key.
 */
__bpf_kfunc int bpf_qdisc_pop_from(struct sch_bpf_ctx *ctx, void *map__packet_map,
				   const void *key__mapkey)
{
	struct sch_bpf_data *q = sch_bpf_data(ctx);

	if (unlikely(q->run.ctx.skb))
		return -EALREADY;
	return sch_bpf_popped(q, bpf_rbtree_pop_from(map__packet_map, &q->owner, key__mapkey));
}

/**
 * bpf_qdisc_pop_class() - take a packet from a class and deliver it
 * @ctx: context of the program
 * @classid: handle of the class
 *
 * Context: dequeue programs, under the qdisc's root lock, bottom halves off.
 * Return: 0; -ENOENT if the class has no packet, or does not exist; -EAGAIN if its
 * qdisc holds its packets back: that qdisc asks again itself; -EALREADY as
 * bpf_qdisc_pop().
 */
__bpf_kfunc int bpf_qdisc_pop_class(struct sch_bpf_ctx *ctx, u32 classid)
{
	struct sch_bpf_data *q = sch_bpf_data(ctx);
	struct sk_buff *skb;

	if (unlikely(q->run.ctx.skb))
		return -EALREADY;
	skb = sch_bpf_class_dequeue(q, classid);
	if (IS_ERR(skb))
		return PTR_ERR(skb);
	q->run.ctx.skb = skb;
	return 0;
}

/**
 * bpf_qdisc_class_head() - look at the next packet of a class
 * @ctx: context of the program
 * @classid: handle of the class
 *
 * Context: dequeue programs, under the qdisc's root lock, bottom halves off.
 * Return: its length in bytes, the packet that bpf_qdisc_pop_class() delivers next;
 * -ENOENT if the class has no packet, or does not exist; -EAGAIN if its qdisc holds its
 * packets back: that qdisc asks again itself.
 */
__bpf_kfunc int bpf_qdisc_class_head(struct sch_bpf_ctx *ctx, u32 classid)
{
	return sch_bpf_class_head(sch_bpf_data(ctx), classid);
}

/**
 * bpf_qdisc_class_len() - how many packets a class has
 * @ctx: context of the program
 * @classid: handle of the class
 *
 * Context: qdisc programs, under the qdisc's root lock, bottom halves off.
 * Return: packets, also those that its qdisc holds back; -ENOENT if there is no such
 * class.
 */
__bpf_kfunc int bpf_qdisc_class_len(struct sch_bpf_ctx *ctx, u32 classid)
{
	return sch_bpf_class_len(sch_bpf_data(ctx), classid);
}

/**
 * bpf_qdisc_load_bytes() - copy the first bytes of a packet that waits
 * @ctx: context of the program
 * @map__packet_map: an ordered map of packets
 * @value__mapelem: the value of one of its elements, as a walk or bpf_rbtree_map_first() gives it
 * @to: where to copy them
 * @to__sz: how many, bytes
 *
 * The packet stays where it is. The bytes begin where those of bpf_dynptr_from_skb() do. Once
 * the program has taken the packet and pushed one, the value may be that one's.
 *
 * Context: qdisc programs, under the qdisc's root lock, bottom halves off.
 * Return: how many bytes were copied, fewer than @to__sz if the packet is shorter, or if the rest
 * is in memory of a device; -ENOENT if the element's packet has been taken out; -EBUSY if
 * another qdisc keeps packets in the map.
 */
__bpf_kfunc int bpf_qdisc_load_bytes(struct sch_bpf_ctx *ctx, void *map__packet_map,
				     void *value__mapelem, void *to, u32 to__sz)
{
	struct sch_bpf_data *q = sch_bpf_data(ctx);
	struct sk_buff *skb;
	int len;

	skb = bpf_rbtree_peek(map__packet_map, &q->owner, value__mapelem);
	if (IS_ERR_OR_NULL(skb))
		return skb ? PTR_ERR(skb) : -ENOENT;
	len = min(to__sz, skb_frags_readable(skb) ? skb->len : skb_headlen(skb));
	return skb_copy_bits(skb, 0, to, len) ?: len;
}

/**
 * bpf_qdisc_clone() - make another packet of the same bytes
 * @ctx: context of the program
 * @skb: the packet
 *
 * It has the length, mark, priority, time stamp and note of the packet, and no socket.
 *
 * Context: qdisc programs, under the qdisc's root lock, bottom halves off.
 * Return: a packet that the program owns, or NULL without memory.
 */
__bpf_kfunc struct sk_buff *bpf_qdisc_clone(struct sch_bpf_ctx *ctx, struct sk_buff *skb)
{
	return skb_clone(skb, GFP_ATOMIC);
}

/**
 * bpf_qdisc_orphan() - let the sender of a packet go on as if the packet had been sent
 * @ctx: context of the program
 * @skb: the packet
 *
 * A packet that waits takes room in its socket's send buffer, and TCP lets few of them wait
 * (small queues). That keeps a queue short; where the wait stands for the distance to the
 * receiver, as with netem, call this. skb->sk stays.
 *
 * Context: qdisc programs, under the qdisc's root lock, bottom halves off.
 * Return: true if this call let the sender go on; false where there is nothing to let go of,
 * after a call before, for a packet without a socket, of a socket that is closed, and for a
 * pure ACK; and false for a packet of a ring or AF_XDP, or that the device is to encrypt, which
 * goes on taking room.
 */
__bpf_kfunc bool bpf_qdisc_orphan(struct sch_bpf_ctx *ctx, struct sk_buff *skb)
{
	/* As skb_orphan_partial(), which lets go of the socket where it cannot keep it: the
	 * program may have read skb->sk, and may go on to use it.
	 */
	if (skb->destructor != sock_wfree &&
	    !(IS_ENABLED(CONFIG_INET) && skb->destructor == tcp_wfree))
		return false;
	return !skb_is_tcp_pure_ack(skb) && !skb_is_decrypted(skb) &&
	       skb_set_owner_sk_safe(skb, skb->sk);
}

/**
 * bpf_qdisc_ecn_mark() - mark a packet: congestion experienced
 * @ctx: context of the program
 * @skb: the packet; of a GSO packet every segment will be marked
 *
 * Context: qdisc programs, under the qdisc's root lock, bottom halves off.
 * Return: true if the packet carries the mark now, false if its transport does
 * not take part in ECN and it should be dropped instead.
 */
__bpf_kfunc bool bpf_qdisc_ecn_mark(struct sch_bpf_ctx *ctx, struct sk_buff *skb)
{
	return INET_ECN_set_ce(skb);
}

/**
 * bpf_qdisc_set_queue() - choose the tx queue of a packet
 * @ctx: context of the program
 * @skb: the packet
 * @queue: index of a tx queue of the device
 *
 * Context: qdisc programs, under the qdisc's root lock, bottom halves off.
 * Return: 0; -EINVAL if the device has no such queue; -EOPNOTSUPP if the qdisc, or the
 * one at the root above it, belongs to one tx queue.
 */
__bpf_kfunc int bpf_qdisc_set_queue(struct sch_bpf_ctx *ctx, struct sk_buff *skb, u32 queue)
{
	return sch_bpf_set_queue(ctx->qdisc, skb, queue);
}

/* Read a time stamp as sch_fq does: a program of tc writes a stamp of CLOCK_MONOTONIC
 * and no type, which then means CLOCK_REALTIME. No clock of the day reads so little.
 */
static s64 sch_bpf_tstamp_to_mono(struct sk_buff *skb)
{
	if (skb->tstamp_type == SKB_CLOCK_MONOTONIC)
		return skb->tstamp;
	if (skb->tstamp_type == SKB_CLOCK_TAI)
		return ktime_sub(skb->tstamp, ktime_mono_to_any(0, TK_OFFS_TAI));
	if (skb->tstamp > NSEC_PER_SEC * TIME_UPTIME_SEC_MAX)
		return ktime_sub(skb->tstamp, ktime_mono_to_real(0));
	skb->tstamp_type = SKB_CLOCK_MONOTONIC;
	return skb->tstamp;
}

/**
 * bpf_qdisc_departure() - when a packet asks to leave
 * @ctx: context of the program
 * @skb: the packet
 *
 * A stamp beyond the qdisc's horizon counts as one at the horizon, because any user can
 * ask for any time (SO_TXTIME), and one packet must not hold a queue up for hours. The
 * stamp is set so, for the devices below that read it, and gets its clock if it has none.
 *
 * Context: qdisc programs.
 * Return: skb->tstamp in ns CLOCK_MONOTONIC, whatever clock the stamp is in, at most the
 * present time and the horizon; the present time for a packet without a stamp.
 */
__bpf_kfunc u64 bpf_qdisc_departure(struct sch_bpf_ctx *ctx, struct sk_buff *skb)
{
	struct sch_bpf_data *q = sch_bpf_data(ctx);
	s64 when;

	if (!skb->tstamp)
		return ktime_get_ns();
	when = sch_bpf_tstamp_to_mono(skb);
	/* The horizon moves on: what is before an earlier one is before the present one. */
	if (unlikely(when > q->horizon_was)) {
		q->horizon_was = ktime_get_ns() + q->horizon;
		if (when > q->horizon_was) {
			skb->tstamp -= when - q->horizon_was;
			when = q->horizon_was;
		}
	}
	return max(when, 0);
}

/**
 * bpf_qdisc_set_departure() - stamp a packet with the time at which it is to leave
 * @ctx: context of the program
 * @skb: the packet
 * @when: ns CLOCK_MONOTONIC; 0 removes the stamp
 *
 * For a qdisc below, or a NIC, that sends by time stamps. The stamp is in CLOCK_TAI and
 * says so, because that is the clock of etf and of NICs, which read nothing but the
 * number; whoever reads the clock as well, fq and bpf_qdisc_departure(), converts it. An
 * assignment to skb->tstamp would leave the clock as it was.
 *
 * Context: qdisc programs.
 */
__bpf_kfunc void bpf_qdisc_set_departure(struct sch_bpf_ctx *ctx, struct sk_buff *skb, u64 when)
{
	s64 ahead = when ? ktime_mono_to_any(0, TK_OFFS_TAI) : 0;

	skb_set_delivery_time(skb, min_t(u64, when, KTIME_MAX - ahead) + ahead, SKB_CLOCK_TAI);
}

/**
 * bpf_qdisc_bypass() - let packets pass an empty queue by
 * @ctx: context of the program
 *
 * From now on a packet that finds the queue empty goes to the device at once, and
 * no program sees it: right for a policy that would store such a packet and
 * deliver it next. It ends with a change of the qdisc, a reset, or a filter on it
 * (sch_bpf_filters_changed()). A qdisc that is not the root of a device or of a tx
 * queue never does it.
 *
 * Context: qdisc programs, under the qdisc's root lock, bottom halves off.
 */
__bpf_kfunc void bpf_qdisc_bypass(struct sch_bpf_ctx *ctx)
{
	struct sch_bpf_data *q = sch_bpf_data(ctx);

	if (!rcu_access_pointer(q->filter_list))
		sch_bpf_qdisc(q)->flags |= TCQ_F_CAN_BYPASS;
}

__bpf_kfunc_end_defs();

BTF_KFUNCS_START(sch_bpf_kfunc_ids)
BTF_ID_FLAGS(func, bpf_qdisc_push_skb, KF_RELEASE)
BTF_ID_FLAGS(func, bpf_qdisc_push_front_skb, KF_RELEASE)
BTF_ID_FLAGS(func, bpf_qdisc_drop_skb, KF_RELEASE)
BTF_ID_FLAGS(func, bpf_qdisc_lose_skb, KF_RELEASE)
BTF_ID_FLAGS(func, bpf_qdisc_pass_skb, KF_RELEASE)
BTF_ID_FLAGS(func, bpf_qdisc_steal_skb, KF_RELEASE)
BTF_ID_FLAGS(func, bpf_qdisc_segment_skb, KF_RELEASE)
BTF_ID_FLAGS(func, bpf_qdisc_take, KF_ACQUIRE | KF_RET_NULL)
BTF_ID_FLAGS(func, bpf_qdisc_take_until, KF_ACQUIRE | KF_RET_NULL)
BTF_ID_FLAGS(func, bpf_qdisc_take_key, KF_ACQUIRE | KF_RET_NULL)
BTF_ID_FLAGS(func, bpf_qdisc_take_youngest, KF_ACQUIRE | KF_RET_NULL)
BTF_ID_FLAGS(func, bpf_qdisc_take_from, KF_ACQUIRE | KF_RET_NULL)
BTF_ID_FLAGS(func, bpf_qdisc_take_last, KF_ACQUIRE | KF_RET_NULL)
BTF_ID_FLAGS(func, bpf_qdisc_deliver_skb, KF_RELEASE)
BTF_ID_FLAGS(func, bpf_qdisc_pop)
BTF_ID_FLAGS(func, bpf_qdisc_pop_until)
BTF_ID_FLAGS(func, bpf_qdisc_pop_key)
BTF_ID_FLAGS(func, bpf_qdisc_pop_from)
BTF_ID_FLAGS(func, bpf_qdisc_pop_class)
BTF_ID_FLAGS(func, bpf_qdisc_class_head)
BTF_ID_FLAGS(func, bpf_qdisc_class_len)
BTF_ID_FLAGS(func, bpf_qdisc_load_bytes)
BTF_ID_FLAGS(func, bpf_qdisc_clone, KF_ACQUIRE | KF_RET_NULL)
BTF_ID_FLAGS(func, bpf_qdisc_orphan)
BTF_ID_FLAGS(func, bpf_qdisc_ecn_mark)
BTF_ID_FLAGS(func, bpf_qdisc_set_queue)
BTF_ID_FLAGS(func, bpf_qdisc_departure)
BTF_ID_FLAGS(func, bpf_qdisc_set_departure)
BTF_ID_FLAGS(func, bpf_qdisc_bypass)
BTF_ID_FLAGS(func, bpf_skb_tc_classify)
BTF_ID_FLAGS(func, bpf_skb_get_hash)
BTF_ID_FLAGS(func, bpf_dynptr_from_skb)
BTF_KFUNCS_END(sch_bpf_kfunc_ids)

BTF_SET_START(sch_bpf_enqueue_kfunc_ids)
BTF_ID(func, bpf_qdisc_pass_skb)
BTF_ID(func, bpf_qdisc_steal_skb)
BTF_ID(func, bpf_qdisc_segment_skb)
BTF_ID(func, bpf_skb_tc_classify)
BTF_SET_END(sch_bpf_enqueue_kfunc_ids)

BTF_SET_START(sch_bpf_dequeue_kfunc_ids)
BTF_ID(func, bpf_qdisc_deliver_skb)
BTF_ID(func, bpf_qdisc_pop)
BTF_ID(func, bpf_qdisc_pop_until)
BTF_ID(func, bpf_qdisc_pop_key)
BTF_ID(func, bpf_qdisc_pop_from)
BTF_ID(func, bpf_qdisc_pop_class)
BTF_ID(func, bpf_qdisc_class_head)
BTF_SET_END(sch_bpf_dequeue_kfunc_ids)

BTF_ID_LIST_SINGLE(sch_bpf_pop_class_id, func, bpf_qdisc_pop_class)

/**
 * sch_bpf_takes_from_classes() - can a program take packets from classes?
 * @dequeue: a dequeue program
 *
 * Context: any.
 * Return: true if it calls bpf_qdisc_pop_class().
 */
bool sch_bpf_takes_from_classes(const struct bpf_prog *dequeue)
{
	s32 imm = bpf_jit_supports_far_kfunc_call() ? sch_bpf_pop_class_id[0] :
						      BPF_CALL_IMM(bpf_qdisc_pop_class);
	u32 i;

	/* Those of subprograms are in it, too. */
	for (i = 0; i < dequeue->len; i++)
		if (bpf_pseudo_kfunc_call(&dequeue->insnsi[i]) && dequeue->insnsi[i].imm == imm)
			return true;
	return false;
}

static int sch_bpf_kfunc_filter(const struct bpf_prog *prog, u32 kfunc_id)
{
	const struct btf_id_set *others = prog->expected_attach_type == BPF_QDISC_ENQUEUE ?
					  &sch_bpf_dequeue_kfunc_ids : &sch_bpf_enqueue_kfunc_ids;

	return btf_id_set_contains(others, kfunc_id) ? -EACCES : 0;
}

static const struct btf_kfunc_id_set sch_bpf_kfunc_set = {
	.owner = THIS_MODULE,
	.set = &sch_bpf_kfunc_ids,
	.filter = sch_bpf_kfunc_filter,
};

static int __init sch_bpf_kfunc_init(void)
{
	return register_btf_kfunc_id_set(BPF_PROG_TYPE_QDISC, &sch_bpf_kfunc_set);
}
late_initcall(sch_bpf_kfunc_init);
