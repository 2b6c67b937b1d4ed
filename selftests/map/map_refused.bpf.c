// SPDX-License-Identifier: GPL-2.0
/* Programs that misuse an ordered map must be refused when they are loaded, each
 * with what the verifier has to say. selftests/lib/load.c reads the annotations.
 */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include "../lib/map.bpf.h"

#define __refused(words) __attribute__((btf_decl_tag("refused:" words)))
#define __accepted	 __attribute__((btf_decl_tag("accepted:")))

struct pkt {
	struct sk_buff __kptr *skb;
};

struct held {
	struct task_struct __kptr *task;
};

ORDERED(numbers, __u64, __u64, 8);
ORDERED(pkts, __u64, struct pkt, 8);
ORDERED(tasks, __u64, struct held, 8);

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, __u64);
	__type(value, __u64);
	__uint(max_entries, 8);
} hash SEC(".maps");

/* Nothing beside it that could be taken for a part of it */
#define HALF	(&(__u32){ 0 })
__u64 number;

#define NUMBER	(&(__u64){ 0 })
#define UNTRUSTED	bpf_rdonly_cast((void *)1, bpf_core_type_id_kernel(struct list_head))

SEC("syscall")
__accepted
int push(void *ctx)
{
	return bpf_rbtree_map_push(&numbers, NUMBER, NUMBER);
}

SEC("syscall")
__accepted
int use_the_first(void *ctx)
{
	__u64 *value = bpf_rbtree_map_first(&numbers, NUMBER);

	return value ? (*value)++ : 0;
}

SEC("syscall")
__accepted
int look_at_a_packet(void *ctx)
{
	struct pkt *pkt = bpf_rbtree_map_first(&pkts, NUMBER);

	return pkt && pkt->skb ? pkt->skb->len : 0;
}

SEC("syscall")
__refused("expected an rbtree map that holds neither packets nor maps, but 'hash' is none")
int push_into_a_hash_map(void *ctx)
{
	return bpf_rbtree_map_push(&hash, NUMBER, NUMBER);
}

SEC("syscall")
__refused("expected an rbtree map, but 'hash' is none")
int first_of_a_hash_map(void *ctx)
{
	return !bpf_rbtree_map_first(&hash, NUMBER);
}

SEC("syscall")
__refused("expected an rbtree map, but 'hash' is none")
int length_of_a_hash_map(void *ctx)
{
	return bpf_rbtree_map_len(&hash);
}

SEC("syscall")
__refused("expected an rbtree map whose value holds one sk_buff kptr, but 'numbers' is none")
int bytes_of_a_map_of_numbers(void *ctx)
{
	return bpf_rbtree_map_bytes(&numbers);
}

SEC("syscall")
__accepted
int bytes_of_a_map_of_packets(void *ctx)
{
	return bpf_rbtree_map_bytes(&pkts);
}

SEC("syscall")
__accepted
int use_the_last_and_the_next(void *ctx)
{
	__u64 key = 0, *value = bpf_rbtree_map_last(&numbers, &key);

	if (value)
		(*value)++;
	value = bpf_rbtree_map_upper_bound(&numbers, &key);
	return value ? (*value)++ : 0;
}

SEC("syscall")
__refused("expected an rbtree map that holds neither packets nor maps, but 'pkts' is none")
int push_into_a_map_of_packets(void *ctx)
{
	return bpf_rbtree_map_push(&pkts, NUMBER, NUMBER);
}

SEC("syscall")
__refused("is not a key of map 'numbers', 8 bytes")
int a_short_key(void *ctx)
{
	return bpf_rbtree_map_push(&numbers, HALF, NUMBER);
}

SEC("syscall")
__refused("is not a value of map 'numbers', 8 bytes")
int a_short_value(void *ctx)
{
	return bpf_rbtree_map_push(&numbers, &number, HALF);
}

SEC("syscall")
__refused("is not a value of map 'numbers', 8 bytes")
int pop_into_too_little(void *ctx)
{
	return bpf_rbtree_map_pop(&numbers, &number, HALF);
}

static const __u64 constant = 1;

SEC("syscall")
__refused("is not a key of map 'numbers', 8 bytes")
int pop_into_a_constant(void *ctx)
{
	return bpf_rbtree_map_pop(&numbers, (void *)&constant, NUMBER);
}

SEC("syscall")
__refused("is not a key of map 'numbers', 8 bytes")
int pop_until_a_short_bound(void *ctx)
{
	return bpf_rbtree_map_pop_until(&numbers, HALF, &number, NUMBER);
}

SEC("syscall")
__refused("is not a key of map 'numbers', 8 bytes")
int pop_until_into_a_constant(void *ctx)
{
	return bpf_rbtree_map_pop_until(&numbers, &constant, (void *)&constant, NUMBER);
}

SEC("syscall")
__refused("is not a key of map 'numbers', 8 bytes")
int last_key_into_too_little(void *ctx)
{
	return !bpf_rbtree_map_last(&numbers, HALF);
}

SEC("syscall")
__refused("is not a key of map 'numbers', 8 bytes")
int upper_bound_of_a_constant(void *ctx)
{
	return !bpf_rbtree_map_upper_bound(&numbers, (void *)&constant);
}

SEC("syscall")
__refused("invalid mem access 'map_value_or_null'")
int use_a_last_that_may_not_be_there(void *ctx)
{
	__u64 *value = bpf_rbtree_map_last(&numbers, NUMBER);

	return *value;
}

SEC("syscall")
__refused("is not a value of map 'numbers', 8 bytes")
int pop_key_into_too_little(void *ctx)
{
	return bpf_rbtree_map_pop_key(&numbers, &constant, HALF);
}

