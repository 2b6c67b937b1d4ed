// SPDX-License-Identifier: GPL-2.0
/* An iterator over the packets of a map with keys of four bytes: a line for each, of its key
 * and its length.
 */
#include "../../policies/policy.h"

SEC("iter/bpf_qdisc_packet")
int walk(struct bpf_iter__bpf_qdisc_packet *ctx)
{
	struct bpf_qdisc_packet *skb = ctx->skb;
	__u32 *key = ctx->key;

	if (key)
		BPF_SEQ_PRINTF(ctx->meta->seq, "%u %u\n", *key, skb->len);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
