#include "sampled.h"

#include <stdlib.h>

#include "base/clock.h"

enum { DEPTHS = 5 };

// ------------------------------------------------------------------------------------------------- rows over time

static bool go_on_always(void *ctx, uint32_t n_tokens) { return (void)ctx, (void)n_tokens, true; }

// Steps of the same generation by the smallest model there is: their row_bytes are in units of row_bytes[0] / (prompt +
// 1).
static pith_status trace(const measure_job *job, measurement *out, pith_error *err) {
    const pith_model_shape shape = {.name = "rows",
                                    .architecture = "qwen2",
                                    .n_layers = 1,
                                    .d_model = 32,
                                    .n_heads = 4,
                                    .n_kv_heads = 1,
                                    .head_dim = 8,
                                    .d_ff = 32,
                                    .n_vocab = 64,
                                    .n_ctx = (uint32_t)measure_context(job->prompt, job->n_steps),
                                    .rope_base = 1e4f,
                                    .rms_eps = 1e-6f};
    pith_model *model;
    pith_status status = pith_model_from_shape(&shape, "f32", 0, "cpu", NULL, &model, err);
    if (status != PITH_OK) return status;
    measure_job small = *job;
    small.model = model, small.batch = 1, small.spacing = 0, small.go_on = go_on_always;
    small.engine = (pith_engine_params){.n_threads = 1};
    status = measure_run(&small, out, err);
    pith_model_free(model);
    return status;
}

// ---------------------------------------------------------------------------------------------- at one depth

typedef struct point {
    double rows, seconds; // of a step: means; rows of one sequence
} point;

typedef struct sample {
    const measure_job *job;
    uint32_t n_measured;
    point at[DEPTHS];
    int n;                 // points so far
    pith_engine_info info; // of the last depth's engine
    uint64_t memory_bytes; // there
    bool stopped;          // somebody wants no more
    pith_engine *engine;
    pith_sequence *seqs[MEASURE_MOST_BATCH];
    pith_error *err;
} sample;

static pith_phase phase_of(const pith_sequence *seq) {
    pith_sequence_info info;
    pith_sequence_describe(seq, &info);
    return info.phase;
}

static uint32_t rows_of(const pith_sequence *seq) {
    pith_sequence_info info;
    pith_sequence_describe(seq, &info);
    return info.rows;
}

static pith_status step(sample *p) {
    uint32_t n_active;
    return pith_engine_step(p->engine, &n_active, p->err);
}

static pith_status read_prompt(sample *p, uint32_t which, uint32_t n) {
    pith_status status = measure_prompt(p->job, p->seqs[which], which, n, p->err);
    while (status == PITH_OK && phase_of(p->seqs[which]) == PITH_PREFILL) {
        status = step(p);
        p->stopped = p->stopped || !p->job->go_on(p->job->ctx, 0);
        if (p->stopped) break;
    }
    return status;
}

// A sequence whose prompt is read would go on to generate while the others' are: it is stopped, and one more token
// starts them all.
static pith_status fill(sample *p, uint32_t depth) {
    pith_status status = PITH_OK;
    for (uint32_t i = 0; status == PITH_OK && i < p->job->batch && depth > 1 && !p->stopped; i++) {
        status = read_prompt(p, i, depth - 1);
        if (status == PITH_OK) pith_sequence_stop(p->seqs[i]);
    }
    for (uint32_t i = 0; status == PITH_OK && i < p->job->batch && !p->stopped; i++)
        status = measure_prompt(p->job, p->seqs[i], i, 1, p->err);
    while (status == PITH_OK && !p->stopped && phase_of(p->seqs[p->job->batch - 1]) == PITH_PREFILL) status = step(p);
    return status;
}

