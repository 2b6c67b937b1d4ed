/* SPDX-License-Identifier: GPL-2.0 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM sch_bpf

#if !defined(_TRACE_SCH_BPF_H) || defined(TRACE_HEADER_MULTI_READ)
#define _TRACE_SCH_BPF_H

#include <linux/bpf.h>
#include <linux/netdevice.h>
#include <linux/tracepoint.h>
#include <net/sch_generic.h>

DECLARE_EVENT_CLASS(sch_bpf_class,

	TP_PROTO(const struct Qdisc *sch, const struct bpf_prog *enqueue,
		 const struct bpf_prog *dequeue),

	TP_ARGS(sch, enqueue, dequeue),

	TP_STRUCT__entry(
		__string(dev, netdev_name(qdisc_dev(sch)))
		__field(int, ifindex)
		__field(u32, handle)
		__field(u32, parent)
		__field(u32, enqueue)
		__field(u32, dequeue)
		__field(u32, qlen)
	),

	TP_fast_assign(
		__assign_str(dev);
		__entry->ifindex = qdisc_dev(sch)->ifindex;
		__entry->handle = sch->handle;
		__entry->parent = sch->parent;
		__entry->enqueue = enqueue ? enqueue->aux->id : 0;
		__entry->dequeue = dequeue ? dequeue->aux->id : 0;
		__entry->qlen = sch->q.qlen;
	),

	TP_printk("dev=%s ifindex=%d handle=%x: parent=%x:%x enqueue=%u dequeue=%u qlen=%u",
		  __get_str(dev), __entry->ifindex, __entry->handle >> 16,
		  __entry->parent >> 16, __entry->parent & 0xffff,
		  __entry->enqueue, __entry->dequeue, __entry->qlen)
);

/* A policy lets nothing leave; the kernel serves its packets, and a FIFO. */
DEFINE_EVENT(sch_bpf_class, sch_bpf_stuck,
	TP_PROTO(const struct Qdisc *sch, const struct bpf_prog *enqueue,
		 const struct bpf_prog *dequeue),
	TP_ARGS(sch, enqueue, dequeue)
);

/* These programs, or other parameters, are in force now. Of a tx queue without
 * programs both ids are 0.
 */
DEFINE_EVENT(sch_bpf_class, sch_bpf_change,
	TP_PROTO(const struct Qdisc *sch, const struct bpf_prog *enqueue,
		 const struct bpf_prog *dequeue),
	TP_ARGS(sch, enqueue, dequeue)
);

#endif /* _TRACE_SCH_BPF_H */

#include <trace/define_trace.h>
