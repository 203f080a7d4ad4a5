#include "cpu/threads.h"

#include "ggml-cpu.h"
#include "ggml.h"

enum {
    FIRST_PROBE = 2,     // steps: the first one warms caches up, the second is typical
    MAX_INTERVAL = 512,  // steps
    COST_FACTOR = 64,    // a lost probe waits this many times what it cost
    SLOW_STEPS = 2,      // slow steps in a row that ask for a probe at once
};
static const double SLOW = 1.5;     // times the typical step
static const double BETTER = 0.95;  // a probe must win by more than noise
static const double SMOOTHING = 0.2;

pith_status pith_threads_init(pith_threads *t, uint32_t max, pith_error *err) {
    *t = (pith_threads){.max = max};
    for (uint32_t n = 1; n < max && t->n_counts < 7; n *= 2) t->counts[t->n_counts++] = n;
    t->counts[t->n_counts++] = max;
    for (uint32_t i = 0; i < t->n_counts; i++) {
        struct ggml_threadpool_params params = ggml_threadpool_params_default((int)t->counts[i]);
        params.paused = i + 1 < t->n_counts;
        t->pools[i] = ggml_threadpool_new(&params);
        if (!t->pools[i]) {
            pith_threads_free(t);
            return pith_fail(err, PITH_E_MEMORY, "cannot start %u threads", t->counts[i]);
        }
    }
    t->at = t->probe = t->active = t->n_counts - 1;
    t->wait = t->interval = FIRST_PROBE;
    return PITH_OK;
}

void pith_threads_free(pith_threads *t) {
    for (uint32_t i = 0; i < t->n_counts; i++)
        if (t->pools[i]) ggml_threadpool_free(t->pools[i]);
    *t = (pith_threads){0};
}

struct ggml_threadpool *pith_threads_begin(pith_threads *t, bool adaptive, uint32_t *n) {
    uint32_t want = adaptive ? t->probe : t->n_counts - 1;
    if (want != t->active) {
        ggml_threadpool_pause(t->pools[t->active]);
        ggml_threadpool_resume(t->pools[want]);
        t->active = want;
    }
    *n = t->counts[want];
    return t->pools[want];
}

struct ggml_threadpool *pith_threads_current(const pith_threads *t, uint32_t *n) {
    *n = t->counts[t->active];
    return t->pools[t->active];
}

// The neighbouring count to try next: alternately fewer and more, where there are such.
static uint32_t neighbour(pith_threads *t) {
    t->up = !t->up;
    if (t->at == 0) return 1;
    if (t->at + 1 == t->n_counts) return t->at - 1;
    return t->up ? t->at + 1 : t->at - 1;
}

void pith_threads_end(pith_threads *t, double seconds) {
    if (t->n_counts == 1) return;
    if (t->probe != t->at) { // this step was a probe
        double ratio = seconds / t->typical;
        if (ratio < BETTER) {
            t->at = t->probe;
            t->typical = seconds;
            t->interval = FIRST_PROBE;
        } else {
            double cost = (ratio - 1) * COST_FACTOR;
            uint32_t doubled = 2 * t->interval;
            t->interval = cost > doubled ? (uint32_t)(cost < MAX_INTERVAL ? cost : MAX_INTERVAL)
                                         : (doubled < MAX_INTERVAL ? doubled : MAX_INTERVAL);
        }
        t->probe = t->at;
        t->wait = t->interval;
        t->slow = 0;
        return;
    }
    if (t->typical == 0) t->typical = seconds;
    t->slow = seconds > SLOW * t->typical ? t->slow + 1 : 0;
    t->typical += SMOOTHING * (seconds - t->typical);
    if (t->slow >= SLOW_STEPS) t->wait = 1, t->interval = FIRST_PROBE;
    if (--t->wait == 0) t->probe = neighbour(t), t->wait = 1;
}
