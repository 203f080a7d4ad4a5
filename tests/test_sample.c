// Drawing tokens: pith_sample against a full sort in double precision, and its frequencies.
#include "t.h"

#include "base/rng.h"
#include "cpu/sample.h"

enum { MAX_VOCAB = 32000 };

static int32_t sample(const float *logits, uint32_t n, const pith_draw *draw) {
    static _Alignas(64) uint8_t scratch[MAX_VOCAB * 16];
    static const pith_cpu_kernels *kernels;
    if (!kernels) kernels = pith_cpu_kernels_choose(getenv("PITH_DISABLE_CPU"));
    assert_true(pith_sample_scratch(n) <= sizeof scratch);
    return pith_sample(kernels, logits, n, draw, scratch);
}

// ------------------------------------------------------------------------------------------------- the oracle

// Tokens from the likeliest to the least likely, of equal ones the lower id first.
typedef struct ranking {
    uint32_t n;
    uint32_t id[MAX_VOCAB];
    double w[MAX_VOCAB]; // weights, the likeliest has 1
} ranking;

static const float *sort_by;
static int by_logit(const void *pa, const void *pb) {
    const uint32_t a = *(const uint32_t *)pa, b = *(const uint32_t *)pb;
    if (sort_by[a] != sort_by[b]) return sort_by[a] > sort_by[b] ? -1 : 1;
    return a < b ? -1 : 1;
}

static void rank(ranking *r, const float *logits, uint32_t n, float temperature) {
    r->n = n;
    for (uint32_t i = 0; i < n; i++) r->id[i] = i;
    sort_by = logits;
    qsort(r->id, n, sizeof *r->id, by_logit);
    for (uint32_t i = 0; i < n; i++)
        r->w[i] = exp(((double)logits[r->id[i]] - (double)logits[r->id[0]]) / (double)temperature);
}

// How many of the ranking survive top-k, then top-p of what is left, then min-p relative to the likeliest, in the order
// and with the meaning of transformers (where a token stays while those before it hold less than top-p).
static uint32_t survivors(const ranking *r, uint32_t top_k, double top_p, double min_p) {
    uint32_t n = top_k > 0 && top_k < r->n ? top_k : r->n;
    double total = 0, before = 0;
    for (uint32_t i = 0; i < n; i++) total += r->w[i];
    if (top_p < 1)
        for (uint32_t i = 0; i < n; before += r->w[i++])
            if (before >= top_p * total) n = i;
    while (n > 1 && r->w[n - 1] < min_p) n--;
    return n;
}

// Is `id` the token in whose share of the survivors' weight u lies? In the order of the ranking, or of ids when nothing
// is filtered. `slack` of the total weight to either side is for the rounding of f32.
static bool is_drawn(const ranking *r, uint32_t n, bool by_rank, double u, double slack, int32_t id) {
    double total = 0, before = 0, own = 0;
    for (uint32_t i = 0; i < n; i++) total += r->w[i];
    for (uint32_t i = 0; i < n; i++) {
        if (r->id[i] == (uint32_t)id) {
            own = r->w[i];
            if (by_rank) break;
        } else if (by_rank || r->id[i] < (uint32_t)id) {
            before += r->w[i];
        }
    }
    return own > 0 && u * total >= before - slack * total && u * total < before + own + slack * total;
}

// Also where the threshold of a filter is so near to a token's edge that f32 may see it on the other side.
static bool is_right(const ranking *r, const pith_draw *d, int32_t id) {
    const double slack = 2e-6; // total weights are sums of up to 32000 numbers in f32
    const bool by_rank = (d->top_k > 0 && d->top_k < r->n) || d->top_p < 1 || d->min_p > 0;
    static const double shifts[] = {0, -1, 1};
    for (size_t p = 0; p < (d->top_p < 1 ? 3 : 1); p++)
        for (size_t m = 0; m < (d->min_p > 0 ? 3 : 1); m++) {
            const uint32_t n = survivors(r, d->top_k, (double)d->top_p + shifts[p] * slack,
                                         (double)d->min_p * (1 + shifts[m] * slack));
            if (is_drawn(r, n, by_rank, d->uniform, slack, id)) return true;
        }
    return false;
}

// ------------------------------------------------------------------------------------------- kinds of logits

// Multiples of 1/64, so that different logits have different weights in f32 too.
static float on_grid(double x) { return (float)(rint(x * 64) / 64); }

typedef enum kind { ONE_HOT, UNIFORM, TIES, FORBIDDEN, GAUSSIAN, PEAKED, FLAT, N_KINDS } kind;
static const char *const kind_names[] = {"one hot", "uniform", "ties", "forbidden", "gaussian", "peaked", "flat"};

