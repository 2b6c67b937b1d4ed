// SPDX-License-Identifier: GPL-2.0
/* The BPF iterator "bpf_qdisc_packet": what is in a map of packets
 *
 * For each packet a program gets the key, the value, and of the packet itself a
 * struct bpf_qdisc_packet. All three are copies that are made under the map's
 * lock; the program runs without it, and the packet may have left meanwhile. No
 * reference is taken, so looking does not delay anything.
 */
#include <linux/bpf.h>
#include <linux/bpf_rbtree.h>
#include <linux/netdevice.h>
#include <linux/seq_file.h>
#include <linux/skbuff.h>
#include <linux/slab.h>
#include <net/sch_generic.h>

/* What struct __sk_buff shows of a packet, under the same names. It is no struct
 * __sk_buff: functions that take one would take the copy for the packet.
 */
struct bpf_qdisc_packet {
	u64 tstamp;
	u32 tstamp_type;
	u32 len;
	u32 wire_len;
	u32 gso_segs;
	u32 gso_size;
	u32 mark;
	u32 priority;
	u32 hash;
	u32 protocol;		/* network byte order */
	u32 queue_mapping;
	u32 ifindex;
};

/* After the last packet key and value are NULL. A program need not ask whether @skb
 * is: without a ctx_arg_info of its own, of which there can be two, it never is.
 */
struct bpf_iter__bpf_qdisc_packet {
	__bpf_md_ptr(struct bpf_iter_meta *, meta);
	__bpf_md_ptr(struct bpf_map *, map);
	__bpf_md_ptr(void *, key);
	__bpf_md_ptr(void *, value);
	__bpf_md_ptr(struct bpf_qdisc_packet *, skb);
};

DEFINE_BPF_ITER_FUNC(bpf_qdisc_packet, struct bpf_iter_meta *meta, struct bpf_map *map,
		     void *key, void *value, struct bpf_qdisc_packet *skb)

struct sch_bpf_seq {
	struct bpf_map *map;
	struct bpf_rbtree_cursor cursor;
	struct bpf_qdisc_packet packet;
	struct bpf_qdisc_packet *shown;	/* &packet; NULL before the first and after the last */
	void *value;
};

/* Under the map's lock. The device lives as long as packets are in its qdisc. */
static void sch_bpf_packet_copy(const void *obj, void *arg)
{
	const struct sk_buff *skb = obj;
	struct bpf_qdisc_packet *packet = arg;

	packet->len = skb->len;
	packet->mark = skb->mark;
	packet->queue_mapping = skb->queue_mapping;
	packet->protocol = (__force u32)skb->protocol;
	packet->priority = skb->priority;
	packet->ifindex = skb->dev ? skb->dev->ifindex : 0;
	packet->hash = skb->hash;
	packet->tstamp = skb->tstamp;
	packet->tstamp_type = skb->tstamp_type;
	packet->wire_len = qdisc_pkt_len(skb);
	packet->gso_segs = skb_shinfo(skb)->gso_segs;
	packet->gso_size = skb_shinfo(skb)->gso_size;
}

static void *sch_bpf_seq_walk(struct sch_bpf_seq *info)
{
	int err;

	err = bpf_rbtree_look(info->map, &info->cursor, info->value, sch_bpf_packet_copy,
			      &info->packet);
	if (err && err != -ENOENT) {
		info->shown = NULL;	/* the next read() must not show it again */
		return ERR_PTR(err);
	}
	info->shown = err ? NULL : &info->packet;
	return info->shown;
}

static void *sch_bpf_seq_start(struct seq_file *seq, loff_t *pos)
{
	struct sch_bpf_seq *info = seq->private;

	if (*pos)
		return info->shown;
	++*pos;
	return sch_bpf_seq_walk(info);
}

static void *sch_bpf_seq_next(struct seq_file *seq, void *v, loff_t *pos)
{
	++*pos;
	return sch_bpf_seq_walk(seq->private);
}

