// The kernels of every level that this machine runs, against the portable ones bit for bit, and those against double.
// Needs nothing but the kernels, so that it can be compiled for another architecture; the checksum at the end has to
// come out the same on all of them.
#include "t.h"

#include "base/half.h"
#include "cpu/cpuid.h"
#include "cpu/kernels.h"

enum { MAX_D = PITH_MAX_HEAD_DIM, ROWS = PITH_PAGE_ROWS, MAX_Q = 16 };

static const uint32_t dims[] = {8, 16, 32, 64, 80, 96, 128, 256};

static const pith_cpu_kernels *portable(void) { return pith_cpu_kernels_choose("avx512,avx2,neon"); }

// Runs `check` for each level, the portable one included: it too must not read past its arguments.
static void for_each_level(void (*check)(const pith_cpu_kernels *)) {
    const pith_cpu_kernels *all[4];
    const size_t n = pith_cpu_kernels_all(all);
    for (size_t i = 0; i < n; i++) {
        print_message("             %s\n", all[i]->name);
        check(all[i]);
    }
}

// A section of a page, flush against an unmapped page: random elements, some of them subnormal or large.
static t_guarded new_section(t_rng *rng, size_t n, uint32_t elt_bytes) {
    const t_guarded g = t_guard(n * elt_bytes);
    for (size_t i = 0; i < n; i++) {
        const float x = t_below(rng, 50) ? t_nasty(rng) : t_unit(rng) * 0x1p-16f;
        if (elt_bytes == 2) ((uint16_t *)g.p)[i] = pith_f32_to_f16(x);
        else ((float *)g.p)[i] = t_below(rng, 50) ? x : x * 0x1p-120f;
    }
    return g;
}

static float element(const void *section, size_t i, uint32_t elt_bytes) {
    return elt_bytes == 2 ? pith_f16_to_f32(((const uint16_t *)section)[i]) : ((const float *)section)[i];
}

// ---------------------------------------------------------------------------------------------------- scores

static void compare_scores(const pith_cpu_kernels *level) {
    t_rng rng = 1;
    for (size_t c = 0; c < T_COUNT(dims); c++)
        for (uint32_t n_q = 1; n_q <= MAX_Q; n_q++)
            for (uint32_t elt_bytes = 2; elt_bytes <= 4; elt_bytes += 2) {
                const uint32_t d = dims[c];
                const size_t stride = d + t_below(&rng, 3), q_floats = (n_q - 1) * stride + d;
                t_guarded k = new_section(&rng, (size_t)d * ROWS, elt_bytes), q = t_guard(q_floats * sizeof(float));
                t_guarded got = t_guard((size_t)n_q * ROWS * sizeof(float));
                float want[MAX_Q * ROWS];
                t_fill(&rng, q.p, q_floats, t_nasty);
                level->scores(q.p, stride, n_q, k.p, elt_bytes, d,
                              t_below(&rng, 2) ? (pith_ahead){k.p, got.p} : (pith_ahead){0}, got.p);
                portable()->scores(q.p, stride, n_q, k.p, elt_bytes, d, (pith_ahead){0}, want);
                assert_memory_equal(got.p, want, (size_t)n_q * ROWS * sizeof(float));
                t_unguard(&k), t_unguard(&q), t_unguard(&got);
            }
}
static void scores_have_the_same_bits(void **state) {
    (void)state;
    for_each_level(compare_scores);
}

static void scores_are_right(void **state) {
    (void)state;
    t_rng rng = 2;
    t_bound bound = {.what = "scores"};
    for (size_t c = 0; c < T_COUNT(dims); c++)
        for (uint32_t elt_bytes = 2; elt_bytes <= 4; elt_bytes += 2) {
            const uint32_t d = dims[c];
            t_guarded k = new_section(&rng, (size_t)d * ROWS, elt_bytes);
            float q[MAX_D], s[ROWS];
            t_fill(&rng, q, d, t_nasty);
            portable()->scores(q, d, 1, k.p, elt_bytes, d, (pith_ahead){0}, s);
            for (uint32_t r = 0; r < ROWS; r++) {
                double dot = 0, magnitude = 0;
                for (uint32_t i = 0; i < d; i++) {
                    const double term = (double)q[i] * (double)element(k.p, (size_t)i * ROWS + r, elt_bytes);
                    dot += term, magnitude += fabs(term);
                }
                t_within(&bound, (double)s[r], dot, d * 0x1p-24 * magnitude);
            }
            t_unguard(&k);
        }
    t_report(&bound);
}

