// SPDX-License-Identifier: GPL-2.0
/* The building blocks of <bpf/bpf_qdisc_aqm.h>, for aqm_blocks to call here: with numbers that
 * it chooses, and with all combinations of those that are likely to overflow something.
 */
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <linux/types.h>

#define NSEC_PER_MSEC		1000000ULL
#define NSEC_PER_SEC		1000000000ULL
#define barrier_var(var)	asm volatile("" : "+r"(var))
#define bpf_for(i, first, end)	for (i = (first); i < (end); i++)

struct sch_bpf_ctx;
struct sk_buff;

static bool bpf_qdisc_ecn_mark(struct sch_bpf_ctx *ctx, struct sk_buff *skb)
{
	return ctx || skb;
}

static __u32 bpf_get_prandom_u32(void)
{
	return random();
}

#include "../../tools/lib/bpf/bpf_qdisc_aqm.h"

__u64 tx_time(__u32 len, __u64 rate)
{
	return bpf_qdisc_tx_time(len, rate);
}

__u64 tx_time_most(__u32 len, __u64 rate, __u64 most)
{
	return bpf_qdisc_tx_time_most(len, rate, most);
}

__u64 time_sub(__u64 time, __u64 duration)
{
	return bpf_qdisc_time_sub(time, duration);
}

/* How long after the drop of a number is the next one? */
__u64 codel_spacing(__u64 interval, __u32 number)
{
	struct bpf_codel codel = { .first_above = 1, .drop_next = 1, .count = number - 1,
				   .dropping = true };
	struct bpf_codel_params params = { .interval = interval };

	bpf_codel_dequeue(&codel, &params, 2, 1, 1);
	return codel.drop_next - 1;
}

/* How many packets does a run drop that is behind by so many intervals, before it delivers one?
 * The next drop must then be ahead of it.
 */
__u32 codel_drops(__u64 interval, __u64 behind)
{
	__u64 now = 2 + interval * behind;
	struct bpf_codel codel = { .first_above = 1, .drop_next = 1, .count = 1, .dropping = true };
	struct bpf_codel_params params = { .interval = interval };
	__u32 drops = 0;

	while (bpf_codel_dequeue(&codel, &params, now, 1, 1) != BPF_AQM_DELIVER)
		drops++;
	return codel.drop_next > now ? drops : ~0U;
}

/* The probability after up to 256 updates with a delay, from one on */
__u64 pie_probability(__u64 prob, __u64 old, __u64 delay, __u64 updates)
{
	struct bpf_pie_params params = { .target = 15 * NSEC_PER_MSEC, .tupdate = 1, .alpha = 2,
					 .beta = 20 };
	struct bpf_pie pie = { .prob = prob, .delay = delay, .delay_old = old, .next = 1 };

	bpf_pie_enqueue(&pie, &params, updates, 0);
	return pie.prob;
}

/* An average after so many packets that have found the queue empty */
__u64 red_decay(__u64 avg, __u8 weight_log, __u64 packets)
{
	struct bpf_red_params params = { .packet_time = 1000, .weight_log = weight_log };
	struct bpf_red red = { .avg = avg, .idle = 1 };

	bpf_red_enqueue(&red, &params, 1 + 1000 * packets, 0);
	return red.avg;
}

static __u64 extreme(__u32 *digits)
{
	static const __u64 values[8] = { 0, 1, 1000, 1ULL << 31, ~0U, 1ULL << 32, 1ULL << 63,
					 ~0ULL };
	__u32 digit = *digits & 7;

	*digits >>= 3;
	return values[digit];
}

static bool codel_holds(__u32 n)
{
	struct bpf_codel_params params = { extreme(&n), extreme(&n), extreme(&n), false };
	__u64 now = extreme(&n), enqueued = extreme(&n), before;
	struct bpf_codel codel = { .first_above = 1, .drop_next = extreme(&n),
				   .count = extreme(&n), .lastcount = 1, .dropping = n & 1 };

	before = codel.dropping ? codel.drop_next : now;
	return bpf_codel_dequeue(&codel, &params, now, enqueued, ~0U) == BPF_AQM_DELIVER ||
	       (codel.drop_next >= before && codel.count);
}

