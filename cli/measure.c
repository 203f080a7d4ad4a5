#include "measure.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/rng.h"

enum { MEMORY_EVERY = 64 }; // steps; asking a driver takes longer than everything else here

typedef struct run {
    const measure_job *job;
    pith_engine *engine;
    pith_engine_info info;
    pith_sequence *seqs[MEASURE_MOST_BATCH]; // (n_seqs), the first started first
    uint32_t n_seqs;
    uint32_t rows[MEASURE_MOST_BATCH];         // of each sequence's lanes, after the step before
    uint32_t compressions[MEASURE_MOST_BATCH]; // of each sequence, so far
    uint32_t n_lanes;
    uint64_t shared_bytes; // that all but one of the sequences do not hold on their own
    pith_error *err;
} run;

static pith_status no_memory(pith_error *err) {
    *err = (pith_error){.status = PITH_E_MEMORY, .msg = "out of memory"};
    return PITH_E_MEMORY;
}

// ---------------------------------------------------------------------------------------------------- memory

static uint64_t process_bytes(void) {
    FILE *f = fopen("/proc/self/statm", "re");
    if (!f) return 0;
    unsigned long long size = 0, resident = 0;
    const int n = fscanf(f, "%llu %llu", &size, &resident);
    fclose(f);
    return n == 2 ? resident * (uint64_t)sysconf(_SC_PAGESIZE) : 0;
}

static uint64_t memory_bytes(const pith_engine *engine) {
    pith_engine_info info;
    pith_engine_describe(engine, &info);
    return info.device_bytes_total > 0 ? info.device_bytes_used : process_bytes();
}

static uint64_t cache_bytes(const run *r, uint32_t n_rows) {
    const uint64_t pages = n_rows / r->info.page_rows + (n_rows % r->info.page_rows != 0);
    return pages * r->n_lanes * r->info.page_bytes;
}

// -------------------------------------------------------------------------------------------------- sequences

// n random tokens for the sequence `which`.
static pith_status give_prompt(const run *r, uint32_t which, uint32_t n) {
    pith_model_info model;
    pith_model_describe(r->job->model, &model);
    pith_token *tokens = malloc(n * sizeof *tokens);
    if (!tokens) return no_memory(r->err);
    for (uint32_t i = 0; i < n; i++)
        tokens[i] = (pith_token)(pith_mix64(pith_mix64(r->job->seed + which) + i) % model.n_vocab);
    const pith_status status = pith_sequence_prompt(r->seqs[which], tokens, n, r->err);
    free(tokens);
    return status;
}

static pith_sequence_params params_of(const run *r, uint32_t which) {
    pith_sequence_params params;
    pith_sequence_params_init(&params);
    params.policy = r->job->policy;
    params.sampling =
        (pith_sampling){.temperature = r->job->temperature, .top_p = 1, .seed = r->job->seed, .stream = which};
    params.ignore_end = true;
    params.max_new = r->job->n_steps + 1; // the last token of a turn is drawn and not read: it is never asked for
    if (r->job->filled) params.max_new += r->job->batch + 1;
    return params;
}

static pith_status new_sequence(run *r) {
    const pith_sequence_params params = params_of(r, r->n_seqs);
    const pith_status status = pith_sequence_new(r->engine, &params, &r->seqs[r->n_seqs], r->err);
    r->n_seqs += status == PITH_OK;
    return status;
}

static pith_sequence_info info_of(const pith_sequence *seq) {
    pith_sequence_info info;
    pith_sequence_describe(seq, &info);
    return info;
}

static pith_status step(const run *r) {
    uint32_t n_active;
    return pith_engine_step(r->engine, &n_active, r->err);
}

static pith_status start_together(run *r) {
    pith_status status = new_sequence(r);
    if (status == PITH_OK) status = give_prompt(r, 0, r->job->prompt);
    while (status == PITH_OK && info_of(r->seqs[0]).phase == PITH_PREFILL) status = step(r);
    for (; status == PITH_OK && r->n_seqs < r->job->batch; r->n_seqs += status == PITH_OK) {
        const pith_sequence_params params = params_of(r, r->n_seqs);
        status = pith_sequence_fork(r->seqs[0], &params, &r->seqs[r->n_seqs], r->err);
    }
    pith_model_info model;
    pith_model_describe(r->job->model, &model);
    for (uint32_t i = 0; status == PITH_OK && i < r->n_seqs; i++) {
        const pith_token token = (pith_token)(pith_mix64(r->job->seed + i) % model.n_vocab);
        status = pith_sequence_force(r->seqs[i], token, r->err);
    }
    if (r->n_seqs > 0)
        r->shared_bytes =
            (r->n_seqs - 1) * (uint64_t)(r->job->prompt / r->info.page_rows) * r->n_lanes * r->info.page_bytes;
    return status;
}

// *stopped: asked to.
static pith_status start_apart(run *r, bool *stopped) {
    pith_status status = PITH_OK;
    for (uint32_t i = 0; status == PITH_OK && !*stopped; i++) {
        if (r->n_seqs < r->job->batch && i % r->job->spacing == 0) {
            status = new_sequence(r);
            if (status == PITH_OK) status = give_prompt(r, r->n_seqs - 1, r->job->prompt);
        }
        if (status == PITH_OK) status = step(r);
        if (r->n_seqs == r->job->batch && info_of(r->seqs[r->n_seqs - 1]).phase == PITH_READY) break;
        *stopped = !r->job->go_on(r->job->ctx, 0);
    }
    return status;
}

static pith_status read_prompt(run *r, uint32_t which, uint32_t n, bool *stopped) {
    pith_status status = give_prompt(r, which, n);
    while (status == PITH_OK && !*stopped && info_of(r->seqs[which]).phase == PITH_PREFILL) {
        status = step(r);
        *stopped = !r->job->go_on(r->job->ctx, 0);
    }
    return status;
}

