// SPDX-License-Identifier: GPL-2.0
/* What enters and leaves the qdiscs of one device, and what they drop. Only the
 * qdiscs that the tx queues of a device refer to have these tracepoints.
 */
#include "vmlinux.h"
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include "qdisctop.h"

#define MAX_BULK	64

const volatile int ifindex = 0;
const volatile __u32 netns = 0;		/* inode: other namespaces have the same numbers */

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, struct qdisc_key);
	__type(value, struct qdisc_counts);
	__uint(max_entries, 4096);
} counts SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, struct drop_key);
	__type(value, __u64);
	__uint(max_entries, 16384);
} drops SEC(".maps");

/* When a packet that waits has come. One that the qdisc frees when it is reset or
 * changed stays here until another packet is at its address.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__type(key, __u64);
	__type(value, __u64);
	__uint(max_entries, 131072);
} waiting SEC(".maps");

static const struct qdisc_counts no_counts;

static bool is_wanted(const struct net_device *dev)
{
	return dev->ifindex == ifindex && BPF_CORE_READ(dev, nd_net.net, ns.inum) == netns;
}

static struct qdisc_counts *counts_of(const struct Qdisc *sch)
{
	struct qdisc_key key = { .handle = sch->handle, .parent = sch->parent };
	struct qdisc_counts *c = bpf_map_lookup_elem(&counts, &key);

	if (c)
		return c;
	bpf_map_update_elem(&counts, &key, &no_counts, BPF_NOEXIST);
	return bpf_map_lookup_elem(&counts, &key);
}

/* As the qdisc counts what it sends */
static __u32 segments(struct sk_buff *skb)
{
	struct skb_shared_info *shared;

	shared = (void *)(skb->head + BPF_CORE_READ(skb, end));
	if (!BPF_CORE_READ(shared, gso_size))
		return 1;
	return BPF_CORE_READ(shared, gso_segs);
}

static __u32 packet_bytes(struct sk_buff *skb)
{
	return BPF_CORE_READ((struct qdisc_skb_cb *)skb->cb, pkt_len);
}

static __u32 delay_slot(__u64 ns)
{
	__u32 slot = 0;

	while (ns > 1 && slot < DELAY_SLOTS - 1) {
		ns >>= 1;
		slot++;
	}
	return slot;
}

SEC("tp_btf/qdisc_enqueue")
int BPF_PROG(on_enqueue, struct Qdisc *sch, struct netdev_queue *txq, struct sk_buff *skb)
{
	__u64 address = (__u64)skb, now = bpf_ktime_get_ns();
	struct qdisc_counts *c;

	if (!is_wanted(txq->dev))
		return 0;
	c = counts_of(sch);
	if (!c)
		return 0;
	__sync_fetch_and_add(&c->packets, segments(skb));
	__sync_fetch_and_add(&c->bytes, packet_bytes(skb));
	bpf_map_update_elem(&waiting, &address, &now, BPF_ANY);
	return 0;
}

/* One that the driver sent back comes a second time, and is not in the map then */
static void leave(struct qdisc_counts *c, __u64 address, __u64 now)
{
	__u64 *since = bpf_map_lookup_elem(&waiting, &address);

	if (!since)
		return;
	__sync_fetch_and_add(&c->delay[delay_slot(now - *since)], 1);
	bpf_map_delete_elem(&waiting, &address);
}

SEC("tp_btf/qdisc_dequeue")
int BPF_PROG(on_dequeue, struct Qdisc *sch, struct netdev_queue *txq, int packets,
	     struct sk_buff *skb)
{
	__u64 now = bpf_ktime_get_ns();
	struct qdisc_counts *c;
	int i;

	if (!skb || !is_wanted(txq->dev))
		return 0;
	c = counts_of(sch);
	if (!c)
		return 0;
	for (i = 0; i < MAX_BULK && skb; i++) {
		leave(c, (__u64)skb, now);
		skb = BPF_CORE_READ(skb, next);
	}
	return 0;
}

SEC("tp_btf/qdisc_drop")
int BPF_PROG(on_drop, struct Qdisc *sch, struct netdev_queue *txq, struct net_device *dev,
	     struct sk_buff *skb, enum qdisc_drop_reason reason)
{
	struct drop_key key = {
		.qdisc = { .handle = sch->handle, .parent = sch->parent },
		.reason = reason & 0xffff,
	};
	__u64 address = (__u64)skb, zero = 0, *n;

	if (!dev || !is_wanted(dev))
		return 0;
	bpf_map_delete_elem(&waiting, &address);
	bpf_map_update_elem(&drops, &key, &zero, BPF_NOEXIST);
	n = bpf_map_lookup_elem(&drops, &key);
	if (n)
		__sync_fetch_and_add(n, 1);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