static void make(kind what, t_rng *rng, float *x, uint32_t n) {
    const uint32_t favourite = t_below(rng, n);
    for (uint32_t i = 0; i < n; i++) {
        const double g = (double)(t_unit(rng) + t_unit(rng) + t_unit(rng) + t_unit(rng));
        switch (what) {
        case ONE_HOT: x[i] = i == favourite ? 0 : -INFINITY; break;
        case UNIFORM: x[i] = 3; break;
        case TIES: x[i] = (float)t_below(rng, 3); break;
        case FORBIDDEN: x[i] = t_below(rng, 4) || i == favourite ? on_grid(2 * g) : -INFINITY; break;
        case GAUSSIAN: x[i] = on_grid(3 * g); break;
        case PEAKED: x[i] = on_grid(3 * g) + (i == favourite ? 15 : -20); break;
        case FLAT: x[i] = on_grid(g / 4); break;
        case N_KINDS: fail();
        }
    }
}

// ----------------------------------------------------------------------------------------------------- tests

static void against_a_full_sort(void **state) {
    (void)state;
    static const uint32_t sizes[] = {1, 2, 17, 320, MAX_VOCAB}, draws[] = {40, 40, 60, 60, 24};
    static const uint32_t top_k[] = {0, 1, 2, 5, 40, 1000, UINT32_MAX};
    static const float top_p[] = {1, 0.95f, 0.5f, 0.999f, 1e-6f}, min_p[] = {0, 0.05f, 1e-4f, 1},
                       temperature[] = {0.6f, 1, 0.25f, 4};
    static float x[MAX_VOCAB];
    static ranking r;
    t_rng rng = 7;
    uint32_t n_draws = 0;
    for (size_t s = 0; s < T_COUNT(sizes); s++)
        for (kind what = 0; what < N_KINDS; what++)
            for (size_t t = 0; t < T_COUNT(temperature); t++) {
                make(what, &rng, x, sizes[s]);
                rank(&r, x, sizes[s], temperature[t]);
                for (uint32_t i = 0; i < draws[s]; i++) {
                    const pith_draw d = {.temperature = temperature[t],
                                         .top_k = i % 2 ? 0 : top_k[t_below(&rng, T_COUNT(top_k))],
                                         .top_p = i % 5 ? top_p[t_below(&rng, T_COUNT(top_p))] : 1,
                                         .min_p = i % 3 ? 0 : min_p[t_below(&rng, T_COUNT(min_p))],
                                         .uniform = i == 0   ? 0
                                                    : i == 1 ? 1 - 0x1p-53
                                                             : pith_uniform(3, s * 100 + (uint32_t)what, t * 1000 + i)};
                    const int32_t id = sample(x, sizes[s], &d);
                    if (id < 0 || (uint32_t)id >= sizes[s] || !is_right(&r, &d, id))
                        fail_msg("%s, %u tokens: T %g, k %u, p %g, min %g, u %.17g: drew %d", kind_names[what],
                                 sizes[s], (double)d.temperature, d.top_k, (double)d.top_p, (double)d.min_p, d.uniform, (int)id);
                    n_draws++;
                }
            }
    print_message("%u draws\n", n_draws);
}

// Eight tokens, of which 1, 2, 4 and 7 are equally likely and the others impossible: every weight and sum is exact.
static void by_hand(void **state) {
    (void)state;
    static const float x[8] = {-INFINITY, 3, 3, -INFINITY, 3, -INFINITY, -INFINITY, 3};
    static const struct {
        pith_draw draw;
        int32_t want;
    } cases[] = {
        {{.temperature = 1, .top_p = 1, .uniform = 0.2499}, 1},
        {{.temperature = 1, .top_p = 1, .uniform = 0.25}, 2}, // a share begins with its lower edge
        {{.temperature = 1, .top_p = 1, .uniform = 0.9999}, 7},
        {{.temperature = 1, .top_p = 0.5f, .uniform = 0.4999}, 1}, // two hold a half: no third
        {{.temperature = 1, .top_p = 0.5f, .uniform = 0.9999}, 2},
        {{.temperature = 1, .top_p = 0.501f, .uniform = 0.9999}, 4},
        {{.temperature = 1, .top_p = 1, .top_k = 3, .uniform = 0.9999}, 4}, // of equals the lower ids stay
        {{.temperature = 1, .top_p = 1, .top_k = 2, .uniform = 0.5}, 2},
        {{.temperature = 1, .top_p = 0.5f, .top_k = 2, .uniform = 0.9999}, 1}, // a half of the two
        {{.temperature = 1, .top_p = 1, .top_k = 6, .uniform = 0.9999}, 7}, // two of the six are impossible
        {{.temperature = 1, .top_p = 1, .min_p = 1, .uniform = 0.9999}, 7}, // as likely as the likeliest: all four
    };
    for (size_t i = 0; i < T_COUNT(cases); i++) assert_int_equal(sample(x, 8, &cases[i].draw), cases[i].want);
}

