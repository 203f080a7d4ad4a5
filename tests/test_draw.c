// The server's own drawing against a plain one that sorts everything and sums in double, and against the engine's.
#include "server/draw.h"

#include "t.h"

enum { N = 700 };

static int by_rank(const void *a, const void *b) {
    const draw_ranked *x = a, *y = b;
    return x->w != y->w ? (x->w > y->w ? -1 : 1) : (x->id < y->id ? -1 : 1);
}

// Probability of each token after the filters, in the order of their ranks; returns how many are left.
static uint32_t plain(const float *logits, const pith_sampling *how, draw_ranked *ranked, double *p) {
    for (uint32_t i = 0; i < N; i++) ranked[i] = (draw_ranked){logits[i], i};
    const bool filters = how->top_k > 0 || how->top_p < 1 || how->min_p > 0; // else draws go by the order of ids
    if (filters) qsort(ranked, N, sizeof *ranked, by_rank);
    uint32_t most = how->top_k > 0 && how->top_k < N ? how->top_k : N, kept = 0;
    double total = 0, sum = 0, max = -INFINITY;
    for (uint32_t i = 0; i < N; i++) max = fmax(max, (double)logits[i]);
    for (uint32_t i = 0; i < most; i++) total += p[i] = exp(((double)ranked[i].w - max) / (double)how->temperature);
    const double wanted = how->top_p < 1 ? (double)how->top_p * total : INFINITY;
    for (; kept < most && sum < wanted; kept++) sum += p[kept];
    while (kept > 1 && p[kept - 1] < (double)how->min_p) sum -= p[--kept];
    for (uint32_t i = 0; i < kept; i++) p[i] /= sum;
    return kept;
}

static void draws(void **state) {
    (void)state;
    static const pith_sampling hows[] = {
        {.temperature = 1, .top_p = 1},
        {.temperature = 0.6f, .top_p = 0.95f},
        {.temperature = 2, .top_p = 0.9999f},
        {.temperature = 0.1f, .top_p = 1, .min_p = 0.05f},
        {.temperature = 1, .top_p = 0.5f, .top_k = 40},
        {.temperature = 0.05f, .top_p = 1, .top_k = 600}, // reaches below what is sorted first
        {.temperature = 100, .top_p = 1e-6f},
    };
    t_rng rng = 3;
    static float logits[N];
    static double p[N];
    static draw_ranked ranked[N], scratch[N];
    t_bound bound = {.what = "distance of a draw's edge, where the two differ"};
    for (size_t h = 0; h < T_COUNT(hows); h++) {
        for (size_t round = 0; round < 200; round++) {
            t_fill(&rng, logits, N, t_nasty);
            if (round % 4 == 0) logits[5] = logits[500]; // ties
            const uint32_t kept = plain(logits, &hows[h], ranked, p);
            const double uniform = (double)(t_u64(&rng) >> 11) * 0x1p-53;
            const pith_token got = draw_token(logits, N, &hows[h], uniform, scratch);
            double sum = 0;
            uint32_t i = 0;
            while (i + 1 < kept && (sum += p[i]) <= uniform) i++;
            if (got == (pith_token)ranked[i].id) continue;
            // Weights are f32: a draw at the very edge between two tokens may fall to either side.
            const bool beside =
                (i > 0 && got == (pith_token)ranked[i - 1].id) || (i + 1 < N && got == (pith_token)ranked[i + 1].id);
            if (!beside) fail_msg("rule %zu: drew %d, expected %u", h, (int)got, ranked[i].id);
            t_within(&bound, fmin(fabs(sum - uniform), fabs(sum - p[i] - uniform)), 0, N * 0x1p-23);
        }
    }
    t_report(&bound);
}

static void greedy(void **state) {
    (void)state;
    const float logits[] = {1, 3, NAN, 3, -INFINITY}, nothing[] = {-INFINITY, -INFINITY};
    draw_ranked scratch[5];
    const pith_sampling how = {.temperature = 0, .top_p = 1};
    assert_int_equal(draw_token(logits, 5, &how, 0.9, scratch), 1);
    assert_int_equal(draw_token(nothing, 2, &how, 0.9, scratch), 0);
}

static void tops(void **state) {
    (void)state;
    t_rng rng = 5;
    static float logits[N];
    static draw_ranked ranked[N];
    static double p[N];
    const pith_sampling all = {.temperature = 1, .top_p = 1, .top_k = N};
    t_fill(&rng, logits, N, t_nasty);
    logits[9] = logits[600] = 99;
    plain(logits, &all, ranked, p);
    for (uint32_t k = 0; k <= 20; k++) {
        draw_ranked got[20];
        assert_int_equal(draw_tops(logits, N, k, got), k);
        for (uint32_t i = 0; i < k; i++) assert_int_equal(got[i].id, ranked[i].id);
    }
    draw_ranked few[20];
    assert_int_equal(draw_tops(logits, 3, 20, few), 3);
}

static void log_total(void **state) {
    (void)state;
    const float logits[] = {0, 0, 0, 0}, far[] = {1000, 1000, -1000};
    assert_true(fabs(draw_log_total(logits, 4) - log(4)) < 1e-15);
    assert_true(fabs(draw_log_total(far, 3) - (1000 + log(2))) < 1e-12);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(draws), cmocka_unit_test(greedy), cmocka_unit_test(tops),
                                       cmocka_unit_test(log_total)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
