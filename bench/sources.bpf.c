// SPDX-License-Identifier: GPL-2.0
/*
 * At clsact's egress hook: find 64 source addresses in a row whose packets' hashes
 * all fall into buckets of their own, of 1024.
 *
 * The secret of skb->hash is another after each boot. Upstream's bpf_fq puts flows
 * without a socket into so many buckets, and one pair of flows that share one changes
 * what a packet costs by 2 per cent: so those 64 flows are measured that share none.
 */
#include "vmlinux.h"
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define BUCKETS		1024
#define FLOWS		64
#define SOURCE		(14 + 12)	/* offset of IPv4's */
#define TC_ACT_UNSPEC	(-1)

__u32 first, last;			/* bench/guest.py reads them: FLOWS addresses if found */
__u32 seen[BUCKETS];			/* the last address of a bucket */

SEC("tc")
int find_sources(struct __sk_buff *skb)
{
	__u32 *before = &seen[bpf_get_hash_recalc(skb) % BUCKETS], source;

	if (last - first == FLOWS - 1 || bpf_skb_load_bytes(skb, SOURCE, &source, sizeof(source)))
		return TC_ACT_UNSPEC;
	last = bpf_ntohl(source);
	if (!first)
		first = last;
	if (*before >= first)
		first = *before + 1;
	*before = last;
	return TC_ACT_UNSPEC;
}

char LICENSE[] SEC("license") = "GPL";
