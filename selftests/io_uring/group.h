/* SPDX-License-Identifier: GPL-2.0 */
/* What group.c and group.bpf.c agree on */
#ifndef SELFTESTS_GROUP_H
#define SELFTESTS_GROUP_H

#define TAGS		8		/* requests of the block device at a time */
#define PEERS		8

#endif /* SELFTESTS_GROUP_H */
