#include "sampled.h"

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
    int n;                   // points so far
    pith_engine_info engine; // of the last depth
    uint64_t memory_bytes;   // there
} sample;

// *stopped: asked to.
static pith_status measure_depth(sample *p, uint32_t depth, bool *stopped, pith_error *err) {
    measure_job job = *p->job;
    job.prompt = depth, job.n_steps = p->n_measured, job.filled = true;
    job.engine.kv_budget_bytes = UINT64_MAX; // what these contexts take, no more
    measurement m;
    const pith_status status = measure_run(&job, &m, err);
    if (status != PITH_OK) return status;
    *stopped = m.n < p->n_measured;
    double row_bytes = 0, seconds = 0;
    for (uint32_t i = 0; i < m.n; i++) row_bytes += m.steps[i].row_bytes, seconds += m.steps[i].seconds;
    if (!*stopped) {
        p->at[p->n++] = (point){row_bytes / m.n / ((double)m.engine.row_bytes * job.batch), seconds / m.n};
        p->engine = m.engine, p->memory_bytes = m.steps[m.n - 1].memory_bytes;
    }
    measure_free(&m);
    return PITH_OK;
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
    const uint64_t lane_pages = (uint64_t)model.n_layers * model.n_kv_heads * p->engine.page_bytes;
    uint64_t most = 0;
    for (uint32_t i = 0; i < m->n; i++) {
        const double rows = m->steps[i].row_bytes / unit;
        const uint64_t pages = ((uint64_t)rows + p->engine.page_rows - 1) / p->engine.page_rows;
        if (pages > most) most = pages;
        m->steps[i] = (measure_step){.seconds = interpolate(p->at, p->n, rows),
                                     .row_bytes = rows * p->job->batch * (double)p->engine.row_bytes,
                                     .cache_bytes = most * lane_pages * p->job->batch,
                                     .memory_bytes = p->memory_bytes};
    }
    m->engine = p->engine;
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

    sample p = {.job = job, .n_measured = n_measured};
    const int n = most - least < DEPTHS ? 1 : DEPTHS;
    bool stopped = false;
    for (int i = 0; status == PITH_OK && !stopped && i < n; i++)
        status = measure_depth(&p, (uint32_t)(n == 1 ? most : least + (most - least) * i / (n - 1)), &stopped, err);
    if (status == PITH_OK && stopped) out->n = 0;
    if (status == PITH_OK && !stopped) rebuild(&p, unit, out);
    if (status != PITH_OK) measure_free(out);
    return status;
}
