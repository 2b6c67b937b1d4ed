/* SPDX-License-Identifier: (LGPL-2.1 OR BSD-2-Clause) */
/*
 * What a program of type BPF_PROG_TYPE_QDISC may call: the interface of sch_bpf
 * for authors of queueing policies. Include it after vmlinux.h and
 * <bpf/bpf_helpers.h>. A map argument is the address of an ordered map
 * (BPF_MAP_TYPE_RBTREE) whose value holds one `struct sk_buff __kptr *`, as struct
 * pkt does, or such a map that was looked up in a map of maps; a key argument is the
 * address of a key of that map's key size.
 *
 * What a function did with a packet is the verdict; what a program returns means
 * nothing. An enqueue program starts by owning ctx->skb, and every packet that a
 * program owns it gives to exactly one of these:
 *
 *	bpf_qdisc_push()	stores it under a key, behind others
 *	bpf_qdisc_push_front()	stores it under a key, before others
 *	bpf_qdisc_drop()	drops and counts it
 *	bpf_qdisc_lose()	does the same, and does not tell its sender
 *	bpf_qdisc_pass()	passes it to the qdisc of a class	(enqueue)
 *	bpf_qdisc_steal()	ends it, as a filter's action took it	(enqueue)
 *	bpf_qdisc_segment()	cuts a GSO packet: each segment comes	(enqueue)
 *	bpf_qdisc_deliver()	sends it				(dequeue)
 *
 * The verifier refuses a program that gives a packet to none of them, or to two. The
 * functions count what was stored, taken, passed and dropped; a program never does.
 *
 * Functions return 0 or a negative error. A packet that was given to a function is
 * given away also if that function fails: it has then been dropped and counted.
 *
 * The context, struct sch_bpf_ctx, is to read; a dequeue program writes expire, too:
 *
 *	skb		the packet that has come, which the program owns	(enqueue)
 *			the packet that was delivered, to look at and to
 *			mark; NULL before					(dequeue)
 *	qdisc		the qdisc: q.qlen, qstats.backlog, limit, handle, ...
 *	expire		when the program is to be asked again if it delivers
 *			nothing, ns CLOCK_MONOTONIC; 0, as it begins: no time
 *			is known						(dequeue)
 *	classid		the class that bpf_skb_tc_classify() has found, or 0	(enqueue)
 *	queue		the tx queue that the qdisc belongs to
 *	generation	another number after each reset, flush and change of
 *			programs, and when an inner map is gone that held packets;
 *			never 0, never that of another qdisc
 *
 * A tutorial, idioms, and what the verifier's refusals mean are in Documentation/networking/,
 * sch_bpf_tutorial.rst, sch_bpf_idioms.rst and sch_bpf_refused.rst (of the package
 * libbpf-qdisc-dev in /usr/share/doc).
 */
#ifndef __BPF_QDISC_H
#define __BPF_QDISC_H

/* Macros of the uapi headers that policies need: BTF, and so vmlinux.h, has no macros. */
#ifndef ETH_P_IP
#define ETH_P_IP	0x0800
#endif
#ifndef ETH_P_ARP
#define ETH_P_ARP	0x0806
#endif
#ifndef ETH_P_8021Q
#define ETH_P_8021Q	0x8100
#endif
#ifndef ETH_P_IPV6
#define ETH_P_IPV6	0x86DD
#endif
#ifndef ETH_P_MPLS_UC
#define ETH_P_MPLS_UC	0x8847
#endif
#ifndef ETH_P_MPLS_MC
#define ETH_P_MPLS_MC	0x8848
#endif
#ifndef ETH_P_PPP_SES
#define ETH_P_PPP_SES	0x8864
#endif
#ifndef ETH_P_8021AD
#define ETH_P_8021AD	0x88A8
#endif
#ifndef ETH_HLEN
#define ETH_HLEN	14
#endif
#ifndef VLAN_HLEN
#define VLAN_HLEN	4
#endif

/* What bpf_skb_tc_classify() returns */
#ifndef TC_ACT_UNSPEC
#define TC_ACT_UNSPEC	(-1)
#endif
#ifndef TC_ACT_OK
#define TC_ACT_OK	0
#endif
#ifndef TC_ACT_RECLASSIFY
#define TC_ACT_RECLASSIFY	1
#endif
#ifndef TC_ACT_SHOT
#define TC_ACT_SHOT	2
#endif
#ifndef TC_ACT_PIPE
#define TC_ACT_PIPE	3
#endif
#ifndef TC_ACT_STOLEN
#define TC_ACT_STOLEN	4
#endif
#ifndef TC_ACT_QUEUED
#define TC_ACT_QUEUED	5
#endif
#ifndef TC_ACT_REPEAT
#define TC_ACT_REPEAT	6
#endif
#ifndef TC_ACT_REDIRECT
#define TC_ACT_REDIRECT	7
#endif
#ifndef TC_ACT_TRAP
#define TC_ACT_TRAP	8
#endif

