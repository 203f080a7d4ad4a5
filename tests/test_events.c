// Candidates, attention mass, aggregation, pooling and top-k against the double oracle.
#include "t.h"

#include "base/half.h"
#include "cpu/events.h"
#include "ops/ops_ref.h"

static const pith_cpu_kernels *best(void) { return pith_cpu_kernels_choose(getenv("PITH_DISABLE_CPU")); }

// ------------------------------------------------------------------------------------------------------ lanes

typedef struct test_lane {
    pith_pages pages;
    pith_lane lane;
    float *k; // (n_rows, d) as cached
} test_lane;

static float half_exact(t_rng *rng) { return t_exact(rng, 4, -2); } // exact in f16 and in bf16

// Row r at position pos(r) = step * r.
static test_lane new_lane(t_rng *rng, pith_geometry geo, uint32_t n_rows, int32_t step, float (*draw)(t_rng *)) {
    test_lane t = {.pages.geo = geo};
    const uint32_t n_pages = pith_pages_for(n_rows), d = geo.head_dim;
    t.pages.page_bytes = pith_page_bytes(&geo);
    t.pages.base = t_new(n_pages * t.pages.page_bytes);
    memset(t.pages.base, 0xff, n_pages * t.pages.page_bytes);
    t.lane.pages = t_new(n_pages * sizeof(pith_page_id));
    t.lane.n_rows = n_rows, t.lane.cap_pages = n_pages;
    for (uint32_t i = 0; i < n_pages; i++) t.lane.pages[i] = n_pages - 1 - i;
    t.k = t_new((size_t)n_rows * d * sizeof(float));
    for (uint32_t r = 0; r < n_rows; r++) {
        float *k = t.k + (size_t)r * d;
        t_fill(rng, k, d, draw);
        pith_append_row(best(), &t.pages, &t.lane, r, k, k, step * (int32_t)r);
        if (geo.elt_bytes == 2)
            for (uint32_t i = 0; i < d; i++) k[i] = pith_f16_to_f32(pith_f32_to_f16(k[i]));
    }
    return t;
}

static void free_lane(test_lane *t) { free(t->pages.base), free(t->lane.pages), free(t->k); }

// ------------------------------------------------------------------------------------------------- candidates

static const pith_geometry small = {.n_layers = 1, .n_heads = 1, .n_kv_heads = 1, .head_dim = 8, .elt_bytes = 2};

static void candidates_by_hand(void **state) {
    (void)state;
    t_rng rng = 1;
    test_lane t = new_lane(&rng, small, 10, 2, half_exact); // positions 0 2 4 ... 18
    uint32_t rows[10];
    const pith_span spans[] = {{0, 4}, {5, 7}, {16, 17}}; // protect rows 0 1, 3, 8
    assert_int_equal(pith_candidates_lane(&t.pages, &t.lane, spans, 3, 0, rows), 6);
    const uint32_t want[] = {2, 4, 5, 6, 7, 9};
    assert_memory_equal(rows, want, sizeof want);
    assert_int_equal(pith_candidates_lane(&t.pages, &t.lane, spans, 3, 2, rows), 4); // less 7 and 9
    assert_int_equal(pith_candidates_lane(&t.pages, &t.lane, spans, 3, 6, rows), 0);
    assert_int_equal(pith_candidates_lane(&t.pages, &t.lane, spans, 3, 100, rows), 0);
    assert_int_equal(pith_candidates_lane(&t.pages, &t.lane, NULL, 0, 0, rows), 10);
    free_lane(&t);
}

