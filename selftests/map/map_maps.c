// SPDX-License-Identifier: GPL-2.0
/*
 * map_maps OBJECT: an ordered map of maps. Programs push inner maps under a rank,
 * pop the first and use it; user space stores them, too. A map lives as long as
 * somebody has it.
 */
#include "../lib/map.h"
#include <bpf/btf.h>
#include <unistd.h>

struct args {
	uint64_t rank;
	uint64_t key;
	uint64_t value;
	uint32_t which;
};

static const char *path;
static struct btf *btf;
static int number, half;	/* the types __u64 and __u32 */

static int create(const char *name, uint32_t value_size, int inner_fd, uint32_t flags)
{
	LIBBPF_OPTS(bpf_map_create_opts, opts, .btf_fd = btf__fd(btf), .btf_key_type_id = number,
		    .btf_value_type_id = value_size == 8 ? number : half, .map_flags = flags,
		    .inner_map_fd = inner_fd);

	return bpf_map_create(BPF_MAP_TYPE_RBTREE, name, 8, value_size, inner_fd ? 4 : 8, &opts);
}

static int create_inner(void)
{
	int fd = create("inner", 8, 0, 0);

	if (fd < 0)
		err(1, "cannot create an inner map");
	return fd;
}

static struct bpf_object *open_with_outer(int outer)
{
	struct bpf_object *opened = bpf_object__open(path);

	if (!opened || bpf_map__reuse_fd(bpf_object__find_map_by_name(opened, "outer"), outer))
		err(1, "%s", path);
	return opened;
}

static uint32_t id_of(int fd)
{
	struct bpf_map_info info = {};
	uint32_t size = sizeof(info);

	if (bpf_map_get_info_by_fd(fd, &info, &size))
		err(1, "no information on a map");
	return info.id;
}

static bool exists(uint32_t id)
{
	int fd = bpf_map_get_fd_by_id(id);

	if (fd >= 0)
		close(fd);
	return fd >= 0;
}

static bool goes_away(uint32_t id)
{
	for (int i = 0; i < 300 && exists(id); i++)
		usleep(50000);
	expect(!exists(id));
	return true;
}

static void empty(void)
{
	uint64_t rank;
	uint32_t id;

	while (!bpf_map_get_next_key(map("outer"), NULL, &rank))
		bpf_map_lookup_and_delete_elem(map("outer"), &rank, &id);
}

static int push(uint64_t rank, uint32_t which)
{
	return run_args("push", &(struct args){ .rank = rank, .which = which },
			sizeof(struct args));
}

static int store(uint64_t rank, uint64_t key, uint64_t value)
{
	return run_args("store", &(struct args){ .rank = rank, .key = key, .value = value },
			sizeof(struct args));
}

/* Maps with 2, 3 and 1 elements take turns until each is empty. */
static bool take_turns(void)
{
	static const uint64_t order[] = { 10, 20, 30, 11, 21, 22 };
	struct args args;
	int i = 0, err;

	empty();
	for (int which = 0; which < 3; which++)
		expect_equal(push(which, which), 0);
	for (int n = 0; n < 2; n++)
		expect_equal(store(0, n, 10 + n), 0);
	for (int n = 0; n < 3; n++)
		expect_equal(store(1, n, 20 + n), 0);
	expect_equal(store(2, 0, 30), 0);

	for (int turn = 0; turn < 9; turn++) {
		args = (struct args){ .which = 3 };	/* behind the others */
		err = run_args("rotate", &args, sizeof(args));
		if (err == -ENOENT)
			continue;		/* that map was empty and left */
		expect_equal(err, 0);
		expect_equal(args.value, order[i++]);
	}
	expect_equal(i, 6);
	expect_equal(run_args("rotate", &args, sizeof(args)), -ENOENT);
	return true;
}

