// SPDX-License-Identifier: GPL-2.0
/* Maps for the programs that prog_fuzz.c makes up, and the other half of its books:
 * what became of each packet, seen where it happens and not by the qdisc's counters.
 */
#include "../../policies/policy.h"
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>
#include "../lib/map.bpf.h"
#include "ends.bpf.h"

#define DEVICES		16
#define EOPNOTSUPP	95

#define PACKETS(name, key_type, flags)			\
	struct {					\
		__uint(type, BPF_MAP_TYPE_RBTREE);	\
		__uint(map_flags, flags);		\
		__type(key, key_type);			\
		__type(value, struct pkt);		\
		__uint(max_entries, 24);		\
	} name SEC(".maps")

struct pair {
	__u64 group, number;
};

/* For each device one of each kind */
#define SET(n)						\
	PACKETS(pkts##n, __u64, 0);			\
	PACKETS(small##n, __u32, 0);			\
	PACKETS(allocated##n, __s64, BPF_F_NO_PREALLOC);	\
	PACKETS(pairs##n, struct pair, 0);		\
	BPF_QDISC_QUEUES(inner##n, __u64, 24, 2);	\
	struct {					\
		__uint(type, BPF_MAP_TYPE_RBTREE);	\
		__type(key, __u64);			\
		__type(value, __u32);			\
		__uint(max_entries, 6);			\
		__array(values, struct {		\
			__BPF_QDISC_QUEUE(__u64, 24);	\
		});					\
	} outer##n SEC(".maps")

SET(0);
SET(1);
SET(2);
SET(3);
SET(4);
SET(5);

/* None of these can have packets. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, __u64);
	__type(value, struct pkt);
	__uint(max_entries, 8);
} hash SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RBTREE);
	__type(key, __u64);
	__type(value, __u64);
	__uint(max_entries, 8);
} numbers SEC(".maps");

struct held {
	struct task_struct __kptr *task;
};

/* Of the task that is the test, one for all devices */
ORDERED(tasks, __u64, struct held, 16);

/* What a policy counts: by key, of those that prog_fuzz.c puts here, and in all; and what it
 * remembers
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, __u64);
	__type(value, __u64);
	__uint(max_entries, 8);
} table SEC(".maps") BPF_QDISC_TABLE;

__u64 counted SEC(".data.stats");
__u32 generation SEC(".data.stats");

SEC("qdisc/enqueue")
int plain_enqueue(struct sch_bpf_ctx *ctx)
{
	return bpf_qdisc_drop(ctx, ctx->skb, 0);
}

SEC("qdisc/dequeue")
int plain_dequeue(struct sch_bpf_ctx *ctx)
{
	return 0;
}

/* A parent, with one class */
SEC("qdisc/enqueue")
int parent_enqueue(struct sch_bpf_ctx *ctx)
{
	return bpf_qdisc_pass(ctx, ctx->skb, 0x10001);
}

SEC("qdisc/dequeue")
int parent_dequeue(struct sch_bpf_ctx *ctx)
{
	return bpf_qdisc_pop_class(ctx, 0x10001);
}

enum { CLONED, CUT, DROPPED, SENT, WAYS };	/* also in prog_fuzz.c, as this */

struct book {
	__u64 packets, segments, bytes;
} books[DEVICES][WAYS];			/* by the index of the device */

struct events {
	__u64 lost, dropped;		/* the packet that came, as it came */
	__u64 found, passed;		/* a class, by a filter, and a packet there */
	__u64 passed_below_mq;		/* to a class of an instance of bpf_mq */
	__u64 held;			/* a class has packets, and gives none */
	__u64 chosen, not_chosen;	/* another tx queue than the first; any, below mq */
	__s64 numbers;			/* put into `numbers` and not taken out */
	__u64 maps_in, maps_out;	/* into an ordered map of maps, and out */
	__u64 gone;			/* packets of maps that were gone */
	__u64 tasks_in, tasks_out;
	__u64 marked, not_marked;	/* by a building block; one that is to be dropped */
	__u64 wrong;			/* a building block says or does what it must not */
	__u64 zero_divisors;		/* it has divided by 0; prog_fuzz.c sees to it */
} events;

/* Of our devices, dev0 and so on */
static void note(int way, const struct sk_buff *skb)
{
	const struct net_device *dev = skb->dev;
	__u32 ifindex = dev->ifindex;

	if (ifindex >= DEVICES || dev->name[0] != 'd' || dev->name[1] != 'e' || dev->name[2] != 'v')
		return;
	__sync_fetch_and_add(&books[ifindex][way].packets, 1);
	__sync_fetch_and_add(&books[ifindex][way].segments, bpf_qdisc_pkt_segs(skb));
	__sync_fetch_and_add(&books[ifindex][way].bytes, bpf_qdisc_pkt_len(skb));
}

static void ended(const struct sk_buff *skb)
{
	note(DROPPED, skb);
}

SEC("fexit/bpf_qdisc_clone")
int BPF_PROG(on_clone, struct sch_bpf_ctx *run, struct sk_buff *skb, struct sk_buff *clone)
{
	if (clone)
		note(CLONED, clone);
	return 0;
}

static __u32 segments[DEVICES];		/* of the packet that is to be cut there */

SEC("fentry/bpf_qdisc_segment_skb")
int BPF_PROG(before_cut, struct sk_buff *skb, struct sch_bpf_ctx *run)
{
	__u32 index = run->qdisc->dev_queue->dev->ifindex;

	if (index < DEVICES)
		segments[index] = bpf_qdisc_pkt_segs(skb);
	return 0;
}

/* Others come in the place of one, with as many bytes as it counted. */
SEC("fexit/bpf_qdisc_segment_skb")
int BPF_PROG(on_cut, struct sk_buff *skb, struct sch_bpf_ctx *run, int ret)
{
	__u32 index = run->qdisc->dev_queue->dev->ifindex;

	if (!ret && index < DEVICES)
		__sync_fetch_and_add(&books[index][CUT].packets, segments[index] - 1);
	return 0;
}

#define COUNT_AT(place)		__sync_fetch_and_add(&(place), 1)
#define COUNT(member, n)	__sync_fetch_and_add(&events.member, n)

SEC("fentry/bpf_qdisc_lose_skb")
int BPF_PROG(on_lose, struct sk_buff *skb, struct sch_bpf_ctx *run)
{
	if (skb == run->skb)
		COUNT(lost, 1);
	return 0;
}

SEC("fentry/bpf_qdisc_drop_skb")
int BPF_PROG(on_drop_skb, struct sk_buff *skb, struct sch_bpf_ctx *run)
{
	if (skb == run->skb)
		COUNT(dropped, 1);
	return 0;
}

SEC("fexit/bpf_skb_tc_classify")
int BPF_PROG(on_classify, struct sch_bpf_ctx *run)
{
	if (run->classid)
		COUNT(found, 1);
	return 0;
}

SEC("fentry/bpf_qdisc_pass_skb")
int BPF_PROG(on_pass, struct sk_buff *skb, struct sch_bpf_ctx *run, __u32 classid)
{
	if (classid && classid == run->classid)
		COUNT(passed, 1);
	return 0;
}

/* The kernel has chosen the handles of instances. */
SEC("fexit/bpf_qdisc_pass_skb")
int BPF_PROG(after_pass, struct sk_buff *skb, struct sch_bpf_ctx *run, __u32 classid, int ret)
{
	if (!ret && run->qdisc->handle >> 31)
		COUNT(passed_below_mq, 1);
	return 0;
}

SEC("fexit/bpf_qdisc_pop_class")
int BPF_PROG(on_pop_class, struct sch_bpf_ctx *run, __u32 classid, int ret)
{
	if (ret == -EAGAIN)
		COUNT(held, 1);
	return 0;
}

SEC("fexit/bpf_qdisc_set_queue")
int BPF_PROG(on_set_queue, struct sch_bpf_ctx *run, struct sk_buff *skb, __u32 queue, int ret)
{
	if (!ret && queue)
		COUNT(chosen, 1);
	else if (ret == -EOPNOTSUPP)
		COUNT(not_chosen, 1);
	return 0;
}

/* Tasks are values for these functions, too. */
static __s64 is_of_numbers(const struct bpf_map *map)
{
	return BPF_CORE_READ(map, max_entries) == 8;
}

SEC("fexit/bpf_rbtree_map_push")
int BPF_PROG(on_number_push, struct bpf_map *map, const void *key, const void *value, int ret)
{
	if (!ret)
		COUNT(numbers, is_of_numbers(map));
	return 0;
}

SEC("fexit/bpf_rbtree_map_pop")
int BPF_PROG(on_number_pop, struct bpf_map *map, void *key, void *value, int ret)
{
	if (!ret)
		COUNT(numbers, -is_of_numbers(map));
	return 0;
}

SEC("fexit/bpf_rbtree_map_pop_until")
int BPF_PROG(on_number_pop_until, struct bpf_map *map, const void *bound, void *key, void *value, int ret)
{
	if (!ret)
		COUNT(numbers, -is_of_numbers(map));
	return 0;
}

SEC("fexit/bpf_rbtree_map_pop_key")
int BPF_PROG(on_number_pop_key, struct bpf_map *map, const void *key, void *value, int ret)
{
	if (!ret)
		COUNT(numbers, -is_of_numbers(map));
	return 0;
}

SEC("fexit/bpf_rbtree_map_push_map")
int BPF_PROG(on_map_push, void *map, const void *key, void *inner, int ret)
{
	if (!ret)
		COUNT(maps_in, 1);
	return 0;
}

SEC("fexit/bpf_rbtree_map_pop_map")
int BPF_PROG(on_map_pop, void *map, void *key, void *inner)
{
	if (inner)
		COUNT(maps_out, 1);
	return 0;
}

SEC("fexit/bpf_rbtree_detach_gone")
int BPF_PROG(on_gone, struct bpf_rbtree_owner *owner, void *free, __u64 *bytes, __u32 ret)
{
	COUNT(gone, ret);
	return 0;
}

SEC("fexit/bpf_rbtree_map_push_task")
int BPF_PROG(on_task_push, struct task_struct *task, void *map, const void *key, int ret)
{
	if (!ret)
		COUNT(tasks_in, 1);
	return 0;
}

SEC("fexit/bpf_rbtree_map_pop_task")
int BPF_PROG(on_task_pop, void *map, void *key, struct task_struct *task)
{
	if (task)
		COUNT(tasks_out, 1);
	return 0;
}

SEC("syscall")
int numbers_len(void *ctx)
{
	return bpf_rbtree_map_len(&numbers);
}

/* ---- tasks ---- */

SEC("syscall")
int task_in(void *ctx)
{
	struct task_struct *task = bpf_task_acquire(bpf_get_current_task_btf());

	return task ? bpf_rbtree_map_push_task(task, &tasks, &(__u64){ 0 }) : -1;
}

/* All; how many are left, of which this finds none. */
SEC("syscall")
int tasks_out(void *ctx)
{
	struct task_struct *task;
	__u64 key;
	int i;

	bpf_for(i, 0, 64) {
		task = bpf_rbtree_map_pop_task(&tasks, &key);
		if (!task)
			break;
		bpf_task_release(task);
	}
	return bpf_rbtree_map_len(&tasks);
}

SEC("syscall")
int tasks_len(void *ctx)
{
	return bpf_rbtree_map_len(&tasks);
}

/* That others may hold on the test, as long as it lives */
SEC("syscall")
int references(void *ctx)
{
	return bpf_get_current_task_btf()->rcu_users.refs.counter;
}

/* ---- the building blocks of <bpf/bpf_qdisc_aqm.h> ---- */

/* Whatever is in here; no flag is neither 0 nor 1, which C excludes. */
struct blocks {
	struct bpf_codel codel;
	struct bpf_codel_params codel_params;
	struct bpf_pie pie;
	struct bpf_pie_params pie_params;
	struct bpf_red red;
	struct bpf_red_params red_params;
	struct bpf_drr_flow flow;
	struct bpf_tbf tbf;
	__u64 link;
};

#define BLOCK_WORDS	(sizeof(struct blocks) / 8)

__u64 states[DEVICES][BLOCK_WORDS];	/* by the index of the device */

#define VERDICTS	(BPF_AQM_DROP + 1)

__u64 verdicts[3][VERDICTS];		/* how often one was what a block said: CoDel, PIE, RED */

/* Programs that prog_fuzz.c makes up call these, with any numbers, and with a packet or NULL: it
 * copies them behind the program. One that is hidden has the arguments that it is written with, and
 * is verified for each of its callers.
 */
#define BLOCK	__noinline __hidden

static __always_inline struct blocks *blocks_of(struct sch_bpf_ctx *ctx)
{
	return (struct blocks *)states[ctx->qdisc->dev_queue->dev->ifindex & (DEVICES - 1)];
}

/* Does a packet have to be dropped? */
static __always_inline __u64 obey(struct sch_bpf_ctx *ctx, struct sk_buff *skb, int block,
				  __u32 verdict, bool ecn)
{
	barrier_var(verdict);		/* it may be any number */
	if (verdict >= VERDICTS || (verdict == BPF_AQM_MARK && !ecn)) {
		COUNT(wrong, 1);
		return 0;
	}
	COUNT_AT(verdicts[block][verdict]);
	return skb && bpf_aqm_drops_counted(ctx, skb, verdict, &events.not_marked, &events.marked);
}

BLOCK __u64 codel(struct sch_bpf_ctx *ctx, struct sk_buff *skb, __u64 now, __u64 enqueued,
		  __u64 backlog)
{
	struct blocks *its = blocks_of(ctx);

	return obey(ctx, skb, 0, bpf_codel_dequeue(&its->codel, &its->codel_params, now, enqueued, backlog),
		    its->codel_params.ecn);
}

BLOCK __u64 pie(struct sch_bpf_ctx *ctx, struct sk_buff *skb, __u64 now, __u64 backlog)
{
	struct blocks *its = blocks_of(ctx);

	return obey(ctx, skb, 1, bpf_pie_enqueue(&its->pie, &its->pie_params, now, backlog),
		    its->pie_params.ecn);
}

BLOCK __u64 red(struct sch_bpf_ctx *ctx, struct sk_buff *skb, __u64 now, __u64 backlog)
{
	struct blocks *its = blocks_of(ctx);

	return obey(ctx, skb, 2, bpf_red_enqueue(&its->red, &its->red_params, now, backlog),
		    its->red_params.ecn);
}

BLOCK __u64 leaves(struct sch_bpf_ctx *ctx, __u64 now, __u64 enqueued, __u64 backlog)
{
	struct blocks *its = blocks_of(ctx);

	if (!backlog)
		bpf_codel_empty(&its->codel);
	bpf_pie_dequeue(&its->pie, &its->pie_params, now, enqueued, backlog);
	bpf_red_dequeue(&its->red, now, backlog);
	return its->pie.delay;
}

BLOCK __u64 drr(struct sch_bpf_ctx *ctx, __u64 round, __u32 quantum, __u32 initial, __u32 len)
{
	struct bpf_drr_flow *flow = &blocks_of(ctx)->flow;
	__u64 its = bpf_drr_round(flow, round, quantum | 1, initial, len);

	COUNT(wrong, its + 1 < round || flow->used >= (quantum | 1));
	return its;
}

BLOCK __u64 tbf(struct sch_bpf_ctx *ctx, __u64 rate, __u32 burst, __u64 now, __u32 len)
{
	__u64 when = bpf_tbf_reserve(&blocks_of(ctx)->tbf, rate, burst, now, len);

	COUNT(wrong, rate ? when < now : when != now);
	return when;
}

BLOCK __u64 link(struct sch_bpf_ctx *ctx, __u64 rate, __u64 floor, __u32 len, __u64 more)
{
	__u64 *link = &blocks_of(ctx)->link, before = *link, when, cost;

	cost = bpf_qdisc_tx_time_most(len, rate, NSEC_PER_SEC);
	when = bpf_qdisc_link_reserve(link, floor, cost);
	COUNT(wrong, when != (before > floor ? before : floor) || *link != when + cost);
	before = *link;
	bpf_qdisc_link_give_back(link, more);
	COUNT(wrong, *link != bpf_qdisc_time_sub(before, more));
	return when;
}

/* With these each verdict is likely. */
static const struct blocks likely_numbers = {
	.codel_params = { .target = 1, .interval = 1 },
	.pie = { .prob = BPF_PIE_ONE / 20, .accu_prob = 9 * BPF_PIE_ONE, .delay = 1, .next = ~0ULL },
	.pie_params = { .tupdate = NSEC_PER_SEC },
	.red = { .avg = 1000ULL << 24 },
	.red_params = { .min = 500, .max = 2000, .max_p = 1U << 31, .weight_log = 5, .packet_time = 1 },
};

/* One number of a state or of parameters is another one. */
BLOCK __u64 scramble(struct sch_bpf_ctx *ctx, __u64 word, __u64 value)
{
	struct blocks *its = blocks_of(ctx);

	if (!(value & 6))
		*its = likely_numbers;
	((__u64 *)its)[word % BLOCK_WORDS] = value;
	*(__u8 *)&its->codel.dropping &= 1;
	its->codel_params.ecn = its->pie_params.ecn = its->red_params.ecn = value & 1;
	return value;
}

/* Here prog_fuzz.c finds them, in this order. */
SEC("qdisc/enqueue")
int all_blocks(struct sch_bpf_ctx *ctx)
{
	struct sk_buff *skb = ctx->skb;
	__u64 n = skb->tstamp;

	n += codel(ctx, skb, n, n, n);
	n += pie(ctx, skb, n, n);
	n += red(ctx, skb, n, n);
	n += leaves(ctx, n, n, n);
	n += drr(ctx, n, n, n, n);
	n += tbf(ctx, n, n, n, n);
	n += link(ctx, n, n, n, n);
	n += scramble(ctx, n, n);
	return bpf_qdisc_drop(ctx, skb, n & 1);
}

SEC("fentry/dummy_xmit")
int BPF_PROG(on_xmit, struct sk_buff *skb)
{
	note(SENT, skb);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
