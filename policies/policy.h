/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What every policy here includes, and what some have in common.
 */
#ifndef __POLICY_H
#define __POLICY_H

#include "vmlinux.h"
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_qdisc.h>
#include <bpf/bpf_qdisc_aqm.h>

/* The class of a minor number, and the reverse: more than 0xffff for a class of another qdisc */
#define CLASSID(ctx, minor)		((ctx)->qdisc->handle | (minor))
#define CLASS_MINOR(ctx, class)	((ctx)->qdisc->handle ^ (class))

/* An ordered map that holds no packets */
#define ORDERED_MAP(name, key_type, value_type, entries)	\
	struct {					\
		__uint(type, BPF_MAP_TYPE_RBTREE);	\
		__type(key, key_type);			\
		__type(value, value_type);		\
		__uint(max_entries, entries);		\
	} name SEC(".maps")

#define ARRAY_MAP(name, value_type, entries)		\
	struct {					\
		__uint(type, BPF_MAP_TYPE_ARRAY);	\
		__type(key, __u32);			\
		__type(value, value_type);		\
		__uint(max_entries, entries);		\
	} name SEC(".maps")

/* A map of one value: new programs take it over, which variables are not */
#define MAP_OF_ONE(name, value_type)	ARRAY_MAP(name, value_type, 1)

/* The id of the cgroup of a packet's socket; `nobody` if it has none, as without CONFIG_CGROUPS */
static __always_inline __u64 cgroup_of(const struct sk_buff *skb, __u64 nobody)
{
	struct sock *sk = bpf_qdisc_socket(skb);

	if (!sk || !bpf_core_field_exists(sk->sk_cgrp_data.cgroup))
		return nobody;
	return sk->sk_cgrp_data.cgroup->kn->id;
}

/* ---- places in a table of a fixed size, found by a hash ---- */

struct hash_place {
	__u32 hash;		/* whose it is */
	__u32 users;		/* 0: nobody has it now */
};

/* The place of a hash among `size`: its own, a free one, or one that it shares. It is one of
 * `ways` neighbours.
 */
static __always_inline __u32 hash_place_of(struct hash_place *places, __u32 size, __u32 ways,
					   __u32 hash)
{
	__u32 i, at, place = hash % size;
	bool found = false;

	for (i = 0; i < ways; i++) {
		at = (hash + i) % size;
		if (places[at].hash == hash)
			return at;
		if (!found && !places[at].users) {
			found = true;
			place = at;
		}
	}
	if (found)
		places[place].hash = hash;
	return place;
}

/* ---- the flow that has most ---- */

#define DROP_BATCH	64

/* A packet of a flow has left, which may have come before its bytes were counted. */
static __always_inline void lose_bytes(__u32 *bytes, __u32 len)
{
	*bytes -= len < *bytes ? len : *bytes;
}

/* The oldest packets of a flow, which has so many bytes under one key, are dropped: half of these,
 * or DROP_BATCH packets. CoDel has to do more then, too.
 */
static __always_inline void drop_half(struct sch_bpf_ctx *ctx, void *packets, const __u32 *key,
				      __u32 *bytes, struct bpf_codel *codel, __u64 *drops)
{
	__u32 half = *bytes - *bytes / 2;
	struct sk_buff *skb;
	int i;

	bpf_for(i, 0, DROP_BATCH) {
		skb = bpf_qdisc_take_key(ctx, packets, key);
		if (!skb)
			break;
		lose_bytes(bytes, bpf_qdisc_pkt_len(skb));
		bpf_qdisc_drop(ctx, skb, QDISC_DROP_OVERLIMIT);
		++*drops;
		if (codel->count != ~0U)
			codel->count++;
		if (*bytes <= half)
			break;
	}
}

/* ---- headers ---- */

struct ip {
	struct in6_addr source;		/* that of IPv4 as ::ffff:a.b.c.d */
	struct in6_addr destination;
	__u32 payload;			/* where that begins in the packet */
	__u16 length;			/* and its bytes */
	__u8 protocol;			/* 0: of a fragment */
	__u8 dsfield;
};