static void greedy_takes_the_lowest_of_equals(void **state) {
    (void)state;
    static float x[1000];
    t_rng rng = 9;
    const pith_draw greedy = {.temperature = 0, .top_p = 1};
    for (uint32_t round = 0; round < 2000; round++) {
        const uint32_t n = t_between(&rng, 1, 100);
        for (uint32_t i = 0; i < n; i++) x[i] = (float)((int32_t)t_below(&rng, 8) - 9); // all below 0
        uint32_t want = 0;
        for (uint32_t i = 1; i < n; i++)
            if (x[i] > x[want]) want = i;
        assert_int_equal(sample(x, n, &greedy), want);
        const pith_draw only = {.temperature = 0.6f, .top_k = 1, .top_p = 1, .uniform = 0.999};
        assert_int_equal(sample(x, n, &only), want); // top-1 is the same
        const pith_draw tiny = {.temperature = 1e-40f, .top_p = 0.9f, .uniform = 0}; // 1/temperature overflows
        assert_int_equal(sample(x, n, &tiny), want);
    }
    for (uint32_t i = 0; i < 50; i++) x[i] = -INFINITY;
    assert_int_equal(sample(x, 50, &greedy), 0);
    const pith_draw warm = {.temperature = 1, .top_p = 1, .uniform = 0.5};
    assert_int_equal(sample(x, 50, &warm), 0); // nothing is possible: still a token
    x[7] = INFINITY;
    assert_int_equal(sample(x, 50, &warm), 7);
}

// What the draws of a stream add up to. Pearson's chi-squared over k classes has mean k - 1 and variance 2 (k - 1).
static void check_frequencies(const double *share, const uint32_t *count, uint32_t n, uint32_t n_draws) {
    double chi2 = 0;
    uint32_t classes = 0; // more than one, or there would be nothing to check
    for (uint32_t i = 0; i < n; i++) {
        if (share[i] == 0) assert_int_equal(count[i], 0);
        if (share[i] == 0) continue;
        const double expected = share[i] * n_draws;
        chi2 += ((double)count[i] - expected) * ((double)count[i] - expected) / expected;
        classes++;
    }
    assert_true(classes > 1);
    const double sigma = (chi2 - (classes - 1)) / sqrt(2.0 * (classes - 1));
    print_message("%u classes, %u draws: chi-squared %.1f, %.1f standard deviations from its mean\n", classes, n_draws,
                  chi2, sigma);
    assert_true(fabs(sigma) < 4);
}

static void frequencies(void **state) {
    (void)state;
    enum { N = 24, DRAWS = 100000 };
    static const pith_draw draws[] = {
        {.temperature = 1, .top_p = 1},
        {.temperature = 0.6f, .top_p = 0.95f},
        {.temperature = 2, .top_p = 1, .top_k = 9},
        {.temperature = 1, .top_p = 1, .min_p = 0.1f},
        {.temperature = 1.5f, .top_p = 0.8f, .top_k = 20, .min_p = 0.05f},
    };
    static ranking r;
    float x[N];
    t_rng rng = 31;
    for (uint32_t i = 0; i < N; i++) x[i] = 2 * t_unit(&rng);
    for (size_t k = 0; k < T_COUNT(draws); k++) {
        uint32_t count[N] = {0};
        double share[N] = {0}, total = 0;
        rank(&r, x, N, draws[k].temperature);
        const uint32_t n = survivors(&r, draws[k].top_k, (double)draws[k].top_p, (double)draws[k].min_p);
        for (uint32_t i = 0; i < n; i++) total += r.w[i];
        for (uint32_t i = 0; i < n; i++) share[r.id[i]] = r.w[i] / total;
        for (uint32_t i = 0; i < DRAWS; i++) {
            pith_draw d = draws[k];
            d.uniform = pith_uniform(11, k, i);
            count[sample(x, N, &d)]++;
        }
        check_frequencies(share, count, N, DRAWS);
    }
}

// Neighbouring keys share nothing: the numbers of two streams, and of one stream one step apart, do not correlate.
static void keys_are_independent(void **state) {
    (void)state;
    enum { N = 100000 };
    double stream = 0, next = 0, seed = 0, mean = 0;
    for (uint64_t i = 0; i < N; i++) {
        const double u = pith_uniform(1, 0, i) - 0.5;
        assert_true(u >= -0.5 && u < 0.5);
        mean += u;
        stream += u * (pith_uniform(1, 1, i) - 0.5);
        next += u * (pith_uniform(1, 0, i + 1) - 0.5);
        seed += u * (pith_uniform(2, 0, i) - 0.5);
    }
    const double deviation = sqrt(N) / 12; // of a sum of N products of two uniforms of variance 1/12
    assert_true(fabs(mean) < 4 * sqrt(N / 12.0));
    assert_true(fabs(stream) < 4 * deviation && fabs(next) < 4 * deviation && fabs(seed) < 4 * deviation);
    assert_true(pith_uniform(5, 6, 7) == pith_uniform(5, 6, 7));
    assert_true(pith_uniform(5, 6, 7) != pith_uniform(5, 7, 6) && pith_uniform(5, 6, 7) != pith_uniform(6, 5, 7));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(by_hand),
        cmocka_unit_test(against_a_full_sort),
        cmocka_unit_test(greedy_takes_the_lowest_of_equals),
        cmocka_unit_test(frequencies),
        cmocka_unit_test(keys_are_independent),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
