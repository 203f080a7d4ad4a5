#include "server/metrics.h"

static const double bounds[METRICS_BOUNDS] = {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1,
                                              0.25,  0.5,    1,     2.5,  5,     10,   60};

void metrics_init(metrics *m) {
    *m = (metrics){0};
    pthread_mutex_init(&m->lock, NULL);
}

void metrics_destroy(metrics *m) { pthread_mutex_destroy(&m->lock); }

void metrics_answer(metrics *m, int status) {
    metrics_hold(m);
    size_t i = 0;
    while (i + 1 < METRICS_STATUSES && m->answers[i].n > 0 && m->answers[i].status != status) i++;
    m->answers[i].status = status, m->answers[i].n++;
    metrics_release(m);
}

void histogram_add(histogram *h, double seconds) {
    size_t i = 0;
    while (i < METRICS_BOUNDS && seconds > bounds[i]) i++;
    h->buckets[i]++;
    h->sum += seconds;
}

static void number(buffer *out, const char *name, const char *kind, const char *help, uint64_t value) {
    buffer_print(out, "# HELP pith_%s %s\n# TYPE pith_%s %s\npith_%s %llu\n", name, help, name, kind, name,
                 (unsigned long long)value);
}

static void write_histogram(buffer *out, const char *name, const char *help, const histogram *h) {
    buffer_print(out, "# HELP pith_%s_seconds %s\n# TYPE pith_%s_seconds histogram\n", name, help, name);
    uint64_t n = 0;
    for (size_t i = 0; i < METRICS_BOUNDS; i++) {
        n += h->buckets[i];
        buffer_print(out, "pith_%s_seconds_bucket{le=\"%g\"} %llu\n", name, bounds[i], (unsigned long long)n);
    }
    n += h->buckets[METRICS_BOUNDS];
    buffer_print(out,
                 "pith_%s_seconds_bucket{le=\"+Inf\"} %llu\npith_%s_seconds_sum %.6f\npith_%s_seconds_count %llu\n",
                 name, (unsigned long long)n, name, h->sum, name, (unsigned long long)n);
}

void metrics_write(metrics *m, buffer *out) {
    metrics_hold(m);
    buffer_print(out, "# HELP pith_answers_total answers begun, by HTTP status\n# TYPE pith_answers_total counter\n");
    for (size_t i = 0; i < METRICS_STATUSES && m->answers[i].n > 0; i++)
        buffer_print(out, "pith_answers_total{status=\"%d\"} %llu\n", m->answers[i].status,
                     (unsigned long long)m->answers[i].n);
    number(out, "prompt_tokens_total", "counter", "prompt tokens of admitted requests", m->prompt_tokens);
    number(out, "shared_tokens_total", "counter", "of these, taken over from earlier requests", m->shared_tokens);
    number(out, "generated_tokens_total", "counter", "tokens generated", m->generated_tokens);
    number(out, "compressions_total", "counter", "compressions of a sequence's cache", m->compressions);
    number(out, "cancelled_total", "counter", "requests whose client went away", m->cancelled);
    number(out, "steps_total", "counter", "steps of the engine", m->steps);
    number(out, "running", "gauge", "answers being generated", m->running);
    number(out, "waiting", "gauge", "requests in the queue", m->waiting);
    number(out, "cache_bytes", "gauge", "cache budget", m->pool_bytes);
    number(out, "cache_used_bytes", "gauge", "cache in pages of running answers, kept beginnings apart",
           m->pool_used_bytes);
    number(out, "cache_prefix_bytes", "gauge", "cache in beginnings of prompts, kept for later requests",
           m->prefix_bytes);
    number(out, "cache_promised_bytes", "gauge", "worst case of all running answers", m->pool_promised_bytes);
    write_histogram(out, "first_token", "from a request's arrival to its first token", &m->first_token);
    write_histogram(out, "next_token", "between two tokens of an answer", &m->next_token);
    metrics_release(m);
}
