// SPDX-License-Identifier: GPL-2.0
/*
 * A plug-in for QEMU that counts the instructions a guest executes, by address.
 *
 *	-plugin file=insns.so,folder=FOLDER,first=ADDRESS,last=ADDRESS
 *
 * The guest says what to count: between the two marks below, which are
 * instructions without an effect, and which only bench/guest.py executes. Each
 * such period, numbered from 1, becomes a file FOLDER/NUMBER with a line
 * "ADDRESS INSTRUCTIONS" for each block of the kernel's code that ran; the address is
 * the block's first, in hexadecimal. A period begins anew when the instruction at
 * `first` is executed for the first time in it, and ends with the one at `last`:
 * who sends packets waits for some time before and after, and what else happens then
 * is not theirs.
 *
 * For one CPU at a time (-icount). QEMU's packages come without the header of
 * this interface, so what is used of it is declared here.
 */
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))

enum { CB_NO_REGS = 0 };		/* enum qemu_plugin_cb_flags */
enum { INLINE_ADD_U64 = 0 };		/* enum qemu_plugin_op */

struct qemu_plugin_tb;
struct qemu_plugin_insn;

void qemu_plugin_register_vcpu_tb_trans_cb(uint64_t id, void (*cb)(uint64_t id,
								    struct qemu_plugin_tb *tb));
void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb *tb, int op, void *counter,
					      uint64_t add);
void qemu_plugin_register_vcpu_insn_exec_inline(struct qemu_plugin_insn *insn, int op, void *counter,
						uint64_t add);
void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn *insn,
					    void (*cb)(unsigned int cpu, void *data), int flags,
					    void *data);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *tb);
uint64_t qemu_plugin_tb_vaddr(const struct qemu_plugin_tb *tb);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *tb, size_t i);
const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *insn);
uint64_t qemu_plugin_insn_vaddr(const struct qemu_plugin_insn *insn);
size_t qemu_plugin_insn_size(const struct qemu_plugin_insn *insn);

EXPORT int qemu_plugin_version = 1;

/* nopl 0x01627363(%rax) and nopl 0x02627363(%rax) */
static const uint8_t marks[2][7] = {
	{ 0x0f, 0x1f, 0x80, 'c', 's', 'b', 1 },		/* start */
	{ 0x0f, 0x1f, 0x80, 'c', 's', 'b', 2 },		/* stop */
};

struct block {
	uint64_t address;
	uint64_t executed;		/* instructions */
	struct block *next;
};

static struct block *blocks[1 << 16];
static const char *folder;
static uint64_t first, last;
static unsigned int period;
static bool open, begun;

static void clear(void)
{
	for (size_t i = 0; i < sizeof(blocks) / sizeof(blocks[0]); i++)
		for (struct block *b = blocks[i]; b; b = b->next)
			b->executed = 0;
}

static void start(unsigned int cpu, void *data)
{
	(void)cpu;
	(void)data;
	period++;
	open = true;
	begun = false;
	clear();
}

static void begin(unsigned int cpu, void *data)
{
	(void)cpu;
	(void)data;
	if (open && !begun)
		clear();
	begun = true;
}

static void stop(unsigned int cpu, void *data)
{
	char path[4096];
	FILE *file;

	(void)cpu;
	(void)data;
	if (!open)
		return;
	open = false;
	snprintf(path, sizeof(path), "%s/%u", folder, period);
	file = fopen(path, "w");
	for (size_t i = 0; file && i < sizeof(blocks) / sizeof(blocks[0]); i++)
		for (struct block *b = blocks[i]; b; b = b->next)
			if (b->executed)
				fprintf(file, "%" PRIx64 " %" PRIu64 "\n", b->address, b->executed);
	if (!file || fclose(file)) {
		perror(path);
		exit(1);
	}
}

/* QEMU translates a block again and again, also in part; the counter stays. */
static struct block *find(uint64_t address)
{
	struct block **head = &blocks[(address ^ address >> 16) % (1 << 16)], *b;

	for (b = *head; b; b = b->next)
		if (b->address == address)
			return b;
	b = calloc(1, sizeof(*b));
	if (!b)
		abort();
	b->address = address;
	b->next = *head;
	*head = b;
	return b;
}

static void translated(uint64_t id, struct qemu_plugin_tb *tb)
{
	size_t n = qemu_plugin_tb_n_insns(tb);
	struct qemu_plugin_insn *end = qemu_plugin_tb_get_insn(tb, n - 1);
	uint64_t address = qemu_plugin_tb_vaddr(tb), *executed;

	(void)id;
	/* Not user space: each process that starts has it somewhere else, and blocks would
	 * become more and more.
	 */
	if (address >> 63) {
		executed = &find(address)->executed;
		qemu_plugin_register_vcpu_tb_exec_inline(tb, INLINE_ADD_U64, executed, n - 1);
		/* The last one by itself: if it reaches into another page, QEMU lists it here,
		 * but leaves it to the next block.
		 */
		qemu_plugin_register_vcpu_insn_exec_inline(end, INLINE_ADD_U64, executed, 1);
	}
	for (size_t i = 0; i < n; i++) {
		struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);

		if (qemu_plugin_insn_vaddr(insn) == first)
			qemu_plugin_register_vcpu_insn_exec_cb(insn, begin, CB_NO_REGS, NULL);
		if (qemu_plugin_insn_vaddr(insn) == last)
			qemu_plugin_register_vcpu_insn_exec_cb(insn, stop, CB_NO_REGS, NULL);
		if (qemu_plugin_insn_size(insn) != sizeof(marks[0]))
			continue;
		for (int mark = 0; mark < 2; mark++)
			if (!memcmp(qemu_plugin_insn_data(insn), marks[mark], sizeof(marks[0])))
				qemu_plugin_register_vcpu_insn_exec_cb(insn, mark ? stop : start,
								       CB_NO_REGS, NULL);
	}
}

EXPORT int qemu_plugin_install(uint64_t id, const void *info, int argc, char **argv)
{
	(void)info;
	if (argc != 3 || strncmp(argv[0], "folder=", 7) ||
	    sscanf(argv[1], "first=%" SCNx64, &first) != 1 ||
	    sscanf(argv[2], "last=%" SCNx64, &last) != 1)
		return -1;
	folder = strdup(argv[0] + 7);
	qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
	return 0;
}