/* Much more often than there is room for maps that wait for a grace period. */
static bool take_turns_for_long(void)
{
	struct args args;

	empty();
	for (int which = 0; which < 3; which++)
		expect_equal(push(which, which), 0);
	for (int turn = 0; turn < 3000; turn++) {
		expect_equal(store(turn, 0, turn), 0);
		args = (struct args){ .which = 3 };
		expect_equal(run_args("rotate", &args, sizeof(args)), 0);
		expect_equal(args.rank, turn);
		expect_equal(args.value, turn);
	}
	empty();
	return true;
}

static bool none_is_left(void)
{
	for (int i = 0; i < 300 && maps_alive("inner"); i++)
		usleep(50000);
	expect_equal(maps_alive("inner"), 0);
	return true;
}

/* Only the outer map has it. */
static uint32_t store_sole(uint64_t rank)
{
	int inner = create_inner();
	uint32_t id = id_of(inner);

	if (bpf_map_update_elem(map("outer"), &rank, &inner, BPF_ANY))
		err(1, "cannot store an inner map");
	close(inner);
	return id;
}

static bool full(void)
{
	struct args args = {};

	empty();
	for (int round = 0; round < 20; round++) {
		/* The same map may be there more than once. */
		for (int i = 0; i < 4; i++)
			expect_equal(push(i / 2, i % 3), 0);
		expect_equal(push(9, 0), -E2BIG);
		for (int i = 0; i < 4; i++) {
			expect_equal(run_args("pop", &args, sizeof(args)), -ENOENT);
			expect_equal(args.rank, i / 2);
		}
	}
	/* One that nobody else has goes away later, but its place is free at once. */
	for (int round = 0; round < 100; round++) {
		for (int i = 0; i < 4; i++)
			store_sole(i);
		for (int i = 0; i < 4; i++)
			expect_equal(run_args("pop", &args, sizeof(args)), -ENOENT);
	}
	expect(none_is_left());
	return true;
}

static bool user_space(void)
{
	uint32_t id, a = map("a"), b = map("b"), different = map("different");
	struct args args = {};
	int fd = map("outer");
	uint64_t rank = 5;

	empty();
	expect(!bpf_map_update_elem(fd, &rank, &a, BPF_NOEXIST));
	expect_equal(bpf_map_update_elem(fd, &rank, &b, BPF_NOEXIST), -EEXIST);
	expect(!bpf_map_lookup_elem(fd, &rank, &id) && id == id_of(a));
	expect_equal(store(5, 6, 7), 0);
	expect_equal(run_args("first", &args, sizeof(args)), 0);
	expect(args.rank == 5 && args.key == 6 && args.value == 7);
	expect(!bpf_map_update_elem(fd, &rank, &b, BPF_EXIST));
	expect_equal(run_args("first", &args, sizeof(args)), 1);
	rank = 4;
	expect_equal(bpf_map_update_elem(fd, &rank, &a, BPF_EXIST), -ENOENT);
	expect(!bpf_map_update_elem(fd, &rank, &a, BPF_ANY));
	expect_equal(bpf_map_update_elem(fd, &rank, &different, BPF_ANY), -EINVAL);
	expect_equal(bpf_map_update_elem(fd, &rank, &fd, BPF_ANY), -EINVAL);
	expect(!bpf_map_lookup_and_delete_elem(fd, &rank, &id) && id == id_of(a));
	expect_equal(bpf_map_lookup_elem(fd, &rank, &id), -ENOENT);
	rank = 5;
	expect(!bpf_map_delete_elem(fd, &rank));
	expect_equal(bpf_map_get_next_key(fd, NULL, &rank), -ENOENT);
	return true;
}

static bool life_by_user_space(void)
{
	int inner = create_inner(), fd = map("outer");
	uint32_t id = id_of(inner);
	uint64_t rank = 1;

	empty();
	expect(!bpf_map_update_elem(fd, &rank, &inner, BPF_ANY));
	close(inner);
	usleep(200000);
	expect(exists(id));
	expect_equal(store(1, 1, 1), 0);
	expect(!bpf_map_delete_elem(fd, &rank));
	expect(goes_away(id));

	inner = create_inner();
	id = id_of(inner);
	expect(!bpf_map_update_elem(fd, &rank, &inner, BPF_ANY));
	close(inner);
	inner = map("a");
	expect(!bpf_map_update_elem(fd, &rank, &inner, BPF_ANY));
	expect(goes_away(id));
	return true;
}

