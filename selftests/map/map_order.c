// SPDX-License-Identifier: GPL-2.0
/*
 * map_order OBJECT: 100000 random keys of each type (10000 of enums) go into an
 * ordered map and come out sorted, those with equal keys in the order of arrival.
 * The programs see to that; none gets lost.
 */
#include "../lib/map.h"

static bool in_order(const char *name)
{
	struct {
		uint32_t count, wrong;
	} out = {};
	int entries = bpf_map__max_entries(bpf_object__find_map_by_name(obj, name));
	char program[64];

	snprintf(program, sizeof(program), "order_%s", name);
	for (int round = 0; round < 2; round++) {
		expect_equal(run_args(program, &out, sizeof(out)), 0);
		expect_equal(out.count, entries);
		expect_equal(out.wrong, 0);
	}
	return true;
}

int main(int argc, char **argv)
{
	static const char *const names[] = {
		"by_u8", "by_s8", "by_u16", "by_s16", "by_u32", "by_s32", "by_u64", "by_s64",
		"by_pair", "by_flow", "by_enum", "by_signed_enum", "by_small_enum", "by_enum64",
		"by_signed_enum64", "by_member", "by_member64", "no_prealloc",
	};

	load(argc, argv);
	printf("1..%zu\n", sizeof(names) / sizeof(names[0]));
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		result(in_order(names[i]), names[i]);
	return failed ? 1 : 0;
}