static void candidates_against_every_span(void **state) {
    (void)state;
    t_rng rng = 2;
    for (uint32_t round = 0; round < 200; round++) {
        const uint32_t n_rows = t_between(&rng, 1, 150), n_tail = t_below(&rng, 20);
        const int32_t step = (int32_t)t_between(&rng, 1, 3);
        test_lane t = new_lane(&rng, small, n_rows, step, half_exact);
        pith_span spans[8];
        uint32_t n_spans = t_below(&rng, 9), want[150], n = 0;
        int32_t at = 0;
        for (uint32_t s = 0; s < n_spans; s++) {
            spans[s].begin = at += (int32_t)t_below(&rng, 40);
            spans[s].end = at += (int32_t)t_between(&rng, 1, 40);
        }
        for (uint32_t r = 0; r < n_rows; r++) {
            bool is_protected = false;
            for (uint32_t s = 0; s < n_spans; s++)
                is_protected |= step * (int32_t)r >= spans[s].begin && step * (int32_t)r < spans[s].end;
            if (!is_protected) want[n++] = r;
        }
        n = n > n_tail ? n - n_tail : 0;
        t_guarded rows = t_guard(n * sizeof(uint32_t)); // no room for the tail
        assert_int_equal(pith_candidates_lane(&t.pages, &t.lane, spans, n_spans, n_tail, rows.p), n);
        assert_memory_equal(rows.p, want, n * sizeof(uint32_t));
        t_unguard(&rows);
        free_lane(&t);
    }
}

// ------------------------------------------------------------------------------------------------------- mass

typedef struct mass_case {
    pith_geometry geo;
    uint32_t n_rows, n, n_slots, cap;
    test_lane lane;
    uint32_t *rows, *slots; // (n), (n_slots)
    float *q;               // (cap, H, d)
    float *k;               // (n, d) of the candidates
    float *score;           // (g, n)
} mass_case;

static mass_case new_mass_case(t_rng *rng, pith_geometry geo, uint32_t n_rows, uint32_t n_slots,
                               float (*draw)(t_rng *)) {
    mass_case c = {.geo = geo, .n_rows = n_rows, .n_slots = n_slots, .cap = n_slots + 2};
    const size_t d = geo.head_dim, q_floats = (size_t)c.cap * geo.n_heads * d;
    c.lane = new_lane(rng, geo, n_rows, 1, draw);
    c.rows = t_new(n_rows * sizeof(uint32_t)), c.slots = t_new(n_slots * sizeof(uint32_t));
    c.q = t_new(q_floats * sizeof(float)), c.k = t_new(n_rows * d * sizeof(float));
    t_fill(rng, c.q, q_floats, draw);
    for (uint32_t r = 0; r < n_rows; r++)
        if (t_below(rng, 5) || r == n_rows - 1) {
            memcpy(c.k + c.n * d, c.lane.k + r * d, d * sizeof(float));
            c.rows[c.n++] = r;
        }
    for (uint32_t s = 0; s < n_slots; s++) c.slots[s] = t_below(rng, c.cap); // some twice, some never
    c.score = t_new((size_t)geo.n_heads / geo.n_kv_heads * c.n * sizeof(float));
    return c;
}

static void free_mass_case(mass_case *c) {
    free_lane(&c->lane);
    free(c->rows), free(c->slots), free(c->q), free(c->k), free(c->score);
}

static void run_mass(const pith_cpu_kernels *kernels, mass_case *c, uint32_t kv_head, pith_arith arith) {
    t_guarded scratch = t_guard(pith_mass_scratch(&c->geo, c->n, c->n_slots) * sizeof(float));
    memset(scratch.p, 0xff, pith_mass_scratch(&c->geo, c->n, c->n_slots) * sizeof(float));
    pith_mass_lane(kernels, &c->lane.pages, &c->lane.lane, kv_head, c->q, c->slots, c->n_slots, c->rows, c->n, arith,
                   c->score, scratch.p);
    t_unguard(&scratch);
}

// The oracle's mass of query head h of the KV head.
static void want_mass(const mass_case *c, uint32_t kv_head, uint32_t h, pith_arith arith, double *want) {
    const uint32_t d = c->geo.head_dim, g = c->geo.n_heads / c->geo.n_kv_heads;
    float *q = t_new((size_t)c->n_slots * d * sizeof(float));
    for (uint32_t s = 0; s < c->n_slots; s++)
        memcpy(q + (size_t)s * d, c->q + ((size_t)c->slots[s] * c->geo.n_heads + kv_head * g + h) * d,
               d * sizeof(float));
    pith_ref_mass(q, c->n_slots, c->k, c->n, d, arith, want);
    free(q);
}