static pith_status measure(sample *p) {
    pith_status status = step(p);     // the first step with all of them
    pith_sequence_logits(p->seqs[0]); // waits for a device
    double rows = 0;
    const double start = pith_seconds();
    for (uint32_t i = 0; status == PITH_OK && !p->stopped && i < p->n_measured; i++) {
        rows += rows_of(p->seqs[0]) + 1;
        status = step(p);
        p->stopped = !p->job->go_on(p->job->ctx, p->job->batch);
    }
    if (status == PITH_OK) pith_sequence_logits(p->seqs[0]);
    p->at[p->n++] = (point){rows / p->n_measured, (pith_seconds() - start) / p->n_measured};
    p->memory_bytes = measure_memory(p->engine);
    return status;
}

static pith_status measure_depth(sample *p, uint32_t depth) {
    const measure_job *job = p->job;
    pith_engine_params engine = job->engine;
    engine.max_sequences = job->batch, engine.n_ctx = depth + p->n_measured + job->batch + 8;
    engine.kv_budget_bytes = UINT64_MAX; // what these contexts take, no more
    pith_status status = pith_engine_new(job->model, &engine, &p->engine, p->err);
    if (status != PITH_OK) return status;
    pith_engine_describe(p->engine, &p->info);
    pith_sequence_params params;
    pith_sequence_params_init(&params);
    params.policy = job->policy, params.ignore_end = true, params.max_new = p->n_measured + job->batch + 4;
    params.sampling = (pith_sampling){.temperature = job->temperature, .top_p = 1, .seed = job->seed};
    for (uint32_t i = 0; status == PITH_OK && i < job->batch; i++)
        status = pith_sequence_new(p->engine, &params, &p->seqs[i], p->err);
    if (status == PITH_OK) status = fill(p, depth);
    if (status == PITH_OK && !p->stopped) status = measure(p);
    pith_engine_free(p->engine);
    return status;
}

// ------------------------------------------------------------------------------------------------ all together

static double interpolate(const point *at, int n, double rows) {
    if (n == 1) return at[0].seconds;
    int i = 1;
    while (i + 1 < n && at[i].rows < rows) i++;
    const point a = at[i - 1], b = at[i];
    return a.seconds + (rows - a.rows) / (b.rows - a.rows) * (b.seconds - a.seconds);
}

// Turns the small model's steps into those of the job. unit: its row_bytes of one row.
static void rebuild(const sample *p, double unit, measurement *m) {
    pith_model_info model;
    pith_model_describe(p->job->model, &model);
    const uint64_t lane_pages = (uint64_t)model.n_layers * model.n_kv_heads * p->info.page_bytes;
    uint64_t most = 0;
    for (uint32_t i = 0; i < m->n; i++) {
        const double rows = m->steps[i].row_bytes / unit;
        const uint64_t pages = ((uint64_t)rows + p->info.page_rows - 1) / p->info.page_rows;
        if (pages > most) most = pages;
        m->steps[i] = (measure_step){.seconds = interpolate(p->at, p->n, rows),
                                     .row_bytes = rows * p->job->batch * (double)p->info.row_bytes,
                                     .cache_bytes = most * lane_pages * p->job->batch,
                                     .memory_bytes = p->memory_bytes};
    }
    m->pool_bytes = p->info.pool_bytes, m->on_device = p->info.device_bytes_total > 0;
    m->prefill_tokens_per_second = 0;
}

pith_status sampled_run(const measure_job *job, uint32_t n_measured, measurement *out, pith_error *err) {
    pith_status status = trace(job, out, err);
    if (status != PITH_OK) return status;
    const double unit = out->steps[0].row_bytes / (job->prompt + 1);
    const double least = job->prompt + 1;
    double most = least;
    for (uint32_t i = 0; i < out->n; i++)
        if (out->steps[i].row_bytes / unit > most) most = out->steps[i].row_bytes / unit;

    sample p = {.job = job, .n_measured = n_measured, .err = err};
    const int n = most - least < DEPTHS ? 1 : DEPTHS;
    for (int i = 0; status == PITH_OK && !p.stopped && i < n; i++)
        status = measure_depth(&p, (uint32_t)(n == 1 ? most : least + (most - least) * i / (n - 1)));
    if (status == PITH_OK && p.stopped) out->n = 0;
    if (status == PITH_OK && !p.stopped) rebuild(&p, unit, out);
    if (status != PITH_OK) measure_free(out);
    return status;
}
