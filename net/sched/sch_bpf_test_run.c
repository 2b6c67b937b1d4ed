// SPDX-License-Identifier: GPL-2.0
/* BPF_PROG_TEST_RUN of enqueue programs
 *
 * The program runs in a qdisc "bpf" of its own, which no device uses, so all it may
 * call works. What it has stored is taken out of its maps and freed after each
 * run. If a live qdisc uses the same map: while it has packets there, the test's push
 * fails; while the map is empty, the test's push claims it, and the live qdisc's pushes
 * fail until the run is over. So test with maps of the test's own.
 */
#include <linux/bpf.h>
#include <linux/etherdevice.h>
#include <linux/filter.h>
#include <linux/netdevice.h>
#include <linux/nsproxy.h>
#include <linux/rtnetlink.h>
#include <linux/sched/signal.h>
#include <net/net_namespace.h>
#include "sch_bpf_priv.h"

#define SCH_BPF_TEST_SIZE_MAX	SZ_64K

/* Of struct __sk_buff the packet gets mark, priority and time stamp. */
static int sch_bpf_test_fields(struct sk_buff *skb, const union bpf_attr *kattr)
{
	void __user *from = u64_to_user_ptr(kattr->test.ctx_in);
	u32 size = kattr->test.ctx_size_in;
	struct __sk_buff fields = {};
	int err;

	if (!from)
		return 0;
	err = bpf_check_uarg_tail_zero(USER_BPFPTR(from), sizeof(fields), size);
	if (err)
		return err;
	if (copy_from_user(&fields, from, min_t(u32, size, sizeof(fields))))
		return -EFAULT;

	skb->mark = fields.mark;
	skb->priority = fields.priority;
	skb_set_delivery_time(skb, fields.tstamp, SKB_CLOCK_MONOTONIC);
	fields.mark = 0;
	fields.priority = 0;
	fields.tstamp = 0;
	return memchr_inv(&fields, 0, sizeof(fields)) ? -EINVAL : 0;
}

/* The packet as a device's qdisc would get it. */
static struct sk_buff *sch_bpf_test_packet(struct net_device *dev, const union bpf_attr *kattr)
{
	u32 size = kattr->test.data_size_in;
	struct sk_buff *skb;
	int err;

	if (size < ETH_HLEN || size > SCH_BPF_TEST_SIZE_MAX)
		return ERR_PTR(-EINVAL);
	skb = alloc_skb(LL_MAX_HEADER + size, GFP_USER);
	if (!skb)
		return ERR_PTR(-ENOMEM);
	skb_reserve(skb, LL_MAX_HEADER);
	err = -EFAULT;
	if (copy_from_user(skb_put(skb, size), u64_to_user_ptr(kattr->test.data_in), size))
		goto free;
	err = sch_bpf_test_fields(skb, kattr);
	if (err)
		goto free;

	skb->protocol = eth_type_trans(skb, dev);
	skb_reset_network_header(skb);
	skb_probe_transport_header(skb);
	__skb_push(skb, ETH_HLEN);
	memset(skb->cb, 0, sizeof(skb->cb));
	qdisc_skb_cb(skb)->pkt_len = skb->len;
	qdisc_skb_cb(skb)->pkt_segs = 1;
	return skb;
free:
	kfree_skb(skb);
	return ERR_PTR(err);
}

/* Run the program on a packet, which is gone afterwards. Returns what a caller of the
 * qdisc's enqueue would get.
 */
static u32 sch_bpf_test_enqueue(struct Qdisc *sch, const struct bpf_prog *prog,
				struct sk_buff *skb, u64 *time)
{
	struct sch_bpf_data *q = qdisc_priv(sch);
	struct sk_buff *to_free = NULL, *stored;
	int ret;

	rcu_read_lock_bh();
	spin_lock(qdisc_lock(sch));
	sch_bpf_enqueue_begin(q, skb, &to_free);
	sch_bpf_new_generation(q);	/* what the run before has stored is gone */
	*time -= ktime_get_ns();
	bpf_prog_run(prog, &q->run.ctx);
	*time += ktime_get_ns();
	ret = sch_bpf_enqueue_finish(q);

