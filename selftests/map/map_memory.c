// SPDX-License-Identifier: GPL-2.0
/*
 * map_memory OBJECT: a map takes memory as it fills, ahead of need, and nothing is lost
 * when it fills at once: in process context, in a softirq, and while nobody allocates
 * ahead.
 */
#include "../lib/map.h"
#include <arpa/inet.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <sys/socket.h>
#include <unistd.h>

#define MANY	10000
#define ELEM	(56 + 8 + 8)	/* bytes of an element */
#define DEV	"memory0"
#define PEER	"memory1"

struct burst {
	uint64_t start;
	uint32_t count;
	uint32_t done;
	int error;
};

static struct {
	uint32_t hold;
	uint32_t held;
	uint32_t packets;
	uint32_t errors;
} *bss;

/* Bytes, as user space sees them */
static long memory(const char *name)
{
	char path[64], line[256];
	long bytes = -1;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", map(name));
	file = fopen(path, "r");
	if (!file)
		err(1, "%s", path);
	while (fgets(line, sizeof(line), file))
		if (sscanf(line, "memlock: %ld", &bytes) == 1)
			break;
	fclose(file);
	return bytes;
}

static bool call(const char *what, const char *name, struct burst burst)
{
	char program[64];

	snprintf(program, sizeof(program), "%s_%s", what, name);
	expect_equal(run_args(program, &burst, sizeof(burst)), 0);
	expect_equal(burst.done, burst.count);
	return true;
}

static bool empty_ones(void)
{
	printf("# %ld bytes for up to 10000, %ld for up to 64\n", memory("numbers"), memory("few"));
	expect(memory("numbers") < 16384);
	expect(memory("few") > 64 * ELEM && memory("few") < 16384);
	/* All of a small map is there at once, and stays. */
	expect(call("fill", "few", (struct burst){ .count = 64 }));
	expect(memory("few") < 16384);
	return true;
}

/* As they come one by one, each chunk is ahead of need. */
static bool slowly(void)
{
	long before = memory("numbers"), now;

	for (uint64_t i = 0; i < 100; i++) {
		expect(call("fill", "numbers", (struct burst){ .start = i, .count = 1 }));
		usleep(1000);
	}
	/* Until the one that the last has asked for is there */
	for (int i = 0; i < 300 && memory("numbers") < before + 150 * ELEM; i++)
		usleep(10000);
	now = memory("numbers");
	printf("# %ld bytes with 100 elements\n", now);
	expect(now > before + 150 * ELEM && now < before + 400 * ELEM);
	expect(call("fill", "numbers", (struct burst){ .start = 100, .count = MANY - 100 }));
	return true;
}

static bool is_full(const char *name)
{
	struct burst burst = { .count = 1 };
	long now = memory(name);
	char program[64];

	printf("# %ld bytes with 10000 elements\n", now);
	snprintf(program, sizeof(program), "fill_%s", name);
	expect_equal(run_args(program, &burst, sizeof(burst)), -E2BIG);
	/* Hardly more than they are, also if chunks came that nobody needed any more */
	expect(now > MANY * ELEM && now < MANY * ELEM * 5 / 4);
	expect(call("empty", name, (struct burst){ .count = MANY }));
	expect(call("fill", name, (struct burst){ .start = 5, .count = MANY }));
	expect(call("empty", name, (struct burst){ .count = MANY }));
	expect_equal(memory(name), now);
	return true;
}

static bool held_up(void)
{
	struct bpf_link *link = bpf_program__attach(bpf_object__find_program_by_name(obj, "hold_up"));
	bool filled;

	expect(link);
	bss->hold = 1;
	filled = call("fill", "held_up", (struct burst){ .count = MANY });
	bss->hold = 0;
	bpf_link__destroy(link);
	printf("# %u times held up\n", bss->held);
	expect(filled && bss->held);
	return is_full("held_up");
}

static bool in_a_softirq(void)
{
	LIBBPF_OPTS(bpf_tc_hook, hook, .attach_point = BPF_TC_INGRESS);
	LIBBPF_OPTS(bpf_tc_opts, opts, .handle = 1, .priority = 1);
	struct sockaddr_ll address = { .sll_family = AF_PACKET };
	char frame[100] = { [12] = 0x88, [13] = 0xb5 };
	int sender = socket(AF_PACKET, SOCK_RAW, 0);

	expect(!system("ip link add " DEV " type veth peer name " PEER " && "
		       "sysctl -qw net.ipv6.conf." DEV ".disable_ipv6=1 net.ipv6.conf." PEER ".disable_ipv6=1 && "
		       "ip link set " DEV " up && ip link set " PEER " up"));
	hook.ifindex = if_nametoindex(PEER);
	opts.prog_fd = bpf_program__fd(bpf_object__find_program_by_name(obj, "arrive"));
	expect(!bpf_tc_hook_create(&hook) && !bpf_tc_attach(&hook, &opts));
	address.sll_ifindex = if_nametoindex(DEV);
	expect(!bind(sender, (void *)&address, sizeof(address)));
	for (int i = 0; i < MANY; i++)
		expect_equal(send(sender, frame, sizeof(frame), 0), sizeof(frame));
	for (int i = 0; i < 1000 && bss->packets < MANY; i++)
		usleep(10000);
	close(sender);
	expect(!system("ip link del " DEV));
	expect_equal(bss->packets, MANY);
	expect_equal(bss->errors, 0);
	return true;
}

int main(int argc, char **argv)
{
	size_t size;

	load(argc, argv);
	bss = bpf_map__initial_value(bpf_object__find_map_by_name(obj, ".bss"), &size);
	if (!bss || size < sizeof(*bss))
		errx(1, "no variables");
	printf("1..5\n");
	result(empty_ones(), "an empty map takes little");
	result(slowly(), "memory comes ahead of need");
	result(is_full("numbers"), "a full map takes what it may have, and keeps it");
	result(held_up(), "10000 elements at once while nobody allocates ahead");
	result(in_a_softirq(), "10000 elements in softirqs");
	return failed ? 1 : 0;
}
