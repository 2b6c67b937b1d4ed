// SPDX-License-Identifier: GPL-2.0
/* A program outside the repository that attaches with libbpf. */
#include <net/if.h>
#include <bpf/libbpf.h>

int main(int argc, char **argv)
{
	struct bpf_qdisc_info info = { .sz = sizeof(info) };

	return argc < 2 || bpf_qdisc_query(if_nametoindex(argv[1]), NULL, &info);
}
