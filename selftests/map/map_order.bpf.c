// SPDX-License-Identifier: GPL-2.0
/* For map_order.c: for each type of key a map and a program that fills it with
 * random keys, and empties it again. Values are numbers in the order of arrival.
 */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include "../lib/map.bpf.h"

#define ENTRIES	100000
#define FEW	10000	/* that an enum is an integer is seen with fewer, too */

struct pair {
	__u16 high;
	__s32 low;		/* after two bytes of padding */
};

struct flow {
	__u8 address[6];
	__u16 ports[2];
	struct {
		__s8 class;
		__u64 cookie;
	} tag;
};

/* Enums are sorted as the numbers they stand for. */
enum unsigned_enum { UNSIGNED_ZERO, UNSIGNED_LAST = 0xffffffff };
enum signed_enum { SIGNED_FIRST = -0x7fffffff - 1, SIGNED_ZERO = 0 };
enum small_enum { SMALL_FIRST = -128, SMALL_LAST = 127 } __attribute__((packed));
enum unsigned_enum64 { UNSIGNED64_ZERO, UNSIGNED64_LAST = 0xffffffffffffffff };
enum signed_enum64 { SIGNED64_FIRST = -0x7fffffffffffffff - 1, SIGNED64_ZERO = 0 };

struct member {
	__u8 high;
	enum signed_enum low;
};

struct member64 {
	enum signed_enum64 high;
	enum unsigned_enum low;
};

struct out {
	__u32 count;		/* elements that came out */
	__u32 wrong;		/* of these, ones that should not have come after the one before */
};

static int compare_pair(const struct pair *a, const struct pair *b)
{
	if (a->high != b->high)
		return a->high < b->high ? -1 : 1;
	return a->low < b->low ? -1 : a->low > b->low;
}

static int compare_flow(const struct flow *a, const struct flow *b)
{
	int i;

	for (i = 0; i < 6; i++)
		if (a->address[i] != b->address[i])
			return a->address[i] < b->address[i] ? -1 : 1;
	for (i = 0; i < 2; i++)
		if (a->ports[i] != b->ports[i])
			return a->ports[i] < b->ports[i] ? -1 : 1;
	if (a->tag.class != b->tag.class)
		return a->tag.class < b->tag.class ? -1 : 1;
	return a->tag.cookie < b->tag.cookie ? -1 : a->tag.cookie > b->tag.cookie;
}

#define compare_number(a, b)	(*(a) < *(b) ? -1 : *(a) > *(b))

/* Half of the keys are of few values, so that many are equal. */
#define random_number(key)						\
	do {								\
		__u64 r = (__u64)bpf_get_prandom_u32() << 32 | bpf_get_prandom_u32(); \
									\
		*(key) = r & 1 ? r >> 1 : (r >> 1) % 64 - 32;		\
	} while (0)

static void random_pair(struct pair *key)
{
	__builtin_memset(key, bpf_get_prandom_u32() & 1 ? 0xff : 0, sizeof(*key));
	key->high = bpf_get_prandom_u32() % 64;
	random_number(&key->low);
}

static void random_flow(struct flow *key)
{
	__builtin_memset(key, bpf_get_prandom_u32() & 1 ? 0xff : 0, sizeof(*key));
	key->address[0] = 1;
	key->address[3] = bpf_get_prandom_u32() % 3;
	key->ports[1] = bpf_get_prandom_u32() % 3 << 8;
	key->ports[0] = bpf_get_prandom_u32() % 3 << 7;
	key->tag.class = (int)(bpf_get_prandom_u32() % 3) - 1;
	random_number(&key->tag.cookie);
}

#define compare_members(a, b)						\
	((a)->high != (b)->high ? compare_number(&(a)->high, &(b)->high) :	\
				  compare_number(&(a)->low, &(b)->low))

#define random_members(key)						\
	do {								\
		__builtin_memset(key, bpf_get_prandom_u32() & 1 ? 0xff : 0, sizeof(*(key)));	\
		(key)->high = (int)(bpf_get_prandom_u32() % 64) - 32;	\
		random_number(&(key)->low);				\
	} while (0)

#define TEST(name, type, random_key, compare, entries, flags)		\
ORDERED_FLAGS(name, type, __u32, entries, flags);			\
									\
static int push_##name(__u32 i, void *unused)				\
{									\
	type key;							\
									\
	random_key(&key);						\
	return bpf_rbtree_map_push(&name, &key, &i) != 0;		\
}									\
									\
struct {								\
	type key;							\
	__u32 value;							\
} last_##name;								\
									\
static int pop_##name(__u32 i, struct out *out)				\
{									\
	__u32 value = 0;						\
	type key = {};							\
	int c;								\
									\
	if (bpf_rbtree_map_pop(&name, &key, &value))			\
		return 1;						\
	out->count++;							\
	if (i) {							\
		c = compare(&last_##name.key, &key);			\
		if (c > 0 || (!c && last_##name.value >= value))	\
			out->wrong++;					\
	}								\
	last_##name.key = key;						\
	last_##name.value = value;					\
	return 0;							\
}									\
									\
SEC("syscall")								\
int order_##name(struct out *args)					\
{									\
	struct out out = {};						\
									\
	if (bpf_loop(entries, push_##name, NULL, 0) != entries)		\
		return 1;						\
	if (push_##name(0, NULL) == 0)					\
		return 2;	/* full, and yet */			\
	bpf_loop(entries + 1, pop_##name, &out, 0);			\
	*args = out;							\
	return 0;							\
}

TEST(by_u8, __u8, random_number, compare_number, ENTRIES, 0)
TEST(by_s8, __s8, random_number, compare_number, ENTRIES, 0)
TEST(by_u16, __u16, random_number, compare_number, ENTRIES, 0)
TEST(by_s16, __s16, random_number, compare_number, ENTRIES, 0)
TEST(by_u32, __u32, random_number, compare_number, ENTRIES, 0)
TEST(by_s32, __s32, random_number, compare_number, ENTRIES, 0)
TEST(by_u64, __u64, random_number, compare_number, ENTRIES, 0)
TEST(by_s64, __s64, random_number, compare_number, ENTRIES, 0)
TEST(by_pair, struct pair, random_pair, compare_pair, ENTRIES, 0)
TEST(by_flow, struct flow, random_flow, compare_flow, ENTRIES, 0)
TEST(by_enum, enum unsigned_enum, random_number, compare_number, FEW, 0)
TEST(by_signed_enum, enum signed_enum, random_number, compare_number, FEW, 0)
TEST(by_small_enum, enum small_enum, random_number, compare_number, FEW, 0)
TEST(by_enum64, enum unsigned_enum64, random_number, compare_number, FEW, 0)
TEST(by_signed_enum64, enum signed_enum64, random_number, compare_number, FEW, 0)
TEST(by_member, struct member, random_members, compare_members, FEW, 0)
TEST(by_member64, struct member64, random_members, compare_members, FEW, 0)
TEST(no_prealloc, __u64, random_number, compare_number, ENTRIES, BPF_F_NO_PREALLOC)

char LICENSE[] SEC("license") = "GPL";
