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
 * of bpf_qdisc.h, and of bpf_rbtree.h those that need neither a task nor a map of maps, is in
 * a program that was accepted, in each direction that may call it; and so are
 * subprograms, callbacks, loops, joins, and what a policy counts in a table and in variables.
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
	uint64_t lost, dropped, found, passed, held, chosen, not_chosen;
	int64_t numbers;
};

#include "prog_fuzz.skel.h"
#include <arpa/inet.h>
#include <bpf/btf.h>
#include <linux/gen_stats.h>
#include <linux/if_packet.h>
#include <linux/netlink.h>
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

static struct prog_fuzz *skel;

static unsigned int dice(unsigned int sides)
{
	return (unsigned int)random() % sides;
}

/* ---- a program ---- */

#define INSNS_MAX	3000
/* On the stack */
#define KEY		(-16)		/* the longest */
#define INNER		(-24)		/* a map that was looked up */
#define DYNPTR		(-40)
#define BYTES_READ	(-64)
#define NUMBER		(-72)		/* a value of `numbers` */
#define ITERATOR	(-80)
#define CONTEXT		(-88)		/* for a callback */
/* In the context */
#define CLASSID		24

enum { R0, R1, R2, R3, R4, R5, CTX, OWN, OTHER, COUNT, FP };	/* what registers are for */

static const char *const kfunc_names[] = {
	"bpf_qdisc_push_skb", "bpf_qdisc_push_front_skb", "bpf_qdisc_drop_skb", "bpf_qdisc_lose_skb",
	"bpf_qdisc_pass_skb", "bpf_qdisc_steal_skb", "bpf_qdisc_segment_skb", "bpf_qdisc_deliver_skb",
	"bpf_qdisc_pop", "bpf_qdisc_pop_until", "bpf_qdisc_pop_key", "bpf_qdisc_pop_from",
	"bpf_qdisc_pop_class", "bpf_qdisc_class_head", "bpf_qdisc_class_len",
	"bpf_qdisc_take", "bpf_qdisc_take_last", "bpf_qdisc_take_until", "bpf_qdisc_take_key",
	"bpf_qdisc_take_youngest", "bpf_qdisc_take_from", "bpf_qdisc_clone",
	"bpf_rbtree_map_len", "bpf_rbtree_map_bytes", "bpf_rbtree_map_first", "bpf_rbtree_map_last",
	"bpf_rbtree_map_lower_bound", "bpf_rbtree_map_upper_bound",
	"bpf_qdisc_ecn_mark", "bpf_qdisc_orphan", "bpf_qdisc_set_queue", "bpf_qdisc_departure",
	"bpf_qdisc_set_departure", "bpf_qdisc_bypass",
	"bpf_skb_tc_classify", "bpf_skb_get_hash", "bpf_dynptr_from_skb",
	"bpf_rbtree_map_push", "bpf_rbtree_map_pop", "bpf_rbtree_map_pop_until",
	"bpf_rbtree_map_pop_key", "bpf_rbtree_map_move",
	"bpf_iter_num_new", "bpf_iter_num_next", "bpf_iter_num_destroy",
};
enum { PUSH, PUSH_FRONT, DROP, LOSE, PASS, STEAL, SEGMENT, DELIVER,
       POP, POP_UNTIL, POP_KEY, POP_FROM, POP_CLASS, CLASS_HEAD, CLASS_LEN,
       TAKE, TAKE_LAST, TAKE_UNTIL, TAKE_KEY, TAKE_YOUNGEST, TAKE_FROM, CLONE,
       LEN, BYTES, FIRST, LAST, LOWER_BOUND, UPPER_BOUND,
       ECN_MARK, ORPHAN, SET_QUEUE, DEPARTURE, SET_DEPARTURE, BYPASS, CLASSIFY, GET_HASH, FROM_SKB,
       NUMBER_PUSH, NUMBER_POP, NUMBER_POP_UNTIL, NUMBER_POP_KEY, NUMBER_MOVE,
       ITER_NEW, ITER_NEXT, ITER_DESTROY,
       KFUNCS };

/* Packets that a program does something with, which is not its end */
static const char *const packet_kinds[] = { "that came", "taken", "cloned", "delivered" };
enum { THAT_CAME, TAKEN, CLONED_ONE, DELIVERED, PACKET_KINDS };

static int kfunc_ids[KFUNCS];
enum { PAIRS = 3, KINDS };		/* of maps of packets: those with the longest key, and how many */
static int map_fds[DEVICES][KINDS], arrays[DEVICES], wrong_maps[2], table, variables;

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
static const char *const doing_names[] = {
	"use an inner map", "use a map of pairs", "write to packets", "read bytes", "set stamps",
	"read length", "read segments", "read network offset", "count in a table", "count in a variable",
	"join two paths", "iterate", "call subprograms", "call back",
};
enum { USE_INNER, USE_PAIRS, WRITE, READ_BYTES, STAMP, LENGTH, SEGMENTS, NETWORK_OFFSET, COUNT_IN_TABLE,
       COUNT_IN_VARIABLE, JOIN, ITERATE, CALL_SUBPROGRAM, CALL_BACK, DOINGS };
