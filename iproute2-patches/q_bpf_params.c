// SPDX-License-Identifier: GPL-2.0
/*
 * q_bpf_params.c	Parameters and statistics of a policy: maps, settings, what is shown
 */

#include <sys/mman.h>

#include "q_bpf.h"

/* A setting of a hash that has been tried, and not stored */
struct tried {
	__u64 key[MAX_ELEMENT / sizeof(__u64)];
	const char *table;
	long long room;	/* of the table as it is now; -1: not counted */
	int added;	/* elements: 1, 0 or -1 */
	bool there;	/* would the key be, behind this setting? */
};

struct trial {
	struct tried at[MAX_SETTINGS];
	int count;
	bool alone;	/* the setting is the only one, and stored next: that tells if there is room */
};

/* A map of this name among those that a program uses: a file descriptor. The kernel's
 * names are shorter than those of BTF; see find_namesake().
 */
static int find_map(__u32 prog_id, const char *name, struct bpf_map_info *info)
{
	int prog_fd = bpf_prog_get_fd_by_id(prog_id), fd, i, n;
	__u32 ids[MAX_MAP_IDS], len;

	if (prog_fd < 0)
		return -1;
	n = get_map_ids(prog_fd, ids);
	close(prog_fd);
	if (n < 0)
		return -1;
	for (i = 0; i < n; i++) {
		fd = bpf_map_get_fd_by_id(ids[i]);
		if (fd < 0)
			return -1;
		len = sizeof(*info);
		memset(info, 0, len);
		if (!bpf_map_get_info_by_fd(fd, info, &len) &&
		    !strncmp(info->name, name, sizeof(info->name) - 1))
			return fd;
		close(fd);
	}
	errno = ENOENT;
	return -1;
}

/* In the object that is being loaded, or in one of the programs that run */
static int open_map(const struct values *vs, const char *name, struct bpf_map_info *info)
{
	__u32 len = sizeof(*info);
	int op, fd = -1;

	if (vs->obj) {
		fd = dup(bpf_object__find_map_fd_by_name(vs->obj, name));
		memset(info, 0, len);
		if (fd >= 0)
			bpf_map_get_info_by_fd(fd, info, &len);
		return fd;
	}
	for (op = 0; op < OPS && fd < 0; op++) {
		if (vs->prog_id[op])
			fd = find_map(vs->prog_id[op], name, info);
	}
	return fd;
}

/* Another map of the object, whose name is the same to the kernel; or NULL. Which of the
 * two a program has can only be guessed.
 */
static const char *find_namesake(const struct values *vs, const char *name)
{
	const struct btf_var_secinfo *vsi = btf_var_secinfos(vs->maps);
	const struct btf_type *var;
	const char *other;
	int i;

	for (i = 0; i < btf_vlen(vs->maps); i++) {
		var = btf__type_by_id(vs->btf, vsi[i].type);
		other = var ? btf__name_by_offset(vs->btf, var->name_off) : name;
		if (strcmp(other, name) && !strncmp(other, name, BPF_OBJ_NAME_LEN - 1))
			return other;
	}
	return NULL;
}

static int complain_of_namesake(const char *name, const char *other)
{
	complain("table \"%s\": the kernel cannot tell it from the map \"%s\": of names it keeps %d characters",
		 name, other, BPF_OBJ_NAME_LEN - 1);
	return -1;
}

/* The map of a table, if it is as the policy has it: its elements have room here then */
static int open_table(const struct values *vs, const struct value *v)
{
	struct value key = key_of(vs, v, NULL);
	struct bpf_map_info info;
	int fd;

	if (!vs->obj && find_namesake(vs, v->name)) {
		errno = ENOTUNIQ;
		return -1;
	}
	fd = open_map(vs, v->name, &info);
	if (fd < 0 || (info.key_size == key.size && info.value_size == v->size &&
		       info.type == table_number(vs->btf, v->table, "type")))
		return fd;
	close(fd);
	errno = EINVAL;
	return -1;
}

