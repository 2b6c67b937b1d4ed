/* SPDX-License-Identifier: GPL-2.0 */
/* What a test written in C expects, and TAP. */
#ifndef SELFTESTS_EXPECT_H
#define SELFTESTS_EXPECT_H

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

static int tests, failed;

/* What the environment says, or the usual */
static inline unsigned int setting(const char *name, unsigned int usual)
{
	const char *text = getenv(name);

	return text ? (unsigned int)strtoul(text, NULL, 0) : usual;
}

static inline void result(bool ok, const char *name)
{
	printf("%sok %d %s\n", ok ? "" : "not ", ++tests, name);
	fflush(stdout);
	failed += !ok;
}

/* Say why, once, and fail the test that is running. */
#define expect(condition)								\
	do {										\
		if (!(condition)) {							\
			printf("# %s:%d: %s; errno %d\n", __func__, __LINE__, #condition, errno); \
			return false;							\
		}									\
	} while (0)

/* The same for numbers, which are shown. */
#define expect_equal(a, b)								\
	do {										\
		long long a_ = (a), b_ = (b);						\
											\
		if (a_ != b_) {								\
			printf("# %s:%d: %s is %lld, not %lld\n", __func__, __LINE__, #a, a_, b_); \
			return false;							\
		}									\
	} while (0)

#endif /* SELFTESTS_EXPECT_H */
