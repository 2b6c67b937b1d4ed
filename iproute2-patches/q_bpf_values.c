// SPDX-License-Identifier: GPL-2.0
/*
 * q_bpf_values.c	Types of parameters and statistics, by BTF; values as text
 */

#include <ctype.h>
#include <arpa/inet.h>

#include "q_bpf.h"

/* Declaration tags: of a map that can be set and is shown, from BPF_QDISC_TABLE; of a
 * parameter, with MIN:MAX behind it, from BPF_QDISC_RANGE()
 */
#define TABLE_TAG	"table"
#define RANGE_TAG	"range:"

/* Names of types: the index of a device, and an address */
#define DEVICE_TYPE	"bpf_ifindex"
#define ADDRESS_TYPE	"__be32"

/* Of a type: as many names and arrays as libbpf and the kernel follow */
#define MAX_DEPTH	32

/* What units measure. Numbers are shown in a unit of the kind of their range's. */
enum measure { BITS_A_SECOND, BYTES_A_SECOND, TIME, SIZE };

static const struct {
	const char *name;
	double factor;
	enum measure of;
} units[] = {
	/* a rate becomes bytes a second */
	{ "bit", 1.0 / 8, BITS_A_SECOND },	{ "bps", 1, BYTES_A_SECOND },
	{ "kbit", 1e3 / 8, BITS_A_SECOND },	{ "kbps", 1e3, BYTES_A_SECOND },
	{ "mbit", 1e6 / 8, BITS_A_SECOND },	{ "mbps", 1e6, BYTES_A_SECOND },
	{ "gbit", 1e9 / 8, BITS_A_SECOND },	{ "gbps", 1e9, BYTES_A_SECOND },
	{ "tbit", 1e12 / 8, BITS_A_SECOND },	{ "tbps", 1e12, BYTES_A_SECOND },
	/* a time becomes ns */
	{ "ns", 1, TIME },			{ "us", 1e3, TIME },
	{ "ms", 1e6, TIME },			{ "s", 1e9, TIME },
	/* a size becomes bytes; of two names the first is shown */
	{ "b", 1, SIZE },
	{ "kb", 1024, SIZE },			{ "k", 1024, SIZE },
	{ "mb", 1024 * 1024, SIZE },		{ "m", 1024 * 1024, SIZE },
	{ "gb", 1024 * 1024 * 1024, SIZE },	{ "g", 1024 * 1024 * 1024, SIZE },
};

static int find_unit(const char *name)
{
	int i;

	for (i = 0; i < (int)(sizeof(units) / sizeof(units[0])); i++) {
		if (!strcasecmp(name, units[i].name))
			return i;
	}
	return -1;
}

/* The unit in which a policy declares the range of a number, or -1 */
static int declared_unit(const char *range)
{
	const char *max = range ? strchr(range, ':') : NULL;

	return max ? find_unit(max + 1 + strspn(max + 1, "0123456789.")) : -1;
}

static bool is_rate(int unit)
{
	return units[unit].of == BITS_A_SECOND || units[unit].of == BYTES_A_SECOND;
}

/* Does it measure what the range does? One that is declared without a unit takes all. */
static bool is_unit_for(const char *range, const char *name)
{
	int declared = declared_unit(range), unit = find_unit(name);

	return declared < 0 || (unit >= 0 && (units[unit].of == units[declared].of ||
					      (is_rate(unit) && is_rate(declared))));
}

/* NULL if there is no type below the typedefs and qualifiers: BTF of an object that the kernel has not
 * seen yet may lead back to where it began.
 */
const struct btf_type *resolve(const struct btf *btf, __u32 id, enum kind *kind)
{
	const struct btf_type *t;
	const char *name;
	int depth = 0;

	for (t = btf__type_by_id(btf, id); t && (btf_is_mod(t) || btf_is_typedef(t));
	     t = btf__type_by_id(btf, t->type)) {
		if (++depth > MAX_DEPTH)
			return NULL;
		name = btf__name_by_offset(btf, t->name_off);
		if (!strcmp(name, DEVICE_TYPE))
			*kind = DEVICE;
		else if (!strcmp(name, ADDRESS_TYPE))
			*kind = ADDRESS;
	}
	return t;
}