static bool pie_holds(__u32 n)
{
	struct bpf_pie_params params = { extreme(&n), extreme(&n), 0, extreme(&n), extreme(&n), 0,
					 false };
	struct bpf_pie pie = { .delay = extreme(&n), .delay_old = extreme(&n) };
	__u64 now = extreme(&n);

	pie.prob = n & 1 ? BPF_PIE_ONE : 0;
	bpf_pie_enqueue(&pie, &params, now, ~0U);
	return pie.prob <= BPF_PIE_ONE && pie.accu_prob <= BPF_PIE_ONE * 10 &&
	       (pie.next > now || now == ~0ULL);
}

static bool red_holds(__u32 n)
{
	struct bpf_red_params params = { extreme(&n), extreme(&n), extreme(&n),
					 extreme(&n) % 25, false, extreme(&n) };
	__u64 before = (extreme(&n) & ~0U) << 24, bytes = (extreme(&n) & ~0U) << 24;
	struct bpf_red red = { .avg = before, .idle = extreme(&n), .count = ~0U };

	bpf_red_enqueue(&red, &params, ~0ULL, bytes >> 24);
	return red.avg <= (before > bytes ? before : bytes);
}

static bool tbf_holds(__u32 n)
{
	__u64 before = extreme(&n), rate = extreme(&n), burst = extreme(&n), now = extreme(&n);
	__u32 len = extreme(&n);
	struct bpf_tbf tbf = { before };
	__u64 when = bpf_tbf_reserve(&tbf, rate, burst, now, len);

	if (!rate)
		return when == now && tbf.empty <= now;
	return when >= now && tbf.empty >= before && (len || when <= (now > before ? now : before));
}

static bool drr_holds(__u32 n)
{
	__u64 before = extreme(&n) / 2, round = extreme(&n) / 2, its;
	struct bpf_drr_flow flow = { .round = before };
	__u32 quantum = extreme(&n) | 1;

	its = bpf_drr_round(&flow, round, quantum, extreme(&n), extreme(&n));
	return its >= before && its + 1 >= round && flow.round >= its && flow.used < quantum;
}

/* What is given back is not more than there is */
static bool link_holds(__u32 n)
{
	__u64 before = extreme(&n), floor = extreme(&n), cost = extreme(&n), more = extreme(&n);
	__u64 link = before, when = bpf_qdisc_link_reserve(&link, floor, cost);

	if (when != (before > floor ? before : floor) || link != when + cost)
		return false;
	before = link;
	bpf_qdisc_link_give_back(&link, more);
	return link == (before > more ? before - more : 0);
}

enum { THREADS = 4, RESERVES = 1000000, COST = 7, GIVEN_BACK = 1000 };

static struct {
	__u64 link;			/* the only thing that is shared */
	pthread_barrier_t begin;
	__u8 had[THREADS][THREADS * RESERVES];
} shared;

static void *reserve(void *had)
{
	int i;

	pthread_barrier_wait(&shared.begin);
	for (i = 0; i < RESERVES; i++)
		((__u8 *)had)[bpf_qdisc_link_reserve(&shared.link, 0, COST) / COST]++;
	return NULL;
}

static void *give_back(void *lost)
{
	int i;

	pthread_barrier_wait(&shared.begin);
	for (i = 0; i < GIVEN_BACK; i++)
		bpf_qdisc_link_give_back(&shared.link, COST);
	return lost;
}

static void on_all_threads(void *(*run)(void *had))
{
	pthread_t threads[THREADS];
	int i;

	pthread_barrier_init(&shared.begin, NULL, THREADS);
	for (i = 0; i < THREADS; i++)
		if (pthread_create(&threads[i], NULL, run, shared.had[i]))
			abort();
	for (i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
}

/* Threads reserve time on one link: how many times did not exactly one of them have? */
__u32 not_had_once(void)
{
	__u32 bad = 0;
	int i, j, times;

	on_all_threads(reserve);
	for (i = 0; i < THREADS * RESERVES; i++) {
		for (times = 0, j = 0; j < THREADS; j++)
			times += shared.had[j][i];
		bad += times != 1;
	}
	return bad + (shared.link != (__u64)COST * THREADS * RESERVES);
}

/* Less than nothing is never left, whoever gives back at a time. */
__u64 left_of_the_link(__u64 before)
{
	shared.link = before;
	on_all_threads(give_back);
	return shared.link;
}

/* With how many combinations of eight numbers does not hold what must? */
__u32 extremes(void)
{
	__u32 n, bad = 0;

	for (n = 0; n < 1U << 24; n++)
		bad += !codel_holds(n) + !pie_holds(n) + !red_holds(n) + !tbf_holds(n) +
		       !drr_holds(n) + !link_holds(n);
	return bad;
}
