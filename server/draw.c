#include "server/draw.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

static float largest(const float *x, uint32_t n) {
    float most = x[0];
    for (uint32_t i = 1; i < n; i++)
        if (x[i] > most || isnan(most)) most = x[i];
    return most;
}

static int by_rank(const void *a, const void *b) {
    const draw_ranked *x = a, *y = b;
    if (x->w != y->w) return x->w > y->w ? -1 : 1;
    return x->id < y->id ? -1 : 1;
}

// The tokens with weight >= least, best first.
static uint32_t rank(const float *logits, uint32_t n, float max, float temperature, float least, draw_ranked *out) {
    uint32_t count = 0;
    for (uint32_t i = 0; i < n; i++) {
        const float w = expf((logits[i] - max) / temperature);
        if (w >= least) out[count++] = (draw_ranked){w, i};
    }
    qsort(out, count, sizeof *out, by_rank);
    return count;
}

// How many of the ranked tokens the filters leave, at least 1; `total` is the sum of all weights, `mass` that of those
// left.
static uint32_t filter(const draw_ranked *ranked, uint32_t count, double total, const pith_sampling *how,
                       double *mass) {
    uint32_t most = count;
    if (how->top_k > 0 && how->top_k < most) {
        most = how->top_k, total = 0;
        for (uint32_t i = 0; i < most; i++) total += (double)ranked[i].w; // top-p is of what top-k left
    }
    const double wanted = how->top_p < 1 ? (double)how->top_p * total : INFINITY;
    uint32_t kept = 0;
    for (*mass = 0; kept < most && *mass < wanted; kept++) *mass += (double)ranked[kept].w;
    for (; kept > 1 && ranked[kept - 1].w < how->min_p; kept--) *mass -= (double)ranked[kept - 1].w;
    return kept;
}

pith_token draw_token(const float *logits, uint32_t n, const pith_sampling *how, double uniform, draw_ranked *scratch) {
    const float max = largest(logits, n);
    if (!(how->temperature > 0) || !isfinite(max)) { // the likeliest; nothing finite: whatever comes first
        uint32_t i = 0;
        while (i + 1 < n && !(logits[i] >= max)) i++;
        return (pith_token)i;
    }
    double total = 0;
    for (uint32_t i = 0; i < n; i++) total += exp((double)((logits[i] - max) / how->temperature));
    double sum = 0;
    if (how->top_k == 0 && how->top_p >= 1 && how->min_p <= 0) { // no filter: in the order of ids, as the engine does
        uint32_t last = 0;
        for (uint32_t i = 0; i < n; i++) {
            const double w = exp((double)((logits[i] - max) / how->temperature));
            if ((sum += w) > uniform * total) return (pith_token)i;
            if (w > 0) last = i;
        }
        return (pith_token)last; // the draw lies in the crumb of rounding behind the last token
    }
    // Sorting what can matter is enough, unless the filters reach further.
    uint32_t count = rank(logits, n, max, how->temperature, 0x1p-24f, scratch), kept;
    double mass, listed = 0;
    for (uint32_t i = 0; i < count; i++) listed += (double)scratch[i].w;
    const bool short_of_k = how->top_k > count, short_of_p = how->top_k == 0 && listed < (double)how->top_p * total;
    if ((short_of_k || short_of_p) && how->min_p < 0x1p-24f) count = rank(logits, n, max, how->temperature, 0, scratch);
    kept = filter(scratch, count, total, how, &mass);
    uint32_t i = 0;
    while (i + 1 < kept && (sum += (double)scratch[i].w) <= uniform * mass) i++;
    return (pith_token)scratch[i].id;
}

uint32_t draw_tops(const float *logits, uint32_t n, uint32_t k, draw_ranked *out) {
    uint32_t count = 0;
    for (uint32_t i = 0; i < n && k > 0; i++) {
        if (isnan(logits[i]) || (count == k && logits[i] <= out[k - 1].w)) continue;
        uint32_t at = count < k ? count++ : k - 1; // the last place, free or the worst one's
        for (; at > 0 && out[at - 1].w < logits[i]; at--) out[at] = out[at - 1];
        out[at] = (draw_ranked){logits[i], i};
    }
    return count;
}

double draw_log_total(const float *logits, uint32_t n) {
    const float max = largest(logits, n);
    double sum = 0;
    for (uint32_t i = 0; i < n; i++) sum += exp((double)(logits[i] - max));
    return (double)max + log(sum);
}
