// SPDX-License-Identifier: GPL-2.0
/* A program that is none for a qdisc. */
#include "../../policies/policy.h"

SEC("tc")
int classifier(struct __sk_buff *skb)
{
	return -1;
}

char LICENSE[] SEC("license") = "GPL";
