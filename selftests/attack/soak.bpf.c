// SPDX-License-Identifier: GPL-2.0
/* For soak_traffic.c: which packets the kernel has dropped, or a policy has stolen, by the
 * number they carry.
 */
#include "../../policies/policy.h"
#include <bpf/bpf_core_read.h>
#include "ends.bpf.h"

#define ETHERTYPE	0x88b5
#define NUMBERS		(1 << 22)	/* also in soak_traffic.c */

__u8 dropped[NUMBERS];

static void ended(const struct sk_buff *skb)
{
	__u32 number;

	if (skb->protocol != bpf_htons(ETHERTYPE) ||
	    bpf_probe_read_kernel(&number, sizeof(number), skb->head + skb->mac_header + 14))
		return;
	if (number < NUMBERS)
		dropped[number]++;
}

char LICENSE[] SEC("license") = "GPL";
