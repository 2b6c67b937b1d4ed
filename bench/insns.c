// SPDX-License-Identifier: GPL-2.0
/*
 * A plug-in for QEMU that counts the instructions a guest executes, by address, and, if
 * it is asked to, what they touch.
 *
 *	-plugin file=insns.so,folder=FOLDER[,PLACE=ADDRESS[-END]]...
 *
 * The guest says what to count: between the two marks below, which are
 * instructions without an effect, and which only bench/guest.py executes. Each
 * such period, numbered from 1, becomes a file FOLDER/NUMBER with a line for each block of
 * the kernel's code that ran: the block's first address, in hexadecimal, and the
 * numbers of enum figure. A period begins anew when the instruction at
 * `first` is executed for the first time in it, and ends with the one at `last`:
 * who sends packets waits for some time before and after, and what else happens then
 * is not theirs.
 *
 * Memory is looked at if there is a place `take`. Each of these may be given several times:
 *
 *	enter, leave	A packet comes, goes.
 *	interrupt	What is done from here on is not the last packet's.
 *	run		A function that is called with the root lock held, if there is one.
 *	take, release	The kernel's functions, from ADDRESS to before END, that take a
 *			spin lock by an instruction with a lock prefix, or release it.
 *
 * A root lock is the lock that was taken last of those that are held when `run` is
 * executed. It is known from then on to the end of the period.
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
enum { MEM_RW = 3 };			/* enum qemu_plugin_mem_rw */

struct qemu_plugin_tb;
struct qemu_plugin_insn;

typedef void memory_cb(unsigned int cpu, uint32_t info, uint64_t address, void *data);
typedef void exec_cb(unsigned int cpu, void *data);

void qemu_plugin_register_vcpu_tb_trans_cb(uint64_t id, void (*cb)(uint64_t id,
								    struct qemu_plugin_tb *tb));
void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb *tb, int op, void *counter,
					      uint64_t add);
void qemu_plugin_register_vcpu_insn_exec_inline(struct qemu_plugin_insn *insn, int op,
						void *counter, uint64_t add);
void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn *insn, exec_cb *cb, int flags,
					    void *data);
void qemu_plugin_register_vcpu_mem_cb(struct qemu_plugin_insn *insn, memory_cb *cb, int flags,
				      int rw, void *data);
unsigned int qemu_plugin_mem_size_shift(uint32_t info);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *tb);
uint64_t qemu_plugin_tb_vaddr(const struct qemu_plugin_tb *tb);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *tb, size_t i);
const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *insn);
uint64_t qemu_plugin_insn_vaddr(const struct qemu_plugin_insn *insn);
size_t qemu_plugin_insn_size(const struct qemu_plugin_insn *insn);

EXPORT int qemu_plugin_version = 1;

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* nopl 0x01627363(%rax) and nopl 0x02627363(%rax) */
static const uint8_t marks[2][7] = {
	{ 0x0f, 0x1f, 0x80, 'c', 's', 'b', 1 },		/* start */
	{ 0x0f, 0x1f, 0x80, 'c', 's', 'b', 2 },		/* stop */
};

/* Of a block. A line that several touch in one packet, or in one holding of the lock, is the
 * first one's.
 */
enum figure {
	INSNS,
	ATOMICS,		/* instructions with a lock prefix, and xchg with memory */
	LINES,			/* cache lines, but the stack's, distinct in a packet */
	STACK,			/* the stack's */
	LOCKED,			/* LINES, distinct in each holding of a root lock */
	LOCKED_STACK,
	L1_MISSES,
	L2_MISSES,
	FIGURES,
};

struct block {
	uint64_t address;
	uint64_t figures[FIGURES];
	struct block *next;
};

static struct block *blocks[1 << 16];
static const char *folder;
static unsigned int period;
static bool open, begun;

/* --- memory ----------------------------------------------------------------------------- */

#define LINE 64
#define SLOTS (1 << 16)
#define THREAD_SIZE (16 << 10)		/* of a stack, and what it is aligned to */

/* Lines that were touched since it was emptied: those in slots of `now`. It empties itself when
 * half of it is used, which is far more than a packet touches.
 */
struct set {
	uint64_t lines[SLOTS];
	uint32_t when[SLOTS];
	uint32_t now, used;
};

static struct set packet, holding;

#define L1_BITS 6
#define L2_BITS 10

/* Caches, by set; in each, lines from the one used last to the one that makes room. */
static uint64_t l1[1 << L1_BITS][8];	/* 32 KiB */
static uint64_t l2[1 << L2_BITS][16];	/* 1 MiB */

static uint64_t held[16], roots[16];	/* addresses of locks, the last one first */
static bool locked;			/* a root lock is held */
static bool left;			/* the packet has left */
static uint64_t stack;			/* an address in it */

static void empty(struct set *set)
{
	set->now++;
	set->used = 0;
}

