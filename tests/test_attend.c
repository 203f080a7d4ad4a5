// Attention over pages, and the rows under it: appended, then moved by compaction.
#include "t.h"

#include "base/half.h"
#include "cpu/kernels.h"
#include "ops/ops_ref.h"

enum { MAX_Q = 24, MAX_ROWS = 1300 };

static const pith_cpu_kernels *best(void) { return pith_cpu_kernels_choose(getenv("PITH_DISABLE_CPU")); }

// ------------------------------------------------------------------------------------------------------ lanes

// One lane whose pages lie in a pool in no order, everything filled with NaN, and what its rows hold as dense arrays.
typedef struct test_lane {
    pith_pages pages;
    pith_lane lane;
    t_guarded pool;
    float *k, *v; // (n_rows, d), rounded as in the cache
} test_lane;

static float as_cached(float x, uint32_t elt_bytes) { return elt_bytes == 2 ? pith_f16_to_f32(pith_f32_to_f16(x)) : x; }

static test_lane new_lane(t_rng *rng, uint32_t d, uint32_t elt_bytes, uint32_t n_rows, float (*draw)(t_rng *)) {
    test_lane t = {.pages.geo = {.n_layers = 1, .n_heads = 1, .n_kv_heads = 1, .head_dim = d, .elt_bytes = elt_bytes}};
    const uint32_t n_pages = pith_pages_for(n_rows);
    t.pages.page_bytes = pith_page_bytes(&t.pages.geo);
    t.pool = t_guard((n_pages + 2) * t.pages.page_bytes);
    t.pages.base = t.pool.p;
    memset(t.pool.p, 0xff, (n_pages + 2) * t.pages.page_bytes); // NaN in f16 and f32

    t.lane.pages = t_new((n_pages + 1) * sizeof(pith_page_id));
    t.lane.cap_pages = n_pages + 1;
    t.lane.n_rows = n_rows;
    for (uint32_t i = 0; i <= n_pages; i++) t.lane.pages[i] = i; // the last one is a page the lane does not hold
    for (uint32_t i = n_pages; i > 1; i--) {
        const uint32_t j = t_below(rng, i);
        const pith_page_id page = t.lane.pages[j];
        t.lane.pages[j] = t.lane.pages[i - 1], t.lane.pages[i - 1] = page;
    }

    t.k = t_new((size_t)n_rows * d * sizeof(float)), t.v = t_new((size_t)n_rows * d * sizeof(float));
    for (uint32_t r = 0; r < n_rows; r++) {
        float *k = t.k + (size_t)r * d, *v = t.v + (size_t)r * d;
        t_fill(rng, k, d, draw), t_fill(rng, v, d, draw);
        pith_append_row(best(), &t.pages, &t.lane, r, k, v, (int32_t)(3 * r + 1));
        for (uint32_t i = 0; i < d; i++) k[i] = as_cached(k[i], elt_bytes), v[i] = as_cached(v[i], elt_bytes);
    }
    return t;
}

static void free_lane(test_lane *t) {
    t_unguard(&t->pool);
    free(t->lane.pages), free(t->k), free(t->v);
}

// Is row r of the lane made of row `from` of the dense arrays?
static void assert_row(const test_lane *t, uint32_t r, uint32_t from) {
    const pith_geometry *geo = &t->pages.geo;
    const uint8_t *k = pith_page_at(&t->pages, t->lane.pages[r / PITH_PAGE_ROWS]);
    const uint8_t *v = pith_page_v(&t->pages, t->lane.pages[r / PITH_PAGE_ROWS]);
    assert_int_equal(*pith_lane_pos(&t->pages, &t->lane, r), 3 * from + 1);
    for (uint32_t i = 0; i < geo->head_dim; i++) {
        const size_t ki = pith_k_index(geo, r % PITH_PAGE_ROWS, i), vi = pith_v_index(geo, r % PITH_PAGE_ROWS, i);
        const bool half = geo->elt_bytes == 2;
        const float k_got =
            half ? pith_f16_to_f32(((const uint16_t *)(const void *)k)[ki]) : ((const float *)(const void *)k)[ki];
        const float v_got =
            half ? pith_f16_to_f32(((const uint16_t *)(const void *)v)[vi]) : ((const float *)(const void *)v)[vi];
        assert_true(k_got == t->k[(size_t)from * geo->head_dim + i]);
        assert_true(v_got == t->v[(size_t)from * geo->head_dim + i]);
    }
}

// -------------------------------------------------------------------------------------------------- attention