/* Errors that have the same number on every architecture. EALREADY, ENOBUFS and EOPNOTSUPP,
 * which functions return, too, have another one on some: compare with 0, or define them as
 * the kernel has them.
 */
#ifndef ENOENT
#define ENOENT		2
#endif
#ifndef EAGAIN
#define EAGAIN		11
#endif
#ifndef ENOMEM
#define ENOMEM		12
#endif
#ifndef EBUSY
#define EBUSY		16
#endif
#ifndef ENODEV
#define ENODEV		19
#endif
#ifndef EINVAL
#define EINVAL		22
#endif
#ifndef ENOSPC
#define ENOSPC		28
#endif

#ifndef NSEC_PER_USEC
#define NSEC_PER_USEC	1000ULL
#endif
#ifndef NSEC_PER_MSEC
#define NSEC_PER_MSEC	1000000ULL
#endif
#ifndef NSEC_PER_SEC
#define NSEC_PER_SEC	1000000000ULL
#endif

/* Parameters are the global variables of the section .data.param, and the maps with
 * BPF_QDISC_TABLE: `tc qdisc ... set NAME=VALUE` sets them and `tc qdisc show` shows them.
 * Statistics are the global variables of the section .data.stats, which are no parameters:
 * `tc -s qdisc show` shows them, by name.
 *
 *	__u64 dropped SEC(".data.stats");
 *
 *	dropped++;
 *
 * Both programs of a qdisc run under its lock, so that a plain addition counts right. A
 * variable is not static, or clang leaves out what nobody reads.
 *
 * bpf_mq makes an instance for each tx queue. Programs that name a map of packets, or have no
 * array of maps, are loaded once for each, with maps and variables of their own; one for all are
 * parameters, what is pinned by name, and what is declared as shared: the global variables
 * of the section .data.shared, and the maps with BPF_QDISC_SHARED. An object whose programs
 * find their packets by ctx->queue (BPF_QDISC_QUEUES()) is loaded once, and shares all.
 * Each instance runs under its own lock: what is shared takes __sync_fetch_and_add() and
 * the like.
 */

/**
 * BPF_QDISC_RANGE() - declare the range of a parameter
 * @min: the lowest value, as it would be set: a number, also with a unit
 * @max: the highest, likewise
 *
 * For an integer in the section .data.param, each element of an array there, or each
 * value of a table: `tc qdisc ... set NAME=VALUE` refuses a value outside, and says the
 * range. It is an attribute of the variable or map:
 *
 *	__u64 horizon SEC(".data.param") BPF_QDISC_RANGE(1ms, 10s) = 2 * NSEC_PER_SEC;
 *	__s32 overhead SEC(".data.param") BPF_QDISC_RANGE(-64, 256) = 24;
 *
 * The two may have different units of one kind. tc takes and shows values in units of that kind,
 * and stores those of a command one after the other, in its order. What the variable begins with,
 * 0 where nothing is said, is in the range, too.
 */
#define BPF_QDISC_RANGE(min, max) __attribute__((btf_decl_tag(__BPF_QDISC_RANGE(min, max))))
#define __BPF_QDISC_RANGE(min, max) "range:" #min ":" #max

/**
 * define BPF_QDISC_TABLE - declare that a map is a parameter
 *
 * It is an attribute of a map of type hash or array, pinned or not. `tc qdisc ... set
 * NAME[KEY]=VALUE` sets an element:
 *
 *	struct {
 *		__uint(type, BPF_MAP_TYPE_HASH);
 *		__type(key, bpf_ifindex);
 *		__type(value, __u64);
 *		__uint(max_entries, 256);
 *	} rate SEC(".maps") BPF_QDISC_TABLE BPF_QDISC_RANGE(0, 100gbit);
 *
 * Keys and values are integers, texts (arrays of char), addresses (__be32) or devices
 * (bpf_ifindex); values also arrays of these. The kernel keeps 15 characters of a map's
 * name, and the name of no other map of the object may begin with the same.
 */
#define BPF_QDISC_TABLE __attribute__((btf_decl_tag("table")))

/**
 * define BPF_QDISC_SHARED - declare that a map is one for all tx queues
 *
 * It is an attribute of a map that holds no packets:
 *
 *	struct {
 *		__uint(type, BPF_MAP_TYPE_LRU_HASH);
 *		...
 *	} subscribers SEC(".maps") BPF_QDISC_SHARED;
 *
 * Of variables the section says so:
 *
 *	__u64 link_free SEC(".data.shared");
 *
 * A change with a new object takes the map over; the variable begins anew.
 */