// ----------------------------------------------------------------------------------------------------- weigh

static void compare_weigh(const pith_cpu_kernels *level) {
    t_rng rng = 3;
    for (size_t c = 0; c < T_COUNT(dims); c++)
        for (uint32_t n_q = 1; n_q <= MAX_Q; n_q++)
            for (uint32_t elt_bytes = 2; elt_bytes <= 4; elt_bytes += 2) {
                const uint32_t d = dims[c], n_rows = t_between(&rng, 1, ROWS);
                t_guarded v = new_section(&rng, (size_t)n_rows * d, elt_bytes); // nothing from n_rows on
                t_guarded got = t_guard((size_t)n_q * d * sizeof(float));
                float p[MAX_Q * ROWS], factor[MAX_Q], want[MAX_Q * MAX_D];
                t_fill(&rng, p, T_COUNT(p), t_unit);
                t_fill(&rng, factor, MAX_Q, t_unit);
                t_fill(&rng, want, (size_t)n_q * d, t_nasty);
                memcpy(got.p, want, (size_t)n_q * d * sizeof(float));
                level->weigh(got.p, factor, p, n_q, v.p, elt_bytes, d, n_rows,
                             t_below(&rng, 2) ? (pith_ahead){v.p, got.p} : (pith_ahead){0});
                portable()->weigh(want, factor, p, n_q, v.p, elt_bytes, d, n_rows, (pith_ahead){0});
                assert_memory_equal(got.p, want, (size_t)n_q * d * sizeof(float));
                t_unguard(&v), t_unguard(&got);
            }
}
static void weigh_has_the_same_bits(void **state) {
    (void)state;
    for_each_level(compare_weigh);
}

static void weigh_is_right(void **state) {
    (void)state;
    t_rng rng = 4;
    t_bound bound = {.what = "weigh"};
    for (size_t c = 0; c < T_COUNT(dims); c++)
        for (uint32_t elt_bytes = 2; elt_bytes <= 4; elt_bytes += 2) {
            const uint32_t d = dims[c], n_rows = t_between(&rng, 1, ROWS);
            t_guarded v = new_section(&rng, (size_t)ROWS * d, elt_bytes);
            float p[ROWS], factor = 0.75f, before[MAX_D], acc[MAX_D];
            t_fill(&rng, p, ROWS, t_unit);
            t_fill(&rng, before, d, t_nasty);
            memcpy(acc, before, d * sizeof(float));
            portable()->weigh(acc, &factor, p, 1, v.p, elt_bytes, d, n_rows, (pith_ahead){0});
            for (uint32_t i = 0; i < d; i++) {
                double sum = (double)before[i] * (double)factor, magnitude = fabs(sum);
                for (uint32_t r = 0; r < n_rows; r++) {
                    const double term = (double)p[r] * (double)element(v.p, (size_t)r * d + i, elt_bytes);
                    sum += term, magnitude += fabs(term);
                }
                t_within(&bound, (double)acc[i], sum, (n_rows + 1) * 0x1p-24 * magnitude);
            }
            t_unguard(&v);
        }
    t_report(&bound);
}

// ------------------------------------------------------------------------------------------------------- exp

static float exp_of(const pith_cpu_kernels *level, float x) {
    level->exp_sum(&x, 1, 0.0f);
    return x;
}

// Units in the last place of the true value.
static double ulps(double got, double want) {
    int exponent;
    frexp(want, &exponent);
    return fabs(got - want) / ldexp(1, exponent - 24);
}

static void exp_is_right(void **state) {
    (void)state;
    t_rng rng = 5;
    t_bound bound = {.what = "exp, 0.9 ulp"};
    for (uint32_t i = 0; i < 200000; i++) {
        // Every magnitude alike: from the least whose exponential is not 1 to the largest whose is not 0.
        const float x = pith_f32_from_bits(0x80000000u | t_between(&rng, 0x32000000u, 0x42aeac4fu));
        const double want = exp((double)x);
        t_within(&bound, ulps((double)exp_of(portable(), x), want), 0, 0.9);
    }
    t_report(&bound);
}

