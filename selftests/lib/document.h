/* SPDX-License-Identifier: GPL-2.0 */
/* What Documentation/bpf/map_rbtree.rst prints of an example */
#ifndef SELFTESTS_DOCUMENT_H
#define SELFTESTS_DOCUMENT_H

#include <err.h>
#include <libgen.h>
#include <string.h>
#include "expect.h"

/* A file, with a tab before each line that is not empty if @indent. */
static inline char *text_of(const char *folder, const char *name, bool indent)
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

/* The document prints the program @name beside @object, from @first to before its licence. */
static inline bool is_in_the_document(char *object, const char *name, const char *first)
{
	char *folder = dirname(object);
	char *source = text_of(folder, name, true);
	char *document = text_of(folder, "../../Documentation/bpf/map_rbtree.rst", false);

	source = strstr(source, first);
	expect(source);
	*strstr(source, "\n\tchar LICENSE") = '\0';
	expect(strstr(document, source));
	return true;
}

#endif /* SELFTESTS_DOCUMENT_H */