#define BPF_QDISC_SHARED __attribute__((btf_decl_tag("shared")))

/* The index of a network device, as a parameter or as the key of a table: tc takes and
 * shows its name.
 */
typedef __u32 bpf_ifindex;

/* The value of a map of packets. */
struct pkt {
	struct sk_buff __kptr *skb;
};

/* The members of a map of packets. As key_size and max_entries libbpf takes the length of any
 * array. Its type makes clang describe the key's and struct pkt where only an inner map names
 * them.
 */
#define __BPF_QDISC_QUEUE(key_type, packets)		\
	__uint(type, BPF_MAP_TYPE_RBTREE);		\
	key_type (*key_size)[sizeof(key_type)];		\
	__type(key, key_type);				\
	__type(value, struct pkt);			\
	struct pkt (*max_entries)[packets]

/**
 * BPF_QDISC_QUEUE() - define a map of packets
 * @name: the map
 * @key_type: type of its keys
 * @packets: how many it holds at most
 */
#define BPF_QDISC_QUEUE(name, key_type, packets)	\
	struct {					\
		__BPF_QDISC_QUEUE(key_type, packets);	\
	} name SEC(".maps")

/**
 * BPF_QDISC_QUEUES() - define an array of maps of packets
 * @name: the array; libbpf, and so tc, fills it with as many maps when it creates it
 * @key_type: type of their keys
 * @packets: how many each holds at most
 * @count: how many maps; 0: one for each tx queue, found by ctx->queue
 *
 * With 0 tc, which knows the device, sets the number when it loads the object. Another loader
 * calls bpf_object__set_tx_queues() before, or the kernel refuses the array (-EINVAL).
 */
#define BPF_QDISC_QUEUES(name, key_type, packets, count)		\
	struct {							\
		__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);		\
		__type(key, __u32);					\
		__uint(max_entries, count);				\
		__array(values, struct {				\
			__BPF_QDISC_QUEUE(key_type, packets);		\
		});							\
	} name SEC(".maps")

/**
 * bpf_qdisc_pkt_len() - the length of a packet on the wire
 * @skb: the packet
 *
 * Returns bytes, with the headers that every segment of a GSO packet will get,
 * without preamble, FCS and gap: what the qdisc's backlog counts.
 */
static __always_inline __u32 bpf_qdisc_pkt_len(const struct sk_buff *skb)
{
	return ((struct qdisc_skb_cb *)skb->cb)->pkt_len;
}

/**
 * bpf_qdisc_network_offset() - where the network header of a packet begins
 * @skb: the packet
 *
 * Returns the offset in what bpf_dynptr_from_skb() gives, bytes: of the IP header, whatever is
 * in front of it, as the sender has set it.
 */
static __always_inline __u32 bpf_qdisc_network_offset(const struct sk_buff *skb)
{
	long headroom = skb->data - skb->head;

	barrier_var(headroom);		/* the verifier wants it to have 64 bits */
	return skb->network_header - headroom;
}

/**
 * bpf_qdisc_pkt_segs() - how many packets a packet is on the wire
 * @skb: the packet
 *
 * Returns the number of segments of a GSO packet, 1 for any other one.
 */
static __always_inline __u32 bpf_qdisc_pkt_segs(const struct sk_buff *skb)
{
	return ((struct qdisc_skb_cb *)skb->cb)->pkt_segs;
}

/**
 * bpf_qdisc_cb() - what a policy may note on a packet while it has it
 * @skb: the packet
 *
 * Returns the address of 20 bytes, aligned for __u64, which mean nothing before
 * the first note.
 */
static __always_inline void *bpf_qdisc_cb(struct sk_buff *skb)
{
	return ((struct qdisc_skb_cb *)skb->cb)->data;
}

/**
 * bpf_qdisc_note() - the note on a packet, as a type of the policy's
 * @skb: the packet
 * @type: a type of at most 20 bytes
 *
 * Returns bpf_qdisc_cb() as a pointer to @type; of a packet that waits in a map, to read only.
 */
#define bpf_qdisc_note(skb, type)							\
	({										\
		_Static_assert(sizeof(type) <= sizeof(((struct qdisc_skb_cb *)0)->data),	\
			       "a note on a packet has at most 20 bytes");		\
		(type *)bpf_qdisc_cb(skb);						\
	})

extern int bpf_qdisc_push_skb(struct sk_buff *skb, struct sch_bpf_ctx *ctx, void *map,
			      const void *key) __ksym;
extern int bpf_qdisc_push_front_skb(struct sk_buff *skb, struct sch_bpf_ctx *ctx, void *map,
				    const void *key) __ksym;
