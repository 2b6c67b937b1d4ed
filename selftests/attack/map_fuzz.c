// SPDX-License-Identifier: GPL-2.0
/*
 * map_fuzz OBJECT: 100,000 random calls, of user space and of programs, on ordered maps,
 * against a sorted array: for each type of key what a call returns, what it gives, and
 * now and then all that is in the map. The seed is printed; set SEED to use one again.
 */
#include "../lib/map.h"
#include <time.h>
#include <unistd.h>

#define ENTRIES		500	/* max_entries of every map */
#define CALLS		10000	/* on each map */
#define KEY_MAX		32
#define BATCH_MAX	(ENTRIES + 20)

struct pair {
	uint16_t high;
	int32_t low;
};

struct flow {
	uint8_t address[6];
	uint16_t ports[2];
	struct {
		int8_t class;
		uint64_t cookie;
	} tag;
};

struct wide {
	uint64_t number;
} __attribute__((aligned(16)));

struct args {			/* a program's, and an element of the model */
	uint8_t key[KEY_MAX];
	uint64_t value;
	uint8_t to[KEY_MAX];
};

/* ---- the model: a sorted array, equal keys in the order of arrival ---- */

static struct {
	const char *name;
	int fd;
	size_t size;			/* of a key */
	int (*compare)(const void *a, const void *b);
	struct args at[ENTRIES];
	int count;
} m;

#define COMPARE(a, b)	((a) < (b) ? -1 : (a) > (b))

#define INTEGER_ORDER(type)							\
static int compare_##type(const void *a, const void *b)				\
{										\
	type x, y;								\
										\
	memcpy(&x, a, sizeof(x));						\
	memcpy(&y, b, sizeof(y));						\
	return COMPARE(x, y);							\
}

INTEGER_ORDER(uint64_t)
INTEGER_ORDER(int64_t)
INTEGER_ORDER(uint32_t)
INTEGER_ORDER(int32_t)
INTEGER_ORDER(int16_t)
INTEGER_ORDER(uint8_t)

static int compare_pair(const void *a, const void *b)
{
	const struct pair *x = a, *y = b;

	return COMPARE(x->high, y->high) ?: COMPARE(x->low, y->low);
}

static int compare_flow(const void *a, const void *b)
{
	const struct flow *x = a, *y = b;

	return memcmp(x->address, y->address, sizeof(x->address)) ?:
	       COMPARE(x->ports[0], y->ports[0]) ?: COMPARE(x->ports[1], y->ports[1]) ?:
	       COMPARE(x->tag.class, y->tag.class) ?: COMPARE(x->tag.cookie, y->tag.cookie);
}

static int compare_raw(const void *a, const void *b)
{
	return memcmp(a, b, m.size);
}

/* Index of the first key that is not below @key, or, with @above, that is above it */
static int find(const void *key, bool above)
{
	int i = 0;

	while (i < m.count && m.compare(m.at[i].key, key) < above)
		i++;
	return i;
}

static bool has(const void *key)
{
	int i = find(key, false);

	return i < m.count && !m.compare(m.at[i].key, key);
}

static int model_push(const struct args *elem)
{
	int i = find(elem->key, true);

	if (m.count == ENTRIES)
		return -E2BIG;
	memmove(&m.at[i + 1], &m.at[i], sizeof(m.at[0]) * (m.count++ - i));
	m.at[i] = *elem;
	return 0;
}

static void model_remove(int i, int n)
{
	memmove(&m.at[i], &m.at[i + n], sizeof(m.at[0]) * (m.count - i - n));
	m.count -= n;
}

static int model_move(const void *key, const void *to)
{
	struct args elem;
	int i = find(key, false);

	if (!has(key))
		return -ENOENT;
	elem = m.at[i];
	memcpy(elem.key, to, m.size);
	model_remove(i, 1);
	return model_push(&elem);
}

static int model_update(const struct args *elem, uint64_t flags)
{
	if (flags > BPF_EXIST)
		return -EINVAL;
	if (!has(elem->key))
		return flags == BPF_EXIST ? -ENOENT : model_push(elem);
	if (flags == BPF_NOEXIST)
		return -EEXIST;
	m.at[find(elem->key, false)].value = elem->value;
	return 0;
}

