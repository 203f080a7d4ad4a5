// Products of weights with a few columns: that a column's bits depend on nothing but the weights and itself, for every
// weight type; that all instruction set levels agree; and that the results are right.
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "cpu/cpuid.h"
#include "cpu/product.h"
#include "ggml-cpu.h"
#include "ggml.h"

enum { ROWS = 45, MAX_N = 64 }; // rows: two tiles of sixteen and a rest

// PITH_DISABLE_CPU for every level, best first.
static const char *const levels[] = {"", "avx512", "avx512,avx2"};
enum { N_LEVELS = 3 };

// ---------------------------------------------------------------------------------------------------- inputs

static uint32_t rng_state;
static uint32_t draw(void) { // xorshift (Marsaglia 2003)
    rng_state ^= rng_state << 13;
    rng_state ^= rng_state >> 17;
    rng_state ^= rng_state << 5;
    return rng_state;
}
static float uniform(void) { return (float)((double)draw() / 2147483648.0 - 1.0); }

// Bytes that end where an unmapped page begins: one byte too far crashes.
typedef struct flush {
    uint8_t *map, *p;
    size_t map_bytes;
} flush;

static flush flush_new(size_t bytes, size_t align) {
    const size_t page = (size_t)sysconf(_SC_PAGESIZE), whole = (bytes + page - 1) / page * page;
    flush f = {.map_bytes = whole + page};
    f.map = mmap(NULL, f.map_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(f.map != MAP_FAILED);
    assert_int_equal(mprotect(f.map + whole, page, PROT_NONE), 0);
    f.p = f.map + (whole - bytes) / align * align;
    return f;
}
static void flush_free(flush f) { munmap(f.map, f.map_bytes); }

// Blocks of random bytes for the types whose quantisers take seconds: every code is an index into a table of that size.
// Only the f16 scale, 2^-6 here, must be a sane number. Returns whether `type` is one of them.
static bool random_blocks(enum ggml_type type, uint8_t *w, size_t bytes) {
    const bool iq1_m = type == GGML_TYPE_IQ1_M;
    if (!iq1_m && type != GGML_TYPE_IQ1_S && type != GGML_TYPE_IQ2_XXS && type != GGML_TYPE_IQ2_XS &&
        type != GGML_TYPE_IQ2_S && type != GGML_TYPE_IQ3_XXS && type != GGML_TYPE_IQ3_S)
        return false;
    for (size_t i = 0; i < bytes; i++) w[i] = (uint8_t)(draw() >> 11);
    const uint16_t scale = 0x2400;
    for (uint8_t *block = w; block < w + bytes; block += ggml_type_size(type)) {
        if (!iq1_m) memcpy(block, &scale, sizeof scale);
        for (int i = 0; iq1_m && i < 4; i++) // in the top four bits of four 16-bit words at the end, lowest first
            block[48 + 2 * i + 1] = (uint8_t)((block[48 + 2 * i + 1] & 15) | (scale >> 4 * i & 15) << 4);
    }
    return true;
}

// A matrix (ROWS, k) of one type and MAX_N columns of k activations.
typedef struct problem {
    enum ggml_type type;
    int64_t k;
    size_t row_bytes;
    flush w;
    double *exact; // (ROWS, k) what the weights are
    float *x;      // (MAX_N, k)
} problem;

static problem problem_new(enum ggml_type type, int64_t k) {
    problem p = {.type = type, .k = k, .row_bytes = ggml_row_size(type, k)};
    const size_t n = (size_t)(ROWS * k);
    float *f = malloc(n * sizeof *f), *importance = malloc((size_t)k * sizeof *importance);
    rng_state = 12345u + (uint32_t)type;
    for (size_t i = 0; i < n; i++) f[i] = uniform() * (draw() % 32 ? 1.0f : 4.0f);
    for (int64_t i = 0; i < k; i++) importance[i] = 1.0f;
    p.w = flush_new(p.row_bytes * ROWS, 1);
    flush whole = flush_new(p.row_bytes * ROWS, 64); // ggml wants aligned blocks when it quantises
    if (!random_blocks(type, whole.p, p.row_bytes * ROWS))
        ggml_quantize_chunk(type, f, whole.p, 0, ROWS, k, importance);
    memcpy(p.w.p, whole.p, p.row_bytes * ROWS);
    if (type == GGML_TYPE_F32) memcpy(f, whole.p, n * sizeof *f);
    else ggml_get_type_traits(type)->to_float(whole.p, f, (int64_t)n);
    p.exact = malloc(n * sizeof *p.exact);
    for (size_t i = 0; i < n; i++) p.exact[i] = (double)f[i];
    p.x = malloc((size_t)(MAX_N * k) * sizeof *p.x);
    for (int64_t i = 0; i < MAX_N * k; i++) p.x[i] = uniform() * (draw() % 64 ? 1.0f : 20.0f); // outliers
    flush_free(whole);
    free(importance);
    free(f);
    return p;
}

static void problem_free(problem *p) {
    flush_free(p->w);
    free(p->exact);
    free(p->x);
}

// --------------------------------------------------------------------------------------------------- products

typedef struct share {
    const pith_product *kernel;
    const problem *p;
    const void *packed;
    uint32_t n;
    int64_t r0, r1;
    float *y; // (n, ROWS)
} share;

static void *run_share(void *arg) {
    const share *s = arg;
    s->kernel->rows(s->kernel, s->p->w.p, s->p->row_bytes, s->p->k, s->packed, s->n, s->r0, s->r1, s->y, ROWS);
    return NULL;
}

// Multiplies the columns order[0 .. n) on n_threads threads, into y (n, ROWS).
static void multiply(const pith_product *kernel, const problem *p, const uint32_t *order, uint32_t n,
                     uint32_t n_threads, float *y) {
    const size_t bytes = kernel->packed_bytes(kernel, p->k);
    assert_int_equal(bytes % 64, 0);
    flush packed = flush_new(bytes * n, 64), out = flush_new(ROWS * n * sizeof(float), sizeof(float));
    for (uint32_t c = 0; c < n; c++) kernel->pack(kernel, p->x + order[c] * (size_t)p->k, packed.p + c * bytes, p->k);
    for (size_t i = 0; i < ROWS * n; i++) ((float *)(void *)out.p)[i] = NAN; // every element must be written
    share shares[4];
    pthread_t threads[4];
    for (uint32_t t = 0; t < n_threads; t++) {
        shares[t] =
            (share){kernel, p, packed.p, n, ROWS * t / n_threads, ROWS * (t + 1) / n_threads, (float *)(void *)out.p};
        if (t) assert_int_equal(pthread_create(&threads[t], NULL, run_share, &shares[t]), 0);
    }
    run_share(&shares[0]);
    for (uint32_t t = 1; t < n_threads; t++) pthread_join(threads[t], NULL);
    memcpy(y, out.p, ROWS * n * sizeof(float));
    flush_free(packed);
    flush_free(out);
}

// y (MAX_N, ROWS): each column by itself.
static void multiply_alone(const pith_product *kernel, const problem *p, float *y) {
    for (uint32_t c = 0; c < MAX_N; c++) multiply(kernel, p, &c, 1, 1, y + (size_t)c * ROWS);
}

// Batches of n columns at different places, against the columns by themselves.
static void check_invariance(const pith_product *kernel, const problem *p) {
    static float alone[MAX_N * ROWS], y[MAX_N * ROWS];
    multiply_alone(kernel, p, alone);
    for (uint32_t n = 1; n <= MAX_N; n = n == 17 ? MAX_N : n + 1) {
        for (uint32_t place = 0; place<n; place += n> 17 ? 21 : 1) { // column 0 takes every place
            uint32_t order[MAX_N];
            for (uint32_t c = 0; c < n; c++) order[c] = (c + n - place) % n;
            multiply(kernel, p, order, n, 1 + (n + place) % 4, y);
            for (uint32_t c = 0; c < n; c++)
                if (memcmp(y + c * ROWS, alone + order[c] * ROWS, ROWS * sizeof *y))
                    fail_msg("%s (%s), k %d: column %u of %u differs", ggml_type_name(p->type), kernel->name, (int)p->k,
                             (unsigned)c, (unsigned)n);
        }
    }
}

// Every row range, on one thread, gives the same bits and writes nothing else.
static void check_ranges(const pith_product *kernel, const problem *p) {
    enum { N = 3 };
    const uint32_t order[N] = {0, 1, 2};
    static float whole[N * ROWS], y[N * ROWS];
    multiply(kernel, p, order, N, 1, whole);
    const size_t bytes = kernel->packed_bytes(kernel, p->k);
    uint8_t *packed = aligned_alloc(64, bytes * N);
    for (uint32_t c = 0; c < N; c++) kernel->pack(kernel, p->x + c * (size_t)p->k, packed + c * bytes, p->k);
    for (int64_t r0 = 0; r0 < ROWS; r0 += 7) {
        for (int64_t r1 = r0; r1 <= ROWS; r1++) {
            for (size_t i = 0; i < N * ROWS; i++) y[i] = -1234.5f;
            kernel->rows(kernel, p->w.p, p->row_bytes, p->k, packed, N, r0, r1, y, ROWS);
            for (int64_t i = 0; i < N * ROWS; i++) {
                const float want = i % ROWS >= r0 && i % ROWS < r1 ? whole[i] : -1234.5f;
                assert_memory_equal(&y[i], &want, sizeof want);
            }
        }
    }
    free(packed);
}

// The elements of one row of the type's activation partner that share a scale; 0: no quantisation to integers.
static int64_t activation_block(enum ggml_type partner) {
    return partner == GGML_TYPE_Q8_K ? 256 : partner == GGML_TYPE_Q8_0 || partner == GGML_TYPE_Q8_1 ? 32 : 0;
}

// Returns the largest part of the bound that was used. Per block of 32: |W| and |X| its largest weight and activation.
// Activations: half a step of X' / 127, X' the largest that shares its scale (ggml keeps the scale in f16: another
// 2^-11 of every activation, also in the sums that minima are multiplied with), or the rounding to f16 or bf16; none
// where ours stay f32. Sums: a rounding for each element of a lane and a few more, ours having at least 16 lanes or
// elements per rounding, of at most the sum of magnitudes; thrice that where scales and minima are multiplied in.
static double check_bound(const pith_product *kernel, const problem *p) {
    static float y[MAX_N * ROWS];
    multiply_alone(kernel, p, y);
    const enum ggml_type partner = ggml_get_type_traits_cpu(p->type)->vec_dot_type;
    const bool ours = strcmp(kernel->name, "ggml") != 0;
    const int64_t shared = ours && activation_block(partner) ? 32 : activation_block(partner);
    const double relative = ours || partner == GGML_TYPE_F32 ? 0 : partner == GGML_TYPE_BF16 ? 0x1p-9 : 0x1p-11;
    const double roundings = (double)(ours ? p->k / 16 + 8 : p->k + 16) * (shared ? 3 : 1);
    double worst = 0;
    for (int64_t c = 0; c < MAX_N; c++) {
        const float *x = p->x + c * p->k;
        for (int64_t r = 0; r < ROWS; r++) {
            const double *w = p->exact + r * p->k;
            double sum = 0, bound = 0;
            for (int64_t i = 0; i < p->k; i += 32) {
                double most_w = 0, most_x = 0, most_shared = 0;
                const int64_t end = i + 32 < p->k ? i + 32 : p->k;
                for (int64_t j = i; j < end; j++) {
                    sum += w[j] * (double)x[j];
                    most_w = fmax(most_w, fabs(w[j]));
                    most_x = fmax(most_x, fabs((double)x[j]));
                }
                const int64_t first = shared ? i / shared * shared : i;
                for (int64_t j = first; j < first + shared; j++) most_shared = fmax(most_shared, fabs((double)x[j]));
                const double size = (double)(end - i) * most_w;
                bound += size * most_shared / 127 / 2 * 1.02 + size * most_x * relative;
                bound += size * most_x * roundings * 0x1p-24;
            }
            worst = fmax(worst, fabs((double)y[c * ROWS + r] - sum) / bound);
        }
    }
    return worst;
}

static bool is_weight_type(int type) {
    const struct ggml_type_traits_cpu *traits = ggml_get_type_traits_cpu((enum ggml_type)type);
    return traits->vec_dot && ggml_blck_size((enum ggml_type)type) > 0;
}

static void test_every_type(void **state) {
    (void)state;
    int n_types = 0;
    for (int type = 0; type < GGML_TYPE_COUNT; type++) {
        if (!is_weight_type(type)) continue;
        n_types++;
        const int64_t block = ggml_blck_size((enum ggml_type)type);
        // one block; an odd number of them; for types without blocks a rest of every kind
        const int64_t sizes[2] = {block == 1 ? 101 : block, block == 1 ? 192 : block < 256 ? 3 * block + 256 : 768};
        for (int i = 0; i < 2; i++) {
            problem p = problem_new((enum ggml_type)type, sizes[i]);
            const pith_product *seen[N_LEVELS] = {0};
            for (int l = 0; l < N_LEVELS; l++) {
                seen[l] = pith_product_for(type, levels[l]);
                assert_non_null(seen[l]);
                assert_int_equal(seen[l]->type, type);
                if (l && seen[l] == seen[l - 1]) continue;
                check_invariance(seen[l], &p);
                check_ranges(seen[l], &p);
                const double used = check_bound(seen[l], &p);
                print_message("%8s k %4d %-8s used %.3f of the bound\n", ggml_type_name((enum ggml_type)type), (int)p.k,
                              seen[l]->name, used);
                assert_true(used <= 1);
            }
            problem_free(&p);
        }
    }
    assert_true(n_types >= 25);
}

// All levels of our own kernels give the same bits.
static void test_levels(void **state) {
    (void)state;
    int n_compared = 0;
    for (int type = 0; type < GGML_TYPE_COUNT; type++) {
        if (!is_weight_type(type)) continue;
        const int64_t block = ggml_blck_size((enum ggml_type)type);
        problem p = problem_new((enum ggml_type)type, block == 1 ? 203 : block < 256 ? 288 : 1024);
        static float best[MAX_N * ROWS], y[MAX_N * ROWS];
        const pith_product *first = pith_product_for(type, "");
        multiply_alone(first, &p, best);
        for (int l = 1; l < N_LEVELS; l++) {
            const pith_product *kernel = pith_product_for(type, levels[l]);
            if (kernel == first) continue;
            multiply_alone(kernel, &p, y);
            if (memcmp(y, best, sizeof y))
                fail_msg("%s: %s differs from %s", ggml_type_name(p.type), kernel->name, first->name);
            n_compared++;
        }
        problem_free(&p);
    }
    print_message("%d pairs of levels\n", n_compared);
}

// The rows [r0, r1) of arranged weights times columns order[0 .. n), into y (n, ROWS), nothing else of which is touched.
static void multiply_arranged(const pith_arranged *a, const problem *p, const void *w, const uint32_t *order, uint32_t n,
                              int64_t r0, int64_t r1, float *y) {
    const size_t bytes = a->product.packed_bytes(&a->product, p->k);
    flush packed = flush_new(bytes * n, 64);
    for (uint32_t c = 0; c < n; c++)
        a->product.pack(&a->product, p->x + order[c] * (size_t)p->k, packed.p + c * bytes, p->k);
    a->product.rows(&a->product, w, a->row_bytes(p->k), p->k, packed.p, n, r0, r1, y, ROWS);
    flush_free(packed);
}

// Weights in a kernel's own order, arranged in pieces, give the bits that they give in the file's, for every number of
// columns and every range of rows.
static void check_arranged(const pith_arranged *a, const problem *p) {
    enum { STEP = PITH_PRODUCT_ROW_STEP };
    const int64_t all = (ROWS + STEP - 1) / STEP * STEP;
    flush w = flush_new((size_t)all * a->row_bytes(p->k), 64);
    for (int64_t r = all - STEP; r >= 0; r -= STEP)
        a->arrange(p->w.p, p->row_bytes, p->k, r, r + STEP < ROWS ? r + STEP : ROWS, w.p);
    static float want[MAX_N * ROWS], got[MAX_N * ROWS];
    multiply_alone(pith_product_for((int)p->type, ""), p, want);
    uint32_t order[MAX_N];
    for (uint32_t c = 0; c < MAX_N; c++) order[c] = c;
    for (uint32_t n = 1; n <= MAX_N; n = n == 17 ? MAX_N : n + 1) {
        multiply_arranged(a, p, w.p, order, n, 0, ROWS, got);
        assert_memory_equal(got, want, n * ROWS * sizeof *got);
    }
    for (int64_t r0 = 0; r0 < ROWS; r0 += STEP)
        for (int64_t r1 = r0; r1 <= ROWS; r1++) {
            for (size_t i = 0; i < 3 * ROWS; i++) got[i] = -1234.5f;
            multiply_arranged(a, p, w.p, order, 3, r0, r1, got);
            for (int64_t i = 0; i < 3 * ROWS; i++) {
                const float expected = i % ROWS >= r0 && i % ROWS < r1 ? want[i] : -1234.5f;
                assert_memory_equal(&got[i], &expected, sizeof expected);
            }
        }
    flush_free(w);
}

static void test_arranged(void **state) {
    (void)state;
    pith_cpu_features cpu;
    pith_cpu_detect(&cpu);
    assert_true(!cpu.avx512_vnni || pith_arranged_for(GGML_TYPE_Q8_0, NULL) != NULL);
    assert_null(pith_arranged_for(GGML_TYPE_Q8_0, "avx512"));
    assert_null(pith_arranged_for(GGML_TYPE_Q8_0, "arranged"));
    assert_null(pith_arranged_for(GGML_TYPE_F32, NULL));
    for (int type = 0; type < GGML_TYPE_COUNT; type++) {
        const pith_arranged *a = pith_arranged_for(type, "");
        if (!a) continue;
        const pith_product *other = pith_product_for(type, "");
        assert_true(a->product.type == type && pith_product_same_pack(&a->product, other));
        const int64_t block = ggml_blck_size((enum ggml_type)type), n_blocks[] = {1, 2, 3, 28, 33};
        for (size_t i = 0; i < sizeof n_blocks / sizeof *n_blocks; i++) {
            problem p = problem_new((enum ggml_type)type, n_blocks[i] * block);
            check_arranged(a, &p);
            problem_free(&p);
        }
    }
}

// Weights of random codes, activations small integers with 127 in every block, so that packing loses nothing, times
// powers of two: every sum is exact and equals the sum in double.
static void test_exact(void **state) {
    (void)state;
    static const struct {
        enum ggml_type type;
        size_t block_bytes;
        int d[2];             // offsets of f16 scales, -1: none
        int scales, n_scales; // bytes that are masked to small scales
        uint8_t mask;
    } cases[] = {
        {GGML_TYPE_Q8_0, 34, {0, -1}, 0, 0, 0},          {GGML_TYPE_Q4_0, 18, {0, -1}, 0, 0, 0},
        {GGML_TYPE_Q4_K, 144, {0, 2}, 4, 12, 0xd3},      {GGML_TYPE_Q5_K, 176, {0, 2}, 4, 12, 0xd3},
        {GGML_TYPE_Q6_K, 210, {208, -1}, 192, 16, 0x87},
    };
    static const uint16_t powers[] = {0x3c00, 0x3800, 0xb800, 0xbc00}; // 1, 1/2, -1/2, -1 in f16
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        problem p = problem_new(cases[i].type, 256);
        const size_t n_blocks = p.row_bytes * ROWS / cases[i].block_bytes;
        for (size_t b = 0; b < n_blocks; b++) {
            uint8_t *block = p.w.p + b * cases[i].block_bytes;
            for (size_t j = 0; j < cases[i].block_bytes; j++) block[j] = (uint8_t)(draw() >> 11);
            for (int j = 0; j < 2; j++)
                if (cases[i].d[j] >= 0) memcpy(block + cases[i].d[j], &powers[draw() % 4], 2);
            for (int j = 0; j < cases[i].n_scales; j++) block[cases[i].scales + j] &= cases[i].mask;
        }
        float *f = malloc((size_t)(ROWS * p.k) * sizeof *f);
        ggml_get_type_traits(p.type)->to_float(p.w.p, f, ROWS * p.k);
        for (int64_t j = 0; j < MAX_N * p.k; j++) {
            int a = j % 32 == 5 ? (draw() & 1 ? 127 : -127) : (int)(draw() % 7) - 3;
            p.x[j] = (float)a * 0.25f;
        }
        for (int l = 0; l < N_LEVELS; l++) {
            static float y[MAX_N * ROWS];
            const pith_product *kernel = pith_product_for((int)p.type, levels[l]);
            if (!strcmp(kernel->name, "ggml")) continue; // rounds scales to f16 and sums of its own kind
            multiply_alone(kernel, &p, y);
            for (int64_t c = 0; c < MAX_N; c++) {
                for (int64_t r = 0; r < ROWS; r++) {
                    double sum = 0, size = 0; // in units of 1/8: half a code times a quarter
                    for (int64_t j = 0; j < p.k; j++) {
                        sum += (double)f[r * p.k + j] * (double)p.x[c * p.k + j];
                        size += 8 * fabs((double)f[r * p.k + j] * (double)p.x[c * p.k + j]);
                    }
                    assert_true(size < 0x1p23); // representable on the way, also with the minima apart
                    if ((double)y[c * ROWS + r] != sum)
                        fail_msg("%s (%s), row %d, column %d: %a, not %a", ggml_type_name(p.type), kernel->name, (int)r,
                                 (int)c, (double)y[c * ROWS + r], sum);
                }
            }
        }
        free(f);
        problem_free(&p);
    }
}

