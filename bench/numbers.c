#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"

bool listed(const char *name, const char *list) {
    const size_t n = strlen(name);
    for (const char *at = list; at; at = strchr(at, ','), at = at ? at + 1 : NULL)
        if (strcspn(at, ",") == n && strncmp(at, name, n) == 0) return true;
    return false;
}

static int ascending(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double median(const double *x, uint32_t n) {
    double sorted[MAX_ROUNDS];
    if (n == 0) return NAN;
    memcpy(sorted, x, n * sizeof *x);
    qsort(sorted, n, sizeof *sorted, ascending);
    return (sorted[(n - 1) / 2] + sorted[n / 2]) / 2;
}

double smallest(const double *x, uint32_t n) {
    double least = INFINITY;
    for (uint32_t i = 0; i < n; i++) least = fmin(least, x[i]);
    return least;
}

double largest(const double *x, uint32_t n) {
    double most = -INFINITY;
    for (uint32_t i = 0; i < n; i++) most = fmax(most, x[i]);
    return most;
}

double weight_bytes(const bench *b) {
    return (double)b->info.weight_bytes; // the head is tied to the embedding: every tensor is read once
}

double row_bytes(const bench *b) { return 2.0 * 2 * b->info.n_layers * b->info.n_kv_heads * b->info.head_dim; }

double step_bytes(const bench *b, const workload *w) {
    if (w->n_new == 0) return 0;
    return weight_bytes(b) + w->n_seqs * (w->depth + 0.5 * w->n_new) * row_bytes(b);
}
