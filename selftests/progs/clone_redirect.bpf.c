// SPDX-License-Identifier: GPL-2.0
/* A classifier that sends a copy of each packet to the device it is on. */
#include "../../policies/policy.h"

SEC("tc")
int clone_redirect(struct __sk_buff *skb)
{
	bpf_clone_redirect(skb, skb->ifindex, 0);
	return TC_ACT_UNSPEC;
}

char LICENSE[] SEC("license") = "GPL";
