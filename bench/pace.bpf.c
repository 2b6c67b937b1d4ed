// SPDX-License-Identifier: GPL-2.0
/*
 * At clsact's egress hook: give each packet the time at which its socket may send it by its
 * SO_MAX_PACING_RATE, which no qdisc but fq looks at. What the socket may do is in its own storage.
 */
#include "../policies/policy.h"
#include <bpf/bpf_core_read.h>

struct {			/* bench/published sets it */
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, __u64);
	__uint(max_entries, 2);
} pace SEC(".maps");

enum { CLOCK, AHEAD };		/* BPF_SKB_CLOCK_*; ns by which the qdisc lets one go earlier */

struct {			/* when the socket's next packet may leave */
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, __u64);
} paced SEC(".maps");

static __u64 setting(__u32 which)
{
	__u64 *value = bpf_map_lookup_elem(&pace, &which);

	return value ? *value : 0;
}

SEC("tc")
int pace_packet(struct __sk_buff *skb)
{
	__u64 now = bpf_ktime_get_ns(), none = 0, rate, cost, when, clock, *next;
	struct bpf_sock *sk = skb->sk;

	if (!sk)
		return TC_ACT_UNSPEC;
	sk = bpf_sk_fullsock(sk);
	if (!sk)
		return TC_ACT_UNSPEC;
	rate = bpf_core_cast(sk, struct sock)->sk_pacing_rate;
	next = bpf_sk_storage_get(&paced, sk, &none, BPF_SK_STORAGE_GET_F_CREATE);
	if (!next)
		return TC_ACT_SHOT;
	cost = bpf_qdisc_tx_time(skb->wire_len, rate);
	when = bpf_qdisc_link_reserve(next, now, cost) + setting(AHEAD);
	clock = setting(CLOCK);
	if (clock == BPF_SKB_CLOCK_TAI)
		when += bpf_ktime_get_tai_ns() - now;
	bpf_skb_set_tstamp(skb, when, clock);
	return TC_ACT_UNSPEC;
}

char LICENSE[] SEC("license") = "GPL";
