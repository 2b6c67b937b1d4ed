// SPDX-License-Identifier: GPL-2.0
/* As a filter: the class 1:N of a packet's source address, which bench/guest.py makes. */
#include "vmlinux.h"
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define SOURCE		(14 + 12)	/* offset of IPv4's */
#define MINORS		16384

SEC("tc")
int class_of(struct __sk_buff *skb)
{
	__u32 source;

	if (bpf_skb_load_bytes(skb, SOURCE, &source, sizeof(source)))
		return 0;
	return 1 << 16 | (bpf_ntohl(source) % MINORS + 2);
}

char LICENSE[] SEC("license") = "GPL";
