#include "bench_row.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "eval/stats.h"

const char *const bench_keys[BENCH_VALUES] = {
    [BENCH_RATE] = "tokens_per_second",
    [BENCH_SPEEDUP] = "speedup",
    [BENCH_SECONDS] = "seconds",
    [BENCH_PREFILL] = "prefill_tokens_per_second",
    [BENCH_CACHE] = "cache_bytes",
    [BENCH_MEMORY] = "memory_bytes",
    [BENCH_STEP_BYTES] = "step_bytes",
    [BENCH_SHARE] = "bandwidth_share",
    [BENCH_P50] = "p50_ms",
    [BENCH_P99] = "p99_ms",
    [BENCH_MAX] = "max_ms",
    [BENCH_MAX_TO_P50] = "max_to_p50",
    [BENCH_QUIET_P50] = "quiet_p50_ms",
    [BENCH_QUIET_P99] = "quiet_p99_ms",
    [BENCH_QUIET_MAX] = "quiet_max_ms",
    [BENCH_COMPRESS_P50] = "compress_p50_ms",
    [BENCH_COMPRESS_P99] = "compress_p99_ms",
    [BENCH_COMPRESS_MAX] = "compress_max_ms",
    [BENCH_COMPRESSIONS] = "compressions",
    [BENCH_EVENT] = "event_ms",
    [BENCH_EVENT_MAX] = "event_max_ms",
    [BENCH_EVENT_ALLOWED] = "event_allowed_ms",
    [BENCH_EVENT_WITHIN] = "event_within",
    [BENCH_NEEDED] = "needed_bytes",
};

const char *const bench_outcomes[] = {"not run", "ok", "out of memory", "shorter than the stagger"};

bench_row bench_row_make(const char *spec, const char *policy, uint32_t batch, uint32_t length, bool staggered) {
    bench_row row = {.spec = spec, .policy = policy, .batch = batch, .length = length, .staggered = staggered};
    for (int i = 0; i < BENCH_VALUES; i++) row.value[i] = NAN;
    return row;
}

// ------------------------------------------------------------------------------------------------- latencies

// p50, p99 and the largest of n values, which get sorted, from value[first] on.
static void latencies(bench_row *row, bench_value first, double *ms, size_t n) {
    if (n == 0) return;
    eval_sort(ms, n);
    row->value[first] = eval_quantile(ms, n, 0.5);
    row->value[first + 1] = eval_quantile(ms, n, 0.99);
    row->value[first + 2] = ms[n - 1];
}

static void fill_latencies(bench_row *row, const measurement *m, uint32_t n, double *ms) {
    for (uint32_t i = 0; i < n; i++) ms[i] = 1e3 * m->steps[i].seconds;
    latencies(row, BENCH_P50, ms, n);
    row->value[BENCH_MAX_TO_P50] = row->value[BENCH_MAX] / row->value[BENCH_P50];
    for (int compresses = 0; compresses < 2; compresses++) {
        size_t k = 0;
        for (uint32_t i = 0; i < n; i++)
            if ((m->steps[i].n_compressed > 0) == compresses) ms[k++] = 1e3 * m->steps[i].seconds;
        latencies(row, compresses ? BENCH_COMPRESS_P50 : BENCH_QUIET_P50, ms, k);
    }
}

// --------------------------------------------------------------------------------------------------- events

enum { NEIGHBOURS = 32 }; // steps in front of a compression whose median is the time that it adds to

// The time of a step like those in front of step i, without compressions; NaN when there are none.
static double usual_seconds(const measurement *m, uint32_t i) {
    double near[NEIGHBOURS];
    size_t k = 0;
    while (i > 0 && k < NEIGHBOURS)
        if (m->steps[--i].n_compressed == 0) near[k++] = m->steps[i].seconds;
    eval_sort(near, k);
    return k > 0 ? eval_quantile(near, k, 0.5) : NAN;
}

// added, allowed: (n) room.
static void fill_events(bench_row *row, const measurement *m, uint32_t n, double bandwidth, double *added,
                        double *allowed) {
    size_t k = 0, within = 0;
    double most = 0, compressions = 0;
    for (uint32_t i = 0; i < n; i++) {
        const measure_step *s = &m->steps[i];
        compressions += s->n_compressed;
        if (s->n_compressed == 0) continue;
        const double usual = usual_seconds(m, i), by = s->n_compressed;
        if (isnan(usual)) continue;
        added[k] = 1e3 * (s->seconds - usual) / by;
        allowed[k] = bandwidth > 0 ? 1e3 * 1.5 * s->event_bytes / bandwidth / by + 0.5 : NAN;
        within += added[k] <= allowed[k];
        most = fmax(most, added[k++]);
    }
    row->value[BENCH_COMPRESSIONS] = compressions;
    if (k == 0) return;
    eval_sort(added, k);
    row->value[BENCH_EVENT] = eval_quantile(added, k, 0.5);
    row->value[BENCH_EVENT_MAX] = most;
    if (!(bandwidth > 0)) return;
    eval_sort(allowed, k);
    row->value[BENCH_EVENT_ALLOWED] = eval_quantile(allowed, k, 0.5);
    row->value[BENCH_EVENT_WITHIN] = (double)within / (double)k;
}

bool bench_row_fill(bench_row *row, const measurement *m, uint32_t n, double step_bytes, double bandwidth) {
    double *scratch = malloc(2 * (size_t)n * sizeof *scratch);
    if (!scratch) return false;
    double seconds = 0, row_bytes = 0;
    for (uint32_t i = 0; i < n; i++) seconds += m->steps[i].seconds, row_bytes += m->steps[i].row_bytes;
    row->outcome = BENCH_OK;
    row->value[BENCH_RATE] = (double)row->batch * n / seconds;
    row->value[BENCH_SECONDS] = seconds;
    if (m->prefill_tokens_per_second > 0) row->value[BENCH_PREFILL] = m->prefill_tokens_per_second;
    row->value[BENCH_CACHE] = (double)m->steps[n - 1].cache_bytes;
    // A GPU's pool is taken at once, for the longest generation of the run: this length would have reserved less (or
    // more than what was measured for an extrapolation).
    row->value[BENCH_MEMORY] = (double)m->steps[n - 1].memory_bytes;
    if (m->engine.device_bytes_total > 0)
        row->value[BENCH_MEMORY] -= (double)m->engine.pool_bytes - row->value[BENCH_NEEDED];
    row->value[BENCH_STEP_BYTES] = step_bytes + row_bytes / n;
    if (bandwidth > 0) row->value[BENCH_SHARE] = (n * step_bytes + row_bytes) / seconds / bandwidth;
    fill_latencies(row, m, n, scratch);
    fill_events(row, m, n, bandwidth, scratch, scratch + n);
    if (row->extrapolated) // times are those of typical steps: nothing is known of the others, nor of compressions
        for (int i = BENCH_P99; i <= BENCH_EVENT_WITHIN; i++) row->value[i] = NAN;
    free(scratch);
    return true;
}

void bench_size(double bytes, char out[BENCH_SIZE]) {
    if (bytes >= 1e9) snprintf(out, BENCH_SIZE, "%.2f GB", bytes / 1e9);
    else snprintf(out, BENCH_SIZE, "%.*f MB", bytes < 10e6 ? 2 : 1, bytes / 1e6);
}
