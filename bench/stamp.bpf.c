// SPDX-License-Identifier: GPL-2.0
/*
 * At clsact's egress hook: give every packet a departure time, so that as many
 * packets as asked for stand in any qdisc that knows of such times.
 *
 * Time slots follow one another as packets come, far enough in the future. While
 * the queue fills, packets come faster than they will when each lets another one
 * go; so the first slots are as far apart as `pace` says. Each packet gets its
 * slot and up to half a queue more, at random, so they do not leave in order.
 */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>

#define TC_ACT_UNSPEC	(-1)

struct stamp {			/* bench/guest.py writes it; times in ns */
	__u64 standing;		/* packets; 0: all are due at once */
	__u64 pace;		/* of packets in the steady state */
	__u64 ahead;		/* how much earlier than its time the qdisc lets one go */
	__u64 clock;		/* BPF_SKB_CLOCK_MONOTONIC, or BPF_SKB_CLOCK_TAI for etf */
	__u64 count;		/* from here on the program's own: packets so far */
	__u64 slot;
	__u64 last;		/* when the last packet came */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, struct stamp);
	__uint(max_entries, 1);
} stamp SEC(".maps");

static __u64 next_slot(struct stamp *s, __u64 now)
{
	__u64 queue = s->standing * s->pace;

	if (!s->count++)
		s->slot = now + queue / 2;
	else if (s->count <= s->standing)
		s->slot += s->pace;
	else
		s->slot += now - s->last;
	s->last = now;
	return s->slot + (bpf_get_prandom_u32() * (queue / 2) >> 32);
}

SEC("tc")
int stamp_packet(struct __sk_buff *skb)
{
	struct stamp *s = bpf_map_lookup_elem(&stamp, &(__u32){ 0 });
	__u64 now;

	if (!s)
		return TC_ACT_UNSPEC;
	now = s->clock == BPF_SKB_CLOCK_TAI ? bpf_ktime_get_tai_ns() : bpf_ktime_get_ns();
	bpf_skb_set_tstamp(skb, (s->standing ? next_slot(s, now) : now) + s->ahead, s->clock);
	return TC_ACT_UNSPEC;
}

char LICENSE[] SEC("license") = "GPL";