/* How many elements a batch of at most @max has that begins at element @i; and what
 * the call returns.
 */
static int model_batch(int i, int max, int *n)
{
	int end;

	for (*n = 0; *n < max; *n = end - i) {
		if (i + *n == m.count)
			return -ENOENT;
		end = find(m.at[i + *n].key, true);
		if (end - i > max)
			return *n ? 0 : -ENOSPC;
	}
	return 0;
}

/* ---- the map against the model ---- */

static uint64_t random_bits(void)
{
	return ((uint64_t)random() << 42) ^ ((uint64_t)random() << 21) ^ (uint64_t)random();
}

/* Often one that is there, or almost; now and then one at the end of the range */
static struct args random_element(void)
{
	struct args elem = { .value = random_bits() };
	uint64_t bits;

	for (size_t i = 0; i < m.size; i += sizeof(bits)) {
		bits = random_bits();
		memcpy(elem.key + i, &bits, sizeof(bits));
	}
	if (m.count && random() % 2) {
		memcpy(elem.key, m.at[random() % m.count].key, m.size);
		if (random() % 4 == 0)
			elem.key[random() % m.size] += random() % 3 - 1;
	} else if (random() % 16 == 0) {
		memset(elem.key, random() % 2 ? 0xff : 0, m.size);
	}
	return elem;
}

static bool same(const void *key, uint64_t value, int i)
{
	return !m.compare(key, m.at[i].key) && value == m.at[i].value;
}

static int program(const char *what, struct args *args)
{
	char name[64];

	snprintf(name, sizeof(name), "%s_%s", what, m.name);
	return run_args(name, args, sizeof(*args));
}

static bool single(int which)
{
	struct args elem = random_element(), got = elem;
	int i = find(elem.key, false), next = find(elem.key, true), error;
	bool there = has(elem.key), none = random() % 16 == 0;
	uint64_t flags = random() % 4;

	switch (which) {
	case 0:
		expect_equal(bpf_map_delete_elem(m.fd, elem.key), there ? 0 : -ENOENT);
		if (there)
			model_remove(i, 1);
		break;
	case 1:
		expect_equal(bpf_map_lookup_elem(m.fd, elem.key, &got.value), there ? 0 : -ENOENT);
		expect(!there || same(elem.key, got.value, i));
		break;
	case 2:
	case 9:
		error = which == 9 ? program("take", &got) :
			bpf_map_lookup_and_delete_elem(m.fd, elem.key, &got.value);
		expect_equal(error, there ? 0 : -ENOENT);
		expect(!there || same(elem.key, got.value, i));
		if (there)
			model_remove(i, 1);
		break;
	case 3:
		next = none ? 0 : next;
		expect_equal(bpf_map_get_next_key(m.fd, none ? NULL : elem.key, got.key),
			     next < m.count ? 0 : -ENOENT);
		expect(next == m.count || !m.compare(got.key, m.at[next].key));
		break;
	case 4:
	case 5:
		error = bpf_map_update_elem(m.fd, elem.key, &elem.value, flags);
		expect_equal(error, model_update(&elem, flags));
		break;
	case 6:
		expect_equal(program("pop", &got), m.count ? 0 : -ENOENT);
		expect(!m.count || same(got.key, got.value, 0));
		if (m.count)
			model_remove(0, 1);
		break;
	case 7:
		expect_equal(program("first", &got), m.count ? 0 : -ENOENT);
		expect(!m.count || same(got.key, got.value, 0));
		break;
	case 8:
		expect_equal(program("from", &got), i < m.count ? 0 : -ENOENT);
		expect(i == m.count || same(got.key, got.value, i));
		break;
	case 10:
		error = !m.count ? -ENOENT : m.compare(m.at[0].key, elem.key) > 0 ? -EAGAIN : 0;
		expect_equal(program("until", &got), error);
		expect(!m.count || !m.compare(got.key, m.at[0].key));
		expect(error || got.value == m.at[0].value);
		if (!error)
			model_remove(0, 1);
		break;
	case 11:
		memcpy(got.to, random_element().key, m.size);
		expect_equal(program("move", &got), model_move(elem.key, got.to));
		break;
	default:
		error = program("push", &elem);
		expect_equal(error, model_push(&elem));
	}
	return true;
}