static bool add(struct set *set, uint64_t line)
{
	size_t i = line * 0x9e3779b97f4a7c15 >> 48;

	if (set->used == SLOTS / 2)
		empty(set);
	for (; set->when[i] == set->now; i = (i + 1) % SLOTS)
		if (set->lines[i] == line)
			return false;
	set->lines[i] = line;
	set->when[i] = set->now;
	set->used++;
	return true;
}

/* Make it the first; the last one goes if it was not there. Return whether it was. */
static bool to_front(uint64_t *all, size_t n, uint64_t one)
{
	size_t i = 0;

	while (i < n - 1 && all[i] != one)
		i++;
	n = all[i] == one;
	memmove(all + 1, all, i * sizeof(*all));
	all[0] = one;
	return n;
}

static bool contains(const uint64_t *all, size_t n, uint64_t one)
{
	while (n && all[n - 1] != one)
		n--;
	return n;
}

/* The set of a line. Neighbours have sets of their own. Higher bits are folded in, because what
 * begins at the same place of a page would compete for few sets, and not alike in each boot.
 */
static size_t set_of(uint64_t line, unsigned int bits)
{
	size_t set = 0;

	for (; line; line >>= bits)
		set ^= line;
	return set % (1 << bits);
}

static void touched(unsigned int cpu, uint32_t info, uint64_t address, void *data)
{
	uint64_t *figures = data, end = address + (1 << qemu_plugin_mem_size_shift(info)) - 1;
	bool on_stack = (address ^ stack) < THREAD_SIZE;

	(void)cpu;
	if (!period)
		return;
	for (uint64_t line = address / LINE; line <= end / LINE; line++) {
		figures[on_stack ? STACK : LINES] += add(&packet, line);
		if (locked)
			figures[on_stack ? LOCKED_STACK : LOCKED] += add(&holding, line);
		if (to_front(l1[set_of(line, L1_BITS)], COUNT(l1[0]), line))
			continue;
		figures[L1_MISSES]++;
		figures[L2_MISSES] += !to_front(l2[set_of(line, L2_BITS)], COUNT(l2[0]), line);
	}
}

/* A call has stored the address to return to. */
static void called(unsigned int cpu, uint32_t info, uint64_t address, void *data)
{
	(void)cpu;
	(void)info;
	(void)data;
	stack = address;
}

static void take(unsigned int cpu, uint32_t info, uint64_t address, void *data)
{
	(void)cpu;
	(void)info;
	(void)data;
	to_front(held, COUNT(held), address);
	if (!locked && contains(roots, COUNT(roots), address)) {
		empty(&holding);
		locked = true;
	}
}

static void release(unsigned int cpu, uint32_t info, uint64_t address, void *data)
{
	(void)cpu;
	(void)info;
	(void)data;
	if (!contains(held, COUNT(held), address))
		return;
	to_front(held, COUNT(held), address);
	memmove(held, held + 1, sizeof(held) - sizeof(held[0]));
	held[COUNT(held) - 1] = 0;
	if (contains(roots, COUNT(roots), address))
		locked = false;
}

static void run(unsigned int cpu, void *data)
{
	(void)cpu;
	(void)data;
	if (locked || !held[0])
		return;
	to_front(roots, COUNT(roots), held[0]);
	empty(&holding);
	locked = true;
}

static void enter(unsigned int cpu, void *data)
{
	(void)cpu;
	(void)data;
	empty(&packet);
	left = false;
}

static void leave(unsigned int cpu, void *data)
{
	if (left)
		enter(cpu, data);
	left = true;
}

/* --- periods ---------------------------------------------------------------------------- */

static void clear(void)
{
	for (size_t i = 0; i < COUNT(blocks); i++)
		for (struct block *b = blocks[i]; b; b = b->next)
			memset(b->figures, 0, sizeof(b->figures));
}

static void start(unsigned int cpu, void *data)
{
	(void)cpu;
	(void)data;
	period++;
	open = true;
	begun = false;
	/* What was a qdisc may be something else now. */
	memset(roots, 0, sizeof(roots));
	locked = false;
	clear();
}

static void first(unsigned int cpu, void *data)
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
	for (size_t i = 0; file && i < COUNT(blocks); i++) {
		for (struct block *b = blocks[i]; b; b = b->next) {
			if (!b->figures[INSNS])
				continue;
			fprintf(file, "%" PRIx64, b->address);
			for (int figure = 0; figure < FIGURES; figure++)
				fprintf(file, " %" PRIu64, b->figures[figure]);
			fputc('\n', file);
		}
	}
	if (!file || fclose(file)) {
		perror(path);
		exit(1);
	}
}

/* --- translation ------------------------------------------------------------------------ */

static const struct kind {
	const char *name;
	exec_cb *exec;
	memory_cb *memory;
} kinds[] = {
	{ "first", first, NULL },
	{ "last", stop, NULL },
	{ "enter", enter, NULL },
	{ "leave", leave, NULL },
	{ "interrupt", enter, NULL },
	{ "run", run, NULL },
	{ "take", NULL, take },
	{ "release", NULL, release },
};

