#include "ops/ops_ref.h"

#include <math.h>
#include <stdbool.h>

double pith_ref_bf16(double x) {
    int exponent;
    const double fraction = frexp(x, &exponent); // in [0.5, 1): 8 bits are multiples of 2^-8
    return ldexp(nearbyint(fraction * 256), exponent - 8);
}

static double rounded(double x, pith_arith arith) { return arith == PITH_ARITH_BF16 ? pith_ref_bf16(x) : x; }

// The logit of one query and one key.
static double logit(const float *q, const float *k, uint32_t d, pith_arith arith) {
    double dot = 0;
    for (uint32_t i = 0; i < d; i++) dot += rounded(q[i], arith) * rounded(k[i], arith);
    return rounded(rounded(dot, arith) / sqrt(d), arith);
}

void pith_ref_attend(const float *q, const float *k, const float *v, uint32_t n, uint32_t d, double *out) {
    double top = -INFINITY, sum = 0;
    for (uint32_t j = 0; j < n; j++) top = fmax(top, logit(q, k + (size_t)j * d, d, PITH_ARITH_F32));
    for (uint32_t i = 0; i < d; i++) out[i] = 0;
    for (uint32_t j = 0; j < n; j++) {
        const double p = exp(logit(q, k + (size_t)j * d, d, PITH_ARITH_F32) - top);
        sum += p;
        for (uint32_t i = 0; i < d; i++) out[i] += p * v[(size_t)j * d + i];
    }
    for (uint32_t i = 0; i < d; i++) out[i] /= sum;
}

void pith_ref_mass(const float *q, uint32_t n_q, const float *k, uint32_t n, uint32_t d, pith_arith arith,
                   double *score) {
    for (uint32_t j = 0; j < n; j++) score[j] = 0;
    for (uint32_t a = 0; a < n_q; a++, q += d) {
        double top = -INFINITY, sum = 0;
        for (uint32_t j = 0; j < n; j++) top = fmax(top, logit(q, k + (size_t)j * d, d, arith));
        for (uint32_t j = 0; j < n; j++) sum += exp(logit(q, k + (size_t)j * d, d, arith) - top);
        for (uint32_t j = 0; j < n; j++)
            score[j] += rounded(exp(logit(q, k + (size_t)j * d, d, arith) - top) / sum, arith);
    }
    for (uint32_t j = 0; j < n; j++) score[j] = rounded(score[j], arith);
}

void pith_ref_aggregate(const double *in, uint32_t n_heads, uint32_t n_kv_heads, uint32_t n, pith_aggregate how,
                        pith_arith arith, double *out) {
    const uint32_t n_sets = how == PITH_AGG_LAYER ? 1 : n_kv_heads, heads = n_heads / n_sets; // heads of a set
    for (uint32_t s = 0; s < n_sets; s++)
        for (uint32_t j = 0; j < n; j++) {
            double sum = 0, top = -INFINITY;
            for (uint32_t h = s * heads; h < (s + 1) * heads; h++) {
                sum += in[(size_t)h * n + j];
                top = fmax(top, in[(size_t)h * n + j]);
            }
            out[(size_t)s * n + j] = how == PITH_AGG_HEAD ? top : rounded(sum / heads, arith);
        }
}

void pith_ref_pool(const double *in, uint32_t n, pith_pool how, uint32_t width, pith_arith arith, double *out) {
    const int64_t half = width / 2;
    for (int64_t j = 0; j < (int64_t)n; j++) {
        double sum = 0, top = -INFINITY;
        uint32_t count = 0;
        for (int64_t i = j - half; i <= j + half; i++)
            if (i >= 0 && i < (int64_t)n) {
                sum += in[i];
                top = fmax(top, in[i]);
                count++;
            }
        if (how == PITH_POOL_NONE) out[j] = in[j];
        else if (how == PITH_POOL_MAX) out[j] = top;
        else out[j] = rounded(sum / (arith == PITH_ARITH_BF16 ? width : count), arith);
    }
}

void pith_ref_top(const float *score, uint32_t n, uint32_t k, uint32_t *keep) {
    // An index is kept when fewer than k others come before it.
    for (uint32_t j = 0, n_kept = 0; j < n; j++) {
        uint32_t before = 0;
        for (uint32_t i = 0; i < n; i++) {
            const bool greater = score[i] > score[j] || (isnan(score[j]) && !isnan(score[i]));
            const bool equal = score[i] == score[j] || (isnan(score[i]) && isnan(score[j]));
            before += greater || (equal && i < j);
        }
        if (before < k) keep[n_kept++] = j;
    }
}