extern int bpf_qdisc_drop_skb(struct sk_buff *skb, struct sch_bpf_ctx *ctx, int reason) __ksym;
extern int bpf_qdisc_lose_skb(struct sk_buff *skb, struct sch_bpf_ctx *ctx) __ksym;
extern int bpf_qdisc_pass_skb(struct sk_buff *skb, struct sch_bpf_ctx *ctx, __u32 classid) __ksym;
extern int bpf_qdisc_steal_skb(struct sk_buff *skb, struct sch_bpf_ctx *ctx) __ksym;
extern int bpf_qdisc_segment_skb(struct sk_buff *skb, struct sch_bpf_ctx *ctx) __ksym;
extern int bpf_qdisc_deliver_skb(struct sk_buff *skb, struct sch_bpf_ctx *ctx) __ksym;

/**
 * bpf_qdisc_push() - store a packet behind all others with an equal key
 * @ctx: context of the program
 * @map: where to
 * @key: under which key
 * @skb: an owned packet; it is given away
 *
 * Returns 0; or, with the packet dropped and counted, -ENOSPC if the map or the
 * qdisc's limit is full, -EBUSY if another qdisc keeps packets in the map, -ENOMEM without
 * memory for an element. What was taken can be put back beyond the limit, which may have
 * been lowered.
 */
static __always_inline int bpf_qdisc_push(struct sch_bpf_ctx *ctx, void *map, const void *key,
					  struct sk_buff *skb)
{
	return bpf_qdisc_push_skb(skb, ctx, map, key);
}

/**
 * bpf_qdisc_push_front() - store a packet before all others with an equal key
 * @ctx: context of the program
 * @map: where to
 * @key: under which key
 * @skb: an owned packet; it is given away
 *
 * For a program that took a packet to look at it, and puts it back where it was.
 * Returns as bpf_qdisc_push().
 */
static __always_inline int bpf_qdisc_push_front(struct sch_bpf_ctx *ctx, void *map,
						const void *key, struct sk_buff *skb)
{
	return bpf_qdisc_push_front_skb(skb, ctx, map, key);
}

/**
 * bpf_qdisc_drop() - drop a packet and count it
 * @ctx: context of the program
 * @skb: an owned packet; it is given away
 * @reason: enum qdisc_drop_reason, shown by the tracepoint qdisc:qdisc_drop; 0 for
 *          the qdisc's ordinary one
 *
 * The sender of the packet that came is told, if it was dropped in the run for which it came:
 * TCP slows down; a packet socket, and a UDP or raw one with IP_RECVERR, get ENOBUFS. Returns 0.
 */
static __always_inline int bpf_qdisc_drop(struct sch_bpf_ctx *ctx, struct sk_buff *skb, int reason)
{
	return bpf_qdisc_drop_skb(skb, ctx, reason);
}

/**
 * bpf_qdisc_lose() - drop a packet and count it, and do not tell its sender
 * @ctx: context of the program
 * @skb: an owned packet; it is given away
 *
 * For a policy that stands for a network that loses packets, and for what a filter drops. The
 * tracepoint shows the qdisc's ordinary reason, QDISC_DROP_GENERIC. Returns 0.
 */
static __always_inline int bpf_qdisc_lose(struct sch_bpf_ctx *ctx, struct sk_buff *skb)
{
	return bpf_qdisc_lose_skb(skb, ctx);
}

/**
 * bpf_qdisc_pass() - pass a packet to the qdisc of a class
 * @ctx: context of the program
 * @skb: an owned packet; it is given away
 * @classid: handle of the class; ctx->classid is what bpf_skb_tc_classify() found
 *
 * In enqueue programs. Returns 0; or, with the packet dropped and counted, -ENOENT
 * if there is no such class, -ENOBUFS if the qdisc of the class dropped it.
 */
static __always_inline int bpf_qdisc_pass(struct sch_bpf_ctx *ctx, struct sk_buff *skb,
					  __u32 classid)
{
	return bpf_qdisc_pass_skb(skb, ctx, classid);
}

/**
 * bpf_qdisc_steal() - end a packet that a filter's action has taken
 * @ctx: context of the program
 * @skb: an owned packet; it is given away
 *
 * In enqueue programs, where bpf_skb_tc_classify() returned TC_ACT_STOLEN, QUEUED or
 * TRAP. The packet is counted as stolen, not as dropped, and its sender is told that
 * it was sent. Returns 0.
 */
static __always_inline int bpf_qdisc_steal(struct sch_bpf_ctx *ctx, struct sk_buff *skb)
{
	return bpf_qdisc_steal_skb(skb, ctx);
}

