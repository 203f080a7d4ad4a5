#define _GNU_SOURCE // POLLRDHUP
#include "server/job.h"

#include <poll.h>
#include <stdlib.h>
#include <time.h>

#include "base/clock.h"
#include "base/rng.h"
#include "server/answer.h"

// Most bytes of an answer that wait for a slow reader; a client that leaves more unread is given up.
enum { MOST_UNREAD = 16 << 20 };

static void name_job(job *j) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    const uint64_t key = pith_mix64((uint64_t)now.tv_nsec ^ (uint64_t)now.tv_sec << 32 ^ (uint64_t)(uintptr_t)j);
    j->created = now.tv_sec;
    snprintf(j->id, sizeof j->id, "%s-%016llx", j->request.chat ? "chatcmpl" : "cmpl", (unsigned long long)key);
    if (!j->request.seeded) j->request.seed = pith_mix64(key);
}

job *job_new(request *r, const char *model) {
    job *j = calloc(1, sizeof *j);
    if (!j) return request_free(r), NULL;
    j->request = *r;
    *r = (request){0};
    j->model = model, j->socket = -1, j->references = 1, j->arrived = pith_seconds();
    j->out = buffer_new(MOST_UNREAD);
    pthread_mutex_init(&j->lock, NULL);
    name_job(j);
    for (uint32_t i = 0; i < j->request.n; i++)
        j->choices[i].reasoning = j->choices[i].content = buffer_new(MOST_UNREAD);
    return j;
}

void job_hold(job *j) {
    pthread_mutex_lock(&j->lock);
    j->references++;
    pthread_mutex_unlock(&j->lock);
}

void job_drop(job *j) {
    pthread_mutex_lock(&j->lock);
    const bool last = --j->references == 0;
    pthread_mutex_unlock(&j->lock);
    if (!last) return;
    for (uint32_t i = 0; i < j->request.n; i++) {
        choice *c = &j->choices[i];
        buffer_free(&c->reasoning);
        buffer_free(&c->content);
        json_decref(c->logprobs);
        pith_grammar_free(c->grammar);
        free(c->logits);
        free(c->counts);
        free(c->kept);
    }
    buffer_free(&j->out);
    pith_grammar_free(j->grammar);
    free(j->prompt);
    request_free(&j->request);
    pthread_mutex_destroy(&j->lock);
    free(j);
}

static void wake(job *j) {
    if (j->sleeping) j->sleeping = false, j->wake(j->wake_ctx);
}

void job_accept(job *j) {
    pthread_mutex_lock(&j->lock);
    j->status = 200;
    if (j->request.stream) wake(j); // whole answers are sent when they are whole
    pthread_mutex_unlock(&j->lock);
}

void job_write(job *j, const char *bytes, size_t n) {
    pthread_mutex_lock(&j->lock);
    buffer_add(&j->out, bytes, n);
    pthread_mutex_unlock(&j->lock);
}

void job_flush(job *j) {
    pthread_mutex_lock(&j->lock);
    if (j->request.stream && j->out.n > j->out.taken) wake(j);
    pthread_mutex_unlock(&j->lock);
}

void job_finish(job *j) {
    pthread_mutex_lock(&j->lock);
    j->finished = true;
    wake(j);
    pthread_mutex_unlock(&j->lock);
}

void job_fail(job *j, const refusal *why) {
    buffer body = buffer_new(1 << 16);
    pthread_mutex_lock(&j->lock);
    const bool begun = j->status != 0 && j->request.stream;
    if (begun) buffer_add(&body, "data: ", 6);
    answer_error(&body, why);
    if (begun) buffer_add(&body, "\n\n", 2);
    else j->status = why->status;
    buffer_add(&j->out, body.at, body.n);
    j->finished = true;
    wake(j);
    pthread_mutex_unlock(&j->lock);
    buffer_free(&body);
}

// A client that closes its side has gone: nobody who waits for an answer does that.
bool job_is_gone(job *j) {
    pthread_mutex_lock(&j->lock);
    if (j->socket >= 0 && !j->gone) {
        struct pollfd p = {.fd = j->socket, .events = POLLRDHUP};
        if (poll(&p, 1, 0) > 0 && (p.revents & (POLLRDHUP | POLLHUP | POLLERR))) j->gone = true;
    }
    if (j->out.failed) j->gone = true;
    const bool gone = j->gone;
    pthread_mutex_unlock(&j->lock);
    return gone;
}

void job_leave(job *j) {
    pthread_mutex_lock(&j->lock);
    j->gone = true, j->socket = -1, j->sleeping = false;
    pthread_mutex_unlock(&j->lock);
    job_drop(j);
}