static void set_type(const struct btf *btf, struct value *v, __u32 id)
{
	enum kind named = NUMBER;
	const struct btf_type *t = resolve(btf, id, &named);
	__s64 size = btf__resolve_size(btf, id);
	struct value elem = {};

	v->type = t;
	v->kind = OTHER;
	v->size = size < 0 ? 0 : size;
	if (!t || size < 0)	/* libbpf finds no size of an array that is its own element */
		return;
	if (btf_is_array(t)) {
		set_type(btf, &elem, btf_array(t)->type);
		if (v->size && elem.kind != OTHER && elem.kind != ARRAY)
			v->kind = strcmp(btf__name_by_offset(btf, elem.type->name_off), "char") ?
				  ARRAY : TEXT;
	} else if (v->size == 1 || v->size == 2 || v->size == 4 || v->size == 8) {
		if (btf_is_int(t)) {
			v->kind = btf_int_encoding(t) & BTF_INT_BOOL ? BOOL : named;
			v->is_signed = btf_int_encoding(t) & BTF_INT_SIGNED;
		} else if (btf_is_any_enum(t)) {
			v->kind = NUMBER;
			v->is_signed = btf_kflag(t);
		}
	}
}

/* What is behind a declaration tag that begins so; or NULL */
static const char *find_tag(const struct btf *btf, __u32 var, const char *begin)
{
	const struct btf_type *t;
	const char *tag;
	__u32 id;

	for (id = 1; id < btf__type_cnt(btf); id++) {
		t = btf__type_by_id(btf, id);
		if (!btf_is_decl_tag(t) || t->type != var)
			continue;
		tag = btf__name_by_offset(btf, t->name_off);
		if (!strncmp(tag, begin, strlen(begin)))
			return tag + strlen(begin);
	}
	return NULL;
}

/* The type of a table's keys or values: a member of the map's definition points to it */
static __u32 table_type(const struct btf *btf, const struct btf_type *table, const char *member)
{
	const struct btf_type *ptr;
	int i;

	for (i = 0; i < btf_vlen(table); i++) {
		ptr = btf__type_by_id(btf, btf_members(table)[i].type);
		if (ptr && btf_is_ptr(ptr) &&
		    !strcmp(btf__name_by_offset(btf, btf_members(table)[i].name_off), member))
			return ptr->type;
	}
	return 0;
}

/* The type of the map, or its size: it is the length of an array there */
__u32 table_number(const struct btf *btf, const struct btf_type *table, const char *member)
{
	const struct btf_type *t = btf__type_by_id(btf, table_type(btf, table, member));

	return t && btf_is_array(t) ? btf_array(t)->nelems : 0;
}

static bool get_table(const struct values *vs, __u32 var, const struct btf_type *def,
		      struct value *v)
{
	__u32 type;

	if (!def || !btf_is_struct(def) || !find_tag(vs->btf, var, TABLE_TAG))
		return false;
	v->table = def;
	set_type(vs->btf, v, table_type(vs->btf, def, "value"));
	type = table_number(vs->btf, def, "type");
	if (v->size > MAX_ELEMENT || (type != BPF_MAP_TYPE_HASH && type != BPF_MAP_TYPE_ARRAY))
		v->kind = OTHER;
	return true;
}

static bool get_value(const struct values *vs, const struct btf_var_secinfo *vsi, bool is_map,
		      struct value *v)
{
	const struct btf_type *var = btf__type_by_id(vs->btf, vsi->type);
	enum kind unused;

	if (!var || !btf_is_var(var))
		return false;
	memset(v, 0, sizeof(*v));
	v->name = btf__name_by_offset(vs->btf, var->name_off);
	v->range = find_tag(vs->btf, vsi->type, RANGE_TAG);
	if (is_map)
		return get_table(vs, vsi->type, resolve(vs->btf, var->type, &unused), v);
	set_type(vs->btf, v, var->type);
	v->data = vs->data + vsi->offset;
	return v->type && (size_t)vsi->offset + v->size <= vs->size;
}

/* The next one after index *i - 1, or false: first the variables, then the tables */
bool next_value(const struct values *vs, int *i, struct value *v)
{
	int variables = vs->data && vs->section ? btf_vlen(vs->section) : 0;
	int maps = vs->maps ? btf_vlen(vs->maps) : 0;

	while (*i < variables + maps) {
		int n = (*i)++;
		bool is_map = n >= variables;
		const struct btf_type *section = is_map ? vs->maps : vs->section;

		if (get_value(vs, btf_var_secinfos(section) + n - (is_map ? variables : 0), is_map, v))
			return true;
	}
	return false;
}

bool find_value(const struct values *vs, const char *name, struct value *v)
{
	int i = 0;

	while (next_value(vs, &i, v)) {
		if (!strcmp(v->name, name))
			return true;
	}
	return false;
}

const struct btf_type *find_section(const struct btf *btf, const char *name)
{
	int id = btf__find_by_name_kind(btf, name, BTF_KIND_DATASEC);

	return id < 0 ? NULL : btf__type_by_id(btf, id);
}

bool has_values(const struct values *vs)
{
	struct value v;
	int i = 0;

	return next_value(vs, &i, &v);
}

__u32 count_elements(const struct value *v)
{
	return btf_array(v->type)->nelems;
}

