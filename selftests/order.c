// SPDX-License-Identifier: GPL-2.0
/*
 * order OBJECT: the ordered map as user space sees it, against a plain sorted
 * array. Prints TAP. The seed of the random numbers is printed; set SEED to use
 * one again.
 */
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <err.h>
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define ENTRIES		500	/* max_entries of every map in order.bpf.c */
#define KEY_MAX		8

struct pair {
	uint16_t high;
	int32_t low;
};

static struct bpf_object *obj;
static int tests, failed;

static void result(bool ok, const char *name)
{
	printf("%sok %d %s\n", ok ? "" : "not ", ++tests, name);
	fflush(stdout);
	failed += !ok;
}

/* Say why, once, and fail the test that is running. */
#define expect(condition)								\
	do {										\
		if (!(condition)) {							\
			printf("# line %d: %s; errno %d\n", __LINE__, #condition, errno); \
			return false;							\
		}									\
	} while (0)

/* ---- the model: a sorted array ---- */

struct model {
	size_t size;			/* of a key */
	int (*compare)(const void *a, const void *b, size_t size);
	struct {
		uint8_t key[KEY_MAX];
		uint64_t value;
	} at[ENTRIES];
	int count;
};

#define INTEGER_ORDER(type)							\
static int compare_##type(const void *a, const void *b, size_t size)		\
{										\
	type x, y;								\
										\
	memcpy(&x, a, size);							\
	memcpy(&y, b, size);							\
	return x < y ? -1 : x > y;						\
}

INTEGER_ORDER(uint64_t)
INTEGER_ORDER(int64_t)
INTEGER_ORDER(uint32_t)
INTEGER_ORDER(int32_t)
INTEGER_ORDER(int16_t)
INTEGER_ORDER(uint8_t)

static int compare_pair(const void *a, const void *b, size_t size)
{
	const struct pair *x = a, *y = b;

	(void)size;
	if (x->high != y->high)
		return x->high < y->high ? -1 : 1;
	return x->low < y->low ? -1 : x->low > y->low;
}

/* Index of the first key that is not below @key; *@same: is it @key? */
static int model_find(const struct model *m, const void *key, bool *same)
{
	int i = 0, c = 1;

	while (i < m->count) {
		c = m->compare(key, m->at[i].key, m->size);
		if (c <= 0)
			break;
		i++;
	}
	*same = i < m->count && c == 0;
	return i;
}

static int model_update(struct model *m, const void *key, uint64_t value, uint64_t flags)
{
	bool same;
	int i = model_find(m, key, &same);

	if (same && flags == BPF_NOEXIST)
		return -EEXIST;
	if (!same && flags == BPF_EXIST)
		return -ENOENT;
	if (!same && m->count == ENTRIES)
		return -E2BIG;
	if (!same) {
		memmove(&m->at[i + 1], &m->at[i], sizeof(m->at[0]) * (m->count++ - i));
		memcpy(m->at[i].key, key, m->size);
	}
	m->at[i].value = value;
	return 0;
}

static int model_delete(struct model *m, const void *key)
{
	bool same;
	int i = model_find(m, key, &same);

	if (!same)
		return -ENOENT;
	memmove(&m->at[i], &m->at[i + 1], sizeof(m->at[0]) * (--m->count - i));
	return 0;
}

static int model_lookup(const struct model *m, const void *key, uint64_t *value)
{
	bool same;
	int i = model_find(m, key, &same);

	if (same)
		*value = m->at[i].value;
	return same ? 0 : -ENOENT;
}

/* ---- the map against the model ---- */

static uint64_t random_bits(void)
{
	return ((uint64_t)random() << 42) ^ ((uint64_t)random() << 21) ^ (uint64_t)random();
}

/* Often a key that is there, now and then one at the end of the range. */
static void random_key(const struct model *m, void *key)
{
	uint64_t bits = random_bits();

	if (m->count && random() % 2)
		memcpy(key, m->at[random() % m->count].key, m->size);
	else if (random() % 16 == 0)
		memset(key, random() % 2 ? 0xff : 0, m->size);
	else
		memcpy(key, &bits, m->size);
}

static bool same_order(int fd, const struct model *m)
{
	uint8_t key[KEY_MAX], next[KEY_MAX];
	uint64_t value;
	int i;

	for (i = 0; i < m->count; i++) {
		expect(!bpf_map_get_next_key(fd, i ? key : NULL, next));
		expect(!m->compare(next, m->at[i].key, m->size));
		expect(!bpf_map_lookup_elem(fd, next, &value));
		expect(value == m->at[i].value);
		memcpy(key, next, sizeof(key));
	}
	expect(bpf_map_get_next_key(fd, i ? key : NULL, next) == -ENOENT);
	return true;
}

static bool one_step(int fd, struct model *m)
{
	uint64_t value = random_bits(), got = 0, wanted = 0, flags;
	uint8_t key[KEY_MAX];

	random_key(m, key);
	switch (random() % 4) {
	case 0:
		expect(bpf_map_delete_elem(fd, key) == model_delete(m, key));
		return true;
	case 1:
		expect(bpf_map_lookup_elem(fd, key, &got) == model_lookup(m, key, &wanted));
		expect(got == wanted);
		return true;
	default:
		flags = random() % 3;	/* BPF_ANY, BPF_NOEXIST, BPF_EXIST */
		expect(bpf_map_update_elem(fd, key, &value, flags) ==
		       model_update(m, key, value, flags));
		return true;
	}
}

static bool agrees(int fd, size_t size, int (*compare)(const void *, const void *, size_t))
{
	static struct model m;

	memset(&m, 0, sizeof(m));
	m.size = size;
	m.compare = compare;
	for (int step = 0; step < 3000; step++) {
		if (!one_step(fd, &m))
			return false;
		if (step % 500 == 499 && !same_order(fd, &m))
			return false;
	}
	return true;
}

static int map(const char *name)
{
	int fd = bpf_object__find_map_fd_by_name(obj, name);

	if (fd < 0)
		errx(1, "no map %s", name);
	return fd;
}

#define KEYS(name, type, comparison)	\
	result(agrees(map(name), sizeof(type), comparison), "order and content, keys " #type)

/* ---- what only user space can ask for ---- */

static bool full_map(void)
{
	int fd = map("by_u32");
	uint64_t value = 7;
	uint32_t key;

	while (!bpf_map_get_next_key(fd, NULL, &key))
		expect(!bpf_map_delete_elem(fd, &key));
	for (key = 0; key < ENTRIES; key++)
		expect(!bpf_map_update_elem(fd, &key, &value, BPF_NOEXIST));
	expect(bpf_map_update_elem(fd, &key, &value, BPF_ANY) == -E2BIG);
	key = 3;
	expect(!bpf_map_update_elem(fd, &key, &value, BPF_EXIST));
	expect(!bpf_map_delete_elem(fd, &key));
	key = ENTRIES;
	expect(!bpf_map_update_elem(fd, &key, &value, BPF_ANY));
	return true;
}

static bool next_of_an_absent_key(void)
{
	int fd = map("by_u64");
	uint64_t keys[] = { 10, 20, 30 }, value = 0, key, next;

	while (!bpf_map_get_next_key(fd, NULL, &key))
		expect(!bpf_map_delete_elem(fd, &key));
	for (int i = 0; i < 3; i++)
		expect(!bpf_map_update_elem(fd, &keys[i], &value, BPF_ANY));
	key = 11;
	expect(!bpf_map_get_next_key(fd, &key, &next) && next == 20);
	key = 5;
	expect(!bpf_map_get_next_key(fd, &key, &next) && next == 10);
	key = 30;
	expect(bpf_map_get_next_key(fd, &key, &next) == -ENOENT);
	return true;
}

static int create(uint32_t key_size, uint32_t value_size, uint32_t entries, uint32_t flags)
{
	LIBBPF_OPTS(bpf_map_create_opts, opts, .map_flags = flags);

	return bpf_map_create(BPF_MAP_TYPE_RBTREE, "bytes", key_size, value_size, entries, &opts);
}

static int compare_bytes(const void *a, const void *b, size_t size)
{
	return memcmp(a, b, size);
}

static bool without_btf(void)
{
	int fd = create(8, 8, ENTRIES, 0);

	expect(fd >= 0);
	return agrees(fd, 8, compare_bytes);
}

static bool sizes_and_flags(void)
{
	expect(create(8, 8, 0, 0) == -EINVAL);
	expect(create(0, 8, 1, 0) == -EINVAL);
	expect(create(8, 0, 1, 0) == -EINVAL);
	expect(create(65, 8, 1, 0) == -E2BIG);
	expect(create(8, 8, 1, BPF_F_MMAPABLE) == -EINVAL);
	expect(create(64, 8, 1, 0) >= 0);
	return true;
}

static bool unknown_update_flags(void)
{
	uint64_t key = 1, value = 2;

	expect(bpf_map_update_elem(map("by_u64"), &key, &value, BPF_EXIST + 1) == -EINVAL);
	return true;
}

int main(int argc, char **argv)
{
	const char *seed = getenv("SEED");
	unsigned int number = seed ? (unsigned int)atoi(seed) : (unsigned int)time(NULL);

	if (argc != 2)
		errx(2, "usage: order OBJECT");
	obj = bpf_object__open(argv[1]);
	if (!obj || bpf_object__load(obj))
		err(1, "%s", argv[1]);
	srandom(number);

	printf("1..12\n# seed %u\n", number);
	KEYS("by_u64", uint64_t, compare_uint64_t);
	KEYS("by_s64", int64_t, compare_int64_t);
	KEYS("by_u32", uint32_t, compare_uint32_t);
	KEYS("by_s32", int32_t, compare_int32_t);
	KEYS("by_s16", int16_t, compare_int16_t);
	KEYS("by_u8", uint8_t, compare_uint8_t);
	KEYS("by_pair", struct pair, compare_pair);
	result(without_btf(), "a map without BTF is in memcmp order");
	result(full_map(), "a full map");
	result(next_of_an_absent_key(), "the key after one that is absent");
	result(unknown_update_flags(), "unknown update flags are refused");
	result(sizes_and_flags(), "sizes and flags that are refused");
	return failed ? 1 : 0;
}
