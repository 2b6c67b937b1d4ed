// SPDX-License-Identifier: GPL-2.0
/*
 * prog_fuzz: 10,000 enqueue and dequeue programs, made up from all that a program can do
 * with packets, in half of them with mistakes. The verifier accepts or refuses; it must
 * refuse one that keeps its packet, or reads it from the context when it may have given
 * it away. What it accepts is put in force on a qdisc that has packets, alone or below
 * another one, and gets a few more. Whatever it does with them, the books balance, in
 * packets and bytes:
 *
 *	put in + cloned + more by cutting = sent + freed as drops or stolen + queued
 *
 * where all but the last are seen where they happen; the qdisc's own counters and those
 * of its parent say the same. The sender hears of a drop, and not of a loss. Each function
 * of bpf_qdisc.h and of bpf_rbtree.h is in a program that was accepted, in each direction that
 * may call it; and so are subprograms, callbacks, loops, joins, and what a policy counts in a
 * table and in variables. Tasks come out of a map and go back, which is all that such a program
 * may do with them: when the map is empty nobody holds one. Inner maps that have packets come
 * and go; when nobody has one any more its packets are dropped, and it is gone. The building
 * blocks of bpf_qdisc_aqm.h, whatever state and numbers they are given, divide by no zero, and
 * what they say of a packet is one of what they may say.
 *
 * SEED=N takes other programs, PROGRAMS=N so many (make check-debug: 2,000).
 */
#define _GNU_SOURCE
#include "../lib/map.h"

enum { CLONED, CUT, DROPPED, SENT, WAYS };

struct book {
	uint64_t packets, segments, bytes;
};

struct events {
	uint64_t lost, dropped, found, passed, passed_below_mq, held, chosen, not_chosen;
	int64_t numbers;
	uint64_t maps_in, maps_out, gone, tasks_in, tasks_out;
	uint64_t marked, not_marked, wrong, zero_divisors;
};

#include "prog_fuzz.skel.h"
#include <arpa/inet.h>
#include <bpf/btf.h>
#include <linux/gen_stats.h>
#include <linux/if_packet.h>
#include <linux/netlink.h>
#include <linux/pkt_cls.h>
#include <linux/pkt_sched.h>
#include <linux/rtnetlink.h>
#include <linux/virtio_net.h>
#include <net/if.h>
#include <sched.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#define DEVICES		6
#define HANDLE		0x100000	/* 10:, the qdisc under test */
#define PARENT		0x10000		/* 1:, if it has one */
#define LIFE		64		/* changes, after which it is made anew */
#define PACKETS		8
#define TASKS		4		/* as many are there before packets come, */
#define INNER_MAPS	3		/* and so many maps in each ordered map of maps */

static struct prog_fuzz *skel;

static unsigned int dice(unsigned int sides)
{
	return (unsigned int)random() % sides;
}

/* ---- a program ---- */

#define INSNS_MAX	6000
/* On the stack */
#define KEY		(-16)		/* the longest */
#define INNER		(-24)		/* a map that was looked up */
#define DYNPTR		(-40)
#define BYTES_READ	(-64)
#define NUMBER		(-72)		/* a value of `numbers` */
#define ITERATOR	(-80)
#define CONTEXT		(-88)		/* for a callback */
#define STASH		(-128)		/* below what a building block uses of the stack itself */
/* In the context */
#define CLASSID		24
#define GENERATION	32

enum { R0, R1, R2, R3, R4, R5, CTX, OWN, OTHER, COUNT, FP };	/* what registers are for */

static const char *const kfunc_names[] = {
	"bpf_qdisc_push_skb", "bpf_qdisc_push_front_skb", "bpf_qdisc_drop_skb", "bpf_qdisc_lose_skb",
	"bpf_qdisc_pass_skb", "bpf_qdisc_steal_skb", "bpf_qdisc_segment_skb", "bpf_qdisc_deliver_skb",
	"bpf_qdisc_pop", "bpf_qdisc_pop_until", "bpf_qdisc_pop_key", "bpf_qdisc_pop_from",
	"bpf_qdisc_pop_class", "bpf_qdisc_class_head", "bpf_qdisc_class_len",
	"bpf_qdisc_take", "bpf_qdisc_take_last", "bpf_qdisc_take_until", "bpf_qdisc_take_key",
	"bpf_qdisc_take_youngest", "bpf_qdisc_take_from", "bpf_qdisc_clone", "bpf_qdisc_load_bytes",
	"bpf_rbtree_map_len", "bpf_rbtree_map_bytes", "bpf_rbtree_map_first", "bpf_rbtree_map_last",
	"bpf_rbtree_map_lower_bound", "bpf_rbtree_map_upper_bound",
	"bpf_qdisc_ecn_mark", "bpf_qdisc_orphan", "bpf_qdisc_set_queue", "bpf_qdisc_departure",
	"bpf_qdisc_set_departure", "bpf_qdisc_bypass",
	"bpf_skb_tc_classify", "bpf_skb_get_hash", "bpf_dynptr_from_skb",
	"bpf_rbtree_map_push", "bpf_rbtree_map_pop", "bpf_rbtree_map_pop_until",
	"bpf_rbtree_map_pop_key", "bpf_rbtree_map_move",
	"bpf_rbtree_map_push_map", "bpf_rbtree_map_pop_map",
	"bpf_rbtree_map_push_task", "bpf_rbtree_map_pop_task",
	"bpf_iter_num_new", "bpf_iter_num_next", "bpf_iter_num_destroy",
};
enum { PUSH, PUSH_FRONT, DROP, LOSE, PASS, STEAL, SEGMENT, DELIVER,
       POP, POP_UNTIL, POP_KEY, POP_FROM, POP_CLASS, CLASS_HEAD, CLASS_LEN,
       TAKE, TAKE_LAST, TAKE_UNTIL, TAKE_KEY, TAKE_YOUNGEST, TAKE_FROM, CLONE, LOAD_BYTES,
       LEN, BYTES, FIRST, LAST, LOWER_BOUND, UPPER_BOUND,
       ECN_MARK, ORPHAN, SET_QUEUE, DEPARTURE, SET_DEPARTURE, BYPASS, CLASSIFY, GET_HASH, FROM_SKB,
       NUMBER_PUSH, NUMBER_POP, NUMBER_POP_UNTIL, NUMBER_POP_KEY, NUMBER_MOVE,
       MAP_PUSH, MAP_POP, TASK_PUSH, TASK_POP,
       ITER_NEW, ITER_NEXT, ITER_DESTROY,
       KFUNCS };

/* Packets that a program does something with, which is not its end */
static const char *const packet_kinds[] = { "that came", "taken", "cloned", "delivered" };
enum { THAT_CAME, TAKEN, CLONED_ONE, DELIVERED, PACKET_KINDS };

static int kfunc_ids[KFUNCS], task_release;
enum { PAIRS = 3, KINDS };		/* of maps of packets: those with the longest key, and how many */
static int map_fds[DEVICES][KINDS], arrays[DEVICES], outers[DEVICES], wrong_maps[2], table, variables, tasks;
static int pid_offset;		/* in a task */
static int sk_offset, state_offset;	/* in a packet, and in its socket */
static int qdisc_offsets[3];	/* of what bpf_qdisc_is_full() and bpf_qdisc_exceeds() read */
static int handle_offset;	/* in a qdisc */

/* Of a packet what can be written, then what the inline functions read; where it is */
static struct field {
	const char *name;
	int offset, size;
} fields[] = {
	{ "mark", .size = 4 }, { "priority", .size = 4 }, { "tstamp", .size = 8 }, { "cb", .size = 20 },
	{ "pkt_len", .size = 4 }, { "pkt_segs", .size = 2 },
	{ "network_header", .size = 2 }, { "data", .size = 8 }, { "head", .size = 8 },
};
enum { NOTE = 3, WRITABLE, PKT_LEN = WRITABLE, PKT_SEGS, NETWORK_HEADER, DATA, HEAD, FIELDS };

static struct bpf_insn insns[INSNS_MAX];
static int length;
static bool enqueue;		/* the program's direction */
static bool owns, same;		/* OWN is a packet that it owns; on every path ctx->skb */
static bool inner;		/* INNER is a map */
static bool classified;		/* filters may have found a class */
enum { CODEL, PIE, RED, LEAVES, DRR, TBF, LINK, SCRAMBLE, BLOCKS };	/* in the order of all_blocks() */
static const char *const doing_names[] = {
	"use an inner map", "find one in an ordered map", "move one there", "look at tasks",
	"use a map of pairs", "write to packets", "read bytes", "set stamps",
	"read length", "read segments", "read network offset", "count in a table", "count in a variable",
	"join two paths", "iterate", "call subprograms", "call back", "walk packets",
	"look at sockets", "ask the qdisc", "begin anew", "filter", "cut", "drop what a block says",
	"ask CoDel", "ask PIE", "ask RED", "say what leaves", "take turns", "take tokens", "share a link",
	"set numbers of blocks",
};
enum { USE_INNER, FIND_INNER, MOVE_INNER, LOOK_AT_TASKS, USE_PAIRS,
       WRITE, READ_BYTES, STAMP, LENGTH, SEGMENTS, NETWORK_OFFSET, COUNT_IN_TABLE,
       COUNT_IN_VARIABLE, JOIN, ITERATE, CALL_SUBPROGRAM, CALL_BACK, WALK, LOOK_AT_SOCKET,
       ASK_QDISC, BEGIN_ANEW, FILTER, CUT_LONG, OBEY,
       BLOCK, DOINGS = BLOCK + BLOCKS };
static bool does[DOINGS];	/* the program, somewhere */

/* Functions of the program beside the main one, which follow it. They have the context; and a
 * packet, if the caller owns one and gives it, or no way to another one while the caller keeps it.
 */
#define SUBPROGRAMS	3
static struct subprogram {
	int call;			/* where the caller names it */
	bool callback, owns, same, classified;
	bool walks;			/* it is called for each packet of a map */
} subprograms[SUBPROGRAMS];
static int subprogram_count;
static bool within;			/* one of them */
static bool keeps;			/* the caller does */

/* Building blocks: functions that all_blocks() calls; copies of them follow those of the program. */
#define BLOCK_CALLS	6
static struct {
	const struct bpf_insn *insns;
	int length;
} blocks[BLOCKS];
static struct block_call {
	int call, block;		/* where, and of which */
} block_calls[BLOCK_CALLS];
static int block_call_count;
static struct bpf_func_info functions[1 + SUBPROGRAMS + BLOCK_CALLS];	/* all of the program */
static int function_count;
static int btf_fd;		/* what describes them: */
static uint32_t function_type;

static bool calls[KFUNCS], treats[PACKET_KINDS][KFUNCS];	/* the latter if it has no mistakes */
static unsigned int slips;	/* one chance in so many is a mistake, if only for a while; 0: none */
static bool mistaken;		/* there is one that must be noticed */
static int on_device;

