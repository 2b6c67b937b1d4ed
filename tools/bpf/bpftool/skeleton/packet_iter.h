/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#ifndef __PACKET_ITER_H
#define __PACKET_ITER_H

/* A packet in an ordered map. Its key and the element's value follow. */
struct packet_entry {
	__u64 tstamp;
	__u32 tstamp_type;
	__u32 len;
	__u32 wire_len;
	__u32 gso_segs;
	__u32 protocol;
	__u32 mark;
	__u32 priority;
	__u32 hash;
	__u32 ifindex;
	__u32 queue_mapping;
};

#endif /* __PACKET_ITER_H */
