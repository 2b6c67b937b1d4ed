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
__u64 link SEC(".data.stats");
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

SEC("fentry/dummy_xmit")
int BPF_PROG(on_xmit, struct sk_buff *skb)
{
	note(SENT, skb);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
