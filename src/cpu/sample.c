// Drawing a token: temperature, top-k, top-p, min-p, in the order of Hugging Face's transformers, which the paper used.
//
// A full sort of a vocabulary costs more than a small model's step, so only the likely head of the distribution is
// sorted, and the head is widened until it holds what the filters may keep.
#include <math.h>
#include <stdlib.h>

#include "cpu/cpu.h"

typedef struct ranked {
    float w; // exp((logit - max) / temperature): weight relative to the likeliest token
    uint32_t id;
} ranked;

static float largest(const float *x, uint32_t n) {
    float lane[16]; // independent maxima, so that the loop has no chain through one register
    for (uint32_t i = 0; i < 16; i++) lane[i] = -INFINITY;
    uint32_t i = 0;
    for (; i + 16 <= n; i += 16)
        for (uint32_t j = 0; j < 16; j++) lane[j] = x[i + j] > lane[j] ? x[i + j] : lane[j];
    for (; i < n; i++) lane[0] = x[i] > lane[0] ? x[i] : lane[0];
    for (uint32_t j = 1; j < 16; j++) lane[0] = lane[j] > lane[0] ? lane[j] : lane[0];
    return lane[0];
}

static int32_t first_at_least(const float *x, uint32_t n, float least) {
    for (uint32_t i = 0; i < n; i++)
        if (x[i] >= least) return (int32_t)i;
    return 0; // nothing but NaN
}

static int by_weight(const void *pa, const void *pb) {
    const ranked *a = pa, *b = pb;
    if (a->w != b->w) return a->w > b->w ? -1 : 1;
    return a->id < b->id ? -1 : 1;
}

// The tokens with weight >= least, sorted; returns their number.
static uint32_t head(const float *w, uint32_t n, float least, ranked *out) {
    uint32_t count = 0;
    for (uint32_t i = 0; i < n; i++)
        if (w[i] >= least) out[count++] = (ranked){w[i], i};
    qsort(out, count, sizeof *out, by_weight);
    return count;
}

size_t pith_sample_scratch(uint32_t n) { return (size_t)n * (sizeof(float) + sizeof(ranked)); }

int32_t pith_sample(const pith_cpu_kernels *kernels, const float *logits, uint32_t n, const pith_draw *draw,
                    void *scratch) {
    const float max = largest(logits, n);
    if (draw->temperature <= 0 || !isfinite(max)) return first_at_least(logits, n, max);

    ranked *ranks = scratch;
    float *w = (float *)(void *)(ranks + n);
    const float scale = 1.0f / draw->temperature;
    for (uint32_t i = 0; i < n; i++) w[i] = (logits[i] - max) * scale;
    double total = kernels->exp_sum(w, n, 0.0f);

    // With no filter the ids' own order will do.
    const bool has_k = draw->top_k > 0 && draw->top_k < n;
    if (!has_k && draw->top_p >= 1 && draw->min_p <= 0) {
        double at = draw->uniform * total, sum = 0;
        for (uint32_t i = 0; i < n; i++)
            if ((sum += (double)w[i]) > at) return (int32_t)i;
        return first_at_least(logits, n, max); // the rounding of `total` left a crumb
    }

    uint32_t count = 0, kept = 0;
    double mass = 0;
    for (float least = 0x1p-10f;; least *= 0x1p-10f) {
        const bool all = least < 0x1p-120f;
        count = head(w, n, all ? 0.0f : least, ranks);
        if (has_k) {
            if (count < draw->top_k && !all) continue;
            if (count > draw->top_k) count = draw->top_k;
            total = 0; // top-p is of what top-k left
            for (uint32_t i = 0; i < count; i++) total += (double)ranks[i].w;
        }
        // The shortest head that holds top_p of the mass.
        const double wanted = draw->top_p < 1 ? (double)draw->top_p * total : INFINITY;
        for (kept = 0, mass = 0; kept < count && mass < wanted;) mass += (double)ranks[kept++].w;
        if (mass >= wanted || has_k || all || (draw->top_p >= 1 && least <= draw->min_p)) break;
    }
    while (kept > 1 && ranks[kept - 1].w < draw->min_p) mass -= (double)ranks[--kept].w; // the first weight is 1

    double at = draw->uniform * mass, sum = 0;
    for (uint32_t i = 0; i < kept; i++)
        if ((sum += (double)ranks[i].w) > at) return (int32_t)ranks[i].id;
    return (int32_t)ranks[0].id;
}