/* For how many more elements a hash has room; -1: errno says why that is not known */
static long long count_room(int fd)
{
	struct bpf_map_info info = {};
	__u32 len = sizeof(info), count, next;
	void *keys, *data;
	int err;

	if (bpf_map_get_info_by_fd(fd, &info, &len))
		return -1;
	count = info.max_entries;
	keys = calloc(count, info.key_size);
	data = calloc(count, info.value_size);
	err = keys && data ? bpf_map_lookup_batch(fd, NULL, &next, keys, data, &count, NULL) : -ENOMEM;
	free(keys);
	free(data);
	if (!err || err == -ENOENT)	/* that is the end of the table */
		return (long long)info.max_entries - count;
	errno = -err;
	return -1;
}

static int complain_of(const struct values *vs, const struct value *v, const char *what,
		       const struct setting *s, const char *text)
{
	char kind[256];

	describe(vs, v, kind, sizeof(kind));
	complain("%s \"%s%s%s%s\" cannot be \"%s\": it is %s%s", what, s->name,
		 v->name && s->key ? "[" : "", v->name && s->key ? s->key : "",
		 v->name && s->key ? "]" : "", text, kind,
		 v->table && !*text ? "; elements of an array are not removed" : "");
	return -1;
}

/* A setting without a value removes the element of a hash */
static bool removes(const struct values *vs, const struct value *v, const struct setting *s)
{
	return !*s->value && is_hash(vs, v);
}

/* Returns an errno */
static int store_element(const struct values *vs, const struct value *v, int fd, const void *key,
			 const struct setting *s)
{
	if (!removes(vs, v, s))
		return bpf_map_update_elem(fd, key, v->data, BPF_ANY) ? errno : 0;
	return !bpf_map_delete_elem(fd, key) || errno == ENOENT ? 0 : errno;
}

/* Is there room for the element of a hash, behind those that have been tried? Returns an errno.
 * A table can be long: it is counted once, and only if it would get more elements than it has.
 */
static int try_element(const struct values *vs, const struct value *v, int fd, const void *key,
		       bool there, const struct setting *s)
{
	struct trial *trial = vs->trial;
	struct tried *t = &trial->at[trial->count++], *before;
	int more = 0;

	t->room = -1;
	for (before = trial->at; before < t; before++) {
		if (strcmp(before->table, v->name))
			continue;
		if (!memcmp(before->key, key, MAX_ELEMENT))
			there = before->there;
		if (before->room >= 0)
			t->room = before->room;
		more += before->added;
	}
	memcpy(t->key, key, MAX_ELEMENT);
	t->table = v->name;
	t->there = !removes(vs, v, s);
	t->added = t->there - there;
	more += t->added;
	if (t->added <= 0 || more <= 0 || trial->alone)
		return 0;
	if (t->room < 0)
		t->room = count_room(fd);
	if (t->room < 0)
		return errno;
	return more > t->room ? E2BIG : 0;
}

/* Would the kernel let us write to a map? One that is frozen it does not. Nothing is written. */
static int try_to_write(int fd)
{
	__u32 none = 0;

	return bpf_map_update_batch(fd, NULL, NULL, &none, NULL) ? errno : 0;
}

/* Of an object that is not loaded yet: does anybody else have the table? */
static bool is_there_before(const struct values *vs, const char *name)
{
	const struct bpf_map *map = bpf_object__find_map_by_name(vs->obj, name);

	return map && (bpf_map__pin_path(map) || bpf_map__fd(map) >= 0);
}

static int open_to_set(const struct values *vs, const struct value *v)
{
	int fd = open_table(vs, v);

	if (fd >= 0)
		return fd;
	if (errno == ENOTUNIQ)
		return complain_of_namesake(v->name, find_namesake(vs, v->name));
	complain("table \"%s\": %s", v->name, errno == ENOENT ?
		 "no program of the qdisc uses it" : strerror(errno));
	return -1;
}