static bool does[DOINGS];	/* the program, somewhere */

/* Functions of the program beside the main one, which follow it. They have the context; and a
 * packet, if the caller owns one and gives it, or no way to another one while the caller keeps it.
 */
#define SUBPROGRAMS	3
static struct subprogram {
	int call;			/* where the caller names it */
	bool callback, owns, same, classified;
} subprograms[SUBPROGRAMS];
static int subprogram_count, starts[SUBPROGRAMS];
static bool within;			/* one of them */
static bool keeps;			/* the caller does */
static bool calls[KFUNCS], treats[PACKET_KINDS][KFUNCS];	/* the latter if it has no mistakes */
static unsigned int slips;	/* one chance in so many is a mistake, if only for a while; 0: none */
static bool mistaken;		/* there is one that must be noticed */
static int on_device;
static int btf_fd;		/* what describes the program's functions: */
static uint32_t function_type;

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
	int which = (int)dice(inner ? KINDS + 1 : KINDS);

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

/* Something that is written on a packet */
static void look_at(int skb)
{
	int which = (int)dice(FIELDS);

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

/* One that there is, as a rule */
static int32_t class_of_ours(void)
{
	return HANDLE + (dice(4) ? 1 : 2);
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
	} else if (way == DROP || way == PASS) {
		set(R3, way == DROP ? (int)dice(200) : class_of_ours());
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

static void do_other(void)
{
	int kind = get_other(), null = slip() ? -1 : jump(BPF_JEQ, R0, 0);

	move(OTHER, R0);
	if (kind == CLONED_ONE || dice(2))
		treat(OTHER, kind);
	else if (!dice(3))
		write_to(OTHER);
	if (!slip())
		give(OTHER);
	if (slip())
		give(OTHER);
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
		set(R2, class_of_ours());
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

/* Look at a packet that waits. It is the map's: more is a mistake. */
static void do_look(void)
{
	int which = LEN + (int)dice(6), none, taken;

	map_argument(R1);
	if (which > BYTES)
		key_argument(R2);
	call(which);
	if (which <= BYTES) {
		use_result();
		return;
	}
	none = slip() ? -1 : jump(BPF_JEQ, R0, 0);
	emit(BPF_LDX | BPF_MEM | BPF_DW, OTHER, R0, 0, 0);
	taken = jump(BPF_JEQ, OTHER, 0);
	look_at(OTHER);
	if (!slips && !dice(5)) {
		mistaken = true;
		use(OTHER);
	}
	land(taken);
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
		int no_clone, drop, done;

		ctx_argument(R1);
		skb_argument(R2, OTHER);
		call(CLONE);
		no_clone = jump(BPF_JEQ, R0, 0);
		/* Seldom stored: or for each that leaves another one comes, for ever. */
		move(OTHER, R0);
		treat(OTHER, CLONED_ONE);
		helper(BPF_FUNC_get_prandom_u32);
		drop = jump(BPF_JSET, R0, 15);
		give(OTHER);
		done = emit(BPF_JMP | BPF_JA, 0, 0, 0, 0);
		land(drop);
		skb_argument(R1, OTHER);
		ctx_argument(R2);
		set(R3, 0);
		call(DROP);
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

/* A map of numbers; that of packets is nothing for these functions. */
static void do_numbers(void)
{
	int which = NUMBER_PUSH + (int)dice(5), key = R2;

	if (!slips && !dice(8)) {
		mistaken = true;
		map_argument(R1);
	} else {
		load_map(R1, slip() ? wrong_maps[0] : wrong_maps[1]);
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

static void do_variable(void)
{
	emit(BPF_LD | BPF_IMM | BPF_DW, R0, BPF_PSEUDO_MAP_VALUE, 0, variables);
	emit(0, 0, 0, 0, slip() ? (int)dice(16) : 0);
	count();
	does[COUNT_IN_VARIABLE] = true;
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
	*sub = (struct subprogram){ .callback = dice(2), .same = same, .classified = classified };
	subprogram_count++;
	if (sub->callback) {
		emit(BPF_STX | BPF_MEM | BPF_DW, FP, CTX, CONTEXT, 0);
		sub->call = emit(BPF_LD | BPF_IMM | BPF_DW, R2, BPF_PSEUDO_FUNC, 0, 0);
		emit(0, 0, 0, 0, 0);
		/* Not 0: the verifier looks at no callback that is never called, removes it as dead
		 * code, and finds its address without it ("No program to jit").
		 */
		set(R1, 1 + (int)dice(6));
		move(R3, FP);
		emit(BPF_ALU64 | BPF_ADD | BPF_K, R3, 0, 0, slip() ? KEY : CONTEXT);
		set(R4, slip());
		helper(BPF_FUNC_loop);
		does[CALL_BACK] = true;
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
		switch (dice(26)) {
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

/* A map of the device's array of maps; where there is none, the program ends. */
static void look_up_inner(void)
{
	int found;

	emit(BPF_ST | BPF_MEM | BPF_W, FP, 0, KEY, (int)dice(slip() ? 5 : 2));
	load_map(R1, arrays[on_device]);
	key_argument(R2);
	helper(BPF_FUNC_map_lookup_elem);
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
	starts[sub - subprograms] = length;
	insns[sub->call].imm = length - sub->call - 1;
	within = true;
	inner = false;
	owns = sub->owns;
	same = sub->same;
	classified = sub->classified;
	keeps = !sub->owns;
	if (sub->callback) {
		emit(BPF_LDX | BPF_MEM | BPF_DW, CTX, R2, 0, 0);
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

static void generate(void)
{
	length = 0;
	owns = enqueue;
	same = true;
	inner = false;
	classified = false;
	mistaken = false;
	within = keeps = false;
	subprogram_count = 0;
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
	for (int i = 0; i < subprogram_count; i++)
		subprogram(&subprograms[i]);
	/* A bit that is wrong */
	if (slip()) {
		uint64_t *bits = (uint64_t *)&insns[dice((unsigned int)length)];

		*bits ^= 1ULL << dice(64);
	}
}

static int load_program(unsigned int flags)
{
	struct bpf_func_info functions[1 + SUBPROGRAMS] = { { .type_id = function_type } };
	LIBBPF_OPTS(bpf_prog_load_opts, opts, .prog_flags = flags, .prog_btf_fd = (uint32_t)btf_fd,
		    .func_info = functions, .func_info_cnt = 1 + (uint32_t)subprogram_count,
		    .func_info_rec_size = sizeof(functions[0]),
		    .expected_attach_type = enqueue ? BPF_QDISC_ENQUEUE : BPF_QDISC_DEQUEUE);

	for (int i = 0; i < subprogram_count; i++)
		functions[1 + i] = (struct bpf_func_info){ (uint32_t)starts[i], function_type };
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
	expect_equal(give_programs(device, bpf_qdisc_attach, bpf_program__fd(skel->progs.plain_enqueue),
				   bpf_program__fd(skel->progs.plain_dequeue), 0), 0);
	if (!device->mq) {
		begin(RTM_NEWTCLASS, NLM_F_ACK | NLM_F_CREATE, device->ifindex, HANDLE, HANDLE + 1);
		attribute(TCA_KIND, "bpf", 4);
		expect_equal(talk(), 0);
	}
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
static uint64_t stuck, stolen, all_cloned, all_cut, all_dropped, all_sent, all_packets;

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
	/* Paths are then compared at each instruction: that must not change the verdict */
	pruned = load_program(BPF_F_TEST_STATE_FREQ);
	if ((fd < 0) != (pruned < 0)) {
		printf("# loading: %d, and %d with paths compared at each instruction\n", fd, pruned);
		print_program(seed);
		return false;
	}
	if (pruned >= 0)
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
	}
	wrong_maps[0] = map("hash");
	wrong_maps[1] = map("numbers");
	variables = bpf_map__fd(skel->maps.data_stats);
	table = map("table");
	for (int64_t key = -1; key < 4; key++) {
		if (bpf_map_update_elem(table, &key, &(uint64_t){ 0 }, BPF_ANY))
			err(1, "table");
	}
	describe_functions();

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
	for (int i = 0; i < DEVICES; i++)
		expect(end_life(&devices[i]));
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
	printf("# %llu packets dropped as they came, %llu lost; %u times a sender was told; %lld numbers are left\n",
	       (unsigned long long)events.dropped, (unsigned long long)events.lost, told, (long long)events.numbers);
	printf("# %llu times a tx queue was chosen, %llu times not, below mq\n",
	       (unsigned long long)events.chosen, (unsigned long long)events.not_chosen);
	expect(events.chosen && events.not_chosen);
	for (int64_t key = -1; key < 4; key++) {
		uint64_t value = 0;

		bpf_map_lookup_elem(table, &key, &value);
		in_table += value;
	}
	printf("# %llu times something was counted in the table, %llu times in the variable\n",
	       (unsigned long long)in_table, (unsigned long long)skel->data_stats->counted);
	expect(in_table && skel->data_stats->counted);
	expect(events.found > all_packets / 1000 && events.passed && events.held);
	expect(events.dropped > all_packets / 100 && events.lost > all_packets / 100 && told > all_packets / 100);
	expect_equal(events.numbers, run("numbers_len"));
	return true;
}

int main(void)
{
	/* Under KASAN a program takes several times as long. */
	unsigned int count = setting("PROGRAMS", setting("SELFTESTS_DEBUG", 0) ? 2000 : 10000);
	unsigned int first = setting("SEED", 1);
	unsigned int accepted[2] = {};

	setvbuf(stdout, NULL, _IOLBF, 0);
	printf("1..3\n# seed %u, %u programs\n", first, count);
	skel = prog_fuzz__open_and_load();
	if (!skel || prog_fuzz__attach(skel))
		err(1, "programs");
	set_up();
	result(all_programs(first, count, accepted), "the books balance");
	result(both(accepted, count), "programs accepted and refused");
	result(much_happened(), "packets took every way");
	return failed ? 1 : 0;
}
