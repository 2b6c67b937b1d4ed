// SPDX-License-Identifier: GPL-2.0
/* For stale.py: two qdiscs share a map. The first has many packets there; the second looks at the
 * last one of them, waits until they are gone, which is when the first is flushed, claims the map
 * with a push, and reads the bytes of what it has seen.
 */
#include "../../policies/policy.h"
#include <bpf/bpf_rbtree.h>

#define MANY	5000		/* also in stale.py */

enum { FILL = 1, LOOK };	/* marks, also in stale.py */

struct {
	__BPF_QDISC_QUEUE(__u32, 4 * MANY);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} stale_pkts SEC(".maps");

struct stale {
	__u32 looked;
	__s32 pushed, loaded;	/* what the functions have returned */
};

MAP_OF_ONE(stale_seen, struct stale);

static int fill(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *clone;
	__u32 key;
	int i;

	bpf_for(i, 0, MANY) {
		key = i;
		clone = bpf_qdisc_clone(ctx, ctx->skb);
		if (clone)
			bpf_qdisc_push(ctx, &stale_pkts, &key, clone);
	}
	return bpf_qdisc_drop(ctx, ctx->skb, 0);
}

static int look(struct sch_bpf_ctx *ctx, struct stale *seen)
{
	__u8 bytes[ETH_HLEN] = {};
	__u32 key = 0;
	struct pkt *last = bpf_rbtree_map_last(&stale_pkts, &key);
	int i, j;

	if (!last)
		return bpf_qdisc_drop(ctx, ctx->skb, 0);
	seen->looked = 1;
	bpf_for(i, 0, 100)
		bpf_for(j, 0, 1 << 20)
			if (!bpf_rbtree_map_len(&stale_pkts))
				goto gone;
gone:
	seen->pushed = bpf_qdisc_push(ctx, &stale_pkts, &key, ctx->skb);
	seen->loaded = bpf_qdisc_load_bytes(ctx, &stale_pkts, last, bytes, sizeof(bytes));
	return 0;
}

SEC("qdisc/enqueue")
int stale_enqueue(struct sch_bpf_ctx *ctx)
{
	struct stale *seen = bpf_map_lookup_elem(&stale_seen, &(__u32){ 0 });

	if (ctx->skb->mark == FILL)
		return fill(ctx);
	if (ctx->skb->mark == LOOK && seen)
		return look(ctx, seen);
	return bpf_qdisc_drop(ctx, ctx->skb, 0);
}

SEC("qdisc/dequeue")
int stale_dequeue(struct sch_bpf_ctx *ctx)
{
	ctx->expire = bpf_ktime_get_ns() + 5 * NSEC_PER_SEC;
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