struct value element(const struct values *vs, const struct value *v, __u32 i)
{
	struct value elem = { .name = v->name, .range = v->range };

	set_type(vs->btf, &elem, btf_array(v->type)->type);
	elem.data = v->data + i * elem.size;
	return elem;
}

bool is_hash(const struct values *vs, const struct value *table)
{
	return table_number(vs->btf, table->table, "type") == BPF_MAP_TYPE_HASH;
}

/* How a key of an array or a table is read; data has room for MAX_ELEMENT bytes */
struct value key_of(const struct values *vs, const struct value *v, void *data)
{
	struct value key = { .kind = NUMBER, .size = sizeof(__u32), .data = data };
	static char range[32];

	if (v->table && is_hash(vs, v)) {
		set_type(vs->btf, &key, table_type(vs->btf, v->table, "key"));
		if (key.size > MAX_ELEMENT || key.kind == ARRAY)
			key.kind = OTHER;
		return key;
	}
	snprintf(range, sizeof(range), "0:%u", (v->table ?
		 table_number(vs->btf, v->table, "max_entries") : count_elements(v)) - 1);
	key.range = range;
	return key;
}

void describe(const struct values *vs, const struct value *v, char *text, size_t size)
{
	struct value elem;
	int len, unit;

	switch (v->kind) {
	case OTHER:
		snprintf(text, size, "of a type that cannot be set");
		break;
	case TEXT:
		snprintf(text, size, "a text of %u characters at most", v->size - 1);
		break;
	case BOOL:
		snprintf(text, size, "true or false");
		break;
	case DEVICE:
		snprintf(text, size, "the name or the index of a network device");
		break;
	case ADDRESS:
		snprintf(text, size, "an IPv4 address");
		break;
	case ARRAY:
		elem = element(vs, v, 0);
		len = snprintf(text, size, "at most %u of these, with commas between: ",
			       count_elements(v));
		describe(vs, &elem, text + len, size - len);
		break;
	case NUMBER:
		len = v->range ? strcspn(v->range, ":") : 0;
		unit = declared_unit(v->range);
		if (v->range)
			snprintf(text, size, "a %s from %.*s to %s", unit < 0 ? "number" :
				 is_rate(unit) ? "rate" : units[unit].of == TIME ? "time" : "size",
				 len, v->range, v->range[len] ? v->range + len + 1 : "?");
		else
			snprintf(text, size, "%s number of %u bits",
				 v->is_signed ? "a signed" : "an unsigned", 8 * v->size);
	}
}

void list_values(const struct values *vs)
{
	char kind[256], key_kind[256];
	struct value v, key;
	int i = 0;

	while (next_value(vs, &i, &v)) {
		describe(vs, &v, kind, sizeof(kind));
		if (v.table) {
			key = key_of(vs, &v, NULL);
			describe(vs, &key, key_kind, sizeof(key_kind));
			fprintf(stderr, "  %s[KEY] (%s; KEY is %s)\n", v.name, kind, key_kind);
		} else {
			fprintf(stderr, "  %s (%s)\n", v.name, kind);
		}
	}
}

/* A program may read it at any moment: no torn stores */
static void store_number(const struct value *v, __u64 value)
{
	switch (v->size) {
	case 1:
		*(volatile __u8 *)v->data = value;
		break;
	case 2:
		*(volatile __u16 *)v->data = value;
		break;
	case 4:
		*(volatile __u32 *)v->data = value;
		break;
	case 8:
		*(volatile __u64 *)v->data = value;
		break;
	}
}

__u64 load_number(const struct value *v)
{
	int unused = 64 - 8 * v->size;
	__u64 value = 0;

	switch (v->size) {
	case 1:
		value = *(volatile __u8 *)v->data;
		break;
	case 2:
		value = *(volatile __u16 *)v->data;
		break;
	case 4:
		value = *(volatile __u32 *)v->data;
		break;
	case 8:
		value = *(volatile __u64 *)v->data;
		break;
	}
	return v->is_signed ? (__s64)(value << unused) >> unused : value;
}

static bool fits(const struct value *v, bool negative, __u64 value)
{
	int bits = 8 * v->size - v->is_signed;
	__u64 max = bits == 64 ? UINT64_MAX : (1ULL << bits) - 1;

	if (!negative)
		return value <= max;
	return v->is_signed && -value <= max + 1;
}

/* A fraction is taken only with a unit. 2^64 cannot be converted, nor can nan. */
bool scale(const char *text, const char *unit, __u64 *value)
{
	int i = find_unit(unit);
	double number;
	char *end;

	number = strtod(text, &end);
	if (unit == text || end != unit || i < 0)
		return false;
	number *= units[i].factor;
	if (!(number >= 0 && number < 0x1p64))
		return false;
	*value = number + 0.5;
	return true;
}