	while ((stored = bpf_rbtree_drain(&q->owner))) {
		sch_bpf_count_taken(q, stored);
		__qdisc_drop(stored, &to_free);
	}
	WARN_ON_ONCE(q->stored || q->bytes || qdisc_qlen(sch));
	spin_unlock(qdisc_lock(sch));
	rcu_read_unlock_bh();

	kfree_skb_list(to_free);
	return ret;
}

/* What is in such a map is drained with all else when the run is over. */
static void sch_bpf_test_map_gone(struct bpf_rbtree_owner *owner) {}

static struct Qdisc *sch_bpf_test_qdisc(struct net_device *dev)
{
	struct sch_bpf_config cfg = { .limit = U32_MAX, .horizon = SCH_BPF_HORIZON };
	struct Qdisc *sch;

	rtnl_lock();
	sch = qdisc_create_dflt(netdev_get_tx_queue(dev, 0), &sch_bpf_queue_ops, TC_H_ROOT, NULL);
	rtnl_unlock();
	if (sch) {
		sch_bpf_config_swap(sch, &cfg);
		((struct sch_bpf_data *)qdisc_priv(sch))->owner.map_gone = sch_bpf_test_map_gone;
	}
	return sch;
}

/**
 * sch_bpf_test_run() - run an enqueue program on a packet of user space's
 * @prog: the program
 * @kattr: the packet from the Ethernet header on; how often
 * @uattr: gets what a caller of enqueue would get for the last run, NET_XMIT_SUCCESS or
 *         another NET_XMIT code, and the mean duration of a run in ns
 *
 * Context: process.
 * Return: 0; -EOPNOTSUPP for a dequeue program: there is nothing to dequeue;
 * -EINVAL for a packet shorter than an Ethernet header or longer than 64 KB, for
 * fields of struct __sk_buff other than mark, priority and tstamp, and for options;
 * -EINTR, -ENOMEM, -EFAULT.
 */
int sch_bpf_test_run(struct bpf_prog *prog, const union bpf_attr *kattr,
		     union bpf_attr __user *uattr)
{
	struct net_device *dev = current->nsproxy->net_ns->loopback_dev;
	u32 i, repeat = max(kattr->test.repeat, 1U), ret = 0, size = 0, duration;
	struct sk_buff *packet, *skb;
	struct Qdisc *sch;
	u64 time = 0;
	int err = 0;

	if (prog->expected_attach_type != BPF_QDISC_ENQUEUE)
		return -EOPNOTSUPP;
	if (kattr->test.flags || kattr->test.cpu || kattr->test.batch_size)
		return -EINVAL;

	packet = sch_bpf_test_packet(dev, kattr);
	if (IS_ERR(packet))
		return PTR_ERR(packet);
	sch = sch_bpf_test_qdisc(dev);
	if (!sch) {
		err = -ENOMEM;
		goto free;
	}

	sch_bpf_maps(sch, prog, NULL, bpf_rbtree_use);
	for (i = 0; i < repeat && !err; i++) {
		skb = skb_copy(packet, GFP_USER);
		if (!skb) {
			err = -ENOMEM;
		} else {
			ret = sch_bpf_test_enqueue(sch, prog, skb, &time);
			cond_resched();
			if (signal_pending(current))
				err = -EINTR;
		}
	}
	sch_bpf_maps(sch, prog, NULL, bpf_rbtree_unuse);
	qdisc_put_unlocked(sch);

	duration = min_t(u64, div_u64(time, repeat), U32_MAX);
	if (!err && (copy_to_user(&uattr->test.retval, &ret, sizeof(ret)) ||
		     copy_to_user(&uattr->test.duration, &duration, sizeof(duration)) ||
		     copy_to_user(&uattr->test.data_size_out, &size, sizeof(size))))
		err = -EFAULT;
free:
	kfree_skb(packet);
	return err;
}
