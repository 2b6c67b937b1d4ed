/* SPDX-License-Identifier: GPL-2.0 */
/* The qdiscs "bpf" and "bpf_mq", as their files see them
 *
 * What a packet usually passes: sch_bpf.c runs the programs, which call sch_bpf_kfuncs.c. Beside
 * these are classes and their filters (sch_bpf_class.c, sch_bpf_classify.c), configuration
 * (sch_bpf_config.c), packets that no program moves (sch_bpf_fifo.c), the type of the programs
 * (sch_bpf_prog.c), all tx queues of a device (sch_bpf_mq.c), and what is for tests and for eyes
 * (sch_bpf_test_run.c, sch_bpf_iter.c).
 *
 * The root lock and the tree lock are one: the spinlock of the root qdisc, which sch_tree_lock()
 * takes with bottom halves off.
 */
#ifndef _SCH_BPF_PRIV_H
#define _SCH_BPF_PRIV_H

#include <linux/bpf_rbtree.h>
#include <net/pkt_sched.h>
#include <net/sch_bpf.h>
#include <net/sch_generic.h>

/* A program that waits for longer is asked again after this time. */
#define SCH_BPF_HORIZON		(10ULL * NSEC_PER_SEC)

/* What a run did. The fast paths are QUEUED alone (enqueue), and 0 or READY alone (dequeue). */
#define SCH_BPF_RUN_QUEUED	BIT(0)	/* enqueue: the packet that came is in a map or class */
#define SCH_BPF_RUN_RET		BIT(1)	/* enqueue: ret is set */
#define SCH_BPF_RUN_OTHERS	BIT(2)	/* more, bytes and stored are set */
#define SCH_BPF_RUN_EMPTIED	BIT(3)	/* qlen became 0 unheard: the parents are to be told */
#define SCH_BPF_RUN_WAITING	BIT(4)	/* dequeue: a class holds its packets back */
#define SCH_BPF_RUN_READY	BIT(5)	/* dequeue: the program knows of a packet that may leave */
#define SCH_BPF_RUN_AGAIN	BIT(6)	/* enqueue: segments, or what a class gave, come next */

/* One run of a program. The functions that it calls change the qdisc's counters
 * and leave here what became of the packet. The parents count one packet for each enqueue
 * that succeeds and each dequeue that gives one. more and bytes are what a run has changed
 * beyond that one: the parents must be told.
 */
struct sch_bpf_run {
	struct sch_bpf_ctx ctx;		/* what the program sees */
	struct sk_buff **to_free;	/* enqueue only */
	u32 len;			/* enqueue only: of the packet that came */
	u32 state;
	int ret;			/* enqueue only: what became of the packet that came */
	int more;			/* other packets that have come, or gone if negative */
	int bytes;
	u32 stored;			/* in maps at the first of these, see sch_bpf_is_full() */
	struct sk_buff *segments;	/* enqueue only: it runs for each of these next; or NULL */
};

struct sch_bpf_data {
	struct sch_bpf_run run;		/* under the root lock there is one at a time */
	struct bpf_prog *enqueue;	/* both are changed under the tree lock */
	struct bpf_prog *dequeue;
	struct bpf_rbtree_owner owner;
	u32 stored;			/* packets in the maps; qlen has more to it */
	u32 bytes;			/* in the maps and in fifo; backlog has more to it */
	u32 idle;			/* dequeues in a row that gave nothing */
	union {
		struct {
			bool stuck;	/* the kernel serves fifo: no policy, or a stuck one */
			bool passing;	/* a program calls a class, which may call the root */
			bool rescued;	/* stuck, fifo may hold packets, or classes_first */
			bool unused;
		};
		u16 enqueue_slow;	/* stuck or passing: enqueue does not run the program */
		u32 dequeue_slow;	/* any: nor does dequeue, as it is */
	};
	bool classes_first;		/* classes have packets that the programs do not ask for */
	struct sk_buff *given;		/* what classes have given, until the run is over */
	bool was_stuck;			/* before the last change of the programs */
	struct sk_buff_head fifo;	/* counted in qlen, not in stored */
	struct sk_buff *rescued_last;	/* last in fifo to leave before those in maps, or NULL */
	u64 trouble;			/* since when, ns; 0: a packet has left since */
	u64 trouble_last;
	u64 horizon;			/* ns: no program waits for longer without being asked */
	s64 horizon_was;		/* end of an earlier horizon: up to it no clock is read */
	u64 armed;			/* what the watchdog waits for on behalf of the program */
	u64 patience;			/* ns: trouble for longer is being stuck */
	struct qdisc_watchdog watchdog;
	struct delayed_work work;
	int work_wait;			/* jiffies until it tries again */
	bool to_report;			/* that the policy is stuck */

