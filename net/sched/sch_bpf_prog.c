// SPDX-License-Identifier: GPL-2.0
/* BPF_PROG_TYPE_QDISC: what programs of the qdisc "bpf" may read and write */
#include <linux/bpf.h>
#include <linux/bpf_verifier.h>
#include <linux/btf_ids.h>
#include <linux/filter.h>
#include <linux/skbuff.h>
#include "sch_bpf_priv.h"

BTF_ID_LIST(sch_bpf_btf_ids)
BTF_ID(struct, sk_buff)
BTF_ID(struct, Qdisc)

static int sch_bpf_init_ctx_args(struct bpf_prog *prog)
{
	const struct bpf_ctx_arg_aux packet = {
		.offset = offsetof(struct sch_bpf_ctx, skb),
		.reg_type = PTR_TO_BTF_ID | PTR_TRUSTED,
		.btf = bpf_get_btf_vmlinux(),
		.btf_id = sch_bpf_btf_ids[0],
		.refcounted = true,
	};

	if (prog->expected_attach_type != BPF_QDISC_ENQUEUE)
		return 0;
	return bpf_prog_ctx_arg_info_init(prog, &packet, 1);
}

static bool sch_bpf_pointer_access(struct bpf_insn_access_aux *info, u32 btf_id)
{
	info->reg_type = PTR_TO_BTF_ID | PTR_TRUSTED;
	info->btf = bpf_get_btf_vmlinux();
	info->btf_id = btf_id;
	return true;
}

static bool sch_bpf_is_valid_access(int off, int size, enum bpf_access_type type,
				    const struct bpf_prog *prog,
				    struct bpf_insn_access_aux *info)
{
	bool enqueue = prog->expected_attach_type == BPF_QDISC_ENQUEUE;

	if (enqueue && off == offsetof(struct sch_bpf_ctx, expire)) {
		bpf_log(info->log, "expire is for dequeue programs, which can wait\n");
		return false;
	}
	if (type == BPF_WRITE && off != offsetof(struct sch_bpf_ctx, expire)) {
		bpf_log(info->log, "of the context only expire can be written\n");
		return false;
	}
	switch (off) {
	case offsetof(struct sch_bpf_ctx, skb):
		if (size != sizeof(void *))
			return false;
		sch_bpf_pointer_access(info, sch_bpf_btf_ids[0]);
		if (enqueue)
			info->ref_id = prog->aux->ctx_arg_info[0].ref_id;
		else
			info->reg_type |= PTR_MAYBE_NULL;
		return true;
	case offsetof(struct sch_bpf_ctx, qdisc):
		if (size != sizeof(void *))
			return false;
		return sch_bpf_pointer_access(info, sch_bpf_btf_ids[1]);
	case offsetof(struct sch_bpf_ctx, expire):
		return size == sizeof(u64);
	case offsetof(struct sch_bpf_ctx, classid):
	case offsetof(struct sch_bpf_ctx, queue):
	case offsetof(struct sch_bpf_ctx, generation):
		return size == sizeof(u32);
	default:
		return false;
	}
}

static bool sch_bpf_skb_field_writable(int off, int size)
{
	static const struct {
		u32 start, end;
	} fields[] = {
		{ offsetof(struct sk_buff, tstamp), offsetofend(struct sk_buff, tstamp) },
		{ offsetof(struct sk_buff, mark), offsetofend(struct sk_buff, mark) },
		{ offsetof(struct sk_buff, priority), offsetofend(struct sk_buff, priority) },
		{ offsetof(struct sk_buff, cb) + offsetof(struct qdisc_skb_cb, data),
		  offsetof(struct sk_buff, cb) + offsetofend(struct qdisc_skb_cb, data) },
	};
	int i;

	for (i = 0; i < ARRAY_SIZE(fields); i++)
		if (off >= fields[i].start && off + size <= fields[i].end)
			return true;
	return false;
}

static int sch_bpf_btf_struct_access(struct bpf_verifier_log *log,
				     const struct bpf_reg_state *reg, int off, int size)
{
	if (reg->btf_id != sch_bpf_btf_ids[0] || !btf_is_kernel(reg->btf)) {
		bpf_log(log, "only a packet can be written to\n");
		return -EACCES;
	}
	if (!sch_bpf_skb_field_writable(off, size)) {
		bpf_log(log,
			"of a packet only tstamp, mark, priority, note (cb.data) can be written\n");
		return -EACCES;
	}
	return 0;
}

static const struct bpf_func_proto *
sch_bpf_func_proto(enum bpf_func_id func_id, const struct bpf_prog *prog)
{
	switch (func_id) {
	case BPF_FUNC_tail_call:
		/* The next program would start by owning a packet that this
		 * one may have given away.
		 */
	case BPF_FUNC_kptr_xchg:
		/* It can move a packet into any map that has a place for one,
		 * and nobody would count it.
		 */
		return NULL;
	default:
		return bpf_base_func_proto(func_id, prog);
	}
}

const struct bpf_verifier_ops qdisc_verifier_ops = {
	.get_func_proto		= sch_bpf_func_proto,
	.is_valid_access	= sch_bpf_is_valid_access,
	.btf_struct_access	= sch_bpf_btf_struct_access,
	.init_ctx_args		= sch_bpf_init_ctx_args,
};

const struct bpf_prog_ops qdisc_prog_ops = {
	.test_run	= sch_bpf_test_run,
};
