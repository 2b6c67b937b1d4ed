// SPDX-License-Identifier: GPL-2.0
/* Programs that misuse a ring, or the packets of a qdisc beside it, must be refused when they
 * are loaded, each with what the verifier has to say. selftests/lib/load.c reads the annotations.
 */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_qdisc.h>
#include <bpf/bpf_rbtree.h>
#include <bpf/bpf_uring.h>

#define __refused(words) __attribute__((btf_decl_tag("refused:" words)))
#define __accepted	 __attribute__((btf_decl_tag("accepted:")))

#define NUMBER	(&(__u64){ 0 })

BPF_QDISC_QUEUE(pkts, __u64, 8);

__u64 kept;
__u32 size = 64;

#define SQES(ctx, size) bpf_io_uring_get_region(ctx, IOU_REGION_SQ, size)

/* A program and the struct_ops NAME_ops */
#define LOOP(section, name, annotation)						\
	int name(unsigned long long *ctx);					\
	SEC(".struct_ops.link")							\
	struct io_uring_bpf_ops name##_ops = { .loop_step = (void *)name };	\
	SEC(section "/" #name) annotation					\
	int BPF_PROG(name, struct iou_ctx *iou, struct iou_loop_params *params)

LOOP("struct_ops.s", submit, __accepted)
{
	__u8 *sqes = SQES(iou, 4096);

	if (!sqes)
		return IOU_LOOP_STOP;
	sqes[4095] = 0;
	bpf_io_uring_submit_sqes(iou, 1);
	params->cq_wait_idx = 1;
	return IOU_LOOP_CONTINUE;
}

LOOP("struct_ops", submit_and_not_sleep, __refused("program must be sleepable to call sleepable kfunc bpf_io_uring_submit_sqes"))
{
	bpf_io_uring_submit_sqes(iou, 1);
	return IOU_LOOP_STOP;
}

LOOP("struct_ops.s", memory_for_a_ring, __refused("expected STRUCT iou_ctx"))
{
	bpf_io_uring_submit_sqes((struct iou_ctx *)&kept, 1);
	return IOU_LOOP_STOP;
}

LOOP("struct_ops.s", beyond_the_region, __refused("invalid access to memory, mem_size=4096 off=4096 size=1"))
{
	__u8 *sqes = SQES(iou, 4096);

	if (sqes)
		sqes[4096] = 0;
	return IOU_LOOP_STOP;
}

LOOP("struct_ops.s", before_the_region, __refused("R1 is ptr_to_mem"))
{
	__u8 *sqes = SQES(iou, 4096);

	if (sqes)
		sqes[-1] = 0;
	return IOU_LOOP_STOP;
}

LOOP("struct_ops.s", anywhere_in_the_region, __refused("invalid access to memory"))
{
	__u8 *sqes = SQES(iou, 4096);

	if (sqes)
		sqes[size] = 0;
	return IOU_LOOP_STOP;
}

LOOP("struct_ops.s", a_region_that_is_not_there, __refused("invalid mem access 'mem_or_null'"))
{
	SQES(iou, 4096)[0] = 0;
	return IOU_LOOP_STOP;
}

LOOP("struct_ops.s", a_region_of_any_size, __refused("must be a known constant"))
{
	return !SQES(iou, size);
}

LOOP("struct_ops.s", a_region_of_the_last_run, __refused("invalid mem access 'scalar'"))
{
	__u8 *sqes = (void *)kept;

	if (sqes)
		sqes[0] = 0;
	kept = (__u64)SQES(iou, 4096);
	return IOU_LOOP_CONTINUE;
}

LOOP("struct_ops.s", write_to_the_ring, __refused("beyond struct iou_ctx"))
{
	*(__u32 *)iou = 0;
	return IOU_LOOP_STOP;
}

LOOP("struct_ops.s", write_behind_the_parameters, __refused("beyond struct iou_loop_params"))
{
	(&params->cq_wait_idx)[1] = 0;
	return IOU_LOOP_STOP;
}

/* ---- beside a qdisc ---- */

LOOP("struct_ops.s", look_at_packets, __accepted)
{
	struct pkt *pkt = bpf_rbtree_map_first(&pkts, NUMBER);

	if (pkt && pkt->skb)
		kept = pkt->skb->len;
	return bpf_rbtree_map_len(&pkts) && bpf_rbtree_map_bytes(&pkts);
}

LOOP("struct_ops.s", push_packets, __refused("expected an rbtree map that holds neither packets nor maps, but 'pkts' is none"))
{
	return bpf_rbtree_map_push(&pkts, NUMBER, NUMBER);
}

LOOP("struct_ops.s", pop_packets, __refused("expected an rbtree map that holds neither packets nor maps, but 'pkts' is none"))
{
	return bpf_rbtree_map_pop(&pkts, NUMBER, NUMBER);
}

LOOP("struct_ops.s", move_packets, __refused("expected an rbtree map that holds no packets, but 'pkts' is none"))
{
	return bpf_rbtree_map_move(&pkts, NUMBER, NUMBER);
}

LOOP("struct_ops.s", exchange_packets, __refused("kptr"))
{
	struct pkt *pkt = bpf_rbtree_map_first(&pkts, NUMBER);

	if (pkt)
		bpf_kptr_xchg(&pkt->skb, NULL);
	return IOU_LOOP_STOP;
}

LOOP("struct_ops.s", take_packets, __refused("is not allowed"))
{
	return bpf_qdisc_pop((struct sch_bpf_ctx *)iou, &pkts);
}

/* ---- who is not a loop ---- */

SEC("syscall")
__refused("calling kernel function bpf_io_uring_submit_sqes is not allowed")
int submit_elsewhere(struct iou_ctx *iou)
{
	return bpf_io_uring_submit_sqes(iou, 1);
}

char LICENSE[] SEC("license") = "GPL";
