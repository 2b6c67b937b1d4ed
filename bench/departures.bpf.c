// SPDX-License-Identifier: GPL-2.0
/*
 * When packets of bench/flows.c leave for a device: of each flow the rate that its socket asks for,
 * and of the packets that were sent in the measured time how many left, the first one and the last.
 */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#define FLOWS		16384
#define FIRST_CLASS	0x10002		/* a flow's priority, as in bench/flows.c */
#define HEADERS		(14 + 20 + 8)

struct departures {
	__u64 rate;			/* bytes a second */
	__u64 packets;
	__u64 first, last;		/* ns */
	__u64 ifindex;			/* of the device: each run has another */
} departures[FLOWS];

SEC("tp_btf/net_dev_start_xmit")
int BPF_PROG(departure, const struct sk_buff *skb, const struct net_device *dev)
{
	__u32 flow = skb->priority - FIRST_CLASS, message[2] = {};
	__u64 now = bpf_ktime_get_ns();
	const struct sock *sk = skb->sk;
	struct departures *its;

	if (flow >= FLOWS || !sk ||
	    bpf_probe_read_kernel(message, sizeof(message), skb->data + HEADERS) || !message[1])
		return 0;
	its = &departures[flow];
	if (its->ifindex != dev->ifindex)
		*its = (struct departures){ .rate = sk->sk_pacing_rate, .first = now,
					    .ifindex = dev->ifindex };
	its->packets++;
	its->last = now;
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
