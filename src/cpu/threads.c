#include "cpu/threads.h"

#include <pthread.h>
#include <semaphore.h>

#include "ggml-cpu.h"
#include "ggml.h"

enum {
    FIRST_PROBE = 2,    // steps: the first one warms caches up
    MAX_INTERVAL = 512, // steps
    COST_FACTOR = 160,  // a lost probe waits this many times what it cost
    SLOW_STEPS = 2,     // slow steps in a row that ask for a probe at once
};
static const double SLOW = 1.5;    // times the typical step
static const double BETTER = 0.95; // more threads must win by more than noise; as fast with fewer is better
static const double SMOOTHING = 0.2;

static void *wait_and_go(void *gate) {
    while (sem_wait(gate) != 0) {} // interrupted by a signal: wait on
    return NULL;
}

// ggml aborts when a thread of its pools cannot start: so as many of our own are started first, all at once.
static bool can_start(uint32_t n) {
    sem_t gate;
    pthread_t threads[2 * PITH_MAX_THREADS];
    uint32_t started = 0;
    if (sem_init(&gate, 0, 0) != 0) return false;
    while (started < n && pthread_create(&threads[started], NULL, wait_and_go, &gate) == 0) started++;
    for (uint32_t i = 0; i < started; i++) sem_post(&gate);
    for (uint32_t i = 0; i < started; i++) pthread_join(threads[i], NULL);
    sem_destroy(&gate);
    return started == n;
}

pith_status pith_threads_init(pith_threads *t, uint32_t max, pith_error *err) {
    *t = (pith_threads){.max = max};
    for (uint32_t n = 1; n < max && t->n_counts < 7; n *= 2) t->counts[t->n_counts++] = n;
    t->counts[t->n_counts++] = max;
    uint32_t total = 0; // of all pools; the calling thread is one of each
    for (uint32_t i = 0; i < t->n_counts; i++) total += t->counts[i] - 1;
    if (!can_start(total)) {
        *t = (pith_threads){0};
        return pith_fail(err, PITH_E_MEMORY, "cannot start the %u threads that up to %u per step need", total, max);
    }
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
    t->up = t->at == 0 || (!t->up && t->at + 1 < t->n_counts);
    return t->up ? t->at + 1 : t->at - 1;
}

static uint32_t longer_interval(const pith_threads *t, double ratio) {
    const double cost = (ratio - 1) * COST_FACTOR, doubled = 2.0 * t->interval;
    const double steps = cost > doubled ? cost : doubled;
    return steps < MAX_INTERVAL ? (uint32_t)steps : MAX_INTERVAL;
}

static void end_probe(pith_threads *t, double seconds) {
    const double ratio = seconds / t->typical;
    if (ratio < BETTER || (!t->up && ratio <= 1)) {
        t->at = t->probe;
        t->typical = seconds;
        t->interval = FIRST_PROBE; // a single step may deceive: the other one gets its chance again soon
        t->up = !t->up;            // but first the next one in the direction that paid
    } else {
        t->interval = longer_interval(t, ratio);
    }
    t->probe = t->at;
    t->wait = t->interval;
    t->slow = 0;
}

void pith_threads_end(pith_threads *t, double seconds) {
    if (t->n_counts == 1) return;
    if (t->probe != t->at) {
        end_probe(t, seconds);
        return;
    }
    if (t->typical == 0 || SLOW * seconds < t->typical) t->typical = seconds; // the first steps fault pages in
    t->slow = seconds > SLOW * t->typical ? t->slow + 1 : 0;
    t->typical += SMOOTHING * (seconds - t->typical);
    if (t->slow >= SLOW_STEPS) { // something has changed: what was learnt before no longer counts
        t->typical = seconds;
        t->wait = 1, t->interval = FIRST_PROBE;
    }
    if (--t->wait == 0) t->probe = neighbour(t), t->wait = 1;
}
