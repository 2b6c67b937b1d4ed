/* SPDX-License-Identifier: GPL-2.0 */
/* What send.bpf.c does with a packet of this mark, which is also the order in which they leave */
#ifndef SELFTESTS_SEND_MARKS_H
#define SELFTESTS_SEND_MARKS_H

enum {
	REFUSE = 1,		/* it is dropped when it comes, */
	LOSE,			/* or so that its sender is not told, */
	LATE,			/* or when it is to leave */
	CUT,			/* it is cut, and a segment of less than SHORT bytes is held */
	HOLD,			/* it is held until one with GO has come */
	GO,			/* it leaves behind those that were held */
};

#define SHORT		1000

#endif /* SELFTESTS_SEND_MARKS_H */
