// SPDX-License-Identifier: GPL-2.0
/* aqm: the building blocks with numbers that a test chooses, or with those that are likely to
 * overflow something.
 */
#include "../../policies/policy.h"

struct numbers {		/* what a packet begins with */
	__u64 a, b, c, d;
};

static __u64 result;

static bool read_numbers(struct __sk_buff *skb, struct numbers *n)
{
	return !bpf_skb_load_bytes(skb, 0, n, sizeof(*n));
}

SEC("tc")
int tx_time(struct __sk_buff *skb)
{
	struct numbers n;

	if (read_numbers(skb, &n))
		result = bpf_qdisc_tx_time(n.a, n.b);
	return 0;
}

/* How long after the drop of a number, with an interval, is the next one? */
SEC("tc")
int codel_spacing(struct __sk_buff *skb)
{
	struct bpf_codel codel = { .first_above = 1, .drop_next = 1, .dropping = true };
	struct bpf_codel_params params = {};
	struct numbers n;

	if (!read_numbers(skb, &n))
		return 0;
	codel.count = n.a - 1;
	params.interval = n.b;
	bpf_codel_dequeue(&codel, &params, 2, 1, 1);
	result = codel.drop_next - 1;
	return 0;
}

/* The probability after so many updates with a delay, from one on */
SEC("tc")
int pie_probability(struct __sk_buff *skb)
{
	struct bpf_pie_params params = { .target = 15 * NSEC_PER_MSEC, .tupdate = 1, .alpha = 2,
					 .beta = 20 };
	struct numbers n;
	struct bpf_pie pie = {};
	int i;

	if (!read_numbers(skb, &n))
		return 0;
	pie.prob = n.a;
	pie.delay_old = n.b;
	pie.next = 1;
	bpf_for(i, 0, n.d) {
		pie.delay = n.c;
		bpf_pie_enqueue(&pie, &params, i + 1, 0);
	}
	result = pie.prob;
	return 0;
}

/* An average after so long without packets, which take 1000 ns */
SEC("tc")
int red_decay(struct __sk_buff *skb)
{
	struct bpf_red_params params = { .packet_time = 1000 };
	struct bpf_red red = { .idle = 1 };
	struct numbers n;

	if (!read_numbers(skb, &n))
		return 0;
	red.avg = n.a;
	params.weight_log = n.b;
	bpf_red_enqueue(&red, &params, 1 + n.c, 0);
	result = red.avg;
	return 0;
}

static __u64 extreme(__u32 *digits)
{
	static const __u64 values[] = { 0, 1, 1000, 1ULL << 31, 1ULL << 32, 1ULL << 63, ~0ULL };
	__u32 digit = *digits % 7;

	*digits /= 7;
	return values[digit];
}

static bool codel_holds(__u32 digits)
{
	struct bpf_codel_params params = { extreme(&digits), extreme(&digits), extreme(&digits) };
	struct bpf_codel codel = { 1, extreme(&digits), extreme(&digits), 1, digits & 1 };
	__u64 now = extreme(&digits), before = codel.dropping ? codel.drop_next : now;

	return bpf_codel_dequeue(&codel, &params, now, extreme(&digits), ~0U) == BPF_AQM_DELIVER ||
	       (codel.drop_next >= before && codel.count);
}

static bool pie_holds(__u32 digits)
{
	struct bpf_pie_params params = { extreme(&digits), extreme(&digits), 0, extreme(&digits),
					 extreme(&digits), 0 };
	struct bpf_pie pie = { .prob = digits & 1 ? BPF_PIE_ONE : 0, .delay = extreme(&digits) };
	__u64 now = extreme(&digits);

	pie.delay_old = extreme(&digits);
	bpf_pie_enqueue(&pie, &params, now, ~0U);
	return pie.prob <= BPF_PIE_ONE && pie.accu_prob <= BPF_PIE_ONE * 10 &&
	       (pie.next > now || now == ~0ULL);
}

static bool red_holds(__u32 digits)
{
	struct bpf_red_params params = { extreme(&digits), extreme(&digits), extreme(&digits),
					 extreme(&digits) % 25, false, extreme(&digits) };
	struct bpf_red red = { .avg = (extreme(&digits) & 0xffffffff) << 24, .count = ~0U };
	__u64 before = red.avg, bytes = (extreme(&digits) & 0xffffffff) << 24;

	red.idle = extreme(&digits);
	bpf_red_enqueue(&red, &params, ~0ULL, bytes >> 24);
	return red.avg <= (before > bytes ? before : bytes);
}

static bool tbf_holds(__u32 digits)
{
	struct bpf_tbf tbf = { extreme(&digits) };
	__u64 before = tbf.empty, rate = extreme(&digits), burst = extreme(&digits);
	__u64 now = extreme(&digits);

	return bpf_tbf_reserve(&tbf, rate, burst, now, extreme(&digits) | 1) >= now &&
	       tbf.empty >= before;
}

static bool drr_holds(__u32 digits)
{
	struct bpf_drr_flow flow = { .round = extreme(&digits) / 2 };
	__u64 before = flow.round, round = extreme(&digits) / 2;
	__u32 quantum = extreme(&digits) | 1;
	__u64 its = bpf_drr_round(&flow, round, quantum, extreme(&digits), extreme(&digits));

	return its >= before && its + 1 >= round && flow.round >= its && flow.used < quantum;
}

/* Whether what must hold does for one of a hundred combinations of numbers: a bit for each block */
SEC("tc")
int extremes(struct __sk_buff *skb)
{
	__u32 n, i;

	result = 0;
	bpf_for(n, 0, 57648) {		/* of 7^8 */
		i = n * 101;
		result |= !codel_holds(i) | !pie_holds(i) << 1 | !red_holds(i) << 2 |
			  !tbf_holds(i) << 3 | !drr_holds(i) << 4;
	}
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
