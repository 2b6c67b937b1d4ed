/* SPDX-License-Identifier: GPL-2.0 */
#ifndef QDISCTOP_H
#define QDISCTOP_H

/* Delays are counted in slots: slot n is for 2^n ns to 2^(n+1) ns. */
#define DELAY_SLOTS	40

struct qdisc_key {
	__u32 handle;
	__u32 parent;
};

struct qdisc_counts {
	__u64 packets;			/* taken, segments of GSO packets one by one */
	__u64 bytes;
	__u64 delay[DELAY_SLOTS];
};

struct drop_key {
	struct qdisc_key qdisc;
	__u32 reason;			/* low half of enum qdisc_drop_reason */
};

#endif /* QDISCTOP_H */
