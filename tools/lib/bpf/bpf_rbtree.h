/* SPDX-License-Identifier: (LGPL-2.1 OR BSD-2-Clause) */
/*
 * What a program may do with an ordered map (BPF_MAP_TYPE_RBTREE) beside the
 * helpers for all maps; see Documentation/bpf/map_rbtree.rst. Include it after
 * vmlinux.h and <bpf/bpf_helpers.h>. A map argument is the address of such a map,
 * or an inner map that was looked up; key and value arguments are addresses of as
 * many bytes as the map's keys and values have, in memory that helpers take, too. The
 * verifier checks all that.
 *
 * Maps of packets are for queueing policies: see <bpf/bpf_qdisc.h>.
 */
#ifndef __BPF_RBTREE_H
#define __BPF_RBTREE_H

/* Errors that have the same number on every architecture; EDEADLK, ETIMEDOUT and EOPNOTSUPP,
 * which functions return, too, have another one on some.
 */
#ifndef EPERM
#define EPERM		1
#endif
#ifndef ENOENT
#define ENOENT		2
#endif
#ifndef E2BIG
#define E2BIG		7
#endif
#ifndef EAGAIN
#define EAGAIN		11
#endif
#ifndef ENOMEM
#define ENOMEM		12
#endif
#ifndef EBUSY
#define EBUSY		16
#endif

/**
 * bpf_rbtree_map_push() - store a value behind all others with an equal key
 * @map: an ordered map that holds neither packets nor maps
 * @key: the key
 * @value: the value; kptrs of the new element are empty, whatever is here
 *
 * Returns 0; -E2BIG if the map is full; -EPERM if it was created with
 * BPF_F_RDONLY_PROG; -ENOMEM without memory for an element; -EDEADLK or
 * -ETIMEDOUT if its lock could not be had.
 */
extern int bpf_rbtree_map_push(void *map, const void *key, const void *value) __ksym;

/**
 * bpf_rbtree_map_pop() - take the first element out
 * @map: an ordered map that holds neither packets nor maps
 * @key: where to store its key
 * @value: where to store its value; kptrs as zeroes, what they hold is released
 *
 * Returns 0; -ENOENT if the map is empty; -EPERM if it was created with
 * BPF_F_RDONLY_PROG or BPF_F_WRONLY_PROG; -EBUSY if its lock could not be had;
 * -EOPNOTSUPP in an NMI, if values hold objects.
 */
extern int bpf_rbtree_map_pop(void *map, void *key, void *value) __ksym;

/**
 * bpf_rbtree_map_pop_until() - take the first element out, if its key is at most a bound
 * @map: an ordered map that holds neither packets nor maps
 * @bound: the highest key to take
 * @key: where to store the first key, whether its element is taken or not
 * @value: where to store the value, as bpf_rbtree_map_pop() does
 *
 * Returns as bpf_rbtree_map_pop(); -EAGAIN if the first key is above the bound.
 */
extern int bpf_rbtree_map_pop_until(void *map, const void *bound, void *key, void *value) __ksym;

/**
 * bpf_rbtree_map_pop_key() - take the oldest element of one key out
 * @map: an ordered map that holds neither packets nor maps
 * @key: the key
 * @value: where to store the value, as bpf_rbtree_map_pop() does
 *
 * Returns as bpf_rbtree_map_pop(); -ENOENT if there is no element of the key.
 */
extern int bpf_rbtree_map_pop_key(void *map, const void *key, void *value) __ksym;

/**
 * bpf_rbtree_map_move() - give the oldest element of a key another key
 * @map: an ordered map that holds no packets; one of maps, too
 * @from: its key
 * @to: its next key, behind all others of which it comes; may be the same
 *
 * In one step: nobody sees the map without the element, and what it holds stays.
 * Returns 0; -ENOENT if there is no element of the key; -EPERM if the map was
 * created with BPF_F_RDONLY_PROG; -EDEADLK or -ETIMEDOUT if its lock could not be
 * had.
 */