static int set_table(const struct values *vs, struct value *v, const void *key,
		     struct setting *s)
{
	__u64 data[MAX_ELEMENT / sizeof(__u64)] = {};
	bool there = false;
	int fd = -1, err = 0;

	if (vs->loading) {
		s->when = is_there_before(vs, v->name) ? WHEN_ATTACHED : WHEN_LOADED;
	} else {
		fd = open_to_set(vs, v);
		if (fd < 0)
			return -1;
		there = !bpf_map_lookup_elem(fd, key, data);
	}
	v->data = (char *)data;
	if (!removes(vs, v, s) && !store_value(vs, v, s->value)) {
		close(fd);
		return complain_of(vs, v, "parameter", s, s->value);
	}
	if (vs->trial) {
		err = try_to_write(fd);
		if (!err && is_hash(vs, v))
			err = try_element(vs, v, fd, key, there, s);
	} else if (!vs->loading) {
		err = store_element(vs, v, fd, key, s);
	}
	close(fd);
	if (!err)
		return 0;
	complain("parameter \"%s[%s]\": %s", s->name, s->key,
		 err == E2BIG ? "the table is full" : strerror(err));
	return -1;
}

static int set_value(const struct values *vs, struct value *v, struct setting *s)
{
	__u64 data[MAX_ELEMENT / sizeof(__u64)] = {};
	struct value key;

	if (v->kind == OTHER)
		return complain_of(vs, v, "parameter", s, s->value);
	if (v->table && !s->key) {
		complain("parameter \"%s\" is a table: %s[KEY]=VALUE is needed", v->name, v->name);
		return -1;
	}
	if (s->key && !v->table && v->kind != ARRAY) {
		complain("parameter \"%s\" is not a table: %s=VALUE is needed", v->name, v->name);
		return -1;
	}
	if (s->key) {
		key = key_of(vs, v, data);
		if (!store_value(vs, &key, s->key))
			return complain_of(vs, &key, "key of", s, s->key);
		if (v->table)
			return set_table(vs, v, data, s);
		*v = element(vs, v, load_number(&key));
	}
	if (store_value(vs, v, s->value))
		return 0;
	return complain_of(vs, v, "parameter", s, s->value);
}

static int set_by_name(const struct values *vs, struct setting *s)
{
	struct value v;

	if (find_value(vs, s->name, &v))
		return set_value(vs, &v, s);
	complain("unknown parameter \"%s\"; there are", s->name);
	list_values(vs);
	return -1;
}

/* Those whose time it is, in their order */
static int set_all(const struct values *vs, struct setting *setting, int settings,
		   enum when when)
{
	int i;

	for (i = 0; i < settings; i++) {
		if (setting[i].when == when && set_by_name(vs, &setting[i]))
			return -1;
	}
	return 0;
}

/* Would all of them be stored? */
static int try_all(const struct values *vs, struct setting *setting, int settings,
		   enum when when)
{
	struct trial trial = {};
	struct values copy = *vs;
	int ret;

	trial.alone = when == AT_ONCE && settings == 1;
	copy.trial = &trial;
	copy.data = vs->data ? malloc(vs->size) : NULL;
	if (vs->data && !copy.data) {
		complain("out of memory");
		return -1;
	}
	if (vs->data)
		memcpy(copy.data, vs->data, vs->size);
	ret = set_all(&copy, setting, settings, when);
	free(copy.data);
	return ret;
}

/* The parameters of an object, with the values that it begins with */
static struct values object_params(struct bpf_object *obj)
{
	struct bpf_map *map = bpf_object__find_map_by_name(obj, PARAM_SECTION);
	struct values vs = { .obj = obj, .btf = bpf_object__btf(obj) };

	if (map)
		vs.data = bpf_map__initial_value(map, &vs.size);
	vs.section = find_section(vs.btf, PARAM_SECTION);
	vs.maps = find_section(vs.btf, ".maps");
	return vs;
}