static uint8_t keys[BATCH_MAX * KEY_MAX];
static uint64_t values[BATCH_MAX];

/* From a key on, or from the first; with @take they leave. */
static bool look_up_batch(bool take)
{
	int (*call)(int fd, void *in, void *out, void *keys, void *values, uint32_t *count,
		    const struct bpf_map_batch_opts *opts) =
		take ? bpf_map_lookup_and_delete_batch : bpf_map_lookup_batch;
	struct args elem = random_element(), cursor;
	bool first = random() % 2;
	int i = first ? 0 : find(elem.key, true), error, n;
	uint32_t count = 1 + random() % (random() % 2 ? BATCH_MAX : 8);

	error = model_batch(i, count, &n);
	expect_equal(call(m.fd, first ? NULL : elem.key, cursor.key, keys, values, &count, NULL),
		     error);
	expect_equal(count, n);
	for (int at = 0; at < n; at++)
		expect(same(keys + at * m.size, values[at], i + at));
	expect(!n || !m.compare(cursor.key, m.at[i + n - 1].key));
	if (take)
		model_remove(i, n);
	return true;
}

/* One after the other, until one fails */
static bool change_batch(bool delete)
{
	struct args elems[8];
	uint32_t count = 1 + random() % 8, n, done;
	int error = 0, got;

	for (n = 0; n < count; n++) {
		elems[n] = random_element();
		memcpy(keys + n * m.size, elems[n].key, m.size);
		values[n] = elems[n].value;
	}
	got = delete ? bpf_map_delete_batch(m.fd, keys, &count, NULL) :
		       bpf_map_update_batch(m.fd, keys, values, &count, NULL);
	for (done = 0; !error && done < n; done += !error) {
		if (!delete)
			error = model_update(&elems[done], BPF_ANY);
		else if (!has(elems[done].key))
			error = -ENOENT;
		else
			model_remove(find(elems[done].key, false), 1);
	}
	expect_equal(got, error);
	expect_equal(count, done);
	return true;
}

static bool same_content(void)
{
	uint32_t count = BATCH_MAX;
	uint8_t cursor[KEY_MAX];

	expect_equal(bpf_map_lookup_batch(m.fd, NULL, cursor, keys, values, &count, NULL), -ENOENT);
	expect_equal(count, m.count);
	for (int i = 0; i < m.count; i++)
		expect(same(keys + i * m.size, values[i], i));
	return true;
}

static bool step(void)
{
	int which = random() % 200;

	if (which == 0)
		return look_up_batch(true);
	if (which < 4)
		return look_up_batch(false);
	if (which < 8)
		return change_batch(which % 2);
	return single(which % 16);
}

static bool agrees(const char *name, size_t size, int (*compare)(const void *, const void *))
{
	bool ok = true;

	m.name = name;
	m.fd = map(name);
	m.size = size;
	m.compare = compare;
	m.count = 0;
	for (int i = 0; ok && i < CALLS; i++)
		ok = step() && (i % 1000 != 999 || same_content());
	return ok;
}

#define KEYS(name, type, compare)						\
	result(agrees(name, sizeof(type), compare), name)

int main(int argc, char **argv)
{
	unsigned int number = setting("SEED", (unsigned int)time(NULL));

	load(argc, argv);
	srandom(number);
	printf("1..11\n# seed %u, %d calls a map\n", number, CALLS);
	KEYS("by_u64", uint64_t, compare_uint64_t);
	KEYS("by_u64_allocated", uint64_t, compare_uint64_t);
	KEYS("by_s64", int64_t, compare_int64_t);
	KEYS("by_u32", uint32_t, compare_uint32_t);
	KEYS("by_s32", int32_t, compare_int32_t);
	KEYS("by_s16", int16_t, compare_int16_t);
	KEYS("by_u8", uint8_t, compare_uint8_t);
	KEYS("by_wide", struct wide, compare_uint64_t);
	KEYS("by_pair", struct pair, compare_pair);
	KEYS("by_flow", struct flow, compare_flow);
	KEYS("without_btf", uint8_t[12], compare_raw);
	return failed ? 1 : 0;
}
