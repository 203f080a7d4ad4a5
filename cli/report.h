// What a run says about itself: the summary for people, JSON for programs, the trace of compressions.
#ifndef PITH_CLI_REPORT_H
#define PITH_CLI_REPORT_H

#include <stdio.h>

#include "pith.h"
#include "text.h"

// A few lines on stderr: tokens, rows and bytes of cache with and without compression, speed. stopped (n): which
// sequences an interrupt ended.
void report_summary(const pith_engine *engine, pith_sequence *const *seqs, const bool *stopped, uint32_t n);

// One JSON object on stdout, with the engine's note where it has one; with `many`, the sequences' parts stand in
// "samples". Returns an exit code.
int report_json(const pith_model *model, const pith_engine *engine, const char *policy, pith_sequence *const *seqs,
                const bool *stopped, uint32_t n, const text *answers, bool many);

// One JSON line.
void report_trace(FILE *out, uint32_t seq, const pith_compress_event *event);

#endif
