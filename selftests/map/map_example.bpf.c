// SPDX-License-Identifier: GPL-2.0
/* The example of Documentation/bpf/map_rbtree.rst, word for word from the line
 * below on; map_example.c runs it and compares the texts.
 */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_rbtree.h>

/* Events wait for their time; those of one time keep their order. */
struct {
	__uint(type, BPF_MAP_TYPE_RBTREE);
	__type(key, __u64);		/* when, in ns */
	__type(value, __u32);		/* which event */
	__uint(max_entries, 1024);
} events SEC(".maps");

struct event_request {
	__u64 time;
	__u32 event;
};

SEC("syscall")
int add_event(struct event_request *request)
{
	__u64 when = request->time;
	__u32 event = request->event;

	return bpf_rbtree_map_push(&events, &when, &event);	/* -E2BIG if full */
}

/* Take the next event that is due, if there is one. */
SEC("syscall")
int next_event(struct event_request *request)
{
	__u64 now = request->time, when = 0;
	__u32 event = 0;

	if (bpf_rbtree_map_pop_until(&events, &now, &when, &event))
		return 0;
	request->time = when;
	request->event = event;
	return 1;
}

__u64 last_event;

static long look_at_event(struct bpf_map *map, __u64 *when, __u32 *event, void *unused)
{
	last_event = *when;
	return 0;			/* 1 would end it */
}

/* Visit all, in order; how many there are. */
SEC("syscall")
int count_events(void *ctx)
{
	return bpf_for_each_map_elem(&events, look_at_event, NULL, 0);
}

char LICENSE[] SEC("license") = "GPL";
