// Drawing a token: temperature, top-k, top-p, min-p, in the order of Hugging Face's transformers, which the paper used.
// Of equal tokens the lower id is the likelier one, so that exactly k are left of top-k (transformers keeps all that
// equal the k-th).
//
// A full sort of a vocabulary costs more than a small model's step, so only the likely head of the distribution is
// looked at, and the head is widened until it holds what the filters may keep.
#include "cpu/sample.h"

#include <math.h>

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

// In f64: a sum of many equal f32 numbers in f32 is off by more than a top-p threshold may be.
static double sum_of(const float *w, uint32_t n) {
    double lane[16] = {0}, sum = 0;
    uint32_t i = 0;
    for (; i + 16 <= n; i += 16)
        for (uint32_t j = 0; j < 16; j++) lane[j] += (double)w[i + j];
    for (; i < n; i++) sum += (double)w[i];
    for (uint32_t j = 0; j < 16; j++) sum += lane[j];
    return sum;
}

// Heaps in place of a sort: only as many tokens are put in order as are looked at, and no memory is needed (the C
// library's qsort allocates).
static bool before(ranked a, ranked b) { return a.w != b.w ? a.w > b.w : a.id < b.id; }

static void sink(ranked *heap, uint32_t n, uint32_t i) {
    const ranked x = heap[i];
    for (uint32_t child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && before(heap[child + 1], heap[child])) child++;
        if (!before(heap[child], x)) break;
        heap[i] = heap[child];
    }
    heap[i] = x;
}

// The tokens with weight >= least, as a heap; returns their number.
static uint32_t head(const float *w, uint32_t n, float least, ranked *heap) {
    uint32_t count = 0;
    for (uint32_t i = 0; i < n; i++)
        if (w[i] >= least) heap[count++] = (ranked){w[i], i};
    for (uint32_t i = count / 2; i-- > 0;) sink(heap, count, i);
    return count;
}

// Moves the likeliest token from the heap of n to the place that becomes free behind it; returns its weight.
static float pop(ranked *heap, uint32_t n) {
    const ranked x = heap[0];
    heap[0] = heap[n - 1];
    sink(heap, n - 1, 0);
    heap[n - 1] = x;
    return x.w;
}

// What the filters leave: the likeliest token is first[0], then come first[-1], first[-2], ...
typedef struct kept {
    const ranked *first;
    uint32_t n; // at least 1
    double mass;
} kept;

static bool has_top_k(const pith_draw *draw, uint32_t n) { return draw->top_k > 0 && draw->top_k < n; }

// w: (n), of which the largest is 1; `total` is their sum. heap: room for n.
static kept filter(const float *w, uint32_t n, double total, const pith_draw *draw, ranked *heap) {
    const bool has_k = has_top_k(draw, n), has_p = draw->top_p < 1;
    kept k = {0};
    for (float least = 0x1p-10f;; least *= 0x1p-10f) {
        const bool all = least < 0x1p-120f;
        const uint32_t count = head(w, n, all ? 0.0f : least, heap);
        if (has_k && count < draw->top_k && !all) continue;
        const uint32_t most = has_k && draw->top_k < count ? draw->top_k : count;
        double wanted = has_p && !has_k ? (double)draw->top_p * total : INFINITY;
        k.first = &heap[count - 1];
        for (k.n = 0, k.mass = 0; k.n < most && k.mass < wanted; k.n++) k.mass += (double)pop(heap, count - k.n);
        if (k.mass >= wanted || has_k || all || least <= draw->min_p) break;
    }
    if (has_k && has_p) { // top-p is of what top-k left
        const uint32_t most = k.n;
        const double wanted = (double)draw->top_p * k.mass;
        for (k.n = 0, k.mass = 0; k.n < most && k.mass < wanted; k.n++) k.mass += (double)k.first[-(ptrdiff_t)k.n].w;
    }
    while (k.n > 1) { // min-p is relative to the likeliest, which has weight 1
        const float last = k.first[1 - (ptrdiff_t)k.n].w;
        if (last >= draw->min_p) break;
        k.mass -= (double)last, k.n--;
    }
    return k;
}

size_t pith_sample_scratch(uint32_t n) { return (size_t)n * (sizeof(float) + sizeof(ranked)); }

int32_t pith_sample(const pith_cpu_kernels *kernels, const float *logits, uint32_t n, const pith_draw *draw,
                    void *scratch) {
    const float max = largest(logits, n), scale = 1.0f / draw->temperature;
    // A temperature whose inverse overflows leaves the likeliest token alone, as 0 does.
    if (draw->temperature <= 0 || !isfinite(scale) || !isfinite(max)) return first_at_least(logits, n, max);

    ranked *heap = scratch;
    float *w = (float *)(void *)(heap + n);
    for (uint32_t i = 0; i < n; i++) w[i] = (logits[i] - max) * scale;
    kernels->exp_sum(w, n, 0.0f);
    const double total = sum_of(w, n);
    double sum = 0;

    if (!has_top_k(draw, n) && draw->top_p >= 1 && draw->min_p <= 0) { // no filter: the ids' own order will do
        for (uint32_t i = 0; i < n; i++)
            if ((sum += (double)w[i]) > draw->uniform * total) return (int32_t)i;
        while (w[n - 1] == 0) n--; // `total` was rounded up, and the draw lies in the crumb behind the last token
        return (int32_t)n - 1;
    }
    const kept k = filter(w, n, total, draw, heap);
    ptrdiff_t i = 0;
    while (i + 1 < (ptrdiff_t)k.n && (sum += (double)k.first[-i].w) <= draw->uniform * k.mass) i++;
    return (int32_t)k.first[-i].id;
}