SEC("syscall")
__refused("invalid mem access 'map_value_or_null'")
int first_without_a_check(void *ctx)
{
	__u64 *value = bpf_rbtree_map_first(&numbers, NUMBER);

	return *value;
}

SEC("syscall")
__refused("invalid access to map value")
int beyond_the_value(void *ctx)
{
	__u64 *value = bpf_rbtree_map_lower_bound(&numbers, NUMBER);

	return value ? value[1] : 0;
}

SEC("syscall")
__refused("one task_struct kptr, but 'numbers' is none")
int pop_a_task_of_numbers(void *ctx)
{
	struct task_struct *task = bpf_rbtree_map_pop_task(&numbers, NUMBER);

	if (task)
		bpf_task_release(task);
	return 0;
}

SEC("syscall")
__refused("Unreleased reference")
int leak_a_task(void *ctx)
{
	return !bpf_rbtree_map_pop_task(&tasks, NUMBER);
}

SEC("syscall")
__refused("expects referenced PTR_TO_BTF_ID")
int push_a_task_not_owned(void *ctx)
{
	return bpf_rbtree_map_push_task(bpf_get_current_task_btf(), &tasks, NUMBER);
}

SEC("syscall")
__refused("expects referenced PTR_TO_BTF_ID")
int push_a_task_twice(void *ctx)
{
	struct task_struct *task = bpf_task_acquire(bpf_get_current_task_btf());

	if (!task)
		return 0;
	bpf_rbtree_map_push_task(task, &tasks, NUMBER);
	return bpf_rbtree_map_push_task(task, &tasks, NUMBER);
}

SEC("syscall")
__refused("store to referenced kptr disallowed")
int write_over_a_task(void *ctx)
{
	__u64 *value = bpf_rbtree_map_first(&tasks, NUMBER);

	if (value)
		*value = 1;
	return 0;
}

SEC("syscall")
__refused("are not moved by bpf_kptr_xchg")
int exchange_a_packet(void *ctx)
{
	struct pkt *pkt = bpf_rbtree_map_first(&pkts, NUMBER);

	if (pkt)
		bpf_kptr_xchg(&pkt->skb, NULL);
	return 0;
}

SEC("syscall")
__refused("is not a key of map 'numbers', 8 bytes")
int key_by_an_untrusted_pointer(void *ctx)
{
	return bpf_rbtree_map_push(&numbers, UNTRUSTED, NUMBER);
}

SEC("syscall")
__refused("is not a value of map 'numbers', 8 bytes")
int value_by_an_untrusted_pointer(void *ctx)
{
	return bpf_rbtree_map_push(&numbers, NUMBER, UNTRUSTED);
}

SEC("syscall")
__accepted
int key_by_a_trusted_pointer(void *ctx)
{
	struct task_struct *task = bpf_get_current_task_btf();

	return bpf_rbtree_map_push(&numbers, &task->start_time, &task->start_time);
}

SEC("syscall")
__refused("is not a key of map 'numbers', 8 bytes")
int key_into_a_kernel_object(void *ctx)
{
	struct task_struct *task = bpf_get_current_task_btf();

	return !bpf_rbtree_map_first(&numbers, &task->start_time);
}

/* Packets of these programs are read only. */
SEC("cgroup_skb/egress")
__accepted
int key_from_packet_data(struct __sk_buff *skb)
{
	void *data = (void *)(long)skb->data;

	if (data + 16 <= (void *)(long)skb->data_end)
		bpf_rbtree_map_push(&numbers, data, data + 8);
	return 1;
}

SEC("cgroup_skb/egress")
__refused("is not a key of map 'numbers', 8 bytes")
int key_into_packet_data(struct __sk_buff *skb)
{
	void *data = (void *)(long)skb->data;

	if (data + 8 <= (void *)(long)skb->data_end)
		bpf_rbtree_map_first(&numbers, data);
	return 1;
}

SEC("cgroup_skb/egress")
__accepted
int key_from_a_slice(struct __sk_buff *skb)
{
	struct bpf_dynptr packet;
	__u64 buffer, *key;

	bpf_dynptr_from_skb(skb, 0, &packet);
	key = bpf_dynptr_slice(&packet, 0, &buffer, sizeof(buffer));
	if (key)
		bpf_rbtree_map_push(&numbers, key, key);
	return 1;
}

/* These may write, into a packet that has no clones then. */
SEC("tc")
__accepted
int key_into_writable_packet_data(struct __sk_buff *skb)
{
	void *data = (void *)(long)skb->data;

	if (data + 8 <= (void *)(long)skb->data_end)
		bpf_rbtree_map_first(&numbers, data);
	return 0;
}

struct packets {
	__uint(type, BPF_MAP_TYPE_RBTREE);
	__type(key, __u64);
	__type(value, struct pkt);
	__uint(max_entries, 8);
};

struct {
	__uint(type, BPF_MAP_TYPE_RBTREE);
	__type(key, __u64);
	__type(value, __u32);
	__uint(max_entries, 8);
	__array(values, struct packets);
} maps_of_packets SEC(".maps");

SEC("raw_tp/sys_enter")
__refused("tracing progs cannot use rbtree maps of packets")
int trace_maps_of_packets(void *ctx)
{
	return !bpf_map_lookup_elem(&maps_of_packets, NUMBER);
}

SEC("raw_tp/sys_enter")
__refused("tracing progs cannot use rbtree maps of packets")
int trace_packets(void *ctx)
{
	return !bpf_map_lookup_elem(&pkts, NUMBER);
}

char LICENSE[] SEC("license") = "GPL";
