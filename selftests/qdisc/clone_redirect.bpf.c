// SPDX-License-Identifier: GPL-2.0
/* A classifier that sends a copy of each packet to the device it is on; one that steals
 * packets, which no action of tc says; one that asks for a tx queue that is not there; and
 * one that drops what a socket has sent.
 */
#include "../../policies/policy.h"

SEC("tc")
int clone_redirect(struct __sk_buff *skb)
{
	bpf_clone_redirect(skb, skb->ifindex, 0);
	return TC_ACT_UNSPEC;
}

SEC("classifier")
int steal(struct __sk_buff *skb)
{
	return TC_ACT_STOLEN;
}

SEC("tc/queue")
int misdirect(struct __sk_buff *skb)
{
	skb->queue_mapping = 100;
	return TC_ACT_UNSPEC;
}

SEC("tc/socket")
int drop_with_socket(struct __sk_buff *skb)
{
	return bpf_get_socket_cookie(skb) ? TC_ACT_SHOT : TC_ACT_UNSPEC;
}

char LICENSE[] SEC("license") = "GPL";
