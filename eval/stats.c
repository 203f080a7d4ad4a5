#include "eval/stats.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

enum { RESAMPLES = 10000 };

static const eval_interval NONE = {NAN, NAN, NAN};

static eval_interval wilson(double p, double n) {
    const double z = 1.959963984540054; // 97.5 % quantile of the normal distribution
    const double zz = z * z / n, half = z * sqrt(p * (1 - p) / n + zz / (4 * n));
    const eval_interval i = {p, (p + zz / 2 - half) / (1 + zz), (p + zz / 2 + half) / (1 + zz)};
    return (eval_interval){p, i.low > 0 ? i.low : 0, i.high < 1 ? i.high : 1};
}

eval_interval eval_pass_rate(const eval_cluster *clusters, size_t n) {
    if (n == 0) return NONE;
    double p = 0, n_samples = 0, squares = 0;
    for (size_t i = 0; i < n; i++) {
        p += (double)clusters[i].n_correct / clusters[i].n / (double)n;
        n_samples += clusters[i].n;
    }
    for (size_t i = 0; i < n; i++) {
        const double d = (double)clusters[i].n_correct / clusters[i].n - p;
        squares += d * d;
    }
    bool all = true, none = true; // exactly, where p may be rounded
    for (size_t i = 0; i < n; i++) {
        all = all && clusters[i].n_correct == clusters[i].n;
        none = none && clusters[i].n_correct == 0;
    }
    if (all || none) return wilson(all ? 1 : 0, (double)n);
    if (n == 1) return wilson(p, 1);
    const double variance = squares / ((double)n * (double)(n - 1));
    const double n_eff = variance > 0 ? p * (1 - p) / variance : n_samples;
    return wilson(p, n_eff < n_samples ? n_eff : n_samples);
}

// SplitMix64 (Steele, Lea and Flood 2014); a draw below n by its high bits.
static size_t draw_below(uint64_t *state, size_t n) {
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (size_t)(((z ^ (z >> 31)) >> 32) * n >> 32);
}

eval_interval eval_mean_difference(const double *differences, size_t n) {
    double *means = n > 0 ? malloc(RESAMPLES * sizeof *means) : NULL;
    if (!means) return NONE;
    double mean = 0;
    for (size_t i = 0; i < n; i++) mean += differences[i];
    uint64_t state = 0;
    for (size_t r = 0; r < RESAMPLES; r++) {
        double sum = 0;
        for (size_t i = 0; i < n; i++) sum += differences[draw_below(&state, n)];
        means[r] = sum / (double)n;
    }
    eval_sort(means, RESAMPLES);
    const eval_interval out = {mean / (double)n, eval_quantile(means, RESAMPLES, 0.025),
                               eval_quantile(means, RESAMPLES, 0.975)};
    free(means);
    return out;
}

double eval_quantile(const double *ascending, size_t n, double q) {
    if (n == 0) return NAN;
    const double at = q * (double)(n - 1);
    const size_t low = (size_t)at;
    if (low + 1 >= n) return ascending[n - 1];
    return ascending[low] + (at - (double)low) * (ascending[low + 1] - ascending[low]);
}

static int by_value(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

void eval_sort(double *values, size_t n) {
    if (n > 0) qsort(values, n, sizeof *values, by_value);
}