/* Decimal, or hexadecimal behind 0x */
bool parse_integer(const char *text, __u64 *value)
{
	bool negative = text[0] == '-';
	int base = strncasecmp(text + negative, "0x", 2) ? 10 : 16;
	char *end;

	if (isspace(text[0]))
		return false;
	errno = 0;
	*value = negative ? strtoll(text, &end, base) : strtoull(text, &end, base);
	return !errno && end != text && !*end;
}

static bool parse_number(const struct value *v, const char *text, __u64 *value)
{
	const char *unit = text + strspn(text, "0123456789.");

	if (!parse_integer(text, value) &&
	    (!is_unit_for(v->range, unit) || !scale(text, unit, value)))
		return false;
	return fits(v, text[0] == '-', *value);
}

static bool less(const struct value *v, __u64 a, __u64 b)
{
	return v->is_signed ? (__s64)a < (__s64)b : a < b;
}

/* A policy's author writes limits as one would set them, with units. */
static bool in_range(const struct value *v, __u64 value)
{
	char min_text[64];
	__u64 min, max;
	size_t len;

	if (!v->range)
		return true;
	len = strcspn(v->range, ":");
	if (len >= sizeof(min_text) || !v->range[len])
		return false;
	memcpy(min_text, v->range, len);
	min_text[len] = '\0';
	return parse_number(v, min_text, &min) && parse_number(v, v->range + len + 1, &max) &&
	       !less(v, value, min) && !less(v, max, value);
}

static bool parse_bool(const char *text, __u64 *value)
{
	*value = !strcmp(text, "true") || !strcmp(text, "on") || !strcmp(text, "1");
	return *value || !strcmp(text, "false") || !strcmp(text, "off") || !strcmp(text, "0");
}

static bool parse_device(const struct value *v, const char *text, __u64 *index)
{
	*index = if_nametoindex(text);
	return *index || parse_number(v, text, index);
}

/* The first elements; those that are not given stay as they are */
static bool store_elements(const struct values *vs, const struct value *v, const char *text)
{
	char *copy = strdup(text), *rest = copy, *word;
	struct value elem;
	bool ok = copy;
	__u32 i;

	for (i = 0; ok && (word = strsep(&rest, ",")); i++) {
		ok = i < count_elements(v);
		if (!ok)
			break;
		elem = element(vs, v, i);
		ok = store_value(vs, &elem, word);
	}
	free(copy);
	return ok;
}

bool store_value(const struct values *vs, const struct value *v, const char *text)
{
	size_t len = strlen(text);
	__u64 number = 0;

	switch (v->kind) {
	case TEXT:
		if (len >= v->size)
			return false;
		memset(v->data + len, 0, v->size - len);
		memcpy(v->data, text, len);
		return true;
	case ADDRESS:
		return inet_pton(AF_INET, text, v->data) == 1;
	case ARRAY:
		return store_elements(vs, v, text);
	case BOOL:
		if (!parse_bool(text, &number))
			return false;
		break;
	case DEVICE:
		if (!parse_device(v, text, &number))
			return false;
		break;
	case NUMBER:
		if (!parse_number(v, text, &number) || !in_range(v, number))
			return false;
		break;
	default:
		return false;
	}
	store_number(v, number);
	return true;
}

/* In the largest unit in which it is whole, of those that the range is declared in; what
 * is shown can be set again.
 */
static void text_of_number(const struct value *v, char *text, size_t size)
{
	__u64 value = load_number(v), again;
	double largest = 0;
	char in_unit[32];
	int i, declared = declared_unit(v->range);

	snprintf(text, size, v->is_signed ? "%" PRId64 : "%" PRIu64, (uint64_t)value);
	if (declared < 0 || !value || text[0] == '-')
		return;
	for (i = 0; i < (int)(sizeof(units) / sizeof(units[0])); i++) {
		if (units[i].of != units[declared].of || units[i].factor <= largest)
			continue;
		snprintf(in_unit, sizeof(in_unit), "%.0f%s", value / units[i].factor,
			 units[i].name);
		if (!parse_number(v, in_unit, &again) || again != value)
			continue;
		largest = units[i].factor;
		snprintf(text, size, "%s", in_unit);
	}
}

void text_of(const struct value *v, char *text, size_t size)
{
	switch (v->kind) {
	case TEXT:
		snprintf(text, size, "%.*s", (int)v->size, v->data);
		break;
	case ADDRESS:
		inet_ntop(AF_INET, v->data, text, size);
		break;
	case BOOL:
		snprintf(text, size, "%s", load_number(v) ? "true" : "false");
		break;
	default:
		if (v->kind != DEVICE || !if_indextoname(load_number(v), text))
			text_of_number(v, text, size);
	}
}
