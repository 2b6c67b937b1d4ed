// SPDX-License-Identifier: GPL-2.0
/* Everything goes to the child of class 1:1; nothing comes out of it until a packet
 * with the mark 1 has gone in, but up to N packets at once for one with the mark LET + N. The
 * child's dequeue is not called before, nor its peek.
 */
#include "../../policies/policy.h"

#define CHILD	0x10001		/* 1:1 */
#define LET	10000		/* also in native.py */

static bool open;
static __u32 may_leave;		/* packets */

SEC("qdisc/enqueue")
int gate_enqueue(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb = ctx->skb;

	if (skb->mark == 1)
		open = true;
	may_leave = skb->mark > LET ? skb->mark - LET : 0;
	return bpf_qdisc_pass(ctx, skb, CHILD);
}

SEC("qdisc/dequeue")
int gate_dequeue(struct sch_bpf_ctx *ctx)
{
	if (!open && !may_leave) {
		ctx->expire = bpf_ktime_get_ns() + 5 * NSEC_PER_SEC;
		return 0;
	}
	if (may_leave)
		may_leave--;
	return bpf_qdisc_pop_class(ctx, CHILD);
}

char LICENSE[] SEC("license") = "GPL";