/**
 * bpf_qdisc_segment() - cut the packet that came into its segments
 * @ctx: context of the program
 * @skb: ctx->skb, where bpf_qdisc_pkt_segs() says more than 1; it is given away
 *
 * In enqueue programs. A policy that paces at a low rate, or drops, decides so of each
 * packet on the wire: after this run the program runs for each segment, which is
 * ctx->skb then, in order. A segment has the mark, priority, time stamp and note of the packet.
 *
 *	if (bpf_qdisc_pkt_segs(skb) > 1)
 *		return bpf_qdisc_segment(ctx, skb);
 *
 * Returns 0; or, with the packet dropped and counted, -EINVAL if it is not the one that
 * came, or none that can be cut, and -ENOMEM without memory.
 */
static __always_inline int bpf_qdisc_segment(struct sch_bpf_ctx *ctx, struct sk_buff *skb)
{
	return bpf_qdisc_segment_skb(skb, ctx);
}

/**
 * bpf_qdisc_deliver() - make an owned packet the one that leaves the qdisc
 * @ctx: context of the program
 * @skb: an owned packet, from bpf_qdisc_take(); it is given away
 *
 * In dequeue programs, once a run. Returns 0; or, with the packet dropped and
 * counted, -EALREADY if this run has delivered one before.
 */
static __always_inline int bpf_qdisc_deliver(struct sch_bpf_ctx *ctx, struct sk_buff *skb)
{
	return bpf_qdisc_deliver_skb(skb, ctx);
}

/**
 * bpf_qdisc_take() - take the first packet out of a map and own it
 * @ctx: context of the program
 * @map: where from
 *
 * For programs that look at a packet before they deliver or drop it, and for
 * enqueue programs that make room. Returns the oldest packet of the lowest key,
 * or NULL if this qdisc holds no packet in @map.
 */
extern struct sk_buff *bpf_qdisc_take(struct sch_bpf_ctx *ctx, void *map) __ksym;

/**
 * bpf_qdisc_take_until() - take the first packet up to a key and own it
 * @ctx: context of the program
 * @map: where from
 * @key: the highest key to take
 *
 * Returns the oldest packet of the lowest key; NULL if that key is higher, or if this qdisc
 * holds no packet in @map. Each call sets ctx->expire, also one that returns a packet: to the
 * lowest key if that is higher than @key and a __u64, else to 0. (bpf_qdisc_pop_until() sets it
 * with -EAGAIN alone.) So a dequeue program that knows another time writes it after the call.
 */
extern struct sk_buff *bpf_qdisc_take_until(struct sch_bpf_ctx *ctx, void *map,
					    const void *key) __ksym;

/**
 * bpf_qdisc_load_bytes() - copy the first bytes of a packet that waits
 * @ctx: context of the program
 * @map: where it waits
 * @value: what the map holds of it: a struct pkt, as bpf_rbtree_map_first(), its variants or
 *	bpf_for_each_map_elem() give it
 * @to: where to copy the bytes
 * @size: how many
 *
 * The packet stays where it is. The bytes begin where those of bpf_dynptr_from_skb() do. Once
 * the program has taken the packet and pushed one, the value may be that one's.
 * Returns how many were copied, fewer than @size of a shorter packet, or if the rest is in memory
 * of a device; -ENOENT if the packet has been taken out, -EBUSY if another qdisc keeps packets
 * in the map.
 */
extern int bpf_qdisc_load_bytes(struct sch_bpf_ctx *ctx, void *map, void *value, void *to,
				__u32 size) __ksym;

/**
 * bpf_qdisc_take_key() - take the oldest packet of one key and own it
 * @ctx: context of the program
 * @map: where from
 * @key: under which key
 *
 * Returns the packet, or NULL if this qdisc holds none under the key.
 */
extern struct sk_buff *bpf_qdisc_take_key(struct sch_bpf_ctx *ctx, void *map,
					  const void *key) __ksym;

/**
 * bpf_qdisc_take_youngest() - take the youngest packet of one key and own it
 * @ctx: context of the program
 * @map: where from
 * @key: under which key
 *
 * For a tail drop. Returns as bpf_qdisc_take_key().
 */
extern struct sk_buff *bpf_qdisc_take_youngest(struct sch_bpf_ctx *ctx, void *map,
					       const void *key) __ksym;

/**
 * bpf_qdisc_take_from() - take the first packet from a key on and own it
 * @ctx: context of the program
 * @map: where from
 * @key: the lowest key wanted
 *
 * Where a key is a group and a number in it, this is the first packet of a group,
 * or of the next one: look with bpf_rbtree_map_lower_bound() first where it matters.
 * Returns the oldest packet of the lowest key that is not below @key, or NULL.
 */
extern struct sk_buff *bpf_qdisc_take_from(struct sch_bpf_ctx *ctx, void *map,
					   const void *key) __ksym;

