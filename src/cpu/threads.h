// How many threads take a step.
//
// ggml's barrier between nodes spins without yielding: when something else runs on the machine, two threads can be
// slower than one by a factor of ten, because the thread that has a CPU burns it waiting for the one that has none. So
// the count is chosen from measured step times: now and then one step is taken with another count, and the faster one
// stays. A probe that lost is repeated after a time in proportion to what it cost, at most 512 steps, so that probing
// takes less than a hundredth of the time, or two when the other count is ten times slower. Results do not depend on
// the count.
#ifndef PITH_CPU_THREADS_H
#define PITH_CPU_THREADS_H

#include "base/status.h"

#define PITH_MAX_THREADS 128u

struct ggml_threadpool;

typedef struct pith_threads {
    uint32_t max;     // most threads of a step
    struct ggml_threadpool *pools[8]; // one for each count of `counts`; all but the active one paused, or they would poll
    uint32_t counts[8];               // 1, 2, 4, ..., max
    uint32_t n_counts;
    uint32_t active; // index of the pool that is not paused

    // The governor's view of decode steps.
    uint32_t at;       // index into counts: the choice
    uint32_t probe;    // index being probed in this step, or `at`
    uint32_t wait;     // steps until the next probe
    uint32_t interval; // what wait starts from
    bool up;           // direction of the next probe
    double typical;    // seconds of a step at the present choice, smoothed; 0: unknown
    uint32_t slow;     // steps in a row that were much slower than typical
} pith_threads;

pith_status pith_threads_init(pith_threads *, uint32_t max, pith_error *);
void pith_threads_free(pith_threads *);

// The pool to use for the next step: of the governor's choice (`adaptive`), else of the maximum. *n gets its count.
struct ggml_threadpool *pith_threads_begin(pith_threads *, bool adaptive, uint32_t *n);

// The pool and count of the last step, for work between steps.
struct ggml_threadpool *pith_threads_current(const pith_threads *, uint32_t *n);

// Seconds that the adaptive step took. Steps of very different work must not alternate (decode steps do not).
void pith_threads_end(pith_threads *, double seconds);

#endif
