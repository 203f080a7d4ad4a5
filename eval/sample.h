// A finished sample: what was measured while it was generated, and its line in the folder of results.
#ifndef PITH_EVAL_SAMPLE_H
#define PITH_EVAL_SAMPLE_H

#include "eval/task.h"

enum { EVAL_POINTS = 64 };

typedef struct eval_point {
    uint32_t generated, rows; // rows of the longest lane when so many tokens were generated
} eval_point;

// Depends on (settings, policy, problem, sample) alone: no time, nothing of the batch it was made in.
typedef struct eval_sample {
    uint32_t problem; // its number in the task
    uint32_t sample;
    uint32_t prompt_tokens, completion_tokens;
    bool finished; // ended by itself, not at the limit
    bool correct;
    uint32_t compressions;
    uint32_t rows_peak, rows_full;    // of the longest lane; full: at the end, without compression
    uint64_t bytes_peak, bytes_full;  // pages over all lanes
    double rows_mean, rows_full_mean; // over the generated tokens
    double bytes_mean, bytes_full_mean;
    uint32_t n_points; // at equal distances, ascending
    eval_point points[EVAL_POINTS];
} eval_sample;

// What stands in a sample's line beside the numbers. UTF-8.
typedef struct eval_text {
    const char *policy; // canonical
    const char *prompt; // as the model read it
    const char *generation;
    const char *answer; // NULL: none was found
} eval_text;

// The sample as a JSON object; NULL: no memory. New reference.
json_t *eval_sample_pack(const eval_task *task, const eval_sample *s, const eval_text *text);

// Back from a line. `where` ("file:line") stands in front of what was expected. PITH_E_FORMAT for anything that
// eval_sample_pack would not have written for this task and policy.
pith_status eval_sample_unpack(const eval_task *task, const char *policy, const json_t *line, const char *where,
                               eval_sample *out, pith_error *err);

#endif