static void exp_at_the_ends(void **state) {
    (void)state;
    const pith_cpu_kernels *all[4];
    const size_t n = pith_cpu_kernels_all(all);
    for (size_t i = 0; i < n; i++) {
        const float zero[] = {-INFINITY, -3e38f, -1000.0f, -88.0f, -0x1.5d58a0p+6f};
        for (size_t j = 0; j < T_COUNT(zero); j++) assert_int_equal(pith_f32_bits(exp_of(all[i], zero[j])), 0);
        assert_true(exp_of(all[i], 0.0f) == 1.0f && exp_of(all[i], -0.0f) == 1.0f && exp_of(all[i], -1e-45f) == 1.0f);
        assert_true(exp_of(all[i], -0x1.5d589ep+6f) >= 0x1p-126f);
        assert_true(exp_of(all[i], 89.0f) == INFINITY && exp_of(all[i], INFINITY) == INFINITY);
        assert_true(isnan(exp_of(all[i], NAN)));
    }
}

static void compare_exp_sum(const pith_cpu_kernels *level) {
    t_rng rng = 6;
    for (uint32_t n = 0; n <= 200; n++) {
        t_guarded got = t_guard(n * sizeof(float));
        float want[200], *x = got.p;
        for (uint32_t i = 0; i < n; i++) {
            x[i] = t_nasty(&rng) * (t_below(&rng, 8) ? 1.0f : 30.0f);
            if (t_below(&rng, 16) == 0) x[i] = -INFINITY;
            if (t_below(&rng, 64) == 0) x[i] = t_unit(&rng) * 0x1p-126f;
            want[i] = x[i];
        }
        const float got_sum = level->exp_sum(x, n, 3.0f), want_sum = portable()->exp_sum(want, n, 3.0f);
        assert_int_equal(pith_f32_bits(got_sum), pith_f32_bits(want_sum));
        assert_memory_equal(x, want, n * sizeof(float));
        t_unguard(&got);
    }
}
static void exp_sum_has_the_same_bits(void **state) {
    (void)state;
    for_each_level(compare_exp_sum);
}

static void compare_swiglu(const pith_cpu_kernels *level) {
    t_rng rng = 16;
    for (uint32_t n = 0; n <= 100; n++) {
        t_guarded gate = t_guard(n * sizeof(float)), up = t_guard(n * sizeof(float)), y = t_guard(n * sizeof(float));
        float want[100];
        for (uint32_t i = 0; i < n; i++) {
            ((float *)gate.p)[i] = t_nasty(&rng) * (t_below(&rng, 8) ? 1.0f : 30.0f);
            ((float *)up.p)[i] = t_nasty(&rng);
        }
        portable()->swiglu(gate.p, up.p, n, want);
        level->swiglu(gate.p, up.p, n, y.p);
        assert_memory_equal(y.p, want, n * sizeof(float));
        level->swiglu(gate.p, up.p, n, up.p); // in place
        assert_memory_equal(up.p, want, n * sizeof(float));
        t_unguard(&gate), t_unguard(&up), t_unguard(&y);
    }
}
static void swiglu_has_the_same_bits(void **state) {
    (void)state;
    for_each_level(compare_swiglu);
}

static void swiglu_is_right(void **state) {
    (void)state;
    t_rng rng = 17;
    t_bound bound = {.what = "swiglu, 3 ulp"};
    for (uint32_t i = 0; i < 100000; i++) {
        const float gate = 20 * t_unit(&rng), up = t_unit(&rng);
        float y;
        portable()->swiglu(&gate, &up, 1, &y);
        t_within(&bound, ulps((double)y, (double)gate / (1 + exp(-(double)gate)) * (double)up), 0, 3);
    }
    t_report(&bound);
    for (int i = 0; i < 2; i++) { // far away the gate is shut or open
        const float gate = i ? 1e30f : -1e30f, up = 2;
        float y;
        portable()->swiglu(&gate, &up, 1, &y);
        assert_true(y == (i ? 2e30f : 0));
    }
}

// The order of the sum: these 18 numbers have another sum in any simpler order.
static void exp_sum_adds_in_the_documented_order(void **state) {
    (void)state;
    float x[18], partial[16] = {0}, tree[8];
    t_rng rng = 7;
    t_fill(&rng, x, 18, t_unit);
    const float sum = portable()->exp_sum(x, 18, 0.0f);
    for (uint32_t i = 0; i < 18; i++) partial[i % 16] += x[i];
    for (uint32_t i = 0; i < 8; i++) tree[i] = partial[i] + partial[i + 8];
    const float want = ((tree[0] + tree[4]) + (tree[2] + tree[6])) + ((tree[1] + tree[5]) + (tree[3] + tree[7]));
    assert_true(sum == want);
}

// ---------------------------------------------------------------------------------------------------- soften