// An infinity or NaN makes its own column NaN or infinite and no other; zeros and tiny numbers give zeros and tiny
// ones.
static void test_odd_activations(void **state) {
    (void)state;
    for (int type = 0; type < GGML_TYPE_COUNT; type++) {
        for (int l = 0; is_weight_type(type) && l < N_LEVELS; l++) {
            const pith_product *kernel = pith_product_for(type, levels[l]);
            if (!strcmp(kernel->name, "ggml")) continue;
            problem p = problem_new((enum ggml_type)type, 256);
            const float odd[5] = {NAN, INFINITY, -INFINITY, 0.0f, 0x1p-140f};
            for (int i = 0; i < 2; i++) p.x[i * p.k + 77] = odd[i];
            p.x[2 * p.k + 200] = odd[2];
            for (int i = 3; i < 5; i++)
                for (int64_t j = 0; j < p.k; j++) p.x[i * p.k + j] = odd[i];
            const uint32_t order[6] = {0, 1, 2, 3, 4, 5}, sixth = 5;
            static float y[6 * ROWS], alone[ROWS];
            multiply(kernel, &p, order, 6, 1, y);
            multiply(kernel, &p, &sixth, 1, 1, alone);
            for (int r = 0; r < ROWS; r++) {
                for (int i = 0; i < 3; i++) assert_true(!isfinite(y[i * ROWS + r]));
                assert_true(y[3 * ROWS + r] == 0);
                assert_true(fabsf(y[4 * ROWS + r]) < 0x1p-100f);
            }
            assert_memory_equal(alone, y + 5 * ROWS, sizeof alone);
            problem_free(&p);
        }
    }
}

