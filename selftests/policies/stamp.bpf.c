// SPDX-License-Identifier: GPL-2.0
/* For clsact, as bandwidth managers have it: departure times at 1 Mbit/s, without the clock
 * that they are in.
 */
#include "../../policies/policy.h"

static __u64 next;

SEC("tc")
int stamp(struct __sk_buff *skb)
{
	__u64 now = bpf_ktime_get_ns(), when = next > now ? next : now;

	next = when + skb->len * 8000ULL;
	skb->tstamp = when;
	return TC_ACT_UNSPEC;
}

char LICENSE[] SEC("license") = "GPL";