static struct place {
	const struct kind *kind;
	uint64_t address, end;
} places[32];

static size_t n_places;
static bool memory;

/* QEMU translates a block again and again, also in part; the counter stays. */
static struct block *find(uint64_t address)
{
	struct block **head = &blocks[(address ^ address >> 16) % COUNT(blocks)], *b;

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

static void on_exec(struct qemu_plugin_insn *insn, exec_cb *cb)
{
	qemu_plugin_register_vcpu_insn_exec_cb(insn, cb, CB_NO_REGS, NULL);
}

static void on_memory(struct qemu_plugin_insn *insn, memory_cb *cb, void *data)
{
	qemu_plugin_register_vcpu_mem_cb(insn, cb, CB_NO_REGS, MEM_RW, data);
}

static void add_insns(struct qemu_plugin_insn *insn, uint64_t *counter)
{
	qemu_plugin_register_vcpu_insn_exec_inline(insn, INLINE_ADD_U64, counter, 1);
}

static void user_insn(struct qemu_plugin_insn *insn)
{
	if (qemu_plugin_insn_size(insn) != sizeof(marks[0]))
		return;
	for (int mark = 0; mark < 2; mark++)
		if (!memcmp(qemu_plugin_insn_data(insn), marks[mark], sizeof(marks[0])))
			on_exec(insn, mark ? stop : start);
}

static void kernel_insn(struct qemu_plugin_insn *insn, uint64_t *figures)
{
	static const char prefixes[] = "\x26\x2e\x36\x3e\x64\x65\x66\x67\xf0\xf2\xf3";
	const uint8_t *code = qemu_plugin_insn_data(insn);
	const uint8_t *end = code + qemu_plugin_insn_size(insn);
	uint64_t address = qemu_plugin_insn_vaddr(insn);
	bool is_call = *code == 0xe8, prefixed = false;

	for (; code < end && memchr(prefixes, *code, sizeof(prefixes) - 1); code++)
		prefixed |= *code == 0xf0;
	if (code < end && *code >> 4 == 4)	/* REX */
		code++;
	/* an xchg with memory needs no prefix */
	if (prefixed || (code + 1 < end && (*code | 1) == 0x87 && code[1] >> 6 != 3))
		add_insns(insn, &figures[ATOMICS]);
	for (struct place *p = places; p < places + n_places; p++) {
		if (address < p->address || address >= p->end)
			continue;
		if (p->kind->exec)
			on_exec(insn, p->kind->exec);
		else if (p->kind->memory == release || prefixed)
			on_memory(insn, p->kind->memory, NULL);
	}
	if (!memory)
		return;
	if (is_call)
		on_memory(insn, called, NULL);
	/* after `take`, so that a lock's own line is touched with the lock held */
	on_memory(insn, touched, figures);
}

static void translated(uint64_t id, struct qemu_plugin_tb *tb)
{
	size_t n = qemu_plugin_tb_n_insns(tb);
	struct qemu_plugin_insn *end = qemu_plugin_tb_get_insn(tb, n - 1);
	uint64_t address = qemu_plugin_tb_vaddr(tb), *figures = NULL;

	(void)id;
	/* Not user space: each process that starts has it somewhere else, and blocks would
	 * become more and more.
	 */
	if (address >> 63) {
		figures = find(address)->figures;
		qemu_plugin_register_vcpu_tb_exec_inline(tb, INLINE_ADD_U64, &figures[INSNS],
							 n - 1);
		/* The last one by itself: if it reaches into another page, QEMU lists it here,
		 * but leaves it to the next block.
		 */
		add_insns(end, &figures[INSNS]);
	}
	for (size_t i = 0; i < n; i++) {
		struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);

		if (figures)
			kernel_insn(insn, figures);
		else
			user_insn(insn);
	}
}

static bool place(const char *text)
{
	struct place *p = &places[n_places];
	size_t length = strcspn(text, "=");

	for (p->kind = kinds; p->kind < kinds + COUNT(kinds); p->kind++) {
		if (strlen(p->kind->name) != length || strncmp(p->kind->name, text, length))
			continue;
		p->end = 0;
		if (++n_places == COUNT(places) ||
		    sscanf(text + length, "=%" SCNx64 "-%" SCNx64, &p->address, &p->end) < 1)
			return false;
		if (!p->end)
			p->end = p->address + 1;
		memory |= p->kind->memory == take;
		return true;
	}
	return false;
}

EXPORT int qemu_plugin_install(uint64_t id, const void *info, int argc, char **argv)
{
	(void)info;
	if (argc < 1 || strncmp(argv[0], "folder=", 7))
		return -1;
	folder = strdup(argv[0] + 7);
	packet.now = holding.now = 1;
	for (int i = 1; i < argc; i++)
		if (!place(argv[i]))
			return -1;
	qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
	return 0;
}