/* A table that could not be set or shown later is refused at once */
static int refuse_namesakes(const struct values *vs)
{
	const char *other;
	struct value v;
	int i = 0;

	while (next_value(vs, &i, &v)) {
		other = v.table ? find_namesake(vs, v.name) : NULL;
		if (other)
			return complain_of_namesake(v.name, other);
	}
	return 0;
}

/* Before the object is loaded: store in its variables, and say when the rest is stored */
int set_object_variables(struct bpf_object *obj, struct bpf_request *req)
{
	struct values vs = object_params(obj);

	if (refuse_namesakes(&vs))
		return -1;
	if (!req->settings)
		return 0;
	vs.loading = true;
	if (has_values(&vs))
		return set_all(&vs, req->setting, req->settings, AT_ONCE);
	complain("%s: no parameters: section \"" PARAM_SECTION "\" is not there", req->object);
	return -1;
}

/* Before the kernel is given the programs: what it refuses then changes nothing for others */
int set_object_tables(struct bpf_object *obj, struct bpf_request *req)
{
	const struct values vs = object_params(obj);

	if (set_all(&vs, req->setting, req->settings, WHEN_LOADED))
		return -1;
	return try_all(&vs, req->setting, req->settings, WHEN_ATTACHED);
}

/* When the qdisc has the programs: what others have, too */
int set_shared_tables(struct bpf_object *obj, struct setting *setting, int settings)
{
	const struct values vs = object_params(obj);

	return set_all(&vs, setting, settings, WHEN_ATTACHED);
}

static void close_values(struct values *vs)
{
	if (vs->data)
		munmap(vs->data, vs->size);
	btf__free(vs->btf);
}

static int map_variables(struct values *vs, const char *section, bool write)
{
	struct bpf_map_info info;
	int fd = open_map(vs, section, &info);

	if (fd < 0)
		return errno == ENOENT ? 0 : -1;
	vs->size = info.value_size;
	vs->data = mmap(NULL, vs->size, PROT_READ | (write ? PROT_WRITE : 0), MAP_SHARED, fd, 0);
	close(fd);
	if (vs->data != MAP_FAILED)
		return 0;
	vs->data = NULL;
	return -1;
}

static __u32 btf_id_of(__u32 prog_id)
{
	struct bpf_prog_info prog = {};
	__u32 len = sizeof(prog);
	int fd = bpf_prog_get_fd_by_id(prog_id);

	if (fd < 0)
		return 0;
	bpf_prog_get_info_by_fd(fd, &prog, &len);
	close(fd);
	return prog.btf_id;
}

/* What the programs of a qdisc have in a section, and their tables; errno says why there
 * is nothing. Programs of two objects have different BTF, and the first one's counts
 * that has some.
 */
static int open_values(struct values *vs, const char *section, const __u32 *prog_id, bool write)
{
	bool params = !strcmp(section, PARAM_SECTION);
	__u32 btf_id;
	int op;

	for (op = 0; op < OPS; op++) {
		memset(vs, 0, sizeof(*vs));
		btf_id = btf_id_of(prog_id[op]);
		vs->prog_id[ENQUEUE] = prog_id[op];
		if (btf_id_of(prog_id[!op]) == btf_id)
			vs->prog_id[DEQUEUE] = prog_id[!op];
		vs->btf = btf_id ? btf__load_from_kernel_by_id(btf_id) : NULL;
		if (!vs->btf)
			return -1;
		vs->section = find_section(vs->btf, section);
		vs->maps = params ? find_section(vs->btf, ".maps") : NULL;
		if (map_variables(vs, section, write)) {
			close_values(vs);
			return -1;
		}
		if (has_values(vs))
			return 0;
		close_values(vs);
	}
	errno = ENOENT;
	return -1;
}

static bool is_bpf_mq(int ifindex, __u32 handle)
{
	LIBBPF_OPTS(bpf_qdisc_opts, opts, .kind = "bpf_mq", .handle = handle);
	LIBBPF_OPTS(bpf_qdisc_info, info);

	return !bpf_qdisc_query(ifindex, &opts, &info);
}