static bool slip(void)
{
	return slips && !dice(slips);
}

static int emit(uint8_t code, uint8_t dst, uint8_t src, int16_t off, int32_t imm)
{
	if (length == INSNS_MAX)
		errx(1, "a program is too long");
	insns[length] = (struct bpf_insn){ .code = code, .dst_reg = dst, .src_reg = src, .off = off,
					   .imm = imm };
	return length++;
}

static void move(int dst, int src)
{
	emit(BPF_ALU64 | BPF_MOV | BPF_X, dst, src, 0, 0);
}

static void set(int dst, int32_t value)
{
	emit(BPF_ALU64 | BPF_MOV | BPF_K, dst, 0, 0, value);
}

static void call(int kfunc)
{
	bool other = slip();

	calls[kfunc] |= !other;
	emit(BPF_JMP | BPF_CALL, 0, BPF_PSEUDO_KFUNC_CALL, 0, other ? (int)dice(100000) : kfunc_ids[kfunc]);
}

/* What a function has returned, if it is a number, is a key like any other. */
static void use_result(void)
{
	if (!dice(3))
		emit(BPF_STX | BPF_MEM | BPF_DW, FP, R0, KEY, 0);
}

static void helper(int number)
{
	emit(BPF_JMP | BPF_CALL, 0, 0, 0, number);
}

/* A jump from here to where land() is called */
static int jump(uint8_t condition, int reg, int32_t value)
{
	return emit(BPF_JMP | condition | BPF_K, reg, 0, 0, value);
}

static void land(int from)
{
	insns[from].off = (int16_t)(length - from - 1);
}

static void exit_with(int32_t value)
{
	set(R0, value);
	emit(BPF_JMP | BPF_EXIT, 0, 0, 0, 0);
}

static void load_map(int reg, int fd)
{
	emit(BPF_LD | BPF_IMM | BPF_DW, (uint8_t)reg, BPF_PSEUDO_MAP_FD, 0, fd);
	emit(0, 0, 0, 0, 0);
}

static void map_argument(int reg)
{
	int which = inner && !dice(3) ? KINDS : (int)dice(KINDS);

	if (slip()) {
		load_map(reg, dice(3) ? wrong_maps[dice(2)] : arrays[on_device]);
	} else if (which == KINDS) {
		emit(BPF_LDX | BPF_MEM | BPF_DW, (uint8_t)reg, FP, INNER, 0);
		does[USE_INNER] = true;
	} else {
		load_map(reg, map_fds[dice(12) ? on_device : (int)dice(DEVICES)][which]);
		does[USE_PAIRS] |= which == PAIRS;
	}
}

static void skb_argument(int reg, int skb)
{
	move(reg, slip() ? CTX + (int)dice(4) : skb);
}

static void ctx_argument(int reg)
{
	move(reg, slip() ? CTX + (int)dice(4) : CTX);
}

static void key_argument(int reg)
{
	move(reg, slip() ? CTX : FP);
	emit(BPF_ALU64 | BPF_ADD | BPF_K, (uint8_t)reg, 0, 0, slip() ? -520 + (int)dice(600) : KEY);
}

/* A key: few are different, some are times */
static void choose_key(void)
{
	switch (dice(5)) {
	case 0:
		helper(BPF_FUNC_ktime_get_ns);
		if (dice(2))
			emit(BPF_ALU64 | BPF_ADD | BPF_K, R0, 0, 0, (int)dice(3000000));
		break;
	case 1:
		helper(BPF_FUNC_get_prandom_u32);
		emit(BPF_ALU64 | BPF_AND | BPF_K, R0, 0, 0, 3);
		break;
	default:
		set(R0, (int)dice(4) - 1);
	}
	emit(BPF_STX | BPF_MEM | BPF_DW, FP, R0, KEY, 0);
	if (dice(2))
		set(R0, (int)dice(4) - 1);
	emit(BPF_STX | BPF_MEM | BPF_DW, FP, R0, KEY + 8, 0);
}

/* Some of what can be written of a packet; anything, by a slip */
static void write_to(int skb)
{
	static const uint8_t sizes[] = { BPF_B, BPF_H, BPF_W, BPF_DW };
	const struct field *field = &fields[dice(WRITABLE)];
	int log = field->size == 8 ? 3 : 2, place = field->offset;

	if (field == &fields[NOTE]) {
		log = (int)dice(4);
		place += (int)dice(20U >> log) << log;
	}
	if (slip()) {
		log = (int)dice(4);
		place = (int)dice(256);
	}
	emit(BPF_ST | BPF_MEM | sizes[log], (uint8_t)skb, 0, (int16_t)place, (int)random());
	does[WRITE] = true;
}

static void dynptr_of(int skb)
{
	skb_argument(R1, skb);
	set(R2, slip());
	move(R3, FP);
	emit(BPF_ALU64 | BPF_ADD | BPF_K, R3, 0, 0, DYNPTR);
	call(FROM_SKB);
}

/* R0 = bpf_qdisc_network_offset() */
static void network_offset(int skb)
{
	emit(BPF_LDX | BPF_MEM | BPF_DW, R1, (uint8_t)skb, (int16_t)fields[DATA].offset, 0);
	emit(BPF_LDX | BPF_MEM | BPF_DW, R2, (uint8_t)skb, (int16_t)fields[HEAD].offset, 0);
	emit(BPF_ALU64 | BPF_SUB | BPF_X, R1, R2, 0, 0);
	emit(BPF_LDX | BPF_MEM | BPF_H, R0, (uint8_t)skb, (int16_t)fields[NETWORK_HEADER].offset, 0);
	emit(BPF_ALU | BPF_SUB | BPF_X, R0, R1, 0, 0);
	does[NETWORK_OFFSET] = true;
}

/* As bpf_qdisc_socket(), and what is written there */
static void look_at_socket(int skb)
{
	int none;

	emit(BPF_LDX | BPF_MEM | BPF_DW, R1, (uint8_t)skb, (int16_t)sk_offset, 0);
	none = slip() ? -1 : jump(BPF_JEQ, R1, 0);
	emit(BPF_LDX | BPF_MEM | BPF_B, R0, R1, (int16_t)state_offset, 0);
	use_result();
	if (none >= 0)
		land(none);
	does[LOOK_AT_SOCKET] = true;
}

/* Something that is written on a packet */
static void look_at(int skb)
{
	int which = (int)dice(FIELDS + 1);

	if (which == FIELDS) {
		look_at_socket(skb);
		return;
	}
	if (which >= NETWORK_HEADER) {
		network_offset(skb);
		return;
	}
	emit(BPF_LDX | BPF_MEM | (fields[which].size == 2 ? BPF_H : BPF_W), R0, (uint8_t)skb,
	     (int16_t)fields[which].offset, 0);
	does[LENGTH] |= which == PKT_LEN;
	does[SEGMENTS] |= which == PKT_SEGS;
	use_result();
}

/* From the network header on, or from anywhere */
static void read_bytes(int skb)
{
	bool header = skb && dice(2);

	if (header) {
		network_offset(skb);
		move(R4, R0);
	}
	move(R1, FP);
	emit(BPF_ALU64 | BPF_ADD | BPF_K, R1, 0, 0, BYTES_READ);
	set(R2, 1 + (int)dice(DYNPTR - BYTES_READ) + (slip() ? 100 : 0));
	move(R3, FP);
	emit(BPF_ALU64 | BPF_ADD | BPF_K, R3, 0, 0, DYNPTR);
	if (!header)
		set(R4, (int)dice(2) ? (int)dice(100) : (int)random());
	set(R5, slip());
	helper(BPF_FUNC_dynptr_read);
	does[READ_BYTES] = true;
}

/* One that there is, as a rule. The handle of an instance of bpf_mq is the kernel's choice. */
static void class_of_ours(int reg)
{
	emit(BPF_LDX | BPF_MEM | BPF_DW, (uint8_t)reg, CTX, 8, 0);
	emit(BPF_LDX | BPF_MEM | BPF_W, (uint8_t)reg, (uint8_t)reg, (int16_t)handle_offset, 0);
	emit(BPF_ALU | BPF_OR | BPF_K, (uint8_t)reg, 0, 0, dice(4) ? 1 : 2);
}

/* Give a packet to one of the functions that take one */
static void give(int skb)
{
	static const int ways[2][9] = {
		{ DELIVER, DELIVER, DELIVER, DELIVER, PUSH, PUSH, PUSH_FRONT, DROP, LOSE },
		{ PUSH, PUSH, PUSH, PUSH_FRONT, DROP, LOSE, SEGMENT, PASS, STEAL },
	};
	int way = ways[slip() ? dice(2) : enqueue][dice(9)];
	bool found = classified && dice(2);

	if (found)
		way = PASS;
	if (way <= PUSH_FRONT && dice(2))
		choose_key();
	skb_argument(R1, skb);
	ctx_argument(R2);
	if (way <= PUSH_FRONT) {
		map_argument(R3);
		key_argument(R4);
	} else if (found) {
		emit(BPF_LDX | BPF_MEM | BPF_W, R3, CTX, CLASSID, 0);
	} else if (way == DROP) {
		set(R3, (int)dice(200));
	} else if (way == PASS) {
		class_of_ours(R3);
	}
	call(way);
}

/* The filters of the own qdisc, of clsact, and of another device's qdisc, if there are any */
static void classify(int skb)
{
	unsigned int where = dice(4);

	ctx_argument(R1);
	skb_argument(R2, skb);
	set(R3, where == 3 ? (int)dice(8) : 0);
	set(R4, where < 2 ? 0 : where == 2 ? (int)TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_EGRESS) : HANDLE);
	call(CLASSIFY);
	classified = true;
}

/* Something with a packet, which stays what it is */
static void treat(int skb, int kind)
{
	/* A stamp matters only with a policy that reads it: so there are more of them. */
	static const int ways[] = { ECN_MARK, ORPHAN, SET_QUEUE, DEPARTURE, SET_DEPARTURE, SET_DEPARTURE,
				    GET_HASH, FROM_SKB, CLASSIFY, CLASSIFY };
	int which = ways[dice(enqueue || slip() ? 10 : 8)];

	treats[kind][which] |= !slips;
	switch (which) {
	case FROM_SKB:
		dynptr_of(skb);
		read_bytes(skb);
		return;
	case CLASSIFY:
		classify(skb);
		break;
	case GET_HASH:
		skb_argument(R1, skb);
		call(GET_HASH);
		break;
	case SET_DEPARTURE:		/* at a time: none, soon, or any */
		helper(BPF_FUNC_ktime_get_ns);
		emit(BPF_ALU64 | (dice(2) ? BPF_ADD : BPF_MUL) | BPF_K, R0, 0, 0, (int)dice(3) * (int)dice(1U << 30));
		move(R3, R0);
		ctx_argument(R1);
		skb_argument(R2, skb);
		call(SET_DEPARTURE);
		does[STAMP] = true;
		return;
	default:
		ctx_argument(R1);
		skb_argument(R2, skb);
		set(R3, (int)dice(3));
		call(which);
	}
	use_result();
}

