// SPDX-License-Identifier: GPL-2.0
/* How many packets pass the tcx program of a device's ingress. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, __u64);
	__uint(max_entries, 1);
} ingress_seen SEC(".maps");

SEC("tcx/ingress")
int ingress_count(struct __sk_buff *skb)
{
	__u32 key = 0;
	__u64 *seen = bpf_map_lookup_elem(&ingress_seen, &key);

	if (seen)
		__sync_fetch_and_add(seen, 1);
	return -1;			/* TCX_NEXT */
}

char LICENSE[] SEC("license") = "GPL";
