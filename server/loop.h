// The batch loop: one thread that owns the engine. It takes jobs in order of arrival, admits each when the cache can
// hold its worst case, steps all that run together, and turns tokens into answers.
//
// A job that does not fit waits, and everything behind it: nobody overtakes, so nobody starves. Admission counts the
// policy's worst case for every choice, so a job that was admitted never lacks cache.
#ifndef PITH_SERVER_LOOP_H
#define PITH_SERVER_LOOP_H

#include "server/job.h"
#include "server/metrics.h"

typedef struct loop loop;

typedef struct loop_params {
    const char *policy;     // canonical spec of requests that name none; borrowed
    uint32_t max_new;       // of requests that do not say
    uint32_t max_sequences; // the engine's
    uint32_t max_waiting;   // jobs in the queue
} loop_params;

// Starts the thread. Model, engine and metrics are borrowed and must outlive the loop; the engine is the loop's alone.
pith_status loop_start(const pith_model *model, pith_engine *engine, const loop_params *params, metrics *counts,
                       loop **out, pith_error *err);

// Hands a job over; the loop takes a reference of its own. False when the queue is full or the loop is closed: `no` is
// a 429 or a 503. Any thread.
bool loop_submit(loop *l, job *j, refusal *no);

void loop_close(loop *l);                     // new jobs are refused; what was taken goes on. Any thread.
bool loop_is_broken(loop *l);                 // has the device failed, for good? Any thread.
bool loop_wait_idle(loop *l, double seconds); // no job is left? Waits for that at most so long. Any thread.
void loop_stop(loop *l);                      // closes, fails what is left, ends the thread and frees the loop

#endif
