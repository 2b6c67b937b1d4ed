// SPDX-License-Identifier: GPL-2.0
/* An iterator of one's own over the packets in a map: a line for each,
 * and one at the end.
 */
#include "../../policies/policy.h"

SEC("iter/bpf_qdisc_packet")
int packets(struct bpf_iter__bpf_qdisc_packet *ctx)
{
	struct seq_file *seq = ctx->meta->seq;
	struct bpf_qdisc_packet *skb = ctx->skb;
	__u64 *key = ctx->key;

	if (!key)
		BPF_SEQ_PRINTF(seq, "end\n");
	else
		BPF_SEQ_PRINTF(seq, "%llu: %u bytes, mark %u\n", *key, skb->len, skb->mark);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
