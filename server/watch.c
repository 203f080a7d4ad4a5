#include "server/watch.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>

struct watched {
    int socket;
    struct timespec until;
    bool waits;             // is in the list
    watched *before, *next; // there
};

struct watch {
    uint32_t seconds;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t change;
    watched *first, *last; // those who wait: all have the same time, so the first one's is up first
    bool stopping;
};

// Under the lock, as are the next two. A socket in the list is open: its owner takes it out before closing it, so none
// that is shut down is by then somebody else's.
static void take_out(watch *w, watched *c) {
    if (!c->waits) return;
    *(c->before ? &c->before->next : &w->first) = c->next;
    *(c->next ? &c->next->before : &w->last) = c->before;
    c->waits = false;
}

static void put_last(watch *w, watched *c) {
    take_out(w, c);
    clock_gettime(CLOCK_MONOTONIC, &c->until);
    c->until.tv_sec += (time_t)w->seconds;
    c->waits = true, c->before = w->last, c->next = NULL;
    *(w->last ? &w->last->next : &w->first) = c;
    w->last = c;
    if (w->first == c) pthread_cond_signal(&w->change);
}

static bool is_late(const watched *c) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec != c->until.tv_sec ? now.tv_sec > c->until.tv_sec : now.tv_nsec >= c->until.tv_nsec;
}

static void *run(void *ctx) {
    watch *w = ctx;
    pthread_mutex_lock(&w->lock);
    while (!w->stopping) {
        watched *c = w->first;
        if (!c) {
            pthread_cond_wait(&w->change, &w->lock);
        } else if (is_late(c)) {
            shutdown(c->socket, SHUT_RDWR);
            take_out(w, c);
        } else {
            const struct timespec until = c->until; // it may be gone by then
            pthread_cond_timedwait(&w->change, &w->lock, &until);
        }
    }
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

static void release(watch *w) {
    pthread_cond_destroy(&w->change);
    pthread_mutex_destroy(&w->lock);
    free(w);
}

watch *watch_start(uint32_t seconds) {
    watch *w = calloc(1, sizeof *w);
    if (!w) return NULL;
    w->seconds = seconds;
    pthread_mutex_init(&w->lock, NULL);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&w->change, &monotonic);
    pthread_condattr_destroy(&monotonic);
    if (pthread_create(&w->thread, NULL, run, w) == 0) return w;
    release(w);
    return NULL;
}

void watch_stop(watch *w) {
    if (!w) return;
    pthread_mutex_lock(&w->lock);
    w->stopping = true;
    pthread_cond_signal(&w->change);
    pthread_mutex_unlock(&w->lock);
    pthread_join(w->thread, NULL);
    release(w);
}

watched *watch_open(watch *w, int socket) {
    watched *c = calloc(1, sizeof *c);
    if (!c) return NULL;
    c->socket = socket;
    watch_again(w, c);
    return c;
}

void watch_whole(watch *w, watched *c) {
    pthread_mutex_lock(&w->lock);
    take_out(w, c);
    pthread_mutex_unlock(&w->lock);
}

void watch_again(watch *w, watched *c) {
    pthread_mutex_lock(&w->lock);
    put_last(w, c);
    pthread_mutex_unlock(&w->lock);
}

void watch_close(watch *w, watched *c) {
    watch_whole(w, c);
    free(c);
}