/* Another packet, as R0, which may be NULL. Returns its kind. */
static int get_other(void)
{
	int which = TAKE + (int)dice(enqueue && owns ? 10 : 6);

	ctx_argument(R1);
	if (which >= CLONE) {
		skb_argument(R2, OWN);
		call(CLONE);
		return CLONED_ONE;
	}
	map_argument(R2);
	if (which >= TAKE_UNTIL)
		key_argument(R3);
	call(which);
	return TAKEN;
}

/* The program ends a packet that is not its own. */
static void drop(int skb)
{
	skb_argument(R1, skb);
	ctx_argument(R2);
	set(R3, 0);
	call(DROP);
}

/* A number, likely and unlikely ones; the present time is in R0. */
static void number_argument(int reg)
{
	uint64_t number = (1ULL << dice(64)) - dice(2);

	switch (dice(5)) {
	case 0:
		move(reg, R0);
		break;
	case 1:
		emit(BPF_LDX | BPF_MEM | BPF_DW, (uint8_t)reg, FP, KEY, 0);
		break;
	case 2:
		emit(BPF_LD | BPF_IMM | BPF_DW, (uint8_t)reg, 0, 0, (int)number);
		emit(0, 0, 0, 0, (int)(number >> 32));
		break;
	default:
		set(reg, dice(3) ? (int)dice(3000) : 0);
	}
}

/* Call a building block, about a packet if it is given one. R0 = what it says */
static void ask_block(int block, int skb)
{
	helper(BPF_FUNC_ktime_get_ns);
	for (int reg = R2; reg <= R5; reg++)
		number_argument(reg);
	if (block <= RED && skb)
		skb_argument(R2, skb);
	else if (block <= RED)
		set(R2, 0);
	ctx_argument(R1);
	block_calls[block_call_count++] = (struct block_call){ length, block };
	emit(BPF_JMP | BPF_CALL, 0, BPF_PSEUDO_CALL, 0, 0);
	does[BLOCK + block] = true;
}

/* As policies with an AQM do. Returns the jump that is made if the packet is to stay. */
static int drop_if_told(int skb)
{
	int stays;

	ask_block((int)dice(RED + 1), skb);
	stays = jump(BPF_JEQ, R0, 0);
	drop(skb);
	does[OBEY] = true;
	return stays;
}

static void do_other(void)
{
	int kind = get_other(), null = slip() ? -1 : jump(BPF_JEQ, R0, 0), stays, gone = 0;

	move(OTHER, R0);
	if (kind == CLONED_ONE || dice(2))
		treat(OTHER, kind);
	else if (!dice(3))
		write_to(OTHER);
	if (!dice(8) && block_call_count < BLOCK_CALLS) {
		stays = drop_if_told(OTHER);
		gone = emit(BPF_JMP | BPF_JA, 0, 0, 0, 0);
		land(stays);
	}
	if (!slip())
		give(OTHER);
	if (slip())
		give(OTHER);
	if (gone)
		land(gone);
	if (null >= 0)
		land(null);
}

/* Take a packet, and drop it or push it again. Returns the jump that is made if there is none. */
static int take_and_give(void)
{
	int none;

	ctx_argument(R1);
	map_argument(R2);
	call(dice(2) ? TAKE : TAKE_LAST);
	none = jump(BPF_JEQ, R0, 0);
	move(OTHER, R0);
	give(OTHER);
	return none;
}

/* Several */
static void do_loop(void)
{
	int start, end;

	set(COUNT, 1 + (int)dice(6));
	start = length;
	end = take_and_give();
	emit(BPF_ALU64 | BPF_SUB | BPF_K, COUNT, 0, 0, slip() ? 0 : 1);
	emit(BPF_JMP | BPF_JNE | BPF_K, COUNT, 0, (int16_t)(start - length - 1), 0);
	land(end);
}

static void do_own(void)
{
	bool keep = owns && !slips && !dice(8);

	if (!owns && !slip())
		return;
	if (keep)
		dynptr_of(OWN);
	give(OWN);
	owns = false;
	if (keep) {		/* its bytes are gone */
		mistaken = true;
		read_bytes(0);
	}
}

/* Read what can be read of the own packet, and write what can be written. */
static void do_field(void)
{
	if (!owns && !slip())
		return;
	if (dice(2))
		write_to(OWN);
	else
		look_at(OWN);
}

/* Another packet in the place of the own one, on one path of two that join here */
static void do_swap(void)
{
	bool other_way = dice(2);
	int swap, past, null;

	if (!owns)
		return;
	helper(BPF_FUNC_get_prandom_u32);
	swap = jump(BPF_JSET, R0, 1);
	if (other_way) {		/* the verifier goes straight on first */
		past = emit(BPF_JMP | BPF_JA, 0, 0, 0, 0);
		land(swap);
	} else {
		past = swap;
	}
	get_other();
	null = jump(BPF_JEQ, R0, 0);
	move(OTHER, R0);
	give(OWN);
	move(OWN, OTHER);
	land(null);
	land(past);
	same = false;
}

/* Read the context's packet again; that is a mistake if it may have been given away. */
static void do_read_again(void)
{
	int reg = owns && same ? OWN : OTHER;

	if (!enqueue || keeps || (reg == OTHER && (slips || dice(4))))
		return;
	emit(BPF_LDX | BPF_MEM | BPF_DW, (uint8_t)reg, CTX, 0, 0);
	if (reg == OWN)
		return;
	mistaken = true;
	give(OTHER);
}

static void do_pop(void)
{
	int which = POP + (int)dice(7);

	if (enqueue && !slip())
		which = CLASS_LEN;
	ctx_argument(R1);
	if (which >= POP_CLASS) {
		class_of_ours(R2);
	} else {
		map_argument(R2);
		if (which != POP)
			key_argument(R3);
	}
	call(which);
	use_result();
}

/* What only its owner may do with a packet */
static void use(int skb)
{
	switch (dice(5)) {
	case 0:
		write_to(skb);
		break;
	case 1:
		ctx_argument(R1);
		skb_argument(R2, skb);
		call(CLONE);
		break;
	case 2:
		give(skb);
		break;
	default:
		treat(skb, TAKEN);
	}
}

/* Copy what the packet of the element in R0 begins with. The map is the one that is loaded in
 * the instructions from @map on, or, which is a mistake, another one.
 */
static void load_bytes(int map, int map_end)
{
	bool other = !slips && !dice(10);

	move(R3, R0);
	ctx_argument(R1);
	if (other)
		load_map(R2, map_fds[(on_device + 1) % DEVICES][0]);
	for (; map < map_end && !other; map++) {
		insns[length] = insns[map];
		if (insns[map].code)
			insns[length].dst_reg = R2;
		length++;
	}
	mistaken |= other;
	move(R4, FP);
	emit(BPF_ALU64 | BPF_ADD | BPF_K, R4, 0, 0, BYTES_READ);
	set(R5, 1 + (int)dice(DYNPTR - BYTES_READ) + (slip() ? 100 : 0));
	call(LOAD_BYTES);
	use_result();
}

/* Look at a packet that waits. It is the map's: more is a mistake. */
static void do_look(void)
{
	int which = LEN + (int)dice(6), none, taken, map = length, map_end;

	map_argument(R1);
	map_end = length;
	if (which > BYTES)
		key_argument(R2);
	call(which);
	if (which <= BYTES) {
		use_result();
		return;
	}
	none = slip() ? -1 : jump(BPF_JEQ, R0, 0);
	if (dice(3)) {
		emit(BPF_LDX | BPF_MEM | BPF_DW, OTHER, R0, 0, 0);
		taken = jump(BPF_JEQ, OTHER, 0);
		look_at(OTHER);
		if (!slips && !dice(5)) {
			mistaken = true;
			use(OTHER);
		}
		land(taken);
	} else {
		load_bytes(map, map_end);
	}
	if (none >= 0)
		land(none);
}

/* What a dequeue program has delivered */
static void do_delivered(void)
{
	int null;

	emit(BPF_LDX | BPF_MEM | BPF_DW, OTHER, CTX, 0, 0);
	null = slip() ? -1 : jump(BPF_JEQ, OTHER, 0);
	if (!dice(4))
		write_to(OTHER);
	if (!dice(4))
		look_at(OTHER);
	if (dice(2)) {
		treat(OTHER, DELIVERED);
	} else {
		int no_clone, otherwise, done;

		ctx_argument(R1);
		skb_argument(R2, OTHER);
		call(CLONE);
		no_clone = jump(BPF_JEQ, R0, 0);
		/* Seldom stored: or for each that leaves another one comes, for ever. */
		move(OTHER, R0);
		treat(OTHER, CLONED_ONE);
		helper(BPF_FUNC_get_prandom_u32);
		otherwise = jump(BPF_JSET, R0, 15);
		give(OTHER);
		done = emit(BPF_JMP | BPF_JA, 0, 0, 0, 0);
		land(otherwise);
		drop(OTHER);
		land(done);
		land(no_clone);
	}
	if (slip())
		give(OTHER);
	if (null >= 0)
		land(null);
}

static void do_context(void)
{
	/* skb, qdisc, expire, classid, queue, generation */
	static const int8_t places[] = { 0, 8, 16, CLASSID, 28, 32 };

	if (slip()) {
		emit(BPF_ST | BPF_MEM | (dice(2) ? BPF_W : BPF_DW), CTX, 0, places[dice(6)] + (slip() ? 4 : 0),
		     (int)dice(1000));
	} else if (enqueue || dice(2)) {
		emit(BPF_LDX | BPF_MEM | BPF_W, R0, CTX, places[3 + dice(3)], 0);
	} else {
		helper(BPF_FUNC_ktime_get_ns);
		emit(BPF_ALU64 | BPF_ADD | BPF_K, R0, 0, 0, (int)dice(5000000));
		emit(BPF_STX | BPF_MEM | BPF_DW, CTX, R0, 16, 0);
	}
}

static void do_call(void)
{
	if (!dice(20)) {
		ctx_argument(R1);
		call(BYPASS);
	} else if (owns || slip()) {
		treat(OWN, THAT_CAME);
	}
}