static int sch_bpf_seq_show(struct seq_file *seq, void *packet)
{
	struct bpf_iter__bpf_qdisc_packet ctx = {};
	struct sch_bpf_seq *info = seq->private;
	struct bpf_iter_meta meta;
	struct bpf_prog *prog;

	meta.seq = seq;
	prog = bpf_iter_get_info(&meta, !packet);
	if (!prog)
		return 0;

	ctx.meta = &meta;
	ctx.map = info->map;
	ctx.key = packet ? info->cursor.key : NULL;
	ctx.value = packet ? info->value : NULL;
	ctx.skb = &info->packet;
	return bpf_iter_run_prog(prog, &ctx);
}

static void sch_bpf_seq_stop(struct seq_file *seq, void *packet)
{
	if (!packet)
		sch_bpf_seq_show(seq, NULL);
}

static int sch_bpf_seq_init(void *priv, struct bpf_iter_aux_info *aux)
{
	struct sch_bpf_seq *info = priv;

	info->value = kvmalloc(aux->map->value_size, GFP_USER | __GFP_NOWARN);
	if (!info->value)
		return -ENOMEM;
	bpf_rbtree_share(aux->map);
	bpf_map_inc_with_uref(aux->map);
	info->map = aux->map;
	return 0;
}

static void sch_bpf_seq_fini(void *priv)
{
	struct sch_bpf_seq *info = priv;

	bpf_map_put_with_uref(info->map);
	kvfree(info->value);
}

static const struct seq_operations sch_bpf_seq_ops = {
	.start	= sch_bpf_seq_start,
	.next	= sch_bpf_seq_next,
	.stop	= sch_bpf_seq_stop,
	.show	= sch_bpf_seq_show,
};

static const struct bpf_iter_seq_info sch_bpf_seq_info = {
	.seq_ops		= &sch_bpf_seq_ops,
	.init_seq_private	= sch_bpf_seq_init,
	.fini_seq_private	= sch_bpf_seq_fini,
	.seq_priv_size		= sizeof(struct sch_bpf_seq),
};

static int sch_bpf_iter_attach(struct bpf_prog *prog, union bpf_iter_link_info *linfo,
			       struct bpf_iter_aux_info *aux)
{
	struct bpf_map *map;
	int err = 0;

	if (!linfo->map.map_fd)
		return -EBADF;
	map = bpf_map_get_with_uref(linfo->map.map_fd);
	if (IS_ERR(map))
		return PTR_ERR(map);

	if (map->excl_prog_sha)
		err = -EPERM;
	else if (!bpf_rbtree_holds_packets(map))
		err = -EINVAL;
	else if (prog->aux->max_rdonly_access > map->key_size ||
		 prog->aux->max_rdwr_access > map->value_size)
		err = -EACCES;
	if (err)
		bpf_map_put_with_uref(map);
	else
		aux->map = map;
	return err;
}

static void sch_bpf_iter_detach(struct bpf_iter_aux_info *aux)
{
	bpf_map_put_with_uref(aux->map);
}

static const struct bpf_iter_reg sch_bpf_iter_reg = {
	.target			= "bpf_qdisc_packet",
	.attach_target		= sch_bpf_iter_attach,
	.detach_target		= sch_bpf_iter_detach,
	.show_fdinfo		= bpf_iter_map_show_fdinfo,
	.fill_link_info		= bpf_iter_map_fill_link_info,
	.ctx_arg_info_size	= 2,
	.ctx_arg_info		= {
		{ offsetof(struct bpf_iter__bpf_qdisc_packet, key),
		  PTR_TO_BUF | PTR_MAYBE_NULL | MEM_RDONLY },
		{ offsetof(struct bpf_iter__bpf_qdisc_packet, value),
		  PTR_TO_BUF | PTR_MAYBE_NULL },
	},
	.seq_info		= &sch_bpf_seq_info,
};

static int __init sch_bpf_iter_init(void)
{
	return bpf_iter_reg_target(&sch_bpf_iter_reg);
}
late_initcall(sch_bpf_iter_init);
