// What the server counts, for Prometheus. Any thread may call these.
#ifndef PITH_SERVER_METRICS_H
#define PITH_SERVER_METRICS_H

#include <pthread.h>
#include <stdint.h>

#include "server/buffer.h"

enum { METRICS_BOUNDS = 14, METRICS_STATUSES = 16 };

// Seconds; a value falls into the first bucket whose bound it does not pass, or into the one behind the last.
typedef struct histogram {
    uint64_t buckets[METRICS_BOUNDS + 1];
    double sum;
} histogram;

typedef struct metrics {
    pthread_mutex_t lock;
    struct {
        int status;
        uint64_t n;
    } answers[METRICS_STATUSES]; // by HTTP status, in order of appearance
    uint64_t prompt_tokens, shared_tokens, generated_tokens, compressions, cancelled, steps;
    uint64_t running, waiting, pool_bytes, pool_used_bytes, prefix_bytes, pool_promised_bytes; // now
    histogram first_token, next_token;
} metrics;

void metrics_init(metrics *m);
void metrics_destroy(metrics *m);

void metrics_answer(metrics *m, int status); // an answer with this status was begun

// Prometheus' text format, version 0.0.4.
void metrics_write(metrics *m, buffer *out);

// Between these two calls, which take and release the lock, the fields may be changed.
static inline metrics *metrics_hold(metrics *m) { return pthread_mutex_lock(&m->lock), m; }
static inline void metrics_release(metrics *m) { pthread_mutex_unlock(&m->lock); }
void histogram_add(histogram *h, double seconds);

#endif
