// SPDX-License-Identifier: GPL-2.0
/* For races.c: two pairs of programs, each with maps of its own, and programs that stop
 * the kernel between two steps.
 */
#include "../../policies/policy.h"
#include <bpf/bpf_tracing.h>

BPF_QDISC_QUEUES(old_queues, __u64, 100, 0);
BPF_QDISC_QUEUES(new_queues, __u64, 100, 0);
BPF_QDISC_QUEUES(both_queues, __u64, 100, 0);

bool to_both;			/* packets go into the map of both pairs, */
bool closed;			/* nothing leaves yet, */
bool silent;			/* and no time is given */
bool to_class;			/* the new pair passes packets to a class, */

static int store(struct sch_bpf_ctx *ctx, void *pkts, void *both)
{
	__u64 key = 0;

	if (!pkts || !both)
		return bpf_qdisc_drop(ctx, ctx->skb, 0);
	return bpf_qdisc_push(ctx, to_both ? both : pkts, &key, ctx->skb);
}

static int serve(struct sch_bpf_ctx *ctx, void *pkts, void *both)
{
	if (!pkts || !both || silent)
		return 0;
	if (!closed)
		return bpf_qdisc_pop(ctx, pkts) && bpf_qdisc_pop(ctx, both);
	ctx->expire = bpf_ktime_get_ns() + 5 * NSEC_PER_SEC;
	return 0;
}

#define PAIR(name, class)							\
SEC("qdisc/enqueue")								\
int name##_enqueue(struct sch_bpf_ctx *ctx)					\
{										\
	if (class && to_class)							\
		return bpf_qdisc_pass(ctx, ctx->skb, ctx->qdisc->handle | 1);	\
	return store(ctx, bpf_map_lookup_elem(&name##_queues, &(__u32){ ctx->queue }), \
		     bpf_map_lookup_elem(&both_queues, &(__u32){ ctx->queue }));	\
}										\
										\
SEC("qdisc/dequeue")								\
int name##_dequeue(struct sch_bpf_ctx *ctx)					\
{										\
	if (class && !closed && !bpf_qdisc_pop_class(ctx, ctx->qdisc->handle | 1)) \
		return 0;							\
	return serve(ctx, bpf_map_lookup_elem(&name##_queues, &(__u32){ ctx->queue }), \
		     bpf_map_lookup_elem(&both_queues, &(__u32){ ctx->queue }));	\
}

PAIR(old, false)
PAIR(new, true)

/* ---- between two steps ---- */

#define TRIES	(1 << 23)

__u64 patience;			/* ns that it waits at most */
static __u64 until;
__u32 stop_at;			/* the qdisc whose change is stopped, by its parent; 0: none */
__u32 stop_report;		/* stop before it is told that a policy is stuck */
volatile __u32 reports;		/* how often that was tried */
volatile __u64 reported[8];	/* when, the first times; ns */
volatile __u32 stopped, go_on;	/* said to user space, and by it */

static long wait(__u64 n, void *unused)
{
	return go_on || bpf_ktime_get_ns() > until;
}

static void stop(void)
{
	until = bpf_ktime_get_ns() + patience;
	stopped = true;
	bpf_loop(TRIES, wait, NULL, 0);
}

SEC("tp_btf/sch_bpf_change")
int BPF_PROG(on_change, const struct Qdisc *sch)
{
	if (!stop_at || sch->parent != stop_at)
		return 0;
	stop_at = 0;
	stop();
	return 0;
}

SEC("fentry/sch_bpf_work")
int BPF_PROG(on_report)
{
	__u32 n = reports++;

	if (n < 8)
		reported[n] = bpf_ktime_get_ns();
	if (!stop_report)
		return 0;
	stop_report = 0;
	stop();
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
