// SPDX-License-Identifier: GPL-2.0
/* Programs to attach and programs not to, and what the kernel makes of each message of
 * netlink_fuzz.c: its outcome, whether our code refused it, and whether it said why.
 */
#include "../../policies/policy.h"
#include <bpf/bpf_tracing.h>

#define TYPES	12			/* also in netlink_fuzz.c: RTM_NEWQDISC and on */
#define ERRORS	256

BPF_QDISC_QUEUES(fuzz_queues, __u64, 100, 4);	/* tx queues */

/* All pairs have the maps: whichever is in force, a packet leaves. The filters are run,
 * and what they say is not followed.
 */
#define PAIR(name)								\
SEC("qdisc/enqueue")								\
int name##_enqueue(struct sch_bpf_ctx *ctx)					\
{										\
	void *pkts = bpf_map_lookup_elem(&fuzz_queues, &(__u32){ ctx->queue });	\
	struct sk_buff *skb = ctx->skb;						\
	__u64 key = 0;								\
										\
	bpf_skb_tc_classify(ctx, skb, 0, 0);					\
	return pkts ? bpf_qdisc_push(ctx, pkts, &key, skb) : bpf_qdisc_drop(ctx, skb, 0); \
}										\
										\
SEC("qdisc/dequeue")								\
int name##_dequeue(struct sch_bpf_ctx *ctx)					\
{										\
	void *pkts = bpf_map_lookup_elem(&fuzz_queues, &(__u32){ ctx->queue });	\
										\
	return pkts ? bpf_qdisc_pop(ctx, pkts) : 0;				\
}

PAIR(one)
PAIR(two)

SEC("tc")
int classifier(struct __sk_buff *skb)
{
	return -1;			/* TC_ACT_UNSPEC */
}

SEC("socket")
int socket_filter(struct __sk_buff *skb)
{
	return 0;
}

/* ---- what becomes of a message ---- */

__u32 pid;				/* of the fuzzer */
__u64 outcomes[TYPES][ERRORS];		/* by type and errno */
__u64 messages, refused, said;		/* refused with a message */
__u64 ours;				/* refused by our code */
struct {				/* that we refused in silence: how many, and the first */
	__u32 count, seq, type, error;
} silent;
static bool our_refusal;

static void refuses(bool does)
{
	if (does && bpf_get_current_pid_tgid() >> 32 == pid)
		our_refusal = true;
}

#define REFUSES(function, ...)							\
SEC("fexit/" #function)								\
int BPF_PROG(exit_##function, __VA_ARGS__, int ret)				\
{										\
	refuses(ret < 0);							\
	return 0;								\
}

REFUSES(sch_bpf_init, void *sch, void *opt, void *extack)
REFUSES(sch_bpf_change, void *sch, void *opt, void *extack)
REFUSES(sch_bpf_mq_init, void *sch, void *opt, void *extack)
REFUSES(sch_bpf_mq_change, void *sch, void *opt, void *extack)
REFUSES(sch_bpf_mq_graft, void *sch, long cl, void *new, void *old, void *extack)
REFUSES(sch_bpf_class_change, void *sch, __u32 id, __u32 parent, void *tca, void *arg, void *extack)
REFUSES(sch_bpf_class_delete, void *sch, long cl, void *extack)

SEC("fexit/sch_bpf_tcf_block")
int BPF_PROG(exit_tcf_block, void *sch, long cl, void *extack, void *block)
{
	refuses(!block);
	return 0;
}

/* A dump that goes on when its answer is read asks, too. */
SEC("fentry/rtnetlink_rcv_msg")
int BPF_PROG(enter_message)
{
	if (bpf_get_current_pid_tgid() >> 32 == pid)
		our_refusal = false;
	return 0;
}

SEC("fexit/rtnetlink_rcv_msg")
int BPF_PROG(exit_message, struct sk_buff *skb, struct nlmsghdr *nlh,
	     struct netlink_ext_ack *extack, int ret)
{
	__u32 type = nlh->nlmsg_type - 36, error = -ret;

	if (bpf_get_current_pid_tgid() >> 32 != pid)
		return 0;
	messages++;
	if (type < TYPES && error < ERRORS)
		outcomes[type][error]++;
	if (!ret || ret == -4)		/* -EINTR: a dump has begun */
		return 0;
	refused++;
	said += !!extack->_msg;
	ours += our_refusal;
	if (our_refusal && !extack->_msg && !silent.count++) {
		silent.seq = nlh->nlmsg_seq;
		silent.type = nlh->nlmsg_type;
		silent.error = error;
	}
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