// All parts, merged in order. out (n_q, d).
static void attend(const pith_cpu_kernels *kernels, const test_lane *t, const float *q, uint32_t n_q,
                   const uint32_t *n_seen, float *out) {
    const uint32_t d = t->pages.geo.head_dim;
    const uint32_t n_parts = (t->lane.n_rows + PITH_PART_ROWS - 1) / PITH_PART_ROWS;
    t_guarded scratch = t_guard(pith_attend_scratch(n_q) * sizeof(float));
    float *acc[2], ml[4][MAX_Q];
    for (uint32_t i = 0; i < 2; i++) acc[i] = t_new((size_t)n_q * d * sizeof(float));
    const pith_partial sum = {acc[0], ml[0], ml[1]}, one = {acc[1], ml[2], ml[3]};
    for (uint32_t part = 0; part < n_parts; part++) {
        pith_attend_part(kernels, &t->pages, &t->lane, part, q, d, n_q, n_seen, part ? one : sum, scratch.p, NULL,
                         NULL);
        if (part) pith_attend_merge(kernels, n_q, d, sum, one);
    }
    pith_attend_finish(n_q, d, sum, out, d);
    free(acc[0]), free(acc[1]);
    t_unguard(&scratch);
}

// Scaled queries: (n_q, d) and the unscaled ones for the oracle.
static void new_queries(t_rng *rng, uint32_t n_q, uint32_t d, float *q, float *scaled) {
    t_fill(rng, q, (size_t)n_q * d, t_nasty);
    for (size_t i = 0; i < (size_t)n_q * d; i++) scaled[i] = q[i] * (1.0f / sqrtf((float)d));
}

// How far element i of the result may be off. In units of 2^-24 the relative error of row r's weight is at most
// e_r = (d + 2) sum |q k_r| / sqrt(d) + 8: the roundings of its logit, then exp's and those of the page factors. The
// result, a sum over rows divided by another, is off by sum p_r e_r |v_r| + |result| sum p_r e_r and 2 n roundings.
static double allowed_error(const test_lane *t, const float *q, uint32_t n, uint32_t i) {
    const uint32_t d = t->pages.geo.head_dim;
    double logit[MAX_ROWS], e[MAX_ROWS], top = -INFINITY, p_sum = 0, pe = 0, pv = 0, pev = 0;
    for (uint32_t r = 0; r < n; r++) {
        double magnitude = 0;
        logit[r] = 0;
        for (uint32_t j = 0; j < d; j++) {
            const double term = (double)q[j] * (double)t->k[(size_t)r * d + j] / sqrt(d);
            logit[r] += term, magnitude += fabs(term);
        }
        e[r] = (d + 2) * magnitude + 8;
        top = fmax(top, logit[r]);
    }
    for (uint32_t r = 0; r < n; r++) {
        const double p = exp(logit[r] - top), v = fabs((double)t->v[(size_t)r * d + i]);
        p_sum += p, pe += p * e[r], pv += p * v, pev += p * e[r] * v;
    }
    return 0x1p-24 * (pev + pv / p_sum * pe + 2 * n * pv) / p_sum;
}

static void attention_is_right(void **state) {
    (void)state;
    static const uint32_t dims[] = {8, 16, 32, 64, 80, 96, 128, 256}, rows[] = {1, 63, 64, 65, 130, 512, 513, MAX_ROWS};
    t_rng rng = 1;
    t_bound bound = {.what = "attention"};
    float q[3 * PITH_MAX_HEAD_DIM], scaled[3 * PITH_MAX_HEAD_DIM], out[3 * PITH_MAX_HEAD_DIM];
    double want[PITH_MAX_HEAD_DIM];
    for (size_t c = 0; c < T_COUNT(dims); c++)
        for (size_t e = 0; e < T_COUNT(rows); e++) {
            const uint32_t d = dims[c], n_seen[3] = {rows[e], 1 + rows[e] / 2, rows[e]};
            test_lane t = new_lane(&rng, d, (c + e) % 2 ? 2 : 4, rows[e], t_nasty);
            new_queries(&rng, 3, d, q, scaled);
            attend(best(), &t, scaled, 3, n_seen, out);
            for (uint32_t a = 0; a < 3; a++) {
                pith_ref_attend(q + a * d, t.k, t.v, n_seen[a], d, want);
                for (uint32_t i = 0; i < d; i += 7)
                    t_within(&bound, (double)out[a * d + i], want[i], allowed_error(&t, q + a * d, n_seen[a], i));
            }
            free_lane(&t);
        }
    t_report(&bound);
}

