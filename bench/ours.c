// Pith's side: the library as any program uses it. Greedy sampling is part of a step here; llama.cpp's programs take
// random tokens instead and do not sample.
#include "base/clock.h"
#include "base/rng.h"
#include "bench.h"

enum { MAX_SEQS = 64, WARM_UP = 4 }; // steps in front of the measured ones: memory is touched, threads are awake

bool ours_failed(const pith_error *err) {
    fprintf(stderr, "bench: %s\n", err->msg);
    return false;
}

bool ours_open(const bench *b, uint32_t n_threads, uint32_t n_seqs, uint32_t n_ctx, pith_engine **out) {
    pith_engine_params params;
    pith_engine_params_init(&params);
    params.n_threads = n_threads, params.max_sequences = n_seqs, params.n_ctx = n_ctx;
    pith_error err;
    return pith_engine_new(b->model, &params, out, &err) == PITH_OK || ours_failed(&err);
}

bool ours_prompt(const bench *b, pith_sequence *seq, uint32_t n) {
    static pith_token tokens[1 << 16];
    pith_error err;
    for (uint32_t i = 0; i < n; i++) tokens[i] = (pith_token)(pith_mix64(i) % b->info.n_vocab);
    return pith_sequence_prompt(seq, tokens, n, &err) == PITH_OK || ours_failed(&err);
}

static bool step(pith_engine *engine) {
    uint32_t n_active;
    pith_error err;
    return pith_engine_step(engine, &n_active, &err) == PITH_OK || ours_failed(&err);
}

static pith_phase phase_of(const pith_sequence *seq) {
    pith_sequence_info info;
    pith_sequence_describe(seq, &info);
    return info.phase;
}

// Steps until the prompt is read.
static bool read_prompt(const bench *b, pith_engine *engine, pith_sequence *seq, uint32_t n) {
    if (!ours_prompt(b, seq, n)) return false;
    while (phase_of(seq) == PITH_PREFILL)
        if (!step(engine)) return false;
    return true;
}

static bool prefill_seconds(const bench *b, pith_engine *engine, const workload *w, double *seconds) {
    pith_sequence_params params;
    pith_sequence_params_init(&params);
    pith_error err;
    pith_sequence *seq;
    if (pith_sequence_new(engine, &params, &seq, &err) != PITH_OK) return ours_failed(&err);
    const double start = pith_seconds();
    const bool ok = read_prompt(b, engine, seq, w->depth);
    *seconds = pith_seconds() - start;
    pith_sequence_free(seq);
    return ok;
}

// All sequences' caches at w->depth rows, ready to generate. A sequence whose prompt is read would go on to generate
// while its neighbours' are: it is stopped, and one more token as a second turn starts all of them at once.
static bool fill(const bench *b, pith_engine *engine, const workload *w, pith_sequence **seqs) {
    for (uint32_t i = 0; i < w->n_seqs && w->depth > 0; i++) {
        if (!read_prompt(b, engine, seqs[i], w->depth)) return false;
        pith_sequence_stop(seqs[i]);
    }
    for (uint32_t i = 0; i < w->n_seqs; i++)
        if (!ours_prompt(b, seqs[i], 1)) return false;
    while (phase_of(seqs[w->n_seqs - 1]) == PITH_PREFILL)
        if (!step(engine)) return false;
    return true;
}

static bool decode_seconds(const bench *b, pith_engine *engine, const workload *w, double *seconds) {
    pith_sequence_params params;
    pith_sequence_params_init(&params);
    params.sampling.temperature = 0;
    params.ignore_end = true;
    params.max_new = w->n_new + WARM_UP + w->n_seqs + 1; // the last token of a turn is drawn and not read
    pith_sequence *seqs[MAX_SEQS] = {0};
    pith_error err;
    bool ok = w->n_seqs <= MAX_SEQS;
    for (uint32_t i = 0; ok && i < w->n_seqs; i++)
        ok = pith_sequence_new(engine, &params, &seqs[i], &err) == PITH_OK || ours_failed(&err);
    ok = ok && fill(b, engine, w, seqs);
    for (uint32_t i = 0; ok && i < WARM_UP; i++) ok = step(engine);
    const double start = pith_seconds();
    for (uint32_t i = 0; ok && i < w->n_new; i++) ok = step(engine);
    *seconds = pith_seconds() - start;
    for (uint32_t i = 0; i < w->n_seqs; i++) pith_sequence_free(seqs[i]);
    return ok;
}

bool ours_rate(const bench *b, uint32_t n_threads, const workload *w, double *rate) {
    pith_engine *engine;
    if (!ours_open(b, n_threads, w->n_seqs, w->depth + w->n_new + WARM_UP + w->n_seqs + 16, &engine)) return false;
    const bool prefill = w->n_new == 0;
    double seconds, sum = 0;
    bool ok = !prefill || prefill_seconds(b, engine, w, &seconds); // once to warm up, as llama-bench does
    for (uint32_t i = 0; ok && i < w->repeats; i++) {
        ok = prefill ? prefill_seconds(b, engine, w, &seconds) : decode_seconds(b, engine, w, &seconds);
        sum += (prefill ? w->depth : w->n_seqs * w->n_new) / seconds;
    }
    pith_engine_free(engine);
    *rate = sum / w->repeats;
    return ok;
}
