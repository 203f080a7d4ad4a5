// A long chain of thought, with RPC and without: memory, time, and what compressing costs.
#include <stdio.h>

#include "base/clock.h"
#include "bench.h"

enum { PROMPT = 128, NEW = 16384 };

static const char *const policies[] = {"full", "rpc:p=1024"};
enum { N_POLICIES = sizeof policies / sizeof *policies };

typedef struct generation {
    pith_sequence_info end;
    double seconds;     // of all decode steps
    double expected;    // what the rows let expect
    float step[NEW];    // seconds of each step
    uint32_t rows[NEW]; // of the cache after it
    uint32_t n;
} generation;

static generation results[N_POLICIES]; // of the last round

bool reason_has(const char *list) { return listed("long", list); }

static bool steps(pith_engine *engine, pith_sequence *seq, generation *g) {
    for (;;) {
        const pith_phase before = g->end.phase;
        uint32_t n_active;
        pith_error err;
        const double start = pith_seconds();
        if (pith_engine_step(engine, &n_active, &err) != PITH_OK) return ours_failed(&err);
        const double seconds = pith_seconds() - start;
        pith_sequence_describe(seq, &g->end);
        if (g->end.phase == PITH_LENGTH) return true; // this step drew a token and read none
        if (before == PITH_PREFILL || g->n == NEW) continue;
        g->step[g->n] = (float)seconds;
        g->rows[g->n++] = g->end.rows;
        g->seconds += seconds;
    }
}

static bool generate(const bench *b, const char *policy, generation *g) {
    *g = (generation){.end = {.phase = PITH_PREFILL}};
    pith_sequence_params params;
    pith_sequence_params_init(&params);
    params.policy = policy;
    params.sampling.temperature = 0;
    params.ignore_end = true;
    params.max_new = NEW;
    pith_engine *engine;
    pith_sequence *seq;
    pith_error err;
    if (!ours_open(b, b->n_threads, 1, PROMPT + NEW + 16, &engine)) return false;
    const bool ok = (pith_sequence_new(engine, &params, &seq, &err) == PITH_OK || ours_failed(&err)) &&
                    ours_prompt(b, seq, PROMPT) && steps(engine, seq, g);
    pith_engine_free(engine);
    return ok;
}

// A step takes base + slope * rows: least squares over the full cache's steps, whose rows take every value once. The
// other policy's time is then a matter of its rows.
static void expect(const generation *full, generation *g) {
    double n = full->n, x = 0, y = 0, xx = 0, xy = 0;
    for (uint32_t i = 0; i < full->n; i++) {
        const double rows = full->rows[i], seconds = full->step[i];
        x += rows, y += seconds, xx += rows * rows, xy += rows * seconds;
    }
    const double slope = (n * xy - x * y) / (n * xx - x * x), base = (y - slope * x) / n;
    g->expected = 0;
    for (uint32_t i = 0; i < g->n; i++) g->expected += base + slope * g->rows[i];
}

bool reason_round(const bench *b, const char *list, uint32_t round) {
    if (!reason_has(list) || round > 0) return true; // once: it takes minutes, and its numbers are sums over many steps
    for (int i = 0; i < N_POLICIES; i++) {
        generation *g = &results[i];
        if (!generate(b, policies[i], g)) return false;
        expect(&results[0], g);
        fprintf(stderr, "%s: %u tokens in %.1f s, expected %.1f s\n", policies[i], g->end.n_generated, g->seconds,
                g->expected);
    }
    return true;
}

static double mean_step_bytes(const bench *b, const generation *g) {
    double rows = 0;
    for (uint32_t i = 0; i < g->n; i++) rows += g->rows[i];
    return weight_bytes(b) + rows / g->n * row_bytes(b);
}

void reason_print(const bench *b, FILE *out, bool *complete) {
    *complete = results[N_POLICIES - 1].n > 0;
    fputs("| policy | cache rows, peak | cache bytes, peak | share of full | seconds | as the rows predict | tok/s | "
          "read per step | GB/s | inside compression |\n"
          "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n",
          out);
    for (int i = 0; i < N_POLICIES && *complete; i++) {
        const generation *g = &results[i];
        const double rate = g->n / g->seconds, bytes = mean_step_bytes(b, g);
        fprintf(out, "| `%s` | %u | %.1f MB | %.1f %%%s | %.1f | %.1f", policies[i], g->end.rows_peak,
                1e-6 * (double)g->end.bytes_peak, 100 * (double)g->end.bytes_peak / (double)results[0].end.bytes_peak,
                i > 0 ? " (≤ 31 %)" : "", g->seconds, g->expected);
        fprintf(out, " | %.1f | %.0f MB | %.1f | %.0f ms, %.2f %%%s |\n", rate, 1e-6 * bytes, 1e-9 * rate * bytes,
                g->end.compress_ms, 0.1 * g->end.compress_ms / g->seconds, i > 0 ? " (< 1 %)" : "");
    }
}