typedef struct softened {
    float s[ROWS], m, l, c;
} softened;

static void compare_soften(const pith_cpu_kernels *level) {
    t_rng rng = 8;
    for (uint32_t round = 0; round < 64 * 5; round++) {
        const uint32_t n_visible = 1 + round % ROWS;
        softened want = {.m = -INFINITY};
        if (round % 3) want.m = 4 * t_nasty(&rng), want.l = 1.0f + fabsf(t_nasty(&rng));
        const bool all_minus_infinity = t_below(&rng, 20) == 0;
        for (uint32_t r = 0; r < ROWS; r++) {
            want.s[r] = 4 * t_nasty(&rng);
            if (all_minus_infinity || t_below(&rng, 10) == 0) want.s[r] = -INFINITY;
            if (t_below(&rng, 10) == 0) want.s[r] = t_unit(&rng) * 0x1p-127f;
            if (t_below(&rng, 10) == 0) want.s[r] = t_below(&rng, 2) ? 0.0f : -0.0f;
            if (r >= n_visible) want.s[r] = t_below(&rng, 2) ? NAN : INFINITY; // garbage past the lane's end
        }
        softened got = want;
        portable()->soften(want.s, 1, n_visible, &want.m, &want.l, &want.c);
        level->soften(got.s, 1, n_visible, &got.m, &got.l, &got.c);
        assert_memory_equal(&got, &want, sizeof got);
        assert_true(want.l >= 0 && want.c >= 0 && want.c <= 1);
        for (uint32_t r = n_visible; r < ROWS; r++) assert_int_equal(pith_f32_bits(got.s[r]), 0);
    }
}
static void soften_has_the_same_bits(void **state) {
    (void)state;
    for_each_level(compare_soften);
}

// A NaN or +inf among the scores has to be seen in the end: it makes l NaN, and is no maximum that hides the others.
static void soften_does_not_lose_a_nan(void **state) {
    (void)state;
    const pith_cpu_kernels *all[4];
    const size_t n = pith_cpu_kernels_all(all);
    for (size_t i = 0; i < n; i++)
        for (uint32_t r = 0; r < ROWS; r++) {
            softened x = {.m = 0.5f, .l = 1.0f}, y = {.m = -INFINITY};
            x.s[r] = NAN, y.s[r] = INFINITY;
            all[i]->soften(x.s, 1, ROWS, &x.m, &x.l, &x.c);
            all[i]->soften(y.s, 1, ROWS, &y.m, &y.l, &y.c);
            assert_true(x.m == 0.5f && isnan(x.l) && isnan(y.l));
        }
}

static void soften_by_hand(void **state) {
    (void)state;
    // Two scores, 0 and -inf, after a page whose maximum was 0: factor 1, one more row of weight 1.
    softened x = {.s = {0.0f, -INFINITY}, .m = 0.0f, .l = 3.0f};
    portable()->soften(x.s, 1, 2, &x.m, &x.l, &x.c);
    assert_true(x.s[0] == 1.0f && x.s[1] == 0.0f && x.m == 0.0f && x.l == 4.0f && x.c == 1.0f);
    // A first page: nothing to keep.
    softened y = {.s = {2.0f, 2.0f}, .m = -INFINITY};
    portable()->soften(y.s, 1, 2, &y.m, &y.l, &y.c);
    assert_true(y.s[0] == 1.0f && y.s[1] == 1.0f && y.m == 2.0f && y.l == 2.0f && y.c == 0.0f);
}

// ------------------------------------------------------------------------------------------------------- f16

static void compare_to_f16(const pith_cpu_kernels *level) {
    t_rng rng = 9;
    for (uint32_t n = 0; n <= 300; n++) {
        t_guarded x = t_guard(n * sizeof(float)), y = t_guard(n * sizeof(uint16_t));
        for (uint32_t i = 0; i < n; i++) // any f32: mostly within f16's range
            ((float *)x.p)[i] =
                pith_f32_from_bits(t_below(&rng, 2) ? (uint32_t)t_u64(&rng) : 0x33000000u + t_below(&rng, 0x15000000u));
        level->to_f16(x.p, y.p, n);
        for (uint32_t i = 0; i < n; i++) assert_int_equal(((uint16_t *)y.p)[i], pith_f32_to_f16(((float *)x.p)[i]));
        t_unguard(&x), t_unguard(&y);
    }
}
static void to_f16_is_the_portable_conversion(void **state) {
    (void)state;
    for_each_level(compare_to_f16);
}