/* The IP header of a packet, whatever is in front of it; false, and zeroes, if it has none */
static __always_inline bool read_ip(struct sk_buff *skb, struct ip *ip)
{
	__u32 at = bpf_qdisc_network_offset(skb);
	struct bpf_dynptr bytes;
	struct ipv6hdr v6;
	struct iphdr v4;

	__builtin_memset(ip, 0, sizeof(*ip));
	if (bpf_dynptr_from_skb((struct __sk_buff *)skb, 0, &bytes) ||
	    bpf_dynptr_read(&v4, sizeof(v4), &bytes, at, 0))
		return false;
	if (v4.version == 4) {
		ip->source.in6_u.u6_addr32[2] = bpf_htonl(0xffff);
		ip->source.in6_u.u6_addr32[3] = v4.saddr;
		ip->destination.in6_u.u6_addr32[2] = bpf_htonl(0xffff);
		ip->destination.in6_u.u6_addr32[3] = v4.daddr;
		ip->payload = at + 4 * v4.ihl;
		ip->length = bpf_ntohs(v4.tot_len) - 4 * v4.ihl;
		ip->protocol = v4.frag_off & bpf_htons(0x3fff) ? 0 : v4.protocol;
		ip->dsfield = v4.tos;
		return true;
	}
	if (v4.version != 6 || bpf_dynptr_read(&v6, sizeof(v6), &bytes, at, 0))
		return false;
	ip->source = v6.saddr;
	ip->destination = v6.daddr;
	ip->payload = at + sizeof(v6);
	ip->length = bpf_ntohs(v6.payload_len);
	ip->protocol = v6.nexthdr;
	ip->dsfield = v6.priority << 4 | v6.flow_lbl[0] >> 4;
	return true;
}

/* ---- acknowledgments of TCP ---- */

struct ack {
	struct ip ip;
	struct tcphdr tcp;
};

/* Is that an ACK and nothing else, with no option but time stamps? Its headers are read then.
 * SACK blocks, and flags of ECN, say what no later ACK says.
 */
static __always_inline bool read_ack(struct sk_buff *skb, struct ack *ack)
{
	__be32 options = 0, stamps = bpf_htonl(0x0101080a);
	struct bpf_dynptr bytes;
	__be16 flags;

	if (!read_ip(skb, &ack->ip) || ack->ip.protocol != IPPROTO_TCP ||
	    bpf_dynptr_from_skb((struct __sk_buff *)skb, 0, &bytes) ||
	    bpf_dynptr_read(&ack->tcp, sizeof(ack->tcp), &bytes, ack->ip.payload, 0))
		return false;
	if (ack->tcp.doff == 8)
		bpf_dynptr_read(&options, 4, &bytes, ack->ip.payload + sizeof(ack->tcp), 0);
	else if (ack->tcp.doff == 5)
		options = stamps;
	__builtin_memcpy(&flags, (void *)&ack->tcp + 12, sizeof(flags));
	return options == stamps && (flags & bpf_htons(0xfff)) == bpf_htons(0x010) &&
	       ack->ip.length == 4 * ack->tcp.doff;
}

/* Does it say more than another one of its connection? Two flows may have one hash. */
static __always_inline bool ack_is_later(const struct ack *ack, const struct ack *than)
{
	__be32 differ = ack->tcp.source ^ than->tcp.source;
	int i;

	differ |= ack->tcp.dest ^ than->tcp.dest;
	for (i = 0; i < 4; i++) {
		differ |= ack->ip.source.in6_u.u6_addr32[i] ^ than->ip.source.in6_u.u6_addr32[i];
		differ |= ack->ip.destination.in6_u.u6_addr32[i] ^
			  than->ip.destination.in6_u.u6_addr32[i];
	}
	return !differ && (__s32)(bpf_ntohl(ack->tcp.ack_seq) - bpf_ntohl(than->tcp.ack_seq)) > 0;
}

/* If the packet is an ACK that says more than the youngest of its flow, which is an ACK, too, that
 * one is dropped, else put back. Returns how many bytes the flow has lost, or 0.
 */
static __always_inline __u32 drop_older_ack(struct sch_bpf_ctx *ctx, void *packets,
					    const void *flow, struct sk_buff *skb)
{
	struct ack ack, older;
	struct sk_buff *waits;
	__u32 len;

	if (!read_ack(skb, &ack))
		return 0;
	waits = bpf_qdisc_take_youngest(ctx, packets, flow);
	if (!waits)
		return 0;
	len = bpf_qdisc_pkt_len(waits);
	if (read_ack(waits, &older) && ack_is_later(&ack, &older))
		bpf_qdisc_drop(ctx, waits, QDISC_DROP_CONGESTED);
	else if (!bpf_qdisc_push(ctx, packets, flow, waits))
		len = 0;
	return len;
}

#endif /* __POLICY_H */
