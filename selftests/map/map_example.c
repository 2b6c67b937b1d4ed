// SPDX-License-Identifier: GPL-2.0
/*
 * map_example OBJECT: the example of Documentation/bpf/map_rbtree.rst does what
 * is said there, and is what is printed there.
 */
#include "../lib/document.h"
#include "../lib/map.h"

struct event_request {
	uint64_t time;
	uint32_t event;
};

static bool works(void)
{
	static const struct event_request in[] = { { 30, 1 }, { 10, 2 }, { 20, 3 }, { 10, 1 } };
	static const struct event_request out[] = { { 10, 2 }, { 10, 1 }, { 20, 3 } };
	struct event_request request;

	for (int i = 0; i < 4; i++) {
		request = in[i];
		expect_equal(run_args("add_event", &request, sizeof(request)), 0);
	}
	expect_equal(run("count_events"), 4);
	for (int i = 0; i < 3; i++) {
		request = (struct event_request){ .time = 25 };
		expect_equal(run_args("next_event", &request, sizeof(request)), 1);
		expect_equal(request.time, out[i].time);
		expect_equal(request.event, out[i].event);
	}
	request.time = 25;
	expect_equal(run_args("next_event", &request, sizeof(request)), 0);
	return true;
}

int main(int argc, char **argv)
{
	load(argc, argv);
	printf("1..2\n");
	result(works(), "the example works");
	result(is_in_the_document(argv[1], "map_example.bpf.c", "\t/* Events wait"),
	       "the document prints it");
	return failed ? 1 : 0;
}
