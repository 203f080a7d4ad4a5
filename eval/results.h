// The samples of one policy, and which ones a run is about.
#ifndef PITH_EVAL_RESULTS_H
#define PITH_EVAL_RESULTS_H

#include "eval/sample.h"

// The part of a task that a run is about: the first `limit` problems, every n_shards-th of them, `samples` of each.
typedef struct eval_part {
    uint32_t limit;           // at most the task's number of problems
    uint32_t shard, n_shards; // problems whose number is shard modulo n_shards; shard < n_shards
    uint32_t samples;         // of a problem
} eval_part;

static inline bool eval_part_has(const eval_part *part, uint32_t problem) {
    return problem < part->limit && problem % part->n_shards == part->shard;
}
uint32_t eval_part_problems(const eval_part *part); // how many

typedef struct eval_results {
    const char *policy; // canonical, borrowed
    const char *label;  // as it was asked for, borrowed
    eval_part part;
    eval_sample *samples; // (n), in the order in which they came
    size_t n, capacity;
    bool *have; // (limit, samples)
    // Of this run, for the rate:
    uint64_t decoded; // tokens
    double decode_seconds;
} eval_results;

pith_status eval_results_init(eval_results *, const char *policy, const char *label, const eval_part *, pith_error *);
void eval_results_free(eval_results *);

bool eval_results_has(const eval_results *, uint32_t problem, uint32_t sample);

// Adds a sample; one that this run is not about, or has already, is left out.
pith_status eval_results_add(eval_results *, const eval_sample *, pith_error *);

#endif