	struct tcf_proto __rcu *filter_list;
	struct tcf_block *block;
	struct Qdisc_class_hash classes;

	struct tc_sch_bpf_xstats xstats;	/* rare events only, none for each packet */
	char object[SCH_BPF_OBJECT_LEN];
};

/* What a netlink message asks for. */
struct sch_bpf_config {
	bool progs;			/* given, which may mean none: bpf_mq's alone */
	struct bpf_prog *enqueue;	/* both or none */
	struct bpf_prog *dequeue;
	u32 limit;			/* packets; 0, here and below: not given */
	u64 horizon;			/* ns */
	u64 patience;			/* ns */
	u32 flags;			/* SCH_BPF_FLUSH */
	char object[SCH_BPF_OBJECT_LEN];
};

/* Of the programs in a netlink message, where their file descriptors are. */
struct sch_bpf_fds {
	struct nlattr *enqueue;
	struct nlattr *dequeue;
	unsigned int pairs;		/* 0: no programs are given */
};

/* What sch_bpf_config_change() does about packets that the new programs do not reach */
enum sch_bpf_how {
	SCH_BPF_TRY,		/* change nothing, only find out whether there are any */
	SCH_BPF_CHANGE,		/* refuse */
	SCH_BPF_FORCE,		/* let them leave before all others */
	SCH_BPF_FORCE_ALL,	/* the same with all packets: what is reached is not known */
};

static inline struct sch_bpf_data *sch_bpf_data(struct sch_bpf_ctx *ctx)
{
	return container_of(ctx, struct sch_bpf_data, run.ctx);
}

static inline struct Qdisc *sch_bpf_qdisc(struct sch_bpf_data *q)
{
	return container_of((void *)q, struct Qdisc, privdata);
}

/* What a run of the enqueue program begins with */
static __always_inline void sch_bpf_enqueue_begin(struct sch_bpf_data *q, struct sk_buff *skb,
						  struct sk_buff **to_free)
{
	q->run.ctx.skb = skb;
	q->run.ctx.classid = 0;
	q->run.to_free = to_free;
	q->run.len = qdisc_pkt_len(skb);
	q->run.state = 0;
}

/* A packet is in a map or in fifo now. */
static inline void sch_bpf_count_in(struct sch_bpf_data *q, const struct sk_buff *skb)
{
	struct Qdisc *sch = sch_bpf_qdisc(q);
	u32 len = qdisc_pkt_len(skb);

	q->bytes += len;
	qdisc_qlen_inc(sch);
	qstats_backlog_add(sch, len);
}

static inline void sch_bpf_count_out(struct sch_bpf_data *q, const struct sk_buff *skb)
{
	struct Qdisc *sch = sch_bpf_qdisc(q);
	u32 len = qdisc_pkt_len(skb);

	q->bytes -= len;
	qdisc_qlen_dec(sch);
	qstats_backlog_sub(sch, len);
}

static inline void sch_bpf_count_stored(struct sch_bpf_data *q, const struct sk_buff *skb)
{
	q->stored++;
	sch_bpf_count_in(q, skb);
}

static inline void sch_bpf_count_taken(struct sch_bpf_data *q, const struct sk_buff *skb)
{
	q->stored--;
	sch_bpf_count_out(q, skb);
}

/* Other packets than the usual one came into the qdisc, or left it. */
static inline void sch_bpf_count_others(struct sch_bpf_run *run, int more, int bytes)
{
	if (!(run->state & SCH_BPF_RUN_OTHERS)) {
		run->state |= SCH_BPF_RUN_OTHERS;
		run->more = 0;
		run->bytes = 0;
		run->stored = container_of(run, struct sch_bpf_data, run)->stored;
	}
	run->more += more;
	run->bytes += bytes;
}

/* Each file calls only those above it. No file that is listed here calls one that is not. */

/* sch_bpf_fifo.c */
void sch_bpf_drop(struct sch_bpf_data *q, struct sk_buff *skb,
		  enum qdisc_drop_reason reason);
