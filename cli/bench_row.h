// A row of the benchmark's table: what is said of one policy, batch and length.
#ifndef PITH_CLI_BENCH_ROW_H
#define PITH_CLI_BENCH_ROW_H

#include "measure.h"

// Every number there is, by the names that CSV and JSON give them (bench_keys). NaN: there is none.
typedef enum bench_value {
    BENCH_RATE,       // tokens per second of the whole batch, over all steps of the generation
    BENCH_SPEEDUP,    // that, relative to the full cache's with the same batch and length
    BENCH_SECONDS,    // of these steps
    BENCH_PREFILL,    // tokens per second
    BENCH_CACHE,      // bytes of cache, peak
    BENCH_MEMORY,     // bytes of memory in use, peak: the process's on a CPU, all of the GPU's by its driver
    BENCH_STEP_BYTES, // that a step reads, mean: weights once, and K, V and position of every row of every cache
    BENCH_SHARE,      // of the read bandwidth
    BENCH_P50,        // milliseconds from token to token
    BENCH_P99,
    BENCH_MAX,
    BENCH_MAX_TO_P50,
    BENCH_QUIET_P50, // of the steps without a compression
    BENCH_QUIET_P99,
    BENCH_QUIET_MAX,
    BENCH_COMPRESS_P50, // of those with one
    BENCH_COMPRESS_P99,
    BENCH_COMPRESS_MAX,
    BENCH_COMPRESSIONS, // over all sequences
    BENCH_EVENT,        // milliseconds that a compression adds to its step for each sequence that compresses, median
    BENCH_EVENT_MAX,
    BENCH_EVENT_ALLOWED, // 1.5 x (bytes read and moved) / bandwidth + 0.5 ms, median
    BENCH_EVENT_WITHIN,  // share of the steps with a compression that add no more than that
    BENCH_NEEDED,        // bytes of cache that were reserved, or would have been
    BENCH_VALUES,
} bench_value;

extern const char *const bench_keys[BENCH_VALUES];

typedef enum bench_outcome { BENCH_PENDING, BENCH_OK, BENCH_NO_MEMORY, BENCH_TOO_SHORT } bench_outcome;

extern const char *const bench_outcomes[]; // "not run", "ok", "out of memory", "shorter than the stagger"

typedef struct bench_row {
    const char *spec, *policy; // as given, and with every default; borrowed
    uint32_t batch, length;
    bool staggered, extrapolated;
    bench_outcome outcome;
    char why[400]; // of BENCH_NO_MEMORY: what is needed and what is there
    double value[BENCH_VALUES];
} bench_row;

// A row without values.
bench_row bench_row_make(const char *spec, const char *policy, uint32_t batch, uint32_t length, bool staggered);

// Fills a row from the first n steps of a generation. step_bytes: of weights. bandwidth: bytes per second, 0: not
// known. row->value[BENCH_NEEDED] is set before. False: no memory.
bool bench_row_fill(bench_row *row, const measurement *m, uint32_t n, double step_bytes, double bandwidth);

// Bytes for people: "46.50 GB", "0.53 MB".
enum { BENCH_SIZE = 32 };
void bench_size(double bytes, char out[BENCH_SIZE]);

#endif