/**
 * bpf_qdisc_take_last() - take the last packet out of a map and own it
 * @ctx: context of the program
 * @map: where from
 *
 * For policies that make room at the far end. Returns the youngest packet of the
 * highest key, or NULL if this qdisc holds no packet in @map.
 */
extern struct sk_buff *bpf_qdisc_take_last(struct sch_bpf_ctx *ctx, void *map) __ksym;

/**
 * bpf_qdisc_pop() - take the first packet out of a map and deliver it
 * @ctx: context of the program
 * @map: where from
 *
 * In dequeue programs. Returns 0; -ENOENT if there is none; -EBUSY if another qdisc
 * keeps packets in the map; -EALREADY if this run has delivered a packet before.
 * What was delivered, by this function or another one, is ctx->skb from then on, to
 * look at and to mark.
 */
extern int bpf_qdisc_pop(struct sch_bpf_ctx *ctx, void *map) __ksym;

/**
 * bpf_qdisc_pop_until() - take and deliver the first packet up to a key
 * @ctx: context of the program
 * @map: where from; its key is a time, __u64 ns CLOCK_MONOTONIC
 * @key: the highest key to take, now for a queue of departure times
 *
 * In dequeue programs. Returns as bpf_qdisc_pop(); -EAGAIN if the first key is higher
 * than @key. ctx->expire is then that key (0 if keys are no __u64), so that a program
 * that delivers nothing is asked again at that time; else it stays as it is.
 */
extern int bpf_qdisc_pop_until(struct sch_bpf_ctx *ctx, void *map, const void *key) __ksym;

/**
 * bpf_qdisc_pop_key() - take and deliver the oldest packet of one key
 * @ctx: context of the program
 * @map: where from
 * @key: under which key
 *
 * In dequeue programs. Returns as bpf_qdisc_pop().
 */
extern int bpf_qdisc_pop_key(struct sch_bpf_ctx *ctx, void *map, const void *key) __ksym;

/**
 * bpf_qdisc_pop_from() - take and deliver the first packet from a key on
 * @ctx: context of the program
 * @map: where from
 * @key: the lowest key wanted
 *
 * In dequeue programs. Returns as bpf_qdisc_pop().
 */
extern int bpf_qdisc_pop_from(struct sch_bpf_ctx *ctx, void *map, const void *key) __ksym;

/**
 * bpf_qdisc_pop_class() - take a packet from a class and deliver it
 * @ctx: context of the program
 * @classid: handle of the class
 *
 * In dequeue programs. Returns 0; -ENOENT if the class has no packet, or does not
 * exist; -EAGAIN if it has some, but holds them back now: it says itself when to ask
 * again; -EALREADY as bpf_qdisc_pop().
 */
extern int bpf_qdisc_pop_class(struct sch_bpf_ctx *ctx, __u32 classid) __ksym;

/**
 * bpf_qdisc_class_head() - look at the next packet of a class
 * @ctx: context of the program
 * @classid: handle of the class
 *
 * In dequeue programs, for rounds of fair queueing over classes. A program that has seen a
 * packet and leaves it is asked again at ctx->expire, or after 1 ms if it does not set that,
 * and is stuck then after its patience, as one that leaves packets in its maps: let the loop
 * go on until a class may send.
 *
 * Returns the length in bytes of the packet that bpf_qdisc_pop_class() delivers next, also if
 * the class gets a more urgent one before, or -ENOENT or -EAGAIN as that does.
 */
extern int bpf_qdisc_class_head(struct sch_bpf_ctx *ctx, __u32 classid) __ksym;

/**
 * bpf_qdisc_class_len() - how many packets a class has
 * @ctx: context of the program
 * @classid: handle of the class
 *
 * Returns packets, also those that its qdisc holds back; -ENOENT if there is no such class.
 */
extern int bpf_qdisc_class_len(struct sch_bpf_ctx *ctx, __u32 classid) __ksym;

/**
 * bpf_qdisc_clone() - make another packet of the same bytes
 * @ctx: context of the program
 * @skb: the packet
 *
 * It has the length, mark, priority, time stamp and note of the packet, and no socket. It is
 * to be given away like any other. If a clone of the packet that came stays, its sender is told
 * that it was sent.
 *
 * Returns a packet that the program owns, or NULL without memory.
 */
extern struct sk_buff *bpf_qdisc_clone(struct sch_bpf_ctx *ctx, struct sk_buff *skb) __ksym;