int sch_bpf_set_queue(struct Qdisc *sch, struct sk_buff *skb, u32 queue);
void sch_bpf_take_over(struct sch_bpf_data *q);
bool sch_bpf_rescue(struct sch_bpf_data *q);
int sch_bpf_fifo_enqueue(struct sk_buff *skb, struct Qdisc *sch, struct sk_buff **to_free);
struct sk_buff *sch_bpf_fifo_dequeue(struct Qdisc *sch);
void sch_bpf_new_generation(struct sch_bpf_data *q);
void sch_bpf_purge(struct sch_bpf_data *q, struct sk_buff_head *list);
void sch_bpf_count_purged(struct Qdisc *sch, u32 packets, u32 bytes);
void sch_bpf_free_list(struct sk_buff_head *list);
void sch_bpf_work_soon(struct sch_bpf_data *q);
void sch_bpf_work(struct work_struct *work);
void sch_bpf_map_gone(struct bpf_rbtree_owner *owner);

/* sch_bpf_class.c */
extern const struct Qdisc_class_ops sch_bpf_class_ops;

int sch_bpf_class_enqueue(struct sch_bpf_data *q, struct sk_buff *skb, u32 classid);
struct sk_buff *sch_bpf_class_dequeue(struct sch_bpf_data *q, u32 classid);
int sch_bpf_class_head(struct sch_bpf_data *q, u32 classid);
int sch_bpf_class_len(struct sch_bpf_data *q, u32 classid);
struct sk_buff *sch_bpf_class_dequeue_any(struct Qdisc *sch);
int sch_bpf_class_init(struct Qdisc *sch, struct nlattr *opt, struct netlink_ext_ack *extack);
void sch_bpf_class_reset(struct Qdisc *sch);
void sch_bpf_class_purge(struct Qdisc *sch);
bool sch_bpf_class_has_packets(struct Qdisc *sch);
void sch_bpf_class_destroy(struct Qdisc *sch);

/* sch_bpf_kfuncs.c */
bool sch_bpf_takes_from_classes(const struct bpf_prog *dequeue);

/* sch_bpf_config.c */
int sch_bpf_config_parse(struct sch_bpf_config *cfg, struct sch_bpf_fds *fds,
			 struct nlattr *opt, bool create, struct netlink_ext_ack *extack);
int sch_bpf_config_get_progs(struct sch_bpf_config *cfg, const struct sch_bpf_fds *fds,
			     unsigned int pair, struct netlink_ext_ack *extack);
void sch_bpf_config_put(const struct sch_bpf_config *cfg);
int sch_bpf_config_dump(const struct sch_bpf_config *cfg, u32 queues, struct sk_buff *skb);
int sch_bpf_parse(struct sch_bpf_config *cfg, struct nlattr *opt, bool create,
		  struct netlink_ext_ack *extack);
int sch_bpf_dump(struct Qdisc *sch, struct sk_buff *skb);
void sch_bpf_maps(struct Qdisc *sch, const struct bpf_prog *enqueue,
		  const struct bpf_prog *dequeue,
		  void (*call)(struct bpf_map *map, struct bpf_rbtree_owner *owner));
u64 sch_bpf_new_mark(void);
/* The program that has to reach the packets that wait, NULL if none has to: a flush drops them.
 * So it needs no memory to find out what is reached, and cannot fail half way.
 */
static inline const struct bpf_prog *sch_bpf_reached_by(const struct sch_bpf_config *cfg)
{
	return cfg->flags & SCH_BPF_FLUSH ? NULL : cfg->dequeue;
}

int sch_bpf_reach_begin(const struct bpf_prog *dequeue);
void sch_bpf_reach_end(const struct bpf_prog *dequeue);
void sch_bpf_config_swap(struct Qdisc *sch, struct sch_bpf_config *cfg);
int sch_bpf_config_change(struct Qdisc *sch, struct sch_bpf_config *cfg,
			  enum sch_bpf_how how, struct netlink_ext_ack *extack);
int sch_bpf_change(struct Qdisc *sch, struct nlattr *opt,
		   struct netlink_ext_ack *extack);

/* sch_bpf.c */
extern struct Qdisc_ops sch_bpf_queue_ops;

int sch_bpf_enqueue_finish(struct sch_bpf_data *q);

/* sch_bpf_test_run.c */
int sch_bpf_test_run(struct bpf_prog *prog, const union bpf_attr *kattr,
		     union bpf_attr __user *uattr);

#endif /* _SCH_BPF_PRIV_H */