/* R0 = an inner map, of the device's array of maps or of its ordered map of maps; NULL if there is none */
static void find_inner(void)
{
	static const int ways[] = { MAP_POP, MAP_POP, MAP_POP, FIRST, LAST, LOWER_BOUND, UPPER_BOUND };

	if (!dice(3)) {
		emit(BPF_ST | BPF_MEM | BPF_W, FP, 0, KEY, (int)dice(slip() ? 5 : 2));
		load_map(R1, arrays[on_device]);
		key_argument(R2);
		helper(BPF_FUNC_map_lookup_elem);
		return;
	}
	load_map(R1, slip() ? wrong_maps[dice(2)] : outers[on_device]);
	key_argument(R2);
	if (dice(8))
		call(ways[dice(7)]);
	else
		helper(BPF_FUNC_map_lookup_elem);
	does[FIND_INNER] = true;
}

/* Also one that is there, or that has packets of another qdisc; but none of another kind */
static void push_inner(void)
{
	if (dice(2))
		choose_key();
	load_map(R1, slip() ? wrong_maps[dice(2)] : outers[on_device]);
	key_argument(R2);
	if (!slips && !dice(10)) {
		const int others[] = { map_fds[on_device][1 + (int)dice(KINDS - 1)], outers[on_device], tasks };

		mistaken = true;
		load_map(R3, others[dice(3)]);
	} else if (inner && dice(4)) {
		emit(BPF_LDX | BPF_MEM | BPF_DW, R3, FP, INNER, 0);
	} else {
		load_map(R3, map_fds[dice(4) ? on_device : (int)dice(DEVICES)][0]);
	}
	call(MAP_PUSH);
	use_result();
}

/* Inner maps come, get another key, are found, looked at and used, and go. */
static void do_maps(void)
{
	bool before = inner;
	int none;

	switch (dice(4)) {
	case 0:
		push_inner();
		return;
	case 1:
		load_map(R1, outers[on_device]);
		key_argument(R2);
		move(R3, R2);
		emit(BPF_ALU64 | BPF_ADD | BPF_K, R3, 0, 0, (int)dice(2) * 8);
		call(NUMBER_MOVE);
		does[MOVE_INNER] = true;
		return;
	}
	find_inner();
	none = slip() ? -1 : jump(BPF_JEQ, R0, 0);
	emit(BPF_STX | BPF_MEM | BPF_DW, FP, R0, INNER, 0);
	inner = true;
	if (dice(2))
		land(take_and_give());
	if (dice(3))
		push_inner();
	inner = before;
	if (none >= 0)
		land(none);
}

static void push_task(int task)
{
	if (dice(2))
		choose_key();
	move(R1, slip() ? CTX + (int)dice(4) : task);
	load_map(R2, slip() ? wrong_maps[dice(2)] : tasks);
	key_argument(R3);
	call(TASK_PUSH);
	use_result();
}

/* R0 = what is written in a task */
static void look_at_task(void)
{
	emit(BPF_LDX | BPF_MEM | BPF_W, R0, OTHER, (int16_t)pid_offset, 0);
	use_result();
	does[LOOK_AT_TASKS] = true;
}

/* One that stays in the map, which is the map's */
static void do_look_at_task(void)
{
	int none, taken;

	load_map(R1, tasks);
	key_argument(R2);
	call(FIRST + (int)dice(4));
	none = slip() ? -1 : jump(BPF_JEQ, R0, 0);
	emit(BPF_LDX | BPF_MEM | BPF_DW, OTHER, R0, 0, 0);
	taken = jump(BPF_JEQ, OTHER, 0);
	look_at_task();
	if (!slips && !dice(5)) {
		mistaken = true;
		push_task(OTHER);
	}
	land(taken);
	if (none >= 0)
		land(none);
}

/* One comes out of the map, and goes back: to keep, to release it or to push it twice is a mistake. */
static void do_task(void)
{
	unsigned int mistake = slips ? 40 : dice(40);
	int none;

	load_map(R1, slip() ? wrong_maps[dice(2)] : tasks);
	key_argument(R2);
	call(TASK_POP);
	none = slip() ? -1 : jump(BPF_JEQ, R0, 0);
	move(OTHER, R0);
	if (dice(2))
		look_at_task();
	mistaken |= mistake < 4;
	if (mistake == 1)
		give(OTHER);
	if (mistake == 2) {
		move(R1, OTHER);
		emit(BPF_JMP | BPF_CALL, 0, BPF_PSEUDO_KFUNC_CALL, 0, task_release);
	}
	if (mistake == 3)
		push_task(OTHER);
	if (mistake && !slip())
		push_task(OTHER);
	if (none >= 0)
		land(none);
}

/* A map of numbers, or of tasks; that of packets is nothing for these functions. */
static void do_numbers(void)
{
	int which = NUMBER_PUSH + (int)dice(5), key = R2;

	if (!slips && !dice(8)) {
		mistaken = true;
		map_argument(R1);
	} else {
		load_map(R1, slip() ? wrong_maps[0] : dice(4) ? wrong_maps[1] : tasks);
	}
	key_argument(key++);
	if (which == NUMBER_POP_UNTIL || which == NUMBER_MOVE)
		key_argument(key++);
	if (which != NUMBER_MOVE) {
		move(key, FP);
		emit(BPF_ALU64 | BPF_ADD | BPF_K, (uint8_t)key, 0, 0, slip() ? -4 : NUMBER);
	}
	call(which);
}

/* Add 1 to where R0 points. */
static void count(void)
{
	set(R1, 1);
	emit(BPF_STX | BPF_ATOMIC | BPF_DW, R0, R1, slip() ? 8 : 0, BPF_ADD);
}

static void do_table(void)
{
	int none;

	load_map(R1, slip() ? wrong_maps[dice(2)] : table);
	key_argument(R2);
	helper(BPF_FUNC_map_lookup_elem);
	none = slip() ? -1 : jump(BPF_JEQ, R0, 0);
	count();
	if (none >= 0)
		land(none);
	does[COUNT_IN_TABLE] = true;
}

static void load_value(int reg, int fd, size_t place)
{
	emit(BPF_LD | BPF_IMM | BPF_DW, (uint8_t)reg, BPF_PSEUDO_MAP_VALUE, 0, fd);
	emit(0, 0, 0, 0, (int)place);
}

static void load_variable(int reg, size_t place)
{
	load_value(reg, variables, place);
}

static void do_variable(void)
{
	load_variable(R0, offsetof(struct prog_fuzz__data_stats, counted) + (slip() ? dice(32) : 0));
	count();
	does[COUNT_IN_VARIABLE] = true;
}

/* As bpf_qdisc_begins_anew() */
static void do_begin_anew(void)
{
	int same_generation;

	load_variable(R2, offsetof(struct prog_fuzz__data_stats, generation));
	emit(BPF_LDX | BPF_MEM | BPF_W, R0, R2, 0, 0);
	emit(BPF_LDX | BPF_MEM | BPF_W, R1, CTX, GENERATION, 0);
	same_generation = emit(BPF_JMP | BPF_JEQ | BPF_X, R0, R1, 0, 0);
	emit(BPF_STX | BPF_MEM | BPF_W, R2, R1, slip() ? 4 : 0, 0);
	land(same_generation);
	does[BEGIN_ANEW] = true;
}

/* As bpf_qdisc_is_full() and bpf_qdisc_exceeds(); nothing can be written there. */
static void do_ask_qdisc(void)
{
	int16_t place = (int16_t)qdisc_offsets[dice(3)];

	emit(BPF_LDX | BPF_MEM | BPF_DW, R1, CTX, 8, 0);
	emit(BPF_LDX | BPF_MEM | BPF_W, R0, R1, place, 0);
	if (!slips && !dice(8)) {
		mistaken = true;
		emit(BPF_ST | BPF_MEM | BPF_W, R1, 0, place, 1);
	}
	use_result();
	does[ASK_QDISC] = true;
}

/* The packet is gone, and the program ends. */
static void end_with(int way)
{
	skb_argument(R1, OWN);
	ctx_argument(R2);
	call(way);
	exit_with(0);
}

/* As bpf_qdisc_filter() */
static void do_filter(void)
{
	int other;

	classify(OWN);
	other = jump(BPF_JNE, R0, TC_ACT_SHOT);
	end_with(LOSE);
	land(other);
	other = jump(BPF_JNE, R0, TC_ACT_STOLEN);
	end_with(STEAL);
	land(other);
	does[FILTER] = true;
}

/* As bpf_qdisc_cut() */
static void do_cut(void)
{
	int one;

	emit(BPF_LDX | BPF_MEM | BPF_H, R0, OWN, (int16_t)fields[PKT_SEGS].offset, 0);
	one = jump(BPF_JLE, R0, 1);
	end_with(SEGMENT);
	land(one);
	does[CUT_LONG] = true;
}

/* What a building block says is a key; or it is about the own packet, which may end there. */
static void do_block(void)
{
	int stays;

	if (block_call_count == BLOCK_CALLS)
		return;
	if (owns && !dice(3)) {
		stays = drop_if_told(OWN);
		exit_with(0);
		land(stays);
		return;
	}
	if (dice(2))
		ask_block(SCRAMBLE, 0);
	if (block_call_count < BLOCK_CALLS)
		ask_block((int)dice(BLOCKS), 0);
	use_result();
}

/* Two paths that join; a packet of the program's is given away on both. */
static void do_join(void)
{
	int otherwise, past;

	helper(BPF_FUNC_get_prandom_u32);
	otherwise = jump(BPF_JSET, R0, 1 << dice(3));
	if (owns && !dice(3)) {
		give(OWN);
		past = emit(BPF_JMP | BPF_JA, 0, 0, 0, 0);
		land(otherwise);
		if (!slip())
			give(OWN);
		land(past);
		owns = false;
	} else {
		do_other();
		land(otherwise);
	}
	does[JOIN] = true;
}

static void iterator_argument(void)
{
	move(R1, FP);
	emit(BPF_ALU64 | BPF_ADD | BPF_K, R1, 0, 0, slip() ? KEY : ITERATOR);
}

/* As bpf_for(): take and give away several, until there is none */
static void do_iterate(void)
{
	int start, over, none;

	iterator_argument();
	set(R2, 0);
	set(R3, (int)dice(6));
	call(ITER_NEW);
	start = length;
	iterator_argument();
	call(ITER_NEXT);
	over = jump(BPF_JEQ, R0, 0);
	none = take_and_give();
	emit(BPF_JMP | BPF_JA, 0, 0, (int16_t)(start - length - 1), 0);
	land(over);
	land(none);
	if (!slip()) {
		iterator_argument();
		call(ITER_DESTROY);
	}
	does[ITERATE] = true;
}