static float mild(t_rng *rng) { return t_nasty(rng) * 0.5f; }

static void mass_is_right(void **state) {
    (void)state;
    static const uint32_t dims[] = {8, 64, 80, 128};
    t_rng rng = 3;
    t_bound bound = {.what = "mass"};
    for (uint32_t round = 0; round < 16; round++) {
        const uint32_t g = t_between(&rng, 1, 4), n_slots = t_between(&rng, 1, 40);
        const pith_geometry geo = {.n_layers = 1,
                                   .n_heads = 2 * g,
                                   .n_kv_heads = 2,
                                   .head_dim = dims[round % 4],
                                   .elt_bytes = round % 3 ? 2 : 4};
        mass_case c = new_mass_case(&rng, geo, t_between(&rng, 1, 300), n_slots, mild);
        double *want = t_new(c.n * sizeof(double));
        double magnitude = 0; // of a logit's terms: bounds its error, which is the relative error of a weight
        for (uint32_t i = 0; i < c.n; i++)
            for (uint32_t s = 0; s < c.cap * geo.n_heads; s++) {
                double m = 0;
                for (uint32_t j = 0; j < geo.head_dim; j++)
                    m += fabs((double)c.q[(size_t)s * geo.head_dim + j] * (double)c.k[(size_t)i * geo.head_dim + j]);
                magnitude = fmax(magnitude, m / sqrt(geo.head_dim));
            }
        for (uint32_t kv_head = 0; kv_head < 2; kv_head++) {
            run_mass(best(), &c, kv_head, PITH_ARITH_F32);
            for (uint32_t h = 0; h < g; h++) {
                want_mass(&c, kv_head, h, PITH_ARITH_F32, want);
                for (uint32_t j = 0; j < c.n; j++)
                    t_within(&bound, (double)c.score[h * c.n + j], want[j],
                             0x1p-24 * (2 * (geo.head_dim + 2) * magnitude + c.n / 16.0 + n_slots + 16) * want[j] +
                                 1e-37);
            }
        }
        free(want);
        free_mass_case(&c);
    }
    t_report(&bound);
}

static void mass_has_the_same_bits_at_every_level(void **state) {
    (void)state;
    t_rng rng = 4;
    const pith_cpu_kernels *all[4];
    const size_t n_levels = pith_cpu_kernels_all(all);
    for (uint32_t round = 0; round < 12; round++) {
        const pith_arith arith = round % 2 ? PITH_ARITH_BF16 : PITH_ARITH_F32;
        const pith_geometry geo = {
            .n_layers = 1, .n_heads = 3, .n_kv_heads = 1, .head_dim = 8 * t_between(&rng, 1, 16), .elt_bytes = 2};
        mass_case c = new_mass_case(&rng, geo, t_between(&rng, 1, 200), t_between(&rng, 1, 20), mild);
        float *first = t_new(3 * (size_t)c.n * sizeof(float));
        run_mass(all[0], &c, 0, arith);
        memcpy(first, c.score, 3 * (size_t)c.n * sizeof(float));
        for (size_t i = 1; i < n_levels; i++) {
            run_mass(all[i], &c, 0, arith);
            assert_memory_equal(c.score, first, 3 * (size_t)c.n * sizeof(float));
        }
        free(first);
        free_mass_case(&c);
    }
}

