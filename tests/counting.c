#include "counting.h"

#include <stdlib.h>
#include <string.h>

static void *count_alloc(void *ctx, size_t bytes) {
    counting *c = ctx;
    if (++c->calls == c->fail_at) return NULL;
    void *p = NULL;
    if (posix_memalign(&p, 64, bytes) != 0) return NULL;
    c->live_calls++;
    c->live_bytes += bytes;
    if (c->live_bytes > c->peak_bytes) c->peak_bytes = c->live_bytes;
    return memset(p, 0, bytes);
}

static void count_release(void *ctx, void *p, size_t bytes) {
    counting *c = ctx;
    c->live_calls--;
    c->live_bytes -= bytes;
    free(p);
}

pith_allocator counting_allocator(counting *state) { return (pith_allocator){state, count_alloc, count_release}; }
