// SPDX-License-Identifier: GPL-2.0
/*
 * At clsact's egress hook: give every packet a departure time, so that packets
 * stand in any qdisc that knows of such times.
 *
 * Packets fall at random into those that leave at one time and those that leave
 * at a later one, both within a spread. So a bench can count what it costs to
 * add packets to a long queue, and, when the first time has come, to take out
 * exactly the first part, while the others stand. Times are a step apart, or the
 * same: long enough for one packet, so that chance does not say for how many packets
 * there is a timer. The last packet of a batch is due at once: pktgen waits for it.
 */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>

#define TC_ACT_UNSPEC	(-1)

struct stamp {			/* bench/guest.py writes it; times in ns */
	__u64 batch;		/* packets still to come; 0: all are due at once */
	__u64 part;		/* of 2^32, how many leave first */
	__u64 first;		/* when they leave, */
	__u64 second;		/* and when the others do */
	__u64 spread;
	__u64 step;
	__u64 ahead;		/* how much earlier than its time the qdisc lets one go */
	__u64 clock;		/* BPF_SKB_CLOCK_MONOTONIC, or BPF_SKB_CLOCK_TAI for etf */
	__u64 random;		/* state of the generator: every run draws the same */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, struct stamp);
	__uint(max_entries, 1);
} stamp SEC(".maps");

/* The low 32 bits are as good as any. */
static __u64 draw(struct stamp *s)
{
	s->random ^= s->random << 13;
	s->random ^= s->random >> 7;
	s->random ^= s->random << 17;
	return (__u32)s->random;
}

SEC("tc")
int stamp_packet(struct __sk_buff *skb)
{
	struct stamp *s = bpf_map_lookup_elem(&stamp, &(__u32){ 0 });
	__u64 when;

	if (!s)
		return TC_ACT_UNSPEC;
	if (!s->batch || !--s->batch)
		/* half of it, so that etf does not find the packet late */
		when = (s->clock == BPF_SKB_CLOCK_TAI ? bpf_ktime_get_tai_ns() : bpf_ktime_get_ns()) + s->ahead / 2;
	else
		when = (draw(s) < s->part ? s->first : s->second) + s->ahead +
		       (draw(s) * s->spread >> 32) / s->step * s->step;
	bpf_skb_set_tstamp(skb, when, s->clock);
	return TC_ACT_UNSPEC;
}

char LICENSE[] SEC("license") = "GPL";