static void do_subprogram(void)
{
	struct subprogram *sub = &subprograms[subprogram_count];

	if (within || subprogram_count == SUBPROGRAMS)
		return;
	*sub = (struct subprogram){ .callback = dice(2), .walks = dice(2), .same = same, .classified = classified };
	subprogram_count++;
	if (sub->callback) {
		emit(BPF_STX | BPF_MEM | BPF_DW, FP, CTX, CONTEXT, 0);
		sub->call = emit(BPF_LD | BPF_IMM | BPF_DW, R2, BPF_PSEUDO_FUNC, 0, 0);
		emit(0, 0, 0, 0, 0);
		/* Not 0: the verifier looks at no callback that is never called, removes it as dead
		 * code, and finds its address without it ("No program to jit").
		 */
		if (sub->walks)
			map_argument(R1);
		else
			set(R1, 1 + (int)dice(6));
		move(R3, FP);
		emit(BPF_ALU64 | BPF_ADD | BPF_K, R3, 0, 0, slip() ? KEY : CONTEXT);
		set(R4, slip());
		helper(sub->walks ? BPF_FUNC_for_each_map_elem : BPF_FUNC_loop);
		does[sub->walks ? WALK : CALL_BACK] = true;
		return;
	}
	sub->owns = owns && dice(3);
	ctx_argument(R1);
	if (sub->owns)
		skb_argument(R2, OWN);
	sub->call = emit(BPF_JMP | BPF_CALL, 0, BPF_PSEUDO_CALL, 0, 0);
	owns &= !sub->owns;
	use_result();
	does[CALL_SUBPROGRAM] = true;
}

static void end(void)
{
	static const int8_t helpers[] = { BPF_FUNC_tail_call, BPF_FUNC_kptr_xchg };

	if (slip() && slip())
		helper(helpers[dice(2)]);
	if (owns && !slips && !dice(50))
		mistaken = true;
	else if (owns && !slip())
		give(OWN);
	else if (!enqueue && dice(3))
		do_pop();
	exit_with((int)dice(12) - 1);
}

static void statements(int depth)
{
	for (unsigned int n = 1 + dice(4); n--;) {
		switch (dice(32)) {
		case 0:
			choose_key();
			break;
		case 1:
		case 2:
		case 3:
			do_other();
			break;
		case 4:
			do_loop();
			break;
		case 5:
			if (!dice(2))
				do_own();
			break;
		case 6:
			do_context();
			break;
		case 7:
		case 8:
			if (!enqueue)
				do_delivered();
			break;
		case 9:
		case 10:
			do_pop();
			break;
		case 11:
		case 12:
			do_call();
			break;
		case 13:
			do_swap();
			break;
		case 14:
			do_read_again();
			break;
		case 15:
			do_look();
			break;
		case 16:
		case 17:
			do_field();
			break;
		case 18:
			do_numbers();
			break;
		case 19:
			if (dice(2))
				do_table();
			else
				do_variable();
			break;
		case 20:
			do_join();
			break;
		case 21:
			do_iterate();
			break;
		case 22:
			do_subprogram();
			break;
		case 23:
			do_maps();
			break;
		case 24:
			if (dice(3))
				do_task();
			else
				do_look_at_task();
			break;
		case 25:
			if (dice(2))
				do_ask_qdisc();
			else
				do_begin_anew();
			break;
		case 26:
			if (!owns || !enqueue)
				break;
			if (dice(2))
				do_filter();
			else
				do_cut();
			break;
		case 27:
		case 28:
			do_block();
			break;
		default:
			if (depth) {
				bool before = owns, same_before = same;
				int otherwise;

				helper(BPF_FUNC_get_prandom_u32);
				otherwise = jump(BPF_JSET, R0, 1 << dice(3));
				statements(depth - 1);
				end();
				owns = before;
				same = same_before;
				land(otherwise);
			}
		}
	}
}

/* Where there is no inner map, the program ends. */
static void look_up_inner(void)
{
	int found;

	find_inner();
	found = slip() ? -1 : jump(BPF_JNE, R0, 0);
	if (found >= 0) {
		if (owns)
			give(OWN);
		exit_with(0);
		land(found);
	}
	emit(BPF_STX | BPF_MEM | BPF_DW, FP, R0, INNER, 0);
	inner = true;
}

/* What the subprogram does; a callback at most takes packets, and gives them away. */
static void subprogram(const struct subprogram *sub)
{
	int none;

	insns[sub->call].imm = length - sub->call - 1;
	within = true;
	inner = false;
	owns = sub->owns;
	same = sub->same;
	classified = sub->classified;
	keeps = !sub->owns;
	if (sub->callback) {
		emit(BPF_LDX | BPF_MEM | BPF_DW, CTX, sub->walks ? R4 : R2, 0, 0);
		if (sub->walks) {	/* what it is called for is the map's */
			emit(BPF_LDX | BPF_MEM | BPF_DW, OTHER, R3, 0, 0);
			none = jump(BPF_JEQ, OTHER, 0);
			look_at(OTHER);
			land(none);
		}
		choose_key();
		for (unsigned int n = 1 + dice(2); n--;)
			do_other();
		exit_with((int)dice(slip() ? 12 : 2));
		return;
	}
	move(CTX, R1);
	if (owns)
		move(OWN, R2);
	choose_key();
	statements(1);
	end();
}

/* Where a block divides by what may be 0 it jumps to instructions behind it, which note a 0, divide
 * and jump back.
 */
static void watch_division(int at)
{
	struct bpf_insn divide = insns[at];
	uint8_t divisor = divide.src_reg, class = BPF_CLASS(divide.code) == BPF_ALU ? BPF_JMP32 : BPF_JMP;
	int good;

	insns[at] = (struct bpf_insn){ .code = BPF_JMP | BPF_JA, .off = (int16_t)(length - at - 1) };
	good = emit(class | BPF_JNE | BPF_K, divisor, 0, 0, 0);
	emit(BPF_STX | BPF_MEM | BPF_DW, FP, divisor, STASH, 0);
	load_value(divisor, bpf_map__fd(skel->maps.bss), (char *)&skel->bss->events.zero_divisors - (char *)skel->bss);
	emit(BPF_ST | BPF_MEM | BPF_DW, divisor, 0, 0, 1);
	emit(BPF_LDX | BPF_MEM | BPF_DW, divisor, FP, STASH, 0);
	land(good);
	insns[length++] = divide;
	emit(BPF_JMP | BPF_JA, 0, 0, (int16_t)(at - length), 0);
}

static void copy_block(const struct block_call *call)
{
	int start = length;

	for (const struct block_call *other = block_calls; other < call; other++) {
		if (other->block == call->block) {	/* there it is */
			insns[call->call].imm = other->call + insns[other->call].imm - call->call;
			return;
		}
	}
	if (length + 2 * blocks[call->block].length > INSNS_MAX)
		errx(1, "a program is too long");
	memcpy(&insns[length], blocks[call->block].insns, sizeof(insns[0]) * (size_t)blocks[call->block].length);
	length += blocks[call->block].length;
	for (int at = start, end = length; at < end; at++) {
		uint8_t code = insns[at].code, operation = BPF_OP(code);
		bool computes = BPF_CLASS(code) == BPF_ALU || BPF_CLASS(code) == BPF_ALU64;

		if (computes && BPF_SRC(code) == BPF_X && (operation == BPF_DIV || operation == BPF_MOD))
			watch_division(at);
	}
	functions[function_count++] = (struct bpf_func_info){ (uint32_t)start, function_type };
	insns[call->call].imm = start - call->call - 1;
}

/* They lie behind all_blocks(), in the order of its calls. */
static void find_blocks(void)
{
	const struct bpf_insn *all = bpf_program__insns(skel->progs.all_blocks);
	int count = (int)bpf_program__insn_cnt(skel->progs.all_blocks), block = 0;

	for (int i = 0; i < count && block < BLOCKS; i++) {
		if (all[i].code == (BPF_JMP | BPF_CALL) && all[i].src_reg == BPF_PSEUDO_CALL)
			blocks[block++].insns = &all[i + all[i].imm + 1];
	}
	for (int i = 0; i < BLOCKS; i++) {
		blocks[i].length = (int)((i + 1 < BLOCKS ? blocks[i + 1].insns : all + count) - blocks[i].insns);
		if (blocks[i].length <= 0)
			errx(1, "no building blocks");
		for (int j = 0; j < blocks[i].length; j++) {
			const struct bpf_insn *insn = &blocks[i].insns[j];

			/* Memory on the stack, and addresses of it */
			if (((insn->dst_reg == BPF_REG_10 || insn->src_reg == BPF_REG_10) && insn->off && insn->off < STASH + 8) ||
			    (insn->code == (BPF_ALU64 | BPF_ADD | BPF_K) && insn->imm < 0 && insn->imm > -512 && insn->imm < STASH + 8))
				errx(1, "a building block uses more of the stack than STASH leaves");
		}
	}
}

static void generate(void)
{
	length = 0;
	owns = enqueue;
	same = true;
	inner = false;
	classified = false;
	mistaken = false;
	within = keeps = false;
	subprogram_count = block_call_count = 0;
	memset(does, 0, sizeof(does));
	memset(calls, 0, sizeof(calls));
	memset(treats, 0, sizeof(treats));
	slips = dice(5) < 2 ? 0 : 5 + dice(40);
	move(CTX, R1);
	if (enqueue)
		emit(BPF_LDX | BPF_MEM | BPF_DW, OWN, CTX, 0, 0);
	choose_key();
	if (!dice(3))
		look_up_inner();
	choose_key();
	statements(2);
	end();
	functions[0].type_id = function_type;
	function_count = 1;
	for (int i = 0; i < subprogram_count; i++) {
		functions[function_count++] = (struct bpf_func_info){ (uint32_t)length, function_type };
		subprogram(&subprograms[i]);
	}
	/* A bit that is wrong */
	if (slip()) {
		uint64_t *bits = (uint64_t *)&insns[dice((unsigned int)length)];

		*bits ^= 1ULL << dice(64);
	}
	for (int i = 0; i < block_call_count; i++)
		copy_block(&block_calls[i]);
}

static int load_program(unsigned int flags)
{
	LIBBPF_OPTS(bpf_prog_load_opts, opts, .prog_flags = flags, .prog_btf_fd = (uint32_t)btf_fd,
		    .func_info = functions, .func_info_cnt = (uint32_t)function_count,
		    .func_info_rec_size = sizeof(functions[0]),
		    .expected_attach_type = enqueue ? BPF_QDISC_ENQUEUE : BPF_QDISC_DEQUEUE);

	return bpf_prog_load(BPF_PROG_TYPE_QDISC, "fuzz", "GPL", insns, (size_t)length, &opts);
}

/* A function that is static, whose type callbacks and those who call subprograms need */
static void describe_functions(void)
{
	struct btf *btf = btf__new_empty();
	int number = btf__add_int(btf, "int", 4, BTF_INT_SIGNED), proto = btf__add_func_proto(btf, number);

	function_type = (uint32_t)btf__add_func(btf, "function", BTF_FUNC_STATIC, proto);
	if (btf__load_into_kernel(btf))
		err(1, "BTF");
	btf_fd = btf__fd(btf);
}