static bool life_by_programs(void)
{
	struct args args = {};
	uint32_t id;
	int error;

	empty();
	id = store_sole(0);
	for (uint64_t turn = 0; turn < 1000; turn++) {
		expect_equal(store(turn, 0, turn), 0);
		args = (struct args){ .which = 1 };
		expect_equal(run_args("move", &args, sizeof(args)), 0);
		expect(args.rank == turn && args.value == turn);
	}
	expect(exists(id));
	expect_equal(run_args("pop", &args, sizeof(args)), -ENOENT);
	expect_equal(args.rank, 1000);
	expect(goes_away(id));

	/* Nobody has it when it is pushed again: that can fail, nothing else can. */
	for (int i = 0; i < 100; i++) {
		id = store_sole(7);
		expect_equal(store(7, 0, i), 0);
		args = (struct args){ .which = 1 };
		error = run_args("rotate", &args, sizeof(args));
		expect(!error || error == -ENOENT);
		expect_equal(args.value, i);
		empty();
		expect(goes_away(id));
	}
	return true;
}

static bool moves(void)
{
	uint64_t rank, key, value = 5;
	uint32_t id;

	empty();
	for (int which = 0; which < 3; which++)
		expect_equal(push(which, which), 0);
	expect_equal(run_args("move_from", &(struct args){ .rank = 1, .key = 2 },
			      sizeof(struct args)), 0);
	expect_equal(run_args("move_from", &(struct args){ .rank = 1, .key = 2 },
			      sizeof(struct args)), -ENOENT);
	/* c, then b; the same key: to the end of it */
	rank = 2;
	expect(!bpf_map_lookup_elem(map("outer"), &rank, &id) && id == id_of(map("c")));
	expect_equal(run_args("move_from", &(struct args){ .rank = 2, .key = 2 },
			      sizeof(struct args)), 0);
	expect(!bpf_map_lookup_elem(map("outer"), &rank, &id) && id == id_of(map("b")));
	expect_equal(run_args("move_from", &(struct args){ .rank = 0, .key = -1 },
			      sizeof(struct args)), 0);
	rank = -1;
	expect(!bpf_map_lookup_elem(map("outer"), &rank, &id) && id == id_of(map("a")));

	key = 3;
	expect_equal(bpf_map_update_elem(map("a"), &key, &value, BPF_ANY), 0);
	expect_equal(run_args("move_value", &(struct args){ .rank = 3, .key = 1 },
			      sizeof(struct args)), 0);
	expect_equal(bpf_map_lookup_elem(map("a"), &key, &value), -ENOENT);
	key = 1;
	expect(!bpf_map_lookup_and_delete_elem(map("a"), &key, &value) && value == 5);
	empty();
	return true;
}

struct turns {
	uint64_t rank;
	uint32_t done;
	int error;
};

/* 64 maps, each of which somebody else has, too; and 64 that nobody else has */
static bool many(void)
{
	int fd = map("many"), inner;
	struct turns turns = {};
	uint64_t rank;
	uint32_t id;

	for (int sole = 0; sole < 2; sole++) {
		for (uint32_t i = 0; i < 64; i++) {
			inner = create_inner();
			rank = i;
			expect_equal(bpf_map_update_elem(fd, &rank, &inner, BPF_ANY), 0);
			if (!sole)
				expect_equal(bpf_map_update_elem(map("queues"), &i, &inner, BPF_ANY), 0);
			close(inner);
		}
		expect_equal(run_args(sole ? "many_moves" : "many_turns", &turns, sizeof(turns)), 0);
		expect_equal(turns.done, 100000);
		for (uint32_t i = 0; i < 64; i++) {
			expect(!bpf_map_get_next_key(fd, NULL, &rank));
			expect_equal(rank, 100000 + i);
			expect(!bpf_map_lookup_and_delete_elem(fd, &rank, &id));
			if (!sole)
				expect(!bpf_map_delete_elem(map("queues"), &i));
		}
		expect(none_is_left());
	}
	return true;
}