/**
 * bpf_qdisc_orphan() - let the sender of a packet go on as if the packet had been sent
 * @ctx: context of the program
 * @skb: the packet
 *
 * A packet that waits takes room in its socket's send buffer, and TCP lets few of them wait
 * (small queues). That keeps a queue short; where the wait stands for the distance to the
 * receiver, as with netem, call this when the packet comes. skb->sk stays.
 *
 * Returns true if this call let the sender go on. False where there is nothing to let go of: a
 * call before has done it, the packet has no socket, its socket is closed, or it is a pure ACK.
 * False also for a packet of a ring or AF_XDP, or that the device is to encrypt, which goes on
 * taking room.
 */
extern bool bpf_qdisc_orphan(struct sch_bpf_ctx *ctx, struct sk_buff *skb) __ksym;

/**
 * bpf_qdisc_ecn_mark() - mark a packet: congestion experienced
 * @ctx: context of the program
 * @skb: the packet; of a GSO packet every segment will be marked
 *
 * Returns true if the packet carries the mark now, also if it did before; false if its
 * transport takes no part in ECN: drop it instead.
 */
extern bool bpf_qdisc_ecn_mark(struct sch_bpf_ctx *ctx, struct sk_buff *skb) __ksym;

/**
 * bpf_qdisc_set_queue() - choose the tx queue of a packet
 * @ctx: context of the program
 * @skb: the packet
 * @queue: index of a tx queue of the device
 *
 * Returns 0, -EINVAL if there is no such queue, or -EOPNOTSUPP if the qdisc
 * belongs to one tx queue.
 */
extern int bpf_qdisc_set_queue(struct sch_bpf_ctx *ctx, struct sk_buff *skb, __u32 queue) __ksym;

/**
 * bpf_skb_tc_classify() - run the TC filters of a qdisc on a packet
 * @ctx: context of the program; ctx->classid is set if a filter matches
 * @skb: the packet, which stays the program's
 * @ifindex: device of the qdisc whose filters to run; 0 for the own one
 * @handle: handle of that qdisc, or ffff:fff2 and ffff:fff3 for the directions of
 *          clsact; 0 for the own one
 *
 * In enqueue programs. The filters see a clone of the packet; mark, priority and tx
 * queue as the own qdisc's filters leave them are taken over; redirects to a device
 * are refused.
 *
 * Returns TC_ACT_UNSPEC (-1) if no filter matches; -ENODEV if the namespace has no such device;
 * -ENOENT if the device has no such qdisc; -EOPNOTSUPP if that qdisc can have no filters; -EINVAL
 * for another minor number of clsact; -ENOMEM without memory for the clone; else what the filter
 * says. TC_ACT_SHOT wants the packet dropped; TC_ACT_STOLEN, QUEUED and TRAP, bpf_qdisc_steal():
 * bpf_qdisc_filter() does both.
 * All others are a match: TC_ACT_OK, or TC_ACT_PIPE of an action that lets others follow, as
 * skbedit does. ctx->classid is the filter's class then, or 0.
 */
extern int bpf_skb_tc_classify(struct sch_bpf_ctx *ctx, struct sk_buff *skb, int ifindex,
			       __u32 handle) __ksym;

/**
 * bpf_skb_get_hash() - the flow hash of a packet
 * @skb: the packet
 *
 * Returns a hash of addresses, ports and protocol, as the kernel's flow dissector finds them, or
 * the one that a local TCP connection has chosen, which it changes after a time-out. Packets of
 * one flow have one hash; two flows may have the same.
 */
extern __u32 bpf_skb_get_hash(struct sk_buff *skb) __ksym;

/**
 * bpf_qdisc_departure() - when a packet asks to leave
 * @ctx: context of the program
 * @skb: the packet
 *
 * Returns skb->tstamp in ns CLOCK_MONOTONIC, whatever clock the stamp is in, or
 * the present time for a packet without a stamp. It is at most the qdisc's horizon (10 s,
 * unless tc is given another one) from now, and so is the stamp then: a policy that drops
 * what is too far ahead compares with less. Call bpf_ktime_get_ns() after it, not before: a
 * packet without a stamp would seem to ask for later.
 */
extern __u64 bpf_qdisc_departure(struct sch_bpf_ctx *ctx, struct sk_buff *skb) __ksym;

/**
 * bpf_qdisc_set_departure() - stamp a packet with the time at which it is to leave
 * @ctx: context of the program
 * @skb: the packet
 * @when: ns CLOCK_MONOTONIC, as bpf_ktime_get_ns() counts; 0 removes the stamp
 *
 * For a qdisc below (fq, etf, this one), or a NIC, that sends by time stamps. The stamp is
 * converted to CLOCK_TAI, which all of them understand; an assignment to skb->tstamp does
 * not say which clock is meant. etf needs its option skip_sock_check, and drops packets
 * that are late when they reach it: so give it a time some 100 us ahead.
 */
extern void bpf_qdisc_set_departure(struct sch_bpf_ctx *ctx, struct sk_buff *skb,
				    __u64 when) __ksym;