/* ---- the qdiscs ---- */

static struct device {
	const char *name, *setup;	/* of its parent */
	const char *inside;		/* of its class and its filters */
	bool mq;			/* the first of two instances of bpf_mq */
	int ifindex, sender, gso_sender, changes;
	int programs[2];		/* dequeue, enqueue */
	uint64_t packets, bytes;	/* put in */
	struct book before[WAYS];
} devices[DEVICES] = {
	{ .name = "dev0", .setup = "tc qdisc add dev dev0 clsact && tc filter add dev dev0 egress matchall classid 10:1" },
	{ .name = "dev1", .setup = "tc qdisc add dev dev1 root handle 1: prio bands 2 priomap 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0",
	  .inside = "tc filter add dev dev1 parent 10: protocol ip pref 1 u32 match u16 1 1 at 2 action drop && "
		    "tc filter add dev dev1 parent 10: pref 2 matchall classid 10:1" },
	{ .name = "dev2", .setup = "tc qdisc add dev dev2 root handle 1: tbf rate 100gbit burst 1mb limit 10mb",
	  .inside = "tc qdisc add dev dev2 parent 10:1 netem delay 2ms limit 8" },
	{ .name = "dev3" },		/* below another bpf */
	{ .name = "dev4", .setup = "tc qdisc add dev dev4 root handle 1: mq && tc qdisc add dev dev4 clsact && "
				   "tc filter add dev dev4 egress matchall action skbedit queue_mapping 0" },
	{ .name = "dev5", .mq = true, .setup = "tc qdisc add dev dev5 clsact && tc filter add dev dev5 egress "
					       "matchall action skbedit queue_mapping 0" },
};

struct stats {
	struct gnet_stats_queue queue;
	struct gnet_stats_basic basic;
	struct tc_sch_bpf_xstats app;
	uint32_t handle;
};

static int netlink;

static struct {
	struct nlmsghdr header;
	struct tcmsg tc;
	char attributes[100];
} request;

static void *attribute(int type, const void *data, int size)
{
	struct rtattr *at = (struct rtattr *)((char *)&request + NLMSG_ALIGN(request.header.nlmsg_len));

	at->rta_type = (unsigned short)type;
	at->rta_len = (unsigned short)RTA_LENGTH(size);
	if (size)
		memcpy(RTA_DATA(at), data, (size_t)size);
	request.header.nlmsg_len = NLMSG_ALIGN(request.header.nlmsg_len) + RTA_ALIGN(at->rta_len);
	return at;
}

static void begin(int type, int flags, int ifindex, uint32_t parent, uint32_t handle)
{
	memset(&request, 0, sizeof(request));
	request.header = (struct nlmsghdr){ .nlmsg_len = NLMSG_LENGTH(sizeof(request.tc)),
					    .nlmsg_type = (uint16_t)type,
					    .nlmsg_flags = (uint16_t)(NLM_F_REQUEST | flags) };
	request.tc = (struct tcmsg){ .tcm_ifindex = ifindex, .tcm_parent = parent, .tcm_handle = handle };
}

static char answer[16384] __attribute__((aligned(4)));

/* The length of the answer, or an error, negative */
static int talk(void)
{
	struct nlmsghdr *reply = (struct nlmsghdr *)answer;
	int size;

	if (send(netlink, &request, request.header.nlmsg_len, 0) < 0)
		err(1, "netlink");
	size = recv(netlink, answer, sizeof(answer), 0);
	if (size < 0)
		err(1, "netlink");
	return reply->nlmsg_type == NLMSG_ERROR ? ((struct nlmsgerr *)NLMSG_DATA(reply))->error : size;
}

static void copy(const struct rtattr *from, int type, void *to, size_t size)
{
	if (from->rta_type == type)
		memcpy(to, RTA_DATA(from), RTA_PAYLOAD(from) < size ? RTA_PAYLOAD(from) : size);
}

static struct stats query(int ifindex, uint32_t parent, uint32_t handle)
{
	struct stats stats = {};
	struct rtattr *at, *inner;
	int size, left;

	begin(RTM_GETQDISC, NLM_F_ECHO, ifindex, parent, handle);
	size = talk();
	if (size < 0)
		errx(1, "no qdisc %x: %s", (handle ?: parent) >> 16, strerror(-size));
	stats.handle = ((struct tcmsg *)NLMSG_DATA(answer))->tcm_handle;
	at = (struct rtattr *)(answer + NLMSG_SPACE(sizeof(struct tcmsg)));
	size -= (int)NLMSG_SPACE(sizeof(struct tcmsg));
	for (; RTA_OK(at, size); at = RTA_NEXT(at, size)) {
		if (at->rta_type != TCA_STATS2)
			continue;
		inner = RTA_DATA(at);
		left = (int)RTA_PAYLOAD(at);
		for (; RTA_OK(inner, left); inner = RTA_NEXT(inner, left)) {
			copy(inner, TCA_STATS_QUEUE, &stats.queue, sizeof(stats.queue));
			copy(inner, TCA_STATS_BASIC, &stats.basic, sizeof(stats.basic));
			copy(inner, TCA_STATS_APP, &stats.app, sizeof(stats.app));
		}
	}
	return stats;
}

/* Of the qdisc under test; an instance of bpf_mq has no handle */
static struct stats query_own(const struct device *device)
{
	return device->mq ? query(device->ifindex, PARENT + 1, 0) : query(device->ifindex, 0, HANDLE);
}

/* How soon a policy is found stuck */
static bool set_patience(int ifindex, const char *kind, uint32_t parent, uint32_t handle, uint64_t patience)
{
	struct rtattr *options;

	begin(RTM_NEWQDISC, NLM_F_ACK, ifindex, parent, handle);
	attribute(TCA_KIND, kind, (int)strlen(kind) + 1);
	options = attribute(TCA_OPTIONS, NULL, 0);
	attribute(TCA_SCH_BPF_PATIENCE, &patience, sizeof(patience));
	options->rta_len = (unsigned short)((char *)&request + request.header.nlmsg_len - (char *)options);
	expect_equal(talk(), 0);
	return true;
}

static void shell(const char *command)
{
	if (system(command))
		errx(1, "failed: %s", command);
}

typedef int attach_function(int, int, int, const struct bpf_qdisc_opts *);

/* The qdisc gets its programs; the second instance of bpf_mq, where no packets come, has plain ones. */
static int give_programs(const struct device *device, attach_function *function, int enqueue_fd, int dequeue_fd,
			 uint32_t flags)
{
	int enqueue_fds[] = { enqueue_fd, bpf_program__fd(skel->progs.plain_enqueue) };
	int dequeue_fds[] = { dequeue_fd, bpf_program__fd(skel->progs.plain_dequeue) };
	LIBBPF_OPTS(bpf_qdisc_opts, opts, .handle = HANDLE, .flags = flags,
		    .parent = device == &devices[0] ? TC_H_ROOT : PARENT + 1);

	if (function == bpf_qdisc_attach)
		opts.limit = 40;
	if (!device->mq)
		return function(device->ifindex, enqueue_fd, dequeue_fd, &opts);
	opts.kind = "bpf_mq";
	opts.handle = PARENT;
	opts.parent = TC_H_ROOT;
	opts.queues = 2;
	opts.enqueue_fds = enqueue_fds;
	opts.dequeue_fds = dequeue_fds;
	return function(device->ifindex, -1, -1, &opts);
}

static bool attach(struct device *device)
{
	uint32_t handle;

	expect_equal(give_programs(device, bpf_qdisc_attach, bpf_program__fd(skel->progs.plain_enqueue),
				   bpf_program__fd(skel->progs.plain_dequeue), 0), 0);
	handle = query_own(device).handle;
	begin(RTM_NEWTCLASS, NLM_F_ACK | NLM_F_CREATE, device->ifindex, handle, handle + 1);
	attribute(TCA_KIND, "bpf", 4);
	expect_equal(talk(), 0);
	if (device->inside)
		shell(device->inside);
	if (device->mq)
		expect(set_patience(device->ifindex, "bpf_mq", TC_H_ROOT, PARENT, 10000000));
	else if (device - devices >= 2)
		expect(set_patience(device->ifindex, "bpf", PARENT + 1, HANDLE, 10000000));

	device->packets = 0;
	device->bytes = 0;
	device->changes = 0;
	memcpy(device->before, skel->bss->books[device->ifindex], sizeof(device->before));
	return true;
}

/* What has become of the packets so far */
static struct book since(const struct device *device, int way)
{
	volatile const struct book *now = &skel->bss->books[device->ifindex][way];

	return (struct book){ now->packets - device->before[way].packets,
			      now->segments - device->before[way].segments,
			      now->bytes - device->before[way].bytes };
}

static bool balances(const struct device *device, bool gone, bool say)
{
	struct book cloned = since(device, CLONED), cut = since(device, CUT),
		    dropped = since(device, DROPPED), sent = since(device, SENT);
	struct stats own = {}, parent;

	if (say)
		printf("# %s: put in %llu (%llu bytes), cloned %llu (%llu), cut %llu, sent %llu (%llu), freed %llu (%llu)\n",
		       device->name, (unsigned long long)device->packets, (unsigned long long)device->bytes,
		       (unsigned long long)cloned.packets, (unsigned long long)cloned.bytes,
		       (unsigned long long)cut.packets, (unsigned long long)sent.packets, (unsigned long long)sent.bytes,
		       (unsigned long long)dropped.packets, (unsigned long long)dropped.bytes);
	if (!gone) {
		own = query_own(device);
		if (say)
			printf("# the qdisc: qlen %u, backlog %u, drops %u, stolen %llu, sent %llu (%llu)\n",
			       own.queue.qlen, own.queue.backlog, own.queue.drops,
			       (unsigned long long)own.app.stolen, (unsigned long long)own.basic.packets,
			       (unsigned long long)own.basic.bytes);
		if (own.basic.packets != (uint32_t)sent.segments || own.basic.bytes != sent.bytes ||
		    own.queue.drops + own.app.stolen != dropped.packets)
			return false;
		if (device != &devices[0]) {
			parent = query(device->ifindex, 0, PARENT);
			if (say)
				printf("# its parent: qlen %u, backlog %u\n", parent.queue.qlen,
				       parent.queue.backlog);
			if (parent.queue.qlen != own.queue.qlen || parent.queue.backlog != own.queue.backlog)
				return false;
		}
	}
	return device->packets + cloned.packets + cut.packets == sent.packets + dropped.packets + own.queue.qlen &&
	       device->bytes + cloned.bytes == sent.bytes + dropped.bytes + own.queue.backlog;
}

static bool wait_balance(const struct device *device, bool gone)
{
	for (int tries = 0; tries < 2000; tries++) {
		if (balances(device, gone, false))
			return true;
		usleep(1000);
	}
	balances(device, gone, true);
	return false;
}