// ---------------------------------------------------------------------------------------------------- levels

static void levels_are_chosen_by_name(void **state) {
    (void)state;
    const pith_cpu_kernels *all[4];
    const size_t n = pith_cpu_kernels_all(all);
    char list[64] = "nonsense";
    assert_true(n >= 1 && n <= 4);
    assert_string_equal(all[n - 1]->name, "portable");
    for (size_t i = 0; i < n; i++) { // forbid the best, then the two best, ...
        assert_ptr_equal(pith_cpu_kernels_choose(list), all[i]);
        strcat(strcat(list, ", "), all[i]->name);
    }
    assert_ptr_equal(pith_cpu_kernels_choose(list), all[n - 1]); // portable too is in the list now
    assert_ptr_equal(pith_cpu_kernels_choose(NULL), all[0]);
    assert_ptr_equal(pith_cpu_kernels_choose(""), all[0]);
    assert_true(pith_cpu_listed("avx512,avx2", "avx2") && pith_cpu_listed(" avx2 ,x", "avx2"));
    assert_true(!pith_cpu_listed("avx512", "avx51") && !pith_cpu_listed("avx", "avx2") &&
                !pith_cpu_listed(",,", "avx2"));
}

// One walk through all kernels. The sum was written down once; another value on any machine means that bits differ
// there, or that the arithmetic was changed, and results of earlier versions with it.
static const uint64_t golden = 0x1dc4133c8a0ef2fe;

static void all_architectures_agree(void **state) {
    (void)state;
    const pith_cpu_kernels *all[4];
    const size_t n = pith_cpu_kernels_all(all);
    for (size_t i = 0; i < n; i++) {
        t_rng rng = 10;
        uint64_t sum = T_FNV_BEGIN;
        for (size_t c = 0; c < T_COUNT(dims); c++)
            for (uint32_t elt_bytes = 2; elt_bytes <= 4; elt_bytes += 2) {
                enum { N_Q = 7 };
                const uint32_t d = dims[c];
                t_guarded k = new_section(&rng, (size_t)d * ROWS, elt_bytes);
                t_guarded v = new_section(&rng, (size_t)d * ROWS, elt_bytes);
                float q[N_Q * MAX_D], acc[N_Q * MAX_D], s[N_Q * ROWS], m[N_Q], l[N_Q], factor[N_Q];
                uint16_t half[N_Q * MAX_D];
                t_fill(&rng, q, N_Q * d, t_unit);
                for (uint32_t a = 0; a < N_Q; a++) m[a] = -INFINITY, l[a] = 0;
                memset(acc, 0, sizeof acc);
                for (uint32_t page = 0; page < 2; page++) {
                    all[i]->scores(q, d, N_Q, k.p, elt_bytes, d, (pith_ahead){0}, s);
                    all[i]->soften(s, N_Q, 50, m, l, factor);
                    all[i]->weigh(acc, factor, s, N_Q, v.p, elt_bytes, d, 50, (pith_ahead){0});
                    t_fill(&rng, q, N_Q * d, t_unit);
                }
                all[i]->to_f16(acc, half, N_Q * d);
                sum = t_fnv(t_fnv(t_fnv(sum, acc, N_Q * d * sizeof(float)), m, sizeof m), l, sizeof l);
                sum = t_fnv(t_fnv(sum, half, N_Q * d * sizeof half[0]), s, sizeof s);
                t_unguard(&k), t_unguard(&v);
            }
        print_message("             %s: %016llx\n", all[i]->name, (unsigned long long)sum);
        assert_true(sum == golden);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scores_have_the_same_bits),
        cmocka_unit_test(scores_are_right),
        cmocka_unit_test(weigh_has_the_same_bits),
        cmocka_unit_test(weigh_is_right),
        cmocka_unit_test(exp_is_right),
        cmocka_unit_test(exp_at_the_ends),
        cmocka_unit_test(exp_sum_has_the_same_bits),
        cmocka_unit_test(exp_sum_adds_in_the_documented_order),
        cmocka_unit_test(swiglu_has_the_same_bits),
        cmocka_unit_test(swiglu_is_right),
        cmocka_unit_test(soften_has_the_same_bits),
        cmocka_unit_test(soften_does_not_lose_a_nan),
        cmocka_unit_test(soften_by_hand),
        cmocka_unit_test(to_f16_is_the_portable_conversion),
        cmocka_unit_test(levels_are_chosen_by_name),
        cmocka_unit_test(all_architectures_agree),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
