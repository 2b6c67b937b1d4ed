// SPDX-License-Identifier: GPL-2.0
/* For map_types.c: a map of packets. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include "map.bpf.h"

struct pkt {
	struct sk_buff __kptr *skb;
	__u64 extra;
};

ORDERED(pkts, __u64, struct pkt, 8);

/* The type of a packet, not only its name */
SEC("syscall")
int look(void *ctx)
{
	__u64 key = 0;
	struct pkt *pkt = bpf_map_lookup_elem(&pkts, &key);

	return pkt && pkt->skb ? pkt->skb->len : 0;
}

char LICENSE[] SEC("license") = "GPL";
