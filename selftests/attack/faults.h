/* SPDX-License-Identifier: GPL-2.0 */
/* Memory that cannot be had, at every point of an operation in turn: the nth request of
 * this task fails, or all from the nth on do.
 */
#ifndef SELFTESTS_FAULTS_H
#define SELFTESTS_FAULTS_H

#include <err.h>
#include <stdbool.h>
#include <stdint.h>
#include <unistd.h>

#include "faults.skel.h"

#define FOREVER	(1ULL << 40)

static struct faults *faults;

static inline void faults_load(void)
{
	faults = faults__open_and_load();
	if (!faults || faults__attach(faults))
		err(1, "no faults can be had");
}

/* Of the requests of each operation from now on, these will fail. */
static inline void faults_set(uint64_t first, uint64_t last)
{
	faults->data->fail_from = first;
	faults->bss->fail_to = last;
	faults->bss->failures = 0;
}

static inline void faults_begin(void)
{
	faults->bss->requests = 0;
	faults->bss->pid = getpid();
}

static inline void faults_end(void)
{
	faults->bss->pid = 0;
}

/* Has any failed? */
static inline bool faults_hit(void)
{
	return faults->bss->failures;
}

#endif /* SELFTESTS_FAULTS_H */
