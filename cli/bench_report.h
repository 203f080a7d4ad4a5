// What `pith bench` gives: the table, CSV, JSON and the figure.
#ifndef PITH_CLI_BENCH_REPORT_H
#define PITH_CLI_BENCH_REPORT_H

#include <jansson.h>
#include <stdio.h>

#include "bench_row.h"

// Rows in the order of the table: by batch, in phase or staggered, length, policy, the last one changing first.
typedef struct bench_grid {
    const bench_row *rows; // (n_batches, n_phases, n_lengths, n_policies)
    size_t n_batches, n_phases, n_lengths, n_policies;
    bool at_rows;           // a row's length is a number of cached rows, not that of a generation
    const char *title;      // one line: model, device, settings
    const json_t *settings; // an object
} bench_grid;

static inline size_t bench_grid_size(const bench_grid *g) {
    return g->n_batches * g->n_phases * g->n_lengths * g->n_policies;
}

// Aligned text for people. False: cannot write; so the others.
bool bench_report_table(FILE *out, const bench_grid *grid);

// A line of keys, then one for each row; the keys are those of a row in JSON. What there is no number for is empty.
bool bench_report_csv(FILE *out, const bench_grid *grid);

// {"settings": {...}, "rows": [{"policy", "spec", "batch", "length", "staggered", "extrapolated", "outcome", "why", and
// every one of bench_keys: a number or null}]}
bool bench_report_json(FILE *out, const bench_grid *grid);

// Throughput and peak memory against the length, a line for each policy, a pair of panels for each batch and phase.
bool bench_report_svg(FILE *out, const bench_grid *grid);

#endif
