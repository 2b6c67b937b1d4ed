// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* The packets in an ordered map: an iterator of the kernel shows what struct
 * __sk_buff would.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "main.h"
#include "skeleton/packet_iter.h"

#ifdef BPFTOOL_WITHOUT_SKELETONS

int dump_packets(int map_fd, const struct bpf_map_info *info, packet_fn fn, void *arg)
{
	return -EOPNOTSUPP;
}

#else /* BPFTOOL_WITHOUT_SKELETONS */

#include "packet_iter.skel.h"

static int print_none(enum libbpf_print_level level, const char *format, va_list args)
{
	return 0;
}

/* An error means that the kernel has no such iterator, or the map no packets */
static int start_iter(struct packet_iter_bpf *skel, int map_fd)
{
	union bpf_iter_link_info linfo = { .map.map_fd = map_fd };
	DECLARE_LIBBPF_OPTS(bpf_iter_attach_opts, opts,
			    .link_info = &linfo,
			    .link_info_len = sizeof(linfo));
	int err;

	err = packet_iter_bpf__load(skel);
	if (err)
		return err;
	skel->links.iter = bpf_program__attach_iter(skel->progs.iter, &opts);
	if (!skel->links.iter)
		return -errno;
	return bpf_iter_create(bpf_link__fd(skel->links.iter));
}

static int read_packets(FILE *file, const struct bpf_map_info *info, packet_fn fn, void *arg)
{
	struct packet_entry entry;
	void *key, *value;
	int err = 0;

	key = malloc(info->key_size);
	value = malloc(info->value_size);
	if (!key || !value) {
		p_err("mem alloc failed");
		err = -ENOMEM;
	}
	while (!err && fread(&entry, sizeof(entry), 1, file) == 1) {
		if (fread(key, info->key_size, 1, file) != 1 ||
		    fread(value, info->value_size, 1, file) != 1)
			break;
		fn(key, value, &entry, arg);
	}
	if (ferror(file)) {
		err = -errno;
		p_err("failed to read packets: %s", strerror(errno));
	}
	free(key);
	free(value);
	return err;
}

/* Call @fn for each packet in the map. -EOPNOTSUPP: packets cannot be had. */
int dump_packets(int map_fd, const struct bpf_map_info *info, packet_fn fn, void *arg)
{
	libbpf_print_fn_t print = libbpf_set_print(NULL);
	struct packet_iter_bpf *skel;
	int err = -EOPNOTSUPP, fd;
	FILE *file;

	libbpf_set_print(verifier_logs ? print : print_none);
	skel = packet_iter_bpf__open();
	if (!skel)
		goto out;
	skel->rodata->key_size = info->key_size;
	skel->rodata->value_size = info->value_size;
	fd = start_iter(skel, map_fd);
	if (fd < 0)
		goto out;

	file = fdopen(fd, "r");
	if (file) {
		err = read_packets(file, info, fn, arg);
		fclose(file);
	} else {
		close(fd);
	}
out:
	packet_iter_bpf__destroy(skel);
	libbpf_set_print(print);
	return err;
}

#endif /* BPFTOOL_WITHOUT_SKELETONS */

static const char *clock_name(__u32 type)
{
	switch (type) {
	case BPF_SKB_CLOCK_MONOTONIC:
		return "monotonic";
	case BPF_SKB_CLOCK_TAI:
		return "tai";
	default:
		return "realtime";
	}
}

void print_packet(const struct packet_entry *p, json_writer_t *wtr)
{
	char protocol[8];

	snprintf(protocol, sizeof(protocol), "0x%04x", ntohs(p->protocol));
	jsonw_start_object(wtr);
	jsonw_uint_field(wtr, "len", p->len);
	jsonw_uint_field(wtr, "wire_len", p->wire_len);
	jsonw_uint_field(wtr, "gso_segs", p->gso_segs);
	jsonw_string_field(wtr, "protocol", protocol);
	jsonw_uint_field(wtr, "mark", p->mark);
	jsonw_uint_field(wtr, "priority", p->priority);
	jsonw_uint_field(wtr, "hash", p->hash);
	jsonw_uint_field(wtr, "tstamp", p->tstamp);
	jsonw_string_field(wtr, "tstamp_type", clock_name(p->tstamp_type));
	jsonw_uint_field(wtr, "ifindex", p->ifindex);
	jsonw_uint_field(wtr, "queue_mapping", p->queue_mapping);
	jsonw_end_object(wtr);
}
