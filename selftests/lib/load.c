// SPDX-License-Identifier: GPL-2.0
/*
 * load [OBJECT]: load each program of an object alone, once as everybody does and once
 * with BPF_F_TEST_STATE_FREQ, so that the verifier compares states wherever paths join,
 * and compare what it says with the program's annotation, a BTF declaration tag:
 *
 *	accepted:		it must load
 *	refused:WORDS		it must not, and the verifier's log must have WORDS
 *
 * A program of struct_ops NAME is loaded by a map NAME_ops.
 *
 * Prints TAP. A program without annotation fails. Without OBJECT it is the one beside this
 * program and of its name, as kselftest has it.
 */
#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <bpf/libbpf.h>
#include <err.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char log_buf[1 << 20];

/* The annotation of the function @name, or NULL. */
static const char *annotation(const struct btf *btf, const char *name)
{
	int func = btf__find_by_name_kind(btf, name, BTF_KIND_FUNC);

	for (unsigned int id = 1; func > 0 && id < btf__type_cnt(btf); id++) {
		const struct btf_type *t = btf__type_by_id(btf, id);

		if (btf_is_decl_tag(t) && t->type == (unsigned int)func &&
		    btf_decl_tag(t)->component_idx == -1)
			return btf__name_by_offset(btf, t->name_off);
	}
	return NULL;
}

static struct bpf_object *open_object(const char *path)
{
	struct bpf_object *obj = bpf_object__open(path);

	if (!obj)
		err(1, "%s", path);
	return obj;
}

/* 0 or a negative error; the verifier's log is in log_buf. */
static int load_alone(const char *path, const char *name, unsigned int flags)
{
	struct bpf_object *obj = open_object(path);
	struct bpf_program *prog;
	char ops[256];
	struct bpf_map *map;
	int status;

	snprintf(ops, sizeof(ops), "%s_ops", name);
	bpf_object__for_each_map(map, obj)
		if (bpf_map__type(map) == BPF_MAP_TYPE_STRUCT_OPS)
			bpf_map__set_autocreate(map, !strcmp(bpf_map__name(map), ops));
	log_buf[0] = '\0';
	bpf_object__for_each_program(prog, obj) {
		bpf_program__set_autoload(prog, !strcmp(bpf_program__name(prog), name));
		bpf_program__set_flags(prog, bpf_program__flags(prog) | flags);
		bpf_program__set_log_buf(prog, log_buf, sizeof(log_buf));
		bpf_program__set_log_level(prog, 1);
	}
	status = bpf_object__load(obj);
	bpf_object__close(obj);
	return status;
}

/* What is wrong with @status, in a static buffer; NULL if nothing. */
static const char *wrong(const char *expected, int status)
{
	static char text[256];

	if (!expected)
		return "has no annotation";
	if (!strcmp(expected, "accepted:"))
		return status ? "was refused" : NULL;
	if (strncmp(expected, "refused:", 8))
		return "has an annotation that makes no sense";
	if (!status)
		return "was accepted";
	if (strstr(log_buf, expected + 8))
		return NULL;
	snprintf(text, sizeof(text), "was refused, but not with '%s'", expected + 8);
	return text;
}

/* The log's end, as TAP diagnostics. */
static void print_log(void)
{
	size_t len = strlen(log_buf);
	char *line = log_buf + (len > 1500 ? len - 1500 : 0);

	for (line = strtok(line, "\n"); line; line = strtok(NULL, "\n"))
		printf("#   %s\n", line);
}

static int quiet(enum libbpf_print_level level, const char *format, va_list args)
{
	(void)level, (void)format, (void)args;
	return 0;
}

/* Load @prog of the object at @path in one way. Is it as it should be? */
static bool as_annotated(const char *path, const char *name, const char *expected,
			 unsigned int flags, int number)
{
	int status = load_alone(path, name, flags);
	const char *what = wrong(expected, status);

	printf("%sok %d %s%s\n", what ? "not " : "", number, name, flags ? ", state by state" : "");
	if (what) {
		printf("# %s %s (%d)\n", name, what, status);
		print_log();
	}
	fflush(stdout);
	return !what;
}

int main(int argc, char **argv)
{
	struct bpf_object *obj;
	struct bpf_program *prog;
	int count = 0, failed = 0;
	char beside[4096];

	if (argc == 1) {
		snprintf(beside, sizeof(beside), "%s.bpf.o", argv[0]);
		argv[argc++] = beside;
	}
	if (argc != 2)
		errx(2, "usage: load OBJECT");
	libbpf_set_print(quiet);
	obj = open_object(argv[1]);
	bpf_object__for_each_program(prog, obj)
		count += 2;
	printf("1..%d\n", count);
	count = 0;
	bpf_object__for_each_program(prog, obj) {
		const char *name = bpf_program__name(prog);
		const char *expected = annotation(bpf_object__btf(obj), name);

		failed |= !as_annotated(argv[1], name, expected, 0, ++count);
		failed |= !as_annotated(argv[1], name, expected, BPF_F_TEST_STATE_FREQ, ++count);
	}
	return failed;
}