/* Which programs run in the qdisc that the kernel would change? It changes none with another
 * handle than the one that is given, and no instance of bpf_mq.
 */
static int query_programs(const struct target *target, __u32 *prog_id)
{
	LIBBPF_OPTS(bpf_qdisc_info, info);
	int ret = bpf_qdisc_query(target->ifindex, &target->opts, &info);

	if (ret)
		return ret;
	if (target->opts.handle && target->opts.handle != info.handle)
		return -ENOENT;
	if (is_bpf_mq(target->ifindex, TC_H_MAJ(info.parent)))
		return -EOPNOTSUPP;
	prog_id[ENQUEUE] = info.enqueue_prog_id;
	prog_id[DEQUEUE] = info.dequeue_prog_id;
	return 0;
}

static const char *why_not_set(int err)
{
	switch (err) {
	case -ENOENT:
		return "no such qdisc";
	case -EOPNOTSUPP:
		return "the instances of bpf_mq are changed together, by \"root bpf_mq\"";
	default:
		return strerror(-err);
	}
}

/* Settings are stored before the kernel is asked for the change, which ends the bypass of an
 * empty queue: programs that run again see them. So what the kernel would refuse is refused
 * by tc, before this.
 */
int set_live_params(struct bpf_request *req, const struct target *target)
{
	__u32 prog_id[OPS];
	struct values vs;
	int ret;

	ret = target->ifindex ? query_programs(target, prog_id) : -ENODEV;
	if (ret) {
		if (ret == -ENOENT && !strcmp(target->opts.kind, "bpf") && !target->opts.handle &&
		    is_bpf_mq(target->ifindex, 0))
			ret = -EOPNOTSUPP;
		complain("no parameters to set on \"%s\": %s", target->dev, why_not_set(ret));
		return -1;
	}
	if (open_values(&vs, PARAM_SECTION, prog_id, true)) {
		/* whoever may not find programs by id gets no BTF of them */
		complain("cannot set parameters: %s", errno == ENOENT ? "the programs have none" :
			 errno == EPERM && !vs.btf ? "that needs CAP_SYS_ADMIN" : strerror(errno));
		return -1;
	}
	/* all of the settings or none */
	ret = try_all(&vs, req->setting, req->settings, AT_ONCE);
	if (!ret)
		ret = set_all(&vs, req->setting, req->settings, AT_ONCE);
	close_values(&vs);
	return ret;
}

/* Store the settings of the command, which have been checked, in a copy of a variable */
static void set_again(const struct values *vs, const struct value *v, struct bpf_request *req)
{
	struct value copy;
	int i;

	for (i = 0; i < req->settings; i++) {
		copy = *v;
		if (!strcmp(req->setting[i].name, v->name))
			set_value(vs, &copy, &req->setting[i]);
	}
}

static void tell_of(const struct values *vs, struct value *is, const struct value *was,
		    struct bpf_request *req)
{
	char before[256], now[256];
	struct value kept = *is;

	kept.data = malloc(is->size);
	if (!kept.data)
		return;
	memcpy(kept.data, was->data, is->size);
	set_again(vs, &kept, req);
	if (memcmp(kept.data, is->data, is->size)) {
		if (is->kind == ARRAY || is->kind == OTHER) {
			complain("parameter \"%s\" begins anew, as in the object", is->name);
		} else {
			text_of(was, before, sizeof(before));
			text_of(is, now, sizeof(now));
			complain("parameter \"%s\" begins anew with %s, as in the object; it was %s",
				 is->name, now, before);
		}
	}
	free(kept.data);
}

/* A new object has variables of its own, so a parameter that is not set again loses its value.
 * Each is named whose value would be another one if the settings were of the old object.
 */
