// What a run says about itself: the summary for people, JSON for programs, the trace of compressions.
#ifndef PITH_CLI_REPORT_H
#define PITH_CLI_REPORT_H

#include <stdio.h>

#include "pith.h"
#include "text.h"

// A few lines on stderr: tokens, rows and bytes of cache with and without compression, speed.
void report_summary(const pith_engine *engine, pith_sequence *const *seqs, uint32_t n, bool interrupted);

// One JSON object on stdout; with `many`, the sequences' parts stand in "samples". Returns an exit code.
int report_json(const pith_model *model, const char *policy, pith_sequence *const *seqs, uint32_t n, const text *answers,
                bool many, bool interrupted);

// One JSON line.
void report_trace(FILE *out, uint32_t seq, const pith_compress_event *event);

#endif