// A query of zeros spreads its mass evenly: 1/n, a power of two here, exactly.
static void mass_of_a_zero_query_is_even(void **state) {
    (void)state;
    t_rng rng = 5;
    test_lane t = new_lane(&rng, small, 200, 1, t_unit);
    float q[8] = {0}, score[128];
    uint32_t rows[128];
    const uint32_t slots[3] = {0, 0, 0};
    for (uint32_t j = 0; j < 128; j++) rows[j] = j + 40;
    float *scratch = t_new(pith_mass_scratch(&small, 128, 3) * sizeof(float));
    pith_mass_lane(best(), &t.pages, &t.lane, 0, q, slots, 3, rows, 128, PITH_ARITH_F32, score, scratch);
    for (uint32_t j = 0; j < 128; j++) assert_true(score[j] == 3.0f / 128);
    free(scratch);
    free_lane(&t);
}

// With exact dot products the roundings to bf16 are the oracle's, but for exponentials that fall on either side of a
// rounding border: one unit of bf16 (2^-8 of the value) in a weight.
static void mass_in_bf16(void **state) {
    (void)state;
    t_rng rng = 6;
    t_bound bound = {.what = "bf16 mass"};
    uint32_t n_equal = 0, n_all = 0;
    for (uint32_t round = 0; round < 12; round++) {
        const pith_geometry geo = {.n_layers = 1,
                                   .n_heads = 2,
                                   .n_kv_heads = 1,
                                   .head_dim = round % 2 ? 16 : 32,
                                   .elt_bytes = round % 3 ? 2 : 4};
        mass_case c = new_mass_case(&rng, geo, t_between(&rng, 1, 150), t_between(&rng, 1, 32), half_exact);
        double want[150];
        run_mass(best(), &c, 0, PITH_ARITH_BF16);
        for (uint32_t h = 0; h < 2; h++) {
            want_mass(&c, 0, h, PITH_ARITH_BF16, want);
            for (uint32_t j = 0; j < c.n; j++) {
                const double got = (double)c.score[h * c.n + j];
                assert_true(got == (double)pith_bf16_round((float)got));
                t_within(&bound, got, want[j], want[j] * 0x1p-7);
                n_equal += got == want[j], n_all++;
            }
        }
        free_mass_case(&c);
    }
    t_report(&bound);
    print_message("             %u of %u equal\n", n_equal, n_all);
    assert_true(n_equal * 100 >= n_all * 99);
}

// Each rounding of A by itself: a value that comes out otherwise without it.
static void bf16_rounds_where_pytorch_does(void **state) {
    (void)state;
    const pith_geometry geo = {.n_layers = 1, .n_heads = 1, .n_kv_heads = 1, .head_dim = 8, .elt_bytes = 4};
    float k[2][8] = {{0}}, q[8] = {0}, score[2], scratch[8 + 64 + 2 + 8 * 64];
    const uint32_t rows[2] = {0, 1}, slot = 0;
    t_rng rng = 7;
    test_lane t = new_lane(&rng, geo, 2, 1, half_exact);
    assert_int_equal(pith_mass_scratch(&geo, 2, 1), T_COUNT(scratch));
    const struct {
        float q0, q1, k0, k1;
        double logit;
    } cases[] = {
        {0x1.01p6f, -64, 1, 1, 0},      // q rounds to 64
        {1, 1, 0x1.01p6f, -64, 0},      // k rounds to 64
        {1, 1, 1, 0x1p-8f, 1},          // the dot product 1 + 2^-8 rounds to 1
        {1, 1, 1, 0x1.8p-8f, 0x1.02p0}, // 1 + 1.5 * 2^-8 rounds up, to 1 + 2^-7
    };
    for (size_t i = 0; i < T_COUNT(cases); i++) {
        q[0] = cases[i].q0, q[1] = cases[i].q1, k[0][0] = cases[i].k0, k[0][1] = cases[i].k1;
        for (uint32_t r = 0; r < 2; r++) pith_append_row(best(), &t.pages, &t.lane, r, k[r], k[r], (int32_t)r);
        pith_mass_lane(best(), &t.pages, &t.lane, 0, q, &slot, 1, rows, 2, PITH_ARITH_BF16, score, scratch);
        const double x = pith_ref_bf16(cases[i].logit / sqrt(8)), p = 1 / (1 + exp(-x));
        assert_true((double)score[0] == pith_ref_bf16(p) && (double)score[1] == pith_ref_bf16(1 - p));
    }
    free_lane(&t);
}