#define HEADERS		42		/* Ethernet, IPv4, UDP */

static unsigned int told;

/* One packet more. Its sender hears of a drop, if nothing of the packet stays, and not of a loss. */
static bool put_in(struct device *device)
{
	volatile const struct events *events = &skel->bss->events;
	struct events before = *events;
	uint64_t clones = since(device, CLONED).packets;
	static struct {
		struct virtio_net_hdr gso;
		unsigned char frame[10000];
	} packet = {
		.gso = { .flags = VIRTIO_NET_HDR_F_NEEDS_CSUM, .gso_type = 5 /* UDP_L4 */,
			 .hdr_len = HEADERS, .csum_start = 34, .csum_offset = 6 },
		.frame = { 2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0, 0x45, [22] = 64, [23] = 17 },
	};
	unsigned int segments = dice(4) ? 1 : 2 + dice(6), payload = 20 + dice(1400), size;
	int priority = (int)dice(3), sent;

	/* The last one is shorter. */
	size = HEADERS + payload * (segments - 1) + 1 + dice(payload);
	if (segments == 1)
		size = HEADERS + payload;
	packet.gso.gso_size = (uint16_t)payload;
	packet.frame[15] = (unsigned char)dice(4);		/* ECN */
	*(uint16_t *)&packet.frame[16] = htons((uint16_t)(size - 14));
	*(uint16_t *)&packet.frame[38] = htons((uint16_t)(size - 34));

	setsockopt(segments > 1 ? device->gso_sender : device->sender, SOL_SOCKET, SO_PRIORITY, &priority,
		   sizeof(priority));
	device->packets++;
	device->bytes += size + HEADERS * (segments - 1);
	if (segments > 1)
		sent = send(device->gso_sender, &packet, sizeof(packet.gso) + size, 0);
	else
		sent = send(device->sender, packet.frame, size, 0);
	if (sent < 0 && errno != ENOBUFS)
		err(1, "%s", device->name);
	told += sent < 0;
	if (segments > 1)		/* of which each may have become something else */
		return true;
	if (events->lost > before.lost)
		expect(sent >= 0);
	if (events->dropped > before.dropped && since(device, CLONED).packets == clones)
		expect(sent < 0);
	return true;
}

/* ---- the whole ---- */

static unsigned int mistakes;	/* programs that had to be refused */
/* Of those that were accepted */
static unsigned int doing[DOINGS];
static bool called[2][KFUNCS], treated[2][PACKET_KINDS][KFUNCS];	/* dequeue, enqueue */
#define LONE		"lone"		/* an inner map that is an ordered map's alone */
static int task_references;	/* on the test, when no map has any */
static uint64_t stuck, stolen, all_cloned, all_cut, all_dropped, all_sent, all_packets;

/* One that nobody else has, like those of the array */
static int make_inner(int of_device)
{
	LIBBPF_OPTS(bpf_map_create_opts, opts);
	uint32_t first = 0, id, size = sizeof(struct bpf_map_info);
	struct bpf_map_info info = {};
	int fd = -1;

	if (!bpf_map_lookup_elem(arrays[of_device], &first, &id))
		fd = bpf_map_get_fd_by_id(id);
	if (fd < 0 || bpf_map_get_info_by_fd(fd, &info, &size))
		err(1, "inner map");
	close(fd);
	opts.btf_fd = (uint32_t)bpf_btf_get_fd_by_id(info.btf_id);
	opts.btf_key_type_id = info.btf_key_type_id;
	opts.btf_value_type_id = info.btf_value_type_id;
	fd = bpf_map_create(info.type, LONE, info.key_size, info.value_size, info.max_entries, &opts);
	if (fd < 0)
		err(1, "inner map");
	close((int)opts.btf_fd);
	return fd;
}

/* Programs find some maps and some tasks. */
static void put_maps_and_tasks(int device)
{
	uint64_t key, *at;
	uint32_t count;
	int fd;

	for (count = 0, at = NULL; !bpf_map_get_next_key(outers[device], at, &key); at = &key)
		count++;
	for (key = 0; count < INNER_MAPS; count++, key++) {
		fd = make_inner(device);
		bpf_map_update_elem(outers[device], &key, &fd, BPF_ANY);
		close(fd);
	}
	for (int there = run("tasks_len"); there < TASKS; there++)
		run("task_in");
}

static void empty_outer(int device)
{
	uint64_t key;

	while (!bpf_map_get_next_key(outers[device], NULL, &key))
		bpf_map_delete_elem(outers[device], &key);
}

/* When no task is in the map nobody holds one. A program may have had one meanwhile, and put it back. */
static bool no_task_is_held(void)
{
	int found = 0, left;

	for (int tries = 0; tries < 2000; tries++) {
		left = run("tasks_out");
		found = run("references");
		if (!left && found == task_references)
			return true;
		usleep(1000);
	}
	printf("# %d references on the test, %d before\n", found, task_references);
	return false;
}

static bool end_life(struct device *device)
{
	LIBBPF_OPTS(bpf_qdisc_opts, opts, .handle = HANDLE,
		    .parent = device == &devices[0] ? TC_H_ROOT : PARENT + 1);
	struct stats stats = query_own(device);

	if (device->mq) {
		opts.kind = "bpf_mq";
		opts.handle = PARENT;
		opts.parent = TC_H_ROOT;
	}
	expect_equal(bpf_qdisc_detach(device->ifindex, &opts), 0);
	/* Every packet, every clone has been sent or freed by now, or will be at once. */
	expect(wait_balance(device, true));
	expect(no_task_is_held());
	stuck += stats.app.stuck;
	stolen += stats.app.stolen;
	all_cloned += since(device, CLONED).packets;
	all_cut += since(device, CUT).packets;
	all_dropped += since(device, DROPPED).packets;
	all_sent += since(device, SENT).packets;
	all_packets += device->packets;
	return true;
}

static bool put_in_force(struct device *device)
{
	uint32_t flags = dice(4) ? BPF_QDISC_F_FLUSH : 0;
	libbpf_print_fn_t print = libbpf_set_print(NULL);
	int error;

	error = give_programs(device, bpf_qdisc_change, device->programs[1], device->programs[0], flags);
	libbpf_set_print(print);
	if (error == -EBUSY && !flags)		/* packets would be lost: they are to be */
		error = give_programs(device, bpf_qdisc_change, device->programs[1], device->programs[0],
				      BPF_QDISC_F_FLUSH);
	expect_equal(error, 0);
	expect(wait_balance(device, false));

	put_maps_and_tasks((int)(device - devices));
	for (int i = 0; i < PACKETS; i++)
		expect(put_in(device));
	if (!dice(32)) {		/* long enough to be found stuck, if it is impatient */
		usleep(15000);
		for (int i = 0; i < PACKETS; i++)
			expect(put_in(device));
	}
	expect(wait_balance(device, false));
	if (++device->changes < LIFE)
		return true;
	return end_life(device) && attach(device);
}

static void print_program(unsigned int seed)
{
	printf("# SEED=%u, %s, the program is\n", seed, enqueue ? "enqueue" : "dequeue");
	for (int i = 0; i < length; i++)
		printf("#\t%016llx\n", *(unsigned long long *)&insns[i]);
}

static bool one_program(unsigned int seed, unsigned int *accepted)
{
	struct device *device;
	int fd, pruned;
	bool ok;

	srandom(seed);
	on_device = (int)dice(DEVICES);
	device = &devices[on_device];
	enqueue = dice(2);
	generate();
	fd = load_program(0);
	/* Paths are then compared at each instruction: that must not change the verdict. The loops of
	 * building blocks take ten times as long that way.
	 */
	pruned = block_call_count && dice(16) ? fd : load_program(BPF_F_TEST_STATE_FREQ);
	if ((fd < 0) != (pruned < 0)) {
		printf("# loading: %d, and %d with paths compared at each instruction\n", fd, pruned);
		print_program(seed);
		return false;
	}
	if (pruned >= 0 && pruned != fd)
		close(pruned);
	mistakes += mistaken;
	if (mistaken && fd >= 0) {
		printf("# accepted, with a packet that is given to nobody, or read when it is gone\n");
		print_program(seed);
		return false;
	}
	if (fd < 0)
		return true;
	accepted[enqueue]++;
	for (int i = 0; i < DOINGS; i++)
		doing[i] += does[i];
	for (int i = 0; i < KFUNCS; i++) {
		called[enqueue][i] |= calls[i];
		for (int kind = 0; kind < PACKET_KINDS; kind++)
			treated[enqueue][kind][i] |= treats[kind][i];
	}
	if (device->programs[enqueue] > 0)
		close(device->programs[enqueue]);
	device->programs[enqueue] = fd;
	if (!device->programs[!enqueue])
		return true;
	ok = put_in_force(device);
	if (!ok)
		print_program(seed);
	return ok;
}

static int packet_socket(int ifindex)
{
	struct sockaddr_ll address = { .sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_IP),
				       .sll_ifindex = ifindex };
	int fd = socket(AF_PACKET, SOCK_RAW, 0);

	if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)))
		err(1, "packet socket");
	return fd;
}

/* Bytes from the beginning of a structure to a member, also to one of an unnamed member; or -1 */
static int offset_of(const struct btf *btf, uint32_t id, const char *name)
{
	const struct btf_type *type = btf__type_by_id(btf, id);

	for (unsigned int i = 0; i < btf_vlen(type); i++) {
		const struct btf_member *member = &btf_members(type)[i];
		int offset = (int)btf_member_bit_offset(type, i) / 8, within;

		if (!strcmp(btf__name_by_offset(btf, member->name_off), name))
			return offset;
		if (member->name_off || !btf_is_composite(btf__type_by_id(btf, member->type)))
			continue;
		within = offset_of(btf, member->type, name);
		if (within >= 0)
			return offset + within;
	}
	return -1;
}

static int offset_in(const struct btf *btf, const char *type, const char *name)
{
	int id = btf__find_by_name_kind(btf, type, BTF_KIND_STRUCT);
	int offset = id < 0 ? -1 : offset_of(btf, (uint32_t)id, name);

	if (offset < 0)
		errx(1, "no member %s of %s", name, type);
	return offset;
}

static int map_of(int device, const char *kind)
{
	char name[16];

	snprintf(name, sizeof(name), "%s%d", kind, device);
	return map(name);
}

