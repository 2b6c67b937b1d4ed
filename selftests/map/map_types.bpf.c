// SPDX-License-Identifier: GPL-2.0
/* For map_types.c: a map of packets, and types of values that have special fields. */
#include "vmlinux.h"
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include "../lib/map.bpf.h"

struct pkt {
	struct sk_buff __kptr *skb;
	__u64 extra;
};

ORDERED(pkts, __u64, struct pkt, 8);

/* The type of a packet, not only its name */
SEC("syscall")
int look(void *ctx)
{
	__u64 key = 0;
	struct pkt *pkt = bpf_map_lookup_elem(&pkts, &key);

	return pkt && pkt->skb ? pkt->skb->len : 0;
}

#define __contains(type, node) __attribute__((btf_decl_tag("contains:" #type ":" #node)))
#define __uptr __attribute__((btf_type_tag("uptr")))

struct number {
	__u64 number;
};

struct in_list {
	struct bpf_list_node node;
};

struct in_tree {
	struct bpf_rb_node node;
};

struct has_lock { __u64 extra; struct bpf_spin_lock lock; };
struct has_res_lock { __u64 extra; struct bpf_res_spin_lock lock; };
struct has_timer { __u64 extra; struct bpf_timer timer; };
struct has_wq { __u64 extra; struct bpf_wq wq; };
struct has_task_work { __u64 extra; struct bpf_task_work work; };
struct has_list { struct bpf_spin_lock lock; struct bpf_list_head head __contains(in_list, node); };
struct has_tree { struct bpf_spin_lock lock; struct bpf_rb_root root __contains(in_tree, node); };
struct has_uptr { __u64 extra; struct number __uptr *number; };
struct has_timers { struct has_timer in[2]; };
struct has_packet_and_task { struct sk_buff __kptr *skb; struct task_struct __kptr *task; };
struct has_packet_and_number { struct number __kptr *number; struct sk_buff __kptr *skb; };
struct has_packets { struct sk_buff __kptr *skb[2]; };
struct has_refcount { struct bpf_refcount count; };
struct has_dynptr { struct bpf_dynptr dynptr; };

/* Types are in BTF, with their bodies, if they are used. */
#define USE(type)	(bpf_core_type_id_local(struct type))

SEC("syscall")
int use(void *ctx)
{
	return USE(has_lock) + USE(has_res_lock) + USE(has_timer) + USE(has_wq) +
	       USE(has_task_work) + USE(has_list) + USE(has_tree) + USE(has_uptr) +
	       USE(has_timers) + USE(has_packet_and_task) + USE(has_packet_and_number) +
	       USE(has_packets) + USE(has_refcount) + USE(has_dynptr) + USE(number) +
	       USE(in_list) + USE(in_tree) + USE(sk_buff) + USE(task_struct);
}

char LICENSE[] SEC("license") = "GPL";