void tell_what_begins_anew(struct bpf_object *obj, struct bpf_request *req,
			   const struct target *target)
{
	struct values old, new;
	struct value was, is;
	__u32 prog_id[OPS];
	int i = 0;

	if (target->add || query_programs(target, prog_id) ||
	    open_values(&old, PARAM_SECTION, prog_id, false))
		return;
	new = object_params(obj);
	while (next_value(&new, &i, &is)) {
		if (is.table || !find_value(&old, is.name, &was) || was.table ||
		    was.size != is.size || was.kind != is.kind)
			continue;
		tell_of(&new, &is, &was, req);
	}
	close_values(&old);
}

static bool is_zero(const char *data, size_t size)
{
	while (size && !data[size - 1])
		size--;
	return !size;
}

static void print_value(const struct values *vs, const char *key, const struct value *v)
{
	struct value elem;
	char text[256];
	__u32 i;

	if (v->kind == ARRAY) {
		open_json_array(PRINT_JSON, key);
		for (i = 0; i < count_elements(v); i++) {
			elem = element(vs, v, i);
			print_string(PRINT_FP, NULL, "%s", i ? "," : "");
			print_value(vs, NULL, &elem);
		}
		close_json_array(PRINT_JSON, NULL);
		return;
	}
	text_of(v, text, sizeof(text));
	print_string(PRINT_FP, NULL, "%s", text);
	if (v->kind == BOOL)
		print_bool(PRINT_JSON, key, NULL, load_number(v));
	else if (v->kind != NUMBER)
		print_string(PRINT_JSON, key, NULL, text);
	else if (v->is_signed)
		print_s64(PRINT_JSON, key, NULL, load_number(v));
	else
		print_u64(PRINT_JSON, key, NULL, load_number(v));
}

/* A table that the programs change meanwhile may be walked twice: not more elements than
 * it can have.
 */
static void print_table(const struct values *vs, struct value *v, const char *format)
{
	__u64 key_data[MAX_ELEMENT / sizeof(__u64)], data[MAX_ELEMENT / sizeof(__u64)];
	struct value key = key_of(vs, v, key_data);
	bool hash = is_hash(vs, v);
	int fd = key.kind == OTHER ? -1 : open_table(vs, v);
	__u32 left = table_number(vs->btf, v->table, "max_entries");
	char text[256], name[512];
	int err;

	if (fd < 0)
		return;
	v->data = (char *)data;
	open_json_object(v->name);
	for (err = bpf_map_get_next_key(fd, NULL, key_data); !err && left; left--) {
		if (!bpf_map_lookup_elem(fd, key_data, data) &&
		    (hash || !is_zero(v->data, v->size))) {
			text_of(&key, text, sizeof(text));
			snprintf(name, sizeof(name), "%s[%s]", v->name, text);
			print_string(PRINT_FP, NULL, format, name);
			print_value(vs, text, v);
			print_string(PRINT_FP, NULL, "%s", " ");
		}
		err = bpf_map_get_next_key(fd, key_data, key_data);
	}
	close_json_object();
	close(fd);
}

/* As text, @text comes first, and @format with the name before each value. Whoever may not look
 * into maps sees the rest.
 */
void print_values(const char *name, const char *text, const char *format, const char *section,
		  const __u32 *prog_id)
{
	struct values vs;
	struct value v;
	int i = 0;

	libbpf_set_print(NULL);
	if (open_values(&vs, section, prog_id, false))
		return;
	open_json_object(name);
	print_string(PRINT_FP, NULL, "%s", text);
	while (next_value(&vs, &i, &v)) {
		if (v.kind == OTHER) {
			print_string(PRINT_FP, NULL, "%s (of a type that tc does not show) ", v.name);
			continue;
		}
		if (v.table) {
			print_table(&vs, &v, format);
			continue;
		}
		print_string(PRINT_FP, NULL, format, v.name);
		print_value(&vs, v.name, &v);
		print_string(PRINT_FP, NULL, "%s", " ");
	}
	close_json_object();
	close_values(&vs);
}
