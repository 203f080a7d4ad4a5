// What tests share: cmocka with all that it wants included first, seeded data, buffers that end at an unmapped page,
// bounds that say how much of them was used, and checksums. Everything is in this header, so that a test of the
// kernels can be compiled for another architecture from a handful of files.
#ifndef PITH_TESTS_T_H
#define PITH_TESTS_T_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#define T_COUNT(a) (sizeof(a) / sizeof((a)[0]))

// ---------------------------------------------------------------------------------------------------- random

// SplitMix64 (Steele, Lea and Flood, OOPSLA 2014). The state is the seed; the same on every machine.
typedef uint64_t t_rng;

static inline uint64_t t_u64(t_rng *rng) {
    uint64_t z = *rng += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}
static inline uint32_t t_below(t_rng *rng, uint32_t n) { return (uint32_t)((t_u64(rng) >> 32) * n >> 32); } // [0, n)
static inline uint32_t t_between(t_rng *rng, uint32_t low, uint32_t high) { return low + t_below(rng, high - low + 1); }

// Multiples of 2^-24 in [-1, 1): exact everywhere, since only integers are converted and scaled.
static inline float t_unit(t_rng *rng) { return (float)((int32_t)(t_u64(rng) >> 39) - (1 << 24)) * 0x1p-24f; }

// Much like activations: a sum of four, and one in 64 is twenty times as large.
static inline float t_nasty(t_rng *rng) {
    const float x = t_unit(rng) + t_unit(rng) + t_unit(rng) + t_unit(rng);
    return t_below(rng, 64) ? x : 20.0f * x;
}

// An integer in [-range, range] times 2^exponent: sums of few products of these have no rounding in any order.
static inline float t_exact(t_rng *rng, uint32_t range, int exponent) {
    return ldexpf((float)((int32_t)t_below(rng, 2 * range + 1) - (int32_t)range), exponent);
}

static inline void t_fill(t_rng *rng, float *x, size_t n, float (*draw)(t_rng *)) {
    for (size_t i = 0; i < n; i++) x[i] = draw(rng);
}

// ---------------------------------------------------------------------------------------------------- buffers

static inline void *t_new(size_t bytes) { // zeroed; the test ends when there is none
    void *p = calloc(bytes ? bytes : 1, 1);
    assert_non_null(p);
    return p;
}

// `bytes` bytes that end where an unmapped page begins, zeroed: one byte too far is a crash, in a release build too.
typedef struct t_guarded {
    void *p;
    void *map;
    size_t map_bytes;
} t_guarded;

static inline t_guarded t_guard(size_t bytes) {
    const size_t page = (size_t)sysconf(_SC_PAGESIZE), inside = (bytes + page - 1) / page * page;
    t_guarded g = {.map_bytes = inside + page};
    g.map = mmap(NULL, g.map_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(g.map != MAP_FAILED);
    assert_int_equal(mprotect((char *)g.map + inside, page, PROT_NONE), 0);
    g.p = (char *)g.map + inside - bytes;
    return g;
}
static inline void t_unguard(t_guarded *g) { munmap(g->map, g->map_bytes); }

// ----------------------------------------------------------------------------------------------------- bounds

// The largest error of a test as a share of what was allowed for it.
typedef struct t_bound {
    const char *what;
    double used; // 1: the bound is reached
} t_bound;

static inline void t_within(t_bound *b, double got, double want, double allowed) {
    const double error = fabs(got - want);
    if (!(error <= allowed)) fail_msg("%s: got %.9g, want %.9g, allowed %.3g", b->what, got, want, allowed);
    if (allowed > 0 && error / allowed > b->used) b->used = error / allowed;
}
static inline void t_report(const t_bound *b) {
    print_message("             %s: %.1f %% of the bound used\n", b->what, 100 * b->used);
}

// -------------------------------------------------------------------------------------------------- checksums

#define T_FNV_BEGIN 0xcbf29ce484222325u

// FNV-1a over bytes, 64 bits.
static inline uint64_t t_fnv(uint64_t sum, const void *data, size_t bytes) {
    const uint8_t *p = (const uint8_t *)data;
    for (size_t i = 0; i < bytes; i++) sum = (sum ^ p[i]) * 0x100000001b3u;
    return sum;
}

#endif