/**
 * bpf_qdisc_bypass() - let packets pass an empty queue by
 * @ctx: context of the program
 *
 * From now on a packet that finds the queue empty goes to the device at once, and
 * no program sees it: right for a policy that would store such a packet and
 * deliver it next. A count of what is queued stays right, for such a packet would have been
 * added to it and subtracted at once; a count of all packets, or of credit that they use,
 * does not. A change of the qdisc, a reset, or a filter on it ends it; a qdisc that is not
 * the root of a device or of a tx queue never does it.
 */
extern void bpf_qdisc_bypass(struct sch_bpf_ctx *ctx) __ksym;

/* ---- what several policies do, of the above ---- */

/**
 * bpf_qdisc_begins_anew() - is what a policy remembers of another generation?
 * @ctx: context of the program
 * @generation: that of which it is, 0 at the beginning; the present one afterwards
 *
 * For what has to be counted again, or forgotten, when packets have left behind the policy's back:
 * maps of packets are empty after a reset or a flush, other maps are not.
 *
 * Returns true once in each generation.
 */
static __always_inline bool bpf_qdisc_begins_anew(const struct sch_bpf_ctx *ctx, __u32 *generation)
{
	if (*generation == ctx->generation)
		return false;
	*generation = ctx->generation;
	return true;
}

/**
 * bpf_qdisc_is_full() - has a qdisc as many packets as it may have?
 * @sch: ctx->qdisc
 * @packets: how many its map holds
 *
 * The lower one of @packets and the qdisc's limit counts. bpf_qdisc_push() refuses a packet then,
 * unless some of those that wait are in classes, which are counted here and not there. Ask before,
 * where a packet that is refused would use what others need.
 */
static __always_inline bool bpf_qdisc_is_full(const struct Qdisc *sch, __u32 packets)
{
	__u32 qlen = sch->q.qlen;

	return qlen >= sch->limit || qlen >= packets;
}

/**
 * bpf_qdisc_exceeds() - has a qdisc no room for so many bytes more?
 * @sch: ctx->qdisc
 * @len: length of a packet, bytes
 * @bytes: how many may wait; 0: no limit
 */
static __always_inline bool bpf_qdisc_exceeds(const struct Qdisc *sch, __u32 len, __u32 bytes)
{
	return bytes && sch->qstats.backlog + len > bytes;
}

/**
 * bpf_qdisc_cut() - cut the packet that came, if it is a long GSO packet
 * @ctx: context of the program
 * @skb: ctx->skb; it is given away if it is cut
 * @longest: the longest packet that is not cut, as bpf_qdisc_pkt_len() has it; 0: none is cut
 *
 * In enqueue programs. Returns true if the packet is gone, as by bpf_qdisc_segment().
 */
static __always_inline bool bpf_qdisc_cut(struct sch_bpf_ctx *ctx, struct sk_buff *skb,
					  __u32 longest)
{
	if (!longest || bpf_qdisc_pkt_len(skb) <= longest || bpf_qdisc_pkt_segs(skb) <= 1)
		return false;
	bpf_qdisc_segment(ctx, skb);
	return true;
}

/**
 * bpf_qdisc_filter() - run the qdisc's filters on a packet, and end it if they say so
 * @ctx: context of the program; ctx->classid is set if a filter matches
 * @skb: an owned packet; it is given away if it ends
 *
 * In enqueue programs. As with the kernel's qdiscs, no sender is told that a filter has dropped
 * his packet.
 *
 * Returns true if the packet is gone: lost (TC_ACT_SHOT), or stolen (STOLEN, QUEUED, TRAP).
 */
static __always_inline bool bpf_qdisc_filter(struct sch_bpf_ctx *ctx, struct sk_buff *skb)
{
	switch (bpf_skb_tc_classify(ctx, skb, 0, 0)) {
	case TC_ACT_SHOT:
		bpf_qdisc_lose(ctx, skb);
		return true;
	case TC_ACT_STOLEN:
	case TC_ACT_QUEUED:
	case TC_ACT_TRAP:
		bpf_qdisc_steal(ctx, skb);
		return true;
	}
	return false;
}

/**
 * bpf_qdisc_socket() - the socket of a packet, to read
 * @skb: the packet
 *
 * Returns NULL without one, and for a connection that begins or has ended: what the kernel has
 * for that is no whole struct sock.
 */
static __always_inline struct sock *bpf_qdisc_socket(const struct sk_buff *skb)
{
	struct sock *sk = skb->sk;

	if (sk && sk->__sk_common.skc_state != TCP_NEW_SYN_RECV &&
	    sk->__sk_common.skc_state != TCP_TIME_WAIT)
		return sk;
	return NULL;
}

#endif /* __BPF_QDISC_H */
