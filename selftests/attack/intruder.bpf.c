// SPDX-License-Identifier: GPL-2.0
/* For security.c: programs that want to be where they must not be, or see what they
 * must not see.
 */
#include "../../policies/policy.h"
#include <bpf/bpf_tracing.h>

/* In the place of a qdisc program */
SEC("freplace")
int intruder_replace(struct sch_bpf_ctx *ctx)
{
	return 0;
}

/* All bytes of all elements of a map */
SEC("iter/bpf_map_elem")
int intruder_dump(struct bpf_iter__bpf_map_elem *ctx)
{
	void *key = ctx->key, *value = ctx->value;

	if (key && value) {
		bpf_seq_write(ctx->meta->seq, key, 8);
		bpf_seq_write(ctx->meta->seq, value, 8);
	}
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