static void test_choice(void **state) {
    (void)state;
    assert_null(pith_product_for(GGML_TYPE_I32, ""));
    assert_null(pith_product_for(GGML_TYPE_Q8_K, NULL));
    assert_null(pith_product_for(-1, ""));
    assert_null(pith_product_for(GGML_TYPE_COUNT, ""));
    pith_cpu_features cpu;
    pith_cpu_detect(&cpu);
    if (cpu.avx512_vnni) assert_string_equal(pith_product_for(GGML_TYPE_Q8_0, NULL)->name, "avx512");
    if (cpu.avx2) assert_string_equal(pith_product_for(GGML_TYPE_Q8_0, "avx512")->name, "avx2");
    if (cpu.avx2) assert_string_equal(pith_product_for(GGML_TYPE_Q8_0, "avx2,avx512")->name, "portable");
    const pith_product *q8_0 = pith_product_for(GGML_TYPE_Q8_0, ""), *f32 = pith_product_for(GGML_TYPE_F32, "");
    const pith_product *iq4 = pith_product_for(GGML_TYPE_IQ4_XS, ""), *q2 = pith_product_for(GGML_TYPE_Q2_K, "");
    const pith_product *q5_1 = pith_product_for(GGML_TYPE_Q5_1, "");
    assert_true(pith_product_same_pack(q8_0, q8_0));
    assert_true(pith_product_same_pack(iq4, q2)); // both Q8_K
    assert_false(pith_product_same_pack(q8_0, f32));
    assert_false(pith_product_same_pack(q2, q5_1)); // Q8_K, Q8_1
}

static int set_up(void **state) {
    (void)state;
    ggml_cpu_init();
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_choice),     cmocka_unit_test(test_exact),           cmocka_unit_test(test_levels),
        cmocka_unit_test(test_every_type), cmocka_unit_test(test_odd_activations), cmocka_unit_test(test_arranged),
    };
    return cmocka_run_group_tests_name("product", tests, set_up, NULL);
}