static float small_integer(t_rng *rng) { return t_exact(rng, 8, 0); }

// With equal scores every row weighs 1, and the mean of integers over a power of two of rows is exact.
static void equal_scores_give_the_mean(void **state) {
    (void)state;
    t_rng rng = 2;
    for (uint32_t n = 1; n <= 1024; n *= 2) {
        enum { D = 16 };
        test_lane t = new_lane(&rng, D, n % 3 ? 2 : 4, n, small_integer);
        const float q[D] = {0};
        float out[D];
        attend(best(), &t, q, 1, &n, out);
        for (uint32_t i = 0; i < D; i++) {
            float sum = 0;
            for (uint32_t r = 0; r < n; r++) sum += t.v[r * D + i];
            assert_true(out[i] == sum / (float)n);
        }
        free_lane(&t);
    }
}

// Each row alone, in company, in other orders and at every level: the same bits.
static void a_row_does_not_depend_on_the_others(void **state) {
    (void)state;
    static const uint32_t dims[] = {8, 64, 80, 128};
    t_rng rng = 3;
    const pith_cpu_kernels *all[4];
    const size_t n_levels = pith_cpu_kernels_all(all);
    for (uint32_t round = 0; round < 24; round++) {
        const uint32_t d = dims[round % 4], n_rows = t_between(&rng, 1, round % 3 ? 200 : MAX_ROWS);
        test_lane t = new_lane(&rng, d, round % 5 ? 2 : 4, n_rows, t_nasty);
        const uint32_t n_q = t_between(&rng, 2, MAX_Q);
        float *q = t_new(4 * (size_t)n_q * d * sizeof(float)), *scaled = q + n_q * d, *together = scaled + n_q * d,
              *out = together + n_q * d;
        uint32_t n_seen[MAX_Q];
        new_queries(&rng, n_q, d, q, scaled);
        for (uint32_t a = 0; a < n_q; a++) // as in prefill, or anyhow; 0: a row that sees nothing
            n_seen[a] = round % 2 ? t_below(&rng, n_rows + 1) : n_rows - (n_q - 1 - a) / 3 * (n_rows > MAX_Q);
        attend(best(), &t, scaled, n_q, n_seen, together);
        for (uint32_t a = 0; a < n_q; a++) {
            attend(best(), &t, scaled + (size_t)a * d, 1, &n_seen[a], out);
            assert_memory_equal(out, together + (size_t)a * d, d * sizeof(float));
            if (n_seen[a] == 0)
                for (uint32_t i = 0; i < d; i++) assert_int_equal(pith_f32_bits(out[i]), 0);
        }
        for (size_t i = 0; i < n_levels; i++) {
            attend(all[i], &t, scaled, n_q, n_seen, out);
            assert_memory_equal(out, together, (size_t)n_q * d * sizeof(float));
        }
        free(q);
        free_lane(&t);
    }
}

// Values that overflowed to infinity in rows that a query row does not see must not reach it through its neighbours.
static void unseen_infinities_stay_unseen(void **state) {
    (void)state;
    enum { D = 16, N = 70 };
    t_rng rng = 4;
    test_lane t = new_lane(&rng, D, 2, N, t_unit);
    const float big[D] = {1e9f, -1e9f}, zero[D] = {0};
    pith_append_row(best(), &t.pages, &t.lane, N - 1, zero, big, 0);
    float q[2 * D] = {0}, out[2 * D];
    const uint32_t n_seen[2] = {N - 1, N};
    attend(best(), &t, q, 2, n_seen, out);
    for (uint32_t i = 0; i < D; i++) assert_true(isfinite(out[i]));
    assert_true(out[D] == INFINITY && out[D + 1] == -INFINITY && isfinite(out[D + 2]));
    free_lane(&t);
}