static bool active_list(void)
{
	struct turns turns = {};
	int inner;

	for (uint32_t i = 0; i < 16; i++) {
		inner = create_inner();
		expect_equal(bpf_map_update_elem(map("queues"), &i, &inner, BPF_ANY), 0);
		close(inner);
	}
	expect_equal(run_args("many_flows", &turns, sizeof(turns)), 0);
	expect_equal(turns.done, 1);
	for (uint32_t i = 0; i < 16; i++)
		expect(!bpf_map_delete_elem(map("queues"), &i));
	expect(none_is_left());
	return true;
}

static bool in_an_interrupt(void)
{
	struct bpf_link *link;
	uint32_t *popped, id;
	size_t size;

	popped = bpf_map__initial_value(bpf_object__find_map_by_name(obj, ".data.popped"), &size);
	expect(popped && size >= sizeof(*popped));
	empty();
	link = bpf_program__attach(bpf_object__find_program_by_name(obj, "pop_at_a_tick"));
	expect(link);
	for (uint32_t i = 1; i <= 100; i++) {
		id = store_sole(1);
		for (int n = 0; n < 10000 && __atomic_load_n(popped, __ATOMIC_RELAXED) < i; n++)
			usleep(1000);
		expect_equal(*popped, i);
	}
	bpf_link__destroy(link);
	expect(goes_away(id));
	expect(none_is_left());
	return true;
}

/* Take the map at rank 0 out of the map that ticks pop from, in one of these ways. */
enum way { POPPED, DELETED, TAKEN, REPLACED, WITH_THE_OUTER, WAYS };

static const char *const ways[] = {
	"popped, perhaps by a callback that sleeps",
	"deleted while a callback may sleep",
	"looked up and deleted while a callback may sleep",
	"replaced while a callback may sleep",
	"gone with the outer map while a callback may sleep",
};

static bool leaves(enum way way)
{
	int fd = map("outer_of_ticks"), other, outer;
	struct bpf_link *tick;
	uint64_t rank = 0;
	uint32_t value;

	switch (way) {
	case POPPED:
		tick = bpf_program__attach(bpf_object__find_program_by_name(obj, "pop_for_ticks"));
		expect(tick);
		for (int n = 0; n < 10000 && !bpf_map_lookup_elem(fd, &rank, &value); n++)
			usleep(1000);
		bpf_link__destroy(tick);
		break;
	case DELETED:
		expect(!bpf_map_delete_elem(fd, &rank));
		break;
	case TAKEN:
		expect(!bpf_map_lookup_and_delete_elem(fd, &rank, &value));
		break;
	case REPLACED:
		other = create_inner();
		expect(!bpf_map_update_elem(fd, &rank, &other, BPF_EXIST));
		expect(!bpf_map_delete_elem(fd, &rank));
		close(other);
		break;
	default:
		expect(!bpf_map_lookup_elem(fd, &rank, &value));
		other = bpf_map_get_fd_by_id(value);
		outer = create("outer", 4, other, 0);
		expect(!bpf_map_update_elem(outer, &rank, &other, BPF_ANY));
		expect(!bpf_map_delete_elem(fd, &rank));
		close(other);
		close(outer);
	}
	return true;
}