static void set_up(void)
{
	static const char *const kinds[KINDS] = { "pkts", "small", "allocated", [PAIRS] = "pairs" };
	LIBBPF_OPTS(bpf_qdisc_opts, parent, .handle = PARENT);
	struct timeval patience = { .tv_sec = 60 };
	struct btf *btf = btf__load_vmlinux_btf();
	uint32_t skb, cb;
	char command[100];

	if (!btf)
		err(1, "BTF of the kernel");
	for (int i = 0; i < KFUNCS; i++) {
		kfunc_ids[i] = btf__find_by_name_kind(btf, kfunc_names[i], BTF_KIND_FUNC);
		if (kfunc_ids[i] < 0)
			errx(1, "no function %s", kfunc_names[i]);
	}
	task_release = btf__find_by_name_kind(btf, "bpf_task_release", BTF_KIND_FUNC);
	if (task_release < 0)
		errx(1, "no function bpf_task_release");
	pid_offset = offset_in(btf, "task_struct", "pid");
	qdisc_offsets[0] = offset_in(btf, "Qdisc", "q") + offset_in(btf, "qdisc_skb_head", "qlen");
	qdisc_offsets[1] = offset_in(btf, "Qdisc", "qstats") + offset_in(btf, "gnet_stats_queue", "backlog");
	qdisc_offsets[2] = offset_in(btf, "Qdisc", "limit");
	handle_offset = offset_in(btf, "Qdisc", "handle");
	sk_offset = offset_in(btf, "sk_buff", "sk");
	state_offset = offset_in(btf, "sock", "__sk_common") + offset_in(btf, "sock_common", "skc_state");
	skb = (uint32_t)btf__find_by_name_kind(btf, "sk_buff", BTF_KIND_STRUCT);
	cb = (uint32_t)btf__find_by_name_kind(btf, "qdisc_skb_cb", BTF_KIND_STRUCT);
	for (int i = 0; i < FIELDS; i++) {
		bool in_cb = i == PKT_LEN || i == PKT_SEGS;

		fields[i].offset = offset_of(btf, in_cb ? cb : skb, fields[i].name);
		if (fields[i].offset < 0)
			errx(1, "no member %s", fields[i].name);
		if (in_cb)
			fields[i].offset += fields[NOTE].offset;
	}
	fields[NOTE].offset += offset_of(btf, cb, "data");
	btf__free(btf);
	obj = skel->obj;
	for (int i = 0; i < DEVICES; i++) {
		for (int j = 0; j < KINDS; j++)
			map_fds[i][j] = map_of(i, kinds[j]);
		arrays[i] = map_of(i, "inner");
		outers[i] = map_of(i, "outer");
	}
	wrong_maps[0] = map("hash");
	wrong_maps[1] = map("numbers");
	variables = bpf_map__fd(skel->maps.data_stats);
	table = map("table");
	tasks = map("tasks");
	task_references = run("references");
	for (int64_t key = -1; key < 4; key++) {
		if (bpf_map_update_elem(table, &key, &(uint64_t){ 0 }, BPF_ANY))
			err(1, "table");
	}
	describe_functions();
	find_blocks();

	if (unshare(CLONE_NEWNET))
		err(1, "network namespace");
	netlink = socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE);
	setsockopt(netlink, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	shell("sysctl -qw net.ipv6.conf.default.disable_ipv6=1");
	for (int i = 0; i < DEVICES; i++) {
		struct device *device = &devices[i];

		snprintf(command, sizeof(command), "ip link add name %s numtxqueues 2 type dummy && ip link set dev %s up",
			 device->name, device->name);
		shell(command);
		device->ifindex = (int)if_nametoindex(device->name);
		if (device->setup)
			shell(device->setup);
		device->sender = packet_socket(device->ifindex);
		device->gso_sender = packet_socket(device->ifindex);
		if (setsockopt(device->gso_sender, SOL_PACKET, PACKET_VNET_HDR, &(int){ 1 }, sizeof(int)))
			err(1, "GSO");
	}
	if (bpf_qdisc_attach(devices[3].ifindex, bpf_program__fd(skel->progs.parent_enqueue),
			     bpf_program__fd(skel->progs.parent_dequeue), &parent))
		err(1, "parent");
	begin(RTM_NEWTCLASS, NLM_F_ACK | NLM_F_CREATE, devices[3].ifindex, PARENT, PARENT + 1);
	attribute(TCA_KIND, "bpf", 4);
	/* Or, if its child drops whatever it gets, it lets packets pass the child by */
	if (talk() || !set_patience(devices[3].ifindex, "bpf", TC_H_ROOT, PARENT, 24 * 3600 * 1000000000ULL))
		errx(1, "class of the parent");
}

static bool all_programs(unsigned int seed, unsigned int count, unsigned int *accepted)
{
	for (int i = 0; i < DEVICES; i++)
		expect(attach(&devices[i]));
	for (unsigned int i = 0; i < count; i++)
		expect(one_program(seed + i, accepted));
	for (int i = 0; i < DEVICES; i++) {
		expect(end_life(&devices[i]));
		empty_outer(i);
	}
	for (int tries = 0; tries < 300 && maps_alive(LONE); tries++)
		usleep(50000);
	expect_equal(maps_alive(LONE), 0);
	return true;
}

/* Each function, where it may be called, and on each kind of packet that there may be */
static bool each_function(bool to_enqueue)
{
	const char *way = to_enqueue ? "enqueue" : "dequeue";
	bool all = true;

	for (int i = 0; i < KFUNCS; i++) {
		bool of_packets = (i >= ECN_MARK && i <= SET_DEPARTURE) || (i >= CLASSIFY && i <= FROM_SKB);

		if (to_enqueue ? i == DELIVER || (i >= POP && i <= CLASS_HEAD) :
				 i == PASS || i == STEAL || i == SEGMENT || i == CLASSIFY)
			continue;
		if (!called[to_enqueue][i]) {
			printf("# no program to %s calls %s\n", way, kfunc_names[i]);
			all = false;
		}
		for (int kind = 0; kind < PACKET_KINDS && of_packets; kind++) {
			if (kind == (to_enqueue ? DELIVERED : THAT_CAME) || treated[to_enqueue][kind][i])
				continue;
			printf("# no program to %s calls %s on a packet %s\n", way, kfunc_names[i], packet_kinds[kind]);
			all = false;
		}
	}
	return all;
}

static bool both(const unsigned int *accepted, unsigned int count)
{
	unsigned int good = accepted[0] + accepted[1];

	printf("# %u programs: accepted %u to enqueue, %u to dequeue; refused %u, %u of them had to be\n",
	       count, accepted[1], accepted[0], count - good, mistakes);
	for (int i = 0; i < DOINGS; i++)
		printf("# %u of those accepted %s\n", doing[i], doing_names[i]);
	expect(mistakes > count / 100);
	for (int i = 0; i < DOINGS; i++)
		expect(doing[i] > good / 200);
	expect(good > count / 5 && count - good > count / 5);
	expect(accepted[0] > good / 5 && accepted[1] > good / 5);
	if (count >= 2000)	/* of fewer, some would be missing by chance */
		expect(each_function(true) & each_function(false));	/* both say what is missing */
	return true;
}

static bool much_happened(void)
{
	struct events events = skel->bss->events;
	uint64_t in_table = 0;

	printf("# %llu packets put in, %llu cloned, %llu more by cutting, %llu sent, %llu freed, %llu stolen; %llu times stuck\n",
	       (unsigned long long)all_packets, (unsigned long long)all_cloned, (unsigned long long)all_cut,
	       (unsigned long long)all_sent,
	       (unsigned long long)all_dropped, (unsigned long long)stolen, (unsigned long long)stuck);
	expect(all_cloned > all_packets / 100 && all_sent > all_packets / 20 && all_dropped > all_packets / 20);
	expect(all_cut > all_packets / 100 && stolen && stuck);
	printf("# %llu times a filter found a class, %llu packets passed there, %llu times a class held its packets back\n",
	       (unsigned long long)events.found, (unsigned long long)events.passed, (unsigned long long)events.held);
	printf("# %llu packets passed to a class below bpf_mq\n", (unsigned long long)events.passed_below_mq);
	printf("# %llu packets dropped as they came, %llu lost; %u times a sender was told; %lld numbers are left\n",
	       (unsigned long long)events.dropped, (unsigned long long)events.lost, told, (long long)events.numbers);
	printf("# %llu times a tx queue was chosen, %llu times not, below mq\n",
	       (unsigned long long)events.chosen, (unsigned long long)events.not_chosen);
	expect(events.chosen && events.not_chosen);
	printf("# inner maps: %llu pushed, %llu popped, %llu packets went with one; tasks: %llu pushed, %llu popped\n",
	       (unsigned long long)events.maps_in, (unsigned long long)events.maps_out, (unsigned long long)events.gone,
	       (unsigned long long)events.tasks_in, (unsigned long long)events.tasks_out);
	expect(events.maps_in && events.maps_out && events.gone && events.tasks_in && events.tasks_out);
	for (int64_t key = -1; key < 4; key++) {
		uint64_t value = 0;

		bpf_map_lookup_elem(table, &key, &value);
		in_table += value;
	}
	printf("# %llu times something was counted in the table, %llu times in the variable\n",
	       (unsigned long long)in_table, (unsigned long long)skel->data_stats->counted);
	expect(in_table && skel->data_stats->counted && skel->data_stats->generation);
	expect(events.found > all_packets / 1000 && events.passed && events.passed_below_mq && events.held);
	expect(events.dropped > all_packets / 100 && events.lost > all_packets / 100 && told > all_packets / 100);
	expect_equal(events.numbers, run("numbers_len"));
	return true;
}

static bool blocks_do_right(void)
{
	struct events events = skel->bss->events;

	expect_equal(events.wrong, 0);
	expect_equal(events.zero_divisors, 0);
	for (int i = CODEL; i <= RED; i++) {
		const unsigned long long *said = skel->bss->verdicts[i];

		printf("# those accepted that %s: it said deliver %llu times, mark %llu, drop %llu\n",
		       doing_names[BLOCK + i], said[0], said[1], said[2]);
		expect(said[0] && said[1] && said[2]);
	}
	printf("# %llu packets marked, %llu not\n", (unsigned long long)events.marked,
	       (unsigned long long)events.not_marked);
	expect(events.marked && events.not_marked);
	return true;
}

int main(void)
{
	/* Under KASAN a program takes several times as long. */
	unsigned int count = setting("PROGRAMS", setting("SELFTESTS_DEBUG", 0) ? 2000 : 10000);
	unsigned int first = setting("SEED", 1);
	unsigned int accepted[2] = {};

	setvbuf(stdout, NULL, _IOLBF, 0);
	printf("1..4\n# seed %u, %u programs\n", first, count);
	skel = prog_fuzz__open_and_load();
	if (!skel || prog_fuzz__attach(skel))
		err(1, "programs");
	set_up();
	result(all_programs(first, count, accepted), "the books balance");
	result(both(accepted, count), "programs accepted and refused");
	result(much_happened(), "packets took every way");
	result(blocks_do_right(), "building blocks do right");
	return failed ? 1 : 0;
}