// A part is the unit that other threads compute: one that is not seen is empty, and merging it changes nothing.
static void empty_parts_merge_away(void **state) {
    (void)state;
    enum { D = 16, N = PITH_PART_ROWS + 5 };
    t_rng rng = 5;
    test_lane t = new_lane(&rng, D, 2, N, t_nasty);
    float q[D], scratch[PITH_PAGE_ROWS + 1], acc[2][D], m[2], l[2], before[D];
    const uint32_t n_seen = 100;
    t_fill(&rng, q, D, t_unit);
    const pith_partial a = {acc[0], &m[0], &l[0]}, b = {acc[1], &m[1], &l[1]};
    assert_int_equal(pith_attend_scratch(1), T_COUNT(scratch));
    pith_attend_part(best(), &t.pages, &t.lane, 0, q, D, 1, &n_seen, a, scratch, NULL, NULL);
    pith_attend_part(best(), &t.pages, &t.lane, 1, q, D, 1, &n_seen, b, scratch, NULL, NULL);
    assert_true(m[1] == -INFINITY && l[1] == 0 && acc[1][0] == 0 && acc[1][D - 1] == 0);

    acc[0][0] = -0.0f; // which adding a 0 would turn into 0
    memcpy(before, acc[0], sizeof before);
    const float m_before = m[0], l_before = l[0];
    pith_attend_merge(best(), 1, D, a, b);
    assert_memory_equal(acc[0], before, sizeof before);
    assert_true(m[0] == m_before && l[0] == l_before);
    pith_attend_merge(best(), 1, D, b, a); // the other way round
    assert_memory_equal(acc[1], before, sizeof before);
    assert_true(m[1] == m_before && l[1] == l_before);
    free_lane(&t);
}

// ------------------------------------------------------------------------------------------------ append, compact

static void append_writes_one_row(void **state) {
    (void)state;
    static const uint32_t dims[] = {8, 80, 256};
    t_rng rng = 6;
    for (size_t c = 0; c < T_COUNT(dims); c++)
        for (uint32_t elt_bytes = 2; elt_bytes <= 4; elt_bytes += 2) {
            test_lane t = new_lane(&rng, dims[c], elt_bytes, 130, t_nasty);
            for (uint32_t r = 0; r < 130; r++) assert_row(&t, r, r);
            // The rest of the last page is as it was: every byte 0xff.
            const uint8_t *v = pith_page_v(&t.pages, t.lane.pages[2]);
            for (size_t i = pith_v_index(&t.pages.geo, 2, 0) * elt_bytes; i < pith_page_k_bytes(&t.pages.geo); i++)
                assert_int_equal(v[i], 0xff);
            const uint8_t *k = pith_page_at(&t.pages, t.lane.pages[2]);
            for (size_t i = 0; i < pith_page_k_bytes(&t.pages.geo); i++)
                if (i / elt_bytes % PITH_PAGE_ROWS >= 2) assert_int_equal(k[i], 0xff);
            free_lane(&t);
        }
}

// Keeps each row from `first` on with probability keep/16 and compacts.
static void compact_case(t_rng *rng, uint32_t d, uint32_t elt_bytes, uint32_t n_rows, uint32_t first, uint32_t keep) {
    test_lane t = new_lane(rng, d, elt_bytes, n_rows, t_unit);
    uint32_t rows[MAX_ROWS], n = 0;
    for (uint32_t r = first; r < n_rows; r++)
        if (t_below(rng, 16) < keep) rows[n++] = r;
    pith_compact_rows(&t.pages, &t.lane, first, rows, n);
    assert_int_equal(t.lane.n_rows, n_rows);
    for (uint32_t r = 0; r < first; r++) assert_row(&t, r, r);
    for (uint32_t i = 0; i < n; i++) assert_row(&t, first + i, rows[i]);
    free_lane(&t);
}

static void compact_moves_rows_down(void **state) {
    (void)state;
    t_rng rng = 7;
    for (uint32_t round = 0; round < 150; round++) {
        const uint32_t n_rows = t_between(&rng, 1, 400), first = t_below(&rng, 3) ? t_below(&rng, n_rows) : 0;
        compact_case(&rng, 8 * t_between(&rng, 1, 5), round % 4 ? 2 : 4, n_rows, first, round % 17);
    }
}

static void compact_one_row_over_pages(void **state) {
    (void)state;
    t_rng rng = 8;
    test_lane t = new_lane(&rng, 8, 2, 300, t_unit);
    const uint32_t last = 299;
    pith_compact_rows(&t.pages, &t.lane, 0, &last, 1);
    assert_row(&t, 0, 299);
    for (uint32_t r = 1; r < 300; r++) assert_row(&t, r, r); // nothing else has changed
    pith_compact_rows(&t.pages, &t.lane, 5, &last, 0);
    assert_row(&t, 5, 5);
    free_lane(&t);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(attention_is_right),
        cmocka_unit_test(equal_scores_give_the_mean),
        cmocka_unit_test(a_row_does_not_depend_on_the_others),
        cmocka_unit_test(unseen_infinities_stay_unseen),
        cmocka_unit_test(empty_parts_merge_away),
        cmocka_unit_test(append_writes_one_row),
        cmocka_unit_test(compact_moves_rows_down),
        cmocka_unit_test(compact_one_row_over_pages),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