/* A program that cannot sleep may have found a map in a callback that can. */
static bool for_callbacks_that_sleep(enum way way)
{
	int fd = map("outer_of_ticks"), inner = create("asleep", 8, 0, 0);
	uint32_t *freed, id = id_of(inner);
	struct bpf_link *end;
	uint64_t rank = 0;
	size_t size;

	freed = bpf_map__initial_value(bpf_object__find_map_by_name(obj, ".data.freed"), &size);
	expect(freed && size >= 2 * sizeof(*freed));
	freed[0] = freed[1] = 0;
	end = bpf_program__attach(bpf_object__find_program_by_name(obj, "look_at_the_end"));
	expect(end);
	expect(!bpf_map_update_elem(fd, &rank, &inner, BPF_ANY));
	close(inner);
	expect(leaves(way));
	expect(goes_away(id));
	for (int n = 0; n < 10000 && !(__atomic_load_n(&freed[0], __ATOMIC_RELAXED) |
				       __atomic_load_n(&freed[1], __ATOMIC_RELAXED)); n++)
		usleep(1000);
	expect_equal(freed[0], 0);
	expect_equal(freed[1], 1);
	bpf_link__destroy(end);
	return true;
}

/* The outer map goes, with one inner map in it and one just popped. */
static bool life_of_the_outer(void)
{
	int template = create_inner(), outer = create("outer", 4, template, 0);
	struct bpf_object *here = obj;
	struct args args = {};
	uint32_t ids[2];
	int inner;

	expect(outer >= 0);
	close(template);
	obj = open_with_outer(outer);
	expect(!bpf_object__load(obj));
	for (uint64_t rank = 0; rank < 2; rank++) {
		inner = create_inner();
		ids[rank] = id_of(inner);
		expect(!bpf_map_update_elem(outer, &rank, &inner, BPF_ANY));
		close(inner);
	}
	expect_equal(run_args("pop", &args, sizeof(args)), -ENOENT);
	bpf_object__close(obj);
	obj = here;
	expect(exists(ids[1]));
	close(outer);
	expect(goes_away(ids[0]));
	expect(goes_away(ids[1]));
	return true;
}

static bool creation(void)
{
	int inner = create_inner(), outer = create("outer", 4, inner, 0);

	expect(outer >= 0);
	expect_equal(create("outer", 8, inner, 0), -EINVAL);
	expect_equal(create("outer", 4, inner, BPF_F_NO_PREALLOC), -EINVAL);
	expect_equal(create("outer", 4, inner, BPF_F_RDONLY_PROG), -EINVAL);
	expect_equal(create("outer", 4, inner, BPF_F_WRONLY_PROG), -EINVAL);
	expect_equal(create("outer", 4, outer, 0), -EINVAL);
	close(outer);
	close(inner);
	return true;
}

static int quiet(enum libbpf_print_level level, const char *format, va_list args)
{
	(void)level, (void)format, (void)args;
	return 0;
}

static bool refused(const char *name, const char *words)
{
	struct bpf_object *opened = open_with_outer(map("outer"));
	struct bpf_program *prog;
	static char log[1 << 16];
	int status;

	bpf_object__for_each_program(prog, opened)
		bpf_program__set_autoload(prog, !strcmp(bpf_program__name(prog), name));
	prog = bpf_object__find_program_by_name(opened, name);
	bpf_program__set_log_buf(prog, log, sizeof(log));
	bpf_program__set_log_level(prog, 1);
	libbpf_set_print(quiet);
	status = bpf_object__load(opened);
	libbpf_set_print(NULL);
	bpf_object__close(opened);
	expect(status);
	if (!strstr(log, words))
		printf("# %s\n", log);
	expect(strstr(log, words));
	return true;
}

static char said[4096];		/* by libbpf */

static int keep(enum libbpf_print_level level, const char *format, va_list args)
{
	size_t at = strlen(said);

	if (level == LIBBPF_WARN)
		vsnprintf(said + at, sizeof(said) - at, format, args);
	return 0;
}

/* An object beside this one, which libbpf does not even open */
static bool not_opened(const char *name, const char *words)
{
	struct bpf_object *opened;
	char file[4096];

	snprintf(file, sizeof(file), "%.*s/%s.bpf.o", (int)(strrchr(path, '/') - path), path, name);
	said[0] = '\0';
	libbpf_set_print(keep);
	opened = bpf_object__open(file);
	libbpf_set_print(NULL);
	expect(!opened);
	if (!strstr(said, words))
		printf("# %s\n", said);
	expect(strstr(said, words));
	return true;
}