// A sequence whose prompt is read would go on to generate while the others' are: it is stopped, and one more token, a
// turn of its own, starts them all. The first step with all of them is not measured.
static pith_status start_filled(run *r, bool *stopped) {
    pith_status status = PITH_OK;
    for (uint32_t i = 0; status == PITH_OK && i < r->job->batch && !*stopped; i++) {
        status = new_sequence(r);
        if (status != PITH_OK || r->job->prompt == 1) continue;
        status = read_prompt(r, i, r->job->prompt - 1, stopped);
        if (status == PITH_OK) pith_sequence_stop(r->seqs[i]);
    }
    for (uint32_t i = 0; status == PITH_OK && i < r->n_seqs && !*stopped; i++) status = give_prompt(r, i, 1);
    while (status == PITH_OK && !*stopped && info_of(r->seqs[r->n_seqs - 1]).phase == PITH_PREFILL) status = step(r);
    return status == PITH_OK && !*stopped ? step(r) : status;
}

// ------------------------------------------------------------------------------------------------- measuring

// What the step that has just returned read, and what it left.
static void look(run *r, measure_step *s) {
    const uint64_t row_bytes = r->info.row_bytes, key_bytes = (row_bytes - r->n_lanes * sizeof(int32_t)) / 2;
    uint64_t held = 0;
    for (uint32_t i = 0; i < r->n_seqs; i++) {
        const pith_sequence_info now = info_of(r->seqs[i]);
        const uint32_t before = r->rows[i] + 1; // the step's own row is read too
        s->row_bytes += (double)before * (double)row_bytes;
        held += cache_bytes(r, before); // all grow before one compresses
        if (now.n_compressions > r->compressions[i]) {
            s->n_compressed++;
            // Keys of all rows that may go; rows behind the prompt that stay are moved: read and written.
            s->event_bytes += (double)(before - r->job->prompt) * (double)key_bytes +
                              2 * (double)(now.rows - r->job->prompt) * (double)row_bytes;
        }
        r->rows[i] = now.rows, r->compressions[i] = now.n_compressions;
    }
    s->cache_bytes = held - r->shared_bytes;
}

// The time since `before`, which becomes now.
static void take_time(measure_step *s, double *before) {
    const double now = pith_seconds();
    s->seconds = now - *before;
    *before = now;
}

static pith_status measure_steps(run *r, measurement *out) {
    for (uint32_t i = 0; i < r->n_seqs; i++) {
        const pith_sequence_info now = info_of(r->seqs[i]);
        r->rows[i] = now.rows, r->compressions[i] = now.n_compressions;
    }
    const pith_sequence_info first = info_of(r->seqs[0]);
    out->ahead = r->job->filled ? 0 : first.n_generated;
    const uint32_t n = r->job->n_steps > out->ahead ? r->job->n_steps - out->ahead : 0;
    if (first.prefill_ms > 0) out->prefill_tokens_per_second = 1e3 * first.n_turn_prompt / first.prefill_ms;

    // On a device a step returns when the one before it has ended: its own time is known when the next one returns, or
    // when somebody waits for its logits.
    const bool lags = r->info.device_bytes_total > 0;
    pith_sequence_logits(r->seqs[r->n_seqs - 1]);
    uint64_t cache_most = 0, memory_most = memory_bytes(r->engine);
    double before = pith_seconds();
    for (bool go_on = true; go_on && out->n < n;) {
        const pith_status status = step(r);
        if (status != PITH_OK) return status;
        measure_step *s = &out->steps[out->n++];
        *s = (measure_step){0};
        if (!lags) take_time(s, &before);
        else if (out->n > 1) take_time(s - 1, &before);
        look(r, s);
        if (s->cache_bytes > cache_most) cache_most = s->cache_bytes;
        const uint64_t memory = out->n % MEMORY_EVERY == 0 || out->n == n ? memory_bytes(r->engine) : 0;
        if (memory > memory_most) memory_most = memory;
        s->cache_bytes = cache_most, s->memory_bytes = memory_most;
        go_on = r->job->go_on(r->job->ctx, r->n_seqs);
    }
    if (lags && out->n > 0) {
        pith_sequence_logits(r->seqs[0]);
        take_time(&out->steps[out->n - 1], &before);
    }
    return PITH_OK;
}

pith_status measure_run(const measure_job *job, measurement *out, pith_error *err) {
    *out = (measurement){0};
    run r = {.job = job, .err = err};
    pith_engine_params params = job->engine;
    params.max_sequences = job->batch;
    params.n_ctx = (uint32_t)(job->filled ? measure_filled_context(job->prompt, job->n_steps, job->batch)
                                          : measure_context(job->prompt, job->n_steps));
    pith_status status = pith_engine_new(job->model, &params, &r.engine, err);
    if (status != PITH_OK) return status;
    pith_engine_describe(r.engine, &r.info);
    pith_model_info model;
    pith_model_describe(job->model, &model);
    r.n_lanes = model.n_layers * model.n_kv_heads;
    out->engine = r.info;
    out->steps = malloc(job->n_steps * sizeof *out->steps);
    if (!out->steps) status = no_memory(err);
    bool stopped = false;
    if (status != PITH_OK) stopped = true;
    else if (job->filled) status = start_filled(&r, &stopped);
    else status = job->spacing > 0 ? start_apart(&r, &stopped) : start_together(&r);
    if (status == PITH_OK && !stopped) status = measure_steps(&r, out);
    pith_engine_free(r.engine);
    if (status != PITH_OK) measure_free(out);
    return status;
}

void measure_free(measurement *m) {
    free(m->steps);
    *m = (measurement){0};
}
