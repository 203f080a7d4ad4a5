// Runs many samples through one engine and keeps its batch full.
//
// A problem is read once: a *reader* sequence prefills its prompt, chunk by chunk beside the sequences that generate,
// and waits. When a place is free, samples are forked from it; the problem's last one it becomes itself. A fork can
// only be made from a sequence whose prompt was just read, and a step makes such a sequence generate. So a reader that
// has to wait is stopped, and before each fork it reads its prompt's last token again. It does so in front of the first
// fork too: for some types of weights a token that is read alone has other bits than one read among many, and a sample
// must not depend on whether its reader had to wait.
//
// What the cache has no memory for waits until a sample ends. A reader that gets no memory for a fork becomes a sample
// itself, and the problem's other samples get a reader of their own later.
#ifndef PITH_EVAL_SCHEDULE_H
#define PITH_EVAL_SCHEDULE_H

#include "eval/sample.h"

typedef struct eval_prompt {
    const char *name;   // of the problem, for messages
    char *text;         // rendered, UTF-8
    pith_token *tokens; // (n)
    size_t n;
} eval_prompt;

typedef struct eval_job {
    uint32_t problem, sample;
} eval_job;

typedef struct eval_progress {
    size_t n_done;          // samples
    uint64_t n_done_tokens; // generated in these
    uint64_t n_tokens;      // generated in all
    double step_seconds;    // in steps; of these
    double prefill_seconds;
} eval_progress;

typedef struct eval_schedule {
    const pith_model *model;
    pith_engine *engine; // with max_sequences of at least batch + 1: the reader is one
    const char *policy;
    pith_sampling sampling; // `stream` is set here: (problem << 20) + sample
    uint32_t max_new;
    uint32_t batch;             // most sequences that generate at once
    const eval_prompt *prompts; // by problem
    const eval_job *jobs;       // (n_jobs): samples of a problem stand together
    size_t n_jobs;

    // A sample has ended; text: what it generated, bytes as they came, with the names of control tokens. Its `correct`
    // is still to be found out. A failure ends the run.
    pith_status (*done)(void *ctx, eval_sample *sample, const char *text, size_t bytes, pith_error *err);
    // After every step; false ends the run, samples in flight are dropped.
    bool (*go_on)(void *ctx, const eval_progress *progress);
    void *ctx;
} eval_schedule;

// Returns when all jobs are done, go_on wants no more, or something fails. The engine has no sequences before and
// after. PITH_E_MEMORY, with its name, when the cache cannot hold one sequence of a problem. err: not NULL.
pith_status eval_schedule_run(const eval_schedule *schedule, eval_progress *progress, pith_error *err);

#endif