extern int bpf_rbtree_map_move(void *map, const void *from, const void *to) __ksym;

/**
 * bpf_rbtree_map_first() - look at the first element
 * @map: any ordered map
 * @key: where to store its key
 *
 * Returns the value, as bpf_map_lookup_elem() does, or the inner map of a map of
 * maps; NULL if the map is empty or its lock could not be had.
 */
extern void *bpf_rbtree_map_first(void *map, void *key) __ksym;

/**
 * bpf_rbtree_map_lower_bound() - look at the first element from a key on
 * @map: any ordered map
 * @key: the lowest key wanted; set to the one that was found, left as it is if there is none
 *
 * Returns what bpf_rbtree_map_first() does, of the oldest element of the lowest
 * key that is not below the one wanted; NULL if there is none or the map's lock
 * could not be had.
 */
extern void *bpf_rbtree_map_lower_bound(void *map, void *key) __ksym;

/**
 * bpf_rbtree_map_upper_bound() - look at the first element above a key
 * @map: any ordered map
 * @key: the key; set to the one that was found, left as it is if there is none
 *
 * Returns as bpf_rbtree_map_lower_bound(), of the lowest key above the one given.
 */
extern void *bpf_rbtree_map_upper_bound(void *map, void *key) __ksym;

/**
 * bpf_rbtree_map_last() - look at the last element
 * @map: any ordered map
 * @key: where to store its key
 *
 * Returns what bpf_rbtree_map_first() does, of the youngest element of the highest key.
 */
extern void *bpf_rbtree_map_last(void *map, void *key) __ksym;

/**
 * bpf_rbtree_map_len() - how many elements are in a map
 * @map: any ordered map
 */
extern __u32 bpf_rbtree_map_len(void *map) __ksym;

/**
 * bpf_rbtree_map_bytes() - how many bytes the packets in a map have
 * @map: an ordered map of packets
 *
 * Returns bytes as a qdisc's backlog counts them.
 */
extern __u64 bpf_rbtree_map_bytes(void *map) __ksym;

/**
 * bpf_rbtree_map_push_task() - store a task behind all others with an equal key
 * @task: an acquired task; it is given away, whatever is returned
 * @map: an ordered map whose value holds one `struct task_struct __kptr *`
 * @key: the key
 *
 * The rest of the value is zero. Returns as bpf_rbtree_map_push(); unless that is
 * 0 the reference was dropped.
 */
extern int bpf_rbtree_map_push_task(struct task_struct *task, void *map, const void *key) __ksym;

/**
 * bpf_rbtree_map_pop_task() - take the first task out
 * @map: an ordered map whose value holds one `struct task_struct __kptr *`
 * @key: where to store its key
 *
 * Elements without a task are removed on the way, at most 64 in a call.
 *
 * Returns the oldest task of the lowest key, to be given to bpf_task_release();
 * NULL if there is none among those, or the map's lock could not be had.
 */
extern struct task_struct *bpf_rbtree_map_pop_task(void *map, void *key) __ksym;

/**
 * bpf_rbtree_map_push_map() - store a map behind all others with an equal key
 * @map: an ordered map of maps
 * @key: the key
 * @inner: a map like the one that the outer map was created with
 *
 * Returns as bpf_rbtree_map_push(); -ENOENT if nobody has the inner map any more.
 */
extern int bpf_rbtree_map_push_map(void *map, const void *key, void *inner) __ksym;

/**
 * bpf_rbtree_map_pop_map() - take the first inner map out
 * @map: an ordered map of maps
 * @key: where to store its key
 *
 * The program can use the map until it returns. It can push the map again if
 * somebody else has it, too: an inner map that nobody but this outer map had is
 * about to go away, and pushing it can fail. bpf_rbtree_map_move() keeps it.
 * Returns NULL if there is none, the outer map was created with BPF_F_RDONLY_PROG, or
 * its lock could not be had.
 */
extern void *bpf_rbtree_map_pop_map(void *map, void *key) __ksym;

#endif /* __BPF_RBTREE_H */