/* No room for an element: what an author forgot is named. */
static bool not_loaded(const char *name)
{
	struct bpf_object *opened = bpf_object__open(path);
	char words[64];

	expect(opened);
	expect(!bpf_map__set_max_entries(bpf_object__find_map_by_name(opened, name), 0));
	said[0] = '\0';
	libbpf_set_print(keep);
	expect(bpf_object__load(opened) == -EINVAL);
	libbpf_set_print(NULL);
	snprintf(words, sizeof(words), "map '%s': an rbtree map needs 'max_entries', which is 0", name);
	if (!strstr(said, words))
		printf("# %s\n", said);
	expect(strstr(said, words));
	bpf_object__close(opened);
	return true;
}

static bool initial_elements(void)
{
	uint32_t key, id, none = 0;
	int fd = map("filled");

	expect(!bpf_map_get_next_key(fd, NULL, &key) && key == 0);
	expect(!bpf_map_lookup_elem(fd, &key, &id) && id == id_of(map("b")));
	expect(!bpf_map_get_next_key(fd, &none, &key) && key == 2);
	expect(!bpf_map_lookup_elem(fd, &key, &id) && id == id_of(map("a")));
	expect_equal(bpf_map_get_next_key(fd, &key, &key), -ENOENT);
	return true;
}

int main(int argc, char **argv)
{
	load(argc, argv);
	path = argv[1];
	btf = btf__new_empty();
	number = btf__add_int(btf, "number", 8, 0);
	half = btf__add_int(btf, "half", 4, 0);
	if (btf__load_into_kernel(btf))
		err(1, "BTF");
	printf("1..29\n");
	result(initial_elements(), "an object's initial elements");
	result(creation(), "creation");
	result(take_turns(), "programs: push under a rank, pop the first, use it");
	result(take_turns_for_long(), "programs: pop and push for long");
	result(full(), "a full map of maps");
	result(user_space(), "user space: file descriptors in, ids out");
	result(life_by_user_space(), "life: user space stores, replaces and deletes");
	result(life_by_programs(), "life: programs pop and push");
	result(life_of_the_outer(), "life: the outer map goes");
	result(moves(), "an element gets another key");
	result(many(), "64 maps popped and pushed, or moved, 100000 times");
	result(active_list(), "an active list of 16 flows");
	result(in_an_interrupt(), "popped in hard interrupts");
	for (enum way way = 0; way < WAYS; way++)
		result(for_callbacks_that_sleep(way), ways[way]);
	result(refused("refused_update", "cannot pass map_type"), "refused: update by a program");
	result(refused("refused_delete", "cannot pass map_type"), "refused: delete by a program");
	result(refused("refused_plain_push", "neither packets nor maps"), "refused: push of a value");
	result(refused("refused_different_map", "expected a map that the map of maps before it can hold"),
	       "refused: push of a different map");
	result(refused("refused_outer_as_inner", "expected a map that the map of maps before it can hold"),
	       "refused: push of a map of maps");
	result(refused("refused_not_of_maps", "expected an rbtree map of maps"),
	       "refused: push into another map");
	result(refused("refused_move_of_packets", "expected an rbtree map that holds no packets"),
	       "refused: move of a packet");
	result(refused("refused_without_check", "Possibly NULL pointer"),
	       "refused: use without a check");
	result(not_opened("untyped_outer", "map 'outer': an rbtree map with a type of the key needs one of the value, too: '__type(value, __u32)'"),
	       "libbpf refuses: a map of maps without a type of the value");
	result(not_opened("untyped_inner", "map 'outer.inner': an rbtree map with a type of the key needs one of the value, too"),
	       "libbpf refuses: an inner map without a type of the value");
	result(not_loaded("a"), "libbpf refuses: a map without room");
	return failed ? 1 : 0;
}