// ------------------------------------------------------------------------------------- aggregation and pooling

// Scores with few significant bits, so that sums are exact and quotients are rounded once, as the oracle's are to f32.
static float score_exact(t_rng *rng) { return fabsf(t_exact(rng, 200, -8)); }
static float score_bf16(t_rng *rng) { return fabsf(t_exact(rng, 100, -6)); } // 7 bits: a bf16

static void aggregation_is_right(void **state) {
    (void)state;
    t_rng rng = 8;
    for (uint32_t round = 0; round < 200; round++) {
        const uint32_t n_kv = t_between(&rng, 1, 4), g = t_between(&rng, 1, 7), n = t_between(&rng, 1, 70),
                       h = n_kv * g;
        const pith_geometry geo = {.n_layers = 1, .n_heads = h, .n_kv_heads = n_kv, .head_dim = 8, .elt_bytes = 2};
        const pith_aggregate how = round % 3 == 0 ? PITH_AGG_LAYER : round % 3 == 1 ? PITH_AGG_GROUP : PITH_AGG_HEAD;
        const pith_arith arith = t_below(&rng, 2) ? PITH_ARITH_BF16 : PITH_ARITH_F32;
        t_guarded score = t_guard((size_t)h * n * sizeof(float));
        float *x = score.p;
        double in[28 * 70], want[4 * 70];
        t_fill(&rng, x, (size_t)h * n, arith == PITH_ARITH_BF16 ? score_bf16 : score_exact);
        for (uint32_t i = 0; i < h * n; i++) in[i] = (double)x[i];
        pith_ref_aggregate(in, h, n_kv, n, how, arith, want);
        pith_aggregate_scores(&geo, how, arith, n, x);
        const uint32_t n_sets = how == PITH_AGG_LAYER ? 1 : n_kv;
        for (uint32_t i = 0; i < n_sets * n; i++) assert_true(x[i] == (float)want[i]);
        t_unguard(&score);
    }
}

static void pooling_is_right(void **state) {
    (void)state;
    t_rng rng = 9;
    for (uint32_t round = 0; round < 400; round++) {
        const uint32_t n_sets = t_between(&rng, 1, 3), n = t_between(&rng, 1, 40), width = 1 + 2 * t_below(&rng, 8);
        const pith_pool how = round % 3 == 0 ? PITH_POOL_NONE : round % 3 == 1 ? PITH_POOL_AVG : PITH_POOL_MAX;
        const pith_arith arith = t_below(&rng, 2) ? PITH_ARITH_BF16 : PITH_ARITH_F32;
        t_guarded score = t_guard((size_t)n_sets * n * sizeof(float)), scratch = t_guard(n * sizeof(float));
        float *x = score.p;
        double in[3 * 40], want[40];
        t_fill(&rng, x, (size_t)n_sets * n, arith == PITH_ARITH_BF16 ? score_bf16 : score_exact);
        for (uint32_t i = 0; i < n_sets * n; i++) in[i] = (double)x[i];
        pith_pool_scores(how, width, arith, n_sets, n, x, scratch.p);
        for (uint32_t s = 0; s < n_sets; s++) {
            pith_ref_pool(in + s * n, n, how, width, arith, want);
            for (uint32_t j = 0; j < n; j++) assert_true(x[s * n + j] == (float)want[j]);
        }
        t_unguard(&score), t_unguard(&scratch);
    }
}

