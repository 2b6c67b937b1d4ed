// SPDX-License-Identifier: GPL-2.0
/*
 * without_cgroups: each policy loads on a kernel without cgroups. libbpf compares the fields that
 * programs read with the types of the kernel; here it is given those of this kernel under other
 * names, where they are of cgroups.
 */
#define _GNU_SOURCE
#include <bpf/btf.h>
#include <bpf/libbpf.h>
#include <err.h>
#include <glob.h>
#include <libgen.h>
#include <stdlib.h>
#include <string.h>
#include "../lib/expect.h"

#define TYPES	"/tmp/without_cgroups.btf"

/* Without cgroups struct sock_cgroup_data has no member, and there is no struct cgroup. */
static bool write_types(void)
{
	struct btf *btf = btf__load_vmlinux_btf();
	struct btf_type *of_socket, *cgroup;
	const void *bytes;
	int ids[2], other;
	FILE *file;
	__u32 size;

	expect(btf);
	ids[0] = btf__find_by_name_kind(btf, "sock_cgroup_data", BTF_KIND_STRUCT);
	ids[1] = btf__find_by_name_kind(btf, "cgroup", BTF_KIND_STRUCT);
	expect(ids[0] > 0 && ids[1] > 0);
	/* From now on its types are in memory that can be written. */
	other = btf__add_str(btf, "not_of_this_kernel");
	expect(other > 0);
	of_socket = (struct btf_type *)btf__type_by_id(btf, ids[0]);
	cgroup = (struct btf_type *)btf__type_by_id(btf, ids[1]);
	for (unsigned int i = 0; i < btf_vlen(of_socket); i++)
		btf_members(of_socket)[i].name_off = other;
	cgroup->name_off = other;
	bytes = btf__raw_data(btf, &size);
	file = fopen(TYPES, "w");
	expect(bytes && file);
	expect(fwrite(bytes, size, 1, file) == 1 && !fclose(file));
	btf__free(btf);
	return true;
}

static bool loads(const char *path)
{
	LIBBPF_OPTS(bpf_object_open_opts, options, .btf_custom_path = TYPES);
	struct bpf_object *object = bpf_object__open_file(path, &options);
	struct bpf_map *map;
	int error;

	expect(object);
	bpf_object__for_each_map(map, object)
		bpf_map__set_pin_path(map, NULL);
	error = bpf_object__load(object);
	bpf_object__close(object);
	expect_equal(error, 0);
	return true;
}

int main(int argc, char **argv)
{
	char pattern[4096], *top = dirname(dirname(dirname(argv[0])));
	glob_t policies;

	(void)argc;
	snprintf(pattern, sizeof(pattern), "%s/policies/*.bpf.o", top);
	if (glob(pattern, 0, NULL, &policies))
		errx(1, "nothing is %s", pattern);
	printf("1..%zu\n", policies.gl_pathc);
	for (size_t i = 0; i < policies.gl_pathc; i++) {
		char *path = policies.gl_pathv[i];

		result((i || write_types()) && loads(path), basename(path));
	}
	globfree(&policies);
	return !!failed;
}
