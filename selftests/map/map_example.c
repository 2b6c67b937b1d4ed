// SPDX-License-Identifier: GPL-2.0
/*
 * map_example OBJECT: the example of Documentation/bpf/map_rbtree.rst does what
 * is said there, and is what is printed there.
 */
#include "../lib/map.h"
#include <libgen.h>

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

/* A file, with a tab before each line that is not empty if @indent. */
static char *text_of(const char *folder, const char *name, bool indent)
{
	static char text[2][1 << 16];
	char path[4096], line[1024], *at = text[indent];
	FILE *file;

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	file = fopen(path, "r");
	if (!file)
		err(1, "%s", path);
	while (fgets(line, sizeof(line), file))
		at += sprintf(at, "%s%s", indent && *line != '\n' ? "\t" : "", line);
	fclose(file);
	return text[indent];
}

static bool is_in_the_document(char *folder)
{
	char *source = text_of(folder, "map_example.bpf.c", true);
	char *document = text_of(folder, "../../Documentation/bpf/map_rbtree.rst", false);

	source = strstr(source, "\t/* Events wait");
	expect(source);
	*strstr(source, "\n\tchar LICENSE") = '\0';
	expect(strstr(document, source));
	return true;
}

int main(int argc, char **argv)
{
	load(argc, argv);
	printf("1..2\n");
	result(works(), "the example works");
	result(is_in_the_document(dirname(argv[1])), "the document prints it");
	return failed ? 1 : 0;
}