static void pooling_by_hand(void **state) {
    (void)state;
    float scratch[5], a[] = {7, 0, 14, 0, 0}, b[] = {7, 0, 14, 0, 0}, c[] = {7, 0, 14, 0, 0};
    pith_pool_scores(PITH_POOL_AVG, 3, PITH_ARITH_F32, 1, 5, a, scratch);
    pith_pool_scores(PITH_POOL_MAX, 3, PITH_ARITH_F32, 1, 5, b, scratch);
    pith_pool_scores(PITH_POOL_AVG, 7, PITH_ARITH_BF16, 1, 5, c, scratch); // the ends divide by 7 too
    const float want_a[] = {3.5f, 7, 14 / 3.0f, 14 / 3.0f, 0}, want_b[] = {7, 14, 14, 14, 0},
                want_c[] = {3, 3, 3, 3, 2};
    assert_memory_equal(a, want_a, sizeof a);
    assert_memory_equal(b, want_b, sizeof b);
    assert_memory_equal(c, want_c, sizeof c);
}

// -------------------------------------------------------------------------------------------------------- top

static void assert_top(const float *score, uint32_t n, uint32_t k) {
    t_guarded keep = t_guard(k * sizeof(uint32_t)), scratch = t_guard(n * sizeof(uint32_t));
    uint32_t *want = t_new(k * sizeof(uint32_t));
    pith_ref_top(score, n, k, want);
    pith_top_scores(score, n, k, keep.p, scratch.p);
    assert_memory_equal(keep.p, want, k * sizeof(uint32_t));
    free(want);
    t_unguard(&keep), t_unguard(&scratch);
}

// All arrays of up to 5 of these, all k.
static void top_of_every_small_array(void **state) {
    (void)state;
    static const float values[] = {-INFINITY, -1.0f, -0.0f, 0.0f, 1e-45f, NAN};
    enum { N = T_COUNT(values), MOST = 5 };
    for (uint32_t n = 1; n <= MOST; n++) {
        uint32_t n_arrays = 1;
        for (uint32_t i = 0; i < n; i++) n_arrays *= N;
        for (uint32_t code = 0; code < n_arrays; code++) {
            float score[MOST];
            uint32_t rest = code, keep[MOST], want[MOST], scratch[MOST];
            for (uint32_t i = 0; i < n; i++, rest /= N) score[i] = values[rest % N];
            for (uint32_t k = 0; k <= n; k++) {
                pith_ref_top(score, n, k, want);
                pith_top_scores(score, n, k, keep, scratch);
                for (uint32_t i = 0; i < k; i++) assert_int_equal(keep[i], want[i]);
            }
        }
    }
}

static void top_of_random_arrays(void **state) {
    (void)state;
    t_rng rng = 10;
    float score[400];
    for (uint32_t round = 0; round < 300; round++) {
        const uint32_t n = t_between(&rng, 1, T_COUNT(score)), kind = round % 4;
        for (uint32_t j = 0; j < n; j++) {
            if (kind == 0) score[j] = t_nasty(&rng);                                  // no ties
            else if (kind == 1) score[j] = t_exact(&rng, 3, -1);                      // many
            else if (kind == 2) score[j] = pith_f32_from_bits((uint32_t)t_u64(&rng)); // anything, NaN too
            else score[j] = 1.0f + (float)t_below(&rng, 4) * 0x1p-23f;                // differ in the last bits
        }
        assert_top(score, n, t_below(&rng, n + 1));
        assert_top(score, n, n);
        assert_top(score, n, 0);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(candidates_by_hand),
        cmocka_unit_test(candidates_against_every_span),
        cmocka_unit_test(mass_is_right),
        cmocka_unit_test(mass_has_the_same_bits_at_every_level),
        cmocka_unit_test(mass_of_a_zero_query_is_even),
        cmocka_unit_test(mass_in_bf16),
        cmocka_unit_test(bf16_rounds_where_pytorch_does),
        cmocka_unit_test(aggregation_is_right),
        cmocka_unit_test(pooling_is_right),
        cmocka_unit_test(pooling_by_hand),
        cmocka_unit_test(top_of_every_small_array),
        cmocka_unit_test(top_of_random_arrays),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
